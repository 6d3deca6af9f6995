"""What a verification re-computed, for an auditor: in a terminal and as one page."""

from __future__ import annotations

from importlib.metadata import version

from gatebook.errors import one_line, visible
from gatebook.record.run import Manifest, now
from gatebook.report.standing import excuses
from gatebook.report.text import render
from gatebook.verdict.verdict import Verification


def facts(manifest: Manifest | None) -> dict[str, str]:
    """Who asked what of which model, with which code."""
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


def show(found: Verification) -> None:
    """Facts, steps, and a last line that says what it comes to."""
    for name, value in {**facts(found.manifest), "seal": f"{found.seal or 'none'} (SHA-256 of SHA256SUMS)"}.items():
        print(f"      {name:<10} {value}")
    for step in found.steps:
        wrong = f": {one_line(step.wrong)}" if step.wrong else ""
        print(f"{'ok   ' if step.wrong is None else 'WRONG'} {step.what} ({step.done}){wrong}")
        for line in step.more.splitlines():
            print(f"        | {visible(line)}")
    for waiver in found.verdict.waivers if found.verdict else []:
        print(f"      waiver {waiver.state}: {one_line(waiver)}")
    print(one_line(found.line))


def verification_page(found: Verification) -> str:
    """One page without script; it stands outside of the bundle, which stays sealed."""
    return render(
        "verify.html.j2", found=found, facts=facts(found.manifest), v=found.verdict, m=found.manifest,
        excuses=excuses(found.verdict) if found.verdict else [], at=now()[:19].replace("T", " "), version=version("gatebook"),
    )  # fmt: skip
