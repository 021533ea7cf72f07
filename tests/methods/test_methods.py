"""What every method promises, on a random Llama: counts, gradients, learning, the untouched base, saving and opening."""

from pathlib import Path
from typing import Any

import pytest
import torch

import nbtune
from nbtune.errors import ModelError, NbtuneError, SpecError
from nbtune.methods import get, names
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from tests.examples import ticket_task
from tests.tiny import tiny_llama

METHODS = {"lora": {"r": 4}, "full": {"learning_rate": 1e-3}, "head": {}, "last-blocks": {"num_blocks": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def test_the_contract_covers_every_method() -> None:
    assert set(METHODS) == set(names())


@pytest.mark.parametrize("method", METHODS)
def test_the_count_from_the_config_equals_what_is_trained_and_nothing_else_gets_a_gradient(folder: Path, method: str) -> None:
    chosen = get(method)
    spec = chosen.spec.build(METHODS[method])
    expected = nbtune.estimate(method, model=folder, **METHODS[method])
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    chosen.attach(base, spec, "it")
    trained = base.trained("it")
    assert sum(parameter.numel() for parameter in trained.values()) == expected.trainable_parameters > 0
    assert sum(parameter.numel() for parameter in base.model.parameters()) == expected.total_parameters
    with base.lease("it" if base.has_adapter("it") else None, training=True) as model:
        model(input_ids=torch.arange(12)[None], labels=torch.arange(12)[None]).loss.backward()
    moved = {name for name, parameter in base.model.named_parameters() if parameter.grad is not None}
    assert moved == set(trained)
    assert expected.peak_memory_bytes > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_run_lowers_the_loss_leaves_the_base_alone_and_opens_again_with_equal_logits(folder: Path, method: str) -> None:
    task = ticket_task()
    run = nbtune.finetune(
        method, task=task, model=folder, dtype="float32", **{"learning_rate": 1e-2, **METHODS[method]}, num_train_epochs=6
    )
    run.wait()
    history = run.history["loss"]
    assert run.status == "finished"
    assert history.iloc[-3:].mean() < 0.95 * history.iloc[:3].mean()
    prompt = task.test[0].prompt
    tuned = run.engine().logits(prompt)
    comparison = nbtune.compare(["zero-shot", run], task=task)
    assert comparison.warnings == []
    assert any("on, logits differ" in check for check in comparison.checks)
    assert any("off, logits equal" in check for check in comparison.checks)
    nbtune.models.unload()
    again = nbtune.open(run.id).engine()
    assert torch.equal(again.logits(prompt), tuned)


def test_lora_on_chosen_blocks_updates_every_linear_layer_of_those_alone(folder: Path) -> None:
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    for name in ("first", "second"):  # the second beside another run's adapter
        get("lora").attach(base, get("lora").spec.build({"layers_to_transform": [1], "r": 4}), name)
        layers = {key.rsplit(".lora_", 1)[0] for key in base.trained(name)}
        parts = (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        )
        assert layers == {f"model.layers.1.{part}" for part in parts}


def test_an_adapter_is_peft_s_own_file_and_a_merged_save_is_a_plain_model(folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    task = ticket_task()
    run = nbtune.finetune("lora", task=task, model=folder, dtype="float32", r=4, max_steps=4).wait()
    ids = torch.tensor([run.engine().encoder.prompt_ids(task.test[0].prompt)])
    expected = run.engine().logits(task.test[0].prompt)
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), run.save(tmp_path / "adapter"))
    merged = AutoModelForCausalLM.from_pretrained(run.save(tmp_path / "merged", merge=True), dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(peft(ids).logits[0, -1], expected, atol=1e-6)
        assert torch.allclose(merged(ids).logits[0, -1], expected, atol=1e-4)
    with pytest.raises(NbtuneError, match="not empty"):
        run.save(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("method", "options", "match"),
    [
        ("lora", {"r": 0}, "r must be at least 1"),
        ("lora", {"target_modules": ["q_prj"]}, "no module 'q_prj'"),
        ("lora", {"layers_to_transform": [7]}, "blocks 0 to 1"),
        ("lora", {"bias": "all"}, "other cells share"),
        ("last-blocks", {"num_blocks": 9}, "has 2 blocks"),
        ("full", {"quantization": "nf4"}, "cannot be trained"),
        ("last-blocks", {"quantization": "int8"}, "cannot be trained"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(folder: Path, method: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(NbtuneError, match=match) as error:
        nbtune.estimate(method, model=folder, **options)
    assert error.value.hint


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="no method 'lorra'") as error:
        get("lorra")
    assert error.value.hint == "did you mean 'lora'?"


def test_an_encoder_is_refused_where_text_is_to_be_written() -> None:
    with pytest.raises(ModelError, match="is an encoder: it reads text"):
        nbtune.estimate("lora", model="minilm")
