"""The pages: of a run and its notebooks, of two runs beside each other, of a verification. No script, no link outward.

Verdict first, then what blocks with prompt, answer and reason, then the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from gatebook.checks.stats import ALPHA
from gatebook.config.cases import Case
from gatebook.config.files import replace_text
from gatebook.errors import BadInput, one_line, os_reason
from gatebook.record.executed import unfinished
from gatebook.record.manifest import Manifest
from gatebook.record.run import Run, now
from gatebook.report.conversation import Request, conversation
from gatebook.report.standing import altogether, by_todo, causes, excuses, left_out, parts, standings
from gatebook.report.text import TEMPLATES, render, visible
from gatebook.verdict.causes import refusals
from gatebook.verdict.comparing import Difference, GroupDifference, Judged, LatencyDifference, Word
from gatebook.verdict.policy import COMPARED
from gatebook.verdict.verdict import Verdict, Verification

WORDS: dict[Word, str] = {"worse": "FAIL", "error": "ERROR", "cannot tell": "INCONCLUSIVE", "better": "PASS", "same": "PASS", "watched": ""}  # fmt: skip
"""A word -> the verdict word with whose sign and colour it is shown."""
LARGEST_BYTES = 500_000


class Detail(NamedTuple):
    """How much a page shows: the longest excerpt of a prompt or an answer; cases in full that block, and as many that do
    not; passing cases with prompt and answer; lines of a list; and of the notebook, whose largest outputs are left out."""

    text_chars: int
    cases: int
    passing: int
    rows: int
    notebook_bytes: int


DETAILS = (
    Detail(text_chars=2000, cases=60, passing=60, rows=500, notebook_bytes=350_000),
    Detail(text_chars=2000, cases=30, passing=0, rows=500, notebook_bytes=250_000),
    Detail(text_chars=400, cases=20, passing=0, rows=200, notebook_bytes=120_000),
    Detail(text_chars=100, cases=5, passing=0, rows=50, notebook_bytes=0),
)
"""The first one with which a page stays under LARGEST_BYTES is used."""
DISPLAYED = ("image/png", "text/html", "text/plain")
BANNER = "papermill-error-cell-tag"
"""Of the red banners that papermill writes into a notebook whose gate raised."""


def notebook_page(run: Run, notebook: str, verdict: Verdict) -> str:
    """The page of one executed notebook, under 500 KB: excerpts and lists get shorter until it fits."""
    planned = notebook in run.notebooks
    found = standings(run, verdict, notebook)

    def page(detail: Detail) -> str:
        cells, trouble = _cells(run.path / f"{notebook}.ipynb", detail.notebook_bytes)
        return _render(
            "notebook.html.j2", run, verdict, detail, title=notebook, heading=_heading(run, notebook), planned=planned,
            found=found, record=f"{notebook}.exchanges.jsonl", cells=cells, trouble=trouble,
        )  # fmt: skip

    return fitting(page)


def index_page(run: Run, verdict: Verdict, notebooks: dict[str, Verdict], texts: bool = True) -> str:
    """The run at a glance, with links to everything in its folder. Without `texts` it stands beside no notebook and no record."""
    blocking = [c for c in standings(run, verdict) if c.blocks]
    rows = {name: (_heading(run, name), v) for name, v in notebooks.items()}
    costs, lost = [*parts(run), altogether(run)], left_out(run) if texts else []
    return fitting(
        lambda detail: _render(
            "index.html.j2", run, verdict, detail, title="Gatebook run", heading=f"May {verdict.served.model} ship?", compared=COMPARED,
            notebooks=rows, blocking=blocking, costs=costs, left_out=lost, texts=texts,
        )
    )  # fmt: skip


def fitting(page: Callable[[Detail], str]) -> str:
    """Return the fullest page that is small enough."""
    for made in map(page, DETAILS):
        if len(made.encode()) <= LARGEST_BYTES:
            break
    return made


def _render(template: str, run: Run, verdict: Verdict, detail: Detail, **values: Any) -> str:
    return render(
        template, v=verdict, m=run.manifest, detail=detail, causes=causes(verdict), excuses=excuses(verdict),
        todo=by_todo(refusals(verdict)), conversation=conversation, **values,
    )  # fmt: skip


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
            body = _exported(path, most_bytes)
    except Exception as error:  # a half-written notebook is no reason to have no page
        return "", f"{path.name} cannot be shown: {type(error).__name__}"
    stopped = unfinished(path)
    return Markup(visible(body)), f"It did not run to its end. {stopped}" if stopped else ""  # noqa: S704 (nbconvert and our tables escape)


def _exported(path: Path, most_bytes: int) -> str:
    import nbformat

    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    notebook.cells = [
        c for c in notebook.cells if c.cell_type != "markdown" or BANNER not in c.metadata.get("tags", [])
    ]
    for cell in (c for c in notebook.cells if c.cell_type == "markdown"):
        cell.source = re.sub(r"^(#{1,4}) ", r"##\1 ", cell.source, flags=re.MULTILINE)  # ours are of the second level
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    total = sum(map(_bytes, outputs))
    for output in sorted(outputs, key=_bytes, reverse=True):
        if total <= most_bytes:
            break
        size = _bytes(output)
        total -= size
        output.clear()
        note = f"{size:,} bytes, too long for this page: open {path.name}"
        output.update(output_type="stream", name="stdout", text=note)
    exporter = _exporter()
    body: str = exporter.from_notebook_node(notebook)[0]
    return body


@cache
def _exporter() -> Any:
    """One for all notebooks: compiling nbconvert's templates costs more than a page."""
    from nbconvert import HTMLExporter
    from nbconvert.exporters.templateexporter import TemplateExporter
    from nbconvert.filters.highlight import Highlight2HTML
    from nbconvert.filters.widgetsdatatypefilter import WidgetsDataTypeFilter
    from traitlets.config import Config

    class Cells(HTMLExporter):  # type: ignore[misc]
        def from_notebook_node(self, nb: Any, resources: Any = None, **kw: Any) -> Any:
            """Without the parent's second parse of the page, a third of its time: our pictures have their `alt`."""
            self.register_filter("highlight_code", Highlight2HTML(pygments_lexer="ipython3", parent=self))
            shown = WidgetsDataTypeFilter(notebook_metadata=self._nb_metadata, parent=self, resources=resources)
            self.register_filter("filter_data_type", shown)
            return TemplateExporter.from_notebook_node(self, nb, self._init_resources(resources or {}), **kw)

    settings = Config()
    settings.NbConvertBase.display_data_priority = list(DISPLAYED)
    settings.HTMLExporter.exclude_anchor_links = True
    return Cells(config=settings, template_name="cells", extra_template_basedirs=[str(TEMPLATES)])


def compile_templates() -> None:
    """Compile those of nbconvert, and what checks a notebook, for the processes that are forked from this one."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    shown = new_code_cell("1", outputs=[new_output("execute_result", {"text/plain": "1", "text/html": "<p>1</p>"})])
    with suppress(Exception):  # where that cannot be, a page says so
        _exporter().from_notebook_node(new_notebook(cells=[new_markdown_cell("# 1"), shown]))


def _bytes(output: Any) -> int:
    """Return the size of what the page shows of an output."""
    data = output.get("data", {})
    shown = next((data[kind] for kind in DISPLAYED if kind in data), output.get("text", ""))
    return len("".join(shown).encode())


@dataclass(frozen=True)
class Changed:
    """One case that passed in one run and failed in the other, with what both answered."""

    case: Case
    group: str
    what: str
    sides: list[tuple[list[Request], str]]
    """Of each run: what was said, and why it failed."""


def comparison_page(difference: Difference, first: Judged, second: Judged) -> str:
    """One page, no script, under 500 KB: excerpts get shorter until it fits."""
    return fitting(
        lambda detail: render(
            "compare.html.j2", d=difference, a=first, b=second, detail=detail, words=WORDS, alpha=ALPHA, rate=rate, latency=latency,
            changed=changes(difference, first, second, detail.text_chars)[: detail.cases],
        )
    )  # fmt: skip


def changes(difference: Difference, first: Judged, second: Judged, chars: int) -> list[Changed]:
    """Every changed case with both conversations, newly failing ones first."""
    runs = [{c.id: c for c in standings(j.run, j.verdict)} for j in (first, second)]

    def side(run: int, case: str, group: str) -> tuple[list[Request], str]:
        stands = runs[run][case]
        reasons = dict.fromkeys(f.reason for f in stands.red if f.group == group)
        return conversation(stands, chars), "; ".join(reasons) or "passed"

    return [
        Changed(second.run.cases[case], group, what, [side(0, case, group), side(1, case, group)])
        for case, group, what in difference.changed
    ]


def rate(group: GroupDifference) -> tuple[str, str]:
    """The change of the pass rate, and its interval, in percentage points."""
    if (interval := group.comparison.interval) is None:
        return "", ""
    change = (group.passed[1] - group.passed[0]) / group.comparison.paired
    return f"{change * 100:+.1f}", f"{interval[0] * 100:+.1f} to {interval[1] * 100:+.1f}"


def latency(row: LatencyDifference) -> tuple[str, str]:
    """Both medians, and the shift with its interval; or why they are not compared."""
    if row.medians is None or row.shift is None:
        return "not compared", row.not_compared
    a, b = row.medians
    shift, low, high = row.shift
    return f"{a:.1f} ms, {b:.1f} ms", f"{shift:+.1f} ms ({low:+.1f} to {high:+.1f})"


def facts(manifest: Manifest | None) -> dict[str, str]:
    """Return who asked what of which model, with which code."""
    if manifest is None:
        return {}
    target = manifest.profile.target
    said = {
        "asked by": manifest.asked_by or "not recorded", "job": manifest.job_url, "started": manifest.created,
        "model": f"{target.model}, revision {target.revision or 'none named'}", "server": manifest.base_url,
        "profile": f"{manifest.profile.name}, suite {manifest.suite_told}",
        "cases": str(sum(map(len, manifest.expected.values()))), "code": manifest.commit or "no git commit",
        "gatebook": manifest.versions.get("gatebook"), "answers of": manifest.answers_of,
    }  # fmt: skip
    return {name: one_line(value) for name, value in said.items() if value}


def verification_page(found: Verification) -> str:
    """One page without script; it stands outside of the bundle, which stays sealed."""
    return render(
        "verify.html.j2", found=found, facts=facts(found.manifest), v=found.verdict, m=found.manifest,
        excuses=excuses(found.verdict) if found.verdict else [], at=now()[:19].replace("T", " "), version=version("gatebook"),
    )  # fmt: skip


def write_page(file: Path, text: str) -> None:
    """Write a page where the option --html names one, and print its name. Raises BadInput."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and not file.is_file():
            file.write_text(text, encoding="utf-8")  # /dev/stdout
        else:
            replace_text(file, text)
    except OSError as error:
        raise BadInput(f"--html {file}: cannot be written ({os_reason(error)}); name another file") from None
    print(file)
