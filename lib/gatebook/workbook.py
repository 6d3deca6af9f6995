"""What a notebook sees: one small class over the five rooms."""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from gatebook.errors import BadInput, NotGreen
from gatebook.judge.judging import judge, run_baseline
from gatebook.judge.sensitivity import Task, tasks
from gatebook.judge.similarity import keep
from gatebook.judge.verdict import Verdict
from gatebook.opening import OVERALL, open_run
from gatebook.plan import project
from gatebook.plan.settings import Profile, load_profile, profile_from
from gatebook.plan.strict import read_yaml
from gatebook.record.exchange import Exchange
from gatebook.record.lock import held
from gatebook.record.run import Run
from gatebook.tell import (
    boundaries,
    context,
    gauges,
    key_information,
    languages,
    latency,
    load,
    plots,
    scenarios,
    served,
    spending,
    tables,
    toolcalls,
)
from gatebook.tell.examples import Examples


class Workbook:
    """The cells of one notebook, in order: settings, collect, evidence, a picture, examples, verdict, gate.

    Where `run_dir` holds a manifest the notebook reads nothing else. Otherwise it opens a run of its own under
    outputs/, with the profile from its parameters or from GATEBOOK_PROFILE; a recorded run is never written over.
    Raises BadInput when neither names a target.
    """

    def __init__(self, notebook: str, run_dir: str = "", **parameters: Any) -> None:
        pd.set_option("display.max_colwidth", None, "display.max_rows", None, "display.width", 200)
        self._notebook = notebook
        self._planned = bool(run_dir) and (Path(run_dir) / "manifest.json").is_file()
        if self._planned:
            self.run = Run(Path(run_dir))
        elif notebook == OVERALL:
            self.run = Run(Path(run_dir) if run_dir else _newest())
        else:
            self.run = self._open(_profile(parameters), Path(run_dir) if run_dir else None)
            print(f"a run of its own: {self.run.path.name}")

    def _open(self, profile: Profile, folder: Path | None) -> Run:
        from gatebook.ask.server import endpoint

        base_url, start = endpoint(profile.target, None)
        run = open_run(profile, base_url, profile.target.default_suite, [self._notebook], folder)
        if start:
            kept = ExitStack()  # for as long as the kernel lives, so that a person can go on asking
            atexit.register(kept.close)
            kept.enter_context(start(run.path / "server.log"))
        return run

    def settings(self) -> pd.DataFrame:
        """The effective settings."""
        return tables.settings_table(self.run, self._notebook)

    def collect(self) -> None:
        """Ask the server what is not yet recorded. The only thing in a notebook that touches it."""
        if self.run.manifest.judged_from:
            print(f"judged again from {self.run.manifest.judged_from}: nothing is asked")
            keep(self.run, self._notebook)
            return
        from tqdm import tqdm

        from gatebook.ask.collect import STARTED, collect

        total = sum(len(c.requests()) + c.canary for c in self.run.expected(self._notebook))
        with tqdm(total=total, unit="request", disable=self._planned) as bar:
            ruled: list[Exchange] = []

            def progress(exchange: Exchange) -> None:
                if exchange.key.startswith("ruler/"):
                    ruled.append(exchange)
                    if len(ruled) == 2:  # the template, then the first sample: now the price is known
                        print(context.cost(self.run, self._notebook, ruled))
                bar.update(int(exchange.kind == "ask" or exchange.key.endswith("/canary")))

            # its runner holds the lock of a run; from Lab or papermill alone the notebook asks by itself
            with nullcontext() if STARTED in os.environ else held(self.run.path, f"notebook {self._notebook}"):
                collect(self.run, self._notebook, progress)
        keep(self.run, self._notebook)
        self.__dict__.pop("_verdict", None)
        print(f"{len(self.run.exchanges(self._notebook))} exchanges are in {self.run.record_file(self._notebook).name}")

    @cached_property
    def _verdict(self) -> Verdict:
        if self._notebook == OVERALL:
            return judge(self.run, troubles=self.run.troubles)
        return judge(self.run, self._notebook)

    def evidence(self) -> pd.DataFrame:
        """One row a case: outcome, measured, limit, reason."""
        if self._notebook == OVERALL:
            return self.groups()
        return tables.evidence_table(self.run, self._notebook, self._verdict.findings)

    def groups(self) -> pd.DataFrame:
        """One row a group: its policy, its cases by outcome, what was decided and why."""
        return tables.groups_table(self._verdict)

    def ladder(self) -> pd.DataFrame:
        """Structured output, rung by rung."""
        return tables.ladder_table(self.run, self._notebook, self._verdict.findings)

    def keywords(self) -> pd.DataFrame:
        """Each JSON Schema keyword: enforced, refused or ignored by this server."""
        return tables.keyword_table(self._verdict.findings)

    def languages(self) -> pd.DataFrame:
        """Property by language, passed of asked."""
        return languages.languages_table(self.run, self._notebook, self._verdict.findings)

    def plot_languages(self) -> Any:
        return languages.languages_plot(self.languages())

    def injections(self) -> pd.DataFrame:
        """Each instruction in the material: obeyed, not obeyed, or not causal."""
        return languages.injections_table(self.run, self._notebook, self._verdict.findings)

    def detector(self) -> pd.DataFrame:
        """The language detector's own accuracy, on labelled lines."""
        return languages.detector_table()

    def facts(self) -> pd.DataFrame:
        """Key information: coverage of the required facts now and in the baseline, and how densely they stand."""
        return key_information.facts_table(self._coverages(), self.run.manifest.run, run_baseline(self.run) is not None)

    def drift(self) -> pd.DataFrame:
        """Key words of each answer and their overlap with the baseline's; shown, never judged."""
        return key_information.drift_table(self.run, self._notebook, run_baseline(self.run))

    def sensitivity(self) -> pd.DataFrame:
        """One row a task: how much its answers hang on the phrasing, now and in the baseline."""
        return key_information.sensitivity_table(self._tasks(), self.run, run_baseline(self.run) is not None)

    def scenarios(self) -> pd.DataFrame:
        """One row a scenario: cases, facts stated, to-dos lost, merged, unsorted."""
        return scenarios.scenario_table(self.run, self._notebook, self._verdict.findings)

    def similarity(self) -> pd.DataFrame:
        """What the cosine and the facts are worth, measured; computed again from the record. Raises BrokenRecord."""
        return scenarios.power_table(self.run, self._notebook)

    def plot_similarity(self) -> Any:
        return scenarios.power_plot(self.run, self._notebook)

    def latencies(self) -> pd.DataFrame:
        """One row a streamed answer, in ms."""
        return tables.latency_table(self.run.exchanges(self._notebook))

    def latency(self) -> pd.DataFrame:
        """Each metric of the timed groups by each rule: limit, whether it blocks, outcome."""
        return latency.latency_table(self.run, self._notebook)

    def cold_start(self) -> pd.DataFrame:
        """The first requests of each timed group, which no rule counts, and the samples that do not count."""
        return latency.cold_table(self.run, self._notebook)

    def server_side(self) -> pd.DataFrame:
        """What we waited beside what the server says it took."""
        return latency.server_table(self.run, self._notebook)

    def plot_latency(self) -> Any:
        return latency.latency_plot(self.run, self._notebook)

    def context(self) -> pd.DataFrame:
        """Long context, one row a length: asked, found, rate with its interval."""
        return context.context_table(self.run, self._notebook, self._verdict.findings)

    def clauses(self) -> pd.DataFrame:
        """The clause task, one row a specification."""
        return context.spec_table(self.run, self._notebook, self._verdict.findings)

    def fingerprint(self) -> pd.DataFrame:
        """What is served, value by value, with the baseline's beside it."""
        return served.fingerprint_table(self._verdict, run_baseline(self.run))

    def plot_fingerprint(self) -> Any:
        tolerance = self.run.manifest.profile.limits.logprob_tolerance_nats
        return served.fingerprint_plot(self._verdict, run_baseline(self.run), tolerance)

    def plot_context(self) -> Any:
        return context.context_plot(self.run, self._notebook, self._verdict.findings)

    def plot_latencies(self) -> Any:
        return plots.latency_plot(self.latencies(), self.run.manifest.profile.limits.ttft_ms)

    def plot_ladder(self) -> Any:
        return plots.ladder_plot(self.ladder())

    def plot_facts(self) -> Any:
        return key_information.facts_plot(self._coverages())

    def plot_sensitivity(self) -> Any:
        return key_information.sensitivity_plot(self._tasks())

    def _coverages(self) -> list[key_information.Coverage]:
        findings = self._verdict.findings
        return key_information.coverages(self.run, self._notebook, findings, run_baseline(self.run))

    def _tasks(self) -> list[Task]:
        return tasks(self.run.expected(self._notebook), self._verdict.findings, run_baseline(self.run))

    def plot_groups(self) -> Any:
        return plots.groups_plot(self.groups())

    def refusals(self) -> pd.DataFrame:
        """One row a request at the edge of what is served: how it was refused or survived."""
        return boundaries.refusals_table(self.run, self._notebook, self._verdict.findings)

    def memory(self) -> pd.DataFrame:
        """An early rule over many turns, a row a conversation."""
        return boundaries.memory_table(self.run, self._notebook)

    def plot_memory(self) -> Any:
        return boundaries.memory_plot(self.run, self._notebook)

    def tools(self) -> pd.DataFrame:
        """Tool calls, a row a case."""
        return toolcalls.tools_table(self.run, self._notebook, self._verdict.findings)

    def load(self) -> pd.DataFrame:
        """One row a level of load: rates, latencies with their n, goodput, validity."""
        return load.load_table(load.levels(self.run, self._notebook, load.STEPS))

    def plot_load(self) -> Any:
        steps = load.levels(self.run, self._notebook, load.STEPS)
        return load.load_plot(steps, self.run.manifest.profile.load.knee_gain)

    def flips(self) -> pd.DataFrame:
        """One row a graded question: alone and under load."""
        return load.flips_table(self.run, self._notebook, self._verdict.findings)

    def long_prompts(self) -> pd.DataFrame:
        """One row a long prompt of those that were in flight together."""
        return load.long_table(self.run, self._notebook, self._verdict.findings)

    def production(self) -> pd.DataFrame:
        """The profile's production block, item by item: what production has and what the server says of itself."""
        return gauges.production_table(self.run, self._notebook)

    def gauges(self) -> pd.DataFrame:
        """One row a gauge of GPU and engine: first, peak, last, limit; and what could not be read, with the reason."""
        return gauges.gauges_table(self.run, self._notebook)

    def plot_gauges(self) -> Any:
        """Memory, KV cache and queue over time beside the requests in flight, with the limits."""
        return gauges.gauges_plot(self.run, self._notebook)

    def spending(self) -> pd.DataFrame:
        """One row a notebook: where its time went and what it cost in tokens."""
        return spending.spending_table(self.run)

    def left_out(self) -> str:
        """What was not asked because time or tokens did not suffice, by reason and group."""
        return "\n".join(spending.left_out(self.run)) or "everything that was planned was asked"

    def examples(self) -> Examples:
        """The failing cases in full."""
        return Examples(self.run, self._notebook, self._verdict.findings)

    def verdict(self) -> str:
        """Every check, every group and the verdict, as sorted plain text."""
        return tables.verdict_text(self._verdict)

    def gate(self) -> None:
        """Raises NotGreen unless the verdict is PASS, so that a bare papermill exits 1."""
        if self._verdict.verdict != "PASS":
            raise NotGreen(f"{self._verdict.verdict}: {self._verdict.reason}")


def _profile(parameters: dict[str, Any]) -> Profile:
    given = {key: value for key, value in parameters.items() if value}
    if given:
        return profile_from(
            given,
            "the notebook's parameters",
            _file_of(given, parameters) or str(given.get("target", {}).get("model", "notebook")),
        )
    if not (named := os.environ.get("GATEBOOK_PROFILE")):
        raise BadInput(
            "no target is named: run with `papermill -f params/smollm2.yaml`, or set GATEBOOK_PROFILE (`make lab` does)"
        )
    path = Path(named)
    return load_profile(path if path.is_absolute() or path.exists() else project.root() / path)


def _plain(parameters: dict[str, Any]) -> str:
    """The same text for the same parameters: a day of a waiver comes as a date from YAML and as text from papermill."""
    return json.dumps(parameters, sort_keys=True, default=str)


def _file_of(given: dict[str, Any], known: Iterable[str]) -> str | None:
    """The name of the profile whose content the parameters are: papermill passes what the file says and not its name.

    Sections that this notebook does not know (`similarity` belongs to 06) are not compared.
    """
    for path in sorted((project.root() / "params").glob("*.yaml")):
        said = read_yaml(path)
        if isinstance(said, dict) and _plain({key: said[key] for key in known if said.get(key)}) == _plain(given):
            return path.stem
    return None


def _newest() -> Path:
    runs = sorted(p.parent for p in project.outputs().glob("20*/manifest.json"))
    if not runs:
        raise BadInput("outputs/ holds no run yet; make one with `gatebook run --profile params/smollm2.yaml`")
    return runs[-1]
