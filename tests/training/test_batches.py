"""Rows of a step are the same however they are split, packed or padded, and none of them sees another."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from nbtune.data.batches import Batch, collate, micro_batches, packing_note, rows_of_step
from nbtune.data.encoded import Encoded
from nbtune.methods import get as method_of
from nbtune.models.attention import attending, rows_apart, takes_rows
from nbtune.models.base import Base
from nbtune.models.families import can_pack, why_unpacked
from nbtune.models.loading import source_of
from nbtune.models.readout import readout
from nbtune.models.shared import own_base
from nbtune.objectives import get
from nbtune.training.state import State
from nbtune.training.step import Stepper
from tests.tiny import tiny_llama

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "olmo2", "phi3")
TINY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "sliding_window": None,
}


def some_rows(lengths: Sequence[int], seed: int = 0) -> list[Encoded]:
    chance = random.Random(seed)
    return [Encoded(tuple(chance.randrange(2, 250) for _ in range(size)), max(1, size - 3)) for size in lengths]


def losses(model: torch.nn.Module, batch: Batch, count: int) -> torch.Tensor:
    """Summed loss of each row."""
    with torch.no_grad(), readout(model, batch.predicts), rows_apart(model):
        logits = model(input_ids=batch.input_ids, **attending(model, batch)).logits
    each = functional.cross_entropy(logits.float(), batch.targets, reduction="none")
    return torch.zeros(count).index_add_(0, batch.owner, each)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    found = own_base(source_of(tiny_llama(tmp_path_factory.mktemp("tiny"))), dtype="float32", quantization=None, device="cpu")
    spec = method_of("lora").spec.build({"task": "t", "model": "m"})
    method_of("lora").attach(found, spec, "run")
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_and_padded_losses_of_each_row_are_equal_in_every_family_that_packs_and_no_row_sees_another(family: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **TINY), attn_implementation="sdpa").eval()
    assert can_pack(model.config)
    rows = some_rows([5, 60, 7, 23, 150, 9])
    padded = losses(model, collate(rows, packed=False, pad_id=0), len(rows))
    packed = losses(model, collate(rows, packed=True, pad_id=0), len(rows))
    alone = torch.cat([losses(model, collate([row], packed=True, pad_id=0), 1) for row in rows])
    assert torch.allclose(packed, padded, atol=1e-5, rtol=1e-6)
    assert torch.allclose(packed, alone, atol=1e-5, rtol=1e-6)
    changed = [*rows[:3], Encoded(tuple(token + 1 for token in rows[3].ids), rows[3].start), *rows[4:]]
    after = losses(model, collate(changed, packed=True, pad_id=0), len(rows))
    others = [0, 1, 2, 4, 5]
    assert torch.equal(after[others], packed[others])
    assert not torch.equal(after[3], packed[3])


def _alike() -> list[Encoded]:
    """Rows under one template, two of them under a longer one, one twice with another answer, one that another goes on from, one apart."""
    first = tuple(range(20, 32))
    ends = [(40, 41), (42, 43, 44, 45, 46), (42, 43, 44, 47), (48,) * 90, (42, 43, 44, 47, 49)]
    rows = [Encoded((*first, *end, 5, 6, 1), len(first) + len(end)) for end in ends]
    return [*rows, Encoded((*first, 40, 41, 7, 8, 1), 14), Encoded((*first, 40, 41, 5, 6, 9, 9, 1), 15), Encoded((60, 61, 62, 63), 2)]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_rows_begin_with_alike_is_there_once_and_every_row_s_loss_is_that_of_the_row_alone(family: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **TINY), attn_implementation="sdpa").eval()
    rows = _alike()
    batch = collate(rows, packed=True, pad_id=0)
    assert batch.num_places == batch.input_ids.numel() == len({row.ids[:end] for row in rows for end in range(1, len(row.ids))})
    assert batch.num_places < sum(len(row.ids) - 1 for row in rows) / 1.5
    assert batch.num_tokens == sum(len(row.ids) for row in rows)
    alone = torch.cat([losses(model, collate([row], packed=False, pad_id=0), 1) for row in rows])
    assert torch.allclose(losses(model, batch, len(rows)), alone, atol=1e-5, rtol=1e-6)


def test_gradients_of_rows_that_begin_alike_are_those_of_the_rows_apart_and_under_a_mask(base: Base) -> None:
    rows = _alike()
    found = {}
    for how in ("shared", "apart", "padded", "masked"):
        batch = collate(rows, packed=how != "padded", pad_id=0, shared=how in {"shared", "masked"})
        if how == "shared":
            assert batch.packed is not None
            assert len(batch.packed.sizes) > 1
        with base.lease("run", training=True) as model:
            if how == "masked":
                with readout(model, batch.predicts):
                    told = {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids}
                    logits = model(input_ids=batch.input_ids, **told).logits
                loss = functional.cross_entropy(logits.float(), batch.targets, reduction="sum")
            else:
                loss, _ = get("sft").loss(model, batch)
            found[how] = loss.detach(), torch.autograd.grad(loss, list(base.trained("run").values()))
    wanted, grads = found.pop("padded")
    assert sum(float(grad.norm()) for grad in grads) > 1
    for loss, others in found.values():
        assert float(loss) == pytest.approx(float(wanted), rel=1e-6)
        for one, other in zip(others, grads, strict=True):
            assert torch.allclose(one, other, atol=2e-5, rtol=1e-5)


def test_rows_have_their_own_beginnings_where_chance_has_a_part_in_them(tmp_path: Path) -> None:
    for options, shared in (({}, True), ({"lora_dropout": 0.1}, False), ({"neftune_noise_alpha": 5.0}, False)):
        found = own_base(source_of(tiny_llama(tmp_path)), dtype="float32", quantization=None, device="cpu")
        spec = method_of("lora").spec.build({"task": "t", "model": "m", **options})
        method_of("lora").attach(found, spec, "run")
        rows = _alike()
        stepper = Stepper(spec=spec, base=found, adapter="run", objective=get("sft"), rows=rows, packed=True, total_steps=1)
        done = stepper.take(1, spec, State(micro_rows=len(rows)))
        assert stepper.shared is shared
        assert (done.places < done.num_tokens / 1.5) is shared
        assert (done.places == done.num_tokens) is not shared


def test_the_attention_that_keeps_rows_apart_equals_the_one_under_a_block_mask_in_loss_and_gradient(base: Base) -> None:
    rows = some_rows([4, 5, 80, 81, 300])
    batch = collate(rows, packed=True, pad_id=0)
    assert batch.packed is not None
    assert len(batch.packed.sizes) > 1
    found = []
    for masked in (False, True):
        with base.lease("run", training=True) as model:
            assert takes_rows(model)
            by_mask = {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids}
            told = by_mask if masked else attending(model, batch)
            logits = model(input_ids=batch.input_ids, **told).logits
            parameters = list(base.trained("run").values())
            found.append((logits.detach(), torch.autograd.grad(logits.square().mean(), parameters)))
    (apart, grads), (block, expected) = found
    assert torch.allclose(apart, block, atol=1e-5)
    for one, other in zip(grads, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_model_that_would_lose_the_packed_rows_on_its_way_fails_instead_of_mixing_them(base: Base) -> None:
    batch = collate(some_rows([4, 9]), packed=True, pad_id=0)
    with base.lease() as model:
        told = {key: value for key, value in attending(model, batch).items() if key != "packed_rows"}
        with pytest.raises(RuntimeError):
            model(input_ids=batch.input_ids, **told)


@pytest.mark.parametrize("packed", [True, False])
def test_gradients_of_a_step_are_the_same_however_it_is_split(base: Base, packed: bool) -> None:
    rows = some_rows([5, 9, 12, 20, 21, 40, 55, 60])
    lengths = [len(row.ids) for row in rows]
    found = {}
    for size in (1, 2, 4, 8):
        with base.lease("run", training=True) as model:
            total = torch.zeros(())
            for micro in micro_batches(range(8), lengths, size):
                loss, _ = get("sft").loss(model, collate([rows[number] for number in micro], packed=packed, pad_id=0))
                loss.backward()
                total += loss.detach()
        parameters = list(base.trained("run").values())
        found[size] = (total, [parameter.grad for parameter in parameters])
        for parameter in parameters:
            parameter.grad = None
    for total, grads in found.values():
        assert total.item() == pytest.approx(found[8][0].item(), abs=1e-3, rel=1e-6)
        for one, other in zip(grads, found[8][1], strict=True):
            assert torch.allclose(one, other, atol=1e-4)


def test_a_steps_rows_are_the_same_whatever_the_split() -> None:
    for step in range(6):
        chosen = rows_of_step(21, 8, seed=1, step=step)
        for size in (1, 2, 4, 8):
            split = [row for micro in micro_batches(chosen, list(range(21)), size) for row in micro]
            assert sorted(split) == sorted(chosen)


def test_gradients_recomputed_under_checkpointing_keep_the_rows_apart(base: Base) -> None:
    rows = some_rows([6, 30, 31])
    batch = collate(rows, packed=True, pad_id=0)
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            base.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        with base.lease("run", training=True) as model:
            loss, _ = get("sft").loss(model, batch)
            found.append(torch.autograd.grad(loss, list(base.trained("run").values())))
    base.model.gradient_checkpointing_disable()
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_row_without_a_prompt_is_trained_from_its_second_token_on(base: Base) -> None:
    rows = [Encoded((5, 6, 7, 8), 0), Encoded((9, 10, 11), 2)]
    for packed in (True, False):
        batch = collate(rows, packed=packed, pad_id=0)
        assert len(batch.predicts) == len(batch.targets) == 4
        assert batch.targets.tolist() == [6, 7, 8, 11]
        assert batch.owner.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("family", "changes", "why"),
    [
        ("mistral", {"sliding_window": 64}, "mistral has layers that do not see the whole row"),
        ("gpt2", {}, "gpt2 was not seen to keep packed rows apart"),
        ("llama", {}, ""),
    ],
)
def test_why_rows_are_not_packed_is_said_in_one_line(family: str, changes: dict[str, int], why: str) -> None:
    config = AutoConfig.for_model(family, **TINY | changes)
    config._attn_implementation = "sdpa"
    assert why_unpacked(config) == why
    assert can_pack(config) is (not why)
    note = packing_note(packed=can_pack(config), reason=why)
    packs = "rows are packed end to end, without padding; what they begin with alike is computed once"
    assert note == (f"rows of like length are padded together: {why}" if why else packs)
