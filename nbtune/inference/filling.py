"""A model that fills in, as it is asked: each mask in a text gives way to the likeliest token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nbtune.data.batches import collate
from nbtune.data.encoded import Tagged
from nbtune.errors import DataError, ModelError
from nbtune.inference.engine import Engine
from nbtune.inference.progress import Progress, silent
from nbtune.models.families import context_of

if TYPE_CHECKING:
    import torch

    from nbtune.inference.generating import Decoding

__all__ = ["Filler"]

_ROWS: Final = 32


@dataclass(frozen=True)
class Filler(Engine):
    """Fills masks; it writes nothing."""

    def fill(self, texts: Sequence[str], *, progress: Progress = silent) -> list[list[str]]:
        """What stands behind each text's masks, in their order.

        Raises:
            DataError: a text has no mask, or more tokens than the model reads.
        """
        for text in texts:
            if not isinstance(text, str):
                raise DataError(f"a text to fill in is {text!r:.60}", hint="give texts")
        rows = [self._row(text) for text in texts]
        return self.tokens([row.ids for row in rows], [row.places for row in rows], progress=progress)

    def tokens(self, ids: Sequence[tuple[int, ...]], places: Sequence[Sequence[int]], *, progress: Progress = silent) -> list[list[str]]:
        """The likeliest tokens at these places of each row of ids."""
        from nbtune.objectives.tagging import tag_logits

        tokenizer = self.base.tokenizer
        found: list[list[str]] = []
        for start in range(0, len(ids), _ROWS):
            rows = [
                Tagged(row, 0, tuple(at), ()) for row, at in zip(ids[start : start + _ROWS], places[start : start + _ROWS], strict=True)
            ]
            batch = collate(rows, packed=False, pad_id=int(tokenizer.pad_token_id or 0))
            with self.base.lease(self.adapter) as model:
                best = iter(tag_logits(model, batch.to(self.base.device)).argmax(-1).tolist())
            found += [[str(tokenizer.decode([next(best)])).strip() for _ in row.places] for row in rows]
            progress(min(start + _ROWS, len(ids)), len(ids))
        return found

    def generate(self, prompts: Sequence[str], decoding: Decoding, *, batch_size: int = 8, progress: Progress = silent) -> list[str]:
        """Refused.

        Raises:
            ModelError: always.
        """
        mask = self.base.tokenizer.mask_token
        message = f"{self.base.name!r} fills what is hidden of a text and does not go on with it"
        raise ModelError(message, hint=f'hide a word: run.fill(["the {mask} was late"])')

    def logits(self, prompt: str) -> torch.Tensor:
        """Logits over the vocabulary at the last token of a text, float32; what proves that an adapter is on or off."""
        import torch

        ids = torch.tensor([[*self.encoder.first, *self.base.tokenizer(prompt)["input_ids"]]], device=self.base.device)
        with self.base.lease(self.adapter) as model:
            return model(input_ids=ids).logits[0, -1].float().cpu()  # type: ignore[no-any-return]

    def _row(self, text: str) -> Tagged:
        tokenizer, first = self.base.tokenizer, self.encoder.first
        ids = (*first, *(int(token) for token in tokenizer(text, verbose=False)["input_ids"]))
        places = tuple(place for place, token in enumerate(ids) if token == tokenizer.mask_token_id)
        most = context_of(self.base.config)
        if not places:
            raise DataError(f"the text {text!r:.60} hides nothing", hint=f"write {tokenizer.mask_token} where something is to be filled in")
        if most is not None and len(ids) > most:
            raise DataError(f"the text {text!r:.60} has {len(ids)} tokens, and the model reads {most}", hint="shorten it")
        return Tagged(ids, len(first), places, ())
