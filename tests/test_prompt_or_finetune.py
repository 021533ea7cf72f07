"""The notebook that asks whether to prompt or to fine-tune runs to its end: here with a tiny model, few steps and few rows."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import nbformat
import pytest

from tests.examples import ticket_rows
from tests.magics.kernel import Kernel
from tests.tiny import tiny_llama

ROOT: Final = Path(__file__).resolve().parents[1]
SMALLER: Final = {
    "--data demo:tickets": "--data small",
    '"num_train_epochs": 1': '"max_steps": 2, "dtype": "float32"',
    "--train-sizes 40,120,290": "--train-sizes 20,40",
    "k: 8": "k: 2",
    "rounds: 2, proposals: 6": "rounds: 1, proposals: 2, proposer: writer",
}
"""What of the notebook is said otherwise here."""


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    kernel = Kernel(tmp_path)
    try:
        yield kernel
    finally:
        kernel.close()


def test_every_cell_of_the_notebook_ends_well_and_its_grid_has_all_columns_with_a_verdict(kernel: Kernel, tmp_path: Path) -> None:
    model = str(tiny_llama(tmp_path / "tiny"))
    kernel.run(f"small = {ticket_rows(80)!r}")
    kernel.run("def writer(request): return f'Answer in {len(request)} words.'")  # the tiny model could not read what it is asked
    notebook = nbformat.read(ROOT / "notebooks" / "05_prompt_or_finetune.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    used = dict.fromkeys(SMALLER, False)
    for source in cells:
        code = source.replace("smollm2-135m", model)
        for said, instead in SMALLER.items():
            used[said] |= said in code
            code = code.replace(said, instead)
        result = kernel.run(code, timeout=300)
        assert result.status == "ok", (code, result.lines)
    assert all(used.values()), "the notebook says something else now, and would run in full here"
    columns = kernel.value("list(grid.table['approach'])")
    for part in (
        "proposer=writer",
        "zero-shot",
        "calibrate",
        "balanced",
        "similar",
        "prompt-search",
        "tickets_features",
        "tickets_full",
        "ensemble",
        "neighbours",
    ):
        assert part in columns
    assert int(kernel.value("len(grid.verdict)")) >= 1
    assert kernel.value("sorted(set(curve.curve['train_rows']))").startswith("[20, 40")
