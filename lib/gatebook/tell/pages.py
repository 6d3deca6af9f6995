"""The pages: verdict first, then what blocks with prompt, answer and reason, then the rest. No script, no link outward.

What a model said is escaped like any text; control and direction-changing characters are shown as escapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatebook.judge.verdict import Verdict
from gatebook.record.answer import read_answer
from gatebook.record.exchange import Exchange
from gatebook.record.run import Run
from gatebook.tell.standing import BLOCKING, CaseStanding, standings
from gatebook.tell.text import excerpt, visible

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
LARGEST_BYTES = 500_000
LONGEST_CHARS = (2000, 400, 100)
"""Excerpts of a text; the shorter ones are tried when a page gets too large."""
MOST_CASES = (40, 15, 5)
MEANS = {
    "PASS": "Every expected case was asked of the live server, answered, recorded and judged, and nothing blocks.",
    "FAIL": "The deployment must not ship: something below is the deployment's own fault.",
    "ERROR": "Nothing can be said about the deployment: it could not be measured. Trying again may help.",
    "INCONCLUSIVE": "Nothing was found broken, but there are too few data to say that it may ship.",
}
POLICIES = {
    "must": "every case must pass",
    "no_worse": "no worse than the baseline",
    "proven_no_worse": "proven no worse",
    "watch": "watched, never blocks",
}


@dataclass(frozen=True)
class Turn:
    """One message of a conversation, shortened."""

    who: str
    text: str
    more: int
    """Characters that were left out."""


def notebook_page(run: Run, notebook: str, verdict: Verdict) -> str:
    """The page of one executed notebook, under 500 KB: excerpts and lists get shorter until it fits."""
    found = standings(run, verdict, notebook)
    cells, no_cells = _cells(run.path / f"{notebook}.ipynb")
    by = {name: [c for c in found if c.standing == name] for name in ("passes", "tolerated", "excused")}
    blocking = [c for c in found if c.standing in BLOCKING]
    tolerated = by["tolerated"] + by["excused"]
    page = ""
    for longest, most in zip(LONGEST_CHARS, MOST_CASES, strict=True):
        page = _render(
            "notebook.html.j2", run, verdict, longest, title=notebook, heading=_heading(run, notebook), blocking=blocking, shown=blocking[:most],
            tolerated=tolerated, tolerated_shown=tolerated[:most], passing=by["passes"], cells=cells, no_cells=no_cells,
        )  # fmt: skip
        if len(page.encode()) <= LARGEST_BYTES:
            return page
        if len(cells.encode()) > LARGEST_BYTES // 2:
            cells, no_cells = "", f"The executed notebook is too long for a page; open {notebook}.ipynb."
    return page


def index_page(run: Run, verdict: Verdict, notebooks: dict[str, Verdict]) -> str:
    """The run at a glance, with links to everything in its folder."""
    blocking = [c for notebook in run.notebooks for c in standings(run, verdict, notebook) if c.blocks]
    return _render(
        "index.html.j2", run, verdict, LONGEST_CHARS[0], title="Gatebook run", heading=f"May {verdict.served.model} ship?",
        notebooks=notebooks, pages=[*notebooks, "90_verdict"], blocking=blocking,
    )  # fmt: skip


def _render(template: str, run: Run, verdict: Verdict, longest: int, **values: Any) -> str:
    environment = _environment()
    environment.filters["turns"] = lambda case: _turns(case, longest)
    values |= {"v": verdict, "m": run.manifest, "css": _css(), "means": MEANS, "policies": POLICIES}
    return environment.get_template(template).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"policies": POLICIES}
    environment.filters["show"] = _show
    return environment


def _css() -> Any:
    from markupsafe import Markup

    return Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # noqa: S704 (our own file)


def _show(text: str, most: int = 600) -> str:
    short, more = excerpt(visible(text), most)
    return f"{short} …" if more else short


def _heading(run: Run, notebook: str) -> str:
    """The notebook's own question: its first heading."""
    import json

    try:
        cells = json.loads((run.path / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
        first = next(line for c in cells if c["cell_type"] == "markdown" for line in "".join(c["source"]).splitlines())
    except (OSError, ValueError, KeyError, StopIteration):
        return notebook
    return visible(first.lstrip("# "))


def _turns(case: CaseStanding, longest: int) -> list[Turn]:
    """What was said in a case, message by message, several requests one after the other."""
    asked = [e for e in case.exchanges if e.kind in ("ask", "ready") or (e.kind == "canary" and e.fault)]
    return [
        turn
        for exchange in asked
        for turn in _exchange(exchange, longest, f"{exchange.ask}: " if len(asked) > 1 else "")
    ]


def _exchange(exchange: Exchange, longest: int, label: str) -> list[Turn]:
    turns = []
    for message in (exchange.body or {}).get("messages") or []:
        turns.append(_turn(f"{label}{message.get('role')}", str(message.get("content")), longest))
    if exchange.body is None:
        turns.append(_turn(f"{label}request", f"GET {exchange.path}", longest))
    answer, timing = read_answer(exchange), exchange.timing
    said = answer.content if answer.content is not None else answer.reasoning or exchange.detail or exchange.text or ""
    facts = [f"finish_reason {answer.finish_reason}" if answer.finish_reason else exchange.detail]
    if (tokens := answer.tokens("completion_tokens")) is not None:
        facts.append(f"{tokens} tokens")
    if timing and timing.first_token_ms is not None:
        facts.append(f"first token {timing.first_token_ms:.0f} ms")
    if timing and timing.end_ms is not None:
        facts.append(f"complete {timing.end_ms:.0f} ms")
    turns.append(_turn(f"{label}answer · {' · '.join(filter(None, facts))}", said or "(nothing)", longest))
    return turns


def _turn(who: str, text: str, longest: int) -> Turn:
    short, more = excerpt(visible(text), longest)
    return Turn(visible(who)[:300], short, more)


def _cells(path: Path) -> tuple[Any, str]:
    """(the notebook's cells as HTML, or why there are none)."""
    import warnings

    from markupsafe import Markup

    if not path.exists():
        return "", f"{path.name} was not written: the notebook did not run."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from nbconvert import HTMLExporter

            exporter = HTMLExporter(template_name="cells", extra_template_basedirs=[str(TEMPLATES)])
            body, _ = exporter.from_filename(str(path))
    except Exception as error:  # a half-written notebook is no reason to have no page
        return "", f"{path.name} cannot be shown: {type(error).__name__}"
    return Markup(visible(body)), ""  # noqa: S704 (nbconvert escapes; our tables escape)
