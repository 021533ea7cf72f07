"""Looks at the dev rows during training: loss, the task's metric, and a few answers to read."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from nbtune.data.batches import collate
from nbtune.data.instructions import sets_in
from nbtune.data.masking import Masked
from nbtune.events import Evaluation, Event, Sample
from nbtune.inference import Decoding, Engine, engine_for
from nbtune.inference.classifying import Classifier
from nbtune.inference.filling import Filler

if TYPE_CHECKING:
    import torch

    from nbtune.data.batches import Batch
    from nbtune.data.encoded import Encoded
    from nbtune.data.encoding import Encoder
    from nbtune.models.base import Base
    from nbtune.objectives import Objective
    from nbtune.task import Example, Task

_MOST_NATS: Final = 80.0
_BEGUN: Final = 24
"""Words of a text after which a sample goes on, and tokens that it writes."""
_CONTINUED: Final = 30

__all__ = ["Evaluator", "answers", "best_label", "decoding_for"]


def decoding_for(task: Task, encoder: Encoder, max_new_tokens: int | None = None, stop: tuple[str, ...] | None = None) -> Decoding:
    """How this task's answers are generated where it is not said: by its training answers.

    At most half as many tokens again as the longest of them, and stopping at a line break where none of them holds one.
    """
    train = task.asked
    distinct = {item.completion: item for item in train[:500]}.values()
    longest = max(len(encoder.answer_ids(item.prompt, item.completion)) for item in distinct)
    lines = any("\n" in item.completion.strip("\n") for item in train)
    return Decoding(max_new_tokens or longest + longest // 2 + 2, (("\n",) if not lines else ()) if stop is None else stop)


def answers(engine: Engine, task: Task, prompts: Sequence[str]) -> list[str]:
    """The model's answers to a task's prompts: the likeliest label, or what it generates."""
    if isinstance(engine, Classifier):
        return engine.read(prompts)
    if task.kind == "classification":
        scores = engine.score(prompts, [task.completion_of[label] for label in task.labels])
        return [task.labels[best_label([value for value, _ in row])] for row in scores]
    return [text.strip() for text in engine.generate(prompts, decoding_for(task, engine.encoder))]


def best_label(scores: Sequence[float]) -> int:
    """The place of the highest score, the first of equals."""
    return max(range(len(scores)), key=scores.__getitem__)


def _perplexity(nats: float) -> float:
    return math.exp(min(nats, _MOST_NATS))


def _measured(objective: Objective, model: Any, batch: Batch) -> tuple[torch.Tensor, int, dict[str, tuple[torch.Tensor, int]]]:
    """An objective's loss, its weight, and {name: (sum, number)} of the parts that it tells apart."""
    if hasattr(objective, "measured"):
        return objective.measured(model, batch)  # type: ignore[no-any-return]
    return (*objective.loss(model, batch), {})


def _begun(text: str) -> tuple[str, str]:
    """The beginning of a text, at most half of it, and as much of what follows as a sample shows."""
    words = list(re.finditer(r"\S+", text))
    at = words[min(_BEGUN, len(words) // 2)].start() if words else 0
    begin = text[:at].rstrip() or text
    rest = re.finditer(r"\S+", text[len(begin) :])
    return begin, " ".join(match.group() for match in itertools.islice(rest, _CONTINUED))


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
        loss, more = self._loss()
        outputs = [] if self.task.metric.of_loss else self._outputs(self.examples)
        metrics = {self.task.metric.name: self._score(loss, outputs), **more, **self._by_set(outputs)}
        yield Evaluation(
            step=step,
            epoch=epoch,
            loss=loss,
            metrics=metrics,
            num_rows=len(self.rows),
            seconds=time.perf_counter() - began,
        )
        if samples and self.task.metric.of_loss:
            yield from self.samples(step)
        elif samples:
            yield from self._told(step, outputs)

    def score(self) -> float:
        """The task's metric on the dev rows."""
        if self.task.metric.of_loss:
            loss, more = self._loss()
            return more.get(self.task.metric.name, self._score(loss, []))
        return self._score(0.0, self._outputs(self.examples))

    def _score(self, loss: float, outputs: Sequence[str]) -> float:
        if self.task.metric.of_loss:
            return _perplexity(loss)
        learnt = [number for number, item in enumerate(self.examples) if not self.task.is_held_out(item)]
        return self._score_of(outputs, learnt)

    def _score_of(self, outputs: Sequence[str], numbers: Sequence[int]) -> float:
        return self.task.metric.score([outputs[number] for number in numbers], [self.examples[number].expected for number in numbers])

    def _by_set(self, outputs: Sequence[str]) -> dict[str, float]:
        """Of instructions: the metric of each set's rows."""
        if not self.task.mixes:
            return {}
        return {f"{self.task.metric.name}/{name}": self._score_of(outputs, numbers) for name, numbers in sets_in(self.examples).items()}

    @property
    def looks_before(self) -> bool:
        """Whether what the base made of the rows is to be known: of texts, and of tasks that are held out."""
        return self.task.metric.of_loss or self.task.mixes

    def before(self) -> Iterator[Event]:
        """A look at the base as it was loaded: with what is trained off, and without the ids that a soft prompt puts in front."""
        rows = tuple(row.without(len(self.encoder.first)) for row in self.rows)
        adapter = None if self.base.has_adapter(self.adapter or "") else self.adapter
        asked = replace(self, rows=rows, adapter=adapter, encoder=replace(self.encoder, first=()))
        yield from asked.look(0, 0.0, samples=False)

    def samples(self, step: int) -> Iterator[Event]:
        """The first few dev rows, answered; of texts, how they go on after their first words."""
        if self.task.metric.of_loss:
            yield from self._continued(step)
            return
        yield from self._told(step, self._outputs(self.examples[: self.num_samples]))

    def _filled(self, engine: Filler, step: int) -> Iterator[Event]:
        """Dev rows with what is hidden of them, and what is put there."""
        said = self.base.tokenizer.decode
        rows = [row for row in self.rows if isinstance(row, Masked)][: self.num_samples]
        own = [row.ids[len(self.encoder.first) :] for row in rows]
        outputs = engine.tokens([row.ids for row in rows], [row.places for row in rows])
        for number, (row, ids, output) in enumerate(zip(rows, own, outputs, strict=True)):
            expected = " ".join(str(said([token])).strip() for token in row.tokens)
            yield Sample(step=step, row=number, prompt=str(said(list(ids))), output=" ".join(output), expected=expected)

    def _continued(self, step: int) -> Iterator[Event]:
        engine = engine_for(self.base, self.encoder, self.adapter)
        if isinstance(engine, Filler):
            yield from self._filled(engine, step)
            return
        cut = [(item, *_begun(item.prompt)) for item in self.examples[: self.num_samples]]
        outputs = engine.generate([begin for _, begin, _ in cut], Decoding(_CONTINUED)) if cut else []
        for (item, begin, rest), output in zip(cut, outputs, strict=True):
            yield Sample(step=step, row=item.index, prompt=begin, output=output.strip(), expected=rest)

    def _told(self, step: int, outputs: Sequence[str]) -> Iterator[Event]:
        for item, output in zip(self.examples[: self.num_samples], outputs, strict=False):
            yield Sample(step=step, row=item.index, prompt=item.prompt, output=output, expected=item.expected)

    def _loss(self) -> tuple[float, dict[str, float]]:
        """The loss, and what else the objective tells of its parts."""
        total, weight = 0.0, 0
        parts: dict[str, list[float]] = {}
        pad = self.base.tokenizer.pad_token_id
        order = sorted(range(len(self.rows)), key=lambda number: len(self.rows[number].ids))
        for start in range(0, len(order), self.batch_rows):
            batch = collate(
                [self.rows[number] for number in order[start : start + self.batch_rows]], packed=self.packed, pad_id=int(pad or 0)
            )
            with self.base.lease(self.adapter) as model:
                loss, count, told = _measured(self.objective, model, batch.to(self.base.device))
            total += float(loss)
            weight += count
            for name, (found, number) in told.items():
                before = parts.setdefault(name, [0.0, 0.0])
                parts[name] = [before[0] + float(found), before[1] + number]
        means = {name: found / number for name, (found, number) in parts.items()}
        return total / weight, {name: _perplexity(mean) if name == "perplexity" else mean for name, mean in means.items()}

    def _outputs(self, examples: Sequence[Example]) -> list[str]:
        return answers(engine_for(self.base, self.encoder, self.adapter), self.task, [item.prompt for item in examples])
