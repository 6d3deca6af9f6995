"""summary.md: at most 15 lines for a merge request, a step summary or a chat.

Whatever a model, a server or a profile said stands in a code span, where nothing is a link, a mention or markup; and in it
the characters that some chat reads all the same are look-alikes. No line begins with such a text: GitLab takes `/close` there
for a command.
"""

from __future__ import annotations

import re

from gatebook.errors import one_line
from gatebook.record.run import Run
from gatebook.report.conversation import conversation
from gatebook.report.standing import CaseStanding, standings
from gatebook.verdict.verdict import Verdict

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
        f"- page: [index.html](index.html) beside this file{_job(run.manifest.job_url)}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def code(text: str, most_bytes: int = NAME_BYTES) -> str:
    """A text that is not ours, in one line and as a code span."""
    flat = one_line(" ".join(text.split())).translate(LOOKALIKES).encode()
    short = flat[:most_bytes].decode(errors="ignore").strip()
    return f"`{short or '(empty)'}{' …' if len(flat) > most_bytes else ''}`"


def _by_cause(blocking: list[CaseStanding], verdict: Verdict) -> list[CaseStanding]:
    """Those that show the first cause first."""
    rank = {cause.about: number for number, cause in reversed([*enumerate(verdict.causes)])}
    return sorted(
        blocking, key=lambda c: min(rank.get(n, len(rank)) for n in (c.id, c.group, *(f.group for f in c.red)))
    )


def _told(case: CaseStanding, texts: bool) -> str:
    asked = [t.text for r in conversation(case, 100)[:1] for t in r.turns if t.kind == "prompt"] if texts else []
    prompt = f" asked {code(asked[-1], REASON_BYTES)}" if asked else ""
    return f"{code(case.id)}{prompt}: {code(case.reason, REASON_BYTES)}"


def _job(url: str | None) -> str:
    """The CI job that keeps the bundle, where its address is one and nothing else."""
    return f", kept by [the job]({url})" if url and LINK.fullmatch(url) else ""
