"""Which rows make up an optimizer step, and the tensors they become."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

    from nbtune.data.encoding import Encoded

__all__ = ["Batch", "PackedRows", "RowGroup", "collate", "micro_batches", "packing_note", "rows_of_step", "steps_in"]

_SLACK: Final = 256
"""Padded cells that cost less than a second pass of attention does."""


@dataclass(frozen=True)
class RowGroup:
    """Rows of like length that lie end to end from `begin` to `end` in a packed sequence.

    `apart` [rows, width]: the place in that stretch of each row's tokens, its last one again where the row is shorter;
    `together` [end - begin]: where in the flat `apart` each token of the stretch is.
    """

    begin: int
    end: int
    apart: torch.Tensor
    together: torch.Tensor


@dataclass(frozen=True)
class PackedRows:
    """Which tokens of a packed sequence belong to one row, for an attention that keeps rows apart."""

    groups: tuple[RowGroup, ...]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> PackedRows:
        """Rows of these lengths, end to end."""
        return cls(tuple(_groups(lengths)))

    def to(self, device: torch.device) -> PackedRows:
        """The same on another device, without waiting for it."""
        return PackedRows(
            tuple(
                replace(group, apart=group.apart.to(device, non_blocking=True), together=group.together.to(device, non_blocking=True))
                for group in self.groups
            )
        )


@dataclass(frozen=True)
class Batch:
    """Tensors of some rows, packed into one sequence or padded on the right.

    `input_ids` [B, T]; `position_ids` [B, T]; `predicts` int64 [n], places in the flat B * T whose output is read: those after which a
    trained token comes, or where a text is read for its class; `owner` [n], which row each of them belongs to; `targets`: those tokens [n],
    or the rows' classes [rows]. `num_tokens` counts real tokens.
    Packed, B is 1 and `packed` says where the rows are; padded, `padding` int [B, T] is 1 for real tokens.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor
    num_tokens: int
    padding: torch.Tensor | None = None
    packed: PackedRows | None = None

    @cached_property
    def attention_mask(self) -> torch.Tensor:
        """Padded: `padding`. Packed: bool [1, 1, T, T], True where a token may attend, made when it is first asked for."""
        import torch

        if self.padding is not None:
            return self.padding
        segment = (self.position_ids[0] == 0).cumsum(0)
        return ((segment[:, None] == segment[None, :]) & torch.ones_like(segment[:, None] + segment, dtype=torch.bool).tril())[None, None]

    def to(self, device: torch.device) -> Batch:
        """The same on another device, without waiting for it."""
        if self.input_ids.device == device:
            return self
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            predicts=self.predicts.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            owner=self.owner.to(device, non_blocking=True),
            padding=None if self.padding is None else self.padding.to(device, non_blocking=True),
            packed=None if self.packed is None else self.packed.to(device),
        )


def steps_in(num_rows: int, step_rows: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps of a run: `max_steps` where it is given, else by the epochs; the last step of an epoch may be smaller."""
    return max_steps if max_steps is not None else max(1, math.ceil(math.ceil(num_rows / step_rows) * epochs))


def rows_of_step(num_rows: int, step_rows: int, seed: int, step: int) -> list[int]:
    """Row numbers of optimizer step `step` (from 0): a new order each epoch, by seed and effective batch size alone."""
    per_epoch = math.ceil(num_rows / step_rows)
    epoch, place = divmod(step, per_epoch)
    order = list(range(num_rows))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    return order[place * step_rows : (place + 1) * step_rows]


def micro_batches(rows: Sequence[int], lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """A step's rows in groups of at most `size`, like lengths together so that padding is small."""
    ordered = sorted(rows, key=lambda row: (lengths[row], row))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def packing_note(*, packed: bool, reason: str = "") -> str:
    """How the rows of a batch lie, in one line to show; `reason` says why they could not be packed."""
    if packed:
        return "rows are packed end to end, without padding"
    return "rows of like length are padded together" + (f": {reason}" if reason else "")


def collate(rows: Sequence[Encoded], *, packed: bool, pad_id: int) -> Batch:
    """The tensors of `rows`."""
    return _packed(rows) if packed else _padded(rows, pad_id)


def _packed(rows: Sequence[Encoded]) -> Batch:
    import numpy as np
    import torch

    lengths = np.array([len(row.ids) for row in rows])
    ends = lengths.cumsum()
    total = int(ends[-1])
    ids = np.fromiter(chain.from_iterable(row.ids for row in rows), np.int64, total)
    positions = np.arange(total) - np.repeat(ends - lengths, lengths)
    reads = [row.reads for row in rows]
    predicts = (positions >= np.repeat([places.start for places in reads], lengths)) & (
        positions < np.repeat([places.stop for places in reads], lengths)
    )
    return Batch(
        torch.from_numpy(ids)[None],
        torch.from_numpy(positions)[None],
        torch.from_numpy(predicts.nonzero()[0]),
        *_targets(rows),
        num_tokens=total,
        packed=PackedRows.of(lengths.tolist()),
    )


def _groups(lengths: Sequence[int]) -> Iterator[RowGroup]:
    """Runs of consecutive rows, a new one where padding would be more than the tokens: one pass over many rows is quicker than two."""
    first, begin, width, tokens = 0, 0, 0, 0
    for number, length in enumerate(lengths):
        if tokens and max(width, length) * (number + 1 - first) > 2 * (tokens + length) + _SLACK:
            yield _group(lengths[first:number], begin)
            first, begin, width, tokens = number, begin + tokens, 0, 0
        width, tokens = max(width, length), tokens + length
    yield _group(lengths[first:], begin)


def _group(lengths: Sequence[int], begin: int) -> RowGroup:
    import numpy as np
    import torch

    sizes = np.array(lengths)
    ends = sizes.cumsum()
    width = int(sizes.max())
    apart = np.minimum((ends - sizes)[:, None] + np.arange(width), ends[:, None] - 1)
    row = np.repeat(np.arange(len(sizes)), sizes)
    together = row * width + np.arange(int(ends[-1])) - (ends - sizes)[row]
    return RowGroup(begin, begin + int(ends[-1]), torch.from_numpy(apart), torch.from_numpy(together))


def _padded(rows: Sequence[Encoded], pad_id: int) -> Batch:
    import numpy as np
    import torch

    width = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), width), pad_id)
    mask = np.zeros((len(rows), width), np.int64)
    predicts = np.zeros((len(rows), width), bool)
    for number, row in enumerate(rows):
        size = len(row.ids)
        ids[number, :size] = row.ids
        mask[number, :size] = 1
        predicts[number, row.reads.start : row.reads.stop] = True
    return Batch(
        torch.from_numpy(ids),
        torch.arange(width)[None].expand(len(rows), -1),
        torch.from_numpy(predicts.ravel().nonzero()[0]),
        *_targets(rows),
        num_tokens=int(mask.sum()),
        padding=torch.from_numpy(mask),
    )


def _targets(rows: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    targets = [target for row in rows for target in row.targets]
    owner = [number for number, row in enumerate(rows) for _ in row.reads]
    return torch.tensor(targets), torch.tensor(owner)
