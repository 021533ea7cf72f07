"""Networks that only training needs: the outcome alone is asked and saved, and whoever goes on has the network again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import nbtune
from nbtune.methods import attach, finish, get
from nbtune.models.base import Base
from nbtune.models.families import vocabulary
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from nbtune.objectives import source_for
from tests.examples import ticket_task
from tests.tiny import tiny, tiny_encoder
from tests.training.runs import bytes_of, figures, start

WITH_NETWORK: dict[str, dict[str, Any]] = {
    "p-tuning": {"num_virtual_tokens": 4, "encoder_hidden_size": 16},
    "prefix-tuning": {"num_virtual_tokens": 4, "encoder_hidden_size": 16, "prefix_projection": True},
}
NETWORK = ("_first", "_second", "_third")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny("llama", tmp_path_factory.mktemp("tiny"))


def _network(names: Any) -> list[str]:
    return [name for name in names if any(f"{part}." in name for part in NETWORK)]


def _logits(base: Base, name: str, count: int = 4) -> torch.Tensor:
    first = range(vocabulary(base.config), vocabulary(base.config) + count)
    with base.lease(name) as model:
        return model(input_ids=torch.tensor([[*first, *range(20, 32)]])).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("method", WITH_NETWORK)
def test_folded_it_says_the_same_beside_another_adapter_and_the_base_is_left_alone(tmp_path: Path, method: str, family: str) -> None:
    base = own_base(source_of(tiny(family, tmp_path / family)), dtype="float32", quantization=None, device="cpu")
    spec = get(method).spec.build(WITH_NETWORK[method])
    for name in ("it", "other"):
        attach(get(method), base, spec, name)
        torch.manual_seed(len(name))
        with torch.no_grad():
            for parameter in base.trained(name).values():
                parameter.add_(0.1 * torch.randn_like(parameter))
    before, beside = _logits(base, "it"), _logits(base, "other")
    assert _network(base.trained("it"))
    finish(get(method), base, "it")
    assert not _network(base.trained("it"))
    torch.testing.assert_close(_logits(base, "it"), before, rtol=1e-5, atol=1e-5)
    assert torch.equal(_logits(base, "other"), beside)
    assert _network(base.trained("other"))
    assert base.drift() == 0
    assert (before - beside).abs().max() > 1e-3  # the two say different things


@pytest.mark.parametrize("method", WITH_NETWORK)
def test_a_finished_run_is_asked_saved_and_opened_without_the_network_and_goes_on_with_it(
    folder: Path, tmp_path: Path, method: str
) -> None:
    whole = start(folder, method, **WITH_NETWORK[method]).wait()
    run = start(folder, method, **WITH_NETWORK[method])
    run.listen(lambda event: run.stop() if event.type == "step" and event.step == 4 else None)
    run.wait()
    prompt = run.task.test[0].prompt
    amid = run.engine().logits(prompt)
    run.resume().wait()
    fork = run.fork(step=9).wait()
    for other in (run, fork):
        assert bytes_of(other) == bytes_of(whole)
        assert figures(other) == figures(whole)
    assert _network(load_file(run.folder / "checkpoints" / "step-000012" / "adapter_model.safetensors"))
    wanted = run.engine().logits(prompt)
    assert not torch.equal(wanted, amid)
    saved = run.save(tmp_path / "saved")
    nbtune.models.unload()
    again = nbtune.open(run.id).engine()
    assert torch.equal(again.logits(prompt), wanted)
    assert not _network(again.base.trained(run.id))
    assert not _network(load_file(saved / "adapter_model.safetensors"))
    assert json.loads((saved / "adapter_config.json").read_text())["encoder_hidden_size"] is None
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), saved)
    ids = torch.tensor([again.encoder.prompt_ids(prompt)])
    with torch.no_grad():
        torch.testing.assert_close(opened(input_ids=ids).logits[0, -1], wanted, rtol=1e-5, atol=1e-5)


def test_what_is_asked_of_is_read_anew_where_another_process_goes_on(folder: Path) -> None:
    """Its adapter in memory was folded, and the newer checkpoint has the network."""
    run = start(folder, "p-tuning", **WITH_NETWORK["p-tuning"], save_steps=6).wait()
    prompt = run.task.test[0].prompt
    wanted = run.engine().logits(prompt)
    newest = run.folder / "checkpoints" / "step-000012"
    aside = newest.rename(run.folder / "aside")
    nbtune.models.unload()
    opened = nbtune.open(run.id)
    older = opened.engine().logits(prompt)
    aside.rename(newest)
    assert torch.equal(opened.engine().logits(prompt), wanted)
    assert not torch.equal(older, wanted)


@pytest.mark.parametrize("method", WITH_NETWORK)
def test_under_a_head_over_classes_folding_changes_no_logit(tmp_path: Path, method: str) -> None:
    folder, task = tiny_encoder("bert", tmp_path / "bert"), ticket_task()
    options = {**WITH_NETWORK[method], "objective": "classification", "dtype": "float32", "max_steps": 6}
    run = nbtune.finetune(method, task=task, model=folder, **options).wait()
    engine = run.engine()
    assert not _network(engine.base.trained(run.id))
    whole = own_base(source_for("classification", folder, task), dtype="float32", quantization=None, device="cpu")
    attach(get(method), whole, get(method).spec.build(options), "it")
    whole.restore("it", run.folder / "checkpoints" / "step-000006")
    assert _network(whole.trained("it"))
    prompt = task.test[0].prompt
    with whole.lease("it") as model:
        wanted = model(input_ids=torch.tensor([engine.encoder.prompt_ids(prompt)])).logits
    with engine.base.lease(run.id) as model:
        found = model(input_ids=torch.tensor([engine.encoder.prompt_ids(prompt)])).logits
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert wanted.abs().max() > 1e-3
