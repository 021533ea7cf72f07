"""Answers scored by the probability of their tokens.

Where the family allows it, a chunk of rows is one sequence: each row's prompt once, and behind it all its answers as branches of a
tree. A mask lets a token see the shared prefix, its own prompt and its own branch, so nothing is computed twice and nothing padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nbtune.models.families import can_pack
from nbtune.models.readout import readout

if TYPE_CHECKING:
    import torch

    from nbtune.inference.prefix import Prefix
    from nbtune.models.base import Base

__all__ = ["Question", "begins_another", "chunks_of", "score_chunk"]

Step = int | tuple[int, ...]
"""What is predicted: a token, or any of several."""
CHUNK_TOKENS: Final = 640
"""Tokens of one forward; more would spend their time on masked attention."""


@dataclass(frozen=True)
class Question:
    """A prompt and the answers to score after it, as token ids; no answer is empty.

    With an `opening` an encoder reads the prompt, and a decoder begins each answer with that. With `ends` an answer's score has its end in
    it, as one more token: that one of these follows.
    """

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    opening: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    def read(self, answer: Sequence[int]) -> Sequence[int]:
        """The tokens of an answer that the model reads: not the last, which is predicted, unless what follows it counts."""
        return answer if self.ends else answer[:-1]

    def cost(self, prefix: int) -> int:
        """Tokens that go through the model."""
        return len(self.prompt) - prefix + sum(len(self.read(answer)) for answer in self.answers)


def begins_another(answers: Sequence[Sequence[int]]) -> bool:
    """Whether an answer is the beginning of another one, which could then never be the likelier: its own tokens are more of the same."""
    whole = {tuple(answer) for answer in answers}
    return any(tuple(answer[:count]) in whole for answer in answers for count in range(1, len(answer)))


def chunks_of(questions: Sequence[Question], prefix: int) -> Iterator[list[int]]:
    """Numbers of the questions that go through together, like lengths side by side."""
    chunk: list[int] = []
    total = 0
    for number in sorted(range(len(questions)), key=lambda i: (questions[i].cost(prefix), i)):
        cost = questions[number].cost(prefix)
        if chunk and total + cost > CHUNK_TOKENS:
            yield chunk
            chunk, total = [], 0
        chunk.append(number)
        total += cost
    if chunk:
        yield chunk


def score_chunk(base: Base, questions: Sequence[Question], prefix: Prefix) -> list[list[tuple[float, int]]]:
    """(summed log-probability in nats, tokens) of each question's answers; the caller holds the lease."""
    return _as_tree(base, questions, prefix) if can_pack(base.config) else _one_by_one(base, questions)


def _as_tree(base: Base, questions: Sequence[Question], prefix: Prefix) -> list[list[tuple[float, int]]]:
    import torch

    tree = _Tree(prefix.length)
    owners = [
        [tree.add(answer, root, question.ends) for answer in question.answers]
        for question in questions
        for root in [tree.root(question.prompt)]
    ]
    device = base.device
    at = torch.tensor(tree.reads).nonzero()[:, 0]
    with readout(base.model, at, exact=True):
        logits = base.model(
            input_ids=torch.tensor(tree.ids, device=device)[None],
            attention_mask=tree.mask()[None, None].to(device),
            position_ids=torch.tensor(tree.positions, device=device)[None],
            past_key_values=prefix.fresh(),
            use_cache=prefix.cache is not None,
        ).logits
    logp = torch.log_softmax(logits.float(), dim=-1).cpu()
    place = {token: row for row, token in enumerate(number for number, read in enumerate(tree.reads) if read)}
    return [[_sum(logp, [(place[at], token) for at, token in branch]) for branch in branches] for branches in owners]


def _sum(logp: torch.Tensor, steps: Sequence[tuple[int, Step]]) -> tuple[float, int]:
    """Summed log-probability of the steps; of one that is any of several tokens that of all of them together."""
    each = (logp[row, token] if isinstance(token, int) else logp[row, list(token)].logsumexp(-1) for row, token in steps)
    return float(sum(value.double() for value in each)), len(steps)


class _Tree:
    """The sequence of a chunk: tokens, positions, which may see which, and where logits are read."""

    def __init__(self, prefix: int) -> None:
        self.prefix = prefix
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.reads: list[bool] = []
        self.sees: list[tuple[range, range]] = []

    def root(self, prompt: Sequence[int]) -> range:
        """Adds a row's prompt behind the shared prefix; the places it takes."""
        own = prompt[self.prefix :]
        start = len(self.ids)
        for offset, token in enumerate(own):
            self._add(token, self.prefix + offset, (range(start, start + offset + 1), range(0)))
        self.reads[-1] = True
        return range(start, len(self.ids))

    def add(self, answer: Sequence[int], root: range, ends: tuple[int, ...] = ()) -> list[tuple[int, Step]]:
        """Adds an answer as a branch of `root`; [(place whose logits predict it, token)], and last that one of `ends` follows."""
        start = len(self.ids)
        wanted: list[Step] = [*answer, ends] if ends else [*answer]
        for offset, token in enumerate(answer[: len(wanted) - 1]):
            self._add(token, self.prefix + len(root) + offset, (root, range(start, start + offset + 1)))
            self.reads[-1] = True
        return list(zip((root[-1], *range(start, len(self.ids))), wanted, strict=True))

    def mask(self) -> torch.Tensor:
        """Bool [tokens, prefix + tokens], True where a token may attend."""
        import torch

        mask = torch.zeros(len(self.ids), self.prefix + len(self.ids), dtype=torch.bool)
        mask[:, : self.prefix] = True
        for row, seen in enumerate(self.sees):
            for part in seen:
                mask[row, self.prefix + part.start : self.prefix + part.stop] = True
        return mask

    def _add(self, token: int, position: int, sees: tuple[range, range]) -> None:
        self.ids.append(token)
        self.positions.append(position)
        self.reads.append(False)
        self.sees.append(sees)


def _one_by_one(base: Base, questions: Sequence[Question]) -> list[list[tuple[float, int]]]:
    """For families whose attention takes no tree: each question's answers as one padded batch; only an encoder reads the prompt once."""
    import torch

    results: list[list[tuple[float, int]]] = []
    for question in questions:
        before = question.opening or question.prompt
        rows = [(*before, *question.read(answer)) for answer in question.answers]
        width = max(len(row) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        at = torch.zeros_like(ids, dtype=torch.bool)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
            at[number, len(before) - 1 : len(row)] = True
        told: dict[str, Any] = {"input_ids": ids.to(base.device), "attention_mask": mask.to(base.device)}
        if question.opening:
            told = {"encoder_outputs": _read_once(base, question), "decoder_input_ids": told["input_ids"]}
        with readout(base.model, at.flatten().nonzero()[:, 0], exact=True):
            logits = base.model(**told, use_cache=False).logits
        logp = torch.log_softmax(logits.float(), dim=-1).cpu()
        start = 0
        scores = []
        for answer in question.answers:
            wanted: list[Step] = [*answer, question.ends] if question.ends else [*answer]
            scores.append(_sum(logp, [(start + offset, token) for offset, token in enumerate(wanted)]))
            start += len(wanted)
        results.append(scores)
    return results


def _read_once(base: Base, question: Question) -> Any:
    """What the encoder gives for the prompt, once, seen by all answers."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    encoder: Any = base.model.get_encoder()
    states = encoder(input_ids=torch.tensor([question.prompt], device=base.device)).last_hidden_state
    return BaseModelOutput(last_hidden_state=states.expand(len(question.answers), -1, -1))
