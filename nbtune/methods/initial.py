"""Where LoRA's factors begin, if not at zero: at parts of the weight itself, at what quantization takes from it, or at what layers read.

- PiSSA (Meng et al. 2024, https://arxiv.org/abs/2404.02948): W = U S V^T, B0 = U_r sqrt(S_r / s), A0 = sqrt(S_r / s) V_r^T; s is the
  adapter's scaling. What is trained are the principal directions of the weight.
- OLoRA (Büyükakyüz 2024, https://arxiv.org/abs/2406.01775): W = Q R, B0 = Q_r, A0 = R_r.
- LoftQ (Li et al. 2023, https://arxiv.org/abs/2310.08659): as PiSSA, of W - Q(W), what is lost where the base is held as Q(W). It is added,
  not only begun at, so that base and adapter together are nearer to the model that was quantized.
- EVA (Paischer et al. 2024, https://arxiv.org/abs/2410.07170): A0 holds the principal directions of what the layer reads of the training
  rows, B0 is zero. All layers keep the rank that was asked for (the paper's rho = 1), so that what is trained is known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import SpecError
from nbtune.models.chance import drawn_from
from nbtune.models.offset import begin_at

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nbtune.data.encoded import Encoded
    from nbtune.models.base import Base

__all__ = ["begin", "begin_at_error", "begin_at_inputs"]

_TOKENS_READ: Final = 2048
"""Tokens of training rows that EVA's directions are found from."""
_AT_ONCE: Final = 256
"""Tokens after which the directions are brought up to date."""


def begin(base: Base, name: str, init: str, seed: int) -> None:
    """Has the LoRA adapter `name` begin as `init` says ("pissa", "pissa_niter_16", "olora"); not on a model without numbers.

    The factors there are the base's own whatever is learnt: the adapter's output is counted from them.
    """
    import torch

    with torch.no_grad(), drawn_from(seed, base.device):  # pissa_niter_16 begins at random directions
        for _, layer in _layers(base, name):
            weight = layer.get_base_layer().weight
            rank = layer.r[name]
            if weight.device.type == "meta":
                begin_at(layer, name, layer.lora_A[name].weight, layer.lora_B[name].weight)
                continue
            whole = (weight.T if layer.fan_in_fan_out else weight).float()
            if init == "olora":
                turned, upper = torch.linalg.qr(whole)
                begin_at(layer, name, upper[:rank], turned[:, :rank])
            else:
                begin_at(layer, name, *_principal(whole / layer.scaling[name], rank, quick=init != "pissa"))


def begin_at_error(base: Base, name: str) -> None:
    """Has the adapter begin at what the base lost when it was held in 4 bits; its files are read again for that."""
    import torch
    from bitsandbytes.functional import dequantize_4bit

    from nbtune.models.device import device_of
    from nbtune.models.loading import load_weights, source_of, stored_dtype

    if base.device.type == "meta":
        return
    source = source_of(base.name)
    source = (source.over(base.labels) if base.labels else source).to_learn(base.learns)
    stored = stored_dtype(source.config) or torch.float32  # as they lie in the files weights are mapped, and take no memory of their own
    whole = load_weights(source, dtype=stored, quantization=None, device=device_of("cpu")).model
    with torch.no_grad():
        for key, layer in _layers(base, name):
            held: Any = layer.get_base_layer().weight
            if not hasattr(held, "quant_state"):
                continue  # what bitsandbytes left alone has lost nothing
            full: Any = whole.get_submodule(key).weight
            lost = full.to(base.device).float() - dequantize_4bit(held.data, held.quant_state).float()
            a, b = _principal(lost / layer.scaling[name], layer.r[name], quick=False)
            layer.lora_A[name].weight.data.copy_(a)
            layer.lora_B[name].weight.data.copy_(b)


def begin_at_inputs(base: Base, name: str, rows: Sequence[Encoded]) -> None:
    """Has A begin at the principal directions of what each layer reads of the first training rows; B stays at zero.

    Raises:
        SpecError: the rows have fewer tokens than the adapter has ranks.
    """
    import torch

    from nbtune.data.batches import collate
    from nbtune.models.attention import attending, rows_apart
    from nbtune.models.readout import readout

    layers = [layer for _, layer in _layers(base, name)]
    seen = _Inputs([layer.r[name] for layer in layers])
    pad = int(base.tokenizer.pad_token_id or 0)
    with torch.no_grad():
        tokens = 0
        for number, row in enumerate(rows):
            if tokens >= _TOKENS_READ:
                break
            batch = collate([row.drawn(f"eva:{number}")], packed=False, pad_id=pad).to(base.device)
            with base.lease(name) as model, _read_by(layers, seen), readout(model, batch.predicts), rows_apart(model):
                model(input_ids=batch.input_ids, **attending(model, batch))
            seen.next()
            tokens += len(row.ids)
        for layer, directions in zip(layers, seen.directions(), strict=True):
            layer.lora_A[name].weight.data.copy_(directions)


@contextmanager
def _read_by(layers: Sequence[nn.Module], seen: _Inputs) -> Iterator[None]:
    """Inside it, which is within a lease, what the layers read is kept: other runs' rows pass through the same ones."""
    with ExitStack() as hooks:
        for number, layer in enumerate(layers):
            hooks.enter_context(layer.register_forward_pre_hook(lambda _, args, number=number: seen.add(number, args[0])))
        yield


class _Inputs:
    """What layers have read, as principal directions of it; those that are given the same tensor are counted once."""

    def __init__(self, ranks: Sequence[int]) -> None:
        self._ranks = ranks
        self._leader = list(range(len(ranks)))
        self._first = True
        self._last: tuple[int, torch.Tensor] | None = None
        self._waiting: list[list[torch.Tensor]] = [[] for _ in ranks]
        self._found: list[Any] = [None] * len(ranks)

    def add(self, layer: int, read: torch.Tensor) -> None:
        """`read` [..., features] of a layer."""
        if self._first and self._last is not None and self._last[1] is read and self._ranks[self._last[0]] == self._ranks[layer]:
            self._leader[layer] = self._last[0]
        if self._leader[layer] != layer:
            return
        self._last = layer, read
        self._waiting[layer].append(read.detach().flatten(0, -2).float())
        if sum(map(len, self._waiting[layer])) >= max(_AT_ONCE, self._ranks[layer]):
            self._update(layer)

    def next(self) -> None:
        """A row is over."""
        self._first, self._last = False, None

    def directions(self) -> list[torch.Tensor]:
        """[rank, features] of each layer.

        Raises:
            SpecError: fewer tokens were read than that.
        """
        for layer, leader in enumerate(self._leader):
            if leader == layer and self._waiting[layer]:
                self._update(layer)
        for layer, leader in enumerate(self._leader):
            if self._found[leader] is None:
                read = sum(map(len, self._waiting[leader]))
                message = (
                    f"init eva begins at directions of what the layers read, and {read} tokens do not have {self._ranks[layer]} of them"
                )
                raise SpecError(message, hint="use a smaller r, more training rows, or leave init out")
        return [self._found[leader].components_ for leader in self._leader]

    def _update(self, layer: int) -> None:
        import torch
        from peft.utils.incremental_pca import IncrementalPCA

        read = torch.cat(self._waiting[layer])
        if len(read) < self._ranks[layer]:
            return
        if self._found[layer] is None:
            self._found[layer] = IncrementalPCA(n_components=self._ranks[layer])
        self._found[layer].partial_fit(read)
        self._waiting[layer] = []


def _principal(matrix: torch.Tensor, rank: int, *, quick: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A [rank, in] and B [out, rank] whose product is the nearest of that rank; `quick`: nearly, by 16 iterations."""
    import torch

    if quick:
        left, values, right = torch.svd_lowrank(matrix, rank, niter=16)
        rows = right.T
    else:
        left, values, rows = torch.linalg.svd(matrix, full_matrices=False)
    roots = values[:rank].sqrt()
    return roots[:, None] * rows[:rank], left[:, :rank] * roots


def _layers(base: Base, name: str) -> Iterator[tuple[str, Any]]:
    """The LoRA layers of the adapter, by the names that they have in the model."""
    for key, module in base.model.named_modules():
        if name in getattr(module, "lora_A", {}):
            yield key, module
