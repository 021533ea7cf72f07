"""One column of a comparison: how a task's rows become outputs. Also usable alone, through `.predict`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from nbtune.errors import ModelError
from nbtune.inference import Decoding, Engine
from nbtune.inference.classifying import Classifier
from nbtune.models.families import answering, context_of
from nbtune.training.evaluation import best_label, decoding_for

if TYPE_CHECKING:
    from nbtune.spec import DecodingSpec, Spec
    from nbtune.task import Task

__all__ = ["Answers", "Approach", "Asking", "Cost", "Kind", "Setting"]

Scoring = Literal["sum", "mean", "generate"]


@dataclass(frozen=True)
class Setting:
    """The base that prompting columns ask: as in `finetune`."""

    model: Any
    dtype: str | None = None
    quantization: str | None = None
    device: str | None = None

    def engine(self, task: Task) -> Engine:
        """The shared base with every adapter off.

        Raises:
            ModelError: it cannot be loaded.
        """
        from nbtune.data.encoding import Encoder
        from nbtune.models.loading import source_of
        from nbtune.models.shared import shared_base

        base = shared_base(source_of(self.model), dtype=self.dtype, quantization=self.quantization, device=self.device)
        return Engine(base, Encoder(base.tokenizer, task.uses_chat, task.system, reading=answering(base.config)))


@dataclass(frozen=True)
class Asking:
    """How all columns of a grid are asked: labels by summed or mean log-probability, or by generating; and the decoding."""

    scoring: Scoring
    decoding: Decoding
    tagging: bool = False

    @classmethod
    def of(cls, task: Task, engine: Engine, scoring: Scoring, decoding: DecodingSpec) -> Asking:
        """What was said, the rest by the task's training answers."""
        how = scoring if task.kind == "classification" else "generate"
        return cls(how, decoding_for(task, engine.encoder, decoding.max_new_tokens, decoding.stop), task.kind == "tagging")

    def __str__(self) -> str:
        if self.tagging:
            return "each word by the likeliest tag of the head"
        if self.scoring == "generate":
            return f"answers generated ({self.decoding})"
        return f"labels scored by the {'summed' if self.scoring == 'sum' else 'mean'} log-probability of their tokens"


@dataclass(frozen=True)
class Answers:
    """What a column said: an output a row, seconds for all of them, and the tokens of each row's prompt."""

    outputs: tuple[str, ...]
    seconds: float
    prompt_tokens: tuple[int, ...]


def _silent(done: int, total: int) -> None:
    """No progress wanted."""


@dataclass(frozen=True)
class Cost:
    """What an approach took before its first answer, under the names of a grid's columns; nothing, where nothing is trained.

    `adapter_bytes` are those of what was learnt on the disk, `train_tokens` real tokens without padding.
    """

    trainable_parameters: int = 0
    adapter_bytes: int = 0
    peak_memory_bytes: int = 0
    train_seconds: float = 0.0
    train_tokens: int = 0

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Self:
        """By a run's summary."""
        names = {"train_seconds": "seconds", "train_tokens": "num_tokens"}
        return cls(**{item.name: summary.get(names.get(item.name, item.name), 0) for item in fields(cls)})


@dataclass(frozen=True)
class Approach:
    """A way to answer a task's rows.

    `label` names it in a grid; `wrap` turns a row's prompt into what the model reads; `run_id` is set for tuned ones.
    """

    label: str
    task: Task
    engine: Engine
    wrap: Callable[[str], str]
    run_id: str | None = None
    cost: Cost = Cost()
    notes: tuple[str, ...] = field(default=())

    def answer(self, prompts: Sequence[str], asking: Asking, *, progress: Callable[[int, int], None] = _silent) -> Answers:
        """Answers to rendered prompts.

        Raises:
            ModelError: a prompt is longer than the model's context.
        """
        texts = [self.wrap(prompt) for prompt in prompts]
        tokens = self.engine.prompt_tokens(texts)
        self._refuse_overflow(tokens, asking)
        began = time.perf_counter()
        if isinstance(self.engine, Classifier):
            outputs = self.engine.read(texts, progress=progress)
        elif asking.scoring == "generate":
            outputs = [text.strip() for text in self.engine.generate(texts, asking.decoding, progress=progress)]
        else:
            completions = [self.task.completion_of[label] for label in self.task.labels]
            scores = self.engine.score(texts, completions, progress=progress)
            mean = asking.scoring == "mean"
            outputs = [self.task.labels[best_label([total / (count if mean else 1) for total, count in row])] for row in scores]
        return Answers(tuple(outputs), time.perf_counter() - began, tuple(tokens))

    def costs(self, answers: Answers) -> dict[str, Any]:
        """A grid's columns of what it took, to make it and to answer."""
        tokens = answers.prompt_tokens
        return {**asdict(self.cost), "seconds": answers.seconds, "prompt_tokens": sum(tokens) / max(1, len(tokens)), "rows": len(tokens)}

    def predict(self, rows: Sequence[Any], *, scoring: Scoring = "sum") -> list[str]:
        """The answers to new rows (dicts of the prompt's columns, or texts where it reads one)."""
        from nbtune.spec import DecodingSpec

        asking = Asking.of(self.task, self.engine, scoring, DecodingSpec())
        return list(self.answer(self.task.prompts(rows), asking).outputs)

    def __repr__(self) -> str:
        return f"Approach({self.label!r}, task {self.task.name!r}, {self.engine.base.name})"

    def _refuse_overflow(self, tokens: Sequence[int], asking: Asking) -> None:
        context = context_of(self.engine.base.config)
        if context is None or not tokens or self.engine.base.labels:
            return
        need = max(tokens) + asking.decoding.max_new_tokens
        if need > context:
            message = f"{self.label}: the longest prompt with its answer has {need} tokens, and {self.engine.base.name} reads {context}"
            raise ModelError(message, hint="use a smaller k, or shorter texts")


class Kind(Protocol):
    """A kind of approach: its options, and how one is made. One file and one line in the registry each."""

    name: str
    summary: str
    spec: type[Spec]

    def make(self, task: Task, options: Any, setting: Setting, label: str) -> Approach:
        """The approach, its model loaded."""
