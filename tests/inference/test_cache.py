"""What was asked before is not asked again, whatever else has changed; what has changed is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import nbtune
from nbtune.inference import Decoding
from nbtune.inference.cache import AnswerCache, question_keys
from nbtune.models.loading import source_of
from nbtune.models.shared import shared_base
from tests.examples import echo_task, ticket_rows, ticket_task
from tests.tiny import tiny_llama

FEW = {"few-shot": {"k": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


class Count:
    """Rows that went through a model since it was last asked, and how many of them at a time."""

    def __init__(self) -> None:
        self.rows = 0
        self.at_once: list[int] = []

    def taken(self) -> int:
        found, self.rows = self.rows, 0
        return found


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Iterator[Count]:
    from nbtune.inference import engine

    counter = Count()
    for name in ("score_chunk", "generate_chunk"):
        plain = getattr(engine, name)

        def counted(base: Any, questions: Any, *more: Any, _plain: Any = plain, **options: Any) -> Any:
            counter.rows += len(questions)
            counter.at_once.append(len(questions))
            return _plain(base, questions, *more, **options)

        monkeypatch.setattr(engine, name, counted)
    return counter


def without_time(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["seconds", "train_seconds"])


@pytest.mark.parametrize("kind", ["labels", "texts"])
def test_a_grid_asked_again_asks_what_shows_that_the_model_is_the_same_and_says_the_same(folder: Path, count: Count, kind: str) -> None:
    task = ticket_task() if kind == "labels" else echo_task()
    first = nbtune.compare(["zero-shot", FEW], task=task, model=folder)
    assert count.taken() == 2 * (len(task.test) + 3)
    again = nbtune.compare(["zero-shot", FEW], task=task, model=folder)
    each = {"labels": 1, "texts": 3}[kind]  # one row's scores show that the model is the same, one row's words might be another's, too
    assert count.taken() == 2 * each
    assert again.checks == first.checks
    assert any("3 of 3 rows asked alone" in check for check in again.checks)
    pd.testing.assert_frame_equal(without_time(again.table), without_time(first.table))
    pd.testing.assert_frame_equal(again.outputs, first.outputs)
    assert again.warnings == first.warnings == []
    for before, now in zip(first.table["seconds"][:2], again.table["seconds"][:2], strict=True):
        assert now == pytest.approx(before, rel=0.3), "the seconds are those that the answers took when they were asked"


def test_rows_asked_again_alone_are_asked_one_by_one(folder: Path, count: Count) -> None:
    nbtune.compare(["zero-shot"], task=ticket_task(), model=folder, floor=False)
    *batches, first, second, third = count.at_once
    assert (first, second, third) == (1, 1, 1)
    assert max(batches) > 1


def test_a_column_that_was_interrupted_goes_on_where_it_was(folder: Path, count: Count) -> None:
    rows = ticket_rows(400)
    task = ticket_task(data={"train": rows[:40], "test": rows[40:]})

    def interrupt(text: str) -> None:
        if re.match(r"zero-shot: 2\d\d of", text):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nbtune.compare(["zero-shot"], task=task, model=folder, floor=False, report=interrupt)
    first = count.taken()
    assert 200 <= first < len(task.test)
    nbtune.compare(["zero-shot"], task=task, model=folder, floor=False)
    assert count.taken() == len(task.test) - 128 + 3, "the first 128 were kept; three are asked again as a check"


def test_a_changed_row_costs_one_row_and_its_check(folder: Path, count: Count) -> None:
    rows = ticket_rows(60)
    parts = {"train": rows[:40], "test": rows[40:]}
    nbtune.compare(["zero-shot"], task=ticket_task(data=parts), model=folder, floor=False)
    count.taken()
    changed = [*rows[40:50], {"text": "an altogether different request", "team": "billing"}, *rows[51:]]
    task = ticket_task(data={**parts, "test": changed})
    nbtune.compare(["zero-shot"], task=task, model=folder, floor=False)
    assert count.taken() == 1 + 2, "it is the row in the middle, which is asked alone, too; and the first, as ever"


@pytest.mark.parametrize(
    "changed", [{"decoding": {"max_new_tokens": 5}}, {"decoding": {"stop": ["a"]}}, {"dtype": "bfloat16"}], ids=["tokens", "stop", "dtype"]
)
def test_other_decoding_or_number_format_is_asked_anew(folder: Path, count: Count, changed: dict[str, Any]) -> None:
    task = echo_task()
    nbtune.compare(["zero-shot"], task=task, model=folder, dtype="float32")
    count.taken()
    nbtune.compare(["zero-shot"], task=task, model=folder, **{"dtype": "float32", **changed})
    assert count.taken() == len(task.test) + 3


def test_another_token_that_ends_an_answer_is_asked_anew(tmp_path: Path, count: Count) -> None:
    folder, task = tiny_llama(tmp_path), echo_task()
    nbtune.compare(["zero-shot"], task=task, model=folder, dtype="float32")
    count.taken()
    base = shared_base(source_of(folder), dtype="float32", quantization=None, device=None)
    base.model.generation_config.eos_token_id = [base.tokenizer.eos_token_id, 7]
    nbtune.compare(["zero-shot"], task=task, model=folder, dtype="float32")
    assert count.taken() == len(task.test) + 3


def test_other_labels_are_asked_anew_and_another_way_to_count_them_is_not(folder: Path, count: Count) -> None:
    task = ticket_task()
    nbtune.compare(["zero-shot"], task=task, model=folder, floor=False)
    count.taken()
    nbtune.compare(["zero-shot"], task=task, model=folder, floor=False, scoring="mean")
    assert count.taken() == 1
    nbtune.compare(["zero-shot"], task=ticket_task(labels=[*task.labels, "legal"]), model=folder, floor=False)
    assert count.taken() == len(task.test) + 3


def test_a_run_that_was_trained_further_is_asked_again(folder: Path, count: Count) -> None:
    task = ticket_task(30)
    for method in ("lora", "layernorm"):
        run = nbtune.finetune(method, task=task, model=folder, max_steps=2, num_samples=0).wait()
        nbtune.compare([run], task=task, floor=False)
        count.taken()
        nbtune.compare([run], task=task, floor=False)
        assert count.taken() == 1
        with torch.no_grad():
            next(iter(run.engine().base.trained(run.id).values())).add_(0.01)
        nbtune.compare([run], task=task, floor=False)
        assert count.taken() == len(task.test) + 3


def test_a_model_that_was_changed_where_its_sum_does_not_look_is_told(tmp_path: Path) -> None:
    folder, task = tiny_llama(tmp_path), ticket_task()
    config = AutoConfig.from_pretrained(folder, num_hidden_layers=3)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    first = nbtune.compare(["zero-shot"], task=task, model=folder, dtype="float32", floor=False)
    assert first.warnings == []
    base = shared_base(source_of(folder), dtype="float32", quantization=None, device=None)
    with torch.no_grad():
        for parameter in base.model.model.layers[1].parameters():
            looked_at = torch.linspace(0, parameter.numel() - 1, max(64, len(parameter)), dtype=torch.float64).long()
            kept = parameter.flatten()[looked_at]
            parameter.mul_(5).view(-1)[looked_at] = kept
    again = nbtune.compare(["zero-shot"], task=task, model=folder, dtype="float32", floor=False)
    assert again.outputs["output"].tolist() == first.outputs["output"].tolist(), "they are those that were kept"
    assert any("a model that has changed since" in warning for warning in again.warnings)


def test_another_model_under_the_same_name_is_asked_again(tmp_path: Path, count: Count) -> None:
    task = ticket_task(30)
    for seed in (0, 1):
        tiny_llama(tmp_path / "model", seed=seed)
        nbtune.models.unload()
        nbtune.compare(["zero-shot"], task=task, model=tmp_path / "model", floor=False)
        assert count.taken() == len(task.test) + 3


@pytest.mark.parametrize("damage", ["no database", "another table", "no JSON", "a folder"])
def test_a_damaged_file_is_told_and_nothing_fails(folder: Path, home: Path, damage: str) -> None:
    import sqlite3

    task = ticket_task(30)
    first = nbtune.compare(["zero-shot"], task=task, model=folder, floor=False)
    path = AnswerCache().path
    assert path.is_relative_to(home)
    if damage in ("no database", "a folder"):
        path.unlink()
    if damage == "no database":
        path.write_bytes(b"neither here nor there" * 100)
    elif damage == "a folder":
        path.mkdir()
    else:
        with sqlite3.connect(path) as file:
            file.execute("DROP TABLE answers" if damage == "another table" else "UPDATE answers SET value = 'neither'")
            if damage == "another table":
                file.execute("CREATE TABLE answers (other TEXT)")
    again = nbtune.compare(["zero-shot"], task=task, model=folder, floor=False)
    pd.testing.assert_frame_equal(again.outputs, first.outputs)
    (note,) = [text for text in again.notes if "answers are not kept" in text]
    assert "delete" in note


def test_texts_that_are_no_texts_of_the_same_model_have_other_keys(folder: Path) -> None:
    engine = nbtune.prompt("zero-shot", task=ticket_task(30), model=folder).engine
    keys = question_keys(engine, [[1, 2], [12], [1, 2, 3]], "how")
    assert len({*keys, *question_keys(engine, [[1, 2]], "another")}) == 4
    assert keys == question_keys(engine, [[1, 2], [12], [1, 2, 3]], "how")


def test_the_file_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbtune.inference.cache._MOST", 50)
    cache = AnswerCache(tmp_path / "answers.sqlite")
    for start in range(0, 200, 40):
        cache.put({f"key {number}": number for number in range(start, start + 40)}, 0.5)
    found = cache.get([f"key {number}" for number in range(200)])
    assert len(found) == 50
    assert all(key == f"key {value}" and seconds == 0.5 for key, (value, seconds) in found.items())
    assert cache.trouble is None


def test_nothing_but_hashes_answers_and_seconds_is_kept(folder: Path) -> None:
    task = ticket_task(30)
    nbtune.compare(["zero-shot"], task=task, model=folder, floor=False)
    held = AnswerCache().path.read_bytes()
    assert task.test[0].row["text"].encode() not in held


def test_answers_alone_are_kept_too(folder: Path, count: Count) -> None:
    few = nbtune.prompt("few-shot", task=echo_task(), model=folder, k=2)
    rows = [{"text": "about the tent"}, {"text": "about the saddle"}]
    first = few.predict(rows)
    assert count.taken() == 2
    assert few.predict(rows) == first
    assert count.taken() == 0
    assert few.engine.generate(["anything"], Decoding(3))
    assert count.taken() == 1, "an engine asked directly keeps nothing"
