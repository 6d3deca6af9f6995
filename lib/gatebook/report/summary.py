"""The verdict in words: plain text in a notebook, and summary.md, at most 15 lines for a merge request, a step summary or a chat.

In summary.md whatever a model, a server or a profile said stands in a code span, where nothing is a link, a mention or markup;
and in it the characters that some chat reads all the same are look-alikes. No line begins with such a text: GitLab takes `/close`
there for a command.
"""

from __future__ import annotations

import re
from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from gatebook.checks.finding import Finding
from gatebook.config.policies import LoadSettings
from gatebook.errors import one_line
from gatebook.record.run import Run
from gatebook.report.conversation import conversation
from gatebook.report.standing import CaseStanding, excuses, few, standings
from gatebook.verdict.findings import contract_group
from gatebook.verdict.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

MOST_FINDINGS, FEW_FINDINGS = 5000, 1000
SIGNS = {"PASS": "✅", "FAIL": "❌", "ERROR": "⚠️", "INCONCLUSIVE": "❓"}
PROMPTS = 3
CAUSE_BYTES, REASON_BYTES, NAME_BYTES = 600, 300, 120
"""So that all of it stays under 4096 bytes, what Kubernetes keeps of a container's last words."""
LOOKALIKES = str.maketrans({"`": "ˋ", "<": "‹", ">": "›", "@": "＠"})
LINK = re.compile(r"https?://[\w.~:/?#&=%+\-]{1,300}", re.ASCII)


def summary(run: Run, verdict: Verdict, texts: bool = True) -> str:
    """Verdict, cause, three failing prompts, what it was compared with, and where to look. Without `texts` no prompt."""
    served, cases = verdict.served, standings(run, verdict)
    blocking, judged = _by_cause([c for c in cases if c.blocks], verdict), [c for c in cases if c.case]
    engine = f"{served.engine} {served.version or ''}"
    url = run.manifest.job_url
    job = f", kept by [the job]({url})" if url and LINK.fullmatch(url) else ""
    waived = len({case for waiver in verdict.waivers for case in waiver.cases})
    more = [f"{len(verdict.causes) - 1} more causes"] if len(verdict.causes) > 1 else []
    more += [f"{len(blocking) - PROMPTS} more cases that block"] if len(blocking) > PROMPTS else []
    lines = [
        f"{SIGNS[verdict.verdict]} **{verdict.called}**: may {code(served.model)} ship?",
        "",
        f"- because: {code(verdict.reason, CAUSE_BYTES)}",
        *(f"- blocks: {_told(case, texts)}" for case in blocking[:PROMPTS]),
        *([f"- and {', '.join(more)}"] if more else []),
        f"- passed: {sum(c.outcome == 'pass' for c in judged)} of {len(judged)} cases{f'; {waived} waived' if waived else ''}",
        f"- compared with: {code(verdict.baseline) if verdict.baseline else 'nothing, no baseline was accepted yet'}",
        f"- asked: {code(served.base_url)}, revision {code(served.revision or 'none named')}, {code(engine)}",
        f"- by: profile {code(verdict.profile)}, suite {code(verdict.suite)}, run {code(verdict.run)}",
        f"- page: [index.html](index.html) beside this file{job}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def code(text: str, most_bytes: int = NAME_BYTES) -> str:
    """Return a text that is not ours in one line, as a code span."""
    flat = one_line(" ".join(text.split())).translate(LOOKALIKES).encode()
    short = flat[:most_bytes].decode(errors="ignore").strip()
    return f"`{short or '(empty)'}{' …' if len(flat) > most_bytes else ''}`"


def _by_cause(blocking: list[CaseStanding], verdict: Verdict) -> list[CaseStanding]:
    """Sort the cases by the cause they show, the first cause first."""
    rank = {cause.about: number for number, cause in reversed([*enumerate(verdict.causes)])}
    return sorted(
        blocking, key=lambda c: min(rank.get(n, len(rank)) for n in (c.id, c.group, *(f.group for f in c.red)))
    )


def _told(case: CaseStanding, texts: bool) -> str:
    asked = [t.text for r in conversation(case, 100)[:1] for t in r.turns if t.kind == "prompt"] if texts else []
    prompt = f" asked {code(asked[-1], REASON_BYTES)}" if asked else ""
    return f"{code(case.id)}{prompt}: {code(case.reason, REASON_BYTES)}"


def settings_table(run: Run, notebook: str) -> pd.DataFrame:
    """What this notebook was run with: target, limits, and the policies of its own groups."""
    import pandas as pd  # a run without notebooks in this process does not need it

    manifest, profile, target = run.manifest, run.manifest.profile, run.manifest.profile.target
    cases = run.expected(notebook) or list(run.cases.values())
    groups = sorted({g for c in cases for g in (c.group, contract_group(c.group))})
    names = {*groups, *(c.id for c in cases)}
    policies = {group: profile.policy(group) for group in groups}
    rows: dict[str, Any] = {
        "profile": profile.name, "base URL": manifest.base_url, "model": target.model, "revision": target.revision or "none named",
        "suite": manifest.suite_told,
        "cases": len(cases), "in flight": profile.in_flight(run.manifest.suite),
        "request deadline": f"{profile.limits.request_deadline_s:g} s", "transport retries": profile.limits.transport_retries,
        **(_load_settings(profile.load) if any(c.load for c in cases) else {}),
        **{f"policy of {g}": f"{p.policy} (margin {p.margin:g})" if p.margin else p.policy for g, p in policies.items()},
        **{f"excused: {name}": why for name, why in sorted(profile.excused.items()) if any(fnmatchcase(n, name) for n in names)},
    }  # fmt: skip
    return pd.DataFrame({"value": pd.Series(rows, dtype=object).astype(str)}).rename_axis(columns="setting")


def _load_settings(load: LoadSettings) -> dict[str, Any]:
    good, long = load.goodput, load.long_prompts
    return {
        "load steps": ", ".join(map(str, load.steps)),
        "goodput": f"{good.share:.0%} within TTFT {good.ttft_ms:g} ms and ITL {good.itl_ms:g} ms at {load.judged_step} in flight",
        "decisions that may flip": "what the McNemar test does not show" if load.max_flips is None else load.max_flips,
        "long prompts": f"{long.at_once} at once of {long.tokens or 'their own number of'} tokens",
        "client": f"at most {load.client_lag_ms:g} ms late and {load.client_cpu_share:.0%} of a core",
    }


def verdict_text(verdict: Verdict) -> str:
    """Sorted plain text: what was judged, every check, every group, and the verdict."""
    served, checks, left = verdict.served, *_printed(sorted(verdict.findings, key=lambda f: f.id))
    limits = [f"(limit {_shown(f.limit, f.unit)})" if f.limit is not None else "" for f in checks]
    lines = [
        f"target   {served.base_url}  model {served.model}  revision {served.revision or 'none named'}",
        f"engine   {served.engine} {served.version or ''}".rstrip(),
        f"run      {verdict.run}  suite {verdict.suite}{verdict.called.removeprefix(verdict.verdict).replace(' ', '  ')}  baseline {verdict.baseline or 'none'}",
        "",
        *(
            f"{f.outcome:<13}{f.id:<52} {_shown(f.measured, f.unit)} {limit}".rstrip()
            for f, limit in zip(checks, limits, strict=True)
        ),
        *left,
        "",
        *(f"{g.word:<13}{g.group:<30} {g.policy:<16} {g.passed}/{g.cases}  {g.reason}" for g in verdict.groups),
        *(f"excused      {excuse}" for excuse in excuses(verdict)),
        *(f"{'waived' if w.state == 'in use' else w.state:<13}{w}" for w in verdict.waivers),
        *(f"note         {note}" for note in verdict.notes),
        "",
        *(f"because      {reason}" for reason in verdict.reasons),
        *(f"             {line}" for line in few([str(change) for change in verdict.changes], "changed")),
        f"VERDICT      {verdict.verdict}",
    ]
    return "\n".join(lines)


def _printed(findings: list[Finding]) -> tuple[list[Finding], list[str]]:
    """Return what is printed, and a line for the rest: of very many findings first what is not green."""
    if len(findings) <= MOST_FINDINGS:
        return findings, []
    red = [f for f in findings if f.outcome != "pass"][:FEW_FINDINGS]
    left = Counter(f.outcome for f in findings)
    left.subtract(f.outcome for f in red)
    said = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(left.items()) if count)
    return red, [f"and {said}: all {len(findings):,} findings stand in verdict.json"]


def _shown(value: Any, unit: str) -> str:
    return "" if value is None else f"{value} {unit}".strip()
