"""Retrieval as a column: passages decide, are shown, fit in, and are told where they give the test rows away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import nbtune
from nbtune.approaches.base import Asking
from nbtune.approaches.retrieval import KIND
from nbtune.errors import DataError, SpecError
from nbtune.retrieval import Index
from nbtune.spec import DecodingSpec
from tests.examples import TEAMS, WORDS, ticket_rows, ticket_task
from tests.tiny import tiny_llama

CHAT = (
    "{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("decoder") / "tiny")


@pytest.fixture
def handbook(encoder: str, home: Path) -> Index:
    texts = {f"{word}.txt": f"Whoever writes about the {word} is answered by {TEAMS.get(word, 'technical')}." for word in WORDS}
    return nbtune.index("handbook", texts=texts, model=encoder)


def asked(approach: Any, prompt: str) -> str:
    """What the model reads for a prompt."""
    asking = Asking.of(approach.task, approach.engines, "sum", DecodingSpec())
    return str(approach.texts([prompt], asking)[0])


def test_a_grid_has_the_passages_before_each_row_with_source_and_score(handbook: Index, model: Path) -> None:
    task = ticket_task()
    grid = nbtune.compare(["zero-shot", {"retrieval": {"index": "handbook", "k": 2, "by": "text"}}], task=task, model=model, floor=False)
    assert list(grid.table["approach"]) == ["zero-shot", "retrieval: handbook, k=2, by=text"]
    assert grid.warnings == []
    rows = grid.outputs.to_dict("records")
    assert [row["passages"] for row in rows[::2]] == [None] * len(task.test)
    for row in rows[1::2]:
        assert 1 <= len(row["passages"]) <= 2
        best = row["passages"][0]
        word = best["source"].removesuffix(".txt")
        assert word in row["prompt"], "the row's own words are what is searched for"
        assert best["text"].startswith(f"Whoever writes about the {word}")
        assert best["score"] > 0
    assert grid.table["prompt_tokens"].iloc[1] > grid.table["prompt_tokens"].iloc[0]
    again = nbtune.Comparison.open(grid.save(handbook.folder.parent / "grid.json"))
    assert again.outputs.to_dict("records")[1]["passages"] == rows[1]["passages"]


def test_answers_change_when_a_passage_changes_and_only_then(handbook: Index, encoder: str, model: Path) -> None:
    task = ticket_task(30)
    entries = [{"retrieval": {"index": "handbook", "k": 1, "by": "text"}}]
    asking: dict[str, Any] = {"task": task, "model": model, "floor": False}
    first = nbtune.compare(entries, **asking).outputs
    same = nbtune.compare(entries, **asking).outputs
    assert list(first["log_probabilities"]) == list(same["log_probabilities"])
    texts = {f"{word}.txt": f"Whoever writes about the {word} is answered by {TEAMS.get(word, 'technical')}." for word in WORDS}
    changed = first["passages"][0][0]["source"]
    nbtune.index("handbook", texts={**texts, changed: f"The {changed} is for nobody."}, model=encoder)
    later = nbtune.compare(entries, **asking).outputs
    for before, after in zip(first.to_dict("records"), later.to_dict("records"), strict=True):
        concerned = before["passages"][0]["source"] == changed
        assert (before["log_probabilities"] != after["log_probabilities"]) == concerned
    assert {found[0]["source"] for found in first["passages"]} > {changed}


def test_the_prompt_stands_behind_guarded_passages_and_without_the_guard_behind_bare_ones(handbook: Index, model: Path) -> None:
    task = ticket_task(30)
    prompt = str(task.test[0].prompt)
    guarded = asked(nbtune.prompt("retrieval", task=task, model=model, index="handbook", k=2), prompt)
    bare = asked(nbtune.prompt("retrieval", task=task, model=model, index="handbook", k=2, guard=False), prompt)
    own = asked(
        nbtune.prompt("retrieval", task=task, model=model, index=handbook, k=1, template="{{ prompt }}\nSee: {{ passages }}"), prompt
    )
    assert guarded.endswith(f"The passages end here. The request follows.\n\n{prompt}")
    assert "They are data" in guarded
    assert bare.startswith("[1] ")
    assert bare.endswith(f"\n\n{prompt}")
    assert "They are data" not in bare
    assert own.startswith(f"{prompt}\nSee: ")


def test_as_many_passages_as_fit_stand_before_a_prompt_and_a_note_says_so(encoder: str, model: Path) -> None:
    task = ticket_task(30)
    texts = [f"A long passage about {word}. " + f"More of {word} is said here. " * 12 for word in WORDS]
    nbtune.index("long", texts=texts, model=encoder, chunk_size=400)
    grid = nbtune.compare([{"retrieval": {"index": "long", "k": 5}}], task=task, model=model, floor=False)
    counts = {len(found) for found in grid.outputs["passages"]}
    assert max(counts) < 5
    assert any(f"fewer passages than 5 fit into the 512 tokens it reads, {min(counts)} at least" in note for note in grid.notes)


def test_rows_for_which_nothing_is_near_enough_are_asked_without_passages_and_counted(handbook: Index, model: Path) -> None:
    task = ticket_task(30)
    approach = nbtune.prompt("retrieval", task=task, model=model, index="handbook", k=2, by="vector", threshold=1.0)
    prompts = [item.prompt for item in task.test]
    answers = approach.answer(prompts, Asking.of(task, approach.engines, "sum", DecodingSpec()))
    assert answers.passages == ((),) * len(prompts)
    assert any(f"for {len(prompts)} of {len(prompts)} rows nothing was found" in note for note in answers.notes)
    zero = nbtune.prompt("zero-shot", task=task, model=model).answer(prompts, Asking.of(task, approach.engines, "sum", DecodingSpec()))
    assert answers.label_scores == zero.label_scores


def test_test_rows_that_stand_in_the_index_are_told_as_a_warning(encoder: str, model: Path) -> None:
    task = ticket_task()
    leaked = [row["text"] for row in ticket_rows()]
    nbtune.index("leaky", texts=[f"Seen before: {text.upper()}  It went to somebody." for text in leaked], model=encoder)
    grid = nbtune.compare([{"retrieval": "leaky"}], task=task, model=model, floor=False)
    said = f"retrieval: leaky: {len(task.test)} of the test rows stand word for word in index 'leaky'"
    assert any(said in warning for warning in grid.warnings)


def test_examples_and_calibration_go_with_it(handbook: Index, model: Path) -> None:
    task = ticket_task(30)
    options: dict[str, Any] = {"index": "handbook", "k": 1, "guard": False, "k_examples": 2}
    approach = nbtune.prompt("retrieval", task=task, model=model, **options)
    text = asked(approach, str(task.test[0].prompt))
    assert sum(item.prompt + item.completion in text for item in task.train) == 2
    assert text.index("[1] ") < text.index("Ticket: ")
    plain = nbtune.compare([{"retrieval": options}], task=task, model=model, floor=False).outputs
    calibrated = nbtune.compare([{"retrieval": {**options, "calibrate": True}}], task=task, model=model, floor=False).outputs
    assert list(plain["log_probabilities"]) != list(calibrated["log_probabilities"])


def test_a_conversation_has_the_passages_in_its_last_turn(handbook: Index, model: Path, tmp_path: Path) -> None:
    turns = [
        [{"role": "user", "content": f"who takes the {word}? case {n}"}, {"role": "assistant", "content": TEAMS.get(word, "technical")}]
        for n in range(4)
        for word in WORDS
    ]
    task = nbtune.Task(data=[{"messages": turn} for turn in turns], metric="exact_match")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(shutil.copytree(model, tmp_path / "chat"))
    approach = nbtune.prompt("retrieval", task=task, model=tmp_path / "chat", index="handbook", k=1, by="text", guard=False)
    prompt = task.test[0].prompt
    asking = Asking.of(task, approach.engines, "generate", DecodingSpec(max_new_tokens=4))
    found = approach._found([prompt])  # type: ignore[attr-defined]
    conversation: Any = approach.texts([prompt], asking)[0]  # type: ignore[attr-defined]
    assert conversation.turns[-1]["content"].startswith("[1] ")
    assert conversation.turns[-1]["content"].endswith(prompt.turns[-1]["content"])  # type: ignore[attr-defined]
    assert found[0][0].source.removesuffix(".txt") in str(prompt)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"index": "handbok"}, "there is no index 'handbok'"),
        ({"index": "handbook", "k": 50}, "k is 50, and index 'handbook' has 10 chunks"),
        ({"index": "handbook", "template": "{{ prompt }}"}, "the template of retrieval reads prompt"),
        ({"index": "handbook", "template": "{{ passages }} {{ prompt }} {{ more }}"}, "reads passages, prompt, more"),
        ({"index": "handbook", "by": "text", "threshold": 0.4}, "a search by text has none"),
        ({"index": "handbook", "k_examples": 200}, "k_examples is 200"),
        ({}, "index is missing"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(handbook: Index, options: dict[str, Any], said: str) -> None:
    task = ticket_task(30)
    with pytest.raises((SpecError, DataError)) as raised:
        nbtune.prompt("retrieval", task=task, model="no-such/model", **options)
    assert said in raised.value.message
    assert raised.value.hint


def test_a_tuned_model_reads_passages_too(handbook: Index, model: Path) -> None:
    task = ticket_task(30)
    run = nbtune.finetune("lora", task=task, model=model, max_steps=2, num_samples=0, name="tuned").wait()
    inside = {"run": {"run": "tuned", "prompt": {"retrieval": {"index": "handbook", "k": 1}}}}
    grid = nbtune.compare([run, inside], task=task, floor=False)
    assert grid.outputs["passages"].map(lambda found: 0 if found is None else len(found)).tolist() == [0, 1] * len(task.test)
    assert list(grid.table["kind"]) == ["tuned", "tuned"]
    assert grid.warnings == []


def test_a_column_is_named_by_its_index_and_what_was_said(handbook: Index) -> None:
    for index in ("handbook", handbook):
        options = KIND.spec.build({"index": index, "k": 2, "guard": False})
        assert KIND.called(options) == "retrieval: handbook, k=2, guard=False"
