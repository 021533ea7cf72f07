"""A model with a head reads so many tokens and no more: what it does not read of a text is told."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import nbtune
from tests.examples import tag_task, ticket_task
from tests.tiny import tiny_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder("bert", tmp_path_factory.mktemp("tiny"))


def test_texts_that_are_cut_are_counted_by_predict_and_in_a_grid(folder: Path) -> None:
    task = ticket_task()
    run = nbtune.finetune("head", task=task, model=folder, objective="classification", max_steps=2).wait()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.predict(["short", "short as well"])
    with pytest.warns(UserWarning, match="1 of 2 texts is longer than the 140 tokens that .* reads, and cut") as told:
        run.predict(["short", "a very long one, " * 100])
    assert told[0].filename == __file__, "it points at the user's own line"
    grid = nbtune.compare([run], task=task, inputs=["a very long one, " * 100, "another, " * 300, "short"])
    assert any("2 of 3 texts are longer than the 140 tokens" in note for note in grid.notes)
    assert not any("texts are longer" in note for note in nbtune.compare([run], task=task, floor=False).notes)


def test_words_that_get_no_tag_for_it_are_told_too(folder: Path) -> None:
    task = tag_task()
    run = nbtune.finetune("head", task=task, model=folder, objective="tagging", max_steps=2).wait()
    with pytest.warns(UserWarning, match="1 of 1 texts is longer than the 140 tokens"):
        (tags,) = run.predict([{"tokens": ["word"] * 300}])
    assert len(tags.split(" ")) == 300
