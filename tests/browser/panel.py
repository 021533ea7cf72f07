"""The live panel and the form as a person sees them, and the run folder as a test checks it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator

from tests.browser.notebook import NotebookPage

__all__ = ["PanelView", "run_folders", "run_of"]


class PanelView:
    """The panel in the output of one cell."""

    def __init__(self, notebook: NotebookPage, cell: int) -> None:
        self.notebook = notebook
        self.cell = cell
        self.element: Locator = notebook.output(cell).locator(".nbt-panel")

    @property
    def step(self) -> int:
        """The step that the progress bar says, 0 before the first."""
        bar = self.element.get_by_role("progressbar")
        return int(bar.get_attribute("aria-valuenow") or 0)

    def wait_for_step(self, step: int, seconds: float = 60) -> None:
        """Return when the run has come so far.

        Raises:
            TimeoutError: it has not.
        """
        self.element.wait_for(timeout=seconds * 1000)
        message = f"the panel did not come to step {step}; the cell's output: {{}}"
        self.notebook.wait_until(lambda: self.step >= step, seconds, message, self.cell)

    def button(self, name: str) -> Locator:
        """The button that says so."""
        return self.element.get_by_role("button", name=name, exact=True)

    @property
    def status(self) -> Locator:
        """The run's status, in one word."""
        return self.element.locator(".nbt-pill")

    @property
    def rate(self) -> Locator:
        """The field of the learning rate."""
        return self.element.get_by_role("textbox", name="Peak learning rate")

    @property
    def answer(self) -> Locator:
        """What is said beside that field."""
        return self.element.get_by_role("status")

    def stop(self) -> None:
        """Press the button."""
        self.button("Stop").click()

    def loss_picture(self) -> str:
        """A digest of the loss chart's pixels; "" where nothing is drawn."""
        script = """canvas => {
            const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            return pixels.some(value => value !== 0) ? canvas.toDataURL() : '';
        }"""
        drawn = str(self.element.locator("figure").first.locator("canvas").evaluate(script))
        return hashlib.sha256(drawn.encode()).hexdigest() if drawn else ""

    def loss_table(self) -> dict[int, float]:
        """{step: training loss} as the table behind the loss chart has it."""
        figure = self.element.locator("figure").first
        if not figure.locator("table").is_visible():
            figure.locator("summary").click()
            figure.locator("tbody tr").first.wait_for()
        rows = figure.locator("tbody tr").evaluate_all("rows => rows.map(row => [...row.children].map(cell => cell.textContent))")
        return {int(row[0].removesuffix(" (best)").replace(",", "")): float(row[2]) for row in rows if is_number(row[2])}


def is_number(text: str) -> bool:
    """Whether it reads as one."""
    return text.replace(".", "", 1).isdigit()


def run_folders(notebook: NotebookPage) -> list[Path]:
    """The runs beside the notebook, the oldest first."""
    return sorted(spec.parent for spec in (notebook.path.parent / ".nbtune" / "runs").glob("*/spec.json"))


def run_of(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(spec, events) of a run's folder."""
    file = folder / "events.jsonl"
    whole = file.read_text().rpartition("\n")[0] if file.exists() else ""  # the last line may be half written
    events = [json.loads(line) for line in whole.splitlines()]
    return json.loads((folder / "spec.json").read_text()), events
