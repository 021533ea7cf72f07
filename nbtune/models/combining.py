"""Several adapters of one base as one, computed from their files: nothing is loaded for it, and a training beside it is not in its way.

Of LoRAs with updates s_i B_i A_i and weights w_i, by the names that peft has for them (`LoraModel.add_weighted_adapter`); the result is
scaled by 1:

- cat: A = [w_1 s_1 A_1; w_2 s_2 A_2; ...], B = [B_1 B_2 ...]. The weighted sum of the updates exactly; its rank is the sum of theirs.
- svd: of that sum the nearest update of a given rank, by its largest singular values.
- linear: A = sum of sqrt(w_i s_i) A_i, B likewise. No larger than one of them; each B also meets the others' A, so it is no sum of updates.
- ties (https://arxiv.org/abs/2306.01708): keeps the largest `density` of the numbers, elects a sign for each, and averages what agrees.
- dare_linear, dare_ties (https://arxiv.org/abs/2311.03099): keeps a random `density` of them, scaled up, and goes on as linear or ties.
- magnitude_prune: keeps the largest and adds them up.

The last four work on A and on B; with `_svd` behind the name they work on the whole updates, of which the nearest of a given rank is kept:
what the papers mean, and the singular values of matrices as large as the layers, which take minutes.
(IA)3 scales by vectors, and their weighted sum is what there is: linear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import copysign, sqrt
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

if TYPE_CHECKING:
    import torch

__all__ = ["WAYS", "How", "Part", "combined", "lora_layers", "prunes"]

How = Literal[
    "cat",
    "svd",
    "linear",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
]
WAYS: Final[dict[str, tuple[str, ...]]] = {"lora": get_args(How), "ia3": ("linear",)}
"""{peft's name of a tuner: how its adapters can be combined, the default first}."""

Progress = Callable[[int, int], None]
_A: Final = ".lora_A.weight"
_B: Final = ".lora_B.weight"
_IN_FRONT: Final = "base_model.model."


@dataclass(frozen=True)
class Part:
    """One of the adapters: {name: tensor} as its file has them, what its updates are scaled by, and its weight."""

    tensors: Mapping[str, torch.Tensor]
    scaling: float
    weight: float


def prunes(how: str) -> bool:
    """Whether it leaves numbers out, so that a density has a meaning."""
    return how.startswith(("ties", "dare", "magnitude_prune"))


def lora_layers(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names in the model of the layers that a LoRA's file holds."""
    return sorted(key.removeprefix(_IN_FRONT).removesuffix(_A) for key in tensors if key.endswith(_A))


def combined(
    kind: str, parts: Sequence[Part], how: str, *, rank: int = 0, density: float | None = None, seed: int = 0, progress: Progress
) -> dict[str, torch.Tensor]:
    """The tensors of the combination, by the names that its file has for them.

    Args:
        kind: peft's name of the tuner.
        parts: the adapters. LoRAs may be of different ranks where `how` is cat or svd, and may be on different layers.
        how: one of `WAYS[kind]`.
        rank: of the combined LoRA.
        density: the part of the numbers that is kept by what `prunes`.
        seed: of what is random.
        progress: told (layers done, layers in all) before each; what it raises ends the work.
    """
    import torch

    if kind == "ia3":
        return {key: sum((part.weight * part.tensors[key] for part in parts), torch.zeros(())) for key in parts[0].tensors}
    found: dict[str, torch.Tensor] = {}
    merge = _Merge(how.removesuffix("_svd"), density, torch.Generator().manual_seed(seed))
    layers = sorted({name for part in parts for name in lora_layers(part.tensors)})
    for number, layer in enumerate(layers):
        progress(number, len(layers))
        a, b = _layer(f"{_IN_FRONT}{layer}", parts, how, rank, merge)
        filled = a.new_zeros(rank, a.shape[1]), b.new_zeros(b.shape[0], rank)  # where not all have the layer, cat leaves some empty
        filled[0][: len(a)], filled[1][:, : len(a)] = a, b
        found[f"{_IN_FRONT}{layer}{_A}"], found[f"{_IN_FRONT}{layer}{_B}"] = filled
    return found


def _layer(layer: str, parts: Sequence[Part], how: str, rank: int, merge: _Merge) -> tuple[torch.Tensor, torch.Tensor]:
    """A [at most rank, in] and B [out, as many] of one layer."""
    import torch

    there = [part for part in parts if f"{layer}{_A}" in part.tensors]
    downs, ups = [part.tensors[f"{layer}{_A}"].float() for part in there], [part.tensors[f"{layer}{_B}"].float() for part in there]
    weights, scalings = [part.weight for part in there], [part.scaling for part in there]
    factors = [weight * scaling for weight, scaling in zip(weights, scalings, strict=True)]
    if how in ("cat", "svd"):
        down, up = torch.cat([factor * a for factor, a in zip(factors, downs, strict=True)]), torch.cat(ups, dim=1)
        return (down, up) if how == "cat" else _nearest(down, up, rank)
    if how.endswith("_svd"):
        updates = [scaling * b @ a for scaling, a, b in zip(scalings, downs, ups, strict=True)]
        left, values, right = torch.linalg.svd(merge(updates, weights), full_matrices=False)
        return right[:rank], left[:, :rank] * values[:rank]
    roots = [sqrt(abs(factor)) for factor in factors]
    signed = [copysign(root, factor) for root, factor in zip(roots, factors, strict=True)]
    return merge(downs, signed), merge(ups, roots)


@dataclass(frozen=True)
class _Merge:
    """Matrices of one shape as one, by peft's functions. What is random has a generator of its own: torch's is a training's."""

    how: str
    density: float | None
    chance: torch.Generator

    def __call__(self, tensors: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
        import torch
        from peft.utils import merge_utils as merging

        factors = torch.tensor(weights)
        if self.how in ("ties", "magnitude_prune"):
            return cast("torch.Tensor", getattr(merging, self.how)(tensors, factors, self.density))
        if self.how.startswith("dare"):
            tensors = [self._dropped(tensor) for tensor in tensors]
        if self.how != "dare_ties":
            return merging.task_arithmetic(tensors, factors)
        stacked = torch.stack(tensors)
        return merging.disjoint_merge(stacked * factors[:, None, None], merging.calculate_majority_sign_mask(stacked))

    def _dropped(self, tensor: torch.Tensor) -> torch.Tensor:
        import torch

        kept = float(self.density or 1)
        return tensor * torch.empty_like(tensor).bernoulli_(kept, generator=self.chance) / kept


def _nearest(down: torch.Tensor, up: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest product of that rank to `up @ down`, whose singular values are those of a matrix no larger than its rank."""
    import torch

    (before, inner), (after, outer) = torch.linalg.qr(up), torch.linalg.qr(down.t())
    left, values, right = torch.linalg.svd(inner @ outer.t(), full_matrices=False)
    return right[:rank] @ after.t(), before @ (left[:, :rank] * values[:rank])
