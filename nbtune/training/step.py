"""One optimizer step: its rows in micro-batches, the gradient of their mean loss a trained token, the update."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbtune.data.batches import collate, micro_batches, rows_of_step
from nbtune.errors import RunError
from nbtune.models.chance import drawn_from
from nbtune.models.device import is_out_of_memory
from nbtune.models.frozen import has_dropout
from nbtune.training.noise import neftune
from nbtune.training.optimizing import learning_rate_at, make_optimizer, step_if_finite
from nbtune.training.timing import Reading, Stopwatch
from nbtune.training.unfreezing import Unfreezing

if TYPE_CHECKING:
    import torch

    from nbtune.data.batches import Batch
    from nbtune.data.encoded import Encoded
    from nbtune.models.base import Base
    from nbtune.objectives import Objective
    from nbtune.spec import FinetuneSpec
    from nbtune.training.activations import ActivationCache
    from nbtune.training.guarding import Guard
    from nbtune.training.state import State

__all__ = ["Done", "Stepper"]


@dataclass(frozen=True)
class Done:
    """A step's figures, still on the device: read one step later, so that no step waits for them."""

    step: int
    figures: Reading
    """Mean loss a trained token, norm of the gradient before clipping."""
    weight: int
    learning_rate: float
    num_tokens: int
    fill: float
    places: int
    """Tokens and pads that went through the model."""
    most_places: int
    """Those of the largest micro-batch."""
    began: float
    ended: float
    watch: Stopwatch


@dataclass(frozen=True)
class _Share:
    """The step that a micro-batch belongs to; `weight` counts its trained tokens, `rows` are the step's by number."""

    step: int
    weight: int
    spec: FinetuneSpec
    watch: Stopwatch
    rows: dict[int, Encoded]


class Stepper:
    """Takes steps on one run's adapter or parts. `smaller` says what an out-of-memory made of the batch size, once each time.

    Where the adapter has a callback, its penalty is trained on, too; a step's loss is told without it.

    Raises:
        SpecError: the method has no use for so few steps.
    """

    def __init__(
        self,
        *,
        spec: FinetuneSpec,
        base: Base,
        adapter: str,
        objective: Objective,
        rows: list[Encoded],
        packed: bool,
        total_steps: int,
        guard: Guard | None = None,
    ) -> None:
        import torch

        self.base, self.adapter, self.objective, self.rows, self.packed = base, adapter, objective, rows, packed
        self.total_steps, self.guard = total_steps, guard
        self.trained = base.trained(adapter)
        self.optimizer = make_optimizer(self.trained, spec)
        self._unfreezing = Unfreezing(self.trained, getattr(spec, "gradual_unfreezing", None), total_steps)
        self.scaler = torch.amp.GradScaler(base.device.type, enabled=base.dtype == torch.float16)
        self.smaller: list[str] = []
        self.cache: ActivationCache | None = None
        self.shared = spec.neftune_noise_alpha is None and not has_dropout(base, adapter)
        self._pad = int(base.tokenizer.pad_token_id or 0)
        self.callback = base.callbacks.get(adapter)
        if self.callback is not None:
            self.callback.begin(total_steps)

    @property
    def seeks_scale(self) -> bool:
        """Whether a gradient that is not finite is one of float16's usual first ones, scaled too high: the next is scaled by half."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def take(self, step: int, spec: FinetuneSpec, state: State) -> Done:
        """Takes optimizer step `step` (from 1). Out of memory, it is taken again with half the rows at once: the numbers are the same.

        Raises:
            RunError: not even one row fits, or the optimizer does not.
        """
        while True:
            try:
                return self._take(step, spec, state)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(state)  # out here, where the error no longer holds the activations

    def _halve(self, state: State) -> None:
        import gc

        import torch

        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if self.base.device.type == "cuda":
            torch.cuda.empty_cache()
        if state.micro_rows <= 1:
            message = "the device ran out of memory with one row at a time"
            raise RunError(message, hint="use a smaller max_length, gradient_checkpointing true, or quantization nf4")
        state.micro_rows //= 2
        text = f"out of memory: from here on {state.micro_rows} rows at once and more accumulation, which gives the same numbers"
        self.smaller.append(text)

    def _take(self, step: int, spec: FinetuneSpec, state: State) -> Done:
        import torch

        began, watch = time.perf_counter(), Stopwatch(self.base.device)
        chosen = rows_of_step(len(self.rows), spec.step_rows, spec.seed, step - 1)
        rows = {row: self.rows[row].drawn(f"{spec.seed}:{step}:{row}") for row in chosen}
        lengths = {row: len(encoded.ids) for row, encoded in rows.items()}
        weight = sum(row.num_trained for row in rows.values())
        rate = learning_rate_at(step - 1, self.total_steps, spec)
        total = torch.zeros((), device=self.base.device)
        tokens = places = pads = most = 0
        leased = self.base.lease(self.adapter, training=True, checkpointing=spec.gradient_checkpointing is True)
        with leased as model, self._unfreezing.at(step - 1):
            for micro in micro_batches(chosen, lengths, state.micro_rows):
                loss, batch = self._micro_step(model, micro, _Share(step, weight, spec, watch, rows))
                total += loss
                tokens, pads, places = tokens + batch.num_tokens, pads + batch.num_pads, places + batch.num_places
                most = max(most, batch.num_places)
            if self.guard is not None:
                self._guarded(model, self.guard, step, spec, state.micro_rows)
                watch.lap("backward")
            if self.callback is not None:
                self.scaler.scale(self.callback.penalty()).backward()
            norm = self._updated(step, rate, spec)
            watch.lap("optimizer")
        figures = Reading(total / weight, norm)
        return Done(step, figures, weight, rate, tokens, 1 - pads / places, places, most, began, time.perf_counter(), watch)

    def _micro_step(self, model: Any, micro: list[int], of: _Share) -> tuple[torch.Tensor, Batch]:
        """Adds the gradient of these rows' share of the step's mean loss; their summed loss, and what they were collated to."""
        cache = self.cache
        rows = [of.rows[row] for row in micro]
        batch = cache.batch(micro) if cache else collate(rows, packed=self.packed, pad_id=self._pad, shared=self.shared)
        batch = batch.to(self.base.device)
        of.watch.lap("data")
        with drawn_from(hash((of.spec.seed, of.step, micro[0])) % (2**63), self.base.device):
            with neftune(model, of.spec.neftune_noise_alpha, batch), cache.applied(micro) if cache else nullcontext():
                loss, _ = self.objective.loss(model, batch)
            of.watch.lap("forward")
            mean = loss / of.weight
            self.scaler.scale(mean if self.guard is None else mean * (1 - self.guard.replay)).backward()
            of.watch.lap("backward")
        return loss.detach(), batch

    def _guarded(self, model: Any, guard: Guard, step: int, spec: FinetuneSpec, at_once: int) -> None:
        """Adds the gradient of what keeps the model from forgetting, `at_once` pieces at a time; a step's loss is told without it."""
        with drawn_from(hash((spec.seed, step, -1)) % (2**63), self.base.device):
            for loss in guard.losses(model, self.base, step, at_once):
                self.scaler.scale(loss).backward()

    def _updated(self, step: int, rate: float, spec: FinetuneSpec) -> torch.Tensor:
        """`_update`, which is never done again: some parameters may have been updated when memory ran out, and rows have no part in it."""
        try:
            return self._update(step, rate, spec)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            message = "the device ran out of memory in the optimizer's update"
            raise RunError(message, hint="use optim adafactor or sgd, or a method that trains less; run.resume() goes on") from error

    def _update(self, step: int, rate: float, spec: FinetuneSpec) -> torch.Tensor:
        """Clips and updates; the norm of the gradient before."""
        import torch

        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), spec.max_grad_norm or float("inf"))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_ratio"]
        step_if_finite(self.optimizer, norm)
        self.scaler.update()
        if self.callback is not None and torch.isfinite(norm):
            self.callback.after_step(step, self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        return norm
