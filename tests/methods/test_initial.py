"""Where LoRA begins: at the base's own logits whatever the factors are, at peft's factors, and with LoftQ nearer to what was quantized."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sklearn.decomposition import PCA
from transformers import AutoModelForCausalLM

import nbtune
from nbtune.data.encoded import Encoded
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.errors import RunError, SpecError
from nbtune.methods import attach, begin, get
from nbtune.methods.initial import begin_at_inputs
from nbtune.models.base import Base
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from tests.examples import text_task, ticket_task
from tests.tiny import tiny, tiny_encoder

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


def _evaluated(folder: Path, rows: int, **options: Any) -> tuple[Base, list[Any]]:
    """A base whose LoRA begins at what layers read of so many rows, and these rows."""
    base, task = _base(folder, init="eva", **options), ticket_task()
    encoded, _ = encode_rows(Encoder(base.tokenizer), task.train[:rows], max_length=256)
    begin(get("lora"), base, get("lora").spec.build({"init": "eva", **options}), "it", task=task, rows=encoded)
    return base, encoded


def _read_by(base: Base, layer: Any, rows: list[Any]) -> torch.Tensor:
    """What the layer reads of the rows [tokens, features], one row after the other; of each as many tokens as training looks at."""
    read = []
    hook = layer.register_forward_pre_hook(lambda _, args: read.append(args[0].flatten(0, -2).float()))
    for row in rows:
        with base.lease("it") as model:
            model(input_ids=torch.tensor([row.ids]))
    hook.remove()
    return torch.cat(read)


def test_from_eva_a_begins_at_the_principal_components_of_what_its_layer_reads_as_scikit_learn_finds_them(folder: Path) -> None:
    base, rows = _evaluated(folder, 4, r=4)
    assert sum(len(row.ids) for row in rows) < 256  # found at once, and not from part to part
    layers = {key: layer for key, layer in base.model.named_modules() if hasattr(layer, "lora_A") and "it" in layer.lora_A}
    assert len(layers) > 4
    for key, layer in layers.items():
        wanted = torch.tensor(PCA(n_components=4, svd_solver="full").fit(_read_by(base, layer, rows).numpy()).components_)
        found = layer.lora_A["it"].weight.detach()
        torch.testing.assert_close((found @ wanted.T).abs(), torch.eye(4), rtol=1e-2, atol=1e-2, msg=key)
        assert not layer.lora_B["it"].weight.any()
    assert torch.equal(_logits(base, "it"), _logits(base, None))


def test_eva_finds_nearly_the_same_from_part_to_part_as_at_once(llama: Path) -> None:
    base, rows = _evaluated(llama, 60, r=2)
    layer: Any = base.model.get_submodule("model.layers.0.mlp.down_proj")
    read = _read_by(base, layer, rows)
    assert len(read) > 512
    wanted = torch.tensor(PCA(n_components=2, svd_solver="full").fit(read[:2048].numpy()).components_)
    inside = (layer.lora_A["it"].weight.detach() @ wanted.T).norm() ** 2 / 2  # how much of one plane lies in the other
    assert inside > 0.9


@pytest.mark.parametrize(("quantization", "dora"), [(None, True), ("nf4", False), ("int8", False)])
def test_eva_goes_with_what_needs_no_weights(llama: Path, quantization: str | None, dora: bool) -> None:
    options = {"init": "eva", "r": 4, "use_dora": dora, "quantization": quantization, "dtype": "float32", "num_train_epochs": 1}
    run = nbtune.finetune("lora", task=ticket_task(), model=llama, num_samples=0, learning_rate=1e-2, **options).wait()
    losses = run.history["loss"].dropna()
    assert losses.iloc[-3:].mean() < losses.iloc[0]


class _Disturbed(list[Any]):
    """Rows between which others ask the base on whose layers the adapter is."""

    def __init__(self, rows: list[Any], base: Base) -> None:
        super().__init__(rows)
        self.base = base

    def __iter__(self) -> Iterator[Any]:
        for row in super().__iter__():
            yield row
            with self.base.lease("beside") as model:
                model(input_ids=IDS)


def test_eva_reads_no_rows_of_others_who_ask_the_base_meanwhile(llama: Path) -> None:
    alone, rows = _evaluated(llama, 4, r=4)
    base = _base(llama, r=4, init="eva")
    attach(get("lora"), base, get("lora").spec.build({"r": 4}), "beside")
    begin_at_inputs(base, "it", _Disturbed(rows, base))
    for key, value in base.trained("it").items():
        assert torch.equal(value, alone.trained("it")[key])


def test_loftq_goes_with_an_encoder_that_learns_from_whole_texts(tmp_path: Path) -> None:
    options = {"objective": "mlm", "quantization": "nf4", "dtype": "float32", "init": "loftq", "r": 4, "max_steps": 2, "num_samples": 0}
    run = nbtune.finetune("lora", task=text_task(), model=tiny_encoder("bert", tmp_path), **options).wait()
    assert run.status == "finished"


def test_eva_reads_for_an_encoder_what_its_head_reads(tmp_path: Path) -> None:
    options = {"init": "eva", "r": 4, "objective": "classification", "max_steps": 2}
    assert nbtune.finetune("lora", task=ticket_task(), model=tiny_encoder("bert", tmp_path), **options).wait().status == "finished"


def test_fewer_tokens_than_ranks_are_an_error_with_both(llama: Path) -> None:
    base = _base(llama, init="eva", r=8)
    with pytest.raises(SpecError, match="6 tokens do not have 8 of them") as refused:
        begin_at_inputs(base, "it", [Encoded((9, 8, 7, 6, 5, 4), 1)])
    assert "smaller r" in str(refused.value.hint)
