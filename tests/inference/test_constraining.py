"""An answer that has to keep a form keeps it, whatever the model would rather say; the rest of decoding is as it was."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import nbtune
from nbtune.data.encoding import Encoder
from nbtune.errors import SpecError
from nbtune.inference import Decoding, Engine
from nbtune.inference.constraining import Constraint
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from tests.examples import echo_task
from tests.tiny import tiny_llama, tiny_seq2seq

PROMPTS = [f"Ticket: {'the parcel never came ' * n}number {n}\nTeam:" for n in range(1, 6)]
CHOICES = ("billing", "shipping department", 'a "quoted" one', "日本")
SCHEMA = {
    "type": "object",
    "properties": {
        "team": {"enum": ["billing", "shipping"]},
        "urgent": {"type": "boolean"},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["team", "urgent", "days"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    return Engine(base, Encoder(base.tokenizer))


def held(engine: Engine, prompts: list[str] = PROMPTS, **form: Any) -> list[str]:
    return engine.generate(prompts, Decoding(60, constraint=Constraint.of(**form)))


def test_an_answer_is_one_of_the_choices_whatever_their_letters(engine: Engine) -> None:
    assert not set(map(str.strip, engine.generate(PROMPTS, Decoding(8)))) & set(CHOICES), "it would rather say something else"
    assert set(map(str.strip, held(engine, choices=CHOICES))) <= set(CHOICES)
    assert set(map(str.strip, held(engine, choices=("billing",)))) == {"billing"}


def test_an_answer_is_json_that_keeps_the_schema(engine: Engine) -> None:
    for text in held(engine, json_schema=SCHEMA):
        said = json.loads(text)
        assert set(said) == {"team", "urgent", "days"}
        assert said["team"] in ("billing", "shipping")
        assert isinstance(said["urgent"], bool)
        assert 1 <= said["days"] <= 9


@pytest.mark.parametrize("regex", [r"\d{4}-\d\d-\d\d", r"a/b(/c)?", r"a\/b\\/", r"[ß-ÿ]{3}"])
def test_an_answer_matches_the_regular_expression_wholly(engine: Engine, regex: str) -> None:
    for text in held(engine, regex=regex):
        assert re.fullmatch(regex, text.strip())


def test_a_stop_text_ends_a_row_within_its_form_and_leaves_the_others(engine: Engine) -> None:
    form = Constraint.of(choices=("one; two", "three four five six"))
    texts = engine.generate(PROMPTS, Decoding(60, stop=(";",), constraint=form))
    assert set(map(str.strip, texts)) <= {"one", "three four five six"}


def test_rows_of_a_batch_are_held_each_by_itself_and_answer_as_they_do_alone(engine: Engine) -> None:
    together = held(engine, choices=CHOICES)
    assert together == [held(engine, [prompt], choices=CHOICES)[0] for prompt in PROMPTS]


def test_the_likeliest_of_the_answers_that_are_left_is_written_step_by_step(engine: Engine) -> None:
    (free,) = engine.generate(PROMPTS[:1], Decoding(4))
    assert held(engine, PROMPTS[:1], regex=f"{re.escape(free.strip())}|9{{40}}")[0].strip() == free.strip()


def test_what_reads_with_an_encoder_is_held_as_well(tmp_path: Path) -> None:
    base = own_base(source_of(tiny_seq2seq("t5", tmp_path / "t5")), dtype="float32", quantization=None, device="cpu")
    from nbtune.models.families import answering

    engine = Engine(base, Encoder(base.tokenizer, reading=answering(base.config)))
    assert set(map(str.strip, held(engine, choices=("billing", "x")))) <= {"billing", "x"}


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"choices": ["a"], "regex": "a"}, "choices and regex, and an answer has one form"),
        ({"choices": ["a", " "]}, "an answer has to be one of them"),
        ({"choices": []}, "an answer has to be one of them"),
        ({"regex": "(["}, "regex of decoding cannot be followed.*unclosed"),
        ({"json_schema": {"type": "objekt"}}, "json_schema of decoding cannot be followed.*objekt"),
    ],
)
def test_a_form_that_cannot_be_followed_is_refused_before_anything_is_loaded(form: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as raised:
        nbtune.compare(["zero-shot"], task=echo_task(), model="no/such-model", decoding=form)
    assert raised.value.hint


def test_a_grid_holds_all_its_columns_to_one_form_says_so_and_keeps_answers_of_another_form_apart(folder: Path) -> None:
    task, asked = echo_task(), ["zero-shot", {"few-shot": {"k": 2}}]
    free = nbtune.compare(asked, task=task, model=folder)
    held_to = nbtune.compare(asked, task=task, model=folder, decoding={"choices": ["parcel", "tent"]})
    assert set(held_to.outputs["output"]) <= {"parcel", "tent"}
    assert not set(free.outputs["output"]) <= {"parcel", "tent"}
    assert any("one of 2 choices" in check for check in held_to.checks)
    again = nbtune.compare(asked, task=task, model=folder)
    assert list(again.outputs["output"]) == list(free.outputs["output"])
