"""What the data doctor refuses is refused before a run has read any weights; what it warns of stands among the run's events."""

from pathlib import Path
from typing import Any

import pytest

import nbtune
from nbtune.errors import DataError, SpecError
from nbtune.events import Note, Phase
from tests.examples import ticket_rows, ticket_task


def warnings(run: nbtune.Run) -> list[str]:
    return [event.text for event in run.events() if isinstance(event, Note) and event.level == "warning"]


def test_data_that_cannot_be_trained_is_refused_before_weights_are_read(folder: Path, home: Path) -> None:
    rows = [{**row, "team": row["team"] * 20} for row in ticket_rows()]
    run = nbtune.finetune("lora", task=ticket_task(data=rows), model=folder, max_length=32, max_steps=1)
    with pytest.raises(DataError, match="a completion that alone has"):
        run.wait()
    phases = [event.text for event in run.events() if isinstance(event, Phase)]
    assert any("tokenizer" in text for text in phases)
    assert not any(text.startswith("loading") for text in phases)
    assert list((home / "runs").iterdir()) == []


def test_a_dev_row_that_does_not_fit_is_refused_as_early(folder: Path) -> None:
    rows = ticket_rows()
    long = [{**rows[0], "text": "never seen before", "team": rows[0]["team"] * 20}]
    data = {"train": rows[:50], "dev": long, "test": rows[50:]}
    run = nbtune.finetune("lora", task=ticket_task(data=data, kind="generation"), model=folder, max_length=32, max_steps=1)
    with pytest.raises(DataError, match=r"dev\[0\]"):
        run.wait()
    assert not any(event.text.startswith("loading") for event in run.events() if isinstance(event, Phase))


@pytest.mark.parametrize("options", [{"early_stopping_patience": 2}, {"load_best_model_at_end": True}])
def test_what_goes_by_looks_at_dev_is_refused_at_once_without_dev_rows(folder: Path, home: Path, options: dict[str, Any]) -> None:
    task = ticket_task(split={"dev": 0})
    (name,) = options
    with pytest.raises(SpecError, match=f"{name} goes by looks at the dev rows, and task 'tickets' has none") as refused:
        nbtune.finetune("lora", task=task, model=folder, max_steps=2, **options)
    assert refused.value.hint == f"give it some: split: {{dev: 0.1}}, or leave {name} out"
    assert not (home / "runs").exists() or list((home / "runs").iterdir()) == []
    run = nbtune.finetune("lora", task=task, model=folder, max_steps=2).wait()
    with pytest.raises(SpecError, match="has none"):
        run.fork(max_steps=4, **options)
    assert len(nbtune.runs()) == 1


def test_warnings_about_the_data_stand_among_the_events(folder: Path) -> None:
    run = nbtune.finetune("lora", task=ticket_task(completion="{{ team }}"), model=folder, max_length=24, max_steps=1).wait()
    said = warnings(run)
    assert any("no space between prompt and completion" in text for text in said)
    assert any("the beginning of the prompt to max_length 24" in text for text in said)
    assert len(said) <= 4


def test_good_data_is_trained_without_a_word(folder: Path) -> None:
    run = nbtune.finetune("lora", task=ticket_task(), model=folder, max_steps=1).wait()
    assert warnings(run) == []
