"""What a training costs elsewhere: the loss of a text that has nothing to do with the task, with and without what is trained."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from nbtune.data.batches import collate
from nbtune.data.retained import pieces_of, read_retained
from nbtune.events import Event, Finished, Note, Started, Stopped
from nbtune.models.families import can_pack
from nbtune.objectives import get

if TYPE_CHECKING:
    from nbtune.models.base import Base
    from nbtune.store import RunFolder
    from nbtune.training.loop import Training

__all__ = ["KEPT", "Retained", "watched"]

KEPT: Final = "retained.json"
"""The text's name and its loss before the run, in the run's folder."""


@dataclass(frozen=True)
class Retained:
    """Asks a model for a text again and again; `first` are the ids in front of it while an adapter is on that has some."""

    name: str
    text: str
    first: tuple[int, ...] = ()

    @classmethod
    def of(cls, name: str, first: tuple[int, ...] = ()) -> Retained:
        """The text of that name.

        Raises:
            DataError: it cannot be read.
        """
        return cls(name, read_retained(name), first)

    def loss(self, base: Base, adapter: str | None) -> float:
        """Mean nats a token of the text, with `adapter` on (None: off).

        Raises:
            DataError: it is too short.
        """
        first = self.first if adapter is not None and base.has_adapter(adapter) else ()
        total, weight = 0.0, 0
        for piece in pieces_of(self.text, base.tokenizer, first):
            batch = collate([piece], packed=can_pack(base.config), pad_id=int(base.tokenizer.pad_token_id or 0))
            with base.lease(adapter if adapter is not None and base.has_adapter(adapter) else None) as model:
                loss, count = get("sft").loss(model, batch.to(base.device))
            total, weight = total + float(loss), weight + count
        return total / weight


def watched(training: Training, retained: Retained, folder: RunFolder) -> Iterator[Event]:
    """The training's events, with what becomes of the text told at the end and kept in the summary as `retained`.

    The loss before is kept in the folder, and copied into a fork's: parts of the base that were trained cannot be asked for it later. Where
    such a run goes on with a text that it was not begun with, that is said, and nothing is told of it.
    """
    before = _kept(folder, retained.name)
    for event in training.events():
        if isinstance(event, Finished | Stopped) and event.summary and before is not None:
            after = retained.loss(training.base, training.adapter)
            yield _told(retained.name, before, after)
            summary = {**event.summary, "retained": {"text": retained.name, "loss_before": before, "loss_after": after}}
            yield replace(event, summary=summary)
            continue
        yield event
        if isinstance(event, Started) and before is None:
            if not training.base.has_adapter(training.adapter) and training.state.step:
                text = f"retained, {retained.name}: its loss before is not known, because the run was begun without it"
                yield Note(level="warning", text=text)
                continue
            before = retained.loss(training.base, None)
            folder.write_json(KEPT, {"text": retained.name, "loss": before})


def _kept(folder: RunFolder, name: str) -> float | None:
    """The loss of that text before the run, where it was taken."""
    path = folder.path / KEPT
    said = json.loads(path.read_text()) if path.exists() else {}
    return float(said["loss"]) if said.get("text") == name else None


def _told(retained: str, before: float, after: float) -> Note:
    change, word = after - before, "forgot" if after > before else "gained"
    spread = f"perplexity {math.exp(before):,.1f} and {math.exp(min(after, 50.0)):,.1f}"
    text = f"retained, {retained}: {before:.3f} nats a token before, {after:.3f} after ({spread}): {word} {abs(change):.3f}"
    return Note(level="info", text=text)
