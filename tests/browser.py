"""Open web pages in a headless Chromium, which must be installed on the machine. Without it, tests that use it are skipped."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT = 60_000
"""In milliseconds, for each expectation and action. On a busy machine, the first page takes many seconds."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A running browser. While it runs, the thread has an event loop, so a module with async tests cannot use it."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("Chromium is not installed")
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS, timeout=TIMEOUT)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A new page with its own cookies and storage."""
    context = chromium.new_context()
    context.set_default_timeout(TIMEOUT)
    yield context.new_page()
    context.close()
