"""A function stands in the grid like everything else; where it fails the grid says where, and the rest stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nbtune
from nbtune.errors import ComparisonError, SpecError
from tests.examples import TEAMS, WORDS, echo_task, tag_task, ticket_rows, ticket_task


def rule(prompt: str) -> str:
    return next((TEAMS.get(word, "technical") for word in WORDS if word in prompt), "")


def many() -> nbtune.Task:
    rows = ticket_rows(110)
    return ticket_task(data={"train": rows[:60], "test": rows[60:]})


def test_a_function_is_asked_each_prompt_and_scored_like_the_rest(folder: Path) -> None:
    task = ticket_task()
    asked: list[str] = []
    grid = nbtune.compare(["zero-shot", lambda prompt: asked.append(prompt) or rule(prompt)], task=task, model=folder)
    assert asked == [item.prompt for item in task.test]
    by_rule = grid.table.set_index("approach").loc["function: <lambda>"]
    assert by_rule["accuracy"] == 1
    assert by_rule["kind"] == "other"
    assert (by_rule["prompt_tokens"], by_rule["trainable_parameters"]) == (0, 0)


def test_a_function_alone_needs_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbtune.models.shared.load", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr("nbtune.models.shared.own_base", lambda *_, **__: pytest.fail("a model was loaded"))
    grid = nbtune.compare([rule], task=ticket_task())
    assert list(grid.table["approach"]) == ["function: rule", "floor: majority", "floor: tf-idf"]
    assert nbtune.compare([rule], task=echo_task()).metric == "exact_match"


@pytest.mark.parametrize("what", ["raises", "returns None"])
def test_one_that_fails_on_row_37_is_left_out_with_the_row_and_the_rest_is_kept(folder: Path, what: str) -> None:
    task = many()
    assert len(task.test) > 40
    wrong = task.test[37].prompt

    def careless(prompt: str) -> str | None:
        if prompt != wrong:
            return rule(prompt)
        if what == "raises":
            message = "no such ticket"
            raise LookupError(message)
        return None

    grid = nbtune.compare(["zero-shot", careless, rule], task=task, model=folder)
    assert list(grid.table["approach"]) == ["zero-shot", "function: rule", "floor: majority", "floor: tf-idf"]
    (warning,) = [text for text in grid.warnings if "left out" in text]
    assert "function: careless: row 37" in warning
    assert ("LookupError: no such ticket" if what == "raises" else "returned None") in warning
    assert len(grid.outputs) == 4 * len(task.test)


def test_where_no_column_but_the_floors_can_answer_the_grid_fails_with_the_reason() -> None:
    def broken(_prompt: str) -> str:
        message = "the service is down"
        raise ConnectionError(message)

    with pytest.raises(ComparisonError, match="row 0: it raised ConnectionError: the service is down"):
        nbtune.compare([broken], task=ticket_task())


def test_an_interrupt_is_no_failure_of_a_column() -> None:
    def slow(_prompt: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nbtune.compare([slow, rule], task=ticket_task())


@pytest.mark.parametrize("function", ["rule", 3, None])
def test_what_is_no_function_is_refused(function: Any) -> None:
    with pytest.raises(SpecError):
        nbtune.compare([{"function": {"function": function}}], task=ticket_task())


def test_columns_of_one_name_are_told_apart() -> None:
    grid = nbtune.compare([lambda _: "billing", lambda prompt: rule(prompt) or "billing"], task=ticket_task())
    assert list(grid.table["approach"])[:2] == ["function: <lambda>", "function: <lambda> (2)"]
    assert grid.table["accuracy"].iloc[1] == 1
    assert set(grid.outputs["approach"]) == set(grid.table["approach"])


def test_a_tagger_with_a_tag_too_few_is_left_out_with_the_row_and_the_rest_is_kept() -> None:
    task = tag_task()
    right = {item.prompt: item.expected for item in task.test}
    wrong = task.test[5].prompt

    def short(prompt: str) -> str:
        return " ".join(right[prompt].split(" ")[: -1 if prompt == wrong else None])

    def whole(prompt: str) -> str:
        return right[prompt]

    grid = nbtune.compare([short, whole], task=task)
    assert list(grid.table["approach"]) == ["function: whole"]
    assert grid.table["span_f1"].tolist() == [1]
    words = len(wrong.split(" "))
    assert any(f"function: short: row 5: it returned {words - 1} tags for {words} words" in text for text in grid.warnings)
