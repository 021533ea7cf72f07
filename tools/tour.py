"""Executes a notebook without a browser, keeps it with its outputs and as HTML, and prints what its comparisons say.

python tools/tour.py notebooks/01_quickstart.ipynb build
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbconvert import HTMLExporter

CELL_SECONDS = 1800


def execute(source: Path, folder: Path) -> int:
    """Run every cell of `source` in `folder`; 1 where a cell fails, with its error printed."""
    notebook = nbformat.read(source, as_version=4)
    executed = folder / source.name
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        extra_arguments=["--IPKernelApp.log_level=40"],  # it warns of TCP on this machine's own address
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=announce,
    )
    began = time.monotonic()
    status = 0
    try:
        client.execute()
    except (CellControlSignal, DeadKernelError) as error:  # a cell failed or took too long, or the kernel died
        print(f"\n{source} failed:\n{error}", file=sys.stderr)
        status = 1
    seconds = time.monotonic() - began
    nbformat.write(notebook, executed)
    page = executed.with_suffix(".html")
    page.write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")
    for text in comparisons(notebook):
        print(f"\n{text}")
    print(f"\nThe notebook took {seconds:.0f} s. With its outputs: {executed}; as a page: {page}")
    if status == 0:
        print("To work in it: make lab")
    return status


def announce(cell: nbformat.NotebookNode, cell_index: int) -> None:
    """Say which cell is running, by its first line."""
    if cell.cell_type == "code" and cell.source.strip():
        print(f"[{cell_index:2d}] {cell.source.splitlines()[0]}", flush=True)


def comparisons(notebook: nbformat.NotebookNode) -> list[str]:
    """The plain text of what the `%%compare` cells gave."""
    return [
        output.data["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.source.startswith("%%compare")
        for output in cell.get("outputs", [])
        if output.output_type in ("execute_result", "display_data") and "text/plain" in output.data
    ]


def main() -> int:
    """Execute the notebook of the first argument into the folder of the second."""
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    return execute(source, folder)


if __name__ == "__main__":
    sys.exit(main())
