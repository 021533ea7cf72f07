"""The loop: one for every method and objective. It yields events and obeys between steps; it never draws and never waits for a reader."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nbtune.data.batches import steps_in
from nbtune.errors import RunError
from nbtune.events import Checkpoint, Control, Evaluation, Event, Finished, Note, Resumed, Started, Step, Stopped
from nbtune.models.device import num_threads
from nbtune.training.checkpoints import Writer, learnt_bytes, load_optimizer, read_state, snapshot
from nbtune.training.controls import Controls, Request, changed
from nbtune.training.state import State
from nbtune.training.step import Done, Stepper

if TYPE_CHECKING:
    from nbtune.data.encoded import Encoded
    from nbtune.models.base import Base
    from nbtune.objectives import Objective
    from nbtune.spec import FinetuneSpec
    from nbtune.training.evaluation import Evaluator
    from nbtune.training.forecast import Forecast
    from nbtune.training.guarding import Guard

__all__ = ["DivergedError", "Start", "Training"]

PAUSE_SECONDS: Final = 0.02
DIVERGED_AFTER: Final = 3
"""Updates in a row without a finite gradient after which a run goes back to its last checkpoint."""


class DivergedError(Exception):
    """The gradient was not finite several times in a row; `step` is the last of them."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the gradient was not finite {DIVERGED_AFTER} times in a row, up to step {step}")
        self.step = step


class _LeftError(Exception):
    """The run was stopped while its cache was filled."""


class Start:
    """Where a run goes on: from a checkpoint (None: from the beginning), and what was done to it after that, by step."""

    def __init__(self, checkpoint: Path | None, repeat: dict[int, list[Request]]) -> None:
        self.checkpoint, self.repeat = checkpoint, repeat


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
        controls: Controls,
        forecast: Forecast,
        start: Start | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.spec, self.base, self.adapter, self.evaluator = spec, base, adapter, evaluator
        self.num_rows, self.total_parameters = len(rows), total_parameters
        self.total_steps = steps_in(len(rows), spec.step_rows, spec.num_train_epochs, spec.max_steps)
        self.stepper = Stepper(
            spec=spec, base=base, adapter=adapter, objective=objective, rows=rows, packed=packed, total_steps=self.total_steps, guard=guard
        )
        self._root = folder / "checkpoints"
        self._writer = Writer(self._root, spec.save_total_limit)
        self._controls, self._forecast, self._start = controls, forecast, start
        self._every = spec.eval_steps or max(1, -(-self.total_steps // 4))
        self.state = State(micro_rows=spec.per_device_train_batch_size, threads=num_threads())
        self._resident = 0.0  # when this session's first step would have begun, had all the run's seconds been in it
        self._pending: tuple[Done, int] | None = None  # with the tokens so far
        self._not_finite = 0
        self._saved: int | None = None
        self._stopping = self._paused = False
        self._early = ""
        if start is not None and start.checkpoint is not None:
            self._restore(start.checkpoint)

    def _restore(self, checkpoint: Path) -> None:
        with self.base.lease(self.adapter):
            self.base.restore(self.adapter, checkpoint)
        load_optimizer(self.stepper.optimizer, self.base.named(self.adapter), checkpoint)
        self.state = State.of(read_state(checkpoint))
        self.spec = self.spec.model_copy(update=self.state.settings)
        self._saved = self.state.step
        if self.state.scaler:
            self.stepper.scaler.load_state_dict(self.state.scaler)

    def events(self) -> Iterator[Event]:
        """Trains to the end or until it is told to stop; the last event is Finished or Stopped.

        Raises:
            DivergedError: the gradient was not finite several times in a row.
            RunError: not even one row fits into memory, or the last checkpoint cannot be written.
        """
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.state.threads)
        try:
            yield self._started()
            if self._start is not None:
                yield Resumed(step=self.state.step)
            if self.state.step < self.total_steps:
                yield from self._open_cache()
            yield from self._train()
        finally:
            self._writer.wait()
            torch.set_num_threads(before)

    def _open_cache(self) -> Iterator[Event]:
        """Computes the blocks below all that is trained once, where that pays; a run that goes on decides as it did before."""
        from nbtune.training.activations import open_cache

        stepper, spec = self.stepper, self.spec

        def tell(_done: int, _total: int) -> None:
            if self._controls.stop_asked() is not None:
                raise _LeftError

        try:
            stepper.cache, text = open_cache(
                self.base,
                self.adapter,
                stepper.rows,
                objective=stepper.objective,
                packed=stepper.packed,
                shared=stepper.shared,
                folder=self._root.parent,
                wanted=spec.activation_cache if self.state.cached is None else self.state.cached,
                epochs=self.total_steps * spec.step_rows / self.num_rows,
                noise=spec.neftune_noise_alpha is not None,
                tell=tell,
            )
        except _LeftError:
            return  # the request to stop is still there to be obeyed
        self.state.cached = stepper.cache is not None
        if text:
            yield Note(level="info", text=text)

    def _train(self) -> Iterator[Event]:
        yield from self._look_before()
        yield from self._boundary(regular=False)  # what was asked while the run was prepared
        self._resident = time.perf_counter() - self.state.seconds
        while self.state.step < self.total_steps and not self._over:
            done = self.stepper.take(self.state.step + 1, self.spec, self.state)
            self.state.step += 1
            self.state.num_tokens += done.num_tokens
            yield from self._tell()
            self._pending = done, self.state.num_tokens
            yield from self._boundary()
        yield from self._end()

    @property
    def _over(self) -> bool:
        return self._stopping or bool(self._early)

    @property
    def _last(self) -> bool:
        return self._over or self.state.step >= self.total_steps

    # Between steps

    def _boundary(self, *, regular: bool = True) -> Iterator[Event]:
        """Obeys, looks at dev, saves, and stands still while it is paused; not `regular`: looks at what is asked for alone."""
        step = self.state.step
        requests = [*self._repeated(step), *self._controls.new()]
        if requests:
            yield from self._tell()  # before what is done after it
        asked = yield from self._obey(requests)
        look = "evaluate" in asked or (regular and not self._stopping and (self._last or step % self._looks_every == 0))
        sample = "sample" in asked or (regular and self._samples_every and step % self._samples_every == 0)
        while True:
            if look or sample or self._due(asked) or step == 1 or step % self._saves_every == 0:
                yield from self._tell()  # the first at once: somebody waits for it
            if look:
                yield from self._look(samples=bool(sample or not self.spec.sample_steps))
            elif sample:
                yield from self.evaluator.samples(step)
            if self._due(asked):
                self._save()
            yield from self._written()
            if self._over or not self._paused:
                return
            asked = yield from self._wait()
            look, sample = "evaluate" in asked, "sample" in asked

    @property
    def _looks_every(self) -> int:
        return self.spec.eval_steps or self._every

    @property
    def _samples_every(self) -> int:
        return self.spec.sample_steps or 0

    @property
    def _saves_every(self) -> int:
        return self.spec.save_steps or self._looks_every

    def _due(self, asked: set[str]) -> bool:
        """Whether this is saved; of itself not before the first step, nor amid updates that are left out: what is gone back to is good."""
        step = self.state.step
        best = self.spec.load_best_model_at_end and self.state.best_step == step
        regular = self._last or (step % self._saves_every == 0 and not self._not_finite)
        return self._saved != step and ((step > 0 and regular) or best or "checkpoint" in asked)

    def _repeated(self, step: int) -> list[Request]:
        return self._start.repeat.get(step, []) if self._start is not None else []

    def _obey(self, requests: Iterable[Request]) -> Generator[Event, None, set[str]]:
        """Takes each request into effect and tells it, and gives what is asked for at once: evaluate, sample, checkpoint."""
        asked: set[str] = set()
        for request in requests:
            if not request.again:
                yield Control(step=self.state.step, action=request.action, values=request.values, position=request.position)
            match request.action:
                case "set":
                    self._set(request.values)
                case "stop":
                    self._stopping = True
                case "pause":
                    self._paused = True
                case "resume":
                    self._paused = False
                case action:
                    asked.add(action)
        return asked

    def _set(self, values: dict[str, Any]) -> None:
        self.spec = changed(self.spec, values)
        self.state.settings |= {name: getattr(self.spec, name) for name in values}

    def _wait(self) -> Generator[Event, None, set[str]]:
        """Until something is asked of a paused run. Its model and optimizer stay where they are, and its time stands still."""
        began = time.perf_counter()
        asked: set[str] = set()
        while self._paused and not self._stopping and not asked:
            requests = list(self._controls.new())
            if not requests:
                time.sleep(PAUSE_SECONDS)
            yield from self._written()
            asked = yield from self._obey(requests)
        self._resident += time.perf_counter() - began
        return asked

    def _tell(self) -> Iterator[Event]:
        """The last step's event, where it was not told yet.

        Raises:
            DivergedError: one too many without a finite gradient.
        """
        for text in self.stepper.smaller:
            yield Note(level="warning", text=text)
        self.stepper.smaller.clear()
        if self._pending is None:
            return
        self._writer.wait()  # a step is told after the checkpoint before it is on the disk: never is more than one interval done again
        (done, num_tokens), self._pending = self._pending, None
        (loss, norm), state, parts = done.figures.values(), self.state, done.watch.seconds()
        skipped = norm != norm or norm in (float("inf"), float("-inf"))  # noqa: PLR0124  NaN alone differs from itself
        if not skipped:
            state.interval_loss += loss * done.weight
            state.interval_tokens += done.weight
        state.seconds = done.ended - self._resident
        yield Step(
            step=done.step,
            epoch=self._epoch(done.step),
            loss=loss,
            learning_rate=done.learning_rate,
            grad_norm=norm,
            num_tokens=num_tokens,
            seconds=state.seconds,
            tokens_per_second=done.num_tokens / max(done.ended - done.began, 1e-9),
            memory_bytes=self._forecast.memory.bytes(),
            fill=done.fill,
            skipped=skipped,
            **{f"{part}_seconds": seconds for part, seconds in parts.items()},
        )
        yield from self._forecast.add(done)
        self._not_finite = self._not_finite + 1 if skipped and not self.stepper.seeks_scale else 0
        if self._not_finite >= DIVERGED_AFTER:
            raise DivergedError(done.step)

    def _epoch(self, step: int) -> float:
        return step / -(-self.num_rows // self.spec.step_rows)

    def _look(self, *, samples: bool) -> Iterator[Event]:
        """Looks at dev; notes what is best, and whether it is time to end."""
        spec, state = self.spec, self.state
        for event in self.evaluator.look(state.step, self._epoch(state.step), samples=samples):
            if not isinstance(event, Evaluation):
                yield event
                continue
            metric = self.evaluator.task.metric
            of_loss = spec.metric_for_best_model == "loss" or metric.of_loss
            score = -event.loss if of_loss else metric.sign * next(iter(event.metrics.values()))
            best = state.is_better(score, spec.early_stopping_threshold, event.scores)
            yield replace(event, best=best, train_loss=state.take_interval())
            if spec.early_stopping_patience and state.looks_since_best >= spec.early_stopping_patience and not self._last:
                self._early = f"no better look at dev since step {state.best_step}"
                yield Note(level="info", text=f"ended early at step {state.step}: {self._early}")

    def _look_before(self) -> Iterator[Event]:
        """What the base makes of the rows, where a run's figures say nothing without it."""
        if not self.evaluator.looks_before or self.state.step or self.state.before:
            return
        for event in self.evaluator.before():
            if isinstance(event, Evaluation):
                self.state.before = event.scores
            yield event

    # Checkpoints

    def _save(self) -> None:
        self._saved = self.state.step
        self.state.scaler = self.stepper.scaler.state_dict()
        self._writer.wait()  # so that there is never more than one copy in memory
        with self.base.lease(self.adapter):
            moment, copied = snapshot(
                self.state.step,
                base=self.base,
                adapter=self.adapter,
                optimizer=self.stepper.optimizer,
                state=self.state.to_json(),
                goes_on=not self._last,
            )
        self._writer.best = self.state.best_step
        self._writer.submit(moment, behind=copied)

    def _written(self) -> Iterator[Event]:
        """Tells of checkpoints that are on the disk by now; one that failed is a warning, unless it was the last.

        Raises:
            RunError: the last checkpoint could not be written.
        """
        for done in self._writer.written():
            if done.path is not None:
                yield Checkpoint(step=done.step, path=f"checkpoints/{done.path.name}")
            elif done.error is not None and self._last and done.step == self.state.step:
                raise done.error
            elif done.error is not None:
                text = f"{done.error.message}; the run goes on, and what was saved before is still there"
                yield Note(level="warning", text=text)

    # Beginning and end

    def _started(self) -> Started:
        return Started(
            total_steps=self.total_steps,
            num_rows=self.num_rows,
            trainable_parameters=sum(parameter.numel() for parameter in self.stepper.trained.values()),
            total_parameters=self.total_parameters,
            metric=self.evaluator.task.metric.name,
            device=str(self.base.device),
            dtype=str(self.base.dtype).removeprefix("torch."),
        )

    def _end(self) -> Iterator[Event]:
        self._writer.wait()
        yield from self._written()
        step, state = self.state.step, self.state
        kept, best = step, state.best_step
        if self.spec.load_best_model_at_end and not self._stopping and best is not None and best != step:
            kept = best
            path = self._root / f"step-{kept:06d}"
            if not path.is_dir():
                raise RunError(f"the best checkpoint, of step {kept}, is not there any more", hint="leave load_best_model_at_end out")
            with self.base.lease(self.adapter):
                self.base.restore(self.adapter, path)
        started = self._started()
        summary = {
            "trainable_parameters": started.trainable_parameters,
            "total_parameters": started.total_parameters,
            "adapter_bytes": learnt_bytes(self._root / f"step-{kept:06d}"),
            **state.summary(kept),
            "peak_memory_bytes": self._forecast.memory.bytes(),
            "checkpoint_step": kept,
            **({"ended_early": self._early} if self._early else {}),
            **(self.stepper.callback.summary() if self.stepper.callback is not None else {}),
        }
        if self.stepper.cache is not None and not self._stopping:
            self.stepper.cache.close()
        yield Stopped(step=step, summary=summary) if self._stopping else Finished(step=step, summary=summary)
