"""Scores and generations equal those of plain transformers, whatever is shared, packed or batched."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from nbtune.data.encoding import Encoder
from nbtune.inference import Decoding, Engine
from nbtune.inference.scoring import _one_by_one
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from tests.tiny import tiny_llama

PROMPTS = [f"Ticket: {'the parcel never came ' * n}number {n}\nTeam:" for n in range(1, 9)]
ANSWERS = [" billing", " shipping department", " x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def engine(folder: Path) -> Engine:
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    return Engine(base, Encoder(base.tokenizer))


def independent(folder: Path, engine: Engine, prompt: str, answer: str) -> float:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    before = engine.encoder.tokenizer(prompt)["input_ids"]
    after = engine.encoder.tokenizer(prompt + answer)["input_ids"][len(before) :]
    with torch.no_grad():
        logp = model(torch.tensor([before + after])).logits[0].log_softmax(-1)
    return sum(float(logp[len(before) - 1 + place, token]) for place, token in enumerate(after))


def test_label_scores_equal_a_plain_forward_of_each_prompt_and_answer(folder: Path, engine: Engine) -> None:
    scores = engine.score(PROMPTS, ANSWERS)
    for prompt, row in zip(PROMPTS, scores, strict=True):
        for answer, (total, _) in zip(ANSWERS, row, strict=True):
            assert total == pytest.approx(independent(folder, engine, prompt, answer), abs=1e-4)


def test_a_shared_prefix_read_once_leaves_the_scores_as_they_are(folder: Path, engine: Engine) -> None:
    before = "An example: the courier was late. Team: shipping\n\n" * 3
    prompts = [before + prompt for prompt in PROMPTS]
    assert engine._prefix([tuple(engine.encoder.prompt_ids(prompt)) for prompt in prompts]).length >= 32
    together = engine.score(prompts, ANSWERS)
    alone = [engine.score([prompt], ANSWERS)[0] for prompt in prompts]  # one prompt shares nothing
    for first, second in zip(together, alone, strict=True):
        assert [total for total, _ in first] == pytest.approx([total for total, _ in second], abs=1e-4)


def test_families_without_a_tree_get_the_same_scores(engine: Engine) -> None:
    from nbtune.inference.scoring import Question

    questions = [
        Question(tuple(engine.encoder.prompt_ids(p)), tuple(tuple(engine.encoder.answer_ids(p, a)) for a in ANSWERS)) for p in PROMPTS
    ]
    with engine.base.lease():
        plain = _one_by_one(engine.base, questions)
    for first, second in zip(engine.score(PROMPTS, ANSWERS), plain, strict=True):
        assert [total for total, _ in first] == pytest.approx([total for total, _ in second], abs=1e-4)
        assert [count for _, count in first] == [count for _, count in second]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("before", ["", "An example: the courier was late. Team: shipping\n\n" * 3])
def test_generations_equal_generate_row_by_row_for_any_batch_size_and_prefix(
    folder: Path, engine: Engine, before: str, batch_size: int
) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = engine.encoder.tokenizer
    prompts = [before + prompt for prompt in PROMPTS]
    expected = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        made = model.generate(ids, max_new_tokens=9, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        expected.append(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
    assert engine.generate(prompts, Decoding(9), batch_size=batch_size) == expected


def test_a_stop_text_ends_an_answer_and_is_not_part_of_it(engine: Engine) -> None:
    free = engine.generate(PROMPTS, Decoding(12))
    stop = next(text[3:5] for text in free if len(text) > 6)
    for text, cut in zip(free, engine.generate(PROMPTS, Decoding(12, (stop,))), strict=True):
        assert cut == text.split(stop)[0]
