"""What a notebook sees: a run that is opened once, its frames, its verdict and its gate."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from gatebook.checks.evidence import Timed, timed_cases
from gatebook.checks.finding import WORST_FIRST, Finding
from gatebook.checks.load import Step, restarts_of, steps_of
from gatebook.checks.service import Compared, compare
from gatebook.checks.similarity import Cosines, computed, cosines_of, differences, keep, stored
from gatebook.config import project
from gatebook.config.cases import Case
from gatebook.config.profile import Profile, load_profile, profile_from
from gatebook.errors import BadInput, BrokenRecord, NotGreen
from gatebook.opening import OVERALL
from gatebook.opening import open_run as plan_run
from gatebook.record.exchange import Exchange
from gatebook.record.frames import cases_frame, gauges_frame, replies_frame
from gatebook.record.identity import identify
from gatebook.record.run import Run
from gatebook.record.shelf import find_run, held
from gatebook.report import standing, summary
from gatebook.report.conversation import Shown, failing_cases
from gatebook.report.estimate import document_cost
from gatebook.verdict.baseline import Baseline
from gatebook.verdict.golden import Golden
from gatebook.verdict.judging import golden_answers, judge, run_baseline, so_far
from gatebook.verdict.kept import keep_findings
from gatebook.verdict.spending import Spent, total
from gatebook.verdict.verdict import Verdict

SECTIONS = tuple(Profile.model_fields)
"""What papermill's `-f params/x.yaml` puts into a notebook: the top-level keys of a profile."""
MOST_ROWS, FEW_ROWS = 1000, 100
"""A table of more than MOST_ROWS shows FEW_ROWS, its first and last ones, and their number."""


def open_run(notebook: str, parameters: Mapping[str, Any]) -> Workbook:
    """Open the run in `run_dir` where that holds a manifest, else a new one under outputs/. Raises BadInput.

    `parameters`: the notebook's `globals()` with `run_dir`, `profile` (a file of params/) and the sections of a profile that
    papermill has put in; without any, GATEBOOK_PROFILE names the profile.
    """
    pd.set_option("display.max_colwidth", None, "display.max_columns", None, "display.width", 250)
    pd.set_option("display.max_rows", MOST_ROWS, "display.min_rows", FEW_ROWS)
    named = str(parameters.get("run_dir") or "")
    folder = Path(named) if named else None
    if folder and (folder / "manifest.json").is_file():
        return Workbook(notebook, Run(folder), planned=True)
    if notebook == OVERALL:
        return Workbook(notebook, Run(folder) if folder else find_run(project.outputs()))
    run = _new_run(notebook, _profile(parameters), folder)
    print(f"a run of its own: {run.path.name}")
    return Workbook(notebook, run)


class Workbook:
    """One notebook of a run. After `collect` nothing here asks, writes the record or reads a clock."""

    def __init__(self, notebook: str, record: Run, planned: bool = False) -> None:
        self.notebook, self.record, self._planned = notebook, record, planned
        self._kept = False

    @property
    def profile(self) -> Profile:
        return self.record.manifest.profile

    @property
    def baseline(self) -> Baseline | None:
        """What was accepted, as it was copied into the run."""
        return run_baseline(self.record)

    @property
    def exchanges(self) -> list[Exchange]:
        """Everything that was recorded, probes too. Raises BrokenRecord."""
        return self.record.exchanges(self.notebook)

    def settings(self) -> pd.DataFrame:
        """The effective settings: target, limits, and the policies of the notebook's groups."""
        return summary.settings_table(self.record, self.notebook)

    def collect(self) -> None:
        """Ask the server what is not yet recorded. The only thing in a notebook that touches it."""
        if of := self.record.manifest.answers_of:
            how = "judged again" if self.record.manifest.judged_from else "merged"
            print(f"{how} from {of}: nothing is asked")
            self._keep()
            return
        from tqdm import tqdm

        from gatebook.collect.scheduler import collect
        from gatebook.collect.session import STARTED

        requests = sum(len(c.requests()) + c.canary for c in self.record.expected(self.notebook))
        ruled: list[Exchange] = []
        with tqdm(total=requests, unit="request", disable=self._planned) as bar:

            def progress(exchange: Exchange) -> None:
                if exchange.key.startswith("ruler/"):
                    ruled.append(exchange)
                    if len(ruled) == 2:  # the template, then the first sample: now the price is known
                        print(document_cost(self.record, self.notebook, ruled))
                bar.update(int(exchange.kind == "ask" or exchange.key.endswith("/canary")))

            # its runner holds the lock of a run; from Lab or papermill alone the notebook asks by itself
            with nullcontext() if STARTED in os.environ else held(self.record.path, f"notebook {self.notebook}"):
                collect(self.record, self.notebook, progress)
        self._keep()
        print(f"{len(self.exchanges)} exchanges are in {self.record.record_file(self.notebook).name}")

    def _keep(self) -> None:
        """Write what is derived from the record, for the runner to fold."""
        keep(self.record, self.notebook)
        keep_findings(self.record, self.notebook)
        self._kept = True
        self.__dict__.pop("verdict", None)

    def cases(self, *tags: str) -> pd.DataFrame:
        """One row a case: group, policy, tags (those named here even where no case has them), why."""
        return cases_frame(self.record, self.notebook, *tags)

    def replies(self) -> pd.DataFrame:
        """One row a request of a case: what was asked, what came back, when, and whether its times are a measurement."""
        return replies_frame(self.record, self.notebook)

    def gauges(self) -> pd.DataFrame:
        """One row a reading of GPU and engine."""
        return gauges_frame(self.record.gauges(self.notebook))

    def findings(self) -> pd.DataFrame:
        """One row a check of a case; `outcome` is ordered, the worst first."""
        columns = [name for name in Finding.model_fields if name != "id"]
        frame = pd.DataFrame([f.model_dump(include=set(columns)) for f in self.verdict.findings], columns=columns)
        frame["outcome"] = pd.Categorical(frame["outcome"], categories=WORST_FIRST, ordered=True)
        return frame

    def timed(self) -> Iterator[tuple[Case, Timed]]:
        """The cases whose latency is judged, with their samples, the days before and the second target's."""
        found = timed_cases(self.record, self.notebook, self.exchanges)
        return ((self.record.cases[name], timed) for name, timed in found.items())

    def load_steps(self, group: str) -> list[Step]:
        """The levels of load of one group, the lowest first."""
        cases = {name for name, case in self.record.cases.items() if case.load and case.group == group}
        asked = [e for e in self.exchanges if e.kind == "ask" and e.case in cases]
        return steps_of(asked, self.profile.load, restarts_of(self.exchanges))

    def cosines(self, again: bool = False) -> Cosines:
        """Similarity of answers to the golden ones. `again` computes it anew and raises BrokenRecord where the run has another."""
        if not again:
            return cosines_of(self.record, self.notebook)
        kept, anew = stored(self.record, self.notebook), computed(self.record, self.notebook)
        if kept and (wrong := differences(kept, anew)):
            name = self.record.similarity_file(self.notebook).name
            raise BrokenRecord(f"{name} is not what the record says: {'; '.join(wrong)}")
        return Cosines(self.record.expected(self.notebook), kept or anew)

    def golden(self, group: str) -> Golden | None:
        """The golden answers of a group beside the baseline's; None where none was to be scored."""
        return golden_answers(self.record, self.verdict.fingerprint).get(group)

    def compare_with_production(self) -> list[Compared]:
        """The profile's production block, item by item, beside what the server says of itself."""
        identity = identify(self.exchanges, self.profile.target.model)
        return compare(self.profile.production, identity, self.record.gauges(self.notebook))

    def spending(self) -> list[Spent]:
        """Where the time of each notebook went and what it cost in tokens, all of them last."""
        found = standing.parts(self.record)
        return [*found, total(found)]

    def not_asked(self) -> list[str]:
        """What was not asked because time or tokens did not suffice, by reason and group."""
        return standing.left_out(self.record)

    @cached_property
    def verdict(self) -> Verdict:
        """The notebook's verdict, by what it and those before it recorded; that of the whole run in 90_verdict."""
        if self.notebook == OVERALL:
            return judge(self.record, troubles=self.record.troubles, kept=True)
        return judge(so_far(self.record, self.notebook), self.notebook, kept=self._kept)

    def examples(self) -> Shown:
        """The failing cases as conversations: prompt, answer, reason."""
        return failing_cases(self.record, self.verdict, self.notebook)

    def report(self) -> str:
        """Every finding, every group and the verdict, as sorted plain text."""
        return summary.verdict_text(self.verdict)

    def gate(self) -> None:
        """Raises NotGreen unless the verdict is PASS, so that a bare papermill exits 1."""
        if self.verdict.verdict != "PASS":
            raise NotGreen(f"{self.verdict.verdict}: {self.verdict.reason}")


def _new_run(notebook: str, profile: Profile, folder: Path | None) -> Run:
    from gatebook.collect.server import endpoint

    base_url, start = endpoint(profile.target, None)
    run = plan_run(profile, base_url, profile.target.default_suite, [notebook], folder)
    if start:
        kept = ExitStack()  # for as long as the kernel lives, so that a person can go on asking
        atexit.register(kept.close)
        kept.enter_context(start(run.path / "server.log"))
    return run


def _profile(parameters: Mapping[str, Any]) -> Profile:
    if target := parameters.get("target"):
        given = {key: parameters[key] for key in SECTIONS if parameters.get(key)}
        return profile_from(given, "the notebook's parameters", str(target.get("model", "notebook")))
    named = parameters.get("profile") or os.environ.get("GATEBOOK_PROFILE")
    if not named:
        todo = "run with `papermill -f params/smollm2.yaml`, or set GATEBOOK_PROFILE (`gatebook lab` does)"
        raise BadInput(f"no target is named: {todo}")
    return load_profile(project.from_root(Path(named)))
