"""Every way to adapt a model, counted on one; and the worked example of low rank."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from torch import nn

import nbtune
from nbtune.errors import ModelError, SpecError
from nbtune.methods import names
from nbtune.overview import LOW_RANK
from tests.tiny import tiny_encoder, tiny_llama


def test_every_method_is_there_counted_from_the_fewest_with_those_that_cannot_last(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "tiny")
    found = nbtune.methods_on(folder)
    assert {each.name for each in found} == set(names())
    counts = [each.trained for each in found if each.trained is not None]
    assert counts == sorted(counts)
    assert [each.name for each in found if each.refused] == [each.name for each in found[len(counts) :]]
    for each in found:
        assert each.summary
        assert each.paper.startswith("https://arxiv.org/abs/")
        if each.trained is not None and each.name not in ("head", "features"):
            assert each.trained == nbtune.estimate(each.name, model=folder).trainable_parameters
    by_name = {each.name: each for each in found}
    assert by_name["bitfit"].trained is None
    assert "has no biases" in by_name["bitfit"].refused
    assert by_name["dora"].quantizations == ("nf4", "fp4")
    assert not by_name["adapter"].merges
    assert by_name["features"].trained == 0
    assert (by_name["lora"].tier, by_name["randlora"].tier) == (1, 2)


def test_an_encoder_is_counted_with_a_head_over_two_classes(tmp_path: Path) -> None:
    found = {each.name: each for each in nbtune.methods_on(tiny_encoder("bert", tmp_path / "bert"))}
    refused = {name for name, each in found.items() if each.refused}
    assert refused == {
        "adaption-prompt",
        "cpt",
        "multitask-prompt-tuning",
        "last-blocks",
        "trainable-tokens",
    }  # the last two want four blocks and tokens to name
    assert found["head"].trained == 64 * 2 + 2
    assert found["full"].trained == found["full"].total


def test_a_model_or_a_quantization_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        nbtune.methods_on(tmp_path / "nothing")
    with pytest.raises(SpecError, match="quantization"):
        nbtune.methods_on(tmp_path, quantization="nf5")


def test_a_weight_of_25_by_50_at_rank_5_trains_375_numbers_in_place_of_1250() -> None:
    model = nn.Sequential(nn.Linear(50, 25, bias=False))
    assert sum(parameter.numel() for parameter in model.parameters()) == 1250
    adapted = get_peft_model(model, LoraConfig(r=5, target_modules=["0"]))
    assert sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad) == 375
    assert all(said in LOW_RANK for said in ("25 x 50", "1,250", "rank 5", "375"))
