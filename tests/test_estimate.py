"""What an estimate promises: it rises with what costs memory, knows a huge model from its config, and refuses with what does fit."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

import nbtune
from nbtune.errors import ModelError
from nbtune.estimate import changes_that_fit, estimate_spec, fits, resolve_checkpointing
from nbtune.estimate.step import Shape, micro_step
from nbtune.methods import get
from nbtune.models.base import Base
from nbtune.models.loading import LoadedModel, source_of
from nbtune.models.shared import own_base
from nbtune.models.skeleton import skeleton
from tests.examples import echo_task, ticket_task
from tests.tiny import tiny_llama

LARGE = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig

    path = tmp_path_factory.mktemp("large")
    LlamaConfig(vocab_size=128256, max_position_embeddings=8192, tie_word_embeddings=False, **LARGE).save_pretrained(path)
    return path


def peak(folder: Path, method: str = "lora", **options: Any) -> int:
    return nbtune.estimate(method, model=folder, dtype="float32", **options).peak_memory_bytes


def test_a_70b_shape_is_estimated_from_its_config_alone(large: Path) -> None:
    options = {"model": large, "dtype": "bfloat16", "device": "cpu", "per_device_train_batch_size": 1}
    lora = nbtune.estimate("lora", r=16, **options)
    assert lora.total_parameters - lora.trainable_parameters == 70_553_706_496  # Llama 3 70B
    assert lora.trainable_parameters == 80 * 16 * (8192 * 2 + 2 * (8192 + 1024) + 8192 * 2 + 3 * (8192 + 28672))
    assert lora.weights_bytes == 70_553_706_496 * 2 + lora.trainable_parameters * 4
    quantized = nbtune.estimate("lora", r=16, quantization="nf4", **options)
    assert quantized.weights_bytes < 0.35 * lora.weights_bytes
    full = nbtune.estimate("full", **options)
    assert full.trainable_parameters == full.total_parameters == 70_553_706_496
    assert full.peak_memory_bytes > 16 * 70_553_706_496


def test_the_peak_rises_with_batch_length_rank_and_depth_and_falls_with_checkpointing_and_quantization(folder: Path) -> None:
    plain = {"per_device_train_batch_size": 4, "max_length": 64}
    for name, values in (("per_device_train_batch_size", (4, 8, 16)), ("max_length", (64, 128, 256)), ("r", (8, 16, 32))):
        peaks = [peak(folder, **{**plain, name: value}) for value in values]
        assert peaks == sorted(set(peaks))
    assert peak(folder, "last-blocks", num_blocks=1, **plain) < peak(folder, "last-blocks", num_blocks=2, **plain)
    assert peak(folder, "head", **plain) < peak(folder, "full", **plain)
    assert peak(folder, gradient_checkpointing=True, **plain) < peak(folder, **plain)
    assert peak(folder, "full", gradient_accumulation_steps=2, **plain) >= peak(folder, "full", **plain)
    assert peak(folder, "full", optim="sgd", **plain) < peak(folder, "full", optim="adamw_8bit", **plain) < peak(folder, "full", **plain)


def test_text_that_is_rehearsed_or_watched_counts_in_the_peak_as_many_pieces_at_once_as_rows(folder: Path) -> None:
    """A piece has up to 128 tokens; watching keeps the base's log-probabilities beside the model's own."""
    short: dict[str, Any] = {"task": echo_task(), "per_device_train_batch_size": 8}
    plain, rehearsed = peak(folder, **short), peak(folder, replay=0.9, **short)
    watched = peak(folder, replay=0.9, kl_to_base=1.0, **short)
    assert plain < rehearsed < watched
    parts = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    assert peak(folder, replay=0.9, **{**short, **parts}) < rehearsed
    without, guarded = (nbtune.estimate("lora", model=folder, **short, **guard) for guard in ({}, {"replay": 0.9}))
    assert without.seconds_per_epoch is not None
    assert guarded.seconds_per_epoch is not None
    assert without.seconds_per_epoch < guarded.seconds_per_epoch


def test_what_a_method_remembers_of_each_parameter_counts_beside_the_moments(folder: Path) -> None:
    """AdaLoRA keeps three float32 numbers of each, as its scores need them."""
    few: dict[str, Any] = {"dtype": "float32", "max_length": 16, "per_device_train_batch_size": 1}
    counted = [nbtune.estimate("adalora", model=folder, init_r=rank, target_r=2, **few) for rank in (16, 32)]
    more = counted[1].trainable_parameters - counted[0].trainable_parameters
    least = (4 + 4 + 2 * (8 + 12) + 4) * more  # the weight, its gradient, moments and scores; what a checkpoint copies of them
    assert counted[1].peak_memory_bytes - counted[0].peak_memory_bytes >= least


@pytest.mark.parametrize(("method", "options"), [("lora", {"r": 4}), ("full", {}), ("head", {}), ("last-blocks", {"num_blocks": 1})])
@pytest.mark.parametrize("how", ["plain", "checkpointing", "accumulating"])
def test_two_blocks_stand_for_all(tmp_path: Path, method: str, options: dict[str, Any], how: str, monkeypatch: Any) -> None:
    from transformers import LlamaConfig

    sizes = {
        **LARGE,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 7,
    }
    LlamaConfig(vocab_size=300, tie_word_embeddings=True, **sizes).save_pretrained(tmp_path)

    def found() -> Any:
        source = source_of(tmp_path)
        base = Base(LoadedModel(skeleton(source), None, source.config, source.name))  # type: ignore[arg-type]
        get(method).attach(base, get(method).spec.build(options), "it")
        said = {"dtype": torch.bfloat16, "device": torch.device("cpu"), "quantization": None, "accumulating": how == "accumulating"}
        return micro_step(base, "it", Shape((96,), 20, packed=True), checkpointing=how == "checkpointing", **said)  # type: ignore[arg-type]

    short = found()
    monkeypatch.setattr(importlib.import_module("nbtune.estimate.step"), "_RUN", 7)
    whole = found()
    assert short.peak == pytest.approx(whole.peak, rel=0.05)
    assert short.work.flops == pytest.approx(whole.work.flops, rel=0.01)


def test_a_step_on_shapes_holds_what_a_real_one_holds(folder: Path) -> None:
    """Saved activations, counted by torch's own hooks on a real model, are all alive at the end of the forward."""
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    get("lora").attach(base, get("lora").spec.build({}), "it")
    held: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in base.model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids, mask = torch.zeros(1, 256, dtype=torch.long), torch.ones(1, 1, 256, 256, dtype=torch.bool)
    with base.lease("it", training=True) as model, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(input_ids=ids, attention_mask=mask, position_ids=ids, use_cache=False)
    source = source_of(folder)
    empty = Base(LoadedModel(skeleton(source), None, source.config, source.name))  # type: ignore[arg-type]
    get("lora").attach(empty, get("lora").spec.build({}), "it")
    said = {"dtype": torch.float32, "device": torch.device("cpu"), "quantization": None, "checkpointing": False, "accumulating": False}
    told = micro_step(empty, "it", Shape((256,), 1, packed=True), **said)  # type: ignore[arg-type]
    assert out.logits.requires_grad
    assert told.peak == pytest.approx(sum(held.values()), rel=0.15)


def test_with_a_task_the_rows_own_lengths_count_and_an_epoch_has_a_time(folder: Path) -> None:
    task = echo_task()
    short = nbtune.estimate("lora", model=folder, task=task, max_length=512)
    blind = nbtune.estimate("lora", model=folder, max_length=512)
    assert short.peak_memory_bytes < blind.peak_memory_bytes
    assert blind.seconds_per_epoch is None
    padded = nbtune.estimate("lora", model=folder, task=task, packing=False)
    packed = nbtune.estimate("lora", model=folder, task=task, packing=True)
    assert packed != padded
    assert short.steps_per_epoch == -(-len(task.train) // 8)
    assert short.seconds_per_epoch is not None
    assert short.seconds_per_epoch > 0


def test_a_model_whose_code_needs_numbers_is_estimated_roughly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def needs_numbers(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no numbers")

    exact = peak(folder, r=3, max_length=100)
    core = importlib.import_module("nbtune.estimate.core")  # `nbtune.estimate` is the function
    monkeypatch.setattr(core, "micro_step", needs_numbers)
    monkeypatch.setattr(core, "_known", {})
    assert 0.2 * exact < peak(folder, r=3, max_length=100) < 5 * exact


def test_a_run_that_cannot_fit_is_refused_with_changes_that_each_fit_by_the_estimate(folder: Path) -> None:
    source, spec = (
        source_of(folder),
        get("lora").spec.build({"dtype": "float32", "max_length": 256, "gradient_checkpointing": False, "r": 32}),
    )
    room = int(0.8 * estimate_spec("lora", spec, source).peak_memory_bytes)
    with pytest.raises(ModelError, match=r"needs about .* GB, and this machine has .* GB free") as error:
        fits("lora", spec, source, room=room)
    changes = changes_that_fit("lora", spec, source, room=room)
    assert {name for change in changes for name in change.options} >= {
        "per_device_train_batch_size",
        "max_length",
        "gradient_checkpointing",
    }
    for change in changes:
        assert str(change) in error.value.hint
        changed = spec.model_copy(update=change.options)
        assert estimate_spec("lora", changed, source).peak_memory_bytes == change.estimate.peak_memory_bytes <= room
        assert changed.step_rows == spec.step_rows
        fits("lora", changed, source, room=room)


def test_changes_are_joined_where_none_is_enough_alone_and_none_is_told_where_nothing_helps(folder: Path) -> None:
    source, spec = source_of(folder), get("full").spec.build({"dtype": "float32", "max_length": 512})
    checkpointed = {"gradient_checkpointing": True}
    one, short = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}, {"max_length": 32}

    def need(**options: Any) -> int:
        return estimate_spec("full", spec.model_copy(update={**checkpointed, **options}), source).peak_memory_bytes

    (joined,) = changes_that_fit("full", spec, source, room=(min(need(**one), need(**short)) + need(**one, **short)) // 2)
    assert {"per_device_train_batch_size", "max_length"} <= set(joined.options)
    with pytest.raises(ModelError) as error:
        fits("full", spec, source, room=1000)
    assert "smaller model" in error.value.hint


def test_checkpointing_left_to_auto_is_on_only_where_it_makes_the_run_fit(folder: Path) -> None:
    source, spec = source_of(folder), get("lora").spec.build({"dtype": "float32", "max_length": 256})
    off, on = (
        estimate_spec("lora", spec.model_copy(update={"gradient_checkpointing": value}), source).peak_memory_bytes
        for value in (False, True)
    )
    assert on < off
    assert resolve_checkpointing("lora", spec, source, room=off) is False
    assert resolve_checkpointing("lora", spec, source, room=(on + off) // 2) is True
    assert resolve_checkpointing("lora", spec, source, room=on // 2) is False
    assert fits("lora", spec, source, room=(on + off) // 2)[0].gradient_checkpointing is True


def test_checkpointed_training_has_the_same_gradients_and_leaves_others_without_it(folder: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
        get("lora").attach(base, get("lora").spec.build({}), "it")
        ids = torch.arange(24)[None]
        with base.lease("it", training=True, checkpointing=checkpointing) as model:
            assert base.model.is_gradient_checkpointing is checkpointing
            model(input_ids=ids, labels=ids).loss.backward()
        assert base.model.is_gradient_checkpointing is False
        gradients.append({name: parameter.grad.clone() for name, parameter in base.trained("it").items() if parameter.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name])


def test_a_run_that_does_not_fit_is_refused_before_anything_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbtune.models.device.available_bytes", lambda _: 1000)
    monkeypatch.setattr("nbtune.models.shared.own_base", lambda *_, **__: pytest.fail("it was loaded"))
    nbtune.models.unload()
    with pytest.raises(ModelError, match="GB free"):
        nbtune.finetune("full", task=ticket_task(), model=folder).wait()
