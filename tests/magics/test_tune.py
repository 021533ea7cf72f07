"""The cell that `%tune` writes does what the form says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nbtune.body import read_body
from nbtune_magics.finetune import FINETUNE
from nbtune_magics.line import read_line
from nbtune_magics.tune import cell_text


def said(model: str, name: str | None) -> Any:
    return SimpleNamespace(spec=SimpleNamespace(model=model, name=name), name=name)


@pytest.mark.parametrize(
    "model", ["smollm2-135m", "my models/it's", "a 'b' \"c\"", "x#y", "{odd}", "{half", "Qwen/Qwen3-0.6B", "back\\slash 'n'"]
)
def test_the_cell_reads_back_as_what_the_form_says(model: str) -> None:
    values = {"r": 16, "learning_rate": 2e-4, "target_modules": ("q_proj", "v_proj"), "packing": True, "dtype": None}
    heading, _, body = cell_text("lora", "tickets", said(model, "mine"), values).partition("\n")
    line = read_line(heading.removeprefix("%%finetune "), FINETUNE.table(("lora",)))
    assert line.words == ("lora",)
    assert line.problems == ()
    assert line.values == {"task": "tickets", "model": model, "as": "mine"}
    assert read_body(body).values == {**values, "target_modules": ["q_proj", "v_proj"]}


def test_what_was_not_said_is_not_written() -> None:
    assert cell_text("lora", "tickets", said("", None), {}) == "%%finetune lora --task tickets\n"
