"""Prefix tuning beside peft's own, and where it begins."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

import nbtune
from nbtune.errors import ModelError, SpecError
from nbtune.methods import first_ids, get
from nbtune.methods.prefix import PrefixLayer
from nbtune.models.base import Base
from nbtune.models.families import keys_values
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from tests.examples import ticket_task
from tests.tiny import FAMILIES, tiny

METHOD = get("prefix-tuning")


def _on(folder: Path, **options: Any) -> tuple[Base, tuple[int, ...]]:
    spec = METHOD.spec.build({"num_virtual_tokens": 5, **options})
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    METHOD.attach(base, spec, "it")
    return base, first_ids(METHOD, spec, base.config)


def test_the_same_keys_and_values_give_the_logits_of_peft_s_prefix_tuning(tmp_path: Path) -> None:
    folder = tiny("gpt2", tmp_path / "gpt2")
    base, first = _on(folder)
    theirs = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    ).eval()
    torch.manual_seed(1)
    prefix: Any = theirs.prompt_encoder[
        "default"
    ].embedding.weight  # [tokens, blocks * 2 * hidden]: of each block its keys, then its values
    with torch.no_grad():
        prefix.copy_(torch.randn_like(prefix))
        layers = [module for module in base.model.modules() if isinstance(module, PrefixLayer)]
        for number, layer in enumerate(layers):
            layer.prefix_values_own["it"].copy_(prefix[:, number * 128 : (number + 1) * 128])
    ids = torch.arange(20, 32)[None]
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    with base.lease("it") as model:
        found = model(input_ids=torch.tensor([[*first, *range(20, 32)]])).logits[:, 5:]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_begins_as_random_words_in_front_of_the_text_in_every_family(tmp_path: Path, family: str) -> None:
    base, first = _on(tiny(family, tmp_path / family), seed=3)
    chance = random.Random(3)
    words = [chance.randrange(base.model.get_input_embeddings().base_layer.num_embeddings) for _ in range(5)]  # type: ignore[union-attr]
    with base.lease("it") as model:
        found = model(input_ids=torch.tensor([[*first, *range(20, 32)]])).logits[:, 5:]
    with base.lease() as model:
        wanted = model(input_ids=torch.tensor([[*words, *range(20, 32)]])).logits[:, 5:]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_network_makes_keys_and_values_with_prefix_projection_and_is_opened_again(tmp_path: Path) -> None:
    folder, task = tiny("llama", tmp_path / "llama"), ticket_task()
    options: dict[str, Any] = {"num_virtual_tokens": 4, "prefix_projection": True, "encoder_hidden_size": 16, "dtype": "float32"}
    plain = nbtune.estimate("prefix-tuning", model=folder, num_virtual_tokens=4).trainable_parameters
    assert plain == 4 * 2 * 2 * 32
    wanted = 4 * 64 + (64 * 16 + 16) + (16 * 128 + 128)
    assert nbtune.estimate("prefix-tuning", model=folder, **options).trainable_parameters == wanted
    run = nbtune.finetune("prefix-tuning", task=task, model=folder, **options, num_train_epochs=4).wait()
    history = run.history["loss"]
    assert history.iloc[-3:].mean() < history.iloc[:3].mean()
    before = run.engine().logits(task.test[0].prompt)
    nbtune.models.unload()
    assert torch.equal(nbtune.open(run.id).engine().logits(task.test[0].prompt), before)


def test_a_model_of_many_blocks_has_its_prefix_in_each(tmp_path: Path) -> None:
    from transformers import AutoConfig

    folder = tiny("llama", tmp_path / "llama")
    config = AutoConfig.from_pretrained(folder, num_hidden_layers=14)  # peft writes so many names shorter
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    base, first = _on(folder)
    assert len(base.trained("it")) == 28
    with base.lease("it", training=True) as model:
        ids = torch.tensor([[*first, *range(20, 32)]])
        model(input_ids=ids).logits[:, 5:].sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in base.trained("it").values())


def test_what_has_no_room_or_no_known_projections_is_refused(tmp_path: Path) -> None:
    folder = tiny("llama", tmp_path / "llama")
    with pytest.raises(SpecError, match="leaves no room"):
        nbtune.estimate("prefix-tuning", model=folder, num_virtual_tokens=600)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for layer in model.model.layers:
        layer.self_attn.strange = layer.self_attn.k_proj
        del layer.self_attn.k_proj
    with pytest.raises(ModelError, match="makes its keys and values") as refused:
        keys_values(model)
    assert refused.value.hint
