"""`transformers serve` (5.19): a development server; its replies carry `<model>@<branch>`."""

from __future__ import annotations

from gatebook.engines.engine import Engine, Probes


class Transformers(Engine):
    name = "transformers"

    def recognises(self, probes: Probes) -> bool:
        """Its cards have a creation time with a fraction, and the owner that the model's id begins with."""
        return any(
            isinstance(card.get("created"), float) and card.get("owned_by") == str(card.get("id")).partition("/")[0]
            for card in probes.cards
        )

    def is_alias(self, asked: str, told: str, probes: Probes) -> bool:
        return told.rpartition("@")[0] == asked or super().is_alias(asked, told, probes)
