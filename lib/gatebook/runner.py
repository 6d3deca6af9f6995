"""The story, top to bottom: profile -> server -> notebooks -> verdict -> reports -> exit code."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from gatebook.collect.server import Start, endpoint
from gatebook.collect.session import STARTED
from gatebook.config import project
from gatebook.config.profile import Profile, Suite
from gatebook.config.selection import Effort, Shard
from gatebook.config.sending import untelling
from gatebook.entering import enter
from gatebook.errors import BadInput, BrokenRecord, CannotMeasure, GatebookError, os_reason
from gatebook.kernels import Kernel, engine, kernels
from gatebook.opening import OVERALL, go_on, open_run
from gatebook.record.executed import unfinished
from gatebook.record.manifest import Against
from gatebook.record.replies import read_answer
from gatebook.record.run import LATEST, Run, now
from gatebook.record.shelf import check_latest, copy_to_latest, drop_latest, held
from gatebook.report.terminal import Watcher
from gatebook.verdict.judging import judge
from gatebook.verdict.looking import asks_on
from gatebook.verdict.verdict import Verdict

SPARE_S = 120
"""What a cell may take beyond the notebook's deadline before the kernel counts as hung."""
EVIDENCE = ("manifest", "cases", "baseline", "history")
"""Prefixes of the files that a resumed run relies on, besides its records."""


def run_profile(
    profile: Profile, suite: Suite, only: list[str] | None, out: Path | None, watch: bool, against: Profile | None = None,
    shard: Shard | None = None, yes_load: bool = False, effort: Effort = "normal", among: int = 1,
) -> tuple[Run, Verdict]:  # fmt: skip
    """Plan and execute a new run, or one shard. Raises BadInput before anything is asked.

    `against`: profile of a second target; `yes_load`: allow load beside others; `among`: deployments that share one error budget.
    """
    check_latest(out or project.outputs())
    base_url, start = endpoint(profile.target, None)
    second = None
    if against is not None:
        other_url, start_other = endpoint(against.target, None)
        if start_other is not None:
            todo = "start it with `gatebook serve` and name target.base_url"
            raise BadInput(f"--against {against.name}: its server is embedded; {todo}")
        second = Against(profile=against.name, target=against.target, base_url=other_url)
    run = open_run(profile, base_url, suite, only, None, out, second, shard, yes_load, effort, among)
    for said in dict.fromkeys(untelling(one.target) for one in (profile, against) if one):
        if said:
            _warn(said)
    with held(run.path, "gatebook run"):
        return execute(run, start, watch)


def resume(path: Path, watch: bool, yes_load: bool = False) -> tuple[Run, Verdict]:
    """Go on where a killed or failed run stopped: nothing recorded is asked again. Raises BadInput, BrokenRecord."""
    run = Run(path.resolve())
    check_latest(run.path.parent)
    if of := run.manifest.answers_of:
        raise BadInput(f"{path}: has the answers of {of}; there is nothing to resume here")
    with held(run.path, "gatebook run --resume"):
        for damage in run.damage() if run.sealed else []:
            if ".exchanges.jsonl" in damage or ".gauges.jsonl" in damage or damage.startswith(EVIDENCE):
                raise BrokenRecord(f"{path}: {damage} since the run was sealed; an edited record is not resumed")
        run.unseal()
        if yes_load:
            run.manifest = run.manifest.model_copy(update={"yes_load": True})
            run.write("manifest.json", run.manifest.model_dump_json(indent=1))
        return execute(run, endpoint(run.manifest.profile.target, run.manifest.base_url)[1], watch)


def execute(run: Run, start: Start | None, watch: bool) -> tuple[Run, Verdict]:
    """Execute every notebook, judge, report, seal. Whatever breaks on our side ends in a verdict that says so.

    Raises KeyboardInterrupt where a signal comes after the asking: there is no verdict then, and `report` or `--resume` makes one.
    """
    if run.history_trouble:
        _warn(f"{run.history_trouble}; what is compared with past runs is not measured")
    if run.path.name != LATEST:
        drop_latest(run.path.parent)  # an older green must not stand for this run
    troubles: list[str] = []
    todo = f"go on with: gatebook run --resume {run.path}"
    with Watcher(run, watch) as watcher:
        try:
            with kernels(run.path, **{STARTED: now()}) as kernel:  # from here on the deadline of the run counts
                import nbconvert  # noqa: F401 - beside the process that forks kernels, whose imports take as long
                import papermill  # noqa: F401

                _ask(run, start, watcher, kernel, troubles)
                run.note_troubles(troubles)
                watcher.now(OVERALL)
                troubles += _execute(run, OVERALL, kernel)
        except KeyboardInterrupt:
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # what nbclient's cancelled cell says is no news
            troubles.append(f"interrupted; {todo}")
        except CannotMeasure as error:
            troubles.append(str(error))
        except Exception as error:
            troubles.append(_ours(error))
    try:
        verdict = judged(run, troubles)
        report(run, verdict)
    except KeyboardInterrupt:
        _warn(f"{run.path}: everything is recorded and no verdict is written; {todo}")
        raise
    try:
        enter(run, verdict)
    except GatebookError as error:  # the verdict stands, and the rows can be made again from the run
        _warn(f"{error}; when that is mended: gatebook history enter {run.path}")
    return run, verdict


def _ask(run: Run, start: Start | None, watcher: Watcher, kernel: Kernel, troubles: list[str]) -> None:
    """Start the server and execute every notebook that asks it; each asks what it expects and has no record of, and once
    more where an early look settles nothing. What goes wrong is added to `troubles` as it happens."""
    try:
        with start(run.path / "server.log") if start else nullcontext():
            while True:
                for notebook in run.notebooks:
                    watcher.now(notebook)
                    troubles += _execute(run, notebook, kernel)
                if not (run.manifest.early and asks_on(judged(run, troubles))):
                    return
                go_on(run)
    except CannotMeasure as error:
        troubles.append(str(error))


def _execute(run: Run, notebook: str, kernel: Kernel) -> list[str]:
    """Run one notebook through papermill in this process; return what went wrong, other than a gate that is not green."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillException

    made = run.path / f"{notebook}.ipynb"
    try:
        with warnings.catch_warnings(), kernel(notebook) as manager:
            warnings.simplefilter("ignore")
            papermill.execute_notebook(
                str(project.notebook_file(notebook)), str(made), {"run_dir": "."}, cwd=str(run.path), kernel_name="python3", km=manager,
                engine_name=engine(), progress_bar=False, execution_timeout=int(run.manifest.profile.limits.notebook_deadline_s + SPARE_S),
            )  # fmt: skip
    except DeadKernelError:
        return [f"{notebook}: its kernel died"]
    except CellTimeoutError as error:
        return [f"{notebook}: a cell hung: {str(error).splitlines()[0]}"]
    except OSError as error:
        return [f"{notebook}: cannot write ({os_reason(error)}); free space and resume"]
    except PapermillException:
        pass  # a cell raised: the gate, or what `unfinished` says
    except Exception as error:
        return [f"{notebook}: {_ours(error)}"]
    return [said] if (said := unfinished(made)) else []


def judged(run: Run, troubles: list[str], notebook: str | None = None) -> Verdict:
    """Judge a run or a notebook; a broken record is a trouble and not the end of the story."""
    try:
        return judge(run, notebook, troubles, kept=True)
    except BrokenRecord as error:
        return judge(run.without_records(), notebook, [*troubles, str(error)])


def report(run: Run, verdict: Verdict) -> None:
    """Write everything that is reported of a run, seal it, and copy it to `latest/`."""
    from gatebook.report.figures import metrics
    from gatebook.report.junit import junit
    from gatebook.report.pages import index_page, notebook_page
    from gatebook.report.standing import recorded
    from gatebook.report.summary import summary

    alone = {name: judged(run, [t for t in verdict.troubles if t.startswith(name)], name) for name in run.notebooks}
    files = {f"{notebook}.verdict.json": v.model_dump_json(indent=1) for notebook, v in alone.items()}
    files["verdict.json"] = verdict.model_dump_json(indent=1)
    pages: dict[str, Callable[[], str]] = {
        **{f"{name}.html": partial(notebook_page, run, name, v) for name, v in {**alone, OVERALL: verdict}.items()},
        "index.html": partial(index_page, run, verdict, alone),
        "junit.xml": partial(junit, run, verdict, "outputs/latest"),
        "metrics.txt": partial(metrics, run, verdict),
        "summary.md": partial(summary, run, verdict),
    }
    for name, make in pages.items():
        try:
            files[name] = make()
        except Exception as error:  # a page for people that cannot be made says so and costs nobody the verdict
            _warn(f"{name}: {_ours(error)}")
            files[name] = f"{name} could not be made; the verdict is in verdict.json\n"
    try:
        for exchange in (e for notebook in run.notebooks for e in recorded(run, notebook)):
            run.texts.put_away(read_answer(exchange).text)
        for name, text in files.items():
            run.write(name, text)
        run.seal()
        copy_to_latest(run)
    except OSError as error:
        said = f"cannot write the reports ({os_reason(error)}); free space and resume"
        raise CannotMeasure(f"{run.path}: {said}") from None


def _ours(error: Exception) -> str:
    """Describe a crash of our own in one line of a verdict."""
    said = " ".join(str(error).split())[:300]
    return f"our own fault, please report it: {type(error).__name__}{f': {said}' if said else ''}"


def _warn(text: str) -> None:
    print(f"gatebook: warning: {text}", file=sys.stderr, flush=True)
