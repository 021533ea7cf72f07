"""A function as a column: what any other program, rule or service answers to the same prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.approaches.base import Answers, Approach, silent
from nbtune.errors import ComparisonError, SpecError
from nbtune.spec import Spec, option

if TYPE_CHECKING:
    from nbtune.approaches.base import Asking, Progress, Setting
    from nbtune.task import Task

__all__ = ["KIND", "Function", "FunctionSpec"]


class FunctionSpec(Spec):
    """Which function."""

    what: ClassVar[str] = "function option"

    function: Any = option(..., "function (prompt) -> answer; of a task of classes one of its labels")


@dataclass(frozen=True, repr=False)
class _Called(Approach):
    """Calls a function for each row."""

    function: Callable[[str], Any]

    def answer(self, prompts: Sequence[str], asking: Asking, *, progress: Progress = silent) -> Answers:
        """As `Approach.answer`.

        Raises:
            ComparisonError: the function raised, or answered nothing, with the row.
        """
        began = time.perf_counter()
        outputs: list[str] = []
        for number, prompt in enumerate(prompts):
            try:
                said = self.function(str(prompt))
            except Exception as error:  # it is the user's, and may raise anything
                message = f"{self.label}: row {number}: it raised {type(error).__name__}: {error}"
                raise ComparisonError(message, hint="mend the function, or have it return an empty text for such rows") from error
            if said is None:
                raise ComparisonError(f"{self.label}: row {number}: it returned None", hint="have it return a text for each prompt")
            outputs.append(str(said).strip())
            self._refuse_other_words(number, prompt, outputs[-1])
            progress(number + 1, len(prompts))
        return Answers(tuple(outputs), time.perf_counter() - began, (0,) * len(outputs))

    def _refuse_other_words(self, number: int, prompt: str, output: str) -> None:
        """Refuses other than one tag for each word."""
        words, tags = len(str(prompt).split(" ")), len(output.split(" "))
        if self.task.kind == "tagging" and tags != words:
            message = f"{self.label}: row {number}: it returned {tags} tags for {words} words: {output!r:.80}"
            raise ComparisonError(message, hint="have it return a tag for each word, divided by spaces: O for those outside")


class Function:
    """See the module's text."""

    name: ClassVar[str] = "function"
    summary: ClassVar[str] = "a Python function that answers each prompt"
    spec: ClassVar[type[Spec]] = FunctionSpec
    asks_base: ClassVar[bool] = False

    def called(self, options: FunctionSpec) -> str:
        """By the function's name."""
        return f"function: {getattr(options.function, '__name__', type(options.function).__name__)}"

    def make(self, task: Task, options: FunctionSpec, setting: Setting, label: str) -> Approach:
        """The function, as it is.

        Raises:
            SpecError: it is none.
        """
        if not callable(options.function):
            message = f"function: {options.function!r:.60} is no function"
            raise SpecError(message, hint="name one that is there: def answer(prompt): return ...")
        return _Called(label, task, options.function)


KIND: Final = Function()
