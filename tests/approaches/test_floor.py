"""The floors say what scikit-learn says, stand last in every grid of classes, and never keep a grid from being made."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

import nbtune
from nbtune.approaches.base import Asking
from nbtune.approaches.neighbours import Pool
from nbtune.errors import SpecError
from nbtune.inference import Decoding
from tests.examples import echo_task, ticket_task

FLOORS = ["floor: majority", "floor: tf-idf"]


def test_the_majority_is_the_most_frequent_class_of_the_training_rows() -> None:
    task = ticket_task()
    (most, _), *_ = Counter(item.label for item in task.train).most_common(1)
    assert set(nbtune.prompt("floor", task=task, by="majority").predict(["anything", "else"])) == {most}


def test_words_are_weighed_as_scikit_learn_does() -> None:
    task = ticket_task(90)
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"\w+")  # noqa: S106  a pattern of words
    train = words.fit_transform([item.prompt for item in task.train])
    dev, test = (words.transform([item.prompt for item in rows]) for rows in (task.dev, task.test))
    labels = [item.label for item in task.train]
    fitted = [LogisticRegression(C=strength, max_iter=2000).fit(train, labels) for strength in (0.1, 1, 10, 100)]
    best = max(fitted, key=lambda model: model.score(dev, [item.label for item in task.dev]))
    found = nbtune.prompt("floor", task=task)
    assert found.predict([item.row for item in task.test]) == list(best.predict(test))
    assert found.cost.trainable_parameters == best.coef_.size + best.intercept_.size


def test_neighbours_are_those_of_scikit_learn_on_the_same_vectors(encoder: Path) -> None:
    task = ticket_task()
    pool = Pool.of(task, str(encoder))
    asked = [item.prompt for item in task.test]
    begin, end = pool.around
    vectors = pool.embedder.embed([text[begin : len(text) - end].strip() for text in asked])
    distances, places = NearestNeighbors(n_neighbors=5, metric="cosine").fit(pool.vectors).kneighbors(vectors)
    votes = []
    for near, row, distance, vector in zip(pool.nearest(asked, 5), places, distances, vectors, strict=True):
        mine = [1 - float(vector @ pool.vectors[pool.items.index(item)]) for item in near]
        assert mine == pytest.approx(list(distance), abs=1e-5)
        if np.diff(distance).min() > 1e-5:
            assert [pool.items[place] for place in row] == near
        votes.append(Counter(item.label for item in near).most_common(1)[0][0])
    floor = nbtune.prompt("floor", task=task, by="neighbours", k=5, embed=str(encoder))
    assert floor.predict([item.row for item in task.test]) == votes


def test_what_all_prompts_have_in_common_is_no_part_of_what_makes_them_alike(encoder: Path) -> None:
    task = ticket_task(prompt="A ticket of a customer. {{ text }}. Which team is it for?")
    pool = Pool.of(task, str(encoder))
    begin, end = pool.around
    prompt = task.train[0].prompt
    assert "customer" not in prompt[begin : len(prompt) - end]
    assert "Which team" not in prompt[begin : len(prompt) - end]
    assert prompt[begin : len(prompt) - end].strip() in task.train[0].row["text"]


def test_floors_stand_last_in_a_grid_of_classes_unless_they_are_switched_off(folder: Path) -> None:
    task = ticket_task(30)
    grid = nbtune.compare(["zero-shot"], task=task, model=folder)
    assert list(grid.table["approach"]) == ["zero-shot", *FLOORS]
    assert list(grid.table["kind"]) == ["prompting", "floor", "floor"]
    assert list(nbtune.compare(["zero-shot"], task=task, model=folder, floor=False).table["approach"]) == ["zero-shot"]
    named = nbtune.compare([{"floor": "tf-idf"}, "zero-shot"], task=task, model=folder)
    assert list(named.table["approach"]) == ["floor: tf-idf", "zero-shot", "floor: majority"]
    assert list(nbtune.compare(["zero-shot"], task=echo_task(), model=folder).table["approach"]) == ["zero-shot"]


def test_beside_similar_examples_stands_the_plain_vote_of_the_same_rows(folder: Path, encoder: Path) -> None:
    few = {"few-shot": {"k": 3, "select": "similar", "embed": str(encoder)}}
    grid = nbtune.compare([few], task=ticket_task(30), model=folder)
    assert [name for name in grid.table["approach"] if name.startswith("floor: neighbours k=3")]


def test_a_task_without_words_still_has_its_grid_and_is_told_what_is_lacking(folder: Path) -> None:
    rows = [{"text": "!" * (number + 1), "team": "ab"[number % 2]} for number in range(30)]
    task = nbtune.Task(name="marks", kind="classification", data=rows, prompt="{{ text }}", completion=" {{ team }}")
    grid = nbtune.compare(["zero-shot"], task=task, model=folder)
    assert list(grid.table["approach"]) == ["zero-shot", "floor: majority"]
    assert any("floor: tf-idf" in note for note in grid.notes)


def test_floors_are_of_classes() -> None:
    with pytest.raises(SpecError, match="of kind generation"):
        nbtune.prompt("floor", task=echo_task())
    with pytest.raises(SpecError, match="k is 256, and there are"):
        nbtune.prompt("floor", task=ticket_task(30), by="neighbours", k=256)


def test_neighbours_that_were_embedded_before_cost_the_seconds_of_the_first_time(encoder: Path) -> None:
    task = ticket_task(120)
    floor, pool = nbtune.prompt("floor", task=task, by="neighbours", k=3, embed=str(encoder)), Pool.of(task, str(encoder))
    prompts, asking = [f"a text that nobody has embedded, {number}" for number in range(20)], Asking("sum", Decoding())
    assert pool.saved(prompts) == 0
    floor.answer(prompts, asking)
    saved = pool.saved(prompts)
    assert saved > 0
    assert floor.answer(prompts, asking).seconds > saved
