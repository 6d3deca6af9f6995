"""The commands, thin: read arguments, call one function, print, exit.

A command whose exit code is an answer raises SystemExit; what another one returns is printed.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer import Argument, Option

from gatebook import stopping
from gatebook.commands import arguments
from gatebook.commands.arguments import Among, AsJson, Effort, Html, NoTexts, Only, RunArgument, Sharded, Suite, YesLoad
from gatebook.commands.cases import app as cases_app
from gatebook.commands.doctor import doctor
from gatebook.commands.history import app as history_app
from gatebook.commands.lab import lab
from gatebook.errors import BadInput, ExitCode, GatebookError, one_line, os_reason, visible
from gatebook.fleet.cli import StoredRun, fleet_app

app = typer.Typer(
    help="""Decide whether a deployment of an LLM service may ship: ask it, judge its answers, keep the evidence.

    Exit codes: 0 PASS · 1 FAIL · 2 bad input, nothing was asked · 3 INCONCLUSIVE · 75 ERROR, could not measure (retry) · 130, 143, 129
    stopped by SIGINT, SIGTERM, SIGHUP before there was a verdict.""",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(cases_app, name="cases")
app.add_typer(history_app, name="history")
app.add_typer(fleet_app, name="fleet")


@app.command()
def run(
    profile: Annotated[Path | None, Option(help="Profile: a YAML in params/, such as params/smollm2.yaml.")] = None,
    base_url: Annotated[str | None, Option(help="The server, http://gpu-box:8000/v1; wins over the profile.")] = None,
    model: Annotated[str | None, Option(help="Served model name; wins over the profile.")] = None,
    revision: Annotated[str | None, Option(help="What is deployed, such as an image digest.")] = None,
    suite: Suite = None,
    only: Only = None,
    out: Annotated[Path | None, Option(help="Where run folders go; default: outputs/.")] = None,
    against: Annotated[Path | None, Option(help="Profile of a second target, asked latency groups in turn.")] = None,
    shard: Sharded = None,
    effort: Effort = None,
    among: Among = 1,
    resume: Annotated[Path | None, Option(help="Go on with this run instead: ask what is not recorded.")] = None,
    yes_load: YesLoad = False,
    plan: Annotated[bool, Option("--plan", help="Print cases, tokens and minutes; ask nothing.")] = False,
    as_json: AsJson = False,
) -> str:
    """Ask a deployment every case of a suite and give one verdict."""
    from gatebook import runner
    from gatebook.commands.passed import check_plan_here
    from gatebook.config import project
    from gatebook.config.profile import load_profile, with_target
    from gatebook.opening import estimated

    if resume is not None:
        told = any((base_url, model, revision, suite, only, against, shard, effort, among > 1))
        if out or plan or (told and not profile):
            said = "the run folder says the rest; with --profile it must be the run that the other options name"
            raise BadInput(f"--resume takes no other option but --json and --yes-load: {said}")
        if profile:
            asked = with_target(load_profile(profile), base_url=base_url, model=model, revision=revision)
            second = load_profile(against) if against else None
            check_plan_here(resume, asked, second, suite, only, shard, effort, among)
        _end(*runner.resume(resume, watch=not as_json, yes_load=yes_load), as_json)
    project.root()
    if profile is None:
        raise BadInput("--profile is missing; for the embedded model: gatebook run --profile params/smollm2.yaml")
    asked = with_target(load_profile(profile), base_url=base_url, model=model, revision=revision)
    suite, effort, watch = suite or asked.target.default_suite, effort or "normal", not as_json
    if plan:
        return estimated(asked, suite, only, shard, effort)
    second = load_profile(against) if against else None
    _end(*runner.run_profile(asked, suite, only, out, watch, second, shard, yes_load, effort, among), as_json)


@app.command()
def merge(
    paths: Annotated[list[Path], Argument(metavar="RUN...", help="The run folders of all shards, in any order.")],
    out: Annotated[Path | None, Option(help="The new run's folder; default: a new one in outputs/.")] = None,
    as_json: AsJson = False,
) -> str:
    """Make one bundle and one verdict of all shards of a run; nothing is asked."""
    from gatebook.commands.again import merge as join

    _end(*join(paths, out), as_json)


@app.command()
def verify(
    path: StoredRun,
    reproduced: Annotated[bool, Option("--reproduced", help="Exit 0 for a red run too, if it is reproduced.")] = False,
    html: Html = None,
    notebooks: Annotated[Path | None, Option(help="Whose code may be executed; default: the project's.")] = None,
) -> None:
    """Check a run folder without any server: checksums, records, cells, verdict, nbval replay of our own code."""
    from gatebook.commands.verify import verify as check
    from gatebook.report.pages import verification_page, write_page
    from gatebook.report.terminal import show_verification

    if notebooks is not None and not notebooks.is_dir():
        raise BadInput(f"--notebooks {notebooks}: no such folder; name the one with the notebooks that asked")
    found = check(path, notebooks=notebooks)
    if html is not None:
        write_page(html, verification_page(found))
    show_verification(found)
    if not found.reproduced or found.verdict is None:
        raise SystemExit(ExitCode.ERROR)
    raise SystemExit(0 if reproduced else found.verdict.exit_code)


@app.command()
def passed(
    path: RunArgument,
    suite: Suite,
    revision: Annotated[str | None, Option(help="The revision that must have been judged: an image digest.")] = None,
    profile: Annotated[Path | None, Option(help="Profile of the commit that deploys: the bundle's must be it.")] = None,
    cases: Annotated[Path | None, Option(help="With --profile: folder of own cases; default: params/cases.")] = None,
    base_url: Annotated[str | None, Option(help="The server that must have been asked.")] = None,
    model: Annotated[str | None, Option(help="The served model that must have been asked.")] = None,
    effort: Effort = "normal",
    header: Annotated[list[str] | None, Option(help="NAME of an extra header that it was asked with.")] = None,
    among: Among = 1,
) -> None:
    """Ask a bundle, as a deployment does: is it intact and complete, and did this suite pass for this revision?

    Exit codes: 0 yes · 1 FAIL · 2 another suite, revision, profile or case, a lower effort, or no run folder · 3 INCONCLUSIVE, PARTIAL, or a
    baseline that was not accepted here · 75 ERROR, or missing or edited evidence.
    """
    from gatebook.commands.passed import passed as ask
    from gatebook.config.profile import load_profile

    for option, value in (("revision", revision), ("base-url", base_url), ("model", model)):
        if value is not None and not value.strip():
            raise BadInput(f"--{option} is empty; name what is deployed, or leave the option out")
    if cases is not None and profile is None:
        raise BadInput("--cases goes with --profile, which says by what else the bundle must have been judged")
    by = load_profile(profile) if profile else None
    own = {"revision": revision, "base_url": base_url, "model": model}
    found = ask(path, suite, by, cases, **own, header=header, effort=effort, among=among)
    print(found)
    raise SystemExit(found.exit_code)


@app.command()
def judge(
    path: RunArgument,
    profile: Annotated[Path, Option(help="Profile: a YAML in params/.")],
    out: Annotated[Path, Option(help="The new run folder.")],
    as_json: AsJson = False,
) -> None:
    """Judge recorded answers by the rules of another profile; nothing is asked."""
    from gatebook.commands.again import judge_again
    from gatebook.config.profile import load_profile

    _end(*judge_again(path, load_profile(profile), out), as_json)


@app.command()
def report(
    path: RunArgument,
    no_texts: NoTexts = False,
    out: Annotated[Path | None, Option(help="With --no-texts: the folder to publish, outside of the run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Report a run again from its record, and exit as it did; one that was killed gets its pages, and is not green."""
    from gatebook.commands.again import figures_again, report_again

    if no_texts or out is not None:
        told, verdict = figures_again(path, no_texts, out)
        print(verdict.model_dump_json(indent=1) if as_json else told)
        raise SystemExit(verdict.exit_code)
    _end(*report_again(path), as_json)


@app.command()
def accept(
    path: RunArgument,
    reason: Annotated[str, Option(help="Why this run may be the measure of later ones.")],
    group: Annotated[str | None, Option(help="Take over this group only.")] = None,
    by: Annotated[str | None, Option(help="Who accepts; or GITLAB_USER_LOGIN, else git's user, else USER.")] = None,
    again: Annotated[
        Path | None, Option(metavar="RUN", help="Another run of the same deployment: how many cases turn by chance.")
    ] = None,
) -> str:
    """Make a run the baseline of its profile (params/baselines/<profile>.json), with an entry in its log."""
    from gatebook.commands.accept import accept as take

    return take(path, reason, group, by, again)


@app.command()
def archive(
    source: Annotated[Path, Argument(metavar="OUTPUTS", help="A folder of runs, or one run.")],
    to: Annotated[Path, Option(help="The site's folder, such as public/; runs that it has stay.")],
    no_texts: NoTexts = False,
) -> str:
    """Write a static site of all kept runs: list, trends, difference of any two. Opens from disk and on GitLab Pages."""
    from gatebook.report.archive import archive as keep

    return "\n".join(map(one_line, keep(source, to, texts=not no_texts)))


@app.command()
def compare(
    first: Annotated[str, Argument(metavar="A", help="A run folder, or the URL of a server.")],
    second: Annotated[str, Argument(metavar="B", help="The run or server that is measured by A.")],
    profile: Annotated[Path | None, Option(help="For two URLs: the profile by which both are asked.")] = None,
    html: Html = None,
    suite: Suite = None,
    only: Only = None,
    model: Annotated[list[str] | None, Option(help="For two URLs: the served name; twice where they differ.")] = None,
    revision: Annotated[list[str] | None, Option(help="For two URLs: what is deployed; twice, A then B.")] = None,
    out: Annotated[Path | None, Option(help="For two URLs: where the two runs go; default: outputs/.")] = None,
    yes_load: YesLoad = False,
) -> None:
    """Compare two runs case by case, or two live servers (both are asked, and both runs are kept).

    Exit codes: 0 same or better · 1 shown worse · 2 bad input · 3 cannot tell · 75 a run is damaged or could not be measured.
    """
    from gatebook.commands.compare import are_urls, live, recorded
    from gatebook.config.profile import load_profile
    from gatebook.report.pages import comparison_page, write_page
    from gatebook.report.terminal import show_comparison
    from gatebook.verdict.comparing import difference

    if are_urls(first, second):
        if profile is None:
            raise BadInput("--profile is missing: two servers are asked by one profile, such as params/qwen3-4b.yaml")
        sides = live(load_profile(profile), (first, second), suite, only, out, model, revision, yes_load)
    elif any((profile, suite, only, model, revision, out, yes_load)):
        raise BadInput("two recorded runs take no other option but --html: they say what was asked of whom")
    else:
        sides = recorded(first, second)
    found = difference(*sides)
    if html is not None:
        write_page(html, comparison_page(found, *sides))
    show_comparison(found, *sides)
    raise SystemExit(found.exit_code)


@app.command()
def serve(
    port: Annotated[int | None, Option(min=1, max=65535, help="Default: a free one.")] = None,
    threads: Annotated[
        int | None, Option(min=1, help="Threads that write answers. Default: 2 where two cores are idle, else 1.")
    ] = None,
    prompt_threads: Annotated[int, Option(min=1, help="Threads that read prompts.")] = 2,
    log: Annotated[Path, Option(callback=arguments.outside_of_runs, help="The server's log, appended to.")] = Path(
        "outputs/server.log"
    ),
) -> None:
    """Serve the embedded SmolLM2-135M-Instruct on loopback until Ctrl-C."""
    import signal

    from gatebook.collect.server import embedded_server

    log.parent.mkdir(parents=True, exist_ok=True)
    with embedded_server(log, port, threads, prompt_threads) as base_url:
        print(f"serving smollm2-135m-instruct at {base_url} (log: {log}); Ctrl-C stops it", flush=True)
        signal.pause()


@app.command()
def init(
    base_url: Annotated[str | None, Option(help="The server; without it, the profile of the embedded model.")] = None,
    name: Annotated[str | None, Option(help="Name of the profile; default: from the model.")] = None,
    model: Annotated[str | None, Option(help="Which model, when the server lists several.")] = None,
    api_key_env: Annotated[str | None, Option(help="NAME of the environment variable with the key.")] = None,
    adapters: Annotated[bool, Option("--adapters", help="And one for each LoRA adapter that it lists.")] = False,
    languages: Annotated[str | None, Option(help="The model's, by commas: en or en,zh; default: all cases.")] = None,
) -> str:
    """Probe a server and write a profile for it in params/, which is made where there is no project yet."""
    from gatebook.commands.init import begin, introduce

    if base_url is None and (adapters or any((name, model, api_key_env, languages))):
        said = "--name, --model, --api-key-env, --adapters and --languages are of a server that runs"
        raise BadInput(f"--base-url is missing: {said}")
    return begin() if base_url is None else introduce(base_url, name, model, api_key_env, adapters, languages)


app.command()(doctor)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(lab)


def _end(run: Any, verdict: Any, as_json: bool) -> NoReturn:
    from gatebook.report.terminal import show

    if as_json:
        print(verdict.model_dump_json(indent=1))
    else:
        show(verdict, run)
    raise SystemExit(verdict.exit_code)


def command() -> int:
    """Run the command line and return its exit code. Raises KeyboardInterrupt when a signal stopped it first."""
    stdout = sys.stdout
    try:
        arguments.refuse_unreadable(sys.argv[1:])
        ended = app(standalone_mode=False)  # typer returns the status of an exit of its own: 130 for KeyboardInterrupt
    except SystemExit as end:
        if sys.stdout is not stdout:  # click replaces it where nobody reads it, and exits with 1
            raise BrokenPipeError from None
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (Exception, KeyboardInterrupt) as error:
        if stopping.stopped() or isinstance(error, typer.Abort | KeyboardInterrupt):
            raise KeyboardInterrupt from None
        if isinstance(error, BrokenPipeError):
            raise
        code, said = _describe(error)
        print(said, file=sys.stderr)
        return code
    if isinstance(ended, str):
        print(visible(ended))  # names in it are one line each where they are put in
    if stopping.stopped():
        raise KeyboardInterrupt
    return ended if isinstance(ended, int) else 0


def _describe(error: BaseException) -> tuple[int, str]:
    """Return (exit code, one line) for what stopped the command; a crash of our own says nothing about the deployment."""
    if isinstance(error, GatebookError):
        return error.exit_code, f"gatebook: {' '.join(str(error).split())}"
    if isinstance(error, OSError) and error.errno is not None:  # the disk, the rights, the system: no crash of ours
        where = one_line(error.filename or "the system")
        misplaced = isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError)
        todo = "move it away" if misplaced else "free space, or name a place that can be read and written"
        return ExitCode.ERROR, f"gatebook: {where}: {os_reason(error)}; {todo}"
    if usage := getattr(error, "format_message", None):  # typer keeps its classes to itself
        return ExitCode.BAD_INPUT, usage() if "Usage:" in usage() else f"gatebook: {usage()}; see gatebook --help"
    traceback.print_exc()
    said = f"our own fault, please report it: {type(error).__name__}: {one_line(error)}"
    return ExitCode.ERROR, f"gatebook: {said}"


if __name__ == "__main__":
    from gatebook.__main__ import main

    main()
