"""One column of a comparison: how a task's rows become outputs. Also usable alone, through `.predict`."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from nbtune.approaches.labels import calibrated, normalised
from nbtune.approaches.questions import Questions
from nbtune.errors import ModelError, SpecError
from nbtune.inference import Decoding, Engine
from nbtune.inference.classifying import Classifier
from nbtune.inference.constraining import Constraint
from nbtune.inference.progress import Progress, silent
from nbtune.models.families import answering, context_of
from nbtune.training.evaluation import best_label, decoding_for

if TYPE_CHECKING:
    from nbtune.models.base import Base
    from nbtune.retrieval import Passage
    from nbtune.spec import DecodingSpec, Spec
    from nbtune.task import Task

__all__ = [
    "Answers",
    "Approach",
    "Asked",
    "Asking",
    "Cost",
    "Kind",
    "Progress",
    "Setting",
    "Sort",
    "further",
    "refuse_calibrated_head",
    "silent",
    "unheard",
]

Scoring = Literal["sum", "mean", "byte", "generate"]
Sort = Literal["prompting", "tuned", "floor", "other"]


def unheard(text: str) -> None:
    """Nobody wants to know what goes on."""


@dataclass(frozen=True)
class Setting:
    """The base that prompting columns ask: as in `finetune`."""

    model: Any
    dtype: str | None = None
    quantization: str | None = None
    device: str | None = None
    tuned: Engine | None = None
    """What is asked in the place of the base, where something is."""
    scoring: Scoring = "sum"
    decoding: DecodingSpec | None = None
    report: Callable[[str], None] = unheard
    """Told in a few words what goes on, by what takes its time to be made."""

    @property
    def called(self) -> str:
        """The base as a column names it where there are several."""
        held = [str(text) for text in (self.quantization, self.dtype) if text is not None]
        return f"{getattr(self.model, 'name', self.model)}{f' ({held[0]})' if held else ''}"

    def asking(self, task: Task, engine: Engine) -> Asking:
        """How a grid of this setting asks."""
        from nbtune.spec import DecodingSpec

        return Asking.of(task, [engine], self.scoring, self.decoding or DecodingSpec())

    def base(self) -> Base:
        """The shared base.

        Raises:
            ModelError: it cannot be loaded.
        """
        from nbtune.models.loading import source_of
        from nbtune.models.shared import shared_base

        return shared_base(source_of(self.model), dtype=self.dtype, quantization=self.quantization, device=self.device)

    def engine(self, task: Task) -> Engine:
        """The shared base with every adapter off.

        Raises:
            ModelError: it cannot be loaded.
        """
        if self.tuned is not None:
            return self.tuned
        from nbtune.data.encoding import Encoder

        base = self.base()
        return Engine(base, Encoder(base.tokenizer, task.uses_chat, task.system, reading=answering(base.config)))


def constraint_of(decoding: DecodingSpec) -> Constraint | None:
    """The form that answers have to keep.

    Raises:
        SpecError: it cannot be followed.
    """
    return Constraint.of(decoding.choices, decoding.json_schema, decoding.regex)


@dataclass(frozen=True)
class Asking:
    """How all columns of a grid are asked: labels by their log-probability (see `labels`), or by generating; and the decoding."""

    scoring: Scoring
    decoding: Decoding
    tagging: bool = False
    alone: bool = False
    """Whether rows are asked one by one, to hold their answers against those of batches; the two are kept apart."""
    kept: bool = True
    """Whether a row's answers may be taken from where they are kept, with the seconds that they took; what calibrates them always may."""

    @classmethod
    def of(cls, task: Task, engines: Sequence[Engine], scoring: Scoring, decoding: DecodingSpec) -> Asking:
        """What was said, the rest by the task's training answers, as long as they are in the tokens of any of the models that are asked.

        Raises:
            SpecError: a form of answers that cannot be followed.
        """
        how = scoring if task.kind == "classification" else "generate"
        if not engines:  # nothing is decoded
            return cls(how, Decoding(), task.kind == "tagging")
        encoders = {id(engine.encoder.tokenizer): engine.encoder for engine in engines}.values()
        each = [decoding_for(task, encoder, decoding.max_new_tokens, decoding.stop) for encoder in encoders]
        said = max(each, key=lambda one: one.max_new_tokens)
        return cls(how, replace(said, constraint=constraint_of(decoding)), task.kind == "tagging")

    def __str__(self) -> str:
        if self.tagging:
            return "each word by the likeliest tag of the head"
        if self.scoring == "generate":
            return f"answers generated ({self.decoding})"
        each = {"sum": "summed log-probability of their tokens", "mean": "mean log-probability of their tokens"}
        return f"labels scored by the {each.get(self.scoring, 'log-probability of their tokens by byte')}"


@dataclass(frozen=True)
class Answers:
    """What a column said: an output a row, seconds for all of them, and the tokens of each row's prompt (0: no model read one).

    `label_scores` [rows][labels] are what labels were told apart by, where they were: the higher the likelier, in nats. Where it was asked
    several times, `repeats` are all outputs [times][rows], of which `outputs` are the first. `notes` say what turned out only then.
    `passages` [rows][found] are what was looked up and stood before each row.
    """

    outputs: tuple[str, ...]
    seconds: float
    prompt_tokens: tuple[int, ...]
    label_scores: tuple[tuple[float, ...], ...] | None = None
    repeats: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    passages: tuple[tuple[Passage, ...], ...] | None = None

    def cited(self, row: int) -> list[dict[str, Any]] | None:
        """The passages before a row as records, the best first; None where nothing was looked up."""
        return None if self.passages is None else [asdict(item) for item in self.passages[row]]


def further(progress: Progress, turn: int, turns: int, rows: int) -> Progress:
    """Progress within one of several turns over as many rows."""
    return lambda done, _total, *writing: progress(turn * rows + done, turns * rows, *writing)


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

    @classmethod
    def sum(cls, costs: Sequence[Cost]) -> Self:
        """Of several: all that they took, and the largest of their peaks."""
        found = {item.name: sum(getattr(cost, item.name) for cost in costs) for item in fields(cls)}
        return cls(**{**found, "peak_memory_bytes": max((cost.peak_memory_bytes for cost in costs), default=0)})


@dataclass(frozen=True)
class Approach(ABC):
    """A way to answer a task's rows; `label` names it in a grid, `run_id` is set for tuned ones.

    `engine` is the model that it asks; None: it asks none, or several. `notes` and `warnings` become the grid's.
    """

    label: str
    task: Task
    run_id: str | None = field(default=None, kw_only=True)
    cost: Cost = field(default=Cost(), kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    warnings: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def engine(self) -> Engine | None:
        """The model that it asks."""
        return None

    @property
    def parts(self) -> tuple[Approach, ...]:
        """The approaches that it is made of: itself alone, but for what asks several."""
        return (self,)

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The models that its parts ask."""
        return tuple(part.engine for part in self.parts if part.engine is not None)

    def shown(self, prompts: Sequence[str]) -> frozenset[str]:
        """The prompts of answered rows that it puts before any of these."""
        return frozenset()

    @property
    def kind(self) -> Sort:
        """What sort of column it is."""
        return "tuned" if self.run_id is not None else "prompting" if self.engine is not None else "other"

    @abstractmethod
    def answer(self, prompts: Sequence[str], asking: Asking, *, progress: Progress = silent) -> Answers:
        """Answers to rendered prompts.

        Raises:
            NbtuneError: it cannot.
        """

    def costs(self, answers: Answers) -> dict[str, Any]:
        """A grid's columns of what it took, to make it and to answer."""
        tokens = answers.prompt_tokens
        return {**asdict(self.cost), "seconds": answers.seconds, "prompt_tokens": sum(tokens) / max(1, len(tokens)), "rows": len(tokens)}

    def predict(
        self, rows: Sequence[Any], *, scoring: Scoring = "sum", decoding: Mapping[str, Any] | DecodingSpec | None = None
    ) -> list[str]:
        """The answers to new rows (dicts of the prompt's columns, or texts where it reads one), asked as a comparison asks them.

        Raises:
            SpecError: scoring or decoding that there is not.
            DataError: a row lacks a column.
        """
        from nbtune.spec import AskingSpec

        said = AskingSpec.build({"scoring": scoring, **({} if decoding is None else {"decoding": decoding})})
        asking = Asking.of(self.task, self.engines, said.scoring, said.decoding)
        return list(self.answer(self.task.prompts(rows), asking).outputs)

    def __repr__(self) -> str:
        return f"Approach({self.label!r}, task {self.task.name!r}{f', {self.engine.base.name}' if self.engine is not None else ''})"


@dataclass(frozen=True, repr=False)
class Asked(Approach):
    """An approach that asks one model, `by`; `wrap` turns a row's prompt into what the model reads.

    With `calibrate_on` (prompts as rows have them) labels' scores are put right by what the model says of those. With `own_template` it is
    meant to ask in other words than the task's prompt.
    """

    by: Engine
    wrap: Callable[[str], str]
    calibrate_on: tuple[str, ...] = field(default=(), kw_only=True)
    own_template: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        """Refuses to calibrate a head.

        Raises:
            SpecError: it is to be.
        """
        refuse_calibrated_head(self.by, self.calibrate_on)

    @property
    def engine(self) -> Engine:
        """`by`."""
        return self.by

    def texts(self, prompts: Sequence[str], asking: Asking) -> list[str]:
        """What the model reads in the place of each prompt."""
        return [self.wrap(prompt) for prompt in prompts]

    def answer(self, prompts: Sequence[str], asking: Asking, *, progress: Progress = silent) -> Answers:
        """As `Approach.answer`.

        Raises:
            ModelError: a prompt is longer than the model's context.
        """
        texts = self.texts(prompts, asking)
        questions = Questions(self.by, texts, alone=asking.alone, kept=asking.kept)
        self._refuse_overflow(questions.tokens, asking)
        began = time.perf_counter()
        outputs, scores = self._outputs(asking, questions, progress)
        seconds = questions.seconds + time.perf_counter() - began - questions.waited
        told = None if scores is None else tuple(map(tuple, scores))
        cut = self.by.cut(texts) if isinstance(self.by, Classifier) else None
        notes = (*questions.notes, *([f"{self.label}: {cut}"] if cut else []))
        return Answers(tuple(outputs), seconds, questions.tokens, told, notes=notes)

    def _outputs(self, asking: Asking, questions: Questions, progress: Progress) -> tuple[Sequence[str], list[list[float]] | None]:
        labels = self.task.labels
        if isinstance(self.by, Classifier):
            if self.task.kind != "classification":
                return questions.read(progress), None
            scores = [[value for value, _ in row] for row in questions.scored(labels, progress)]
            return [labels[best_label(row)] for row in scores], scores
        if asking.scoring == "generate":
            return [text.strip() for text in questions.generated(asking.decoding, progress)], None
        scores = self._scores(asking.scoring, questions, progress)
        if self.calibrate_on:
            known = [self.wrap(prompt) for prompt in self.calibrate_on]
            always = Questions(self.by, known)  # when rows are asked again to see whether they answer alike, these need not be
            scores = calibrated(scores, self._scores(asking.scoring, always, silent))
            questions.seconds, questions.waited = questions.seconds + always.seconds, questions.waited + always.waited
        return [labels[best_label(row)] for row in scores], scores

    def _scores(self, scoring: Scoring, questions: Questions, progress: Progress) -> list[list[float]]:
        completions = [self.task.completion_of[label] for label in self.task.labels]
        return normalised(questions.scored(completions, progress), completions, scoring)

    def room(self, asking: Asking) -> int | None:
        """Most tokens of a prompt that the model reads with an answer behind it; None where it does not say, or has a head and cuts."""
        context = context_of(self.by.base.config)
        if context is None or self.by.base.labels:
            return None
        if asking.scoring == "generate":
            return context - asking.decoding.max_new_tokens
        prompt = self.task.train[0].prompt
        return context - max(len(self.by.encoder.answer_ids(prompt, answer)) for answer in self.task.completion_of.values())

    def _refuse_overflow(self, tokens: Sequence[int], asking: Asking) -> None:
        room = self.room(asking)
        if room is not None and tokens and max(tokens) > room:
            context = context_of(self.by.base.config) or room
            message = (
                f"{self.label}: the longest prompt with its answer has {max(tokens) + context - room} tokens, "
                f"and {self.by.base.name} reads {context}"
            )
            raise ModelError(message, hint="use shorter texts, or a model that reads more")


def refuse_calibrated_head(engine: Engine, calibrate_on: Sequence[str]) -> None:
    """Refuses texts to calibrate a model on that has a head over the labels.

    Raises:
        SpecError: that is so.
    """
    if calibrate_on and isinstance(engine, Classifier):
        message = f"calibrate puts right how labels are scored by their text, and {engine.base.name} has a head over them"
        raise SpecError(message, hint="leave calibrate out")


class Kind(Protocol):
    """A kind of approach: its options, and how one is made. One file and one line in the registry each.

    With `called(options)` it names its columns itself; else they are named by its options. With `asks_base = False` it asks none of the
    grid's base.
    """

    name: str
    summary: str
    spec: type[Spec]

    def make(self, task: Task, options: Any, setting: Setting, label: str) -> Approach:
        """The approach, its model loaded."""
