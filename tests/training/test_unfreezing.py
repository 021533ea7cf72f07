"""Gradual unfreezing: blocks begin to learn one after the other, from the top, and until then nothing moves them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

import nbtune
from nbtune.training.unfreezing import Unfreezing
from tests.tiny import tiny_llama
from tests.training.runs import bytes_of, figures, start

STEPS = 8
GRADUAL: dict[str, Any] = {"num_blocks": 3, "gradual_unfreezing": 1.0, "max_steps": STEPS, "weight_decay": 0.5, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of four blocks."""
    folder = tiny_llama(tmp_path_factory.mktemp("deep"))
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, num_hidden_layers=4)).save_pretrained(folder)
    return folder


def _blocks(names: Any) -> set[int]:
    return {int(name.split("layers.")[1].split(".")[0]) for name in names if "layers." in name}


def _moved(run: nbtune.Run, deep: Path, step: int) -> tuple[set[int], set[int]]:
    """The blocks that differ from the base's at a checkpoint, and those of which the optimizer knows anything."""
    at = run.folder / "checkpoints" / f"step-{step:06d}"
    base = AutoModelForCausalLM.from_pretrained(deep, dtype=torch.float32).state_dict()
    found = load_file(at / "trained.safetensors")
    assert _blocks(found) == {1, 2, 3}  # all of what is trained is in every checkpoint
    return _blocks(key for key, value in found.items() if not torch.equal(value, base[key])), _blocks(
        load_file(at / "optimizer.safetensors")
    )


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True, "activation_cache": False}, {"optim": "sgd"}])
def test_weights_stay_bit_for_bit_as_they_were_until_their_turn_and_have_no_moments(deep: Path, options: dict[str, Any]) -> None:
    run = start(deep, "last-blocks", **{**GRADUAL, "save_steps": 1, "save_total_limit": 20, **options}).wait()
    expected = {2: {3}, 3: {2, 3}, 5: {2, 3}, 6: {1, 2, 3}, 8: {1, 2, 3}}  # of 8 steps, stages begin after 0, 2 and 5
    known = {step: set() if options.get("optim") == "sgd" else blocks for step, blocks in expected.items()}
    assert {step: _moved(run, deep, step) for step in expected} == {step: (blocks, known[step]) for step, blocks in expected.items()}


def test_full_begins_with_norm_and_last_block_and_ends_with_the_embeddings() -> None:
    names = [
        "model.embed_tokens.weight",
        *(f"model.layers.{number}.mlp.weight" for number in range(3)),
        "model.norm.weight",
        "lm_head.weight",
    ]
    trained = {name: torch.nn.Parameter(torch.ones(2, 2)) for name in names}
    unfreezing = Unfreezing(trained, 0.5, 80)
    learning = {}
    for step in (0, 9, 10, 20, 29, 30, 79):
        with unfreezing.at(step):
            learning[step] = sorted(names.index(name) for name, parameter in trained.items() if parameter.requires_grad)
        assert all(parameter.requires_grad for parameter in trained.values())
    first = [3, 4, 5]
    assert learning == {0: first, 9: first, 10: [2, *first], 20: [1, 2, *first], 29: [1, 2, *first], 30: [*range(6)], 79: [*range(6)]}


def test_the_cache_of_frozen_blocks_changes_no_loss(deep: Path) -> None:
    found = [
        start(deep, "last-blocks", **GRADUAL, activation_cache=cached, eval_steps=STEPS).wait().history["loss"].tolist()
        for cached in (True, False)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


@pytest.mark.parametrize("method", ["last-blocks", "full"])
def test_stopped_amid_it_and_resumed_or_forked_it_ends_with_the_same_bytes(deep: Path, method: str) -> None:
    options = {key: value for key, value in GRADUAL.items() if method == "last-blocks" or key != "num_blocks"}
    whole = start(deep, method, **options).wait()
    run = start(deep, method, **options)
    run.listen(lambda event: run.stop() if event.type == "step" and event.step == 4 else None)
    run.wait()
    fork = run.fork(step=3).wait()
    run.resume().wait()
    for other in (run, fork):
        assert bytes_of(other, STEPS) == bytes_of(whole, STEPS)
        assert figures(other) == figures(whole)


def test_one_block_cannot_begin_later(folder: Path) -> None:
    with pytest.raises(nbtune.NbtuneError, match="num_blocks is 1") as refused:
        nbtune.estimate("last-blocks", model=folder, num_blocks=1, gradual_unfreezing=1.0)
    assert refused.value.hint
