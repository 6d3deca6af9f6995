"""The archive of ten runs, opened from disk in headless Chromium: until list and trends are painted, and until a difference is.

Ten copies of one finished run under ten names, sealed anew; a fresh browser context each time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from gatebook.record.run import Run
from gatebook.report.archive import archive

from benchmarks.report import Row

RUNS, OPENED = 10, 9
WATCH = """
document.addEventListener('readystatechange', () => {
  const charts = document.getElementById('charts');
  if (document.readyState !== 'interactive' || !charts) return;
  new MutationObserver((_, own) => {
    own.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => { window.painted = performance.now(); }));
  }).observe(charts, { childList: true });
});
"""
COMPARE = """
() => new Promise((done) => {
  const begun = performance.now();
  new MutationObserver(() => {
    if (document.getElementById('cases')) requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - begun)));
  }).observe(document.getElementById('diff'), { childList: true, subtree: true });
  document.getElementById('compare').click();
})
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, default=Path("outputs/latest"), help="a finished run")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser")


def run(args: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        outputs, site = Path(folder) / "outputs", Path(folder) / "public"
        for number in range(RUNS):
            _copied(args.run, outputs / f"run-{number}")
        took = []
        for _ in range(2):
            begun = time.perf_counter()
            archive(outputs, site)
            took.append(time.perf_counter() - begun)
        loaded, compared = _opened(site, args.chromium)
        size = sum(p.stat().st_size for p in site.glob("*.*"))
        return [
            Row("opened until painted", median(loaded), "ms", worst=max(loaded), goal=1000),
            Row("difference of two until painted", median(compared), "ms", worst=max(compared), goal=1000),
            Row("page, style, script and list", size / 1000, "kB"),
            Row("data of one run", (site / "data" / "run-0.js").stat().st_size / 1000, "kB"),
            Row("gatebook archive, ten new runs", took[0], "s"),
            Row("gatebook archive again", took[1], "s"),
        ]


def _copied(run: Path, to: Path) -> None:
    shutil.copytree(run, to)
    manifest = to / "manifest.json"
    manifest.write_text(
        json.dumps({**json.loads(manifest.read_text(encoding="utf-8")), "run": to.name}), encoding="utf-8"
    )
    for file in to.glob("*verdict.json"):
        file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), "run": to.name}), encoding="utf-8")
    Run(to).seal()


def _opened(site: Path, chromium: str) -> tuple[list[float], list[float]]:
    from playwright.sync_api import sync_playwright

    loaded, compared = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        for _ in range(OPENED):
            context = browser.new_context()
            page = context.new_page()
            page.add_init_script(WATCH)
            page.goto(f"file://{site}/index.html")
            page.wait_for_function("window.painted")
            loaded.append(page.evaluate("window.painted"))
            compared.append(page.evaluate(COMPARE))
            context.close()
        browser.close()
    return loaded, compared
