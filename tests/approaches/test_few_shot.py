"""Few-shot and zero-shot say what plain transformers say; examples are those that were asked for, and as many as fit."""

from __future__ import annotations

import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, ByT5Tokenizer

import nbtune
from nbtune.approaches import approach_of
from nbtune.approaches.base import Asking, Setting
from nbtune.approaches.few_shot import FewShotSpec, choose
from nbtune.approaches.neighbours import Pool
from nbtune.data.encoding import Encoder
from nbtune.errors import ModelError, NbtuneError, SpecError
from nbtune.inference import Decoding, Engine
from nbtune.models.catalogue import folder_of
from nbtune.spec import DecodingSpec
from tests.approaches.by_hand import ended, label_scores, shots_before, written
from tests.examples import echo_task, ticket_rows, ticket_task
from tests.tiny import tiny

FEW = {"few-shot": {"k": 3, "seed": 4}}


def of(entry: Any, task: nbtune.Task, folder: Path) -> Any:
    return approach_of(entry, task, Setting(str(folder), "float32"))


def asked_of(approach: Any, monkeypatch: pytest.MonkeyPatch, scoring: Any = "sum", rows: int = 6) -> dict[str, str]:
    """{prompt: what the model reads in its place} of the first test rows."""
    read: list[str] = []
    plain = Engine.score

    def score(self: Engine, prompts: Any, answers: Any, **more: Any) -> Any:
        read.extend(prompts)
        return plain(self, prompts, answers, **more)

    monkeypatch.setattr(Engine, "score", score)
    prompts = [item.prompt for item in approach.task.test[:rows]]
    approach.answer(prompts, Asking(scoring, Decoding(4)))
    return dict(zip(prompts, read, strict=True))


@pytest.mark.parametrize("scoring", ["sum", "mean", "byte"])
def test_label_scores_equal_those_of_plain_transformers(folder: Path, scoring: str) -> None:
    task = ticket_task()
    grid = nbtune.compare(["zero-shot", FEW], task=task, model=folder, dtype="float32", scoring=scoring, floor=False)
    shots = choose(task, FewShotSpec(k=3, seed=4))
    completions = [task.completion_of[label] for label in task.labels]
    prompts = [item.prompt for item in task.test]
    for approach, texts in (("zero-shot", prompts), ("few-shot: k=3, seed=4", [shots_before(shots, prompt) for prompt in prompts])):
        found = grid.outputs[grid.outputs["approach"] == approach]
        tokens = label_scores(folder, texts, completions)
        for (_, row), by_label in zip(found.iterrows(), tokens, strict=True):
            bytes_of = [len(completion.strip().encode()) for completion in completions]
            wanted = {
                "sum": [sum(label) for label in by_label],
                "mean": [sum(label) / len(label) for label in by_label],
                "byte": [sum(label) / count for label, count in zip(by_label, bytes_of, strict=True)],
            }[scoring]
            assert list(row["log_probabilities"]) == list(task.labels)
            assert list(row["log_probabilities"].values()) == pytest.approx(wanted, abs=1e-3)
            assert row["output"] == task.labels[int(np.argmax(wanted))]


def test_generated_answers_equal_those_that_plain_transformers_write_row_by_row(folder: Path) -> None:
    task = echo_task()
    decoding = {"max_new_tokens": 7, "stop": []}
    grid = nbtune.compare(["zero-shot", FEW], task=task, model=folder, dtype="float32", decoding=decoding)
    shots = choose(task, FewShotSpec(k=3, seed=4))
    prompts = [item.prompt for item in task.test]
    for approach, texts in (("zero-shot", prompts), ("few-shot: k=3, seed=4", [shots_before(shots, prompt) for prompt in prompts])):
        assert list(grid.outputs[grid.outputs["approach"] == approach]["output"]) == written(folder, texts, 7)


@pytest.mark.parametrize("rows", [1, 8, 32])
def test_how_many_rows_go_through_together_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    task = ticket_task()
    few = of(FEW, task, folder)
    texts = [shots_before(choose(task, FewShotSpec(k=3, seed=4)), item.prompt) for item in (*task.test, *task.train)[:40]]
    alone = [few.engine.score([text], list(task.completion_of.values()))[0] for text in texts]
    one_by_one = [few.engine.generate([text], Decoding(5))[0] for text in texts]
    monkeypatch.setattr("nbtune.inference.scoring.CHUNK_TOKENS", 80 * rows)
    together = few.engine.score(texts, list(task.completion_of.values()))
    for first, second in zip(alone, together, strict=True):
        assert [nats for nats, _ in first] == pytest.approx([nats for nats, _ in second], abs=1e-4)
    assert few.engine.generate(texts, Decoding(5), batch_size=rows) == one_by_one


def test_labels_that_begin_with_the_same_token_are_told_apart_by_the_rest(folder: Path) -> None:
    names = ("delivery late", "delivery broken", "delivery")
    rows = [{"text": f"case {number} {'xyz'[number % 3] * 3}", "team": names[number % 3]} for number in range(45)]
    task = nbtune.Task(name="alike", kind="classification", data=rows, prompt="{{ text }}:", completion=" {{ team }}")
    grid = nbtune.compare(["zero-shot"], task=task, model=folder, dtype="float32", floor=False)
    tokens = label_scores(folder, [item.prompt for item in task.test], [task.completion_of[label] for label in task.labels])
    ends = ended(folder, [item.prompt for item in task.test], [task.completion_of[label] for label in task.labels])
    for (_, row), by_label, end in zip(grid.outputs.iterrows(), tokens, ends, strict=True):
        wanted = [sum(label) + after for label, after in zip(by_label, end, strict=True)]
        assert list(row["log_probabilities"].values()) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_a_label_that_begins_with_another_one_can_be_the_answer(tmp_path: Path, family: str) -> None:
    """Without its end "1" would be likelier than "10" after every prompt, whatever was learnt."""
    sizes = {"shipping": ("many", "10"), "billing": ("few", "1"), "technical": ("some", "2")}
    rows = [{"text": row["text"], "size": sizes[row["team"]][0], "count": sizes[row["team"]][1]} for row in ticket_rows(60)]
    task = ticket_task(data=rows, prompt="{{ text }}\nThere are {{ size }}:", completion=" {{ count }}")
    said = {"dtype": "float32", "learning_rate": 3e-3, "num_train_epochs": 30, "num_samples": 0}
    run = nbtune.finetune("full", task=task, model=tiny(family, tmp_path), **said).wait()
    assert {item.expected for item in task.test} == {"10", "1", "2"}
    assert run.predict([item.row for item in task.test]) == [item.expected for item in task.test]


def test_similar_examples_are_the_nearest_training_rows_and_the_nearest_stands_last(
    folder: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = ticket_task()
    pool = Pool.of(task, str(encoder))
    few = of({"few-shot": {"k": 4, "select": "similar", "embed": str(encoder)}}, task, folder)
    for prompt, text in asked_of(few, monkeypatch).items():
        (near,) = pool.nearest([prompt], 4)
        assert text == shots_before(near[::-1], prompt)


@pytest.mark.parametrize("order", ["nearest-first", "random"])
def test_similar_examples_stand_in_the_order_that_is_asked_for(
    folder: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    task = ticket_task()
    few = of({"few-shot": {"k": 4, "select": "similar", "embed": str(encoder), "order": order}}, task, folder)
    nearest = Pool.of(task, str(encoder)).nearest
    found = asked_of(few, monkeypatch, rows=10)
    first = [text == shots_before(nearest([prompt], 4)[0], prompt) for prompt, text in found.items()]
    assert all(first) if order == "nearest-first" else not all(first)
    for prompt, text in found.items():
        assert all(shot.prompt + shot.completion in text for shot in nearest([prompt], 4)[0])


def test_what_is_dropped_for_want_of_room_is_the_least_similar_whatever_the_order(folder: Path, encoder: Path) -> None:
    task = ticket_task()
    prompt = task.test[0].prompt
    few = of({"few-shot": {"k": 24, "select": "similar", "embed": str(encoder), "order": "nearest-first"}}, task, folder)
    (near,) = Pool.of(task, str(encoder)).nearest([prompt], 24)
    texts, (used,), wanted = few._with_shots([prompt], 0, Asking("sum", Decoding(4)))
    assert wanted == 24
    assert 0 < used < 24
    assert texts[prompt] == shots_before(near[:used], prompt)


def test_diverse_examples_are_each_the_farthest_from_those_before(folder: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ticket_task()
    pool = Pool.of(task, str(encoder))
    few = of({"few-shot": {"k": 5, "select": "diverse", "embed": str(encoder)}}, task, folder)
    text = next(iter(asked_of(few, monkeypatch).values()))
    chosen = [place for place, item in enumerate(pool.items) if item.prompt + item.completion in text]
    assert len(chosen) == 5
    distances = 1 - pool.vectors @ pool.vectors.T

    def farthest_first(start: int) -> set[int]:
        taken = [start]
        while len(taken) < 5:
            nearest = distances[:, taken].min(axis=1)
            nearest[taken] = -1
            taken.append(int(nearest.argmax()))
        return set(taken)

    assert any(farthest_first(start) == set(chosen) for start in chosen)


def test_fixed_examples_are_the_rows_that_were_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ticket_task()
    few = of({"few-shot": {"select": "fixed", "rows": [5, 2]}}, task, folder)
    for prompt, text in asked_of(few, monkeypatch).items():
        assert text == shots_before([task.train[5], task.train[2]], prompt)


def test_several_seeds_give_the_mean_of_their_scores_and_its_spread(folder: Path) -> None:
    task = ticket_task()
    few = {"few-shot": {"k": 2, "seeds": 5}}
    grid = nbtune.compare([few, "zero-shot"], task=task, model=folder, dtype="float32", floor=False)
    alone = [
        nbtune.compare([{"few-shot": {"k": 2, "seed": seed}}], task=task, model=folder, dtype="float32", floor=False) for seed in range(5)
    ]
    scores = [one.table["accuracy"].iloc[0] for one in alone]
    assert grid.table["accuracy"].iloc[0] == pytest.approx(statistics.fmean(scores))
    assert grid.table["spread"].iloc[0] == pytest.approx(statistics.stdev(scores))
    assert grid.table["spread"].isna().iloc[1]
    assert grid.table["ci_low"].iloc[0] <= statistics.fmean(scores) <= grid.table["ci_high"].iloc[0]
    mine = grid.outputs[grid.outputs["approach"] == "few-shot: k=2, seeds=5"]
    assert list(mine["output"]) == list(alone[0].outputs["output"])
    means = np.mean([one.outputs["score"] for one in alone], axis=0)
    assert list(mine["score"]) == pytest.approx(list(means))


def test_examples_that_do_not_fit_are_left_out_and_the_grid_says_how_many(folder: Path) -> None:
    task = ticket_task()
    grid = nbtune.compare([{"few-shot": {"k": 30}}], task=task, model=folder, floor=False)
    (said,) = [note for note in grid.notes if "fit before a prompt" in note]
    assert "few-shot: k=30: of 30 examples" in said
    assert "512 tokens" in said
    assert grid.table["prompt_tokens"].iloc[0] < 512
    assert len(grid.outputs) == len(task.test)


def test_a_prompt_that_does_not_fit_by_itself_leaves_its_column_out_and_the_others_stay(folder: Path) -> None:
    rows = [{"text": "abc " * 400 if number == 0 else f"row {number}", "team": "ab"[number % 2]} for number in range(40)]
    said = {"train": rows[10:], "test": rows[:10]}
    task = nbtune.Task(name="long", kind="classification", data=said, prompt="{{ text }}", completion=" {{ team }}")
    grid = nbtune.compare(["zero-shot", lambda _prompt: "a"], task=task, model=folder)
    assert list(grid.table["approach"]) == ["function: <lambda>", "floor: majority", "floor: tf-idf"]
    (warning,) = [text for text in grid.warnings if "left out" in text]
    assert "zero-shot" in warning
    assert "reads 512" in warning


def test_labels_that_are_scored_take_no_room_for_what_is_not_generated(folder: Path) -> None:
    decoding = {"max_new_tokens": 4000}
    grid = nbtune.compare(["zero-shot", {"few-shot": {"k": 2}}], task=ticket_task(30), model=folder, decoding=decoding, floor=False)
    assert len(grid.table) == 2
    assert grid.notes == nbtune.compare(["zero-shot", {"few-shot": {"k": 2}}], task=ticket_task(30), model=folder, floor=False).notes
    with pytest.raises(ModelError, match="reads 512"):
        nbtune.compare(["zero-shot"], task=echo_task(), model=folder, decoding=decoding)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"k": 200}, "k is 200, and there are"),
        ({"select": "fixed"}, "belong together"),
        ({"rows": [1, 2]}, "belong together"),
        ({"select": "fixed", "rows": [1, 4000]}, "rows has 4000"),
        ({"select": "fixed", "rows": [-1]}, "rows has -1"),
        ({"select": "fixed", "rows": []}, "rows"),
        ({"select": "fixed", "rows": [1], "seeds": 3}, "nothing is drawn"),
        ({"select": "similar", "seeds": 3}, "nothing is drawn"),
        ({"order": "nearest-last"}, "is of similar examples"),
        ({"select": "nearest"}, "select cannot be 'nearest'"),
        ({"k": 2, "num_shots": 3}, "the same few-shot option"),
        ({"seeds": 0}, "seeds must be at least 1"),
    ],
)
def test_what_cannot_be_chosen_is_refused_before_anything_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], match: str
) -> None:
    monkeypatch.setattr(Setting, "engine", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(NbtuneError, match=match):
        of({"few-shot": options}, ticket_task(), folder)


def test_evenly_over_the_labels_needs_labels(folder: Path) -> None:
    with pytest.raises(SpecError, match="of kind generation"):
        of({"few-shot": {"select": "balanced"}}, echo_task(), folder)


def test_answers_may_be_as_long_as_any_of_the_models_that_are_asked_needs() -> None:
    """A model of bytes writes as many tokens as an answer has bytes."""
    task, few, many = echo_task(), AutoTokenizer.from_pretrained(folder_of("minilm")), ByT5Tokenizer()
    engines: Any = [SimpleNamespace(encoder=Encoder(tokenizer)) for tokenizer in (few, many)]
    alone = [Asking.of(task, [engine], "sum", DecodingSpec()).decoding.max_new_tokens for engine in engines]
    assert alone[1] > 2 * alone[0]
    for both in (engines, engines[::-1]):
        assert Asking.of(task, both, "sum", DecodingSpec()).decoding.max_new_tokens == alone[1]
    assert Asking.of(task, engines, "sum", DecodingSpec(max_new_tokens=3)).decoding.max_new_tokens == 3
