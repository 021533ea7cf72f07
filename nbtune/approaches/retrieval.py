"""Retrieval: passages that a search finds for each row stand before its prompt (Lewis et al. 2020, https://arxiv.org/abs/2005.11401).

What is found is data of others: see `nbtune.retrieval.quoting` for what keeps it from being taken for the request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from nbtune.approaches.base import Answers, Asked, Setting, silent
from nbtune.approaches.calibrating import CalibrateSpec, texts_for
from nbtune.approaches.few_shot import BETWEEN, FewShotSpec, choose
from nbtune.approaches.neighbours import alike, own
from nbtune.data.conversations import Conversation, with_shots
from nbtune.data.templates import Template
from nbtune.errors import SpecError
from nbtune.models.families import context_of
from nbtune.retrieval import Index, Passage, open_index
from nbtune.retrieval.quoting import marks_of, quoted
from nbtune.retrieval.spec import SearchBy
from nbtune.spec import SEED_LIMIT, option

if TYPE_CHECKING:
    from nbtune.approaches.base import Approach, Asking, Progress
    from nbtune.spec import Spec
    from nbtune.task import Example, Task

__all__ = ["KIND", "Retrieval", "RetrievalSpec", "index_named"]

_TEMPLATE: Final = "{{ passages }}\n\n{{ prompt }}"
_LEAST: Final = 20
"""Characters of a row's text below which standing somewhere says nothing."""
_COMPARED: Final = 200
_LEAKS: Final = 3


class RetrievalSpec(CalibrateSpec):
    """Which index, how it is searched, and how what is found is shown to the model."""

    what: ClassVar[str] = "retrieval option"

    index: Any = option(..., "name of the index, or the index itself")
    k: int = option(3, "passages before each prompt; as many of them as the model can read with it", ge=1, le=100)
    by: SearchBy = option("hybrid", "vector: by meaning; text: by words (BM25); hybrid: both, by reciprocal rank")
    threshold: float | None = option(None, "least cosine of row and passage; left out: k passages whatever they are", ge=-1, le=1)
    template: str | None = option(None, "how both are put together, with {{ passages }} and {{ prompt }}")
    guard: bool = option(True, "passages stand between marks that they cannot write, and are said to be data and no request")
    k_examples: int = option(0, "answered training rows between passages and prompt, drawn at random", ge=0, le=256)
    seed: int = option(0, "seed of the examples", ge=0, le=SEED_LIMIT)


def index_named(options: RetrievalSpec, *, device: str | None = None) -> Index:
    """The index that is meant, which can be searched so.

    Raises:
        SpecError: there is none of that name, or it has fewer chunks than `k`.
        DataError: it was never finished.
    """
    found = options.index if isinstance(options.index, Index) else open_index(options.index, device=device)
    found.check(options.k, options.by, options.threshold)
    return found


class Retrieval:
    """See the module's text."""

    name: ClassVar[str] = "retrieval"
    summary: ClassVar[str] = "passages found for each row before the prompt"
    spec: ClassVar[type[Spec]] = RetrievalSpec

    def called(self, options: RetrievalSpec) -> str:
        """By the index, and the options that differ from their defaults."""
        name = options.index.name if isinstance(options.index, Index) else options.index
        said = options.model_dump(exclude={"index"})
        changed = [
            f"{item.name}={said[item.name]!s:.40}" for item in options.options() if item.name in said and said[item.name] != item.default
        ]
        return f"retrieval: {', '.join([str(name), *changed])}"

    def make(self, task: Task, options: RetrievalSpec, setting: Setting, label: str) -> Approach:
        """The base, asked with passages before every prompt.

        Raises:
            SpecError: no such index, fewer chunks or training rows than wanted, or a template that leaves something out.
            ModelError: a model cannot be loaded.
        """
        template = _template(options)
        index = index_named(options, device=setting.device)
        if options.k_examples > len(task.train):
            message = f"k_examples is {options.k_examples}, and there are {len(task.train)} training rows"
            raise SpecError(message, hint=f"use at most {len(task.train)}")
        shots = choose(task, FewShotSpec.build({"k": options.k_examples, "seed": options.seed})) if options.k_examples else []
        engine = setting.engine(task)
        pool = [str(item.prompt) for item in task.train]
        return _Retrieval(
            label,
            task,
            engine,
            lambda prompt: prompt,
            calibrate_on=texts_for(task, options, without={item.prompt for item in shots}, scoring=setting.scoring),
            index=index,
            options=options,
            template=template,
            around=alike(pool) if pool else (0, 0),
            shots=tuple(shots),
            warnings=_leaks(label, task, index, alike(pool) if pool else (0, 0)),
        )


def _template(options: RetrievalSpec) -> Template:
    template = Template(options.template or _TEMPLATE)
    if set(template.fields) != {"passages", "prompt"}:
        message = f"the template of retrieval reads {', '.join(template.fields) or 'nothing'}"
        raise SpecError(message, hint='it holds {{ passages }} and {{ prompt }}, as in "{{ passages }}\\n\\n{{ prompt }}"')
    return template


def _leaks(label: str, task: Task, index: Index, around: tuple[int, int]) -> tuple[str, ...]:
    """A warning where test rows stand word for word in what is found for their own words."""
    rows = {_query(item.prompt, around): None for item in task.test}
    texts = [text for text in rows if len(_plain(text)) >= _LEAST]
    known = 0
    for text, found in zip(texts, index.search_all(texts, min(_LEAKS, index.chunks), by="text"), strict=True):
        known += any(_plain(text)[:_COMPARED] in _plain(item.text) for item in found)
    if not known:
        return ()
    return (f"{label}: {known} of the test rows stand word for word in index {index.name!r}: its score says nothing of new rows",)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _query(prompt: str, around: tuple[int, int]) -> str:
    """What a row says of itself: what its user said last, or its prompt without what the template says of all."""
    if isinstance(prompt, Conversation):
        return next((turn["content"] for turn in reversed(prompt.turns) if turn["role"] == "user"), str(prompt))
    return own(str(prompt), around)


@dataclass(frozen=True, repr=False)
class _Retrieval(Asked):
    """Asks with the passages that go in."""

    index: Index = field(kw_only=True)
    options: RetrievalSpec = field(kw_only=True)
    template: Template = field(kw_only=True)
    around: tuple[int, int] = field(kw_only=True)
    shots: tuple[Example, ...] = field(default=(), kw_only=True)

    def answer(self, prompts: Sequence[str], asking: Asking, *, progress: Progress = silent) -> Answers:
        """As `Asked.answer`, with the passages that stood before each row."""
        began = time.perf_counter()
        together = list(dict.fromkeys([*prompts, *self.calibrate_on]))
        found = dict(zip(map(str, together), self._found(together), strict=True))
        texts, used = self._fitted(together, found, asking)
        searching = time.perf_counter() - began
        asked = Asked(self.label, self.task, self.by, lambda prompt: texts[str(prompt)], calibrate_on=self.calibrate_on)
        answers = asked.answer(prompts, asking, progress=progress)
        notes = (*answers.notes, *self._notes(prompts, found, used))
        passages = tuple(tuple(found[str(prompt)][: used[str(prompt)]]) for prompt in prompts)
        return replace(answers, seconds=answers.seconds + searching, notes=notes, passages=passages)

    def texts(self, prompts: Sequence[str], asking: Asking) -> list[str]:
        """The prompts behind their passages."""
        found = dict(zip(map(str, prompts), self._found(prompts), strict=True))
        texts, _ = self._fitted(prompts, found, asking)
        return [texts[str(prompt)] for prompt in prompts]

    def shown(self, prompts: Sequence[str]) -> frozenset[str]:
        """The prompts of the examples."""
        return frozenset(item.prompt for item in self.shots)

    def _found(self, prompts: Sequence[str]) -> list[tuple[Passage, ...]]:
        queries = [_query(prompt, self.around) for prompt in prompts]
        said = self.options
        return [tuple(found) for found in self.index.search_all(queries, said.k, by=said.by, threshold=said.threshold)]

    def _fitted(
        self, prompts: Sequence[str], found: Mapping[str, Sequence[Passage]], asking: Asking
    ) -> tuple[dict[str, str], dict[str, int]]:
        """({prompt: itself behind as many passages as fit}, {prompt: how many these are})."""
        used = {str(prompt): len(found[str(prompt)]) for prompt in prompts}
        marks = marks_of(self.by.encoder.tokenizer)
        texts = {str(prompt): self._text(prompt, found[str(prompt)], marks) for prompt in prompts}
        context = context_of(self.by.base.config)
        if context is None:
            return texts, used
        room = context - asking.decoding.max_new_tokens
        lengths = dict(zip(texts, self.by.prompt_tokens(list(texts.values())), strict=True))
        for prompt in prompts:
            key = str(prompt)
            while lengths[key] > room and used[key]:
                used[key] -= 1
                texts[key] = self._text(prompt, found[key][: used[key]], marks)
                (lengths[key],) = self.by.prompt_tokens([texts[key]])
        return texts, used

    def _text(self, prompt: str, passages: Sequence[Passage], marks: Sequence[str]) -> str:
        asked = _behind(self.shots, prompt)
        if not passages:
            return asked
        block = quoted(passages, guard=self.options.guard, marks=marks)
        if not isinstance(asked, Conversation):
            return self.template.render({"passages": block, "prompt": str(asked)})
        turns = [dict(turn) for turn in asked.turns]
        last = max(place for place, turn in enumerate(turns) if turn["role"] == "user")
        turns[last]["content"] = self.template.render({"passages": block, "prompt": turns[last]["content"]})
        return Conversation.of(turns)

    def _notes(self, prompts: Sequence[str], found: Mapping[str, Sequence[Passage]], used: Mapping[str, int]) -> list[str]:
        cut = [used[str(prompt)] for prompt in prompts if used[str(prompt)] < len(found[str(prompt)])]
        none = sum(not found[str(prompt)] for prompt in prompts)
        notes = []
        if cut:
            notes.append(
                f"{self.label}: before {len(cut)} of {len(prompts)} prompts fewer passages than {self.options.k} fit into the "
                f"{context_of(self.by.base.config):,} tokens it reads, {min(cut)} at least"
            )
        if none:
            notes.append(f"{self.label}: for {none} of {len(prompts)} rows nothing was found, they were asked without passages")
        return notes


def _behind(shots: Sequence[Example], prompt: str) -> str:
    """The prompt behind answered examples."""
    if not isinstance(prompt, Conversation):
        return "".join(shot.prompt + shot.completion + BETWEEN for shot in shots) + prompt if shots else prompt
    return with_shots([(cast("Conversation", shot.prompt), shot.completion) for shot in shots], prompt)


KIND: Final[Any] = Retrieval()
