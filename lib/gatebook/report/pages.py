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

from gatebook.record.executed import unfinished
from gatebook.record.run import Run
from gatebook.report.conversation import conversation, pretty
from gatebook.report.spending import altogether, left_out, parts
from gatebook.report.standing import by_todo, excuses, few, standings
from gatebook.report.text import excerpt, visible
from gatebook.verdict.causes import refusals
from gatebook.verdict.verdict import Verdict

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
    """The executed notebook as it is shown; its largest outputs are left out until it fits."""


DETAILS = (
    Detail(text_chars=2000, cases=60, passing=60, rows=500, notebook_bytes=350_000),
    Detail(text_chars=2000, cases=30, passing=0, rows=500, notebook_bytes=250_000),
    Detail(text_chars=400, cases=20, passing=0, rows=200, notebook_bytes=120_000),
    Detail(text_chars=100, cases=5, passing=0, rows=50, notebook_bytes=0),
)
"""The first one with which a page stays under LARGEST_BYTES is used."""
PASSING_CHARS = 400
DISPLAYED = ("image/png", "text/html", "text/plain")


def notebook_page(run: Run, notebook: str, verdict: Verdict) -> str:
    """The page of one executed notebook, under 500 KB: excerpts and lists get shorter until it fits."""
    planned = notebook in run.notebooks
    found = [c for name in ([notebook] if planned else run.notebooks) for c in standings(run, verdict, name)]

    def page(detail: Detail) -> str:
        cells, trouble = _cells(run.path / f"{notebook}.ipynb", detail.notebook_bytes)
        return _render(
            "notebook.html.j2", run, verdict, detail, title=notebook, heading=_heading(run, notebook), planned=planned,
            blocking=[c for c in found if c.blocks], passing=[c for c in found if c.standing == "passes"],
            tolerated=[c for c in found if c.standing in ("tolerated", "excused")], record=f"{notebook}.exchanges.jsonl",
            cells=cells, trouble=trouble,
        )  # fmt: skip

    return fitting(page)


def index_page(run: Run, verdict: Verdict, notebooks: dict[str, Verdict]) -> str:
    """The run at a glance, with links to everything in its folder."""
    blocking = [c for notebook in run.notebooks for c in standings(run, verdict, notebook) if c.blocks]
    rows = {name: (_heading(run, name), v) for name, v in notebooks.items()}
    costs, lost = [*parts(run), altogether(run)], left_out(run)
    return fitting(
        lambda detail: _render(
            "index.html.j2", run, verdict, detail, title="Gatebook run", heading=f"May {verdict.served.model} ship?",
            notebooks=rows, blocking=blocking, costs=costs, left_out=lost,
        )
    )  # fmt: skip


def fitting(page: Callable[[Detail], str]) -> str:
    """The fullest page that is small enough."""
    made = ""
    for detail in DETAILS:
        made = page(detail)
        if len(made.encode()) <= LARGEST_BYTES:
            break
    return made


def _render(template: str, run: Run, verdict: Verdict, detail: Detail, **values: Any) -> str:
    return render(template, v=verdict, m=run.manifest, detail=detail, conversation=conversation, **values)


def render(template: str, **values: Any) -> str:
    """A page from one of our templates, with our style in it; whatever stands in `values` is escaped and made visible."""
    return str(_environment().get_template(template).render(css=_css(), **values))


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
    environment.globals |= {
        "policies": POLICIES,
        "means": MEANS,
        "signs": SIGNS,
        "PASSING_CHARS": PASSING_CHARS,
        "excuses": excuses,
        "few": few,
        "by_todo": by_todo,
        "refusals": refusals,
    }
    environment.filters |= {"show": _show, "pretty": pretty}
    return environment


def _css() -> Markup:
    from markupsafe import Markup

    return Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # noqa: S704 (our own file)


def _show(value: object, most: int = 600) -> str:
    short, more = excerpt(str(value), most)
    return f"{short} …" if more else short


def _heading(run: Run, notebook: str) -> str:
    """The notebook's own question: its first heading."""
    try:
        cells = json.loads((run.path / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
        lines = (line for c in cells if c["cell_type"] == "markdown" for line in "".join(c["source"]).splitlines())
        return str(next(line for line in lines if line.startswith("# "))[2:])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, StopIteration):
        return notebook


def _cells(path: Path, most_bytes: int) -> tuple[Any, str]:
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
            _leave_out(notebook, most_bytes, path.name)
            settings = Config()
            settings.NbConvertBase.display_data_priority = list(DISPLAYED)
            settings.HTMLExporter.exclude_anchor_links = True
            exporter = HTMLExporter(config=settings, template_name="cells", extra_template_basedirs=[str(TEMPLATES)])
            body, _ = exporter.from_notebook_node(notebook)
    except Exception as error:  # a half-written notebook is no reason to have no page
        return "", f"{path.name} cannot be shown: {type(error).__name__}"
    stopped = unfinished(path)
    return Markup(visible(body)), f"It did not run to its end. {stopped}" if stopped else ""  # noqa: S704 (nbconvert and our tables escape)


def _leave_out(notebook: Any, most_bytes: int, name: str) -> None:
    """Put a note in the place of the largest outputs until the rest is small enough."""
    outputs = {(i, j): _bytes(o) for i, c in enumerate(notebook.cells) for j, o in enumerate(c.get("outputs", []))}
    total = sum(outputs.values())
    for (i, j), size in sorted(outputs.items(), key=lambda item: -item[1]):
        if total <= most_bytes:
            return
        total -= size
        note = f"{size:,} bytes, too long for this page: open {name}"
        notebook.cells[i].outputs[j] = {"output_type": "stream", "name": "stdout", "text": note}


def _bytes(output: Any) -> int:
    """Of what the page shows of an output."""
    data = output.get("data", {})
    shown = next((data[kind] for kind in DISPLAYED if kind in data), output.get("text", ""))
    return len("".join(shown).encode())


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
