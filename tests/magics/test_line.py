"""A magic's line: what is one word, what a flag takes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from nbtune.errors import SpecError
from nbtune.methods import get
from nbtune.spec import TaskSpec
from nbtune_magics.finetune import FINETUNE
from nbtune_magics.line import Word, asks_for_help, read_line, split_line
from nbtune_magics.task import TASK

LORA = FINETUNE.table(("lora",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lora --task tickets", ["lora", "--task", "tickets"]),
        ("  a   b  ", ["a", "b"]),
        ("a 'b c' \"d e\"", ["a", "b c", "d e"]),
        ("--split {dev: 0.1, test: 0.2} x", ["--split", "{dev: 0.1, test: 0.2}", "x"]),
        ("[a, [b, c]] d", ["[a, [b, c]]", "d"]),
        ("{{ text }} x", ["{{ text }}", "x"]),
        ("don't stop", ["don't", "stop"]),
        ('--key="a b"', ['--key="a b"']),
        ("[\"a ] b\", 'c, d'] e", ["[\"a ] b\", 'c, d']", "e"]),
        ("a # a comment", ["a"]),
        ("a #b", ["a", "#b"]),
        ('"line\\nbreak \\"q\\" \\d"', ['line\nbreak "q" \\d']),
        ("", []),
    ],
)
def test_words_hold_quotes_and_brackets_together(text: str, words: list[str]) -> None:
    assert [word.text for word in split_line(text)] == words


@pytest.mark.parametrize("text", ["a 'b", 'a "b\\"', "[a, b", "{a: {b}", "--x {{ text }"])
def test_what_is_opened_and_not_closed_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="opened and never closed"):
        split_line(text)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("--r 16", "r", 16),
        ("--lora_r 16", "r", 16),
        ("--lora-r=16", "r", 16),
        ("--learning-rate 2e-4", "learning_rate", 2e-4),
        ("--lr=1e-3", "learning_rate", 1e-3),
        ("--load_best_model_at_end", "load_best_model_at_end", True),
        ("--load_best_model_at_end false", "load_best_model_at_end", False),
        ("--packing", "packing", True),
        ("--packing auto", "packing", "auto"),
        ("--quantization nf4", "quantization", "nf4"),
        ("--quantization null", "quantization", None),
        ("--target_modules [q_proj, v_proj]", "target_modules", ["q_proj", "v_proj"]),
        ("--target_modules q_proj", "target_modules", "q_proj"),
        ("--model Qwen/Qwen3-0.6B", "model", "Qwen/Qwen3-0.6B"),
        ("--task 012", "task", "012"),
        ('--task "-- odd"', "task", "-- odd"),
        ("--seed -1", "seed", -1),
    ],
)
def test_a_flags_value_is_read_by_what_the_option_is(text: str, name: str, value: Any) -> None:
    line = read_line("lora " + text, LORA)
    assert line.values == {name: value}
    assert line.words == ("lora",)
    assert line.problems == ()


def test_a_switch_takes_no_word_that_is_not_its_own() -> None:
    line = read_line("--background lora --load_best_model_at_end more", LORA)
    assert line.words == ("lora", "more")
    assert line.values == {"background": True, "load_best_model_at_end": True}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("--lerning_rate 1e-3", "unknown flag --lerning_rate", "did you mean 'learning_rate'?"),
        ("--backgroud", "unknown flag --backgroud", "did you mean 'background'?"),
        ("--r", "--r needs a value", "rank"),
        ("--r --lr 1", "--r needs a value", "rank"),
        ("--r 1 --r 2", "--r is given twice", "keep one"),
        ("--r 1 --lora_r 2", "--r is given twice", "keep one"),
        ("--target_modules '[q'", "--target_modules", ""),
    ],
)
def test_problems_are_told_with_the_mend(text: str, message: str, hint: str) -> None:
    (problem,) = read_line(text, LORA).problems
    assert message in problem.message
    assert hint in problem.hint
    assert problem.line == 1


def test_templates_on_the_line_are_taken_as_typed() -> None:
    line = read_line("demo --data d.csv --prompt 'Ticket: {{ text }} #{{ id }}' --completion ' {{ team }}'", TASK.table())
    assert line.values == {"data": "d.csv", "prompt": "Ticket: {{ text }} #{{ id }}", "completion": " {{ team }}"}
    assert set(line.values) <= set(TaskSpec.model_fields)


def test_every_option_of_a_method_can_stand_on_the_line() -> None:
    assert {item.name for item in get("lora").spec.options()} <= set(LORA)
    assert {alias for item in get("lora").spec.options() for alias in item.aliases} <= set(LORA)


@pytest.mark.parametrize(
    ("text", "asked"), [("-h", True), ("lora --help", True), ("lora 'x --help", True), ("lora '-h'", False), ("", False)]
)
def test_help_is_asked_for_by_a_word_of_its_own(text: str, asked: bool) -> None:
    assert asks_for_help(text) is asked


def test_quoting_keeps_a_word_from_being_a_flag() -> None:
    assert not Word("--x", quoted=True).is_flag
