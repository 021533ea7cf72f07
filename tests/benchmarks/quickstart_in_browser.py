"""The quickstart as a person runs it: Run All in a real JupyterLab and a real Notebook 7, on the real model, with pictures.

    make bench B=quickstart_in_browser            # in both; ARGS=notebook or ARGS=lab: in that one

Prints the seconds of each; the pictures go to build/screenshots/. docs/panel.png is quickstart-panel-lab-light.png.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from playwright.sync_api import sync_playwright

from tests.browser.conftest import CHROMIUM_ARGUMENTS
from tests.browser.notebook import SCREENSHOTS, NotebookPage, write_notebook
from tests.browser.panel import PanelView
from tests.browser.server import serve
from tests.conftest import BUILD, ROOT, find_chromium

CELL_SECONDS = 600


def main() -> None:
    """Runs the notebook in both, the panel pictured in light and dark at half of the first training."""
    os.environ.setdefault("NBTUNE_CACHE", str(BUILD / "cache"))
    os.environ.pop("NBTUNE_HOME", None)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    cells = [cell.source for cell in nbformat.read(ROOT / "notebooks" / "01_quickstart.ipynb", 4).cells if cell.cell_type == "code"]
    training = next(number for number, source in enumerate(cells) if source.startswith("%%finetune"))
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_ARGUMENTS))
        for app in sys.argv[1:] or ("lab", "notebook"):
            page = browser.new_page(viewport={"width": 1400, "height": 1800})
            (server.folder / app).mkdir()
            write_notebook(server.folder / app / "quickstart.ipynb", *cells)
            notebook = NotebookPage(page, server, f"{app}/quickstart.ipynb", app=app).open()
            began = time.monotonic()
            notebook.run_all()
            panel = PanelView(notebook, training)
            panel.wait_for_step(55, seconds=CELL_SECONDS)
            for shade in ("dark", "light"):
                notebook.theme(shade)
                page.wait_for_timeout(500)
                panel.element.screenshot(path=SCREENSHOTS / f"quickstart-panel-{app}-{shade}.png")
            for number in range(len(cells)):
                notebook.wait_for_cell(number, seconds=CELL_SECONDS)
            print(f"{app}: {time.monotonic() - began:.0f} s, problems on the page: {notebook.problems}", flush=True)
            notebook.screenshot(f"quickstart-{app}")
            notebook.save()
            page.close()
            server.end_sessions()
        browser.close()


if __name__ == "__main__":
    main()
