"""The same cases asked by promptfoo, lm-eval and Gatebook: CPU seconds and memory of each, of the same server.

Each case is a prompt and one text that the answer must hold; every third fails. 16 requests are in flight, and each tool keeps
all answers. Gatebook streams, as its users' clients do, and the others take whole answers, as they do by default. A tool is installed in
`.engines/rivals` the first time, from pinned versions. Its install is not measured; its start, its reports and its pages are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.report import Row
from benchmarks.scale import MODEL, Spent, gatebook, make_case, project, watched
from tests.faults.scripted import ScriptedServer

TOOLS = ROOT / ".engines" / "rivals"
PROMPTFOO, LM_EVAL = "0.121.9", ("lm-eval[api]==0.4.13", "datasets==5.2.0")
IN_FLIGHT, MOST_S = 16, 3600.0
"""Requests at a time, of every tool; and when one is ended that takes longer."""
TASK = """
task: own
dataset_path: json
dataset_kwargs: {data_files: {test: own.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["###"], max_gen_toks: 64, temperature: 0}
filter_list: [{name: word, filter: [{function: regex, regex_pattern: "(Hello|Goodbye)"}, {function: take_first}]}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


class NotMeasuredError(Exception):
    """Why a tool could not do it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", choices=RIVALS, default=[*RIVALS])


def run(args: argparse.Namespace) -> list[Row]:
    spent: dict[str, Spent] = {}
    for name in args.only:
        try:
            spent[name] = _measured(name, args.cases)
        except NotMeasuredError as why:
            print(f"{name}: not_measured: {why}", flush=True)
    rows, own = list[Row](), spent.get("Gatebook")
    for name, cost in spent.items():
        bases = (None, None, None) if own in (cost, None) else (own.cpu_s, own.most_mb, own.wall_s)
        rows += [
            Row(f"{name}: CPU of all its processes", cost.cpu_s, "s", base=bases[0]),
            Row(f"{name}: CPU a case", 1000 * cost.cpu_s / args.cases, "ms"),
            Row(f"{name}: most memory, all its processes together", cost.most_mb, "MB", base=bases[1]),
            Row(f"{name}: most memory of one process", max(cost.peak_mb.values()), "MB"),
            Row(f"{name}: wall", cost.wall_s, "s", base=bases[2]),
        ]
    return rows


def _measured(name: str, count: int) -> Spent:
    """Raises NotMeasuredError where it did not ask all cases, or found other passes than there are."""
    with tempfile.TemporaryDirectory(prefix="gatebook-rivals-") as folder:
        root = Path(folder) / "project"
        project(root, count)
        with ScriptedServer(MODEL, answer_s=0) as server:
            spent, passed = RIVALS[name](root, f"{server.url}/v1", count)
            asked = sum("Case " in str(chat["messages"]) for chat in server.chats)
    if (asked, passed) != (count, good := count - (count + 2) // 3):
        raise NotMeasuredError(f"{asked} of {count} cases were asked, and {passed} passed where {good} must")
    return spent


def _asked_by_gatebook(root: Path, url: str, count: int) -> tuple[Spent, int]:
    words = gatebook("run", "--profile", "params/scale.yaml", "--base-url", url, "--suite", "full")
    spent = _ended(root, watched(root, f"Gatebook, {count:,} cases", *words, most_s=MOST_S), 1)
    verdict = json.loads(next((root / "outputs").glob("20*/verdict.json")).read_text(encoding="utf-8"))
    return spent, sum(group["passed"] for group in verdict["groups"] if group["group"] in ("many.good", "many.bad"))


def _asked_by_promptfoo(root: Path, url: str, count: int) -> tuple[Spent, int]:
    """Its exit is 100 where a case fails."""
    npm = shutil.which("npm")
    if npm is None:
        raise NotMeasuredError("there is no npm; install Node 20")
    home = TOOLS / f"promptfoo-{PROMPTFOO}"
    executable = home / "node_modules" / ".bin" / "promptfoo"
    if not executable.exists():
        home.mkdir(parents=True, exist_ok=True)
        _install(
            [npm, "install", "--prefix", str(home), "--silent", "--no-audit", "--no-fund", f"promptfoo@{PROMPTFOO}"]
        )
    config = {"apiBaseUrl": url, "apiKey": "none", "temperature": 0, "max_tokens": 64}
    tests = [
        {"vars": {"question": question}, "assert": [{"type": "contains", "value": wanted}]}
        for question, wanted in _questions(count)
    ]
    gate = {
        "prompts": ["{{question}}"],
        "providers": [{"id": f"openai:chat:{MODEL}", "config": config}],
        "tests": tests,
    }
    (root / "gate.json").write_text(json.dumps(gate), encoding="utf-8")
    off = dict.fromkeys(("TELEMETRY", "UPDATE", "REMOTE_GENERATION"), "1")
    spent = _ended(root, watched(
        root, f"promptfoo, {count:,} cases", str(executable), "eval", "-c", "gate.json", "--no-cache", "-j", str(IN_FLIGHT),
        "--no-progress-bar", "--no-table", "-o", "out.json", most_s=MOST_S, HOME=str(root),
        PROMPTFOO_CONFIG_DIR=str(root / "config"), **{f"PROMPTFOO_DISABLE_{key}": value for key, value in off.items()},
    ), 100)  # fmt: skip
    return spent, int(json.loads((root / "out.json").read_text(encoding="utf-8"))["results"]["stats"]["successes"])


def _asked_by_lm_eval(root: Path, url: str, count: int) -> tuple[Spent, int]:
    home = TOOLS / LM_EVAL[0].replace("[api]==", "-")
    if not (home / "installed").exists():
        _install([sys.executable, "-m", "venv", "--clear", str(home)])
        _install([str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *LM_EVAL])
        (home / "installed").touch()
    (root / "own.yaml").write_text(TASK, encoding="utf-8")
    lines = [json.dumps({"question": question, "answer": wanted}) + "\n" for question, wanted in _questions(count)]
    (root / "own.jsonl").write_text("".join(lines), encoding="utf-8")
    server = f"model={MODEL},base_url={url}/chat/completions,num_concurrent={IN_FLIGHT},max_retries=1"
    spent = _ended(root, watched(
        root, f"lm-eval, {count:,} cases", str(home / "bin" / "lm_eval"), "run", "--model", "local-chat-completions", "--model_args", server,
        "--tasks", "own", "--include_path", ".", "--apply_chat_template", "--log_samples", "--output_path", "out",
        most_s=MOST_S, HOME=str(root), PYTHONPATH="", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1",
    ), 0)  # fmt: skip
    result = json.loads(next((root / "out").rglob("results_*.json")).read_text(encoding="utf-8"))
    return spent, round(count * result["results"]["own"]["exact_match,word"])


RIVALS: dict[str, Callable[[Path, str, int], tuple[Spent, int]]] = {
    "Gatebook": _asked_by_gatebook,
    "promptfoo": _asked_by_promptfoo,
    "lm-eval": _asked_by_lm_eval,
}
"""Tool -> what asks all cases with it: (its cost, how many passed)."""


def _questions(count: int) -> list[tuple[str, str]]:
    """Each prompt and the text that its answer must hold, as in the cases of `scale`."""
    cases = [make_case(number) for number in range(count)]
    return [(case["messages"][0]["content"], case["expect"][0]["contains_any"][0]) for case in cases]


def _install(words: Sequence[str]) -> None:
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )
    if done.returncode:
        raise NotMeasuredError(f"it cannot be installed: {' '.join(done.stdout.split())[-300:]}")


def _ended(root: Path, spent: Spent, status: int) -> Spent:
    if spent.status != status:
        said = " ".join((root / "said.log").read_text(encoding="utf-8", errors="replace").split())
        raise NotMeasuredError(f"exit {spent.status} after {spent.wall_s:.0f} s: {said[-600:]}")
    return spent
