"""The grid's promises on a tiny model: same rows, honest checks, clear refusals, and a result that can be kept."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import nbtune
from nbtune.approaches.few_shot import FewShotSpec, choose
from nbtune.errors import ComparisonError, NbtuneError, RunError, SpecError
from tests.examples import echo_task, ticket_task
from tests.tiny import tiny_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def test_rows_stand_in_the_order_asked_and_outputs_hold_every_test_row_of_every_approach(folder: Path) -> None:
    task = ticket_task()
    run = nbtune.finetune("lora", task=task, model=folder, max_steps=3, name="few").wait()
    entries = [{"few-shot": {"k": 3}}, "zero-shot", {"run": "few"}, {"few-shot": {"k": 3, "select": "balanced"}}]
    grid = nbtune.compare(entries, task=task, floor=False)
    assert list(grid.table["approach"]) == ["few-shot: k=3", "zero-shot", "run: few", "few-shot: k=3, select=balanced"]
    assert list(grid.outputs["row"]) == [row for row in range(len(task.test)) for _ in range(4)]
    assert list(grid.outputs["expected"])[::4] == [item.label for item in task.test]
    by_hand = grid.outputs.groupby("approach")["correct"].mean()
    assert grid.table.set_index("approach")["accuracy"].to_dict() == pytest.approx(by_hand.to_dict())
    assert list(grid.table["trainable_parameters"]) == [0, 0, run.summary["trainable_parameters"], 0]
    assert grid.table["prompt_tokens"].iloc[0] > grid.table["prompt_tokens"].iloc[1]
    assert (grid.table["seconds"] > 0).all()
    assert grid.warnings == []


@pytest.mark.parametrize("method", ["lora", "full", "features"])
def test_what_a_run_cost_stands_under_the_same_names_for_all_and_is_what_its_folder_says(folder: Path, tmp_path: Path, method: str) -> None:
    options = {} if method == "features" else {"max_steps": 2, "num_samples": 0}
    run = nbtune.finetune(method, task=ticket_task(30), model=folder, **options).wait()
    frozen, tuned = nbtune.compare(["zero-shot", run], task=ticket_task(30), floor=False).table.to_dict("records")
    costs = {
        "trainable_parameters": run.summary["trainable_parameters"],
        "adapter_bytes": sum(path.stat().st_size for path in run.save(tmp_path / "saved").iterdir()),
        "peak_memory_bytes": run.summary["peak_memory_bytes"],
        "train_seconds": run.summary["seconds"],
        "train_tokens": run.history["num_tokens"].iloc[-1],
    }
    assert {name: tuned[name] for name in costs} == costs
    assert all(cost > 0 for cost in costs.values())
    assert {name: frozen[name] for name in costs} == dict.fromkeys(costs, 0)


def test_an_adapter_without_effect_is_named(folder: Path) -> None:
    task = ticket_task(30)
    run = nbtune.finetune("lora", task=task, model=folder, max_steps=1, learning_rate=1e-30, name="idle").wait()
    grid = nbtune.compare(["zero-shot", run], task=task)
    assert any("run: idle: its adapter changed nothing" in warning for warning in grid.warnings)


def test_a_base_that_is_no_longer_the_base_is_named(folder: Path) -> None:
    import torch

    task = ticket_task(30)
    run = nbtune.finetune("lora", task=task, model=folder, max_steps=2, name="drifted").wait()
    with torch.no_grad():
        run.engine().base.model.model.norm.weight.mul_(1.5)
    grid = nbtune.compare(["zero-shot", run], task=task)
    nbtune.models.unload()
    assert any("away from the base as it was loaded" in warning for warning in grid.warnings)


def test_a_run_of_another_task_is_named(folder: Path) -> None:
    nbtune.finetune("lora", task=ticket_task(30), model=folder, max_steps=1, name="other").wait()
    grid = nbtune.compare(["zero-shot", {"run": "other"}], task=ticket_task(30, prompt="Case: {{ text }}\nTeam:"))
    assert any("other rows or another template" in warning for warning in grid.warnings)


def test_texts_just_typed_are_compared_without_answers(folder: Path) -> None:
    task = ticket_task()
    grid = nbtune.compare(["zero-shot", {"few-shot": {"k": 2}}], task=task, model=folder, inputs=["the tent leaks", {"text": "no parcel"}])
    assert grid.metric is None
    assert "accuracy" not in grid.table
    assert list(grid.outputs["row"]) == [0, 0, 1, 1]
    assert grid.outputs["expected"].isna().all()
    assert set(grid.outputs["output"]) <= set(task.labels)


def test_labels_may_be_generated_instead_of_scored_and_the_grid_says_which(folder: Path) -> None:
    task = ticket_task(30)
    for scoring, said in (
        ("sum", "summed log-probability"),
        ("mean", "mean log-probability"),
        ("byte", "by byte"),
        ("generate", "answers generated (greedy"),
    ):
        grid = nbtune.compare(["zero-shot"], task=task, model=folder, scoring=scoring, floor=False)
        assert any(said in check for check in grid.checks)
    assert grid.table["p_value"].isna().all(), "there is nothing to compare with"


@pytest.mark.parametrize("metric", ["exact_match", "rougeL", "a function"])
def test_generation_is_scored_by_name_or_by_a_function_named_in_the_grid(folder: Path, metric: str) -> None:
    def same_length(output: str, expected: str) -> float:
        return float(len(output) == len(expected))

    task = echo_task(metric=same_length if metric == "a function" else metric)
    grid = nbtune.compare(["zero-shot", {"few-shot": {"k": 2}}], task=task, model=folder)
    name = "same_length" if metric == "a function" else metric
    assert grid.metric == name
    rows = grid.outputs[grid.outputs["approach"] == "zero-shot"]
    assert grid.table[name].iloc[0] == pytest.approx(rows["score"].mean())
    assert rows["output"].map(lambda text: text == text.strip() and "\n" not in text).all()


def test_a_comparison_is_kept_and_opened_again(folder: Path, tmp_path: Path) -> None:
    grid = nbtune.compare(["zero-shot", {"few-shot": {"k": 2}}], task=ticket_task(30), model=folder)
    again = nbtune.Comparison.open(grid.save(tmp_path / "grid.json"))
    pd.testing.assert_frame_equal(again.table, grid.table)
    pd.testing.assert_frame_equal(again.outputs, grid.outputs)
    assert (again.checks, again.warnings, again.notes) == (grid.checks, grid.warnings, grid.notes)
    with pytest.raises(ComparisonError, match="cannot be read"):
        nbtune.Comparison.open(tmp_path / "none.json")
    with pytest.raises(ComparisonError, match="cannot be written"):
        grid.save(tmp_path / "no folder" / "grid.json")


def test_few_shot_examples_come_from_train_alone_and_balanced_is_even_over_labels() -> None:
    task = ticket_task()
    chosen = choose(task, FewShotSpec(k=6, select="balanced"))
    assert sorted(item.label for item in chosen) == sorted(2 * list(task.labels))
    assert {item.key for item in chosen} <= {item.key for item in task.train}
    assert chosen == choose(task, FewShotSpec(k=6, select="balanced"))
    assert chosen != choose(task, FewShotSpec(k=6, select="balanced", seed=1))


def test_an_approach_is_usable_alone(folder: Path) -> None:
    few = nbtune.prompt("few-shot", task=ticket_task(), model=folder, k=2)
    assert len(few.predict([{"text": "no parcel"}, "a tent"])) == 2


@pytest.mark.parametrize(
    ("approaches", "error", "match"),
    [
        ([], SpecError, "nothing to compare"),
        ("zero-shot", SpecError, "approaches are a list"),
        (["zero-shoot"], SpecError, "no approach 'zero-shoot'"),
        ([{"few-shot": {"n": 3}}], SpecError, "unknown few-shot option 'n'"),
        ([{"few-shot": {"k": 0}}], SpecError, "k must be at least 1"),
        ([{"few-shot": {"k": 200}}], SpecError, "k is 200, and there are"),
        ([{"few-shot": 8}], SpecError, "options are a mapping"),
        (["zero-shot", "zero-shot"], SpecError, "there twice"),
        ([{"run": "nobody"}], RunError, "no run 'nobody'"),
        ([3], SpecError, "an approach is a name"),
        ([{"few-shot": {"select": "fixed"}}], SpecError, "belong together"),
        ([{"floor": "average"}], SpecError, "by cannot be 'average'"),
        ([{"function": None}], SpecError, "function"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_what_can(folder: Path, approaches: Any, error: type[NbtuneError], match: str) -> None:
    with pytest.raises(error, match=match) as raised:
        nbtune.compare(approaches, task=ticket_task(), model=folder)
    assert raised.value.hint


def test_scoring_and_decoding_are_checked_like_everything_that_is_said(folder: Path) -> None:
    with pytest.raises(SpecError, match="scoring cannot be 'median'"):
        nbtune.compare(["zero-shot"], task=ticket_task(30), model=folder, scoring="median")
    with pytest.raises(SpecError, match="unknown decoding key 'max_tokens'"):
        nbtune.compare(["zero-shot"], task=ticket_task(30), model=folder, decoding={"max_tokens": 3})
