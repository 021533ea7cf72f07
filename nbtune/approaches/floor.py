"""What has to be beaten: the most frequent class, words counted by a linear classifier, or a vote of the nearest training rows.

Whatever a tuned transformer or a long prompt scores, it has shown nothing where these do as well.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from nbtune.approaches.base import Answers, Approach, Cost, silent
from nbtune.approaches.neighbours import Pool
from nbtune.errors import SpecError
from nbtune.spec import Spec, option

if TYPE_CHECKING:
    from nbtune.approaches.base import Asking, Progress, Setting, Sort
    from nbtune.task import Example, Task

__all__ = ["KIND", "Floor", "FloorSpec"]

_STRENGTHS: Final = (0.1, 1.0, 10.0, 100.0)
"""Of the classifier over words, the best of which on the dev rows is taken."""


class FloorSpec(Spec):
    """Which floor."""

    what: ClassVar[str] = "floor option"

    by: Literal["majority", "tf-idf", "neighbours"] = option(
        "tf-idf",
        "the most frequent class; logistic regression over TF-IDF of words and pairs of words; the vote of the nearest training rows",
    )
    k: int = option(8, "neighbours that vote", ge=1, le=256)
    embed: str | None = option(None, "model that neighbours are found by; left out: minilm")


@dataclass(frozen=True, repr=False)
class _Fitted(Approach):
    """Answers all rows at once, without a language model."""

    answers: Callable[[Sequence[str]], Sequence[str]]
    saved: Callable[[Sequence[str]], float] = field(default=lambda _prompts: 0.0, kw_only=True)
    """Seconds that answering these takes less, because something of it was done before."""

    @property
    def kind(self) -> Sort:
        """A floor."""
        return "floor"

    def answer(self, prompts: Sequence[str], asking: Asking, *, progress: Progress = silent) -> Answers:
        """As `Approach.answer`."""
        saved = self.saved(prompts)
        began = time.perf_counter()
        outputs = tuple(self.answers([str(prompt) for prompt in prompts])) if prompts else ()
        progress(len(prompts), len(prompts))
        return Answers(outputs, saved + time.perf_counter() - began, (0,) * len(prompts))


class Floor:
    """See the module's text."""

    name: ClassVar[str] = "floor"
    summary: ClassVar[str] = "what has to be beaten: the most frequent class, a classifier over words, or the nearest training rows"
    spec: ClassVar[type[Spec]] = FloorSpec
    asks_base: ClassVar[bool] = False

    def called(self, options: FloorSpec) -> str:
        """By what it goes by."""
        near = f" k={options.k}" + (f", embed={options.embed}" if options.embed is not None else "")
        return f"floor: {options.by}" + (near if options.by == "neighbours" else "")

    def make(self, task: Task, options: FloorSpec, setting: Setting, label: str) -> Approach:
        """The floor, fitted to the training rows.

        Raises:
            SpecError: the task has no labels, or fewer training rows than neighbours that vote.
        """
        if task.kind != "classification":
            raise SpecError(f"a floor is of a task of classes, and {task.name!r} is of kind {task.kind}", hint="leave floor out")
        began = time.perf_counter()
        if options.by == "majority":
            labels = [str(item.label) for item in task.train]
            most = max(sorted(set(labels)), key=Counter(labels).__getitem__)
            return _Fitted(label, task, lambda prompts: [most] * len(prompts))
        if options.by == "neighbours":
            pool = Pool.of(task, options.embed, device=setting.device)
            pool.refuse_too_many(options.k)
            return _Fitted(label, task, _vote(pool, options.k), saved=pool.saved)
        model = _words(task.train, task.dev)
        cost = Cost(trainable_parameters=int(model[-1].coef_.size + model[-1].intercept_.size), train_seconds=time.perf_counter() - began)
        return _Fitted(label, task, lambda prompts: [str(value) for value in model.predict(list(prompts))], cost=cost)


def _words(train: Sequence[Example], dev: Sequence[Example]) -> Any:
    """The classifier, its regularisation chosen on the dev rows where there are any.

    Raises:
        SpecError: all rows are of one class, or none has a word.
    """
    labels = [str(item.label) for item in train]
    if len(set(labels)) == 1:
        raise SpecError(f"all training rows are {labels[0]!r}: there is nothing to tell apart", hint="use floor: {by: majority}")
    try:
        fitted = [_pipeline(strength).fit([str(item.prompt) for item in train], labels) for strength in (_STRENGTHS if dev else (1.0,))]
    except ValueError as error:
        raise SpecError(f"the training rows have no words to go by: {error}", hint="use floor: {by: majority}") from error
    if not dev:
        return fitted[0]
    texts, wanted = [str(item.prompt) for item in dev], [str(item.label) for item in dev]
    return max(fitted, key=lambda model: model.score(texts, wanted))


def _pipeline(strength: float) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"\w+")  # noqa: S106  a pattern of words
    return make_pipeline(words, LogisticRegression(C=strength, max_iter=2000))


def _vote(pool: Pool, k: int) -> Callable[[Sequence[str]], list[str]]:
    """The plain vote of the `k` nearest training rows; of classes with as many votes that of the nearest row."""

    def vote(prompts: Sequence[str]) -> list[str]:
        found = []
        for near in pool.nearest(prompts, k):
            votes = Counter(str(item.label) for item in near)
            found.append(max(votes, key=votes.__getitem__))
        return found

    return vote


KIND: Final = Floor()
