"""The commands, thin: read arguments, call one function, print, exit."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from gatebook import stopping
from gatebook.commands.history import app as history_app
from gatebook.errors import BadInput, GatebookError, one_line, os_reason

app = typer.Typer(
    help="""Decide whether a deployment of an LLM service may ship: ask it, judge its answers, keep the evidence.

    Exit codes: 0 PASS · 1 FAIL · 2 bad input, nothing was asked · 3 INCONCLUSIVE · 75 ERROR, could not measure (retry) · 130, 143, 129
    stopped by SIGINT, SIGTERM, SIGHUP before there was a verdict.""",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
cases_app = typer.Typer(help="Write cases: check them, import them in bulk (docs/cases.md).", no_args_is_help=True)
app.add_typer(cases_app, name="cases")
app.add_typer(history_app, name="history")
ProfileOption = Annotated[Path, typer.Option("--profile", help="Profile: a YAML in params/.")]
PATHS = (
    "--profile",
    "--against",
    "--out",
    "--resume",
    "--into",
    "--template",
    "--to",
    "--html",
    "--notebooks",
    "--cases",
    "--log",
)
EXIT_INCONCLUSIVE = 3
"""Of a green run that was narrowed, or compared with a baseline that nobody here accepted: too little to say."""
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder in outputs/.")]


@app.command()
def run(
    profile: Annotated[
        Path | None, typer.Option(help="Profile: a YAML in params/, such as params/smollm2.yaml.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="The server, such as http://gpu-box:8000/v1; wins over the profile.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Served model name; wins over the profile.")] = None,
    revision: Annotated[str | None, typer.Option(help="What is deployed, such as an image digest.")] = None,
    suite: Annotated[
        str | None, typer.Option(help="demo, smoke, integration, scenario or full; default: the profile's.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Only these notebooks, groups or cases, comma-separated: the run is PARTIAL.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where run folders go; default: outputs/.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Profile of a second target: the latency groups are asked of both in turn.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run instead; asks only what is not recorded.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print cases, tokens and minutes; ask nothing.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the verdict as JSON (docs/schema/verdict.schema.json).")
    ] = False,
) -> None:
    """Ask a deployment every case of a suite and give one verdict."""
    from gatebook import runner

    if resume is not None:
        if any((profile, base_url, model, revision, suite, only, out, against, plan)):
            raise BadInput("--resume takes no other option but --json: the run folder says what was asked of whom")
        _tell(*runner.resume(resume, watch=not as_json), as_json)
    from gatebook.config.profile import load_profile, with_target

    if profile is None:
        raise BadInput("--profile is missing; for the embedded model: gatebook run --profile params/smollm2.yaml")
    chosen = with_target(load_profile(profile), base_url=base_url, model=model, revision=revision)
    name, narrowed = _suite(suite or chosen.target.default_suite), _list(only)
    if plan:
        from gatebook.opening import accepted, planned
        from gatebook.report.estimate import estimate

        print(estimate(chosen, name, planned(chosen, name, narrowed), accepted(chosen)[0]))
        raise SystemExit(0)
    second = load_profile(against) if against else None
    _tell(*runner.run_profile(chosen, name, narrowed, out, watch=not as_json, against=second), as_json)


@app.command()
def verify(
    path: RunArgument,
    reproduced: Annotated[
        bool, typer.Option("--reproduced", help="Exit 0 for a red run too, if all of it is reproduced.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Also write what was re-computed as a page, outside of the bundle.")
    ] = None,
    notebooks: Annotated[
        Path | None, typer.Option(help="Whose code may be executed: a folder of notebooks; default: this checkout's.")
    ] = None,
) -> None:
    """Check a run folder without any server: checksums, records, cells, verdict, nbval replay of our own code."""
    from gatebook.commands.verify import verify as check
    from gatebook.report.verification import show, verification_page

    if html is not None and html.resolve().is_relative_to(path.resolve()):
        raise BadInput(f"--html {html}: lies in the bundle, which is sealed; name a file outside of it")
    if notebooks is not None and not notebooks.is_dir():
        raise BadInput(f"--notebooks {notebooks}: no such folder; name the one with the notebooks that asked")
    found = check(path, notebooks=notebooks)
    if html is not None:
        _write(html, verification_page(found))
    show(found)
    if not found.reproduced or found.verdict is None:
        raise SystemExit(75)
    raise SystemExit(0 if reproduced else found.verdict.exit_code)


@app.command()
def passed(
    path: RunArgument,
    suite: Annotated[str, typer.Option(help="The suite that must have passed.")],
    revision: Annotated[
        str | None, typer.Option(help="The revision that must have been judged, such as an image digest.")
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(help="The profile of the commit that deploys: the bundle must have been judged by it."),
    ] = None,
    cases: Annotated[
        Path | None, typer.Option(help="With --profile: the folder of cases; default: this checkout's params/cases.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="The server that must have been asked.")] = None,
    model: Annotated[str | None, typer.Option(help="The served model that must have been asked.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="NAME of an extra header that it was asked with.")] = None,
) -> None:
    """Ask a bundle, as a deployment does: is it intact and complete, and did this suite pass for this revision?

    Exit codes: 0 yes · 1 FAIL · 2 another suite, revision, profile or case, or no run folder · 3 INCONCLUSIVE, PARTIAL, or a
    baseline that was not accepted here · 75 ERROR, or missing or edited evidence.
    """
    from gatebook.commands.verify import Wanted
    from gatebook.commands.verify import passed as ask
    from gatebook.config.profile import load_profile

    for option, value in (("revision", revision), ("base-url", base_url), ("model", model)):
        if value is not None and not value.strip():
            raise BadInput(f"--{option} is empty; name what is deployed, or leave the option out")
    if cases is not None and profile is None:
        raise BadInput("--cases goes with --profile, which says by what else the bundle must have been judged")
    wanted = Wanted(base_url, model, revision, header)
    found = ask(path, _suite(suite), wanted, load_profile(profile) if profile else None, cases)
    verdict = found.verdict
    word = f"{verdict.verdict}{' PARTIAL' if verdict.partial else ''}"
    green, reason = word == "PASS", verdict.reason
    if green and found.not_accepted:
        green, word, reason = False, "INCONCLUSIVE", found.not_accepted
    own = "".join(f"; the run's own {name}: {value}" for name, value in found.own.items())
    said = f"{verdict.run}, profile {found.profile}, suite {verdict.suite}: {reason}{own}"
    print(f"{'passed' if green else 'NOT PASSED'}, {word}: {one_line(' '.join(said.split()))}")
    raise SystemExit(0 if green else verdict.exit_code or EXIT_INCONCLUSIVE)


@app.command()
def judge(
    path: RunArgument,
    profile: ProfileOption,
    out: Annotated[Path, typer.Option(help="The new run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Judge recorded answers by the rules of another profile; nothing is asked."""
    from gatebook.commands.judge import judge_again
    from gatebook.config.profile import load_profile

    _tell(*judge_again(path, load_profile(profile), out), as_json)


@app.command()
def report(
    path: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Tell a run again from its record, and exit as it did; one that was killed gets its pages, and is not green."""
    from gatebook.commands.report import report_again

    _tell(*report_again(path), as_json)


@app.command()
def accept(
    path: RunArgument,
    reason: Annotated[str, typer.Option(help="Why this run may be the measure of later ones.")],
    group: Annotated[str | None, typer.Option(help="Take over this group only.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Who accepts; default: GITLAB_USER_LOGIN, else git's user, else USER.")
    ] = None,
) -> None:
    """Make a run the baseline of its profile (params/baselines/<profile>.json), with an entry in its log."""
    from gatebook.commands.accept import accept as take

    print(take(path, reason, group, by))


@app.command()
def archive(
    source: Annotated[Path, typer.Argument(metavar="OUTPUTS", help="A folder of runs, or one run.")],
    to: Annotated[Path, typer.Option(help="The site's folder, such as public/; runs that it has stay.")],
) -> None:
    """Write a static site of all kept runs: list, trends, difference of any two. Opens from disk and on GitLab Pages."""
    from gatebook.report.archive import archive as keep

    for line in keep(source, to):
        print(one_line(line))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A run folder, or the URL of a server.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The run or server that is measured by A.")],
    profile: Annotated[Path | None, typer.Option(help="For two URLs: the profile by which both are asked.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write it as a page, with both answers of all cases.")] = None,
    suite: Annotated[str | None, typer.Option(help="For two URLs: default, the profile's.")] = None,
    only: Annotated[str | None, typer.Option(help="For two URLs: these notebooks, groups or cases only.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="For two URLs: the served name; twice where they differ.")
    ] = None,
    revision: Annotated[list[str] | None, typer.Option(help="For two URLs: what is deployed; twice, A then B.")] = None,
    out: Annotated[Path | None, typer.Option(help="For two URLs: where the two runs go; default: outputs/.")] = None,
) -> None:
    """Compare two runs case by case, or two live servers (both are asked, and both runs are kept).

    Exit codes: 0 same or better · 1 shown worse · 2 bad input · 3 cannot tell · 75 a run is damaged or could not be measured.
    """
    from gatebook.commands import compare as comparing
    from gatebook.report.comparison import comparison_page, show
    from gatebook.verdict.comparing import difference

    if comparing.are_urls(first, second):
        from gatebook.config.profile import load_profile

        if profile is None:
            raise BadInput("--profile is missing: two servers are asked by one profile, such as params/qwen3-4b.yaml")
        asked = load_profile(profile)
        sides = comparing.live(
            asked, (first, second), _suite(suite or asked.target.default_suite), _list(only), out,
            comparing.two("model", model), comparing.two("revision", revision), watch=True,
        )  # fmt: skip
    else:
        if any((profile, suite, only, model, revision, out)):
            raise BadInput("two recorded runs take no other option but --html: they say what was asked of whom")
        sides = comparing.recorded(first, second)
    found = difference(*sides)
    if html is not None:
        _write(html, comparison_page(found, *sides))
    show(found, *sides)
    raise SystemExit(found.exit_code)


@app.command()
def serve(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: a free one.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that write answers.")] = 1,
    prompt_threads: Annotated[int, typer.Option(min=1, help="Threads that read prompts.")] = 2,
    log: Annotated[Path, typer.Option(help="The server's log, appended to.")] = Path("outputs/server.log"),
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
    base_url: Annotated[str, typer.Option(help="The server to write a profile for.")],
    name: Annotated[str | None, typer.Option(help="Name of the profile; default: from the model.")] = None,
    model: Annotated[str | None, typer.Option(help="Which model, when the server lists several.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="NAME of the environment variable with the key.")] = None,
) -> None:
    """Probe a server and write a profile for it in params/."""
    from gatebook.commands.init import introduce

    print(introduce(base_url, name, model, api_key_env))


@app.command()
def doctor() -> None:
    """Say what is missing on this machine."""
    from gatebook.commands.doctor import examine

    findings = examine()
    for ok, what, todo in findings:
        print(f"{'ok     ' if ok else 'MISSING'} {what}{'' if ok else ': ' + todo}")
    raise SystemExit(0 if all(ok for ok, _, _ in findings) else 75)


@cases_app.command("check")
def cases_check(
    files: Annotated[list[Path] | None, typer.Argument(help="Case files; default: all of params/cases.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="A case that judges a text may have no example answers.")
    ] = False,
    every_check: Annotated[
        bool, typer.Option("--every-check", help="Every check that judges a text must fail a bad example of its case.")
    ] = False,
) -> None:
    """Read case files as a run would and try every good and bad example by its case's own checks.

    Exit codes: 0 all agree · 1 an example disagrees or is missing · 2 bad input.
    """
    from gatebook.commands.cases import check_files

    found = check_files(files or [], allow_missing, every_check)
    problems = [problem for one in found for problem in one.problems]
    refused = [one.refused for one in found if one.refused]
    for line in (*found, *problems):
        print(one_line(line))
    for line in refused:
        print(f"gatebook: {line}", file=sys.stderr)
    tried = sum(one.good + one.bad for one in found)
    print(
        f"{len(refused)} of {len(found)} files cannot be read"
        if refused
        else f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        if problems
        else f"no problem: {tried} answers tried"
        if tried
        else "no problem, but nothing was tried: no case here has an example answer"
    )
    raise SystemExit(2 if refused else 1 if problems else 0)


@cases_app.command("import")
def cases_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV (UTF-8) or JSONL: one case a row.")],
    into: Annotated[Path, typer.Option(help="The new case file, such as params/cases/tickets.yaml.")],
    columns: Annotated[
        str | None, typer.Option("--map", help="target=column, comma-separated: id=ticket_no,user=question,good=answer")
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help="A YAML with one case and {{column}} placeholders, instead of targets.")
    ] = None,
    notebook: Annotated[str | None, typer.Option(help="Without a template: the notebook, 06_scenarios.")] = None,
    group: Annotated[str | None, typer.Option(help="Without a template: the group, scenarios.tickets.")] = None,
    why: Annotated[str | None, typer.Option(help="Without a template: why these cases exist.")] = None,
) -> None:
    """Make a case file from a table; nothing is written when any row is bad (docs/cases.md)."""
    from gatebook.commands.importing import import_cases

    print(import_cases(file, into, columns, template, notebook=notebook, group=group, why=why))


def _tell(run: Any, verdict: Any, as_json: bool) -> None:
    from gatebook.report.terminal import show

    if as_json:
        print(verdict.model_dump_json(indent=1))
    else:
        show(verdict, run)
    raise SystemExit(verdict.exit_code)


def _write(file: Path, text: str) -> None:
    from gatebook.config.files import replace_text

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and not file.is_file():
            file.write_text(text, encoding="utf-8")  # /dev/stdout
        else:
            replace_text(file, text)
    except OSError as error:
        raise BadInput(f"--html {file}: cannot be written ({os_reason(error)}); name another file") from None
    print(file)


def _suite(name: str) -> Any:
    from gatebook.config.profile import SUITES

    if name not in SUITES:
        raise BadInput(f"--suite has value {name!r}: must be one of {', '.join(SUITES)}")
    return name


def _list(text: str | None) -> list[str] | None:
    if text is None:
        return None
    found = [part.strip() for part in text.split(",")]
    if not all(found):
        raise BadInput(f"--only has value {text!r}: must be names separated by commas, such as 01,02")
    return found


def _readable(arguments: list[str]) -> None:
    """Raises BadInput for bytes that are no text here, and for a path that is empty: it would mean the current folder."""
    said = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for option, value in zip(["", *said], said, strict=False):
        if any("\ud800" <= char <= "\udfff" for char in value):
            where = option if option.startswith("--") else "an argument"
            raise BadInput(f"{where} is not {sys.getfilesystemencoding()} text; type it in the terminal's own encoding")
        if option in PATHS and not value.strip():
            raise BadInput(f"{option} is empty; name a path, or leave the option out")
        if not option.startswith("--") and not value:
            raise BadInput("an argument is empty; name a run folder or a file")


def command() -> int:
    """How it ends by itself. Raises KeyboardInterrupt when it was stopped before it came to anything."""
    try:
        _readable(sys.argv[1:])
        ended = app(standalone_mode=False)  # typer returns the status of an exit of its own: 130 for KeyboardInterrupt
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (Exception, KeyboardInterrupt) as error:
        if stopping.stopped() or isinstance(error, typer.Abort | KeyboardInterrupt):
            raise KeyboardInterrupt from None
        return _told(error)
    if stopping.stopped():
        raise KeyboardInterrupt
    return ended if isinstance(ended, int) else 0


def _told(error: BaseException) -> int:
    """One line for what stopped the command, and its exit code."""
    if isinstance(error, GatebookError):
        print(f"gatebook: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError) and error.errno is not None:  # the disk, the rights, the system: no crash of ours
        where = one_line(error.filename or "the system")
        print(
            f"gatebook: {where}: {os_reason(error)}; free space, or name a place that can be read and written",
            file=sys.stderr,
        )
        return 75
    if said := getattr(error, "format_message", None):  # a usage error; typer keeps its classes to itself
        print(said() if "Usage:" in said() else f"gatebook: {said()}; see gatebook --help", file=sys.stderr)
        return 2
    traceback.print_exc()  # our own crash says nothing about the deployment
    print(f"gatebook: our own fault, please report it: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
    return 75


if __name__ == "__main__":
    from gatebook.__main__ import main

    main()
