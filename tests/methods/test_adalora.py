"""AdaLoRA's budget of ranks: peft's own loop is the reference, and a run tells the ranks that it ended with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

import nbtune
from nbtune.errors import SpecError
from nbtune.methods import get
from nbtune.models.base import Base
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from tests.examples import ticket_task
from tests.tiny import tiny_llama

STEPS = 9
OPTIONS: dict[str, Any] = {"init_r": 6, "target_r": 3, "tinit": 2, "tfinal": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def _attached(folder: Path, name: str = "it") -> Base:
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    get("adalora").attach(base, get("adalora").spec.build(OPTIONS), name)
    return base


def _rows(step: int) -> torch.Tensor:
    return torch.randint(5, 60, (2, 12), generator=torch.Generator().manual_seed(step))


def test_losses_ranks_and_weights_are_those_of_peft_s_own_loop(folder: Path) -> None:
    base = _attached(folder)
    budget = base.callbacks["it"]
    budget.begin(STEPS)
    config = AdaLoraConfig(**OPTIONS, lora_alpha=8, total_step=STEPS, target_modules="all-linear", task_type="CAUSAL_LM")
    peft = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), config, adapter_name="it")
    theirs = {key.removeprefix("base_model.model."): value for key, value in peft.named_parameters()}
    ours = base.trained("it")
    with torch.no_grad():
        for key, value in ours.items():
            theirs[key].copy_(value)
    optimizers = [torch.optim.AdamW([source[key] for key in ours], lr=2e-2, weight_decay=0.0) for source in (ours, theirs)]
    pruned = []
    for step in range(1, STEPS + 1):
        rows = _rows(step)
        with base.lease("it", training=True) as model:
            loss = model(input_ids=rows, labels=rows).loss + budget.penalty()
            loss.backward()
            optimizers[0].step()
            budget.after_step(step, optimizers[0])
        wanted = peft(input_ids=rows, labels=rows).loss
        wanted.backward()
        optimizers[1].step()
        peft.base_model.update_and_allocate(step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
        pruned.append(sum(int((value == 0).sum()) for key, value in ours.items() if "lora_E" in key))
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-5)
    assert pruned == [0, 0, 25, 37, 42, 42, 42, 42, 42]  # of 84: 42 + 42 (3 / 4)^3 are left after step 3, and so on


def test_a_run_tells_its_ranks_and_its_adapter_opens_with_equal_logits(folder: Path, tmp_path: Path) -> None:
    run = nbtune.finetune("adalora", task=ticket_task(), model=folder, dtype="float32", learning_rate=1e-2, num_samples=0, **OPTIONS).wait()
    ranks = run.summary["ranks"]
    assert set(ranks) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert sum(ranks.values()) / len(ranks) == pytest.approx(OPTIONS["target_r"])
    assert len(set(ranks.values())) > 1
    ids = torch.tensor([run.engine().encoder.prompt_ids(ticket_task().test[0].prompt)])
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), run.save(tmp_path / "saved"))
    with torch.no_grad():
        torch.testing.assert_close(opened(ids).logits[0, -1], run.engine().logits(ticket_task().test[0].prompt), rtol=1e-5, atol=1e-5)


def test_two_runs_on_one_base_have_a_budget_each(folder: Path) -> None:
    runs = [nbtune.finetune("adalora", task=ticket_task(), model=folder, dtype="float32", seed=seed, max_steps=8) for seed in (1, 2)]
    bases = [run.wait().engine().base for run in runs]
    assert bases[0] is bases[1]
    for run in runs:
        assert sum(run.summary["ranks"].values()) / 7 == pytest.approx(8)
        assert run.engine().base.drift() == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"init_r": 8, "target_r": 8}, "no rank to take away"),
        ({"tinit": 5, "tfinal": 5, "max_steps": 10}, "none of the run's 10 steps"),
        ({"init_r": 40}, "init_r is 40, and the weight of model.layers.0.self_attn.k_proj is 32 x 64"),
    ],
)
def test_a_budget_that_cannot_fall_is_refused_before_anything_is_loaded(folder: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(SpecError, match=match) as refused:
        nbtune.estimate("adalora", model=folder, **options)
    assert refused.value.hint


def test_too_few_steps_are_told_where_only_the_rows_say_how_many(folder: Path) -> None:
    with pytest.raises(SpecError, match="none of the run's"):
        nbtune.finetune("adalora", task=ticket_task(), model=folder, dtype="float32", tinit=5000).wait()
