"""A real browser, headless: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Where there is no Chromium these tests are skipped, but not in continuous integration.

    It ends with the file: while Playwright lives, its loop runs in this thread, and no other test can start one.
    """
    named = os.environ.get("GATEBOOK_CHROMIUM", "chromium")
    found = shutil.which(named)
    if found is None:
        missing = f"no {named} here: .ci/packages installs Debian's, GATEBOOK_CHROMIUM names another"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()
