"""`transformers serve` (5.19): a development server; its replies carry `<model>@<branch>`."""

from __future__ import annotations

from gatebook.engines.engine import Engine, Probes


class _Transformers(Engine):
    name = "transformers"
    answers_any_name = True

    def recognises(self, probes: Probes) -> bool:
        return False

    def is_alias(self, asked: str, told: str, probes: Probes) -> bool:
        return told.rpartition("@")[0] == asked or super().is_alias(asked, told, probes)


TRANSFORMERS = _Transformers()
