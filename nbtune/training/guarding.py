"""What keeps a model from forgetting while it learns: some text is trained or watched beside the task, in every step.

Replay (Robins 1995, https://doi.org/10.1080/09540099550039318): a share of the loss is the text's own. Towards the base (Li and Hoiem 2016,
https://arxiv.org/abs/1606.09282): what the model expects on the text stays near what the base expects, by Kullback-Leibler divergence.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from nbtune.data.batches import collate
from nbtune.data.retained import GENERAL, rehearsed, rehearsed_rows, rehearsed_width
from nbtune.errors import SpecError
from nbtune.models.attention import attending, rows_apart
from nbtune.models.families import can_pack
from nbtune.models.readout import readout

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from nbtune.data.batches import Batch
    from nbtune.data.encoded import Encoded
    from nbtune.models.base import Base
    from nbtune.spec import FinetuneSpec

__all__ = ["Guard"]

_OFTEN: Final = 5


@dataclass(frozen=True)
class Guard:
    """Pieces of a text and what they weigh; `first` is how many ids of a soft prompt stand in front of each."""

    pieces: tuple[Encoded, ...]
    first: int
    replay: float
    kl: float
    rows: int
    seed: int

    @classmethod
    def of(cls, spec: FinetuneSpec, tokenizer: PreTrainedTokenizerBase, first: tuple[int, ...]) -> Self | None:
        """The guard that is asked for; None: there is none.

        Raises:
            DataError: the text cannot be read, or has nothing beyond what its loss is measured on.
        """
        if not spec.replay and not spec.kl_to_base:
            return None
        pieces = rehearsed(spec.retain or GENERAL, tokenizer, first, rehearsed_width(spec, len(first)))
        return cls(tuple(pieces), len(first), spec.replay or 0.0, spec.kl_to_base or 0.0, rehearsed_rows(spec), spec.seed)

    def worn(self, steps: int) -> str | None:
        """What is to be said where `replay` comes back to the same pieces so often that they may be learnt by heart; None: it does not."""
        times = steps * min(self.rows, len(self.pieces)) / len(self.pieces)
        if not self.replay or times <= _OFTEN:
            return None
        return (
            f"replay trains each of {len(self.pieces)} pieces of the text {times:.0f} times: at a high learning rate they are learnt by "
            "heart, and other text of their kind is lost; name a longer one (retain: a text file), or use kl_to_base"
        )

    def check(self, base: Base, adapter: str) -> None:
        """Refuses to hold a model to a base that is not there any more.

        Raises:
            SpecError: the base's own weights are trained, and `kl_to_base` asks for it.
        """
        if self.kl and not base.has_adapter(adapter):
            message = "kl_to_base asks what the base expects, and this method trains the base's own weights"
            raise SpecError(message, hint="use replay, or an adapter: lora")

    def of_step(self, step: int) -> list[Encoded]:
        """The pieces of optimizer step `step`: all of them in turn, in an order of the seed's."""
        order = list(range(len(self.pieces)))
        random.Random(f"guard:{self.seed}").shuffle(order)
        begin = (step - 1) * self.rows
        return [self.pieces[order[place % len(order)]] for place in range(begin, begin + min(self.rows, len(order)))]

    def losses(self, model: Any, base: Base, step: int, at_once: int) -> Iterator[torch.Tensor]:
        """What the text adds to the step's loss, in nats a token, weighed: the sum of these, each of `at_once` pieces.

        To be called inside the base's training lease, and each one's backward taken before the next is asked for: then no more than its
        own activations are held.
        """
        pieces = self.of_step(step)
        weight = sum(piece.num_trained for piece in pieces)
        for begin in range(0, len(pieces), at_once):
            yield self._loss(model, base, pieces[begin : begin + at_once]) / weight

    def _loss(self, model: Any, base: Base, pieces: list[Encoded]) -> torch.Tensor:
        """Summed over the pieces' tokens."""
        import torch
        from torch.nn import functional

        packed, pad = can_pack(base.config), int(base.tokenizer.pad_token_id or 0)
        batch = collate(pieces, packed=packed, pad_id=pad).to(base.device)
        expected = None
        if self.kl and base.peft is not None:  # first: what is checkpointed is computed again as the last forward has left the model
            plain = collate([piece.without(self.first) for piece in pieces], packed=packed, pad_id=pad).to(base.device)
            with torch.no_grad(), base.adapters_off(), _answering(model):
                expected = _logits(model, plain).log_softmax(-1)
        logits = _logits(model, batch)
        total = self.replay * functional.cross_entropy(logits, batch.targets, reduction="sum")
        if expected is not None:
            total = total + self.kl * functional.kl_div(logits.log_softmax(-1), expected, log_target=True, reduction="sum")
        return total


@contextmanager
def _answering(model: Any) -> Iterator[None]:
    """Without dropout, and as it was after."""
    model.eval()
    try:
        yield
    finally:
        model.train()


def _logits(model: Any, batch: Batch) -> torch.Tensor:
    with readout(model, batch.predicts), rows_apart(model):
        logits: torch.Tensor = model(input_ids=batch.input_ids, **attending(model, batch)).logits
    return logits.float()
