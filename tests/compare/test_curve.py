"""Learning curves: nested parts of the training rows, runs trained again on them, and what the verdict says of it."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import nbtune
from nbtune.compare.learning import learns, nested
from nbtune.compare.verdict import curve_verdict
from nbtune.errors import NbtuneError, SpecError
from nbtune.metrics.scores import metric_of
from nbtune.spec import CompareSpec
from tests.examples import echo_task, ticket_rows, ticket_task
from tests.tiny import tiny_llama

FEW: dict[str, Any] = {"max_steps": 2, "num_samples": 0, "eval_steps": 100}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def test_every_beginning_of_the_order_holds_the_labels_in_nearly_their_shares() -> None:
    task = ticket_task(100)
    order = nested(task)
    assert sorted(item.key for item in order) == sorted(item.key for item in task.train)
    shares = Counter(item.label for item in task.train)
    for size in (3, 10, 20, 40):
        counts = Counter(item.label for item in order[:size])
        assert set(counts) == set(shares)
        assert all(abs(counts[label] - size * shares[label] / len(order)) <= 1.5 for label in shares)


def test_the_order_hangs_on_the_rows_and_the_seed_of_the_split_alone() -> None:
    rows = ticket_rows(60)
    parts = {"train": rows[:40], "dev": rows[40:50], "test": rows[50:]}
    turned = {**parts, "train": rows[:40][::-1]}
    keys = [[item.key for item in nested(ticket_task(data=data))] for data in (parts, turned)]
    assert keys[0] == keys[1]
    other = ticket_task(data=parts, split={"seed": 1})
    assert [item.key for item in nested(other)] != keys[0]


def test_a_curve_has_a_point_for_each_column_and_size_and_the_grid_as_its_end(folder: Path) -> None:
    task = ticket_task()
    run = nbtune.finetune("lora", task=task, model=folder, name="tuned", **FEW).wait()
    said: list[str] = []
    grid = nbtune.compare(["zero-shot", {"few-shot": {"k": 3}}, run], task=task, train_sizes=[6, 12], report=said.append)
    curve, full = grid.curve, len(task.train)
    assert curve.columns.tolist()[:6] == ["approach", "train_rows", "score", "ci_low", "ci_high", "seconds"]
    sizes = curve.groupby("approach")["train_rows"].apply(list).to_dict()
    assert sizes["zero-shot"] == [0]
    assert all(each == [6, 12, full] for name, each in sizes.items() if name != "zero-shot")
    assert set(sizes) == {"zero-shot", "few-shot: k=3", "run: tuned", "floor: majority", "floor: tf-idf"}
    end = curve[curve["train_rows"].isin([0, full])].set_index("approach")["score"]
    assert end.to_dict() == pytest.approx(grid.table.set_index("approach")["accuracy"].to_dict())
    runs = curve[curve["approach"] == "run: tuned"].set_index("train_rows")["run"].to_dict()
    assert runs[full] == run.id
    assert any("6 training rows" in text for text in said)
    assert any("learning curve" in note for note in grid.notes)
    assert grid.warnings == []
    assert any("training rows" in sentence for sentence in grid.verdict)
    assert 'training rows"' in grid.to_html()
    assert len(grid.plot("train_rows").data) == 5


def test_runs_are_trained_again_by_their_spec_on_nested_rows_named_kept_and_taken_again(folder: Path) -> None:
    task = ticket_task()
    run = nbtune.finetune("lora", task=task, model=folder, name="tuned", r=2, seed=3, **FEW).wait()
    sizes = [6, 12, len(task.train)]
    first = nbtune.compare([run], task=task, train_sizes=sizes, floor=False)
    small, large = nbtune.open("tuned_6_rows"), nbtune.open("tuned_12_rows")
    for again, size in ((small, 6), (large, 12)):
        own = {"id", "name"}
        assert {key: value for key, value in again.spec.items() if key not in own} == {
            key: value for key, value in run.spec.items() if key not in own
        }
        assert len(again.task.train) == size
        assert [item.key for item in again.task.test] == [item.key for item in task.test]
    assert {item.key for item in small.task.train} < {item.key for item in large.task.train} < {item.key for item in task.train}
    assert len(nbtune.runs()) == 3, "all training rows are the run's own"
    second = nbtune.compare([run], task=task, train_sizes=sizes, floor=False)
    assert len(nbtune.runs()) == 3, "what is there is not trained again"
    pd.testing.assert_series_equal(second.curve["score"], first.curve["score"])
    assert first.curve["train_rows"].tolist() == sizes


def test_examples_come_from_the_rows_of_the_size_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbtune.inference import Engine

    asked: list[str] = []
    score = Engine.score

    def seen(self: Any, prompts: Any, *rest: Any, **more: Any) -> Any:
        asked.extend(map(str, prompts))
        return score(self, prompts, *rest, **more)

    monkeypatch.setattr(Engine, "score", seen)
    task = ticket_task()
    allowed = {item.prompt for item in nested(task)[:6]}
    nbtune.compare([{"few-shot": {"k": 6}}], task=task, model=folder, train_sizes=[6, 12], floor=False)
    whole = [text for text in asked if sum(text.count(item.prompt) for item in task.train) == 6]
    of_six = [text for text in whole if all(prompt in text for prompt in allowed)]
    assert len({text.rsplit("\n\n", 1)[-1] for text in of_six}) == len(task.test), "every test row was asked behind the six rows"


def test_what_cannot_be_at_one_size_is_told_and_the_rest_of_the_curve_is_there(folder: Path) -> None:
    task = ticket_task()
    base = nbtune.models.load(folder)
    bound = nbtune.finetune("lora", task=task, model=base, name="bound", **FEW).wait()
    grid = nbtune.compare([{"few-shot": {"k": 8}}, bound], task=task, model=folder, train_sizes=[6, 12], floor=False)
    assert grid.curve["train_rows"].tolist() == [12, len(task.train)]
    assert any("at 6 training rows: few-shot is left out: k is 8" in text for text in grid.warnings)
    assert any("run: bound is left out" in text and "object of a notebook" in text for text in grid.warnings)


def test_a_run_keeps_its_strength_and_its_prompt_at_all_sizes_and_members_of_ensembles_are_trained_again(folder: Path) -> None:
    task = ticket_task()
    run = nbtune.finetune("lora", task=task, model=folder, name="tuned", **FEW).wait()
    half = {"run": {"run": run, "strength": 0.5, "prompt": {"few-shot": {"k": 2}}}}
    both = {"ensemble": {"of": ["zero-shot", run]}}
    early = {"run": {"run": run, "step": 2}}
    grid = nbtune.compare([half, both, early], task=task, train_sizes=[6, 12], floor=False)
    sizes = grid.curve.groupby("approach")["train_rows"].apply(list).to_dict()
    label = "run: tuned, strength 0.5, few-shot: k=2"
    assert sizes == {label: [6, 12, len(task.train)], "ensemble (vote): zero-shot + run: tuned": [6, 12, len(task.train)]}
    assert sorted(run.name for run in nbtune.runs()) == ["tuned", "tuned_12_rows", "tuned_6_rows"]
    assert any("step 2" in text and "left out" in text for text in grid.warnings)


def test_fixed_examples_of_an_ensemble_are_not_others_at_smaller_sizes(folder: Path) -> None:
    task = ticket_task()
    run = nbtune.finetune("lora", task=task, model=folder, name="tuned", **FEW).wait()
    both = {"ensemble": {"of": [{"few-shot": {"select": "fixed", "rows": [1, 3]}}, run]}}
    inside = {"run": {"run": run, "prompt": {"few-shot": {"select": "fixed", "rows": [1, 3]}}}}
    grid = nbtune.compare([both, inside, run], task=task, train_sizes=[6, 12], floor=False)
    assert set(grid.curve["approach"]) == {"run: tuned"}
    assert sum("rows 1, 3, are numbered in all training rows" in text for text in grid.warnings) == 4


def test_a_task_without_labels_has_a_curve_too(folder: Path) -> None:
    grid = nbtune.compare([{"few-shot": {"k": 2}}, str.upper], task=echo_task(), model=folder, train_sizes=[5, 10])
    assert grid.curve.groupby("approach")["train_rows"].apply(list).to_dict() == {
        "few-shot: k=2": [5, 10, len(echo_task().train)],
        "function: upper": [0],
    }


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        ([10], "two points at least"),
        ([], "two points at least"),
        ([10, 10], "does not increase"),
        ([20, 10], "does not increase"),
        ([10, 1000], "there are 42 training rows"),
        ([2, 10], "3 labels have to be shown"),
        ([0, 10], "3 labels have to be shown"),
        (["many", 10], "train_sizes"),
    ],
)
def test_sizes_of_which_there_is_no_curve_are_refused_before_anything_is_loaded(sizes: list[Any], match: str) -> None:
    with pytest.raises(SpecError, match=match) as raised:
        nbtune.compare(["zero-shot"], task=ticket_task(), model="/nowhere", train_sizes=sizes)
    assert raised.value.hint


def test_inputs_without_answers_have_no_curve() -> None:
    with pytest.raises(NbtuneError, match="inputs have no answers"):
        nbtune.compare(["zero-shot"], task=ticket_task(), model="/nowhere", inputs=["a tent"], train_sizes=[6, 12])


@pytest.mark.parametrize("said", ["25,50,100", " 25, 50 ,100", [25, 50, 100], (25, 50, 100)])
def test_sizes_are_read_as_a_line_and_as_a_body_write_them(said: Any) -> None:
    assert CompareSpec.build({"train-sizes": said}).train_sizes == (25, 50, 100)


def test_what_takes_nothing_from_the_training_rows_is_asked_once() -> None:
    assert not learns("zero-shot")
    assert learns({"zero-shot": {"calibrate": True}})
    assert learns({"few-shot": {"k": 3}})
    assert not learns(str.upper)
    assert learns({"ensemble": {"of": ["zero-shot", {"few-shot": {"k": 3}}]}})
    assert not learns({"ensemble": {"of": ["zero-shot", str.upper]}})


def told(gaps: dict[int, tuple[float, float]], gain: tuple[float, float]) -> tuple[str, ...]:
    """The verdict where at each size the run is so much better, with that p-value; `gain` is of its last step."""
    points: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    for size, (gap, p_value) in gaps.items():
        points.append({"approach": "few-shot", "train_rows": size, "score": 0.5, "kind": "prompting"})
        points.append({"approach": "run: a", "train_rows": size, "score": 0.5 + gap, "kind": "tuned"})
        known = {"difference": gap, "low": gap - 0.05, "high": gap + 0.05, "p_value": p_value}
        pairs.append({"a": "run: a", "a_rows": size, "b": "few-shot", "b_rows": size, **known})
    last, before = sorted(gaps)[::-1][:2]
    known = {"difference": gain[0], "low": gain[0] - 0.01, "high": gain[0] + 0.01, "p_value": gain[1]}
    pairs.append({"a": "run: a", "a_rows": last, "b": "run: a", "b_rows": before, **known})
    return curve_verdict(points, pairs, metric_of("accuracy", "classification"))


def test_the_verdict_says_where_fine_tuning_starts_to_be_better_and_stays_so() -> None:
    starts, more = told({25: (-0.1, 0.02), 50: (0.1, 0.03), 100: (0.3, 0.0001)}, (0.2, 0.01))
    assert starts.startswith("Fine-tuning starts to be better than prompting at 50 training rows (run: a 0.600 against few-shot 0.500")
    assert "p = 0.030" in starts
    assert more.startswith("More training rows still help: from 50 to 100 training rows run: a became better (0.600 to 0.800")


def test_the_verdict_says_where_the_figures_do_not_tell() -> None:
    starts, more = told({25: (0.3, 0.01), 50: (0.1, 0.2), 100: (0.1, 0.3)}, (0.05, 0.4))
    assert starts.startswith("Cannot say at how many training rows")
    assert "p = 0.300" in starts
    assert more.startswith("Cannot say whether more training rows would help")


def test_the_verdict_says_that_prompting_is_better_or_that_more_rows_promise_little() -> None:
    starts, more = told({25: (-0.3, 0.01), 50: (-0.2, 0.01)}, (0.005, 0.8))
    assert starts.startswith("Up to 50 training rows prompting is better")
    assert more.startswith("More training rows promise little: from 25 to 50 training rows run: a gained at most 0.015")
    assert told({25: (0.3, 0.01), 50: (0.2, 0.01)}, (-0.1, 0.01))[1].startswith("More training rows do not help")
    assert "the fewest that were tried" in told({25: (0.3, 0.01), 50: (0.2, 0.01)}, (-0.1, 0.01))[0]
