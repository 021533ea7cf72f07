"""Prompt search: hard prompt tuning. The template that answers best is found on dev rows, and asks in the place of the task's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from nbtune.approaches.base import Asked, Cost, Setting, refuse_calibrated_head
from nbtune.approaches.calibrating import CalibrateSpec, texts_for
from nbtune.approaches.few_shot import BETWEEN, FewShotSpec, choose
from nbtune.approaches.labels import calibrated
from nbtune.data.examples import row_key
from nbtune.errors import DataError, ModelError, NbtuneError, SpecError
from nbtune.inference.cache import question_keys
from nbtune.models.families import context_of
from nbtune.prompts.kept import KeptSearch, Said, search_key
from nbtune.prompts.proposing import FunctionProposer, ModelProposer
from nbtune.prompts.racing import BLOCK
from nbtune.prompts.rows import SearchRows
from nbtune.prompts.search import Plan, Search
from nbtune.prompts.variants import Frame, Variant, given
from nbtune.spec import SEED_LIMIT, Spec, Words, option
from nbtune.training.evaluation import best_label
from nbtune.views import view

if TYPE_CHECKING:
    import pandas as pd

    from nbtune.approaches.base import Answers, Approach, Asking
    from nbtune.inference import Engine
    from nbtune.prompts.found import Found
    from nbtune.prompts.proposing import Proposer
    from nbtune.task import Example, Task

__all__ = ["KIND", "PromptSearch", "PromptSearchSpec", "Searched"]

_ROUNDS: Final = 3
_CALIBRATING: Final = 32
"""Texts that each template is asked to be calibrated by; fewer than elsewhere, as every template takes them."""


class PromptSearchSpec(CalibrateSpec):
    """Which templates are tried, who writes more of them, and what that may take."""

    what: ClassVar[str] = "prompt-search option"

    templates: Words = option((), "your own variants of the task's prompt, with {{ column }}; the task's own is always among them")
    rounds: int | None = option(
        None,
        "rounds in which variants are written; left out: 3, or with templates of your own and no proposer none",
        ge=0,
        le=50,
        slider=(0, 8),
    )
    proposals: int = option(8, "variants that are written in a round", ge=1, le=100, slider=(1, 16))
    beam: int = option(4, "the best so many of a round go on, and are what new ones are written from", ge=1, le=50, slider=(1, 8))
    proposer: Any = option(None, "who writes variants: a model, or a function from a request to a text; left out: the model that is asked")
    k: int = option(0, "answered training rows before each prompt, the same for all variants", ge=0, le=256, aliases=("num_shots", "shots"))
    level: float = option(0.05, "chance that one is said to be worse than another which is not", gt=0, le=0.5)
    halve: bool = option(
        True,
        "after a quarter of the rows the better half goes on, after half of them a quarter; false: until one is shown to be worse",
    )
    max_rows: int = option(128, "most rows that variants are scored on", ge=BLOCK, scale="log")
    max_calls: int | None = option(2000, "most calls: rows asked of the model and variants written; null: no limit", ge=1)
    max_seconds: float | None = option(None, "ends the search after so many seconds of calls", gt=0)
    seed: int = option(0, "seed of the rows' order, of the examples, and of what a proposer is shown", ge=0, le=SEED_LIMIT)

    @property
    def turns(self) -> int:
        """The rounds there are."""
        return self.rounds if self.rounds is not None else 0 if self.templates and self.proposer is None else _ROUNDS


@dataclass(frozen=True)
class _Wording:
    """Writes what is asked of a row: examples, then the row, all by one template."""

    task: Task
    variant: Variant
    shots: tuple[Example, ...]

    def of(self, row: Mapping[str, Any]) -> str:
        """What a row is asked with."""
        before = [self.variant.render(shot.row) + shot.completion + BETWEEN for shot in self.shots]
        return "".join(before) + self.variant.render(row)

    def __call__(self, prompt: str) -> str:
        """The same of a prompt that knows its row, or is word for word that of a row of the task."""
        row = getattr(prompt, "row", None)
        if row is None:
            items = (*self.task.test, *self.task.dev, *self.task.train)
            row = next((item.row for item in items if item.prompt == prompt), None)
        if row is None:
            message = f"prompt-search asks in words of its own, and of what row the prompt {prompt!r:.60} is cannot be told"
            raise DataError(message, hint="give rows to predict, or to inputs of a comparison")
        return self.of(row)


@dataclass(frozen=True, repr=False)
class Searched(Asked):
    """Asks with the template that the search `found`."""

    found: Found = field(kw_only=True)

    @property
    def template(self) -> str:
        """The winner, to be copied."""
        return self.found.winner.source

    @property
    def table(self) -> pd.DataFrame:
        """A row a template, the winner first: template, origin, rows, <metric>, ci_low, ci_high, dropped_after, prompt_tokens."""
        return self.found.table

    @property
    def metric(self) -> str:
        """The name of the score."""
        return self.task.metric.name

    @property
    def told(self) -> tuple[str, ...]:
        """What a reader should know of the search."""
        return self.found.told

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", view("search_mimebundle")(self))
        except NbtuneError:
            return {"text/plain": "\n".join([repr(self), *self.told, self.template])}


@dataclass(frozen=True)
class _Model:
    """Asks the model that the search is for; `calibrate_on` are prompts whose answers each variant's are put right by."""

    task: Task
    engine: Engine
    asking: Asking
    shots: tuple[Example, ...]
    calibrate_on: tuple[str, ...]
    known: dict[str, Answers] = field(default_factory=dict)

    def ask(self, variant: Variant, rows: Sequence[Example]) -> list[Said]:
        """Answers of a variant."""
        answers = self._answers(variant, [row.row for row in rows])
        outputs, labels = answers.outputs, self.task.labels
        if answers.label_scores is not None and self.calibrate_on:
            always = self._known(variant).label_scores or ()
            outputs = tuple(labels[best_label(row)] for row in calibrated(answers.label_scores, always))
        each = answers.seconds / max(1, len(rows))
        return [Said(text, tokens, each) for text, tokens in zip(outputs, answers.prompt_tokens, strict=True)]

    def begin(self, variant: Variant) -> Said:
        """What a variant takes before its first row: to be calibrated."""
        answers = self._known(variant)
        return Said("", sum(answers.prompt_tokens), answers.seconds)

    def _known(self, variant: Variant) -> Answers:
        if variant.source not in self.known:
            rows = {item.prompt: item.row for item in self.task.train}
            self.known[variant.source] = self._answers(variant, [rows[prompt] for prompt in self.calibrate_on])
        return self.known[variant.source]

    def _answers(self, variant: Variant, rows: Sequence[Mapping[str, Any]]) -> Answers:
        wording = _Wording(self.task, variant, self.shots)
        column = Asked("prompt-search", self.task, self.engine, lambda text: text)
        return column.answer([wording.of(row) for row in rows], self.asking)

    def room(self, variant: Variant, rows: Sequence[Example]) -> int:
        """How many tokens the model can read beyond the longest prompt of a variant and its answer.

        Raises:
            DataError: a row cannot be written by it.
        """
        wording = _Wording(self.task, variant, self.shots)
        longest = max(self.engine.prompt_tokens([wording.of(row.row) for row in rows])) + self.asking.decoding.max_new_tokens
        return (context_of(self.engine.base.config) or longest) - longest

    def fits(self, variant: Variant, rows: Sequence[Example]) -> bool:
        """Whether all rows can be asked by it."""
        try:
            return self.room(variant, rows) >= 0
        except DataError:
            return False


class PromptSearch:
    """See the module's text."""

    name: ClassVar[str] = "prompt-search"
    summary: ClassVar[str] = "the template that answers dev rows best, of your own and of those that a model writes"
    spec: ClassVar[type[Spec]] = PromptSearchSpec

    def called(self, options: PromptSearchSpec) -> str:
        """By its templates, counted and told apart by a few digits of their hash, and what else is not as usual."""
        said = []
        if options.templates:
            digest = hashlib.sha256("\0".join(options.templates).encode("utf-8", "replace")).hexdigest()[:4]
            said.append(f"{len(options.templates)} own ({digest})")
        if options.proposer is not None:
            said.append(f"proposer={_named(options.proposer)}")
        dumped = options.model_dump(exclude={"templates", "proposer"})
        said += [f"{item.name}={dumped[item.name]}" for item in options.options() if dumped.get(item.name, item.default) != item.default]
        return f"{self.name}: {', '.join(said)}" if said else self.name

    def make(self, task: Task, options: PromptSearchSpec, setting: Setting, label: str) -> Approach:
        """The base, asked with the template that is best on the dev rows; this searches.

        Raises:
            SpecError: templates, a budget or rows with which there is no search.
            DataError: a template that cannot be read or filled.
            ModelError: a model cannot be loaded, or a template is longer than it reads.
            ComparisonError: the proposer failed.
        """
        shots, rows = _rows(task, options)
        known = texts_for(task, options, {shot.prompt for shot in shots}, scoring=setting.scoring, most=_CALIBRATING)
        variants = given(task, options.templates, (*rows.scored, *rows.others, *shots))
        _refuse(options, rows, len(variants), len(known))
        proposer = _function(options.proposer)
        engine = setting.engine(task)
        refuse_calibrated_head(engine, known)
        if proposer is None and options.turns:
            named = setting if options.proposer is None else replace(setting, model=options.proposer)
            proposer = ModelProposer.of(named.base())
        model = _Model(task, engine, setting.asking(task, engine), shots, known)
        seen = (*rows.scored, *rows.others)
        for variant in variants:
            if (room := model.room(variant, seen)) < 0:
                message = f"{label}: the longest prompt of {variant.source!r:.80} is {-room} tokens longer than {engine.base.name} reads"
                raise ModelError(message, hint="use a smaller k, or a shorter template")
        search = Search(
            task,
            rows,
            _plan(options, len(known)),
            ask=model.ask,
            begin=model.begin,
            fits=lambda variant: model.fits(variant, seen),
            kept=KeptSearch.open(_key(task, model, proposer)),
            report=lambda text: setting.report(f"{label}: {text}"),
            frame=Frame.of(task),
            proposer=proposer,
        )
        found = search.run(variants)
        wording = _Wording(task, found.winner, shots)
        cost = Cost(train_seconds=found.seconds, train_tokens=found.tokens)
        first, *rest = found.told
        notes = (f"{label}: {first} Its template: {found.winner.source!r}", f"{label}: {' '.join(rest)}")
        return Searched(label, task, engine, wording, cost=cost, calibrate_on=known, own_template=True, notes=notes, found=found)


def _plan(options: PromptSearchSpec, calibrating: int) -> Plan:
    return Plan(
        calibrating=calibrating,
        rounds=options.turns,
        proposals=options.proposals,
        beam=options.beam,
        level=options.level,
        halve=options.halve,
        seed=options.seed,
        max_calls=options.max_calls,
        max_seconds=options.max_seconds,
    )


def _named(proposer: Any) -> str:
    return proposer if isinstance(proposer, str) else str(getattr(proposer, "__name__", type(proposer).__name__))


def _function(proposer: Any) -> Proposer | None:
    """The proposer, where it is a function; a model can be called as well, but names itself by its config."""
    return FunctionProposer(proposer) if callable(proposer) and not hasattr(proposer, "config") else None


def _rows(task: Task, options: PromptSearchSpec) -> tuple[tuple[Example, ...], SearchRows]:
    """(examples before each prompt, the rows that are looked at).

    Raises:
        SpecError: rows are conversations, which no template writes, or there are too few.
    """
    if task.spec.format == "messages":
        message = f"prompt-search varies a template, and the rows of task {task.name!r} are conversations, which have none"
        raise SpecError(message, hint="compare few-shot, or another system: text of the task")
    if options.k >= len(task.train):
        raise SpecError(f"k is {options.k}, and there are {len(task.train)} training rows", hint=f"use less than {len(task.train)}")
    shots = tuple(choose(task, FewShotSpec(k=options.k, seed=options.seed))) if options.k else ()
    return shots, SearchRows.of(task, shots, most=options.max_rows, seed=options.seed)


def _refuse(options: PromptSearchSpec, rows: SearchRows, count: int, calibrating: int) -> None:
    least = count * (BLOCK + calibrating)
    if options.max_calls is not None and options.max_calls < least:
        message = f"max_calls is {options.max_calls}, and one look at {count} templates takes {least} calls"
        every = count * (len(rows.scored) + calibrating)
        raise SpecError(message, hint=f"set it to {least} or more; all rows of all of them take {every:,}")
    if count == 1 and not options.turns:
        raise SpecError("prompt-search has nothing to try: rounds is 0, and no template is given but the task's own", hint="give templates")
    if options.turns and not rows.others:
        message = "prompt-search has no training row left that variants could be written from"
        raise SpecError(message, hint="use a smaller k, or rounds: 0 with templates of your own")


def _key(task: Task, model: _Model, proposer: Proposer | None) -> str:
    """By what decides an answer; not by templates, rounds or budget, so that a search goes on when it is given more of them."""
    how = [model.asking.scoring, model.asking.decoding.key, model.engine.ends, [row_key(shot.row) for shot in model.shots]]
    how += [list(model.calibrate_on)] if model.calibrate_on else []
    asked = question_keys(model.engine, [[]], how)
    return search_key(task.fingerprint, asked, proposer.key if proposer is not None else None)


KIND: Final[Any] = PromptSearch()
