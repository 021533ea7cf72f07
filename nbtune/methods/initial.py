"""Where LoRA's factors begin, if not at zero: at parts of the weight itself, or at what quantization takes from it.

- PiSSA (Meng et al. 2024, https://arxiv.org/abs/2404.02948): W = U S V^T, B0 = U_r sqrt(S_r / s), A0 = sqrt(S_r / s) V_r^T; s is the
  adapter's scaling. What is trained are the principal directions of the weight.
- OLoRA (Büyükakyüz 2024, https://arxiv.org/abs/2406.01775): W = Q R, B0 = Q_r, A0 = R_r.
- LoftQ (Li et al. 2023, https://arxiv.org/abs/2310.08659): as PiSSA, of W - Q(W), what is lost where the base is held as Q(W). It is added,
  not only begun at, so that base and adapter together are nearer to the model that was quantized.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nbtune.models.offset import begin_at

if TYPE_CHECKING:
    import torch

    from nbtune.models.base import Base

__all__ = ["begin", "begin_at_error"]


def begin(base: Base, name: str, init: str, seed: int) -> None:
    """Has the LoRA adapter `name` begin as `init` says ("pissa", "pissa_niter_16", "olora"); not on a model without numbers.

    The factors there are the base's own whatever is learnt: the adapter's output is counted from them.
    """
    import torch

    with torch.no_grad(), torch.random.fork_rng(devices=[base.device] if base.device.type == "cuda" else []):
        torch.manual_seed(seed)  # pissa_niter_16 begins at random directions
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
    from nbtune.models.loading import load_weights, source_of

    if base.device.type == "meta":
        return
    source = source_of(base.name)
    source = source.over(base.labels) if base.labels else source
    whole = load_weights(source, dtype=torch.float32, quantization=None, device=device_of("cpu")).model
    with torch.no_grad():
        for key, layer in _layers(base, name):
            held: Any = layer.get_base_layer().weight
            if not hasattr(held, "quant_state"):
                continue  # what bitsandbytes left alone has lost nothing
            full: Any = whole.get_submodule(key).weight
            lost = full.to(base.device) - dequantize_4bit(held.data, held.quant_state).float()
            a, b = _principal(lost / layer.scaling[name], layer.r[name], quick=False)
            layer.lora_A[name].weight.data.copy_(a)
            layer.lora_B[name].weight.data.copy_(b)


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
