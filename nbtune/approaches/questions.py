"""Asking a model what it was not asked before."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from nbtune.inference import Engine
from nbtune.inference.cache import AnswerCache, question_keys

if TYPE_CHECKING:
    from nbtune.inference import Decoding
    from nbtune.inference.classifying import Classifier
    from nbtune.inference.progress import Progress

__all__ = ["Questions"]

_KEPT_AT_ONCE: Final = 128
"""Answers that are lost where a column is interrupted."""


class Ask(Protocol):
    """Answers some texts."""

    def __call__(self, prompts: list[str], *, progress: Progress) -> list[Any]:
        """One answer a text."""


def _singly(ask: Ask) -> Ask:
    """Asks each text by itself."""

    def asked(prompts: list[str], *, progress: Progress) -> list[Any]:
        found: list[Any] = []
        for text in prompts:
            found += ask([text], progress=_further(progress, len(found), len(prompts)))
        return found

    return asked


def _further(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _here, *writing: progress(before + done, total, *writing)


class Questions:
    """Asks an engine of some texts what it was not asked before; `seconds` are those of all answers, `waited` those that went by here.

    With `alone` texts are asked one by one, and their answers kept apart from those of batches; with `kept` false all is asked, and
    nothing kept. What a head answers is never kept.
    """

    def __init__(self, engine: Engine, texts: Sequence[str], *, alone: bool = False, kept: bool = True) -> None:
        self._engine = engine
        self._texts = list(texts)
        self._alone = alone
        self._cache = AnswerCache() if kept and type(engine) is Engine else None
        self.seconds = self.waited = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong with keeping answers."""
        return (self._cache.trouble,) if self._cache is not None and self._cache.trouble else ()

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        """As `Engine.prompt_tokens`."""
        return tuple(self._engine.prompt_tokens(self._texts) if self._cache is None else map(len, self._ids))

    @cached_property
    def _ids(self) -> list[array[int]]:
        """What the model reads of each text, which takes a while to find out, in as many bytes as it needs."""
        return [array("I", self._engine.encoder.prompt_ids(text)) for text in self._texts]

    def scored(self, completions: Sequence[str], progress: Progress) -> list[list[tuple[float, int]]]:
        """As `Engine.score`."""
        found = self._asked(["score", list(completions), self._engine.ends], partial(self._engine.score, answers=completions), progress)
        return [[(float(nats), int(count)) for nats, count in row] for row in found]

    def read(self, progress: Progress) -> list[str]:
        """As `Classifier.read`, of an engine with a head."""
        return self._asked(["read"], cast("Classifier", self._engine).read, progress)

    def generated(self, decoding: Decoding, progress: Progress) -> list[str]:
        """As `Engine.generate`."""
        return self._asked(["generate", *decoding.key, self._engine.ends], partial(self._engine.generate, decoding=decoding), progress)

    def _asked(self, how: list[Any], ask: Ask, progress: Progress) -> list[Any]:
        began = time.perf_counter()
        ask, how = (_singly(ask), ["alone", *how]) if self._alone else (ask, how)
        if self._cache is None:
            found = ask(self._texts, progress=progress)
            self._count(began, time.perf_counter() - began)
            return found
        keys = question_keys(self._engine, self._ids, how)
        known = self._cache.get(keys)
        new = list({key: text for key, text in zip(keys, self._texts, strict=True) if key not in known}.items())
        for start in range(0, len(new), _KEPT_AT_ONCE):
            some = dict(new[start : start + _KEPT_AT_ONCE])
            asked = time.perf_counter()
            answers = ask(list(some.values()), progress=_further(progress, start, len(new)))
            each = (time.perf_counter() - asked) / len(some)
            self._cache.put(dict(zip(some, answers, strict=True)), each)
            known.update({key: (answer, each) for key, answer in zip(some, answers, strict=True)})
        self._count(began, sum(known[key][1] for key in keys))
        return [known[key][0] for key in keys]

    def _count(self, began: float, seconds: float) -> None:
        self.waited += time.perf_counter() - began
        self.seconds += seconds
