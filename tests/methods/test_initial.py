"""Where LoRA begins: at the base's own logits whatever the factors are, at peft's factors, and with LoftQ nearer to what was quantized."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

import nbtune
from nbtune.errors import RunError
from nbtune.methods import attach, get
from nbtune.models.base import Base
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from tests.examples import ticket_task
from tests.tiny import tiny

IDS = torch.arange(5, 25)[None]
OF_WEIGHTS = ("pissa", "pissa_niter_16", "olora")


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(request.param, tmp_path_factory.mktemp("initial") / request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny("llama", tmp_path_factory.mktemp("initial") / "llama")


def _base(folder: Path, quantization: str | None = None, dtype: str = "float32", name: str = "it", **options: Any) -> Base:
    base = own_base(source_of(folder), dtype=dtype, quantization=quantization, device="cpu")
    if options:
        attach(get("lora"), base, get("lora").spec.build(options), name)
    return base


def _logits(base: Base, adapter: str | None) -> torch.Tensor:
    with base.lease(adapter) as model:
        return model(input_ids=IDS).logits.float()


def _learn(base: Base, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(base.trained("it").values(), lr=0.5)
    for _ in range(steps):
        with base.lease("it", training=True) as model:
            model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("init", OF_WEIGHTS)
def test_it_begins_at_the_base_s_own_logits_though_its_product_is_not_zero(folder: Path, init: str, dtype: str) -> None:
    base = _base(folder, dtype=dtype, r=4, init=init)
    assert torch.equal(_logits(base, "it"), _logits(base, None))
    assert all(value.abs().sum() > 0 for value in base.trained("it").values())
    _learn(base)
    assert not torch.equal(_logits(base, "it"), _logits(base, None))
    assert base.drift() == 0


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_factors_and_learning_are_peft_s_which_writes_them_into_its_base(llama: Path, init: str, use_rslora: bool) -> None:
    options = {"r": 4, "lora_alpha": 12, "use_rslora": use_rslora}
    base = _base(llama, init=init, **options)
    config = LoraConfig(**options, init_lora_weights=init, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32), config, adapter_name="it")
    named = {key.removeprefix("base_model.model."): value for key, value in theirs.named_parameters() if value.requires_grad}
    assert set(named) == set(base.trained("it"))
    for key, value in base.trained("it").items():
        torch.testing.assert_close(value, named[key], rtol=1e-3, atol=1e-4)
    _learn(base)
    optimizer = torch.optim.SGD(named.values(), lr=0.5)
    for _ in range(3):
        theirs(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(input_ids=IDS).logits, _logits(base, "it"), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("init", OF_WEIGHTS)
def test_its_file_is_plain_lora_of_twice_the_rank_for_an_untouched_base(folder: Path, tmp_path: Path, init: str) -> None:
    base = _base(folder, r=4, lora_alpha=12, init=init, use_rslora=init == "olora")
    _learn(base)
    wanted = _logits(base, "it")
    base.state("it").write(tmp_path)
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tmp_path)
    assert opened.peft_config["default"].r == 8
    with torch.no_grad():
        torch.testing.assert_close(opened(input_ids=IDS).logits, wanted, rtol=1e-5, atol=1e-5)
    again = _base(folder, r=4, lora_alpha=12, init=init, use_rslora=init == "olora", seed=9, name="other")
    again.restore("other", tmp_path)
    assert torch.equal(_logits(again, "other"), wanted)
    for key, value in base.named("it").items():
        assert torch.equal(again.named("other")[key], value)


def test_a_lora_beside_it_on_the_same_base_is_not_moved(llama: Path) -> None:
    plain = _base(llama, r=4)
    wanted = _logits(plain, None)
    attach(get("pissa"), plain, get("pissa").spec.build({"r": 4}), "beside")
    assert torch.equal(_logits(plain, "it"), wanted)
    assert torch.equal(_logits(plain, "beside"), wanted)


@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
def test_loftq_gives_back_of_what_quantization_lost_more_with_each_rank(llama: Path, quantization: str) -> None:
    whole = _base(llama)
    errors = []
    for rank in (1, 8, 32):
        base = _base(llama, quantization, r=rank, lora_alpha=2 * rank, init="loftq")
        errors.append([_left(whole, base, added=on) for on in (False, True)])
        assert base.drift() == 0
    assert len({plain for plain, _ in errors}) == 1
    assert errors[0][0] > errors[0][1] > errors[1][1] > errors[2][1]
    assert float((_logits(base, "it") - _logits(whole, None)).norm()) < 0.5 * float((_logits(base, None) - _logits(whole, None)).norm())


def _left(whole: Base, base: Base, *, added: bool) -> float:
    """How far the weights are from those that were quantized, with the adapter's product or without (Frobenius)."""
    from bitsandbytes.functional import dequantize_4bit

    total = 0.0
    for key, layer in base.model.named_modules():
        if hasattr(layer, "lora_A"):
            held: Any = layer.base_layer.weight
            weight = dequantize_4bit(held.data, held.quant_state).float()
            if added:
                weight = weight + layer.scaling["it"] * layer.lora_B["it"].weight @ layer.lora_A["it"].weight
            total += (whole.model.get_submodule(key).weight - weight).norm().item() ** 2
    return total**0.5


def test_a_loftq_run_learns_opens_again_and_is_not_merged(llama: Path, tmp_path: Path) -> None:
    options = {"quantization": "nf4", "dtype": "float32", "init": "loftq", "r": 4, "max_steps": 6, "learning_rate": 1e-2}
    run = nbtune.finetune("lora", task=ticket_task(), model=llama, num_samples=0, **options).wait()
    prompt = ticket_task().test[0].prompt
    before = run.engine().logits(prompt)
    nbtune.models.unload()
    assert torch.equal(nbtune.open(run.id).engine().logits(prompt), before)
    with pytest.raises(RunError, match="begins at what quantization loses") as refused:
        run.save(tmp_path / "merged", merge=True)
    assert refused.value.hint
