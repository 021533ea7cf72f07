"""Calibration takes off what a model prefers whatever it is asked, by the formula, and asks no test row for it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbtune
from nbtune.approaches.calibrating import CalibrateSpec, texts_for
from nbtune.approaches.few_shot import FewShotSpec, choose
from nbtune.approaches.labels import calibrated, normalised
from nbtune.errors import SpecError
from nbtune.inference import Engine
from tests.approaches.by_hand import label_scores
from tests.examples import echo_task, ticket_rows, ticket_task
from tests.tiny import tiny_encoder


def test_labels_are_counted_in_all_by_token_or_by_byte() -> None:
    scores, completions = [[(-6.0, 3), (-2.0, 1)]], [" überall", " no"]
    assert normalised(scores, completions, "sum") == [[-6, -2]]
    assert normalised(scores, completions, "mean") == [[-2, -2]]
    assert normalised(scores, completions, "byte") == [[-6 / 8, -2 / 2]], "ü has two bytes, and the space before a label counts none"


def test_what_is_taken_off_is_the_log_of_the_mean_probability_over_the_known_texts() -> None:
    known = [[math.log(0.9), math.log(0.1)], [math.log(0.6) - 5, math.log(0.4) - 5]]
    found = calibrated([[-1.0, -2.0]], known)
    assert found == [pytest.approx([-1 - math.log(0.75), -2 - math.log(0.25)])]


def test_a_planted_bias_is_mended() -> None:
    chance = np.random.default_rng(0)
    truth = chance.integers(0, 3, 300)
    fair = chance.normal(size=(300, 3)) + 2.5 * np.eye(3)[truth]
    biased = fair + np.array([2.0, 0.0, -1.0])
    plain, wrong = (np.mean(np.argmax(scores, axis=1) == truth) for scores in (fair, biased))
    mended = np.mean(np.argmax(calibrated(biased[100:], biased[:100].tolist()), axis=1) == truth[100:])
    assert wrong < plain - 0.1
    assert mended > plain - 0.2 * (plain - wrong)


@pytest.mark.parametrize("entry", ["zero-shot", "few-shot"])
def test_in_a_grid_it_equals_plain_transformers_and_the_formula(folder: Path, entry: str) -> None:
    task = ticket_task(45)
    options: dict[str, Any] = {"calibrate": True} | ({"k": 2} if entry == "few-shot" else {})
    grid = nbtune.compare([{entry: options}], task=task, model=folder, dtype="float32", floor=False)
    shots = choose(task, FewShotSpec(k=2)) if entry == "few-shot" else []
    before = "".join(f"{shot.prompt}{shot.completion}\n\n" for shot in shots)
    known = texts_for(task, CalibrateSpec(calibrate=True), without={shot.prompt for shot in shots}, scoring="sum")
    assert set(known) == {item.prompt for item in task.train} - {shot.prompt for shot in shots}, "fewer than 64: all of them"
    completions = [task.completion_of[label] for label in task.labels]
    texts = [before + prompt for prompt in (*known, *(item.prompt for item in task.test))]
    totals = [[sum(label) for label in row] for row in label_scores(folder, texts, completions)]
    wanted = calibrated(totals[len(known) :], totals[: len(known)])
    found = [list(row.values()) for row in grid.outputs["log_probabilities"]]
    assert np.array(found) == pytest.approx(np.array(wanted), abs=1e-3)


def test_no_test_row_and_no_answer_is_looked_at_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ticket_rows(120)
    task = ticket_task(data={"train": rows[:100], "test": rows[100:]})
    known = texts_for(task, CalibrateSpec(calibrate=True), scoring="sum")
    assert len(known) == 64
    assert set(known) <= {item.prompt for item in task.train}
    counted: list[int] = []
    plain = Engine.score

    def score(self: Engine, prompts: Any, answers: Any, **more: Any) -> Any:
        counted.append(len(prompts))
        return plain(self, prompts, answers, **more)

    monkeypatch.setattr(Engine, "score", score)
    nbtune.compare([{"zero-shot": {"calibrate": True}}], task=task, model=folder, floor=False)
    assert sorted(counted) == [1, 1, 1, 20, 64], "the order check asks its three rows, not the known texts again"


def test_it_is_of_labels_that_are_scored(folder: Path) -> None:
    with pytest.raises(SpecError, match="of kind generation"):
        nbtune.compare([{"zero-shot": {"calibrate": True}}], task=echo_task(), model=folder)
    task = ticket_task()
    with pytest.raises(SpecError, match="here they are generated"):
        nbtune.compare([{"zero-shot": {"calibrate": True}}], task=task, model=folder, scoring="generate")
    with pytest.raises(SpecError, match="there are none"):
        nbtune.compare([{"few-shot": {"k": len(task.train), "calibrate": True}}], task=task, model=folder)


@pytest.mark.parametrize("inner", ["zero-shot", "few-shot", "prompt-search"])
def test_a_head_is_not_calibrated(tmp_path: Path, inner: str) -> None:
    task = ticket_task()
    run = nbtune.finetune("head", task=task, model=tiny_encoder("bert", tmp_path), objective="classification", max_steps=2).wait()
    options: dict[str, Any] = {"calibrate": True, **({"rounds": 0, "templates": ["{{ text }}?"]} if inner == "prompt-search" else {})}
    with pytest.raises(SpecError, match="has a head over them"):
        nbtune.compare([{"run": {"name": run.name, "prompt": {inner: options}}}], task=task)
