"""The data doctor: each thing it looks for is found where it is, and not where it is not."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

import nbtune
from nbtune.data.batches import collate
from nbtune.data.doctor import Diagnosis, diagnose
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.data.findings import Finding
from nbtune.errors import DataError, NbtuneError, SpecError
from tests.examples import echo_task, ticket_rows, ticket_task
from tests.tiny import tiny_llama

END, BEGIN = "<|end|>", "<|begin|>"
CHAT = "{% for turn in messages %}<|begin|>{{ turn.role }}\n{{ turn.content }}<|end|>\n{% endfor %}<|begin|>assistant\n"
WORDS = ["".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz", k=4 + seed % 6)) for seed in range(500)]


def tokenizer(*, begins: bool = False, end: str | None = END, dropped: str = "", chat: str | None = None) -> PreTrainedTokenizerBase:
    """Byte-level tokens, a token a byte: every length is the number of letters."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator([], trainers.BpeTrainer(special_tokens=[END, BEGIN], initial_alphabet=alphabet, show_progress=False))
    if dropped:
        made.normalizer = normalizers.Replace(dropped, "")
    if begins:
        made.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, made.token_to_id(BEGIN))])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=BEGIN if begins else None, eos_token=end, pad_token=END, chat_template=chat
    )


def different(count: int = 60, **more: Any) -> list[dict[str, Any]]:
    """Rows that have nothing in common, of two labels in turn."""
    rng = random.Random(1)
    return [{"text": " ".join(rng.choices(WORDS, k=6)), "team": ("sales", "support")[number % 2]} | more for number in range(count)]


def task(rows: Any, *, prompt: str = "Ticket: {{ text }}\nTeam:", completion: str = " {{ team }}", **more: Any) -> nbtune.Task:
    return nbtune.Task(**{"data": rows, "prompt": prompt, "completion": completion, "kind": "classification"} | more)


def found(diagnosis: Diagnosis, words: str) -> Finding | None:
    """The one finding that says `words`."""
    matching = [item for item in diagnosis.findings if words in item.what]
    assert len(matching) <= 1
    return matching[0] if matching else None


def seen(diagnosis: Diagnosis, words: str) -> Finding:
    finding = found(diagnosis, words)
    assert finding is not None, [item.what for item in diagnosis.findings]
    return finding


def test_good_rows_have_nothing_to_refuse_and_no_warning() -> None:
    diagnosis = diagnose(task(different()), tokenizer())
    assert (diagnosis.refusals, diagnosis.warnings) == ((), ())
    diagnosis.refuse()


def test_rows_lengths_and_trained_tokens_are_counted() -> None:
    rows = task(different())
    diagnosis = diagnose(rows, tokenizer())
    assert diagnosis.counts == {"train": len(rows.train), "dev": len(rows.dev), "test": len(rows.test)}
    lengths = sorted(len(item.prompt) + len(item.completion) + 1 for item in rows.train)
    assert (diagnosis.lengths.low, diagnosis.lengths.high) == (lengths[0], lengths[-1])
    assert diagnosis.lengths.median == lengths[len(lengths) // 2]
    assert (diagnosis.trained.low, diagnosis.trained.high) == (len(" sales") + 1, len(" support") + 1)
    assert diagnosis.untrained == 0


def test_the_histogram_counts_each_row_once_in_few_bars_side_by_side() -> None:
    rows = [{"text": "word " * length, "team": ("a", "b")[length % 2]} for length in (1, 2, 3, 5, 8, 13, 40, 100, 200, 333)]
    diagnosis = diagnose(task(rows, split={"test": 0.1, "dev": 0.0}), tokenizer(), max_length=4096)
    bars = diagnosis.histogram
    assert sum(one.count for one in bars) == diagnosis.counts["train"]
    assert 2 < len(bars) <= 16
    assert all(left.high + 1 == right.low for left, right in itertools.pairwise(bars))
    assert bars[0].low <= diagnosis.lengths.low
    assert bars[-1].high >= diagnosis.lengths.high


def test_what_would_be_trained_is_what_encoding_makes() -> None:
    rows, ours = ticket_task(), tokenizer(begins=True)
    expected, cut = encode_rows(Encoder(ours), rows.train, max_length=50)
    diagnosis = diagnose(rows, ours, max_length=50)
    assert list(diagnosis.encoded) == expected
    assert diagnosis.cut_rows == cut > 0


def test_the_mask_marks_the_completion_and_the_end_and_nothing_else() -> None:
    rows = task(different())
    marked = diagnose(rows, tokenizer()).marked
    assert marked[0].row == "train[0]"
    assert "".join(text for text, trained in marked[0].pieces if not trained) == rows.train[0].prompt
    assert "".join(text for text, trained in marked[0].pieces if trained) == rows.train[0].completion + END
    longest = max(rows.train, key=lambda item: len(item.prompt) + len(item.completion))
    assert f"train[{longest.index}]" in [row.row for row in marked]


def test_completions_without_tokens_are_refused() -> None:
    rows = [*different(), *({"text": f"{word} again", "team": "\u200b"} for word in WORDS[:6])]
    diagnosis = diagnose(task(rows, completion="{{ team }}", prompt="{{ text }} "), tokenizer(dropped="\u200b"))
    finding = seen(diagnosis, "the completion has no tokens")
    assert (finding.level, diagnosis.trained.low) == ("refuse", 0)
    assert diagnosis.untrained == len([name for name in finding.rows if name.startswith("train")]) > 0
    assert diagnosis.encoded == ()
    assert found(diagnose(task(rows), tokenizer()), "no tokens") is None


def test_prompts_without_tokens_are_refused() -> None:
    rows = [*different(), {"text": "\u200b", "team": "sales"}, {"text": "\u200b\u200b", "team": "sales"}]
    broken = task(rows, prompt="{{ text }}", split={"dev": 0.1, "test": 0.1})
    assert seen(diagnose(broken, tokenizer(dropped="\u200b")), "the prompt has no tokens").level == "refuse"
    assert found(diagnose(broken, tokenizer()), "no tokens") is None


def test_a_doubled_bos_is_refused_and_a_single_one_is_not() -> None:
    doubled = diagnose(task(different(), prompt=BEGIN + "{{ text }}:"), tokenizer(begins=True))
    finding = seen(doubled, "begin with two BOS tokens")
    assert finding.level == "refuse"
    assert BEGIN in finding.fix
    assert found(diagnose(task(different()), tokenizer(begins=True)), "BOS") is None
    assert found(diagnose(task(different(), prompt=BEGIN + "{{ text }}:"), tokenizer()), "BOS") is None


def test_a_tokenizer_without_an_end_is_refused() -> None:
    finding = seen(diagnose(task(different()), tokenizer(end=None)), "no end-of-sequence token")
    assert (finding.level, "tokenizer.eos_token" in finding.fix) == ("refuse", True)
    assert found(diagnose(task(different()), tokenizer()), "no end-of-sequence token") is None


def test_a_completion_that_does_not_fit_is_refused_and_never_cut() -> None:
    rows = [*different(), {"text": "x", "team": "sales" * 10}, {"text": "y", "team": "sales" * 10}]
    long = task({"train": rows, "test": [{"text": "unseen", "team": "sales"}]})
    diagnosis = diagnose(long, tokenizer(), max_length=51)
    finding = seen(diagnosis, "a completion that alone has up to 51 tokens, and max_length is 51")
    assert finding.level == "refuse"
    assert set(finding.rows) == {f"{item.split}[{item.index}]" for item in (*long.train, *long.dev) if len(item.completion) > 50}
    assert "set max_length to" in finding.fix
    assert found(diagnose(long, tokenizer(), max_length=512), "alone has") is None


def test_what_is_cut_from_prompts_is_counted_with_the_length_that_is_needed() -> None:
    rows = task(different())
    lengths = [len(item.prompt) + len(item.completion) + 1 for item in rows.train]
    limit = sorted(lengths)[len(lengths) // 2]
    diagnosis = diagnose(rows, tokenizer(), max_length=limit)
    assert diagnosis.cut_rows == sum(length > limit for length in lengths) > 0
    assert diagnosis.cut_tokens == sum(max(0, length - limit) for length in lengths)
    needed = max(len(item.prompt) + len(item.completion) + 1 for item in (*rows.train, *rows.dev))
    finding = seen(diagnosis, "the beginning of the prompt")
    assert (finding.level, finding.fix) == ("warn", f"set max_length to {needed} or more")
    for item, encoded in zip(rows.train, diagnosis.encoded, strict=True):
        assert encoded.num_trained == len(item.completion) + 1
    assert diagnose(rows, tokenizer(), max_length=needed).warnings == ()
    assert diagnose(rows, tokenizer(), max_length=100_000).findings == diagnose(rows, tokenizer(), max_length=needed).findings


def test_the_models_own_limit_holds_and_is_said() -> None:
    rows = task(different())
    diagnosis = diagnose(rows, tokenizer(), max_length=512, context=40)
    assert diagnosis.max_length == 40
    assert seen(diagnosis, "max_length 512 is more than the model reads").level == "info"
    assert "the model reads at most 40" in seen(diagnosis, "the beginning of the prompt").fix
    assert found(diagnose(rows, tokenizer(), max_length=40, context=512), "more than the model reads") is None


def test_an_end_inside_a_prompt_is_found_but_not_the_chat_templates_own() -> None:
    rows = [*different(), {"text": f"one text{END}another one", "team": "sales"}]
    split = {"dev": 0.0, "test": 0.1, "seed": 3}
    for chat in (False, True):
        ours = tokenizer(chat=CHAT if chat else None)
        finding = seen(diagnose(task(rows, chat=chat, split=split), ours), "inside the prompt")
        assert (finding.level, len(finding.rows)) == ("warn", 1)
        assert found(diagnose(task(different(), chat=chat), ours), "inside the prompt") is None


def test_an_end_inside_a_completion_is_found() -> None:
    finding = seen(diagnose(task(different(), completion=" {{ team }}" + END), tokenizer()), "inside the completion")
    assert (finding.level, END in finding.fix) == ("warn", True)
    assert found(diagnose(task(different()), tokenizer()), "inside the completion") is None


@pytest.mark.parametrize(
    ("prompt", "completion", "glued"),
    [
        ("{{ text }} Team:", "{{ team }}", True),
        ("{{ text }} ->", "{{ team }}", True),
        ("{{ text }}", "{{ team }}", True),
        ("{{ text }} Team:", " {{ team }}", False),
        ("{{ text }} Team:\n", "{{ team }}", False),
        ('{{ text }} {"team": "', "{{ team }}", False),
        ("{{ text }} Team:", '"{{ team }}"', False),
        ("{{ text }} 团队", "团{{ team }}", False),
    ],
)
def test_a_completion_glued_to_its_prompt_is_found(prompt: str, completion: str, glued: bool) -> None:
    diagnosis = diagnose(task(different(), prompt=prompt, completion=completion), tokenizer())
    finding = found(diagnosis, "no space between prompt and completion")
    assert (finding is not None) == glued
    assert finding is None or (finding.level, 'completion: " {{' in finding.fix) == ("warn", True)


def test_a_chat_template_keeps_prompt_and_completion_apart() -> None:
    chatted = diagnose(task(different(), completion="{{ team }}", chat=True), tokenizer(chat=CHAT))
    assert chatted.warnings == ()


def test_a_space_at_the_end_of_the_prompt_is_found_unless_the_completion_has_one_too() -> None:
    words = "a prompt that ends with a space"
    assert seen(diagnose(task(different(), prompt="{{ text }}: ", completion="{{ team }}"), tokenizer()), words).level == "warn"
    assert found(diagnose(task(different(), prompt="{{ text }}: "), tokenizer()), words) is None


def test_padding_by_the_end_is_told_and_each_row_still_learns_its_own_end() -> None:
    ours = tokenizer()
    diagnosis = diagnose(task(different()), ours)
    assert seen(diagnosis, "padding and end of sequence are the same token").level == "info"
    batch = collate(diagnosis.encoded[:5], packed=False, pad_id=ours.pad_token_id)
    assert int((batch.input_ids == ours.eos_token_id).sum()) > 5
    assert int((batch.targets == ours.eos_token_id).sum()) == 5
    ours.pad_token = BEGIN
    assert found(diagnose(task(different()), ours), "the same token") is None


def test_train_rows_that_repeat_are_counted() -> None:
    rows, test = different(), different(70)[60:]
    again = [{**row, "text": row["text"].upper() + "  "} for row in rows[:9]]
    doubled = task({"train": [*rows, *again], "test": test}, split={"dev": 0.0})
    finding = seen(diagnose(doubled, tokenizer()), "9 of 69 train rows repeat another one")
    assert (finding.level, finding.rows) == ("warn", tuple(f"train[{number}]" for number in range(60, 69)))
    once = task({"train": [*rows, again[0]], "test": test}, split={"dev": 0.0})
    assert seen(diagnose(once, tokenizer()), "1 of 61 train rows repeats").level == "info"
    assert found(diagnose(task({"train": rows, "test": test}), tokenizer()), "repeat") is None


def test_train_rows_that_nearly_equal_each_other_are_found_where_they_are_looked_for() -> None:
    long = [{"text": " ".join(random.Random(seed).choices(WORDS, k=20)), "team": ("sales", "support")[seed % 2]} for seed in range(60)]
    near = [{**row, "text": row["text"] + " x"} for row in long[:10]]
    alike = task({"train": [*long, *near], "test": different(4)}, split={"dev": 0.0})
    finding = seen(diagnose(alike, tokenizer()), "20 of 70 train rows nearly equal another one")
    assert (finding.level, finding.rows) == ("warn", tuple(f"train[{number}]" for number in (*range(10), *range(60, 70))))
    few = task({"train": [*long, near[0]], "test": different(4)}, split={"dev": 0.0})
    assert seen(diagnose(few, tokenizer()), "2 of 61 train rows nearly equal").level == "info"
    assert found(diagnose(alike, tokenizer(), near=False), "nearly equal") is None
    assert found(diagnose(task(long), tokenizer()), "nearly equal") is None


def test_test_prompts_in_train_are_refused_and_near_ones_warned_of() -> None:
    rows = different(80)
    apart = task({"train": rows[:60], "test": rows[60:]})
    assert found(diagnose(apart, tokenizer()), "test prompts") is None
    near = task({"train": rows[:60], "test": [*rows[60:], {**rows[0], "text": rows[0]["text"].title()}]})
    assert seen(diagnose(near, tokenizer()), "1 of 21 test prompts nearly equals").level == "warn"
    apart.test = (*apart.test, replace(apart.train[0], split="test", index=20))
    finding = seen(diagnose(apart, tokenizer()), "1 of 21 test prompts stands in train too")
    assert (finding.level, finding.rows) == ("refuse", ("test[20]",))


def test_contradicting_labels_are_named_with_their_rows() -> None:
    rows = different()
    torn = {**rows[4], "text": rows[4]["text"].upper(), "team": "support"}
    assert rows[4]["team"] == "sales"
    diagnosis = diagnose(task({"train": [*rows, torn], "test": different(70)[60:]}, split={"dev": 0.0}), tokenizer())
    finding = seen(diagnosis, "1 prompt has contradicting labels")
    assert (finding.level, finding.rows) == ("warn", ("train[4]", "train[60]"))
    assert "'sales' in train[4] and 'support' in train[60]" in finding.what
    assert found(diagnose(task(rows), tokenizer()), "contradicting") is None


def test_several_answers_to_one_prompt_are_no_contradiction_where_text_is_written() -> None:
    rows = [{"text": row["text"], "word": f"{WORDS[number]} {number}"} for number, row in enumerate(different())]
    rows.append({**rows[0], "word": "another"})
    written = task(rows, kind="generation", completion=" {{ word }}", split={"dev": 0.0, "test": 0.1})
    assert seen(diagnose(written, tokenizer()), "1 prompt has different answers").level == "info"


def test_labels_that_a_column_gives_away_are_found() -> None:
    told = [{**row, "text": f"{row['text']} [{row['team'].upper()}]"} for row in different()]
    finding = seen(diagnose(task(told), tokenizer()), "the prompt gives the label away")
    assert finding.level == "warn"
    assert "'sales', 'support'" in finding.what
    read = diagnose(task(different(), prompt="{{ text }} {{ team }} Team:"), tokenizer())
    assert "take it out of the prompt" in seen(read, "gives the label away").fix


def test_labels_that_the_template_lists_or_every_row_holds_give_nothing_away() -> None:
    listed = task(different(), prompt="sales or support?\n{{ text }}\nTeam:")
    every = task([{**row, "text": f"{row['text']} sales or support?"} for row in different()])
    inside = task([{**row, "text": f"{row['text']} {row['team']}ing"} for row in different()])
    for rows in (listed, every, inside):
        assert found(diagnose(rows, tokenizer()), "gives the label away") is None


def test_answers_that_stand_in_the_prompt_are_told_and_warned_of_where_the_same_column_is_read() -> None:
    assert seen(diagnose(echo_task(), tokenizer()), "the answer stands word for word").level == "info"
    copied = echo_task(prompt="Ticket: {{ text }} {{ word }}\nWord:")
    finding = seen(diagnose(copied, tokenizer()), "the answer stands word for word")
    assert (finding.level, "{{ word }}" in finding.fix) == ("warn", True)
    rows = [{"text": row["text"], "word": WORDS[400 - number]} for number, row in enumerate(different())]
    assert found(diagnose(echo_task(data=rows), tokenizer()), "word for word") is None


def test_labels_out_of_balance_and_labels_of_few_rows_are_found() -> None:
    rows = [{**row, "team": "sales" if number else "support"} for number, row in enumerate(different(120))]
    few = task(rows, split={"dev": 0.0, "test": 0.1})
    diagnosis = diagnose(few, tokenizer())
    assert "'support' (1)" in seen(diagnosis, "1 label has fewer than 5 train rows").what
    assert "macro_f1" in seen(diagnosis, "out of balance").fix
    assert list(diagnosis.labels) == ["sales", "support"]
    nine = [{**row, "team": "sales" if number % 10 else "support"} for number, row in enumerate(different(120))]
    enough = diagnose(task(nine), tokenizer())
    assert (found(enough, "out of balance"), found(enough, "fewer than 5")) == (None, None)


def test_everything_to_refuse_is_told_in_one_error() -> None:
    broken = task(different(), prompt=BEGIN + "{{ text }}:")
    with pytest.raises(DataError, match="begin with two BOS tokens") as one:
        diagnose(broken, tokenizer(begins=True)).refuse()
    assert len(str(one.value).split("\n")) == 2
    with pytest.raises(DataError, match="2 things") as two:
        diagnose(broken, tokenizer(begins=True, end=None)).refuse()
    assert "two BOS tokens" in str(two.value)
    assert "no end-of-sequence token" in str(two.value)


def test_warnings_are_told_briefly_to_a_run() -> None:
    rows = [{**row, "text": f"{row['text']} {row['team']}{END}"} for row in different(40)]
    diagnosis = diagnose(task([*rows, *rows], completion="{{ team }}" + END), tokenizer(), max_length=40)
    assert len(diagnosis.warnings) > 4
    assert len(diagnosis.briefly()) == 4
    assert "%doctor" in diagnosis.briefly()[-1]
    assert diagnose(task(different()), tokenizer()).briefly() == []


def test_the_models_weights_are_not_read(tmp_path: Any) -> None:
    folder = tiny_llama(tmp_path / "tiny")
    for file in folder.glob("*.safetensors"):
        file.unlink()
    diagnosis = nbtune.doctor(ticket_task(), model=folder, max_length=2048)
    assert (diagnosis.refusals, diagnosis.max_length) == ((), 512)
    with pytest.raises(SpecError, match="max_length must be at least 8"):
        nbtune.doctor(ticket_task(), model=folder, max_length=2)
    with pytest.raises(SpecError, match=r"task is a nbtune\.Task"):
        nbtune.doctor(ticket_rows(), model=folder)  # type: ignore[arg-type]
    with pytest.raises(NbtuneError, match="there is no model"):
        nbtune.doctor(ticket_task(), model="nothing")
