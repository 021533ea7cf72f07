"""Cell bodies: what is read means what it looks like, and what does not is refused with its line."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nbtune.body import read_body, read_value, write_body
from nbtune.errors import SpecError


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-3", 1e-3),
        ("2E4", 2e4),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("3.", 3.0),
        (".5", 0.5),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-31", "2024-01-31"),
        ("12:30", "12:30"),
        ("9" * 5000, "9" * 5000),
        ("'12'", "12"),
        ('"a\\nb"', "a\nb"),
        ("[yes, no, 1, a b]", ["yes", "no", 1, "a b"]),
        ("{k: 8, select: similar}", {"k": 8, "select": "similar"}),
    ],
)
def test_values_follow_the_core_schema_of_yaml_1_2(written: str, meant: Any) -> None:
    value = read_body(f"key: {written}\n").values
    assert value == {"key": meant}
    assert type(value["key"]) is type(meant)
    assert read_value(written) == meant


def test_nan_is_a_number() -> None:
    assert math.isnan(read_value(".nan"))


def test_lines_count_from_the_magics_line() -> None:
    body = read_body("# comment\nr: 16\n\nlearning_rate: 2e-4\nsplit:\n  dev: 0.1\n")
    assert body.values == {"r": 16, "learning_rate": 2e-4, "split": {"dev": 0.1}}
    assert body.lines == {"r": 3, "learning_rate": 5, "split": 6}


def test_a_list_body_has_the_line_of_each_item() -> None:
    body = read_body("- zero-shot\n- few-shot: {k: 8}\n- run: mine\n")
    assert body.values == ["zero-shot", {"few-shot": {"k": 8}}, {"run": "mine"}]
    assert body.lines == {"0": 2, "1": 3, "2": 4}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_body_is_an_empty_mapping(text: str) -> None:
    assert read_body(text).values == {}


@pytest.mark.parametrize(
    ("block", "meant"),
    [
        ("|\n  one\n  two\n", "one\ntwo"),
        ("|\n  one\n\n\n", "one"),
        ("|+\n  one\n\n", "one\n"),
        ("|-\n  one\n", "one"),
        (">\n  one\n  two\n", "one two"),
        ("|\n  Ticket #{{ id }}: {{ text }}\n  Team:\n", "Ticket #{{ id }}: {{ text }}\nTeam:"),
    ],
)
def test_a_block_loses_exactly_its_one_final_newline(block: str, meant: str) -> None:
    assert read_body(f"prompt: {block}").values == {"prompt": meant}


def test_keys_are_text_whatever_they_look_like() -> None:
    assert read_body("1: a\nyes: b\nnull: c\n").values == {"1": "a", "yes": "b", "null": "c"}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("r: 1\nr: 2\n", 3, "'r' is given twice"),
        ("a: {b: 1, b: 2}\n", 2, "'b' is given twice"),
        ("prompt: Ticket #{{ id }}\n", 2, "would be taken for a comment"),
        ("r: 1\ncompletion: yes # the answer\n", 3, "would be taken for a comment"),
        ("system: Be brief. #1\n", 2, "would be taken for a comment"),
        ("prompt: one\n  two\n", 2, "line breaks would be lost"),
        ("r: 1\nprompt: {{ text }}\n", 3, "{{ stands without quotes"),
        ("prompt: Ticket {{ text }}\n", 2, "{{ stands without quotes"),
        ("prompt: Ticket: {{ text }}\n", 2, "{{ stands without quotes"),
        ("prompt: {{ a }} and {{ b }}\n", 2, "{{ stands without quotes"),
        ("a: [x, {{ b }}]\n", 2, "{{ stands without quotes"),
        ("a: 1\n---\nb: 2\n", 3, "second document"),
        ("a: !!str 1\n", 2, "begins a tag"),
        ("a: !x {b: 1}\n", 2, "begins a tag"),
        ("a: &q 1\n", 2, "begins an anchor"),
        ("a: &q 1\nb: *q\n", 3, "begins an alias"),
        ("a: *hello*\n", 2, "begins an alias"),
        ("<<: {a: 1}\n", 2, "merge keys"),
        ("? [a]\n: b\n", 2, "one word"),
        (": b\n", 2, "a key is missing"),
        ("%YAML 1.1\n---\na: 1\n", 3, "is not understood"),
        ("just words\n", 2, "only the text"),
        ("a: 1\nfoo\n", 3, "not `key: value`"),
        ("a: b: c\n", 2, "a second ':'"),
        ("r: 1\n\tlr: 2\n", 3, "a tab"),
        ("a: 1\nb: 'x\nc: 2\n", 3, "never closed"),
        ("r: 1\na: [1, 2\nb: 3\n", 3, "not closed"),
        ("a: @x\n", 2, "cannot begin with this sign"),
        ("- a\nb: 1\n", 3, "does not fit the lines above"),
        ('a: "\\q"\n', 2, "no known escape"),
        ("r: 1\na: \x07\n", 3, "control character"),
        ("%finetune lora\n", 2, "not YAML"),
        ("a: " + "[" * 40 + "]" * 40 + "\n", 2, "levels of nesting"),
    ],
)
def test_what_would_be_misread_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_body(text)
    first = caught.value.problems[0]
    found = [problem for problem in caught.value.problems if message in problem.message]
    assert found, caught.value
    assert found[0].line == line, first
    assert found[0].hint
    assert "ruamel" not in str(caught.value)


def test_all_problems_come_at_once_in_the_order_of_lines() -> None:
    with pytest.raises(SpecError, match="3 problems") as caught:
        read_body("r: 1\nprompt: {{ a }}\ncompletion: {{ b }}\nr: 2\n")
    assert [problem.line for problem in caught.value.problems] == [3, 4, 5]


def test_a_quoted_or_block_template_may_hold_anything() -> None:
    body = read_body("prompt: 'Ticket #{{ id }}: x'\ncompletion: \" {{ team }}\" # a comment\n")
    assert body.values == {"prompt": "Ticket #{{ id }}: x", "completion": " {{ team }}"}


@pytest.mark.parametrize("text", ["*.csv", "&x", "#1", "a: b", "~/data.csv", "Qwen/Qwen3-0.6B", "C:\\data\\x.csv"])
def test_a_flags_plain_word_is_text_as_typed(text: str) -> None:
    assert read_value(text) == text


@pytest.mark.parametrize("text", ["[1, 2", "{a: 1", "'x", "{{ text }}", "[1] 2", "{a: 1, a: 2}"])
def test_a_flags_broken_value_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        read_value(text)


@pytest.mark.parametrize(
    "values",
    [
        {"r": 16, "learning_rate": 2e-4, "rate": 1e-05, "big": 1e16, "packing": True, "dtype": None},
        {"target_modules": ["q_proj", "v_proj"], "split": {"dev": 0.1, "seed": 3}, "deep": [{"a": [1, "x, y", None]}]},
        {"prompt": "Which team?\nTicket: {{ text }}\n\nTeam:", "completion": " {{ team }}"},
        {"a": "", "b": " x ", "c": "yes", "d": "12", "e": "1e-3", "f": "null", "g": "true", "h": "a: b", "i": "x #y", "j": "x:"},
        {
            "a": "line\n",
            "b": "\nline",
            "c": "a\n  b",
            "d": "a \nb",
            "e": "tab\there",
            "f": "nul\x00",
            "g": "😀 “q”",
            "h": "\u2028",
            "i": "\r\n",
        },
        {
            "a": "'",
            "b": '"',
            "c": "\\n",
            "d": "---",
            "e": "- x",
            "f": "? x",
            "g": "*x",
            "h": "&x",
            "i": "!x",
            "j": "%x",
            "k": "@x",
            "l": "`x",
        },
        {"a": ".inf", "b": math.inf, "c": -math.inf, "d": "0x10", "e": "<<", "f": "=", "g": "<b>&amp;</b>", "h": "...", "i": "012"},
        {"odd key": 1, "a: b": 2, "": 3, "#x": 4, "12": 5, "null": 6, "{{ x }}": 7},
        {"nested": {"a: b": "{x}", "c,d": "[y]", "": "", "e": {}, "f": []}},
    ],
)
def test_what_is_written_reads_back_as_the_same(values: dict[str, Any]) -> None:
    assert read_body(write_body(values)).values == values


def test_written_bodies_look_like_a_person_wrote_them() -> None:
    text = write_body({"r": 16, "learning_rate": 2e-4, "model": "smollm2-135m", "prompt": "One {{ a }}\nTwo", "target_modules": ["q", "v"]})
    assert text == "r: 16\nlearning_rate: 0.0002\nmodel: smollm2-135m\nprompt: |\n  One {{ a }}\n  Two\ntarget_modules: [q, v]\n"
