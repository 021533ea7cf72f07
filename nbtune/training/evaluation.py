"""Looks at the dev rows during training: loss, the task's metric, and a few answers to read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbtune.data.batches import collate
from nbtune.events import Evaluation, Event, Sample
from nbtune.inference import Decoding, Engine, engine_for

if TYPE_CHECKING:
    from nbtune.data.encoding import Encoded, Encoder
    from nbtune.models.base import Base
    from nbtune.objectives import Objective
    from nbtune.task import Example, Task

__all__ = ["Evaluator", "answers", "best_label", "decoding_for"]


def decoding_for(task: Task, encoder: Encoder, max_new_tokens: int | None = None, stop: tuple[str, ...] | None = None) -> Decoding:
    """How this task's answers are generated where it is not said: by its training answers.

    At most half as many tokens again as the longest of them, and stopping at a line break where none of them holds one.
    """
    longest = max(len(encoder.answer_ids(item.prompt, item.completion)) for item in task.train[:500])
    lines = any("\n" in item.completion.strip("\n") for item in task.train)
    return Decoding(max_new_tokens or longest + longest // 2 + 2, (("\n",) if not lines else ()) if stop is None else stop)


def answers(engine: Engine, task: Task, prompts: Sequence[str]) -> list[str]:
    """The model's answers to a task's prompts: the likeliest label, or what it generates."""
    if task.kind == "classification":
        scores = engine.score(prompts, [task.completion_of[label] for label in task.labels])
        return [task.labels[best_label([value for value, _ in row])] for row in scores]
    return [text.strip() for text in engine.generate(prompts, decoding_for(task, engine.encoder))]


def best_label(scores: Sequence[float]) -> int:
    """The place of the highest score, the first of equals."""
    return max(range(len(scores)), key=scores.__getitem__)


@dataclass(frozen=True)
class Evaluator:
    """Evaluates one run's adapter on the same dev rows each time."""

    task: Task
    base: Base
    adapter: str | None
    encoder: Encoder
    objective: Objective
    examples: tuple[Example, ...]
    rows: tuple[Encoded, ...]
    packed: bool
    num_samples: int
    batch_rows: int = 8

    def look(self, step: int, epoch: float, *, samples: bool = True) -> Iterator[Event]:
        """An `Evaluation`, and with `samples` some of its answers to read."""
        if not self.rows:
            return
        began = time.perf_counter()
        loss = self._loss()
        outputs = self._outputs(self.examples)
        score = self.task.metric.score(outputs, [self._expected(item) for item in self.examples])
        yield Evaluation(
            step=step,
            epoch=epoch,
            loss=loss,
            metrics={self.task.metric.name: score},
            num_rows=len(self.rows),
            seconds=time.perf_counter() - began,
        )
        if samples:
            yield from self._told(step, outputs)

    def samples(self, step: int) -> Iterator[Event]:
        """The first few dev rows, answered."""
        yield from self._told(step, self._outputs(self.examples[: self.num_samples]))

    def _told(self, step: int, outputs: Sequence[str]) -> Iterator[Event]:
        for item, output in zip(self.examples[: self.num_samples], outputs, strict=False):
            yield Sample(step=step, row=item.index, prompt=item.prompt, output=output, expected=self._expected(item))

    def _loss(self) -> float:
        total, weight = 0.0, 0
        pad = self.base.tokenizer.pad_token_id
        order = sorted(range(len(self.rows)), key=lambda number: len(self.rows[number].ids))
        for start in range(0, len(order), self.batch_rows):
            batch = collate(
                [self.rows[number] for number in order[start : start + self.batch_rows]], packed=self.packed, pad_id=int(pad or 0)
            )
            with self.base.lease(self.adapter) as model:
                loss, count = self.objective.loss(model, batch.to(self.base.device))
            total += float(loss)
            weight += count
        return total / weight

    def _outputs(self, examples: Sequence[Example]) -> list[str]:
        return answers(engine_for(self.base, self.encoder, self.adapter), self.task, [item.prompt for item in examples])

    def _expected(self, item: Example) -> str:
        return item.label if item.label is not None else item.completion.strip()
