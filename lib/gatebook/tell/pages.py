"""The pages: verdict first, then what blocks with prompt, answer and reason, then the rest. No script, no link outward.

What a model said is escaped like any text; control and direction-changing characters are shown as escapes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatebook.judge.verdict import Verdict
from gatebook.plan.cases import Case
from gatebook.record.answer import Answer, read_answer
from gatebook.record.exchange import Exchange
from gatebook.record.executed import unfinished
from gatebook.record.run import Run
from gatebook.tell.standing import CaseStanding, standings
from gatebook.tell.text import excerpt, visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
LARGEST_BYTES = 500_000
MEANS = {
    "PASS": "Every expected case was asked of the live server, answered, recorded and judged, and nothing blocks.",
    "FAIL": "The deployment must not ship: something below is the deployment's own fault.",
    "ERROR": "Nothing can be said about the deployment: it could not be measured. Trying again may help.",
    "INCONCLUSIVE": "Nothing was found broken, but there are too few data to say that it may ship.",
}
POLICIES = {
    "must": "every case must pass",
    "no_worse": "no worse than the baseline",
    "proven_no_worse": "proven no worse than the baseline",
    "watch": "watched, never blocks",
}
SIGNS = {"PASS": "✓", "FAIL": "✗", "ERROR": "!", "INCONCLUSIVE": "?"}
SIGNS |= {"pass": "✓", "fail": "✗", "error": "!", "not_measured": "–"}
NOT_OPTIONS = ("messages", "model", "stream", "stream_options", "user")


@dataclass(frozen=True)
class Detail:
    """How much a page shows."""

    text_chars: int
    """The longest excerpt of a prompt or an answer."""
    cases: int
    """Cases in full that block, and as many that do not."""
    passing: int
    """Passing cases with prompt and answer."""
    rows: int
    """Lines of a list."""
    notebook_bytes: int
    """The longest executed notebook that is shown."""


DETAILS = (
    Detail(text_chars=2000, cases=60, passing=60, rows=500, notebook_bytes=350_000),
    Detail(text_chars=2000, cases=30, passing=0, rows=500, notebook_bytes=250_000),
    Detail(text_chars=400, cases=20, passing=0, rows=200, notebook_bytes=120_000),
    Detail(text_chars=100, cases=5, passing=0, rows=50, notebook_bytes=0),
)
"""The first one with which a page stays under LARGEST_BYTES is used."""
PASSING_CHARS = 400


@dataclass(frozen=True)
class Turn:
    """One message of a conversation, shortened."""

    kind: str
    """prompt, answer or trouble."""
    who: str
    text: str
    more: int
    """Characters that were left out."""

    @property
    def lang(self) -> str:
        """Han, kana and hangul need fonts of their own; the right ones are chosen by language."""
        for name, letters in (("ja", "\u3040-\u30ff"), ("ko", "\uac00-\ud7af"), ("zh", "\u3400-\u9fff")):
            if re.search(f"[{letters}]", self.text):
                return name
        return ""


@dataclass(frozen=True)
class Request:
    """One request of a case with its reply."""

    name: str
    turns: list[Turn]
    facts: list[str]
    options: str
    """The request's options as JSON."""


def notebook_page(run: Run, notebook: str, verdict: Verdict) -> str:
    """The page of one executed notebook, under 500 KB: excerpts and lists get shorter until it fits."""
    planned = notebook in run.notebooks
    found = [c for name in ([notebook] if planned else run.notebooks) for c in standings(run, verdict, name)]
    cells, trouble = _cells(run.path / f"{notebook}.ipynb")
    size = len(cells.encode())

    def page(detail: Detail) -> str:
        shown = size <= detail.notebook_bytes
        return _render(
            "notebook.html.j2", run, verdict, detail, title=notebook, heading=_heading(run, notebook), planned=planned,
            blocking=[c for c in found if c.blocks], passing=[c for c in found if c.standing == "passes"],
            tolerated=[c for c in found if c.standing in ("tolerated", "excused")], record=f"{notebook}.exchanges.jsonl",
            cells=cells if shown else "",
            trouble=trouble if shown else f"The executed notebook is too long for a page; open {notebook}.ipynb.",
        )  # fmt: skip

    return _fitting(page)


def index_page(run: Run, verdict: Verdict, notebooks: dict[str, Verdict]) -> str:
    """The run at a glance, with links to everything in its folder."""
    blocking = [c for notebook in run.notebooks for c in standings(run, verdict, notebook) if c.blocks]
    rows = {name: (_heading(run, name), v) for name, v in notebooks.items()}
    return _fitting(
        lambda detail: _render(
            "index.html.j2", run, verdict, detail, title="Gatebook run", heading=f"May {verdict.served.model} ship?",
            notebooks=rows, blocking=blocking,
        )
    )  # fmt: skip


def _fitting(page: Callable[[Detail], str]) -> str:
    """The fullest page that is small enough."""
    made = ""
    for detail in DETAILS:
        made = page(detail)
        if len(made.encode()) <= LARGEST_BYTES:
            break
    return made


def _render(template: str, run: Run, verdict: Verdict, detail: Detail, **values: Any) -> str:
    return (
        _environment()
        .get_template(template)
        .render(v=verdict, m=run.manifest, css=_css(), detail=detail, conversation=_conversation, **values)
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"policies": POLICIES, "means": MEANS, "signs": SIGNS, "PASSING_CHARS": PASSING_CHARS}
    environment.filters |= {"show": _show, "pretty": _pretty}
    return environment


def _css() -> Markup:
    from markupsafe import Markup

    return Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # noqa: S704 (our own file)


def _show(value: object, most: int = 600) -> str:
    short, more = excerpt(str(value), most)
    return f"{short} …" if more else short


def _pretty(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def _heading(run: Run, notebook: str) -> str:
    """The notebook's own question: its first heading."""
    try:
        cells = json.loads((run.path / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
        lines = (line for c in cells if c["cell_type"] == "markdown" for line in "".join(c["source"]).splitlines())
        return str(next(line for line in lines if line.startswith("# "))[2:])
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return notebook


def _conversation(case: CaseStanding, most: int) -> list[Request]:
    """What was said in a case, request by request. A canary (the plain request after it) only where it broke."""
    asked = [e for e in case.exchanges if e.kind in ("ask", "ready") or (e.kind == "canary" and e.fault)]
    if not asked and case.case:
        return _never_asked(case.case, most)
    return [_request(e, (e.ask or e.kind) if len(asked) > 1 else "", most) for e in asked]


def _never_asked(case: Case, most: int) -> list[Request]:
    return [
        Request(ask.name if case.asks else "", _prompt(ask.messages or [], ask.path, most), ["never asked"], "")
        for ask in case.requests()
    ]


def _request(exchange: Exchange, name: str, most: int) -> Request:
    answer, body = read_answer(exchange), exchange.body or {}
    turns = _prompt(body.get("messages") or [], None if exchange.body else exchange.path, most)
    turns += _reply(exchange, answer, most)
    options = {key: value for key, value in body.items() if key not in NOT_OPTIONS}
    return Request(name, turns, _facts(exchange, answer), _pretty(options)[:most] if options else "")


def _prompt(messages: list[dict[str, Any]], path: str | None, most: int) -> list[Turn]:
    if path is not None:
        return [Turn("prompt", "request", f"GET {path}", 0)]
    return [_turn("prompt", str(m.get("role")), m.get("content"), most) for m in messages]


def _reply(exchange: Exchange, answer: Answer, most: int) -> list[Turn]:
    turns = [_turn("answer", "reasoning field", answer.reasoning, most)] if answer.reasoning else []
    if answer.content is not None:
        turns.append(_turn("answer", "answer", answer.content if answer.content else "(empty)", most))
    elif exchange.text:
        turns.append(_turn("answer", "reply as received", exchange.text, most))
    elif not exchange.fault:
        turns.append(_turn("answer", "answer", "(no content)", most))
    said = [exchange.detail] if exchange.detail else []
    said += [answer.error] if answer.error and answer.error not in exchange.detail else []
    said += [f"not the JSON it should be: {answer.malformed}"] if answer.malformed else []
    return turns + ([_turn("trouble", "what went wrong", "\n".join(said), most)] if said else [])


def _facts(exchange: Exchange, answer: Answer) -> list[str]:
    """The numbers of a reply, in words."""
    timing, tokens = exchange.timing, {k: answer.tokens(f"{k}_tokens") for k in ("prompt", "completion")}
    facts = [
        f"HTTP {exchange.status}" if exchange.status else "no HTTP status",
        f"finish_reason {answer.finish_reason}" if answer.finish_reason else "",
        f"{tokens['prompt']:,} prompt tokens" if tokens["prompt"] is not None else "",
        f"{tokens['completion']:,} answer tokens" if tokens["completion"] is not None else "",
        f"first token {_time(timing.first_token_ms)}" if timing and timing.first_token_ms is not None else "",
        f"complete {_time(timing.end_ms)}" if timing and timing.end_ms is not None else "",
        f"{answer.tool_calls} tool calls" if answer.tool_calls else "",
        f"{len(exchange.attempts)} attempts on the wire" if len(exchange.attempts) > 1 else "",
    ]
    return [fact for fact in facts if fact]


def _time(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def _turn(kind: str, who: str, content: object, most: int) -> Turn:
    short, more = excerpt(content if isinstance(content, str) else _pretty(content), most)
    return Turn(kind, who[:60], short, more)


def _cells(path: Path) -> tuple[Any, str]:
    """(the notebook's cells as HTML, what is wrong with its execution)."""
    import warnings

    from markupsafe import Markup

    if not path.exists():
        return "", f"{path.name} was not written: the notebook did not run."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nbformat
            from nbconvert import HTMLExporter
            from traitlets.config import Config

            notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
            notebook.cells = [_under_our_heading(c) for c in notebook.cells if not _banner(c)]
            settings = Config()
            settings.NbConvertBase.display_data_priority = ["image/png", "text/html", "text/plain"]
            settings.HTMLExporter.exclude_anchor_links = True
            exporter = HTMLExporter(config=settings, template_name="cells", extra_template_basedirs=[str(TEMPLATES)])
            body, _ = exporter.from_notebook_node(notebook)
    except Exception as error:  # a half-written notebook is no reason to have no page
        return "", f"{path.name} cannot be shown: {type(error).__name__}"
    stopped = unfinished(path)
    return Markup(visible(body)), f"It did not run to its end. {stopped}" if stopped else ""  # noqa: S704 (nbconvert and our tables escape)


def _banner(cell: Any) -> bool:
    """The red banner that papermill writes above a notebook whose gate raised."""
    return (
        any(str(tag).startswith("papermill-error-cell") for tag in cell.metadata.get("tags", []))
        and cell.cell_type == "markdown"
    )


def _under_our_heading(cell: Any) -> Any:
    """The notebook stands under a heading of the second level, so its own begin at the third."""
    if cell.cell_type == "markdown":
        cell.source = re.sub(r"^(#{1,4}) ", r"##\1 ", cell.source, flags=re.MULTILINE)
    return cell
