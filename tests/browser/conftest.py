"""One Jupyter server for all browser tests, one Chromium a module; a fresh page and a fresh kernel for each."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.notebook import SCREENSHOTS, App, NotebookPage, write_notebook
from tests.browser.server import JupyterServer, serve
from tests.conftest import find_chromium

HERE = Path(__file__).parent
CHROMIUM_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
FAILED = pytest.StashKey[bool]()
Opener = Callable[..., NotebookPage]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are browser tests."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """The one server."""
    with serve(tmp_path_factory.mktemp("jupyter")) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser a module: while Playwright is up an event loop runs on this thread, and other tests need to run their own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A tall page, so that a whole notebook is in view; where the test fails, a picture of it is kept."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1800})
    opened = context.new_page()
    yield opened
    if request.node.stash.get(FAILED, False):
        opened.screenshot(path=SCREENSHOTS / f"failed-{re.sub(r'[^A-Za-z0-9]+', '-', request.node.name)}.png")
    context.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember a failure for the fixtures that are torn down next."""
    report = yield
    if call.when == "call" and report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture
def open_notebook(server: JupyterServer, page: Page) -> Iterator[Opener]:
    """A function of a notebook's cells, and of the application: `open_notebook("1 + 1", app="notebook")`."""
    numbers = itertools.count()

    def opener(*sources: str, app: App = "lab") -> NotebookPage:
        folder = server.folder / f"{id(page):x}-{next(numbers)}"
        folder.mkdir()
        write_notebook(folder / "work.ipynb", *sources)
        return NotebookPage(page, server, f"{folder.name}/work.ipynb", app).open()

    yield opener
    server.end_sessions()
