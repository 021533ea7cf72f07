"""A model as it is asked: a base, perhaps an adapter, and how prompts are encoded.

Work is done in chunks, each under its own lease of the base, so that a training beside it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from nbtune.inference.generating import Decoding, ends_of, generate_chunk
from nbtune.inference.prefix import Prefix, shared_prefix
from nbtune.inference.progress import Progress, silent
from nbtune.inference.scoring import Question, begins_another, chunks_of, score_chunk

if TYPE_CHECKING:
    import torch

    from nbtune.data.encoding import Encoder
    from nbtune.models.base import Base

__all__ = ["Decoding", "Engine"]


@dataclass(frozen=True)
class Engine:
    """Asks `base` with `adapter` on (None: off). Prompts are texts as a task renders them; the encoder adds the chat template."""

    base: Base
    encoder: Encoder
    adapter: str | None = None

    def off(self) -> Engine:
        """The same base with no adapter on, and nothing in front of its prompts that an adapter put there."""
        return replace(self, encoder=replace(self.encoder, first=()), adapter=None)

    def score(self, prompts: Sequence[str], answers: Sequence[str], *, progress: Progress = silent) -> list[list[tuple[float, int]]]:
        """Log p(answer | prompt) of each answer after each prompt: (summed over its tokens in nats, number of tokens).

        The answer's own tokens count. Its end (an end of sequence, or a line break) counts where one of the answers begins another: else
        the longer of the two, "10" beside "1", could never be the likelier.
        """
        questions = [self._question(prompt, answers) for prompt in prompts]
        prefix = self._prefix([question.prompt for question in questions])
        scores: list[list[tuple[float, int]]] = [[] for _ in questions]
        done = 0
        for chunk in chunks_of(questions, prefix.length):
            with self.base.lease(self.adapter):
                for number, values in zip(chunk, score_chunk(self.base, [questions[i] for i in chunk], prefix), strict=True):
                    scores[number] = values
            done += len(chunk)
            progress(done, len(questions))
        return scores

    def _question(self, prompt: str, answers: Sequence[str]) -> Question:
        asked = tuple(self.encoder.prompt_ids(prompt))
        ids = tuple(tuple(self.encoder.answer_ids(prompt, answer)) for answer in answers)
        return Question(asked, ids, self.encoder.opening, self.encoder.ends if begins_another(ids) else ())

    def generate(self, prompts: Sequence[str], decoding: Decoding, *, batch_size: int = 8, progress: Progress = silent) -> list[str]:
        """The greedy continuation of each prompt, up to an end of sequence, a stop text, or `max_new_tokens`."""
        ids = [tuple(self.encoder.prompt_ids(prompt)) for prompt in prompts]
        prefix = self._prefix(ids)
        outputs = [""] * len(ids)
        order = sorted(range(len(ids)), key=lambda number: (len(ids[number]), number))
        for start in range(0, len(order), batch_size):
            chunk = order[start : start + batch_size]
            told = partial(progress, start, len(order))
            with self.base.lease(self.adapter):
                asked, encoder = [ids[number] for number in chunk], self.encoder
                texts = generate_chunk(self.base, asked, decoding, prefix, encoder.opening, stops=encoder.stops, told=told)
            for number, text in zip(chunk, texts, strict=True):
                outputs[number] = text
            progress(min(start + batch_size, len(order)), len(order))
        return outputs

    @property
    def ends(self) -> list[int]:
        """The tokens of which each ends what is written."""
        return sorted({*self.encoder.stops, *ends_of(self.base.model)})

    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt as it is asked."""
        return [len(self.encoder.prompt_ids(prompt)) for prompt in prompts]

    def logits(self, prompt: str) -> torch.Tensor:
        """Next-token logits after a prompt, float32 [vocabulary]; what proves that an adapter is on or off."""
        import torch

        ids = torch.tensor([self.encoder.prompt_ids(prompt)], device=self.base.device)
        opening = torch.tensor([self.encoder.opening], device=self.base.device)
        more = {"decoder_input_ids": opening} if self.encoder.opening else {}
        with self.base.lease(self.adapter) as model:
            return model(input_ids=ids, **more, use_cache=False).logits[0, -1].float().cpu()  # type: ignore[no-any-return]

    def _prefix(self, prompts: Sequence[Sequence[int]]) -> Prefix:
        length = shared_prefix(prompts)
        if not length:
            return Prefix()
        with self.base.lease(self.adapter):
            return Prefix.of(self.base, prompts[0][:length])
