"""A run whose method fits a classifier to what the frozen model gives: one step, the same events, the same folder."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbtune.events import Checkpoint, Control, Evaluation, Event, Finished, Note, Sample, Started, Step, Stopped
from nbtune.inference.classical import Classical, settings_for, states_of
from nbtune.training.checkpoints import Snapshot, learnt_bytes, write
from nbtune.training.state import State

if TYPE_CHECKING:
    import numpy as np

    from nbtune.data.encoded import Labelled
    from nbtune.models.base import Base
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Example, Task
    from nbtune.training.controls import Controls
    from nbtune.training.memory import PeakMemory

__all__ = ["Fitting"]


class _LeftError(Exception):
    """The run was stopped while the states were computed."""


class Fitting:
    """Computes the states of the train and the dev rows once, fits each setting of the classifier, and keeps the best on dev."""

    def __init__(
        self,
        *,
        spec: Any,
        base: Base,
        task: Task,
        rows: Sequence[Labelled],
        dev: Sequence[Labelled],
        folder: Path,
        controls: Controls,
        memory: PeakMemory,
        total_parameters: int,
    ) -> None:
        self.spec: FinetuneSpec = spec
        self.kind: str = spec.classifier
        self.base, self.task, self.rows, self.dev = base, task, rows, dev
        self.examples: tuple[Example, ...] = task.dev[: len(dev)]
        self._folder, self._controls, self._memory = folder, controls, memory
        self._total_parameters = total_parameters

    def events(self) -> Iterator[Event]:
        """Fits to the end or until it is told to stop; the last event is Finished or Stopped.

        Raises:
            RunError: the classifier cannot be written.
        """
        began = time.perf_counter()
        yield Started(
            total_steps=1,
            num_rows=len(self.rows),
            trainable_parameters=0,
            total_parameters=self._total_parameters,
            metric=self.task.metric.name,
            device=str(self.base.device),
            dtype=str(self.base.dtype).removeprefix("torch."),
        )
        try:
            states = states_of(self.base, self.rows, self._watch).numpy()
            dev = states_of(self.base, self.dev, self._watch).numpy() if self.dev else None
        except _LeftError:
            stop = self._controls.stop_asked()
            yield Control(step=0, action="stop", position=stop.position if stop is not None else 0)
            yield Stopped(step=0, summary={})
            return
        classes, weights = _numbers([row.label for row in self.rows]), _weights(self.rows)
        data_seconds = time.perf_counter() - began
        best, score, told = self._chosen(states, classes, dev, weights)
        seconds = time.perf_counter() - began
        tokens = sum(len(row.ids) for row in self.rows)
        yield Note(level="info", text=told)
        yield Step(
            step=1,
            epoch=1.0,
            loss=_loss(best, best.states, classes, weights),
            learning_rate=0.0,
            grad_norm=math.nan,
            num_tokens=tokens,
            seconds=seconds,
            tokens_per_second=tokens / max(data_seconds, 1e-9),
            memory_bytes=self._memory.bytes(),
            data_seconds=data_seconds,
            optimizer_seconds=seconds - data_seconds,
        )
        scores = yield from self._looked(best, score, dev)
        state = State(step=1, num_tokens=tokens, seconds=seconds, micro_rows=self.spec.per_device_train_batch_size, scores=scores)
        path = write(self._folder / "checkpoints", Snapshot(1, best, {}, state.to_json()))
        yield Checkpoint(step=1, path=f"checkpoints/{path.name}")
        summary = {
            "trainable_parameters": best.num_fitted,
            "total_parameters": self._total_parameters,
            "adapter_bytes": learnt_bytes(path),
            "steps": 1,
            "num_tokens": tokens,
            "seconds": seconds,
            "peak_memory_bytes": self._memory.bytes(),
            "scores": scores,
            "best_step": 1,
            "checkpoint_step": 1,
            "classifier": {"kind": best.kind, **best.settings},
        }
        yield Finished(step=1, summary=summary)

    def _looked(self, best: Classical, score: float, dev: np.ndarray | None) -> Generator[Event, None, dict[str, float]]:
        """The look at dev and some of its answers; gives the scores for the summary (none without dev rows)."""
        if dev is None:
            return {}
        loss, name = _loss(best, dev, _numbers([row.label for row in self.dev]), _weights(self.dev)), self.task.metric.name
        yield Evaluation(step=1, epoch=1.0, loss=loss, metrics={name: score}, num_rows=len(dev), seconds=0.0, best=True)
        for item, output in zip(self.examples[: self.spec.num_samples], self._outputs(best, dev), strict=False):
            yield Sample(step=1, row=item.index, prompt=item.prompt, output=output, expected=str(item.label))
        return {"eval_loss": loss, f"eval_{name}": score}

    def _watch(self, _done: int, _total: int) -> None:
        if self._controls.stop_asked() is not None:
            raise _LeftError

    def _chosen(
        self, states: np.ndarray, classes: np.ndarray, dev: np.ndarray | None, weights: np.ndarray | None
    ) -> tuple[Classical, float, str]:
        """The classifier whose setting is best on dev (the first without dev rows or among equals), its score, and what was tried."""
        made = []
        more: dict[str, Any] = {"seed": self.spec.seed, "num_classes": len(self.task.labels), "weights": weights}
        for settings in settings_for(self.kind, len(states)):
            found = Classical.fitted(self.kind, settings, states, classes, **more)
            made.append((found, self._score(found, dev) if dev is not None else math.nan))
            if dev is None:
                break
        best, score = max(made, key=lambda each: -math.inf if math.isnan(each[1]) else each[1])
        if dev is None:
            return best, score, f"{self.kind} with {_said(best.settings)}: there are no dev rows to choose it on"
        tried = ", ".join(f"{_said(each.settings)} {value:.3f}" for each, value in made)
        told = f"{self.kind}, {self.task.metric.name} on {len(dev)} dev rows: {tried}; {_said(best.settings)} is taken"
        return best, score, told

    def _score(self, classical: Classical, dev: np.ndarray) -> float:
        return self.task.metric.score(self._outputs(classical, dev), [str(item.label) for item in self.examples])

    def _outputs(self, classical: Classical, states: np.ndarray) -> list[str]:
        return [self.task.labels[int(place)] for place in classical.log_probabilities(states).argmax(1)]


def _numbers(labels: Sequence[Any]) -> np.ndarray:
    import numpy as np

    return np.array(labels, dtype=np.int64)


def _weights(rows: Sequence[Labelled]) -> np.ndarray | None:
    """What rows weigh; None: all alike."""
    import numpy as np

    found = np.array([row.weight for row in rows])
    return found if (found != 1.0).any() else None


def _loss(classical: Classical, states: np.ndarray, classes: np.ndarray, weights: np.ndarray | None) -> float:
    """Nats of the rows, each by its weight, divided by their number."""
    nats = -classical.log_probabilities(states)[range(len(classes)), classes]
    return float((nats if weights is None else nats * weights).mean())


def _said(settings: dict[str, Any]) -> str:
    return " ".join(f"{key} {value}" for key, value in settings.items())
