"""AdaLoRA's budget while a run trains: the importance of each rank, which are taken away, and the orthogonality of what is left.

Scores, schedule and masks are peft's `RankAllocator`. What it remembers from step to step lies with the optimizer's moments, so that a
checkpoint keeps it as it keeps those.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import SpecError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["RankBudget", "phases"]

_SCORES: Final = ("exp_avg_ipt", "exp_avg_unc")
"""The allocator's running means, by its own names: importance and its uncertainty."""
_KEPT: Final = "kept"
"""Which ranks are left in the end, beside the moments of each E."""


def phases(spec: Any, total_steps: int) -> tuple[int, int]:
    """(steps before the budget falls, steps after it has fallen) of that many.

    Raises:
        SpecError: there is no step between them.
    """
    before = total_steps // 10 if spec.tinit is None else spec.tinit
    after = 3 * total_steps // 10 if spec.tfinal is None else spec.tfinal
    if before + after >= total_steps:
        message = f"tinit {before} and tfinal {after} leave none of the run's {total_steps} steps for the budget of ranks to fall in"
        raise SpecError(message, hint="lower them, leave them out, or train for more steps")
    return before, after


class RankBudget:
    """One run's budget; a `Callback` of its steps."""

    def __init__(self, model: nn.Module, config: Any, spec: Any, name: str) -> None:
        self._model, self._config, self._spec, self._name = model, config, spec, name
        self._allocator: Any = None

    def begin(self, total_steps: int) -> None:
        """Sets the course of the budget.

        Raises:
            SpecError: there are too few steps for it.
        """
        from peft.tuners.adalora.layer import RankAllocator

        self._config.tinit, self._config.tfinal = phases(self._spec, total_steps)
        self._config.total_step = total_steps
        self._allocator = RankAllocator(self._model, self._config, self._name)

    def penalty(self) -> torch.Tensor:
        """The weighted mean distance (Frobenius) of A A^T and B^T B from the identity: equation 4 of the paper, as peft has it."""
        import torch

        distances = []
        with torch.autocast(next(self._model.parameters()).device.type, enabled=False):
            for key, factor in self._factors():
                if ".lora_E." not in f".{key}":
                    product = factor @ factor.T if ".lora_A." in key else factor.T @ factor
                    distances.append(torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device)))
        return self._spec.orth_reg_weight * torch.stack(distances).mean()  # type: ignore[no-any-return]

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Scores each rank by this step's gradients, and takes away those beyond the budget; at the end always the same ones."""
        import torch

        values = dict(self._factors())
        diagonals = {key: value for key, value in values.items() if ".lora_E." in key}
        if all(_KEPT in optimizer.state[value] for value in diagonals.values()):
            with torch.no_grad():
                for value in diagonals.values():
                    value.masked_fill_(~optimizer.state[value][_KEPT].to(value.device), 0.0)
            return
        allocator, settled = self._allocator, step >= self._config.total_step - self._config.tfinal
        self._recall(values, optimizer)
        if not settled or not allocator.exp_avg_ipt:
            allocator.update_ipt(self._model)
        budget, due = allocator.budget_schedule(step)
        if due or settled:
            left = allocator.mask_to_budget(self._model, budget)
            if settled:
                for key, value in diagonals.items():
                    optimizer.state[value][_KEPT] = torch.tensor(left[key], device=value.device)[:, None]
        self._remember(values, optimizer)

    def summary(self) -> dict[str, Any]:
        """{"ranks": {layer's name: its rank, on average over the blocks}}."""
        found = defaultdict(list)
        for key, value in self._factors():
            if ".lora_E." in key:
                found[key.partition(".lora_E.")[0].rsplit(".", 1)[-1]].append(int((value != 0).sum()))
        return {"ranks": {layer: round(sum(ranks) / len(ranks), 2) for layer, ranks in found.items()}}

    def _factors(self) -> list[tuple[str, nn.Parameter]]:
        """A, B and E of every layer, by the names that the allocator knows them by."""
        marks = tuple(f".lora_{factor}.{self._name}" for factor in "ABE")
        return [(key, value) for key, value in self._model.named_parameters() if key.removesuffix(".weight").endswith(marks)]

    def _recall(self, values: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        allocator = self._allocator
        for score in _SCORES:
            known = {key: optimizer.state[value][score] for key, value in values.items() if score in optimizer.state[value]}
            setattr(allocator, score, known)
        allocator.ipt = dict(allocator.exp_avg_ipt)  # it looks there for what is known, and writes it anew

    def _remember(self, values: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        for key, value in values.items():
            for score in _SCORES:
                optimizer.state[value][score] = getattr(self._allocator, score)[key]
