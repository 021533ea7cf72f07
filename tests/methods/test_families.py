"""Every method on every family of decoders: what is counted, what is trained, and that the base is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import nbtune
from nbtune.errors import NbtuneError
from nbtune.methods import first_ids, get
from nbtune.models.base import Base
from nbtune.models.families import sublayers
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from tests.methods.support import OPTIONS, PAGE, TRAINED, page, refusal
from tests.tiny import FAMILIES, tiny


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(request.param, tmp_path_factory.mktemp("families") / request.param)


@pytest.mark.parametrize("method", TRAINED)
def test_what_is_trained_is_what_was_counted_and_the_base_stays_as_it_was(family: Path, method: str) -> None:
    options = OPTIONS.get(method, {})
    if reason := refusal(method, family.name):
        with pytest.raises(NbtuneError, match=reason) as refused:
            nbtune.estimate(method, model=family, **options)
        assert refused.value.hint
        return
    _holds(method, family, None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("method", TRAINED)
def test_on_a_quantized_base_it_learns_too_or_is_refused(tmp_path: Path, method: str, quantization: str, dtype: str) -> None:
    folder = tiny("llama", tmp_path / "llama")
    options = {**OPTIONS.get(method, {}), "quantization": quantization, "dtype": dtype}
    if reason := refusal(method, "llama", quantization):
        with pytest.raises(NbtuneError, match=reason) as refused:
            nbtune.estimate(method, model=folder, **options)
        assert refused.value.hint
        return
    base = _holds(method, folder, quantization, dtype)
    optimizer = torch.optim.AdamW(base.trained("it").values(), lr=1e-2)
    losses = []
    for _ in range(6):
        losses.append(_backward(base, method))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    assert base.drift() == 0


def _holds(method: str, folder: Path, quantization: str | None, dtype: str = "float32") -> Base:
    """What every method promises of the base it is put on, which is returned with the first gradients."""
    options, chosen = OPTIONS.get(method, {}), get(method)
    expected = nbtune.estimate(method, model=folder, quantization=quantization, dtype=dtype, **options)
    base = own_base(source_of(folder), dtype=dtype, quantization=quantization, device="cpu")
    chosen.attach(base, chosen.spec.build(options), "it")
    trained = base.trained("it")
    assert sum(parameter.numel() for parameter in trained.values()) == expected.trainable_parameters > 0
    if quantization is None:  # 4 bits lie in pairs, two to a number
        assert sum(parameter.numel() for parameter in base.model.parameters()) == expected.total_parameters
    _backward(base, method)
    moved = {name for name, parameter in base.model.named_parameters() if parameter.grad is not None}
    assert moved == set(trained)
    assert base.drift() == 0
    return base


def _backward(base: Base, method: str) -> float:
    first = first_ids(get(method), get(method).spec.build(OPTIONS.get(method, {})), base.config)
    ids = torch.tensor([[*first, *range(5, 17)]])
    labels = torch.where(torch.arange(ids.shape[1]) < len(first), -100, ids)
    with base.lease("it" if base.has_adapter("it") else None, training=True) as model:
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss.backward()
    return float(loss.detach())


@pytest.mark.parametrize("method", ["lora", "adapter"])
def test_a_run_on_every_family_lowers_the_loss(family: Path, method: str) -> None:
    from tests.examples import ticket_task

    run = nbtune.finetune(method, task=ticket_task(), model=family, dtype="float32", learning_rate=1e-2, num_train_epochs=4, num_samples=0)
    losses = run.wait().history["loss"]
    assert losses.iloc[-3:].mean() < losses.iloc[0] - 0.05  # nats


def test_adapters_stand_where_each_family_writes_to_its_residual_stream(family: Path) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(family))
    parts = sublayers(model)
    hidden = model.config.hidden_size
    for names_of in (parts.attention_out, parts.feed_forward_out):
        assert len(names_of) == model.config.num_hidden_layers
        for name in names_of:
            layer: Any = model.get_submodule(name)
            assert (layer.nf if hasattr(layer, "nf") else layer.out_features) == hidden
    assert "att" in parts.attention_out[0]
    assert "att" not in parts.feed_forward_out[0]


def test_a_family_that_nobody_named_is_worked_out_from_the_shapes_of_its_layers(tmp_path: Path) -> None:
    with torch.device("meta"):
        config = AutoConfig.for_model("gptj", vocab_size=64, n_embd=32, n_layer=2, n_head=2, rotary_dim=8)
        model = AutoModelForCausalLM.from_config(config)
    parts = sublayers(model)
    assert parts.attention_out == ("transformer.h.0.attn.out_proj", "transformer.h.1.attn.out_proj")
    assert parts.feed_forward_out == ("transformer.h.0.mlp.fc_out", "transformer.h.1.mlp.fc_out")


def test_the_page_of_the_docs_says_what_is_tested_here() -> None:
    assert PAGE.read_text() == page(), "write it anew: make docs"
