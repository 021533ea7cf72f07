"""When frozen blocks are computed once: where it saves something, fits, and loses nothing; else it is left out, or refused and said."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nbtune.data.encoded import Encoded
from nbtune.errors import SpecError
from nbtune.methods import get
from nbtune.models.families import blocks, final_norms
from nbtune.models.frozen import lowest_trained_block
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from nbtune.training import activations
from nbtune.training.activations import open_cache
from tests.training.cached import SFT, TRAINED, base_with, opened


def test_too_large_a_cache_is_left_out_by_auto_and_refused_with_the_figures_by_true(
    folder: Path, rows: list[Encoded], tmp_path: Path
) -> None:
    base = base_with(folder, "last-blocks", num_blocks=1)
    cache, text = open_cache(base, "it", rows, objective=SFT, packed=True, folder=tmp_path, limit=1000)
    assert cache is None
    assert text.startswith("activation_cache is off: the states of ")
    with pytest.raises(SpecError, match=r"would take 0\.000\d+ GB, and it may take 1e-06 GB"):
        opened(base, rows, tmp_path, limit=1000)
    assert list(tmp_path.iterdir()) == []


def test_the_limit_is_a_fifth_of_the_free_disk_and_never_more_than_eight_gibibytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, expected in ((10_000, 2000), (10**15, 8 * 2**30)):
        monkeypatch.setattr("shutil.disk_usage", lambda _path, free=free: SimpleNamespace(free=free))
        assert activations.disk_limit(tmp_path) == expected


@pytest.mark.parametrize(
    ("trained", "changes"),
    [
        (("lora", {}), {}),
        (("full", {}), {}),
        (TRAINED["last block"], {"epochs": 1.0}),
        (TRAINED["last block"], {"noise": True}),
        (TRAINED["last block"], {"wanted": False}),
    ],
)
def test_auto_takes_none_where_nothing_is_saved_or_noise_would_be_lost(
    folder: Path, rows: list[Encoded], tmp_path: Path, trained: tuple[str, dict[str, Any]], changes: dict[str, Any]
) -> None:
    base = base_with(folder, trained[0], **trained[1])
    said = {"objective": SFT, "packed": True, "folder": tmp_path, **changes}
    assert open_cache(base, "it", rows, **said) == (None, "")
    assert list(tmp_path.iterdir()) == []


def test_true_refuses_where_there_is_nothing_frozen_or_noise_would_be_lost(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nothing is frozen below what is trained"):
        opened(base_with(folder, "lora"), rows, tmp_path)
    with pytest.raises(SpecError, match="noise on the embeddings is wanted"):
        opened(base_with(folder, "head"), rows, tmp_path, noise=True)


def test_auto_takes_none_where_dropout_below_would_be_lost_but_another_s_adapter_does_not_count(
    folder: Path, rows: list[Encoded], tmp_path: Path
) -> None:
    base = base_with(folder, "lora", layers_to_transform=[1])
    get("lora").attach(base, get("lora").spec.build({"lora_dropout": 0.5}), "other")
    cache, _ = open_cache(base, "it", rows, objective=SFT, packed=True, folder=tmp_path)
    assert cache is not None
    cache.close()
    blocks(base.model)[0].self_attn.attention_dropout = 0.1
    assert open_cache(base, "it", rows, objective=SFT, packed=True, folder=tmp_path) == (None, "")


@pytest.mark.parametrize(
    ("method", "options", "lowest"),
    [
        ("full", {}, None),  # the embeddings are trained
        ("head", {}, 2),
        ("last-blocks", {"num_blocks": 1}, 1),
        ("last-blocks", {"num_blocks": 2}, 0),
        ("lora", {}, 0),
        ("lora", {"layers_to_transform": [1]}, 1),
    ],
)
def test_the_lowest_trained_block_is_told_by_the_parameters(folder: Path, method: str, options: dict[str, Any], lowest: int | None) -> None:
    assert lowest_trained_block(base_with(folder, method, **options), "it") == lowest


def test_a_head_that_shares_the_embeddings_is_below_everything_and_a_norm_alone_above(folder: Path) -> None:
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    assert lowest_trained_block(base, "it") is None
    base.train_only(final_norms(base.model))
    assert lowest_trained_block(base, "it") == 2
    base.train_only([base.model.get_output_embeddings()])
    assert lowest_trained_block(base, "it") is None
