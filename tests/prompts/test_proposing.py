"""What a proposer is asked, and how a model is made to begin."""

from __future__ import annotations

from pathlib import Path

from nbtune.approaches.base import Setting
from nbtune.prompts.proposing import FunctionProposer, Mistake, ModelProposer, Request, Requests
from nbtune.prompts.variants import Frame, given
from tests.examples import ticket_task
from tests.tiny import tiny_llama


def test_a_model_begins_with_the_words_it_is_given_which_it_reads_as_its_own(tmp_path: Path) -> None:
    proposer = ModelProposer.of(Setting(tiny_llama(tmp_path)).base())
    free, begun = proposer.write(Request("Say it.")), proposer.write(Request("Say it.", "Which team"))
    assert begun.text.startswith("Which team")
    assert begun.text.removeprefix("Which team") != free.text
    assert begun.tokens > free.tokens
    assert proposer.fits(Request("Say it."))
    assert not proposer.fits(Request("Say it. " * 300))


def test_requests_differ_keep_to_the_rows_they_are_given_and_cut_long_texts() -> None:
    task = ticket_task(60)
    (own,) = given(task, [], task.train)
    requests = Requests(task, Frame.of(task), FunctionProposer(str), task.train[:10], seed=0)
    found = requests.of_round(2, 8, [(own, [Mistake(item, "x" * 5000) for item in task.train[10:14]])])
    assert len({request.text for request in found}) == 8
    assert found == requests.of_round(2, 8, [(own, [Mistake(item, "x" * 5000) for item in task.train[10:14]])])
    assert sum("got these wrong" in request.text for request in found) >= 4
    assert all(len(request.text) < 6 * 2000 for request in found)
    lines = {line.removeprefix("Input: ") for request in found for line in request.text.splitlines() if line.startswith("Input: ")}
    assert lines
    assert lines <= {item.prompt.splitlines()[0] for item in task.train[:14]}


def test_a_function_is_told_from_another_of_its_name_by_its_source() -> None:
    def first() -> FunctionProposer:
        def write(request: str) -> str:
            return "a" + request

        return FunctionProposer(write)

    def second() -> FunctionProposer:
        def write(request: str) -> str:
            return "b" + request

        return FunctionProposer(write)

    assert first().key == first().key
    assert first().key != second().key
    assert first().name == second().name == "write"
