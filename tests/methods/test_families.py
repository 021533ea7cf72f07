"""Every method on every family of decoders: what is counted, what is trained, and that the base is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import nbtune
from nbtune.errors import NbtuneError
from nbtune.models.families import sublayers
from tests.methods.contract import Cell, check_beginning, check_count, check_gradients, check_learning
from tests.methods.support import EVERYWHERE, OPTIONS, PAGE, SECOND_FAMILIES, SECOND_TIER, TRAINED, page, refusal
from tests.tiny import FAMILIES, tiny

CASES = [(name, method) for name in FAMILIES for method in TRAINED if name == "llama" or method in EVERYWHERE or refusal(method, name)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(request.param, tmp_path_factory.mktemp("families") / request.param)


@pytest.mark.parametrize(("family", "method"), CASES, indirect=["family"])
def test_what_is_trained_is_what_was_counted_and_the_base_stays_as_it_was(family: Path, method: str) -> None:
    _holds_or_is_refused(method, family)


@pytest.mark.parametrize("name", SECOND_FAMILIES)
@pytest.mark.parametrize("method", SECOND_TIER)
def test_the_second_tier_trains_what_was_counted_and_leaves_the_base_as_it_was(tmp_path: Path, method: str, name: str) -> None:
    _holds_or_is_refused(method, tiny(name, tmp_path / name))


def _holds_or_is_refused(method: str, family: Path) -> None:
    cell = Cell(method, family, OPTIONS.get(method, {}))
    if reason := refusal(method, family.name):
        _is_refused(cell, reason)
        return
    base = cell.attached()
    check_beginning(cell, base)
    check_count(cell, base)
    check_gradients(cell, base)
    assert base.drift() == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("method", TRAINED)
def test_on_a_quantized_base_it_learns_too_or_is_refused(tmp_path: Path, method: str, quantization: str, dtype: str) -> None:
    _learns_or_is_refused(tmp_path, method, quantization, dtype)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("method", SECOND_TIER)
def test_the_second_tier_on_a_quantized_base_learns_too_or_is_refused(tmp_path: Path, method: str, quantization: str) -> None:
    _learns_or_is_refused(tmp_path, method, quantization, "bfloat16")


def _learns_or_is_refused(tmp_path: Path, method: str, quantization: str, dtype: str) -> None:
    cell = Cell(method, tiny("llama", tmp_path / "llama"), OPTIONS.get(method, {}), quantization=quantization, dtype=dtype)
    if reason := refusal(method, "llama", quantization):
        _is_refused(cell, reason)
        return
    base = cell.attached()
    check_beginning(cell, base)
    check_count(cell, base)
    check_gradients(cell, base)
    check_learning(cell, base)
    assert base.drift() == 0


def _is_refused(cell: Cell, reason: str) -> None:
    with pytest.raises(NbtuneError, match=reason) as refused:
        cell.estimate()
    assert refused.value.hint


@pytest.mark.parametrize(
    ("name", "norm"), [("llama", ["model.norm.weight"]), ("opt", [f"model.decoder.final_layer_norm.{part}" for part in ("weight", "bias")])]
)
def test_last_blocks_trains_the_norm_above_them_wherever_the_family_lists_it(tmp_path: Path, name: str, norm: list[str]) -> None:
    cell = Cell("last-blocks", tiny(name, tmp_path / name), OPTIONS["last-blocks"])
    base = cell.attached()
    assert [key for key in base.trained("it") if ".layers.1." not in key] == norm
    check_count(cell, base)
    check_gradients(cell, base)


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


@pytest.mark.parametrize("method", ["head", "last-blocks", "bitfit", "layernorm", "full", "lora"])
def test_the_model_of_a_run_in_16_bits_is_called_as_any_model_is(tmp_path: Path, method: str) -> None:
    from tests.examples import ticket_task

    options = {**OPTIONS.get(method, {}), "dtype": "bfloat16", "max_steps": 1, "num_samples": 0, "max_eval_rows": 2}
    run = nbtune.finetune(method, task=ticket_task(), model=tiny("qwen2", tmp_path / "qwen2"), **options).wait()
    prompt = ticket_task().test[0].prompt
    ids = torch.tensor([run.engine().encoder.prompt_ids(prompt)])
    with torch.no_grad():
        logits = run.model.model(ids).logits[0, -1]
    assert logits.dtype == torch.bfloat16
    assert torch.allclose(logits.float(), run.engine().logits(prompt), atol=2e-2)


def test_the_page_of_the_docs_says_what_is_tested_here() -> None:
    assert PAGE.read_text() == page(), "write it anew: make docs"
