"""A model with a head over classes, as it is asked: the same questions as one that writes, answered by the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

from nbtune.data.batches import collate
from nbtune.data.encoded import Labelled
from nbtune.errors import ModelError
from nbtune.inference.engine import Engine
from nbtune.inference.progress import Progress, silent
from nbtune.models.families import can_pack, context_of

if TYPE_CHECKING:
    import torch

    from nbtune.data.encoded import Encoded, Reading
    from nbtune.data.encoding import Encoder
    from nbtune.inference.generating import Decoding
    from nbtune.models.base import Base

__all__ = ["Classifier", "engine_for"]

_ROWS: Final = 32


def engine_for(base: Base, encoder: Encoder, adapter: str | None = None) -> Engine:
    """The engine that suits the base's head and how it reads."""
    from nbtune.data.encoded import Tagging
    from nbtune.data.masking import Masking
    from nbtune.inference.filling import Filler
    from nbtune.inference.tagging import Tagger

    if isinstance(encoder.reading, Masking):
        return Filler(base, encoder, adapter)
    kind = Engine if not base.labels else Tagger if isinstance(encoder.reading, Tagging) else Classifier
    return kind(base, encoder, adapter)


class Classifier(Engine):
    """Scores classes by its head; it writes nothing."""

    def score(self, prompts: Sequence[str], answers: Sequence[str], *, progress: Progress = silent) -> list[list[tuple[float, int]]]:
        """Log p(class | prompt) of each of the base's labels, in their order, which `answers` stand for; the 1 counts for a token."""
        return [[(value, 1) for value in row] for row in self._all(prompts, progress).log_softmax(-1).tolist()]

    def read(self, prompts: Sequence[str], *, progress: Progress = silent) -> list[str]:
        """What the head says of each text: its class, those of several labels that are likelier than not, or a number."""
        return [self._how.answer(row) for row in self._all(prompts, progress).tolist()]

    def generate(self, prompts: Sequence[str], decoding: Decoding, *, batch_size: int = 8, progress: Progress = silent) -> list[str]:
        """Refused.

        Raises:
            ModelError: always.
        """
        message = f"{self.base.name!r} has a head over {len(self.base.labels)} labels and writes no text"
        raise ModelError(message, hint="ask for its labels: run.predict(rows), or scoring sum")

    def logits(self, prompt: str) -> torch.Tensor:
        """Logits of the classes, float32 [classes]; what proves that an adapter is on or off."""
        return self._logits([self._row(prompt)])[0]

    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each text as it is read."""
        return [len(self._row(prompt).ids) for prompt in prompts]

    def cut(self, prompts: Sequence[str]) -> str | None:
        """What is lost of texts that are longer than the model reads; None where nothing is."""
        most = context_of(self.base.config)
        count = 0 if most is None else sum(len(self._whole(prompt).ids) > most - len(self.encoder.first) for prompt in prompts)
        if not count:
            return None
        are = "is" if count == 1 else "are"
        return f"{count} of {len(prompts)} texts {are} longer than the {most} tokens that {self.base.name} reads, and cut"

    @property
    def _how(self) -> Reading:
        return cast("Reading", self.encoder.reading)  # a head is always read somehow

    def _all(self, prompts: Sequence[str], progress: Progress) -> torch.Tensor:
        """What the head gives for each text [texts, labels], those of like length together."""
        import torch

        rows = [self._row(prompt) for prompt in prompts]
        found = torch.zeros(len(rows), len(self.base.labels))
        order = sorted(range(len(rows)), key=lambda number: (len(rows[number].ids), number))
        for start in range(0, len(order), _ROWS):
            chunk = order[start : start + _ROWS]
            found[chunk] = self._logits([rows[number] for number in chunk])
            progress(min(start + _ROWS, len(order)), len(order))
        return found

    def _whole(self, prompt: str) -> Encoded:
        """The text at full length; which class stands beside it is no matter."""
        return self.encoder.labelled(prompt, self._how.some)

    def _row(self, prompt: str) -> Labelled:
        """The text as it is read, within what the model reads."""
        row, first = cast("Labelled", self._whole(prompt)), self.encoder.first
        most = context_of(self.base.config)
        return (row if most is None else row.cut(most - len(first), self.base.tokenizer.bos_token_id)).behind(first)

    def _logits(self, rows: Sequence[Labelled]) -> torch.Tensor:
        from nbtune.objectives.classification import class_logits

        batch = collate(rows, packed=can_pack(self.base.config), pad_id=int(self.base.tokenizer.pad_token_id or 0))
        with self.base.lease(self.adapter) as model:
            return class_logits(model, batch.to(self.base.device)).cpu()
