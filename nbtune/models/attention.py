"""Attention of rows that lie end to end in one sequence: each row attends inside itself, computed row by row.

The linear layers see one long sequence without a pad; only here the rows are laid side by side, so that attention costs the sum of
the rows' squared lengths and not the square of their sum, and no mask of that size is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nbtune.data.batches import Batch, PackedRows

__all__ = ["ROWS_APART", "any_shape", "attending", "rows_apart", "takes_rows"]

ROWS_APART: Final = "nbtune_rows_apart"
"""The name under which transformers finds this attention while it is switched on."""

_PRODUCTS_WIDTH: Final = {2: 256, 4: 128}
"""By the bytes of a number: rows up to this length are quicker on a CPU as plain matrix products than in torch's fused kernel."""
_UPCAST_WIDTH: Final = 384
"""On CPUs torch's bfloat16 kernel is up to three times as slow backwards as the float32 one, until rows are longer than this."""


def takes_rows(model: nn.Module) -> bool:
    """Whether the model's attention is one that `rows_apart` switches, or has switched."""
    config: Any = getattr(model, "config", None)
    return getattr(config, "_attn_implementation", None) in ("sdpa", ROWS_APART)


def attending(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """What a forward of `batch` inside `rows_apart(model)` is told beside its ids: mask and positions, and that no cache is wanted.

    An encoder is told the mask alone: it knows no cache, and some count their positions in a way of their own. Beside a decoder the mask is
    the encoder's, and the decoder is told what it writes.

    Padded on the right, no real token of a causal model ever sees a pad; where all layers see the whole row no mask is made, because
    transformers would look whether it is empty and so wait for the device at each step. The empty mask beside `packed_rows` is for a
    model that would lose those on the way: it fails there, and rows never see each other.
    """
    from nbtune.models.families import can_pack, is_encoder

    if batch.decoder_ids is not None:
        return {"attention_mask": batch.attention_mask, "decoder_input_ids": batch.decoder_ids, "use_cache": False}
    if is_encoder(model.config):  # type: ignore[arg-type]
        two = batch.segments is not None and int(getattr(model.config, "type_vocab_size", 0) or 0) > 1
        return {"attention_mask": batch.attention_mask, **({"token_type_ids": batch.segments} if two else {})}
    rows = batch.packed
    if rows is None and can_pack(model.config):  # type: ignore[arg-type]
        rows = _each_alone()
    if rows is None or not takes_rows(model):
        return {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids, "use_cache": False}
    empty = batch.predicts.new_empty(1, 1, 0, 0)
    return {"attention_mask": empty, "position_ids": batch.position_ids, "packed_rows": rows, "use_cache": False}


@cache
def _each_alone() -> PackedRows:
    """Without groups: each row of the batch is a sequence of its own."""
    from nbtune.data.batches import PackedRows

    return PackedRows()


@contextmanager
def rows_apart(model: nn.Module) -> Iterator[None]:
    """Inside it, a forward that is given `packed_rows=PackedRows` keeps those rows apart; any other forward is as without it.

    Backwards belong inside too where activations are computed twice (gradient checkpointing).
    """
    config: Any = getattr(model, "config", None)
    before = getattr(config, "_attn_implementation", None)
    if before != "sdpa":
        yield
        return
    _register()
    config._attn_implementation = ROWS_APART  # noqa: SLF001  transformers has no other way to switch without checks of its own
    try:
        yield
    finally:
        config._attn_implementation = before  # noqa: SLF001  the same


@contextmanager
def any_shape(device: torch.device) -> Iterator[None]:
    """Inside it, attention on CUDA is of a kind that takes each new shape as it comes: cuDNN plans anew for it, 0.15 s on an H100."""
    if device.type != "cuda":
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        yield


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def forward(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        packed_rows: PackedRows | None = None,
        dropout: float = 0.0,
        scaling: float | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if packed_rows is None:
            return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)
        if not packed_rows.sizes:
            return _attend_alone(query, key, value, dropout=dropout, scaling=scaling), None
        return _attend(query, key, value, packed_rows, dropout=dropout, scaling=scaling), None

    AttentionInterface.register(ROWS_APART, forward)
    AttentionMaskInterface.register(ROWS_APART, sdpa_mask)


def _attend_alone(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, dropout: float, scaling: float | None) -> torch.Tensor:
    """Causal attention of [B, heads, T, d] to key and value [B, key heads, T, d]; returns [B, T, heads, d]."""
    import torch

    with torch.autocast(query.device.type, enabled=False):
        return _causal(query, key, value, dropout=dropout, scaling=scaling).transpose(1, 2).contiguous()


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: PackedRows, *, dropout: float, scaling: float | None
) -> torch.Tensor:
    """Causal attention of each row; `query` [1, heads, T, d], `key` and `value` [1, key heads, T, d]; returns [1, T, heads, d]."""
    import torch

    found, cells = [], [count * width for count, width in rows.sizes]
    with torch.autocast(query.device.type, enabled=False):
        apart = (_apart_function()(tensor[0].transpose(0, 1), rows) for tensor in (query, key, value))
        groups = ((part,) if len(cells) == 1 else part.split(cells) for part in apart)
        for (count, width), *parts in zip(rows.sizes, *groups, strict=True):
            q, k, v = (part.view(count, width, *part.shape[1:]).transpose(1, 2) for part in parts)
            out = _causal(q, k, v, dropout=dropout, scaling=scaling)
            found.append(out.transpose(1, 2).reshape(count * width, *out.shape[1:2], out.shape[-1]))
        together: torch.Tensor = _together_function()(found[0] if len(found) == 1 else torch.cat(found), rows.together)
    return together[None]


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, dropout: float, scaling: float | None) -> torch.Tensor:
    """Causal attention of [B, heads, T, d] to key and value [B, key heads, T, d], in whatever way is quick on the device."""
    import torch
    from torch.nn import functional

    key, value = key.to(query.dtype), value.to(query.dtype)  # what scales keys alone (IA3 on 4 bits) leaves them in its own float32
    width = query.shape[2]
    on_cpu = query.device.type == "cpu"
    if on_cpu and width <= _PRODUCTS_WIDTH.get(query.itemsize, 0):
        return _by_products(query, key, value, dropout=dropout, scaling=scaling)
    upcast = on_cpu and query.dtype == torch.bfloat16 and width <= _UPCAST_WIDTH
    q, k, v = (part.float() if upcast else part for part in (query, key, value))
    grouped = q.shape[1] != k.shape[1]
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=grouped)
    return out.to(query.dtype)


def _by_products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, dropout: float, scaling: float | None) -> torch.Tensor:
    """`_causal` as the formula has it; query heads that share a key head are laid end to end, so that no key is copied."""
    import torch
    from torch.nn import functional

    count, heads, width, size = query.shape
    key_heads = key.shape[1]
    q = query.reshape(count * key_heads, heads // key_heads * width, size)
    k, v = (part.reshape(count * key_heads, width, part.shape[-1]) for part in (key, value))
    later = torch.full((width, width), -torch.inf, dtype=q.dtype, device=q.device).triu_(1).repeat(heads // key_heads, 1)
    scores = torch.baddbmm(later, q, k.transpose(1, 2), alpha=size**-0.5 if scaling is None else scaling)
    weights = functional.dropout(torch.softmax(scores, -1), dropout) if dropout else torch.softmax(scores, -1)
    return torch.bmm(weights, v).view(count, heads, width, v.shape[-1])


@cache
def _apart_function() -> Any:
    import torch

    class Apart(torch.autograd.Function):
        """[T, ...] to [cells, ...]; what comes back for a pad, which repeats its row's last token, is zero."""

        @staticmethod
        def forward(ctx: Any, tokens: torch.Tensor, rows: Any) -> torch.Tensor:
            ctx.rows = rows
            return tokens.index_select(0, rows.apart)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
            found, shared = grads[0].index_select(0, ctx.rows.together), ctx.rows.shared
            if shared is not None:  # summed in this order on any device, as adding in place would not be
                each = grads[0].index_select(0, shared.cells.view(-1)).view(*shared.cells.shape, *grads[0].shape[1:])
                found.index_copy_(0, shared.places, (each * shared.real[:, :, None, None]).sum(1))
            return found, None

    return Apart.apply


@cache
def _together_function() -> Any:
    import torch

    class Together(torch.autograd.Function):
        """[rows * width, ...] to [T, ...]: pads fall away."""

        @staticmethod
        def forward(ctx: Any, cells: torch.Tensor, together: torch.Tensor) -> torch.Tensor:
            ctx.together, ctx.cells = together, len(cells)
            return cells.index_select(0, together)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
            empty = grads[0].new_zeros(ctx.cells, *grads[0].shape[1:])
            return empty.index_copy_(0, ctx.together, grads[0]), None

    return Together.apply
