"""A record and the plan that it was made by: whoever changes the manifest alone is caught by what was asked."""

from __future__ import annotations

from collections.abc import Iterable

from gatebook.record.run import Run

OF_TARGET = frozenset({"ready", "ask", "canary"})
"""Kinds of requests for the model under test."""


def beyond_plan(run: Run, notebooks: Iterable[str]) -> str | None:
    """Return what these notebooks asked that the manifest does not expect: a case, or another model; None where nothing. Raises
    BrokenRecord."""
    expected, model = {i for ids in run.manifest.expected.values() for i in ids}, run.manifest.profile.target.model
    for notebook in notebooks:
        for e in (e for e in run.exchanges(notebook) if e.kind in OF_TARGET):
            if e.case is not None and e.case not in expected:
                return f"{notebook} was asked case {e.case!r}, and the manifest does not expect it"
            asked = (e.body or {}).get("model", model)
            if asked != model and not (e.case and any("model" in r.options for r in run.cases[e.case].requests())):
                return f"{notebook} asked for model {asked!r}, and the manifest names {model!r}"
    return None
