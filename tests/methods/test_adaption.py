"""Adaption prompts beside peft's own, what of a Llama they need, and two of them on one base."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaptionPromptConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

import nbtune
from nbtune.errors import SpecError
from nbtune.methods import get
from nbtune.methods.adaption import AdaptionLayer
from nbtune.models.base import Base
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from tests.tiny import tiny

METHOD = get("adaption-prompt")
IDS = torch.arange(20, 32)[None]


def _on(folder: Path, *names: str, **options: Any) -> Base:
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    for name in names:
        METHOD.attach(base, METHOD.spec.build({"adapter_len": 5, **options, "seed": len(name)}), name)
    return base


def _layers(base: Base) -> list[AdaptionLayer]:
    return [module for module in base.model.modules() if isinstance(module, AdaptionLayer)]


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_the_same_prompts_and_gates_give_the_logits_of_peft_s_adaption_prompt(tmp_path: Path, family: str) -> None:
    folder = tiny(family, tmp_path / family)
    theirs = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=5, adapter_layers=1),
    ).eval()
    base = _on(folder, "it", adapter_layers=1)
    (layer,) = _layers(base)
    attention: Any = theirs.base_model.model.model.layers[1].self_attn
    torch.manual_seed(3)
    with torch.no_grad():
        attention.adaption_prompt.copy_(torch.randn_like(attention.adaption_prompt))
        attention.adaption_gate.fill_(0.6)
        layer.adaption_prompt["it"].copy_(attention.adaption_prompt[0])
        layer.adaption_gate["it"].fill_(float(torch.tensor(0.6).atanh()))  # theirs is one for all heads, and not squashed
        wanted = theirs(input_ids=IDS).logits
    with base.lease("it") as model:
        found = model(input_ids=IDS).logits
    with base.lease() as model:
        plain = model(input_ids=IDS).logits
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert (plain - wanted).abs().max() > 1e-3


def test_training_starts_from_the_model_as_it_is_and_opens_the_gates_first(tmp_path: Path) -> None:
    base = _on(tiny("qwen3", tmp_path / "qwen3"), "it")
    with base.lease() as model:
        plain = model(input_ids=IDS).logits
    with base.lease("it", training=True) as model:
        out = model(input_ids=IDS, labels=IDS)
        out.loss.backward()
    assert torch.equal(out.logits, plain)
    for layer in _layers(base):
        assert layer.adaption_gate["it"].grad.abs().min() > 0  # type: ignore[union-attr]
        assert layer.adaption_prompt["it"].grad.abs().max() == 0  # type: ignore[union-attr]


def test_a_bias_behind_the_heads_is_added_once(tmp_path: Path) -> None:
    """What the prompt adds is linear in the gate: twice the gate is twice the change of the attention's output."""
    folder = tiny("llama", tmp_path / "llama")
    config = AutoConfig.from_pretrained(folder, attention_bias=True)
    model = AutoModelForCausalLM.from_config(config)
    for block in model.model.layers:
        torch.nn.init.normal_(block.self_attn.o_proj.bias)
    model.save_pretrained(folder)
    base = _on(folder, "it", adapter_layers=1)
    (layer,) = _layers(base)
    seen: list[torch.Tensor] = []
    layer.register_forward_hook(lambda _module, _args, out: seen.append(out[0]))
    for gate in (0.0, 0.2, 0.4):
        with torch.no_grad():
            layer.adaption_gate["it"].fill_(float(torch.tensor(gate).atanh()))
        with base.lease("it") as live:
            live(input_ids=IDS)
    torch.testing.assert_close(seen[2] - seen[0], 2 * (seen[1] - seen[0]), rtol=1e-4, atol=1e-6)
    assert (seen[1] - seen[0]).abs().max() > 1e-3


def test_two_on_one_base_are_trained_and_asked_apart(tmp_path: Path) -> None:
    base = _on(tiny("llama", tmp_path / "llama"), "one", "other")
    asked = {}
    for name in ("one", "other"):
        optimizer = torch.optim.AdamW(base.trained(name).values(), lr=0.1)
        for _ in range(3):
            with base.lease(name, training=True) as model:
                model(input_ids=IDS, labels=IDS).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        with base.lease(name) as model:
            asked[name] = model(input_ids=IDS).logits
    with base.lease("one") as model:
        assert torch.equal(model(input_ids=IDS).logits, asked["one"])
    assert (asked["one"] - asked["other"]).abs().max() > 1e-3
    assert base.drift() == 0
    base.remove_adapter("one")
    with base.lease("other") as model:
        assert torch.equal(model(input_ids=IDS).logits, asked["other"])


def test_more_blocks_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"adapter_layers is 3, and .* has 2 blocks") as refused:
        nbtune.estimate("adaption-prompt", model=tiny("llama", tmp_path / "llama"), adapter_layers=3)
    assert refused.value.hint
