"""Attention of rows, packed or each alone: torch's own numbers, whichever way is quick on the device."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional

from nbtune.data.batches import PackedRows, paths_of
from nbtune.models import attention
from nbtune.models.attention import _attend, _attend_alone  # the two that transformers is given

WIDTHS = (1, 2, 31, 128, 129, 256, 257, 385)


def _places(heads: int, tokens: int, dtype: torch.dtype, rows: int = 1, size: int = 16) -> torch.Tensor:
    return torch.randn(rows, tokens, heads, size, dtype=torch.float64).to(dtype).transpose(1, 2).requires_grad_()


def _reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scaling: float | None) -> torch.Tensor:
    """Each row by itself in float64, with all keys copied to all heads."""
    many = query.shape[1] // key.shape[1]
    q, k, v = (part.double() for part in (query, key.repeat_interleave(many, 1), value.repeat_interleave(many, 1)))
    ends = [0, *accumulate(lengths)]
    rows = [
        functional.scaled_dot_product_attention(q[:, :, start:end], k[:, :, start:end], v[:, :, start:end], is_causal=True, scale=scaling)
        for start, end in pairwise(ends)
    ]
    return torch.cat(rows, 2).transpose(1, 2)


def _with_gradients(out: torch.Tensor, given: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    torch.manual_seed(9)
    grads = torch.autograd.grad(out, given, torch.randn(out.shape, dtype=torch.float64).to(out.dtype))
    return [out, *grads]


def _same(found: list[torch.Tensor], wanted: list[torch.Tensor], tolerance: float) -> None:
    for one, two in zip(found, wanted, strict=True):
        assert float((one.detach().double() - two.detach().double()).norm() / two.detach().double().norm().clamp(min=1)) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)], ids=str)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2)])
def test_padded_rows_attend_as_in_torch(width: int, heads: int, key_heads: int, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(width)
    given = _places(heads, width, dtype, 2), _places(key_heads, width, dtype, 2), _places(key_heads, width, dtype, 2)
    found = _with_gradients(_attend_alone(*given, dropout=0.0, scaling=0.3), given)
    _same(found, _with_gradients(_reference(*given, [width], 0.3), given), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)], ids=str)
@pytest.mark.parametrize("lengths", [[7], [3, 5, 30], [1, 1, 2], [100, 128, 140], [2, 300, 10]], ids=str)
def test_packed_rows_attend_each_to_itself_as_in_torch(lengths: list[int], dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    given = _places(6, sum(lengths), dtype), _places(2, sum(lengths), dtype), _places(2, sum(lengths), dtype)
    found = _with_gradients(_attend(*given, PackedRows.of(paths_of(lengths, [0] * len(lengths))), dropout=0.0, scaling=None), given)
    _same(found, _with_gradients(_reference(*given, lengths, None), given), tolerance)


@pytest.mark.parametrize("width", [16, 200], ids=["by products", "in one kernel"])
def test_dropout_leaves_the_mean_where_it_was(width: int) -> None:
    torch.manual_seed(0)
    given: Any = [_places(2, width, torch.float32).detach() for _ in range(3)]
    wanted = _attend_alone(*given, dropout=0.0, scaling=None)
    drawn = torch.stack([_attend_alone(*given, dropout=0.2, scaling=None) for _ in range(400)])
    assert not torch.equal(drawn[0], drawn[1])
    assert float((drawn.mean(0) - wanted).abs().max()) < 0.35
    assert float((drawn.mean(0) - wanted).abs().mean()) < 0.02


def test_short_rows_are_multiplied_plainly_and_long_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plainly = attention._by_products

    def noted(query: torch.Tensor, *others: Any, **options: Any) -> torch.Tensor:
        seen.append(query.shape[2])
        return plainly(query, *others, **options)

    monkeypatch.setattr(attention, "_by_products", noted)
    for dtype in (torch.float32, torch.bfloat16):
        for width in (128, 129, 256, 257):
            given = [_places(2, width, dtype) for _ in range(3)]
            _attend_alone(*given, dropout=0.0, scaling=None)  # type: ignore[call-arg]
    assert seen == [128, 128, 129, 256]
