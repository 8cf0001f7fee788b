"""A real browser for tests: the system's Chromium, driven by playwright.

``with page() as tab`` skips the test where there is no browser or no playwright, unless
``CXR_REQUIRE_BROWSER=1`` says that there must be one.
"""

import os
import shutil
from contextlib import contextmanager

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 120_000  # milliseconds; waits end as soon as what they wait for is there
FLAGS = [  # no sandbox as root; the rest keeps the browser from calling home
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_browser():
    """Path of the browser: the one that CHROMIUM names, else the first on the PATH; or None."""
    if named := os.environ.get("CHROMIUM"):
        return shutil.which(named)
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def _playwright():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    return sync_playwright


def require_browser():
    """Skip the test without a browser or playwright; fail it if CXR_REQUIRE_BROWSER is 1."""
    start, program = _playwright(), find_browser()
    if start and program:
        return start, program
    lacks = "playwright is not installed" if start is None else f"none of {', '.join(BROWSERS)}"
    if os.environ.get("CXR_REQUIRE_BROWSER") == "1":
        pytest.fail(f"CXR_REQUIRE_BROWSER is 1, and there is no browser: {lacks}")
    pytest.skip(f"no browser: {lacks}")


@contextmanager
def page(width=1280, height=900, **options):
    """Open a tab that keeps what went wrong in it.

    Parameters
    ----------
    width, height : int
        Of the window, in pixels; a phone has 390 x 844.
    options
        For playwright's ``new_context``, such as ``color_scheme="dark"``.

    Yields
    ------
    playwright.sync_api.Page
        With two lists more: ``tab.errors`` (console errors and uncaught exceptions) and
        ``tab.failed`` (requests that failed or were answered 400 and above). A test empties or
        filters them as it likes; :func:`assert_clean` wants both empty.
    """
    with _shared_browser() as browser:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE)
        tab = context.new_page()
        _listen(tab)
        yield tab
        context.close()


_running = []  # the browser, once for each page that uses it


@contextmanager
def _shared_browser():
    """One browser for all open pages: a second playwright cannot start beside the first.

    It ends with the last page, because asyncio cannot be used beside it.
    """
    if _running:
        _running.append(_running[0])
        try:
            yield _running[0]
        finally:
            _running.pop()
        return
    start, program = require_browser()
    with start() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        _running.append(browser)
        try:
            yield browser
        finally:
            _running.pop()
            browser.close()


def _listen(tab):
    tab.errors, tab.failed = [], []

    def on_response(answer):
        if answer.status >= 400:
            tab.failed.append(f"{answer.status} {answer.url}")

    def on_failure(request):
        # a page that is left while it still loads aborts its requests: that is no fault
        if "ERR_ABORTED" not in (request.failure or ""):
            tab.failed.append(f"{request.failure} {request.url}")

    def on_console(entry):
        if entry.type == "error":
            tab.errors.append(f"{entry.text} ({entry.location.get('url', '')})")

    tab.on("response", on_response)
    tab.on("requestfailed", on_failure)
    tab.on("console", on_console)
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))


def assert_clean(tab):
    """No console error, no uncaught exception, no missing file."""
    assert not tab.errors, f"errors in the console: {tab.errors}"
    assert not tab.failed, f"requests that failed: {tab.failed}"


@pytest.fixture
def tab():
    """Give the test a page of desktop width: ``from browser import tab  # noqa: F401``."""
    with page() as opened:
        yield opened


def run_all(tab, address, name):
    """Open a notebook, wait for its kernel (else a dialog asks for one), and run it."""
    tab.goto(f"{address}/lab/tree/{name}")
    tab.wait_for_selector(".jp-Notebook .jp-Cell")
    tab.locator(".jp-StatusBar-TextItem", has_text="| Idle").wait_for()
    tab.get_by_role("menuitem", name="Run", exact=True).click()
    tab.get_by_role("menuitem", name="Run All Cells", exact=True).click()
