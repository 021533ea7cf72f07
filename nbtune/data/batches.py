"""Which rows make up an optimizer step, and the tensors they become."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from nbtune.data.encoding import Encoded

__all__ = ["Batch", "collate", "micro_batches", "rows_of_step", "steps_in"]


@dataclass(frozen=True)
class Batch:
    """Tensors of some rows, packed into one sequence or padded on the right.

    `input_ids` [B, T]; `attention_mask` bool [1, 1, T, T] (True: may attend) where packed, else int [B, T]; `position_ids` [B, T];
    `predicts` bool [B, T], True where the NEXT token is trained; `targets` [n] those tokens, in the order of `predicts`;
    `owner` [n], which row each target belongs to. `num_tokens` counts real tokens.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor
    num_tokens: int

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            position_ids=self.position_ids.to(device),
            predicts=self.predicts.to(device),
            targets=self.targets.to(device),
            owner=self.owner.to(device),
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


def collate(rows: Sequence[Encoded], *, packed: bool, pad_id: int) -> Batch:
    """The tensors of `rows`."""
    return _packed(rows) if packed else _padded(rows, pad_id)


def _packed(rows: Sequence[Encoded]) -> Batch:
    import torch

    ids = [token for row in rows for token in row.ids]
    positions = [place for row in rows for place in range(len(row.ids))]
    segment = torch.tensor([number for number, row in enumerate(rows) for _ in row.ids])
    total = len(ids)
    mask = (segment[:, None] == segment[None, :]) & torch.ones(total, total, dtype=torch.bool).tril()
    predicts = torch.tensor([row.start - 1 <= place < len(row.ids) - 1 for row in rows for place in range(len(row.ids))])[None]
    return Batch(torch.tensor(ids)[None], mask[None, None], torch.tensor(positions)[None], predicts, *_targets(rows), total)


def _padded(rows: Sequence[Encoded], pad_id: int) -> Batch:
    import torch

    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    predicts = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        size = len(row.ids)
        ids[number, :size] = torch.tensor(row.ids)
        mask[number, :size] = 1
        predicts[number, row.start - 1 : size - 1] = True
    positions = torch.arange(width)[None].expand(len(rows), -1)
    return Batch(ids, mask, positions, predicts, *_targets(rows), int(mask.sum()))


def _targets(rows: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    targets = [token for row in rows for token in row.ids[row.start :]]
    owner = [number for number, row in enumerate(rows) for _ in range(row.num_trained)]
    return torch.tensor(targets), torch.tensor(owner)
