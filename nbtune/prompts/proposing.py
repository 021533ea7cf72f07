"""Proposers: who writes variants, and what they are asked.

A variant is written from answered rows (APE, Zhou et al. 2022, https://arxiv.org/abs/2211.01910), from what the best so far gets wrong
(ProTeGi, Pryzant et al. 2023, https://arxiv.org/abs/2305.03495), or as another wording of it. Models answer greedily, so that requests
differ: by their rows, and by the way that is asked for.
"""

from __future__ import annotations

import hashlib
import inspect
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from nbtune.errors import ComparisonError, ModelError
from nbtune.prompts.kept import Said

if TYPE_CHECKING:
    from nbtune.inference import Engine
    from nbtune.models.base import Base
    from nbtune.prompts.variants import Frame, Variant
    from nbtune.task import Example, Task

__all__ = ["FunctionProposer", "Mistake", "ModelProposer", "Proposer", "Request", "Requests"]

_EXAMPLES: Final = 6
_LONGEST: Final = 600
"""Characters of a row that a request shows."""
_NEW_TOKENS: Final = 160
_WAYS: Final = (
    ("Be short and plain.", ""),
    ("Say exactly what the answer must look like.", "Answer with"),
    ("Ask it as a question.", "Which"),
    ("Explain how to tell the possible answers apart.", "Read the input carefully and"),
    ("Name what in the input decides the answer.", "Look for"),
    ("Speak to an expert in this matter.", "You are an expert who"),
    ("Say what to do when the input is unclear.", "Your task is to"),
    ("Give the steps that lead from the input to the answer.", "First,"),
)
"""What is asked for, and the words that a model is made to begin with, because small ones begin alike whatever they are asked."""


@dataclass(frozen=True)
class Request:
    """What a proposer is asked, and how a model's answer begins."""

    text: str
    begin: str = ""


class Proposer(Protocol):
    """Writes a text for each request."""

    @property
    def name(self) -> str:
        """What it is called by."""

    @property
    def key(self) -> str:
        """What tells it from another of that name."""

    def fits(self, request: Request) -> bool:
        """Whether it can read so much."""

    def write(self, request: Request) -> Said:
        """What it writes.

        Raises:
            NbtuneError: it cannot.
        """


@dataclass(frozen=True)
class FunctionProposer:
    """Any function from a text to a text."""

    function: Callable[[str], Any]

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    @property
    def key(self) -> str:
        """Its module, its name, and its source where there is one."""
        try:
            source = inspect.getsource(self.function)
        except (OSError, TypeError):
            source = ""
        digest = hashlib.sha256(source.encode("utf-8", "replace")).hexdigest()
        return f"{getattr(self.function, '__module__', '')}:{getattr(self.function, '__qualname__', self.name)}:{digest}"

    def fits(self, request: Request) -> bool:
        """It says itself what is too long."""
        return True

    def write(self, request: Request) -> Said:
        """What it returns.

        Raises:
            ComparisonError: it raised, or returned no text.
        """
        began = time.perf_counter()
        try:
            text = self.function(request.text)
        except Exception as error:  # it is the user's, and may raise anything
            message = f"prompt-search: the proposer {self.name} raised {type(error).__name__}: {error}"
            raise ComparisonError(message, hint="mend it and run the search again: it goes on where it was") from error
        if not isinstance(text, str):
            message = f"prompt-search: the proposer {self.name} returned {text!r:.60}, which is no text"
            raise ComparisonError(message, hint="have it return the prompt that it writes, as a str")
        return Said(text, 0, time.perf_counter() - began)


@dataclass(frozen=True)
class ModelProposer:
    """A model, asked by its chat template where it has one, else to continue the request."""

    engine: Engine

    @classmethod
    def of(cls, base: Base) -> ModelProposer:
        """A base as a proposer."""
        from nbtune.data.encoding import Encoder
        from nbtune.inference import Engine
        from nbtune.models.families import answering

        return cls(Engine(base, Encoder(base.tokenizer, bool(base.tokenizer.chat_template), reading=answering(base.config))))

    @property
    def name(self) -> str:
        """The model's name."""
        return self.engine.base.name

    @property
    def key(self) -> str:
        """Its numbers, and how they are held."""
        from nbtune.models.fingerprint import fingerprint

        base = self.engine.base
        return f"{fingerprint(base)}:{base.dtype}:{base.quantization}"

    def fits(self, request: Request) -> bool:
        """Whether its context holds the request and an answer."""
        from nbtune.models.families import context_of

        context = context_of(self.engine.base.config)
        return context is None or self.engine.prompt_tokens([self._asked(request)])[0] + _NEW_TOKENS <= context

    def write(self, request: Request) -> Said:
        """Its greedy answer, behind the words that it begins with; without a chat template up to an empty line."""
        from nbtune.inference import Decoding

        began = time.perf_counter()
        asked = self._asked(request)
        engine = self._begun(request)
        (text,) = engine.generate([asked], Decoding(_NEW_TOKENS, () if engine.encoder.chat else ("\n\n",)))
        seconds = time.perf_counter() - began
        return Said(f"{request.begin}{text}", sum(engine.prompt_tokens([asked])), seconds)

    def _begun(self, request: Request) -> Engine:
        """The engine whose answers begin with what the request says."""
        from nbtune.data.encoding import Encoder

        @dataclass(frozen=True)
        class Begun(Encoder):
            def prompt_text(self, prompt: str) -> str:
                return super().prompt_text(prompt) + request.begin

        return replace(
            self.engine, encoder=Begun(self.engine.encoder.tokenizer, self.engine.encoder.chat, reading=self.engine.encoder.reading)
        )

    def _asked(self, request: Request) -> str:
        return request.text if self.engine.encoder.chat else f"{request.text}\n\nInstruction:{' ' * bool(request.begin)}"


@dataclass(frozen=True)
class Mistake:
    """A row that a variant gets wrong, and its answer."""

    row: Example
    output: str


@dataclass(frozen=True)
class Requests:
    """Writes what a proposer is asked."""

    task: Task
    frame: Frame
    proposer: Proposer
    others: Sequence[Example]
    seed: int

    def of_round(self, number: int, count: int, parents: Sequence[tuple[Variant, Sequence[Mistake]]]) -> list[Request]:
        """So many requests, about the parents in turn: from mistakes where there are any, else from rows and as another wording by turns.

        Raises:
            ModelError: the proposer cannot read even the shortest.
        """
        found = []
        for place in range(count):
            draw = random.Random(f"propose:{self.seed}:{number}:{place}")
            parent, mistakes = parents[place % len(parents)]
            way, begin = _WAYS[(place + number - 1) % len(_WAYS)]
            if mistakes and place % 3 < 2:  # noqa: PLR2004  two of three
                some = draw.sample(list(mistakes), min(_EXAMPLES, len(mistakes)))
                made = partial(self._from_mistakes, parent, some, way)
            elif place % 2 == 0:
                made = partial(self._from_rows, draw.sample(list(self.others), min(_EXAMPLES, len(self.others))), way)
            else:
                made = partial(self._reworded, parent, way)
            found.append(self._fitting(made, begin))
        return found

    def _fitting(self, made: Callable[[int], str], begin: str) -> Request:
        """With as many rows as the proposer can read."""
        text = ""
        for size in range(_EXAMPLES, 0, -1):
            text = made(size)
            if self.proposer.fits(found := Request(text, begin)):
                return found
        message = f"prompt-search: {self.proposer.name} cannot read what a proposer is asked ({len(text):,} characters)"
        raise ModelError(message, hint="name another proposer: a model with a longer context, or a function")

    def _from_rows(self, rows: Sequence[Example], way: str, size: int) -> str:
        shown = "\n\n".join(self._shown(row) for row in rows[:size])
        return f"Here are inputs, each with its right answer.\n\n{shown}\n\n{self._wish(way)}"

    def _from_mistakes(self, parent: Variant, mistakes: Sequence[Mistake], way: str, size: int) -> str:
        shown = "\n\n".join(f"{self._shown(each.row)}\nThe model's wrong answer: {_cut(each.output)}" for each in mistakes[:size])
        return f"{self._prompt(parent)}\n\nThe model got these wrong:\n\n{shown}\n\nThink what misled it. {self._wish(way)}"

    def _reworded(self, parent: Variant, way: str, _size: int) -> str:
        return f"{self._prompt(parent)}\n\nSay the same in other words. {self._wish(way)}"

    def _prompt(self, variant: Variant) -> str:
        return f"A language model is asked with this prompt, in which each input is put for the words in braces:\n\n{variant.source}"

    def _shown(self, row: Example) -> str:
        return f"Input: {_cut(str(row.prompt))}\nRight answer: {_cut(row.expected)}"

    def _wish(self, way: str) -> str:
        columns = " and ".join(f"{{{{ {name} }}}}" for name in self.frame.fields)
        labels = f" The possible answers are: {', '.join(self.task.labels)}." if self.task.labels and len(self.task.labels) <= 30 else ""  # noqa: PLR2004
        return (
            f"Write one instruction of at most three sentences that leads a language model from such an input to the right answer.{labels} "
            f"{way} It is put before the input by itself; a whole prompt may be written in its place, in which {columns} stands where "
            "the input goes. Reply with the instruction alone."
        )


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
