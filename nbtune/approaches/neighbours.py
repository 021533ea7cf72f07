"""The training rows that lie nearest to a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Self

from nbtune.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nbtune.inference.embedding import Embedder
    from nbtune.task import Example, Task

__all__ = ["Pool", "alike", "own"]


@dataclass(frozen=True)
class Pool:
    """A task's training rows with their vectors [rows, features] of length 1."""

    items: tuple[Example, ...]
    vectors: NDArray[np.float32]
    embedder: Embedder
    around: tuple[int, int] = (0, 0)
    """Characters at the beginning and the end that all prompts have in common, which say nothing of a row."""

    @classmethod
    def of(cls, task: Task, model: Any = None, *, device: str | None = None) -> Self:
        """The training rows of a task, embedded by their prompts.

        Raises:
            ModelError: the embedding model cannot be loaded.
        """
        from nbtune.inference.embedding import Embedder

        embedder = Embedder.of(model, device=device)
        items = tuple(sorted(task.train, key=lambda item: item.key))
        prompts = [str(item.prompt) for item in items]
        around = alike(prompts)
        return cls(items, embedder.embed([own(prompt, around) for prompt in prompts]), embedder, around)

    def refuse_too_many(self, k: int) -> None:
        """Refuses more neighbours than there are rows.

        Raises:
            SpecError: with how many there are.
        """
        if k > len(self.items):
            raise SpecError(f"k is {k}, and there are {len(self.items)} training rows", hint=f"use at most {len(self.items)}")

    def saved(self, prompts: Sequence[str]) -> float:
        """The seconds that finding the neighbours of these would take longer, had they not been embedded before."""
        return self.embedder.saved([own(str(prompt), self.around) for prompt in prompts])

    def nearest(self, prompts: Sequence[str], k: int) -> list[list[Example]]:
        """The `k` nearest rows to each prompt, the nearest first; of those as near the first by key.

        A row that says word for word what is asked is left out: it would be the answer, not an example.
        """
        import numpy as np

        near = self.embedder.embed([own(str(prompt), self.around) for prompt in prompts]) @ self.vectors.T
        order = np.argsort(-near, axis=1, kind="stable")
        return [
            [self.items[place] for place in row if self.items[place].prompt != prompt][:k]
            for row, prompt in zip(order.tolist(), prompts, strict=True)
        ]


def alike(texts: Sequence[str]) -> tuple[int, int]:
    """With how many characters all of different texts begin, and with how many of the rest they end."""
    shortest, longest = min(texts), max(texts)
    if shortest == longest:
        return 0, 0
    begin = _shared(shortest, longest)
    turned = [text[begin:][::-1] for text in texts]
    return begin, _shared(min(turned), max(turned))


def _shared(one: str, other: str) -> int:
    """With how many characters both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def own(text: str, around: tuple[int, int]) -> str:
    """What a text says of itself; all of it, where that would be nothing."""
    begin, end = around
    return text[begin : len(text) - end].strip() or text
