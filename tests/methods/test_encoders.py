"""Every method on encoders under a head over classes: counts, gradients, learning, the untouched base, saving and opening."""

from pathlib import Path
from typing import Any

import pytest
import torch

import nbtune
from nbtune.errors import NbtuneError
from tests.examples import ticket_task
from tests.methods.contract import Cell, check_beginning, check_count, check_gradients, check_learning
from tests.methods.support import EVERYWHERE, OPTIONS, SECOND_TIER, TRAINED, encoder_refusal
from tests.methods.test_methods import METHODS
from tests.tiny import ENCODERS, tiny_encoder

CASES = [
    (name, method) for name in ENCODERS for method in TRAINED if name == "bert" or method in EVERYWHERE or encoder_refusal(method, name)
]
ON_BERT = [method for method in TRAINED if not encoder_refusal(method, "bert")]


@pytest.fixture(scope="module", params=ENCODERS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(request.param, tmp_path_factory.mktemp("encoders") / request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder("bert", tmp_path_factory.mktemp("encoder"))


def _cell(method: str, folder: Path, quantization: str | None = None, **options: Any) -> Cell:
    return Cell(method, folder, {**OPTIONS.get(method, {}), **options}, "classification", quantization)


@pytest.mark.parametrize(("family", "method"), CASES, indirect=["family"])
def test_what_is_trained_is_what_was_counted_with_its_head_and_the_base_stays_as_it_was(family: Path, method: str) -> None:
    _holds_or_is_refused(family, method)


@pytest.mark.parametrize("method", SECOND_TIER)
def test_the_second_tier_trains_what_was_counted_with_its_head_and_leaves_the_base_as_it_was(bert: Path, method: str) -> None:
    _holds_or_is_refused(bert, method)


def _holds_or_is_refused(family: Path, method: str) -> None:
    cell = _cell(method, family)
    if reason := encoder_refusal(method, family.name):
        with pytest.raises(NbtuneError, match=reason) as refused:
            cell.estimate()
        assert refused.value.hint
        return
    base = cell.attached()
    check_beginning(cell, base)
    check_count(cell, base)
    check_gradients(cell, base)
    assert base.drift() == 0


@pytest.mark.parametrize("method", ON_BERT)
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


def test_last_blocks_leaves_alone_the_norm_of_positions_that_each_block_reads(tmp_path: Path) -> None:
    cell = _cell("last-blocks", tiny_encoder("deberta-v2", tmp_path, norm_rel_ebd="layer_norm"))
    base = cell.attached()
    assert {key.split(".")[0] for key in base.trained("it") if ".layer.1." not in key} == {"classifier"}
    check_count(cell, base)
    check_gradients(cell, base)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", [*ON_BERT, *SECOND_TIER])
def test_in_half_precision_a_step_is_taken_too(bert: Path, method: str, dtype: str) -> None:
    options = {**OPTIONS.get(method, {}), "dtype": dtype, "max_steps": 2, "num_samples": 0}
    run = nbtune.finetune(method, task=ticket_task(), model=bert, objective="classification", **options).wait()
    assert run.status == "finished"
    with torch.no_grad():
        assert run.model.model(torch.arange(1, 9)[None]).logits.shape[-1] == 3


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("method", ["lora", "adapter", "head", "prompt-tuning"])
def test_on_a_quantized_encoder_the_head_stays_whole_and_it_learns(bert: Path, method: str, quantization: str) -> None:
    cell = _cell(method, bert, quantization, learning_rate=1e-2)
    base = cell.attached()
    assert {parameter.dtype for key, parameter in base.trained("it").items() if key.startswith("classifier.")} == {torch.float32}
    check_learning(cell, base, least=0.01)
    assert base.drift() == 0
