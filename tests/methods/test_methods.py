"""What every method promises, on a random Llama: counts, gradients, learning, the untouched base, saving and opening."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import nbtune
from nbtune.errors import ModelError, NbtuneError, RunError, SpecError
from nbtune.methods import get
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from tests.examples import echo_task, ticket_task
from tests.methods.contract import (
    Cell,
    check_beginning,
    check_caching,
    check_count,
    check_gradients,
    check_merging,
    check_off,
    check_opening,
    check_splitting,
    stir,
)
from tests.methods.support import OPTIONS, SECOND_TIER, TRAINED
from tests.tiny import tiny, tiny_llama

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4},
    "rslora": {"r": 4},
    "dora": {"r": 4},
    "pissa": {"r": 4},
    "adalora": {"init_r": 6, "target_r": 4},
    "vera": {"r": 16, "learning_rate": 5e-2},
    "loha": {"r": 4},
    "lokr": {"r": 4, "learning_rate": 3e-2},
    "oft": {"oft_block_size": 8},
    "boft": {},
    "hra": {"r": 4},
    "fourierft": {"n_frequency": 100, "learning_rate": 5e-2},
    "ia3": {"learning_rate": 5e-2},
    "adapter": {"bottleneck_size": 8},
    "adaption-prompt": {"adapter_len": 6, "learning_rate": 5e-2},
    "prompt-tuning": {"num_virtual_tokens": 6, "learning_rate": 0.3},
    "p-tuning": {"num_virtual_tokens": 6, "encoder_hidden_size": 16, "learning_rate": 3e-2},
    "prefix-tuning": {"num_virtual_tokens": 6, "learning_rate": 5e-2},
    "cpt": {"num_virtual_tokens": 24, "opt_projection_epsilon": 10.0, "learning_rate": 0.1},
    "multitask-prompt-tuning": {**OPTIONS["multitask-prompt-tuning"], "num_virtual_tokens": 6, "learning_rate": 0.1},
    "full": {"learning_rate": 1e-3},
    "last-blocks": {"num_blocks": 1},
    "head": {},
    "bitfit": {"learning_rate": 3e-2},
    "layernorm": {"learning_rate": 3e-2},
    "trainable-tokens": {**OPTIONS["trainable-tokens"], "learning_rate": 5e-2},
    "randlora": {"r": 8},
    "waveft": {"n_frequency": 200},
    "c3a": {"block_size": 16},
    "vblora": {"vector_length": 16, "num_vectors": 32, "learning_rate": 5e-2},
    "shira": {"r": 4},
    "road": {"group_size": 16},
    "miss": {"r": 8},
    "tinylora": {"learning_rate": 5e-2},
    "gralora": {"r": 8},
    "unilora": {"learning_rate": 5e-2},
    "psoft": {"r": 8},
    "peanut": {"r": 8},
    "osf": {"learning_rate": 1e-3},
}
WITH_BIASES = {"bitfit": "opt"}
LEAST = {
    "prompt-tuning": 0.02,
    "p-tuning": 0.02,
    "prefix-tuning": 0.02,
    "cpt": 0.02,
    "multitask-prompt-tuning": 0.02,
    "adaption-prompt": 0.02,
}
"""Nats by which the loss has to fall where it is less than 0.1: a random model has little for a soft prompt to work with."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def suited(method: str, folder: Path, tmp_path: Path) -> Path:
    """A model that the method can adapt."""
    return tiny(WITH_BIASES[method], tmp_path / "suited") if method in WITH_BIASES else folder


def test_the_contract_covers_every_method() -> None:
    assert set(METHODS) == {*TRAINED, *SECOND_TIER}


@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_one_says_what_the_base_says_the_count_is_what_is_trained_and_nothing_else_gets_a_gradient(
    suited: Path, method: str
) -> None:
    cell = Cell(method, suited, METHODS[method])
    base = cell.attached()
    check_beginning(cell, base)
    check_count(cell, base)
    check_gradients(cell, base)
    assert cell.estimate().peak_memory_bytes > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_run_lowers_the_loss_leaves_the_base_alone_and_opens_again_with_equal_logits(suited: Path, method: str) -> None:
    task = ticket_task()
    if method == "multitask-prompt-tuning":
        task = nbtune.instructions({"one": ticket_task(), "two": echo_task()})
    run = nbtune.finetune(
        method, task=task, model=suited, dtype="float32", **{"learning_rate": 1e-2, **METHODS[method]}, num_train_epochs=6
    )
    run.wait()
    history = run.history["loss"].dropna()
    assert run.status == "finished"
    assert history.iloc[-3:].mean() < history.iloc[0] - LEAST.get(method, 0.1)
    prompt = task.test[0].prompt
    tuned = run.engine().logits(prompt)
    comparison = nbtune.compare(["zero-shot", run], task=task)
    assert comparison.warnings == []
    assert any("on, logits differ" in check for check in comparison.checks)
    assert any("off, logits equal" in check for check in comparison.checks)
    nbtune.models.unload()
    again = nbtune.open(run.id).engine()
    assert torch.equal(again.logits(prompt), tuned)


@pytest.mark.parametrize("method", METHODS)
def test_packing_accumulation_checkpointing_and_caching_change_no_number_and_off_is_the_base(suited: Path, method: str) -> None:
    cell = Cell(method, suited, METHODS[method])
    base = cell.attached()
    stir(base)
    check_splitting(cell, base)
    check_caching(cell, base)
    check_off(cell, base)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_saved_opens_on_a_fresh_base_and_merges_into_it(suited: Path, tmp_path: Path, method: str) -> None:
    cell = Cell(method, suited, METHODS[method])
    base = cell.attached()
    stir(base)
    check_opening(cell, base, tmp_path)
    check_merging(cell, base, tmp_path)


def test_what_cannot_be_merged_is_told_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    run = nbtune.finetune("adapter", task=ticket_task(), model=folder, dtype="float32", max_steps=2).wait()
    with pytest.raises(RunError, match="cannot be merged") as error:
        run.save(tmp_path / "merged", merge=True)
    assert error.value.hint
    assert not (tmp_path / "merged").exists()


def test_a_merged_model_that_says_something_else_is_not_saved(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = nbtune.finetune("lora", task=ticket_task(), model=folder, dtype="float32", max_steps=6, learning_rate=5e-2).wait()
    monkeypatch.setattr("peft.PeftModel.merge_and_unload", lambda self: self.unload(), raising=False)
    with pytest.raises(RunError, match="merged, the model says something else") as refused:
        run.save(tmp_path / "merged", merge=True)
    assert refused.value.hint
    assert [path.name for path in tmp_path.iterdir() if path.name != ".nbtune"] == []


def test_a_damaged_checkpoint_is_not_saved_elsewhere(folder: Path, tmp_path: Path) -> None:
    run = nbtune.finetune("lora", task=ticket_task(), model=folder, dtype="float32", max_steps=2).wait()
    path = run.folder / "checkpoints" / "step-000002" / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match="is not what was written"):
        run.save(tmp_path / "adapter")
    assert [path.name for path in tmp_path.iterdir() if path.name != ".nbtune"] == []


@pytest.mark.parametrize("method", ["lora", "last-blocks"])
def test_what_was_learnt_is_not_put_on_another_model_of_the_same_name(tmp_path: Path, method: str) -> None:
    folder = tiny_llama(tmp_path / "model")
    options = {"num_blocks": 1} if method == "last-blocks" else {}
    run = nbtune.finetune(method, task=ticket_task(), model=folder, dtype="float32", max_steps=4, save_steps=1, **options)
    run.listen(lambda event: run.stop() if event.type == "step" and event.step == 2 else None)
    run.wait()
    prompt = ticket_task().test[0].prompt
    before = run.engine().logits(prompt)
    nbtune.models.unload()
    assert torch.equal(nbtune.open(run.id).engine().logits(prompt), before)
    nbtune.models.unload()
    shutil.rmtree(folder)
    tiny_llama(folder, seed=1)
    with pytest.raises(RunError, match="its weights are others") as refused:
        nbtune.open(run.id).engine()
    assert refused.value.hint
    with pytest.raises(RunError, match="its weights are others"):
        nbtune.open(run.id).save(tmp_path / "merged", merge=True)
    assert not (tmp_path / "merged").exists()
    with pytest.raises(RunError, match="its weights are others"):
        nbtune.open(run.id).resume().wait()


def test_a_run_on_an_object_is_not_put_on_the_files_of_its_name_where_these_are_others(folder: Path, tmp_path: Path) -> None:
    mine = nbtune.models.load(folder, dtype="float32")
    with torch.no_grad():
        mine.model.get_input_embeddings().weight.add_(0.1)
    run = nbtune.finetune("lora", task=ticket_task(), model=mine, max_steps=2, num_samples=0).wait()
    with pytest.raises(RunError, match="its weights are others"):
        run.save(tmp_path / "merged", merge=True)
    nbtune.models.unload()
    with pytest.raises(RunError, match="its weights are others"):
        nbtune.open(run.id).predict(["a parcel"])


def test_an_object_that_is_quantized_is_refused_what_a_quantized_base_is(folder: Path) -> None:
    for quantization, method in (("nf4", "full"), ("int8", "hra"), ("nf4", "pissa"), ("nf4", "bitfit")):
        mine = nbtune.models.load(folder, quantization=quantization)
        with pytest.raises(NbtuneError, match=quantization):
            nbtune.finetune(method, task=ticket_task(), model=mine, max_steps=1).wait()
    mine = nbtune.models.load(folder, quantization="nf4")
    run = nbtune.finetune("lora", task=ticket_task(), model=mine, max_steps=12, learning_rate=1e-2, num_samples=0).wait()
    assert run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]


@pytest.mark.parametrize("method", ["full", "last-blocks", "lora"])
def test_a_base_of_16_bits_is_multiplied_in_16_bits_whatever_is_trained(folder: Path, method: str) -> None:
    base = own_base(source_of(folder), dtype="bfloat16", quantization=None, device="cpu")
    get(method).attach(base, get(method).spec.build({}), "it")
    assert base.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in base.trained("it").values()} == {torch.float32}
    with base.lease("it" if base.has_adapter("it") else None, training=True) as model:
        out = model(input_ids=torch.arange(8)[None])
        assert out.logits.dtype == torch.bfloat16


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
        ("lora", {"r": 33}, "self_attn.k_proj is 32 x 64: no change of it has a rank above 32"),
        ("dora", {"r": 100, "target_modules": ["q_proj"]}, "rank above 64"),
        ("lora", {"target_modules": ["q_prj"]}, "no module 'q_prj'"),
        ("lora", {"layers_to_transform": [7]}, "blocks 0 to 1"),
        ("lora", {"bias": "all"}, "other cells share"),
        ("last-blocks", {"num_blocks": 9}, "has 2 blocks"),
        ("lora", {"init": "kaiming"}, "init cannot be 'kaiming'"),
        ("lora", {"init": "loftq"}, "begins at what 4 bits lose of the base, which is not quantized"),
        ("lora", {"init": "loftq", "quantization": "int8"}, "which is held as int8"),
        ("lora", {"init": "olora", "quantization": "nf4"}, "begins at the weights themselves, and the base is held as nf4"),
        ("dora", {"init_lora_weights": "pissa"}, "DoRA takes the lengths of the columns before that"),
        ("trainable-tokens", {}, "tokens is missing"),
        ("trainable-tokens", {"tokens": ["a", "qx"]}, r"'qx' is not one token of this model but 'q', 'x'"),
        ("trainable-tokens", {"tokens": ["a", "a"]}, "'a' is there twice"),
        ("c3a", {}, "c3a cannot be put on .* block size"),
        ("road", {"layers_to_transform": [1]}, "takes no layers_to_transform"),
        ("gralora", {"quantization": "nf4"}, "gralora does not work on a base held as nf4"),
        ("full", {"quantization": "nf4"}, "cannot be trained"),
        ("loha", {"quantization": "nf4"}, "loha does not work on a base held as nf4"),
        ("dora", {"quantization": "int8"}, "cannot read from a base held as int8"),
        ("ia3", {"target_modules": ["k_prj"]}, "no module 'k_prj'"),
        ("ia3", {"feedforward_modules": ["down_proj"]}, "not all among target_modules"),
        ("bitfit", {}, "has no biases for bitfit"),
        ("bitfit", {"quantization": "nf4"}, "held as nf4 keeps in 16 bits, where small updates are lost"),
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
