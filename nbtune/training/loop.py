"""The loop: one for every method and objective. It yields events and obeys between steps; it never draws and never waits for a reader."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbtune.data.batches import collate, micro_batches, rows_of_step, steps_in
from nbtune.events import Checkpoint, Control, Event, Finished, Started, Step, Stopped
from nbtune.training.checkpoints import write_checkpoint
from nbtune.training.controls import Controls
from nbtune.training.optimizing import learning_rate_at, make_optimizer

if TYPE_CHECKING:
    import torch

    from nbtune.data.encoding import Encoded
    from nbtune.models.base import Base
    from nbtune.objectives import Objective
    from nbtune.spec import FinetuneSpec
    from nbtune.training.evaluation import Evaluator

__all__ = ["Training"]


@dataclass(frozen=True)
class _Done:
    """A step's figures, still on the device: read one step later, so that no step waits for them."""

    step: int
    loss: torch.Tensor
    grad_norm: torch.Tensor
    learning_rate: float
    num_tokens: int
    began: float
    ended: float


class Training:
    """One run's loop over its rows. Iterate over `events()`; every forward and update holds the base's lease."""

    def __init__(
        self,
        *,
        spec: FinetuneSpec,
        base: Base,
        adapter: str,
        objective: Objective,
        rows: list[Encoded],
        evaluator: Evaluator,
        folder: Path,
        packed: bool,
        total_parameters: int,
    ) -> None:
        self.spec, self.base, self.adapter, self.objective = spec, base, adapter, objective
        self.rows, self.evaluator, self.packed = rows, evaluator, packed
        self.total_parameters = total_parameters
        self._lengths = [len(row.ids) for row in rows]
        self._checkpoints = folder / "checkpoints"
        self._controls = Controls(folder / "control.jsonl")
        self._trained = base.trained(adapter)
        self._optimizer = make_optimizer(self._trained, spec)
        self.total_steps = steps_in(len(rows), spec.step_rows, spec.num_train_epochs, spec.max_steps)
        self._num_tokens = 0
        self._peak = 0
        self._scores: dict[str, float] = {}
        self._began = 0.0
        self._counted = 0

    def events(self) -> Iterator[Event]:
        """Trains to the end or until it is told to stop; the last event is Finished or Stopped."""
        yield self._started()
        every = self.spec.eval_steps or max(1, -(-self.total_steps // 4))
        save_every = self.spec.save_steps or every
        self._began = time.perf_counter()
        pending: _Done | None = None
        for step in range(1, self.total_steps + 1):
            done = self._step(step)
            if pending is not None:
                yield self._event(pending)
            pending = done
            stopping = False
            for request in self._controls.new():
                stopping |= request["action"] == "stop"
                yield Control(step=step, action=request["action"], values={k: v for k, v in request.items() if k not in ("time", "action")})
            last = stopping or step == self.total_steps
            if last or step == 1 or step % every == 0 or step % save_every == 0:  # the first at once: somebody waits for it
                yield self._event(pending)
                pending = None
            if not stopping and (last or step % every == 0):
                yield from self._look(step)
            if last or step % save_every == 0:
                yield self._save(step)
            if last:
                yield self._end(step, stopped=stopping)
                return

    def _step(self, step: int) -> _Done:
        import torch

        began = time.perf_counter()
        rate = learning_rate_at(step - 1, self.total_steps, self.spec)
        chosen = rows_of_step(len(self.rows), self.spec.step_rows, self.spec.seed, step - 1)
        weight = sum(self.rows[row].num_trained for row in chosen)
        total = torch.zeros((), device=self.base.device)
        with self.base.lease(self.adapter, training=True, checkpointing=self.spec.gradient_checkpointing is True) as model:
            for micro in micro_batches(chosen, self._lengths, self.spec.per_device_train_batch_size):
                total += self._micro_step(model, micro, step, weight)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            norm = self._clip()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        ended = time.perf_counter()
        return _Done(step, total / weight, norm, rate, self._num_tokens, began, ended)

    def _micro_step(self, model: Any, micro: list[int], step: int, weight: int) -> torch.Tensor:
        """Adds the gradient of these rows' share of the step's mean loss; their summed loss."""
        import torch

        pad = int(self.base.tokenizer.pad_token_id or 0)
        batch = collate([self.rows[row] for row in micro], packed=self.packed, pad_id=pad).to(self.base.device)
        self._num_tokens += batch.num_tokens
        devices = [self.base.device] if self.base.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(hash((self.spec.seed, step, micro[0])) % (2**63))
            loss, _ = self.objective.loss(model, batch)
            (loss / weight).backward()
        return loss.detach()

    def _clip(self) -> torch.Tensor:
        import torch

        limit = self.spec.max_grad_norm or float("inf")
        return torch.nn.utils.clip_grad_norm_(self._trained.values(), limit)

    def _event(self, done: _Done) -> Step:
        from nbtune.models.device import peak_bytes

        self._peak = max(self._peak, peak_bytes(self.base.device))
        seconds = done.ended - self._began
        speed = (done.num_tokens - self._counted) / max(done.ended - done.began, 1e-9)
        self._counted = done.num_tokens
        return Step(
            step=done.step,
            epoch=self._epoch(done.step),
            loss=float(done.loss),
            learning_rate=done.learning_rate,
            grad_norm=float(done.grad_norm),
            num_tokens=done.num_tokens,
            seconds=seconds,
            tokens_per_second=speed,
            memory_bytes=self._peak,
        )

    def _epoch(self, step: int) -> float:
        per_epoch = -(-len(self.rows) // self.spec.step_rows)
        return step / per_epoch

    def _look(self, step: int) -> Iterator[Event]:
        for event in self.evaluator.look(step, self._epoch(step)):
            if event.type == "evaluation":
                self._scores = {"eval_loss": event.loss, **{f"eval_{k}": v for k, v in event.metrics.items()}}  # type: ignore[attr-defined]
            yield event

    def _save(self, step: int) -> Checkpoint:
        state = {"num_tokens": self._num_tokens, "total_steps": self.total_steps, "seed": self.spec.seed}
        with self.base.lease(self.adapter):
            path = write_checkpoint(
                self._checkpoints,
                step,
                base=self.base,
                adapter=self.adapter,
                optimizer=self._optimizer,
                state=state,
                keep=self.spec.save_total_limit,
            )
        return Checkpoint(step=step, path=f"checkpoints/{path.name}")

    def _started(self) -> Started:
        return Started(
            total_steps=self.total_steps,
            num_rows=len(self.rows),
            trainable_parameters=sum(parameter.numel() for parameter in self._trained.values()),
            total_parameters=self.total_parameters,
            metric=self.evaluator.task.metric.name,
            device=str(self.base.device),
            dtype=str(self.base.dtype).removeprefix("torch."),
        )

    def _end(self, step: int, *, stopped: bool) -> Event:
        started = self._started()
        summary = {
            "trainable_parameters": started.trainable_parameters,
            "total_parameters": started.total_parameters,
            "steps": step,
            "num_tokens": self._num_tokens,
            "seconds": time.perf_counter() - self._began,
            "peak_memory_bytes": self._peak,
            "scores": self._scores,
        }
        return Stopped(step=step, summary=summary) if stopped else Finished(step=step, summary=summary)
