"""Every method on encoders under a head over classes: counts, gradients, learning, the untouched base, saving and opening."""

from pathlib import Path
from typing import Any

import pytest
import torch

import nbtune
from nbtune.data.batches import collate
from nbtune.data.encoding import encode_rows
from nbtune.errors import NbtuneError
from nbtune.methods import attach, first_ids, get
from nbtune.models.base import Base
from nbtune.models.shared import own_base
from nbtune.objectives import encoder_for, source_for
from nbtune.objectives import get as objective
from tests.examples import ticket_task
from tests.methods.support import OPTIONS, TRAINED, encoder_refusal
from tests.methods.test_methods import METHODS
from tests.tiny import ENCODERS, tiny_encoder


@pytest.fixture(scope="module", params=ENCODERS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(request.param, tmp_path_factory.mktemp("encoders") / request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder("bert", tmp_path_factory.mktemp("encoder"))


def _spec(method: str, **options: Any) -> Any:
    return get(method).spec.build({"objective": "classification", **options})


def _base(method: str, folder: Path, name: str = "it", **options: Any) -> tuple[Base, Any]:
    spec = _spec(method, **options)
    source = source_for("classification", folder, ticket_task())
    base = own_base(source, dtype="float32", quantization=options.get("quantization"), device="cpu")
    attach(get(method), base, spec, name)
    return base, spec


def _loss(base: Base, method: str, spec: Any, *, training: bool, rows: int = 6) -> torch.Tensor:
    task = ticket_task()
    encoder = encoder_for(task, spec, base.tokenizer, base.config, first_ids(get(method), spec, base.config))
    encoded, _ = encode_rows(encoder, task.train[:rows], max_length=128)
    with base.lease("it" if base.has_adapter("it") else None, training=training) as model:
        loss, weight = objective("classification").loss(model, collate(encoded, packed=False, pad_id=0))
        if training:
            (loss / weight).backward()
    return loss.detach() / weight


@pytest.mark.parametrize("method", TRAINED)
def test_what_is_trained_is_what_was_counted_with_its_head_and_the_base_stays_as_it_was(family: Path, method: str) -> None:
    options = OPTIONS.get(method, {})
    if reason := encoder_refusal(method, family.name):
        with pytest.raises(NbtuneError, match=reason) as refused:
            nbtune.estimate(method, model=family, task=ticket_task(), objective="classification", **options)
        assert refused.value.hint
        return
    expected = nbtune.estimate(method, model=family, task=ticket_task(), objective="classification", **options)
    base, spec = _base(method, family, **options)
    trained = base.trained("it")
    assert sum(parameter.numel() for parameter in trained.values()) == expected.trainable_parameters > 0
    assert sum(parameter.numel() for parameter in base.model.parameters()) == expected.total_parameters
    heads = {key for key in trained if key.startswith("classifier.")}
    assert len(heads) == 2
    _loss(base, method, spec, training=True)
    moved = {name for name, parameter in base.model.named_parameters() if parameter.grad is not None and parameter.grad.abs().sum() > 0}
    assert heads <= moved <= set(trained)
    assert base.drift() == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_run_lowers_the_loss_predicts_and_opens_again_with_equal_logits(bert: Path, method: str) -> None:
    task = ticket_task()
    options = {"learning_rate": 1e-2, **METHODS[method], "num_train_epochs": 5}
    run = nbtune.finetune(method, task=task, model=bert, objective="classification", dtype="float32", **options).wait()
    history = run.history["loss"]
    assert history.iloc[-3:].mean() < history.iloc[:3].mean() - 0.05
    prompt = task.test[0].prompt
    tuned = run.engine().logits(prompt)
    assert tuned.shape == (3,)
    comparison = nbtune.compare([run], task=task)
    assert comparison.warnings == []
    assert any("on, logits differ" in check for check in comparison.checks)
    assert any("off, logits equal" in check for check in comparison.checks)
    nbtune.models.unload()
    assert torch.equal(nbtune.open(run.id).engine().logits(prompt), tuned)


@pytest.mark.parametrize("method", ["lora", "bitfit"])
def test_a_run_on_every_encoder_opens_again_with_equal_logits(family: Path, method: str) -> None:
    run = nbtune.finetune(method, task=ticket_task(), model=family, objective="classification", max_steps=2, num_samples=0).wait()
    prompt = ticket_task().test[0].prompt
    before = run.engine().logits(prompt)
    nbtune.models.unload()
    torch.manual_seed(4)
    assert torch.equal(nbtune.open(run.id).engine().logits(prompt), before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", TRAINED)
def test_in_half_precision_a_step_is_taken_too(bert: Path, method: str, dtype: str) -> None:
    options = {**OPTIONS.get(method, {}), "dtype": dtype, "max_steps": 2, "num_samples": 0}
    run = nbtune.finetune(method, task=ticket_task(), model=bert, objective="classification", **options).wait()
    assert run.status == "finished"


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("method", ["lora", "adapter", "head", "prompt-tuning"])
def test_on_a_quantized_encoder_the_head_stays_whole_and_it_learns(bert: Path, method: str, quantization: str) -> None:
    base, spec = _base(method, bert, quantization=quantization, **OPTIONS.get(method, {}))
    assert {parameter.dtype for key, parameter in base.trained("it").items() if key.startswith("classifier.")} == {torch.float32}
    optimizer = torch.optim.AdamW(base.trained("it").values(), lr=1e-2)
    losses = []
    for _ in range(6):
        losses.append(float(_loss(base, method, spec, training=True)))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.01
    assert base.drift() == 0
