"""The loss equals a plain one by hand, packed or padded, split or whole."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from nbtune.data.batches import collate, micro_batches, rows_of_step, steps_in
from nbtune.data.doctor import diagnose
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.errors import DataError
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from nbtune.objectives import get
from tests.examples import ticket_task


@pytest.mark.parametrize("packed", [True, False])
def test_the_loss_is_that_of_the_answers_tokens_and_the_end_alone(folder: Path, packed: bool) -> None:
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    task = ticket_task(30)
    rows, cut = encode_rows(Encoder(base.tokenizer), task.train[:6], max_length=256)
    assert cut == 0
    with base.lease() as model:
        total, weight = get("sft").loss(model, collate(rows, packed=packed, pad_id=0))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    by_hand, count = 0.0, 0
    for item in task.train[:6]:
        prompt = base.tokenizer(item.prompt)["input_ids"]
        answer = [*base.tokenizer(item.prompt + item.completion)["input_ids"][len(prompt) :], base.tokenizer.eos_token_id]
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.no_grad():
            by_hand += float(plain(torch.tensor([prompt + answer]), labels=labels).loss) * len(answer)
        count += len(answer)
    assert weight == count
    assert float(total) == pytest.approx(by_hand, rel=1e-5)


def test_a_steps_rows_depend_on_seed_and_effective_batch_alone_and_an_epoch_sees_each_row_once() -> None:
    per_epoch = [rows_of_step(21, 4, seed=3, step=step) for step in range(6)]
    assert sorted(row for rows in per_epoch for row in rows) == list(range(21))
    assert per_epoch != [rows_of_step(21, 4, seed=4, step=step) for step in range(6)]
    assert rows_of_step(21, 4, seed=3, step=6) != per_epoch[0]
    lengths = list(range(21))
    for size in (1, 2, 4):
        assert sorted(row for micro in micro_batches(per_epoch[0], lengths, size) for row in micro) == sorted(per_epoch[0])


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "most", "steps"), [(20, 8, 2.0, None, 6), (20, 8, 0.5, None, 2), (20, 8, 2.0, 4, 4), (20, 8, 1.0, 9, 9)]
)
def test_the_number_of_steps_follows_rows_epochs_and_max_steps(rows: int, batch: int, epochs: float, most: int | None, steps: int) -> None:
    assert steps_in(rows, batch, epochs, most) == steps


def test_too_long_a_row_loses_the_beginning_of_its_prompt_and_never_its_answer(folder: Path) -> None:
    encoder = Encoder(source_of(folder).tokenizer)
    whole = encoder.row("word " * 100, " billing", max_length=1000)
    short = encoder.row("word " * 100, " billing", max_length=32)
    assert len(short.ids) == 32
    assert short.ids == whole.ids[-32:]
    assert short.num_trained == whole.num_trained
    with pytest.raises(DataError, match="the completion alone has"):
        encoder.row("word", " billing " * 40, max_length=32)


def test_a_row_that_is_cut_keeps_the_bos_that_opens_it_and_loses_text_instead(folder: Path) -> None:
    tokenizer = opening(source_of(folder).tokenizer)
    whole = Encoder(tokenizer).row("word " * 100, " billing", max_length=1000)
    short = Encoder(tokenizer).row("word " * 100, " billing", max_length=32)
    assert short.ids == (tokenizer.bos_token_id, *whole.ids[-31:])
    assert short.num_trained == whole.num_trained
    assert Encoder(tokenizer).row("word " * 100, " billing", max_length=whole.num_trained + 1).ids[0] == tokenizer.bos_token_id
    assert diagnose(ticket_task(), tokenizer, max_length=32).encoded == tuple(
        encode_rows(Encoder(tokenizer), ticket_task().train, max_length=32)[0]
    )


def opening(tokenizer: Any) -> Any:
    """A copy that puts a BOS before each text."""
    from tokenizers.processors import TemplateProcessing

    changed = copy.deepcopy(tokenizer)
    changed.add_special_tokens({"bos_token": "<|begin|>"})
    begin = ("<|begin|>", changed.bos_token_id)
    changed.backend_tokenizer.post_processor = TemplateProcessing(single="<|begin|> $A", special_tokens=[begin])
    return changed


def test_a_completion_without_tokens_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="has no tokens"):
        Encoder(source_of(folder).tokenizer).row("word", "", max_length=32)


def test_chat_is_refused_where_the_tokenizer_has_no_template(folder: Path) -> None:
    with pytest.raises(DataError, match="has no chat template"):
        Encoder(source_of(folder).tokenizer, chat=True)
