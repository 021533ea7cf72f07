"""A model with a head over tags, as it is asked: each word of a text gets the likeliest tag; nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from nbtune.data.batches import collate
from nbtune.inference.classifying import Classifier
from nbtune.inference.progress import Progress, silent
from nbtune.models.families import can_pack, context_of

if TYPE_CHECKING:
    import torch

    from nbtune.data.encoded import Tagged

__all__ = ["Tagger"]

_ROWS: Final = 32


class Tagger(Classifier):
    """Tags words by its head."""

    def read(self, prompts: Sequence[str], *, progress: Progress = silent) -> list[str]:
        """The tags of each text's words, divided by spaces. A word that the model does not read gets the first label."""
        rows = [self._words(prompt) for prompt in prompts]
        order = sorted(range(len(rows)), key=lambda number: (len(rows[number][0].ids), number))
        found = [[self.base.labels[0]] * len(prompt.split(" ")) for prompt in prompts]
        for start in range(0, len(order), _ROWS):
            chunk = [number for number in order[start : start + _ROWS] if rows[number][0].places]
            best = iter(self._tag_logits([rows[number][0] for number in chunk]).argmax(-1).tolist() if chunk else [])
            for number in chunk:
                for word in rows[number][1]:
                    found[number][word] = self.base.labels[next(best)]
            progress(min(start + _ROWS, len(order)), len(order))
        return [" ".join(tags) for tags in found]

    def logits(self, prompt: str) -> torch.Tensor:
        """Logits of the tags, float32 [words, tags]; what proves that an adapter is on or off."""
        return self._tag_logits([self._words(prompt)[0]])

    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each text as it is read."""
        return [len(self._words(prompt)[0].ids) for prompt in prompts]

    def _whole(self, prompt: str) -> Tagged:
        return self._tagged(prompt)[0]

    def _tagged(self, prompt: str) -> tuple[Tagged, tuple[int, ...]]:
        """The text at full length, and which of its words have tokens; which tags stand beside is no matter."""
        return self.encoder.tagged(prompt, " ".join([self.base.labels[0]] * len(prompt.split(" "))))

    def _words(self, prompt: str) -> tuple[Tagged, tuple[int, ...]]:
        """The text as it is read, within what the model reads, and which of its words that is."""
        row, words = self._tagged(prompt)
        first, most = self.encoder.first, context_of(self.base.config)
        row = row if most is None else row.cut(most - len(first), self.base.tokenizer.bos_token_id)
        return row.behind(first), words[: len(row.places)]

    def _tag_logits(self, rows: Sequence[Tagged]) -> torch.Tensor:
        from nbtune.objectives.tagging import tag_logits

        batch = collate(rows, packed=can_pack(self.base.config), pad_id=int(self.base.tokenizer.pad_token_id or 0))
        with self.base.lease(self.adapter) as model:
            return tag_logits(model, batch.to(self.base.device)).cpu()
