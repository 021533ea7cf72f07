"""What every test stands on: its own run folder, one shared model cache, no network, and the browser where there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
WITH_QUICKSTART = ("tests/test_quickstart.py", "tests/browser/test_static.py")
BROWSER_REQUIRED = bool(os.environ.get("NBTUNE_REQUIRE_BROWSER"))


def find_chromium() -> str | None:
    """The path of a Chromium, or None; `NBTUNE_CHROMIUM` names one."""
    names = (os.environ["NBTUNE_CHROMIUM"],) if os.environ.get("NBTUNE_CHROMIUM") else CHROMIUMS
    return next((path for name in names if (path := shutil.which(name))), None)


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before anything heavy is imported; kernels and subprocesses inherit it."""
    os.environ.setdefault("NBTUNE_CACHE", str(BUILD / "cache"))  # unpacking the packaged models takes seconds: once for all tests
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run beside each other, and tiny models gain nothing from more
    # Threads that spin while they wait make steps ten times as slow where kernel, browser and server share two cores.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ["HF_HOME"] = str(BUILD / "huggingface")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["IPYTHONDIR"] = str(BUILD / "ipython")
    for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        os.environ[f"JUPYTER_{name}"] = str(BUILD / "jupyter" / name.lower())
    if BROWSER_REQUIRED and not find_chromium():
        message = "the browser tests are required (NBTUNE_REQUIRE_BROWSER) and no Chromium was found; NBTUNE_CHROMIUM can name one"
        raise pytest.UsageError(message)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests share what is made for its module, so they run in one process; so do all that share a server or the quickstart."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "quickstart" if path in WITH_QUICKSTART else "browser" if path.startswith("tests/browser/") else path

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run folder of this test alone."""
    folder = tmp_path / ".nbtune"
    monkeypatch.setenv("NBTUNE_HOME", str(folder))
    return folder


@dataclass(frozen=True)
class Quickstart:
    """The quickstart as `make tour` executed it: its exit status, what it printed, its files, and its grids as records."""

    returncode: int
    printed: str
    notebook: Path
    page: Path
    grids: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    """Executed once, on the real model; a cell at its end, which the committed notebook has not, tells its grids in full."""
    folder = tmp_path_factory.mktemp("quickstart")
    source = folder / "source.ipynb"
    told = "import json; print(json.dumps({name: json.loads(grid.table.to_json(orient='records')) for name, grid in GRIDS.items()}))"
    notebook = nbformat.read(ROOT / "notebooks" / "01_quickstart.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(told.replace("GRIDS", "{'tickets': tickets_grid, 'dates': dates_grid}")))
    nbformat.write(notebook, source)
    environment = {name: value for name, value in os.environ.items() if name != "NBTUNE_HOME"}  # one thread, as the tests beside it
    done = subprocess.run(
        (sys.executable, ROOT / "tools" / "tour.py", source, folder / "build"), capture_output=True, text=True, env=environment, check=False
    )
    executed = nbformat.read(folder / "build" / "source.ipynb", as_version=4)
    last = executed.cells[-1].outputs
    return Quickstart(
        returncode=done.returncode,
        printed=done.stdout + done.stderr,
        notebook=folder / "build" / "source.ipynb",
        page=folder / "build" / "source.html",
        grids=json.loads(last[0].text) if done.returncode == 0 else {},
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a browser or a CUDA device where there is none; the others come by their paths, the quickstart's together."""
    items.sort(key=_place)
    marks = {mark for mark, is_here in (("browser", find_chromium), ("cuda", _has_cuda)) if not is_here()}
    without = [item for item in items if marks & {mark.name for mark in item.iter_markers()}]
    if without:
        items[:] = [item for item in items if item not in without]
        config.hook.pytest_deselected(items=without)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _place(item: pytest.Item) -> str:
    path = item.path.relative_to(ROOT).as_posix()
    return WITH_QUICKSTART[0] if path in WITH_QUICKSTART else path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out."""
    if not find_chromium():
        terminalreporter.write_line("The browser tests are left out: no Chromium here (install one, or name it in NBTUNE_CHROMIUM).")
    if not _has_cuda():
        terminalreporter.write_line("The tests of tests/training/test_cuda.py are left out: no CUDA device here.")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where browser tests are insisted on, a session in which none passed has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if BROWSER_REQUIRED and reporter and not any("browser" in report.keywords for report in reporter.stats.get("passed", [])):
        reporter.write_line("no browser test passed, and they are required (NBTUNE_REQUIRE_BROWSER)")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
