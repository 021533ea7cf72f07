"""The frozen part is computed once: the same losses as without, in every family that allows it, and a model left as it was found."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nbtune.data.encoded import Encoded
from nbtune.errors import ModelError
from nbtune.methods import get
from nbtune.models.base import Base
from nbtune.models.families import blocks, final_norms
from nbtune.models.loading import LoadedModel, source_of
from nbtune.training.activations import open_cache
from tests.training.cached import SFT, TRAINED, base_with, kept, opened, plain, trained


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("name", TRAINED)
def test_losses_over_twenty_steps_equal_those_without(folder: Path, rows: list[Encoded], tmp_path: Path, name: str, packed: bool) -> None:
    method, options = TRAINED[name]
    without, having = base_with(folder, method, **options), base_with(folder, method, **options)
    cache = opened(having, rows, tmp_path, packed=packed)
    expected = trained(without, rows, plain(without, rows, packed=packed))
    assert expected[-1] < expected[0] - 0.1
    assert trained(having, rows, kept(cache)) == pytest.approx(expected, abs=1e-5)
    for key, parameter in having.trained("it").items():
        assert torch.allclose(parameter, without.trained("it")[key], atol=1e-4)


def test_losses_in_bfloat16_are_those_without_but_for_rounding(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    without, having = (base_with(folder, "last-blocks", "bfloat16", num_blocks=1) for _ in range(2))
    cache = opened(having, rows, tmp_path)
    assert cache.num_bytes == sum(len(row.ids) - 1 for row in rows) * 64 * 2  # what comes behind a row's last token is not asked
    expected = trained(without, rows, plain(without, rows, packed=True), steps=6)
    assert trained(having, rows, kept(cache), steps=6) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("name", TRAINED)
def test_backward_never_runs_below_the_lowest_trained_block(folder: Path, rows: list[Encoded], tmp_path: Path, name: str) -> None:
    method, options = TRAINED[name]
    base = base_with(folder, method, **options)
    cache = opened(base, rows, tmp_path)
    seen: list[torch.Tensor] = []
    last_frozen = blocks(base.model)[cache.depth - 1]
    hook = last_frozen.register_forward_hook(lambda _module, _args, output: seen.append(output))
    with base.lease("it", training=True) as model:
        for loss_of in (plain(base, rows, packed=True), kept(cache)):
            loss = loss_of(model, [0, 1, 2])
            assert loss.requires_grad
    hook.remove()
    assert [states.requires_grad for states in seen] == [False, False]
    assert [states.grad_fn for states in seen] == [None, None]


def test_frozen_blocks_do_not_run_and_are_in_eval_mode_while_the_others_train(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    base = base_with(folder, "last-blocks", num_blocks=1)
    cache = opened(base, rows, tmp_path)
    ran: list[str] = []
    for key, module in base.model.named_modules():
        if key.endswith("q_proj"):
            module.register_forward_hook(lambda *_, key=key: ran.append(key))
    with base.lease("it", training=True) as model, cache.applied([3, 1]):
        assert [block.training for block in blocks(base.model)] == [False, True]
        SFT.loss(model, cache.batch([3, 1]))
    assert ran == ["model.layers.1.self_attn.q_proj"]


def test_where_only_the_head_is_trained_the_trained_positions_alone_are_kept_and_no_block_runs(
    folder: Path, rows: list[Encoded], tmp_path: Path
) -> None:
    base = base_with(folder, "head")
    cache = opened(base, rows, tmp_path)
    assert cache.num_bytes == sum(row.num_trained for row in rows) * 64 * 4
    batch = cache.batch([5, 0])
    assert batch.input_ids.shape == (1, rows[5].num_trained + rows[0].num_trained)
    assert batch.num_tokens == len(rows[5].ids) + len(rows[0].ids)


def test_gradient_checkpointing_computes_the_same_gradients(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    base = base_with(folder, "last-blocks", num_blocks=1)
    cache = opened(base, rows, tmp_path)
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            base.model.activation_checkpointing_enable({"use_reentrant": False})
        with base.lease("it", training=True) as model:
            kept(cache)(model, [0, 4, 2]).backward()
        found.append([parameter.grad.clone() for parameter in base.trained("it").values()])
        base.model.zero_grad()
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_model_is_whole_after_use_and_after_an_error_and_others_adapters_give_the_same(
    folder: Path, rows: list[Encoded], tmp_path: Path
) -> None:
    base = base_with(folder, "lora", r=4)  # "it" on every block, of somebody else
    get("lora").attach(base, get("lora").spec.build({"layers_to_transform": [1]}), "mine")
    with torch.no_grad():
        for key, parameter in base.trained("it").items():
            if "lora_B" in key:
                parameter.fill_(0.01)
    layers = list(blocks(base.model))
    ids = torch.tensor([rows[0].ids])

    def logits(adapter: str | None) -> torch.Tensor:
        with base.lease(adapter) as model:
            return model(input_ids=ids, use_cache=False).logits.clone()

    before = [logits(adapter) for adapter in (None, "it", "mine")]
    assert not torch.equal(before[0], before[1])
    cache, _ = open_cache(base, "mine", rows, objective=SFT, packed=True, folder=tmp_path, wanted=True)
    assert cache is not None
    with base.lease("mine", training=True) as model:
        cached = kept(cache)(model, [0, 1])
        through_peft = kept(cache)(base.peft, [0, 1])
        assert torch.equal(cached, through_peft)
        assert torch.allclose(cached, plain(base, rows, packed=True)(model, [0, 1]), rtol=1e-6)
        with pytest.raises(ZeroDivisionError), cache.applied([0]):
            raise ZeroDivisionError
    assert all(one is other for one, other in zip(blocks(base.model), layers, strict=True))
    assert not any("forward" in vars(layer) for layer in layers)
    assert all(torch.equal(one, logits(adapter)) for one, adapter in zip(before, (None, "it", "mine"), strict=True))
    cache.close()


def a_base(model: Any, folder: Path) -> Base:
    return Base(LoadedModel(model.eval().requires_grad_(False), source_of(folder).tokenizer, model.config, "made here"))


def made(kind: str, folder: Path) -> Base:
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    windows = {"sliding_window": 8} if kind in {"gemma2", "gemma3_text", "mistral"} else {}
    if kind == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 4, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = CONFIG_MAPPING[kind](
        vocab_size=len(source_of(folder).tokenizer), pad_token_id=0, bos_token_id=None, eos_token_id=0, **sizes, **windows
    )
    torch.manual_seed(0)
    return a_base(AutoModelForCausalLM.from_config(config), folder)


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "gemma", "gemma2", "gemma3_text", "granite", "gpt2"])
def test_families_that_scale_embeddings_or_alternate_attention_give_the_plain_losses(
    folder: Path, rows: list[Encoded], tmp_path: Path, kind: str
) -> None:
    for num_blocks in (2, 0):
        base = made(kind, folder)
        if num_blocks:
            get("last-blocks").attach(base, get("last-blocks").spec.build({"num_blocks": num_blocks}), "it")
        else:
            get("head").attach(base, get("head").spec.build({}), "it")
        cache = opened(base, rows, tmp_path, packed=False)
        with base.lease("it") as model:
            for chosen in ([0, 7, 3], [11]):
                expected = float(plain(base, rows, packed=False)(model, chosen))
                assert float(kept(cache)(model, chosen)) == pytest.approx(expected, rel=1e-5)
        cache.close()


@pytest.fixture
def with_a_side_way(folder: Path) -> Iterator[Base]:
    """A family whose top takes more than the states of the block below: the first block's output is added before the norm."""
    base = base_with(folder, "last-blocks", num_blocks=1)
    side: list[torch.Tensor] = []
    blocks(base.model)[0].mlp.register_forward_hook(lambda _module, _args, output: side.append(output))
    final_norms(base.model)[0].register_forward_pre_hook(lambda _module, args: (args[0] + side.pop() if side else args[0],))
    return base


def test_a_family_that_does_not_go_on_from_kept_states_is_found_out(with_a_side_way: Base, rows: list[Encoded], tmp_path: Path) -> None:
    cache, text = open_cache(with_a_side_way, "it", rows, objective=SFT, packed=True, folder=tmp_path)
    assert cache is None
    assert "does not train on from kept states: the loss of a first batch moves by" in text
    with pytest.raises(ModelError, match="does not train on from kept states"):
        opened(with_a_side_way, rows, tmp_path)
    assert list(tmp_path.iterdir()) == []
