"""An ensemble is the vote or the mean of its members, no more and no less."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

import nbtune
from nbtune.errors import ComparisonError, SpecError
from tests.examples import echo_task, ticket_task

MEMBERS = ["zero-shot", {"few-shot": {"k": 2}}, {"few-shot": {"k": 2, "seed": 1}}]


def test_the_answer_that_most_members_give_wins_and_of_as_many_the_first_ones(folder: Path) -> None:
    task = ticket_task()
    grid = nbtune.compare([*MEMBERS, {"ensemble": MEMBERS}], task=task, model=folder, floor=False)
    *members, both = (list(rows["output"]) for _, rows in grid.outputs.groupby("approach", sort=False))
    for row, output in enumerate(both):
        said = [member[row] for member in members]
        most = max(Counter(said).values())
        assert output == next(text for text in said if said.count(text) == most)


def test_the_mean_is_of_the_members_probabilities(folder: Path) -> None:
    task = ticket_task()
    grid = nbtune.compare([*MEMBERS, {"ensemble": {"of": MEMBERS, "by": "mean"}}], task=task, model=folder, dtype="float32", floor=False)
    scores = [[list(one.values()) for one in rows["log_probabilities"]] for _, rows in grid.outputs.groupby("approach", sort=False)]
    *members, found = np.array(scores)
    wanted = np.log(np.mean([np.exp(log_softmax(member, axis=1)) for member in members], axis=0))
    assert found == pytest.approx(wanted, abs=1e-6)
    outputs = list(grid.outputs.groupby("approach", sort=False))[-1][1]["output"]
    assert list(outputs) == [task.labels[place] for place in wanted.argmax(axis=1)]


def test_it_costs_what_its_members_cost_together(folder: Path) -> None:
    task = ticket_task(30)
    run = nbtune.finetune("lora", task=task, model=folder, max_steps=2, name="member").wait()
    grid = nbtune.compare([run, "zero-shot", {"ensemble": [run, "zero-shot"]}], task=task, floor=False)
    table = grid.table.set_index("approach")
    both = table.loc["ensemble (vote): run: member + zero-shot"]
    for name in ("trainable_parameters", "train_seconds", "prompt_tokens"):
        assert both[name] == table.loc[["run: member", "zero-shot"], name].sum()
    assert list(grid.table["kind"]) == ["tuned", "prompting", "tuned"]
    assert any("ensemble" in check and "asked alone" in check for check in grid.checks)


def test_its_runs_decide_the_base_and_are_checked_as_columns_are(folder: Path) -> None:
    task = ticket_task(30)
    nbtune.finetune("lora", task=task, model=folder, max_steps=1, learning_rate=1e-30, name="idle").wait()
    grid = nbtune.compare([{"ensemble": [{"run": "idle"}, "zero-shot"]}], task=task, floor=False)
    assert any(str(folder) in note for note in grid.notes), "the base is the run's"
    assert any("its adapter changed nothing" in warning for warning in grid.warnings)


def test_generated_answers_are_voted_on_as_long_as_the_tasks_answers_are(folder: Path) -> None:
    task = echo_task()
    alone = nbtune.compare(["zero-shot", {"few-shot": {"k": 2}}], task=task, model=folder)
    grid = nbtune.compare([{"ensemble": ["zero-shot", {"few-shot": {"k": 2}}]}], task=task, model=folder)
    assert list(grid.outputs["output"]) == list(alone.outputs[alone.outputs["approach"] == "zero-shot"]["output"]), "of two the first wins"
    assert [check for check in grid.checks if "decoding" in check] == [check for check in alone.checks if "decoding" in check]


def test_what_cannot_be_together_is_refused(folder: Path) -> None:
    task = ticket_task(30)
    for of in ("zero-shot", ["zero-shot"], [], None):
        with pytest.raises(SpecError, match="of is a list of two approaches or more"):
            nbtune.compare([{"ensemble": {"of": of}}], task=task, model=folder)
    with pytest.raises(SpecError, match="no approach 'zero'"):
        nbtune.compare([{"ensemble": ["zero", "zero-shot"]}], task=task, model=folder)
    with pytest.raises(SpecError, match="averages probabilities of labels"):
        nbtune.compare([{"ensemble": {"of": MEMBERS, "by": "mean"}}], task=echo_task(), model=folder)
    with pytest.raises(ComparisonError, match="gives answers without probabilities"):
        nbtune.compare([{"ensemble": {"of": ["zero-shot", lambda _: "billing"], "by": "mean"}}], task=task, model=folder)
