"""Conversations and other layouts of rows: what of them is trained, how they are known, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import nbtune
from nbtune.data.conversations import Conversation
from nbtune.data.doctor import diagnose
from nbtune.data.encoded import Dialogue
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.errors import DataError, NbtuneError, SpecError
from nbtune.models.catalogue import DEFAULT_DECODER
from nbtune.models.loading import source_of
from tests.tiny import tiny_llama

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BRACKETS = (
    "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}<|im_end|>{% else %}[INST] {{ m.content }} [/INST]{% endif %}"
    "{% endfor %}"
)
HEADERS = (
    "{% for m in messages %}<{{ m.role }}>\n{{ m.content | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Whose turns end with another token than the tokenizer's end of sequence, as Gemma's do."""
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""As Qwen3's: thoughts stand before the last answer alone, empty ones where it is not to think."""
FORGETS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('=')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Two and two?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And three\nmore?"},
    {"role": "assistant", "content": "Seven, of course."},
]


def tokenizer(template: str) -> PreTrainedTokenizerBase:
    found = AutoTokenizer.from_pretrained(source_of(DEFAULT_DECODER).where)
    found.chat_template = template
    return found  # type: ignore[no-any-return]


def talks(count: int = 40) -> list[dict[str, Any]]:
    """Short conversations of two answers each."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"Say the number {number}"},
                {"role": "assistant", "content": f"It is {number}."},
                {"role": "user", "content": "and the next"},
                {"role": "assistant", "content": f"That is {number + 1}."},
            ]
        }
        for number in range(count)
    ]


def task(rows: Any = None, **changes: Any) -> nbtune.Task:
    return nbtune.Task(**{"name": "talks", "data": talks() if rows is None else rows, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny_llama(tmp_path_factory.mktemp("tiny"))
    found = AutoTokenizer.from_pretrained(path)
    found.chat_template = HEADERS
    found.save_pretrained(path)
    return path


def dialogue(template: str, turns: list[dict[str, Any]]) -> Dialogue:
    row = Encoder(tokenizer(template), chat=True).whole(Conversation.of(turns[:-1]), turns[-1]["content"])
    assert isinstance(row, Dialogue)
    return row


@pytest.mark.parametrize(
    ("template", "pieces"),
    [
        (
            CHATML,
            [
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nTwo and two?<|im_end|>\n<|im_start|>assistant\n",
                "Four.<|im_end|>",
                "\n<|im_start|>user\nAnd three\nmore?<|im_end|>\n<|im_start|>assistant\n",
                "Seven, of course.<|im_end|>",
            ],
        ),
        (
            BRACKETS,
            [
                "[INST] Be brief. [/INST][INST] Two and two? [/INST]",
                " Four.<|im_end|>",
                "[INST] And three\nmore? [/INST]",
                "Seven, of course.<|im_end|>",
            ],
        ),
        (
            HEADERS,
            [
                "<system>\nBe brief.<|im_end|>\n<user>\nTwo and two?<|im_end|>\n<assistant>\n",
                "Four.<|im_end|>",
                "\n<user>\nAnd three\nmore?<|im_end|>\n<assistant>\n",
                "Seven, of course.<|im_end|>",
            ],
        ),
        (
            TURNS,
            [
                "<|im_start|>system\nBe brief.<|endoftext|>\n<|im_start|>user\nTwo and two?<|endoftext|>\n<|im_start|>assistant\n",
                "Four.<|endoftext|>",
                "\n<|im_start|>user\nAnd three\nmore?<|endoftext|>\n<|im_start|>assistant\n",
                "Seven, of course.<|endoftext|>",
            ],
        ),
        (
            THINKS,
            [
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nTwo and two?<|im_end|>\n<|im_start|>assistant\n",
                "Four.<|im_end|>",
                "\n<|im_start|>user\nAnd three\nmore?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
                "Seven, of course.<|im_end|>",
            ],
        ),
    ],
    ids=["chatml", "brackets", "headers", "turns", "thinks"],
)
def test_what_the_assistant_says_is_trained_and_nothing_else(template: str, pieces: list[str]) -> None:
    row, known = dialogue(template, TALK), tokenizer(template)
    ids = [known(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
    assert list(row.ids) == [token for part in ids for token in part]
    mask = [number % 2 for number, part in enumerate(ids) for _ in part]
    assert [int(row.trains(place)) for place in range(len(row.ids))] == mask
    assert list(row.targets) == [*ids[1], *ids[3]]
    assert row.num_trained == len(row.reads) == sum(mask)
    assert [row.ids[place + 1] for place in row.reads] == list(row.targets)


def test_the_mask_is_transformers_own_where_a_template_marks_its_answers() -> None:
    marked = CHATML.replace(
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n",
        "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\\n' }}",
    )
    said = tokenizer(marked).apply_chat_template(TALK, return_assistant_tokens_mask=True, return_dict=True)
    row = dialogue(CHATML, TALK)
    own = [int(row.trains(place)) for place in range(len(row.ids))]
    assert list(row.ids) == said["input_ids"][: len(row.ids)]
    assert own == said["assistant_masks"][: len(own)]
    assert not any(said["assistant_masks"][len(own) :])


def test_a_template_that_rewrites_earlier_answers_trains_the_last_alone() -> None:
    turns = [*TALK[:2], {"role": "assistant", "content": "two and two=Four."}, *TALK[3:]]
    known = tokenizer(FORGETS)
    assert list(dialogue(FORGETS, turns).targets) == known("Seven, of course.<|im_end|>", add_special_tokens=False)["input_ids"]


def test_a_template_whose_turns_end_with_plain_text_is_closed_by_the_end_of_sequence_and_refused_without_one() -> None:
    plain = tokenizer(
        "{% for m in messages %}{{ m.role }}: {{ m.content }} ###\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    encoder = Encoder(plain, chat=True)
    marks = plain("###", add_special_tokens=False)["input_ids"]
    assert list(encoder.closing) == [*marks, plain.eos_token_id]
    assert encoder.stops == (plain.eos_token_id,), "no word of a text ends it"
    plain.eos_token = None
    with pytest.raises(DataError, match="could not learn to stop"):
        Encoder(plain, chat=True).row("one", "two", max_length=99)


def test_that_earlier_answers_are_not_trained_is_told() -> None:
    for template, said in ((FORGETS, "=It is"), (FORGETS, "It is"), (THINKS, "=It is")):
        rows = [{"messages": [{**turn, "content": turn["content"].replace("It is", said)} for turn in row["messages"]]} for row in talks()]
        found = diagnose(task(rows), tokenizer(template))
        told = [item.text for item in found.warnings if "the last answer alone is trained" in item.text]
        assert len(told) == (template == FORGETS and said == "=It is")


def test_a_conversation_that_the_assistant_begins_is_read_and_its_first_words_are_not_trained() -> None:
    turns = [{"role": "assistant", "content": "Hello, what is it?"}, *TALK[1:]]
    row, known = dialogue(CHATML, turns), tokenizer(CHATML)
    assert known.decode(row.ids[:8]).startswith("<|im_start|>assistant\nHello")
    trained = [known(text, add_special_tokens=False)["input_ids"] for text in ("Four.<|im_end|>", "Seven, of course.<|im_end|>")]
    assert list(row.targets) == [token for part in trained for token in part]


def test_a_turn_of_weight_0_is_read_and_not_trained() -> None:
    turns = [*TALK[:2], {**TALK[2], "weight": 0}, *TALK[3:]]
    assert list(dialogue(CHATML, turns).targets) == tokenizer(CHATML)("Seven, of course.<|im_end|>", add_special_tokens=False)["input_ids"]
    assert dialogue(CHATML, turns).ids == dialogue(CHATML, TALK).ids


def test_a_long_conversation_loses_its_first_turns_and_that_is_counted(folder: Path) -> None:
    row = Dialogue((9, *range(20, 40)), 18, (4, 5, 10, 11, 18, 19, 20))
    cut = row.cut(12, bos=9)
    assert (cut.ids, cut.start) == ((9, *range(29, 40)), 9)
    assert isinstance(cut, Dialogue)
    assert [row.ids[place] for place in (11, 18, 19, 20)] == list(cut.targets)
    assert row.cut(21, bos=9) is row
    assert row.behind((1, 2)).trained == (6, 7, 12, 13, 20, 21, 22)
    found = nbtune.doctor(task(), model=folder, max_length=40)
    assert any("of them earlier answers that would be trained" in item.text for item in found.warnings)
    assert not found.refusals


def test_a_run_learns_from_conversations_and_answers_them(folder: Path, tmp_path: Path) -> None:
    known = task()
    assert (known.kind, known.metric.name, known.uses_chat) == ("generation", "rougeL", True)
    run = nbtune.finetune("lora", task=known, model=folder, dtype="float32", max_steps=4, learning_rate=1e-2, num_samples=1).wait()
    rows, _ = encode_rows(Encoder(AutoTokenizer.from_pretrained(folder), chat=True), known.train, max_length=512)
    assert all(len(row.targets) > len(row.ids) - row.start for row in rows)  # more than the last answer
    outputs = run.predict([item.row for item in known.test])
    assert outputs == run.predict([{"messages": item.row["messages"][:-1]} for item in known.test])
    assert len(run.predict(["Say the number 7"])) == 1
    comparison = nbtune.compare(["zero-shot", {"few-shot": {"k": 2}}, run], task=known)
    tuned = comparison.outputs[comparison.outputs["approach"] == f"run: {run.name}"].sort_values("row")
    assert list(tuned["output"]) == outputs
    tokens = comparison.table.set_index("approach")["prompt_tokens"]
    assert tokens["few-shot: k=2"] > 2 * tokens["zero-shot"]
    known.save(tmp_path / "task")
    again = nbtune.Task.open(tmp_path / "task")
    assert again.fingerprint == known.fingerprint
    assert [item.prompt.turns for item in again.train] == [item.prompt.turns for item in known.train]  # type: ignore[attr-defined]
    assert nbtune.open(run.folder).predict([item.row for item in known.test][:2]) == outputs[:2]


SHAREGPT = {"conversations": [{"from": "human", "value": "Hi {}"}, {"from": "gpt", "value": "Hello {}"}]}
ALPACA = {"instruction": "Name it {}", "input": "a thing", "output": "It {}"}
LAYOUTS: list[tuple[dict[str, Any], str, str, str, str]] = [
    (
        {"messages": [{"role": "user", "content": "Hi {}"}, {"role": "assistant", "content": "Hello {}"}]},
        "messages",
        "generation",
        "user: Hi 0",
        "Hello 0",
    ),
    (SHAREGPT, "messages", "generation", "user: Hi 0", "Hello 0"),
    (
        {"prompt": [{"role": "user", "content": "Hi {}"}], "completion": [{"role": "assistant", "content": "Hello {}"}]},
        "messages",
        "generation",
        "user: Hi 0",
        "Hello 0",
    ),
    (ALPACA, "alpaca", "generation", "Name it 0\n\na thing\n\n", "It 0"),
    ({**ALPACA, "input": ""}, "alpaca", "generation", "Name it 0\n\n", "It 0"),
    ({**SHAREGPT, "system": "Bot {}"}, "messages", "generation", "system: Bot 0\n\nuser: Hi 0", "Hello 0"),
    ({**SHAREGPT, "system": " "}, "messages", "generation", "user: Hi 0", "Hello 0"),
    (
        {"conversations": [{"from": "system", "value": "Own"}, *SHAREGPT["conversations"]], "system": "Bot {}"},
        "messages",
        "generation",
        "system: Own\n\nuser: Hi 0",
        "Hello 0",
    ),
    (
        {"conversations": [{"from": "gpt", "value": "Welcome"}, *SHAREGPT["conversations"]]},
        "messages",
        "generation",
        "assistant: Welcome\n\nuser: Hi 0",
        "Hello 0",
    ),
    ({**ALPACA, "system": "Bot {}"}, "messages", "generation", "system: Bot 0\n\nuser: Name it 0\n\na thing", "It 0"),
    (
        {**ALPACA, "input": "", "history": [["Who {}", "I {}"]]},
        "messages",
        "generation",
        "user: Who 0\n\nassistant: I 0\n\nuser: Name it 0",
        "It 0",
    ),
    ({**ALPACA, "system": None, "history": []}, "alpaca", "generation", "Name it 0\n\na thing\n\n", "It 0"),
    ({"instruction": "Name {}", "context": "a thing", "output": "It {}"}, "alpaca", "generation", "Name 0\n\na thing\n\n", "It 0"),
    ({**ALPACA, "context": "here"}, "alpaca", "generation", "Name it 0\n\na thing\n\nhere\n\n", "It 0"),
    ({"prompt": "Q {}", "completion": " A {}"}, "prompt-completion", "generation", "Q 0", " A 0"),
    ({"tokens": ["No", "N{}"], "tags": ["O", "B-NUM"]}, "tagging", "tagging", "No N0", "O B-NUM"),
    ({"text": "A text, number {}"}, "text", "text", "A text, number 0", ""),
]


@pytest.mark.parametrize(("row", "said"), [(row, said) for row, *said in LAYOUTS], ids=[f"{n}-{k}" for n, (_, k, *_) in enumerate(LAYOUTS)])
def test_a_layout_is_known_by_its_columns_and_shown(row: dict[str, Any], said: tuple[str, ...], tmp_path: Path) -> None:
    name, kind, prompt, completion = said
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row).replace("{}", str(number)) for number in range(20)))
    held = {
        part: [json.loads(json.dumps(row).replace("{}", words))] for part, words in (("dev", "for-a-look"), ("test", "nobody-has-counted"))
    }
    found = nbtune.Task(name="t", data={"train": str(path), **held})
    first = found.train[0]
    assert (found.kind, str(first.prompt), first.completion) == (kind, prompt, completion)
    assert found.notes[0].startswith(f"format: {name}, by the columns")


def test_a_layout_can_be_named_where_the_columns_show_another() -> None:
    rows = [{**ALPACA, "text": f"A text, number {number}", "instruction": f"Name {number}"} for number in range(20)]
    assert nbtune.Task(name="t", data=rows, kind="generation").train[0].prompt.startswith("Name")
    assert nbtune.Task(name="t", data=rows, format="text").kind == "text"


def test_columns_that_a_layout_leaves_out_are_named_and_the_others_are_not() -> None:
    rows = [{**ALPACA, "instruction": f"Name {number}", "source": "web", "rating": 5} for number in range(20)]
    columns = "format: alpaca, by the columns instruction, input, output"
    assert nbtune.Task(name="t", data=rows).notes[0] == f"{columns}, source, rating; not read: source, rating"
    assert task().notes[0] == "format: messages, by the columns messages"


def test_a_new_row_says_its_system_text_and_its_history_in_columns_too() -> None:
    said = {"instruction": "And you?", "history": [["Who is it?", "I"]], "system": "Be brief."}
    assert str(task().render(said)) == "system: Be brief.\n\nuser: Who is it?\n\nassistant: I\n\nuser: And you?"
    assert str(task().render({**SHAREGPT, "system": "Be brief."})) == "system: Be brief.\n\nuser: Hi {}"


def test_a_question_with_several_answers_stays_on_one_side() -> None:
    rng = random.Random(0)

    def words(count: int) -> str:
        return " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(count))

    head = {"role": "system", "content": words(60)}  # what all of them begin with makes none alike
    asked = [[head, {"role": "user", "content": words(8)}] for _ in range(30)]
    found = task([{"messages": [*turns, {"role": "assistant", "content": words(80)}]} for turns in asked for _ in range(2)])
    parts = [{str(item.prompt) for item in part} for part in (found.train, found.dev, found.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 30
    assert (len(found.train), len(found.dev), len(found.test), found.warnings) == (42, 6, 12, ())
    assert not nbtune.doctor(found).refusals


def _bad(*turns: Any) -> dict[str, Any]:
    return {"rows": [*talks(10), {"messages": list(turns)}]}


USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
REFUSED: list[tuple[dict[str, Any], str, type[NbtuneError]]] = [
    (_bad(USER), "row 11: the assistant says nothing", DataError),
    (_bad(ANSWER), "row 11: the assistant answers before anybody asks", DataError),
    (_bad({"role": "usr", "content": "a"}, ANSWER), "row 11, turn 1 is said by 'usr'", DataError),
    (_bad(USER, {"role": "assistant", "content": None}), "row 11, turn 2 has no text: None", DataError),
    (_bad(USER, {"role": "assistant", "content": " "}), "row 11, turn 2: the assistant's answer is empty", DataError),
    (_bad("hello"), "row 11, turn 1 is 'hello'", DataError),
    (_bad(USER, {**ANSWER, "weight": 0}), "row 11: the last answer has weight 0", DataError),
    ({"rows": [{**ALPACA, "history": ["Who?"]}] * 3}, "row 1: the history is \\['Who\\?'\\]", DataError),
    ({"rows": [{**ALPACA, "history": [["Who?", None]]}] * 3}, "row 1, turn 2 has no text: None", DataError),
    ({"rows": [{**row, "system": 5} for row in talks(3)]}, "row 1: system is 5", DataError),
    ({"chat": False}, "rows are conversations, and chat: false is given", SpecError),
    ({"kind": "classification"}, "rows are conversations, and kind: classification is given", SpecError),
    ({"format": "alpaca"}, "format alpaca needs the column instruction, output, and there are messages", DataError),
    (
        {"format": "messages", "prompt": "{{ messages }}", "completion": "x {{ messages }}"},
        "format is messages, and a prompt is given",
        SpecError,
    ),
    ({"completion": "{{ messages }}"}, "prompt is missing", SpecError),
    ({"rows": [{"question": "a", "answer": "b"}] * 3}, "prompt is missing", DataError),
]


@pytest.mark.parametrize(("changes", "message", "kind"), REFUSED, ids=[text[:44] for _, text, _ in REFUSED])
def test_what_is_no_conversation_is_refused_with_its_place(changes: dict[str, Any], message: str, kind: type[NbtuneError]) -> None:
    with pytest.raises(kind, match=message):
        task(**changes)


def test_an_end_that_nobody_answers_is_left_out_and_said() -> None:
    found = task([{"messages": [*row["messages"], USER]} for row in talks(20)])
    assert found.train[0].completion.startswith("That is")
    assert any("20 conversations end without an answer" in text for text in found.notes)


def test_a_model_without_a_chat_template_and_a_template_that_refuses_are_told(tmp_path: Path) -> None:
    plain = tiny_llama(tmp_path / "plain")
    with pytest.raises(DataError, match="has no chat template"):
        nbtune.finetune("lora", task=task(), model=plain).wait()
    strict = tokenizer("{% if messages[0].role == 'system' %}{{ raise_exception('no system turns here') }}{% endif %}" + CHATML)
    with pytest.raises(DataError, match="the chat template refuses a conversation of system, user: no system turns here"):
        Encoder(strict, chat=True).prompt_ids(Conversation.of(TALK[:2]))


def test_the_doctor_marks_every_answer_and_nothing_between(folder: Path) -> None:
    text = nbtune.doctor(task(), model=folder)._repr_mimebundle_()["text/plain"]
    assert "⟦It is 0." in text
    assert text.count("⟦") == text.count("⟧") == 2 * len(nbtune.doctor(task(), model=folder).marked)
