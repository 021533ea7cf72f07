"""One notebook, open in JupyterLab or Notebook 7 in a real browser, and what a person would do with it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import ConsoleMessage, Error, Locator, Page

from tests.browser.server import JupyterServer

__all__ = ["SCREENSHOTS", "App", "NotebookPage", "write_notebook"]

SCREENSHOTS: Final = Path(__file__).resolve().parents[2] / "build" / "screenshots"
READY_MS: Final = 60_000
App = Literal["lab", "notebook"]
URLS: Final[dict[App, str]] = {"lab": "/lab/tree/{}?reset", "notebook": "/notebooks/{}"}


def write_notebook(path: Path, *sources: str) -> Path:
    """A notebook of code cells without outputs."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources], metadata=kernel), path)
    return path


class NotebookPage:
    """Drives the notebook through the application's own commands: its menus lose clicks while it loads."""

    def __init__(self, page: Page, server: JupyterServer, name: str, app: App = "lab") -> None:
        self.page, self.server, self.name, self.app = page, server, name, app
        self.problems: list[str] = []
        page.on("pageerror", self._note_error)
        page.on("console", self._note_message)
        page.on("dialog", lambda dialog: dialog.accept())  # "leave the page?"

    def _note_error(self, error: Error) -> None:
        """Keep what widgets' modules (loaded from blob: addresses) throw; Notebook 7 throws some of its own."""
        if "blob:" in (error.stack or ""):
            self.problems.append(str(error))

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "anywidget" in message.text:
            self.problems.append(message.text)

    @property
    def path(self) -> Path:
        """The file."""
        return self.server.folder / self.name

    def open(self) -> NotebookPage:
        """Load the page and wait until its kernel answers."""
        self.page.goto(self.server.base + URLS[self.app].format(quote(self.name)))
        self._ready()
        return self

    def reload(self) -> NotebookPage:
        """What a person does who has lost patience; the kernel goes on."""
        self.page.reload()
        self._ready()
        return self

    def _ready(self) -> None:
        self.page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.sessionContext", timeout=READY_MS)
        self.page.evaluate(
            """async () => {
                const panel = jupyterapp.shell.currentWidget;
                await panel.revealed;
                await panel.sessionContext.ready;
            }"""
        )
        self.page.wait_for_function("() => jupyterapp.shell.currentWidget.sessionContext.session?.kernel", timeout=READY_MS)

    def wait_for_kernel(self) -> None:
        """Return when the kernel has answered once (do not ask while a cell runs)."""
        self.page.evaluate("async () => { await jupyterapp.shell.currentWidget.sessionContext.session.kernel.info; }")

    def run_all(self) -> None:
        """Start all cells; returns at once."""
        self.wait_for_kernel()
        self.command("notebook:run-all-cells")

    def run_cell(self, index: int) -> None:
        """Start one cell; returns at once."""
        self.wait_for_kernel()
        self.page.evaluate("index => { jupyterapp.shell.currentWidget.content.activeCellIndex = index; }", index)
        self.command("notebook:run-cell")

    def command(self, name: str, **arguments: Any) -> None:
        """Give the application a command without waiting for its end: a cell may run for minutes."""
        self.page.evaluate("([name, args]) => { void jupyterapp.commands.execute(name, args); }", [name, arguments])

    def theme(self, shade: Literal["light", "dark"]) -> None:
        """Change the theme, live."""
        full = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}[shade]
        self.page.evaluate("async theme => { await jupyterapp.commands.execute('apputils:change-theme', {theme}); }", full)
        self.page.wait_for_function("light => document.body.dataset.jpThemeLight === light", arg="true" if shade == "light" else "false")

    def source(self, index: int) -> str:
        """The text of a cell as it stands in the page."""
        return str(self.page.evaluate("index => jupyterapp.shell.currentWidget.content.widgets[index].model.sharedModel.source", index))

    def num_cells(self) -> int:
        """How many cells the page shows."""
        return int(self.page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length"))

    def output(self, index: int) -> Locator:
        """The output area of a cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-Cell-outputWrapper")

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """A cell's outputs as the notebook's model holds them."""
        script = "index => JSON.stringify(jupyterapp.shell.currentWidget.content.widgets[index].model.outputs?.toJSON() ?? [])"
        return list(json.loads(self.page.evaluate(script, index)))

    def is_running(self, index: int) -> bool:
        """Whether the cell shows `[*]`."""
        script = "index => jupyterapp.shell.currentWidget.content.widgets[index].model.executionState"
        return self.page.evaluate(script, index) == "running"

    def wait_for_cell(self, index: int, seconds: float = 60) -> None:
        """Return when the cell has been executed to its end.

        Raises:
            TimeoutError: it has not.
        """
        script = """index => {
            const model = jupyterapp.shell.currentWidget.content.widgets[index].model;
            return model.executionState === 'idle' && model.executionCount !== null;
        }"""
        self.wait_until(lambda: bool(self.page.evaluate(script, index)), seconds, f"cell {index} did not end; its output: {{}}", index)

    def wait_until(self, condition: Callable[[], bool], seconds: float, message: str, index: int | None = None) -> None:
        """Poll until the condition holds; the browser goes on meanwhile.

        Raises:
            TimeoutError: with the message, and with the outputs of cell `index` in its braces.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                seen = json.dumps(self.outputs(index))[:2000] if index is not None else ""
                raise TimeoutError(message.format(seen))
            self.page.wait_for_timeout(100)

    def execute(self, code: str) -> str:
        """Run code in the notebook's kernel behind the page's back and return what it printed."""
        script = """async code => {
            const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            const future = kernel.requestExecute({code, store_history: false, silent: false});
            let text = '';
            future.onIOPub = message => {
                if (message.header.msg_type === 'stream') text += message.content.text;
                if (message.header.msg_type === 'error') text += message.content.ename + ': ' + message.content.evalue;
            };
            await future.done;
            return text;
        }"""
        return str(self.page.evaluate(script, code))

    def save(self) -> nbformat.NotebookNode:
        """Save, and return what then stands in the file."""
        self.page.evaluate("async () => { await jupyterapp.shell.currentWidget.context.save(); }")
        return nbformat.read(self.path, as_version=4)

    def screenshot(self, name: str) -> Path:
        """A picture for people, under build/screenshots/."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path)
        return path
