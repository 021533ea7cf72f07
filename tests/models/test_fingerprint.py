"""A base is known again by its weights, wherever another one of its name differs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nbtune.models.base import Base
from nbtune.models.fingerprint import fingerprint
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from tests.tiny import tiny_llama

CHANGES: dict[str, Callable[[Any], torch.Tensor]] = {
    "one word": lambda model: model.get_input_embeddings().weight[77],
    "a block in the middle": lambda model: model.model.layers[1].mlp.up_proj.weight,
    "one row of it": lambda model: model.model.layers[1].self_attn.q_proj.weight[3],
    "the norm before the head": lambda model: model.model.norm.weight,
    "the head": lambda model: model.get_output_embeddings().weight,
}


def held(folder: Path, dtype: str = "float32") -> Base:
    return own_base(source_of(folder), dtype=dtype, quantization=None, device="cpu")


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_differs_anywhere_is_another_one(tmp_path: Path, change: str) -> None:
    folder = tiny_llama(tmp_path, num_hidden_layers=3, tie_word_embeddings=change != "the head")
    base = held(folder)
    before = fingerprint(base)
    assert fingerprint(held(folder)) == before
    with torch.no_grad():
        CHANGES[change](base.model).add_(0.01)
    assert fingerprint(base) != before


def test_a_model_is_the_same_one_in_every_format_that_holds_its_numbers(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    half = held(folder, "bfloat16")
    whole = held(folder)
    with torch.no_grad():
        for parameter in whole.model.parameters():
            parameter.copy_(parameter.bfloat16())
    assert fingerprint(half) == fingerprint(whole) != fingerprint(held(folder))


def test_a_head_that_is_given_a_matrix_of_its_own_is_known_for_the_same(tmp_path: Path) -> None:
    from nbtune.models.tying import untie_head

    base = held(tiny_llama(tmp_path, tie_word_embeddings=True))
    before = fingerprint(base)
    untie_head(base.model)
    assert fingerprint(base) == before
