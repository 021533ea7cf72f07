"""Which rows make up an optimizer step, and the tensors they become."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, cast

from nbtune.data.encoded import Answered

if TYPE_CHECKING:
    import numpy as np
    import torch

    from nbtune.data.encoded import Encoded

__all__ = [
    "Batch",
    "PackedRows",
    "Shared",
    "alike",
    "collate",
    "like_lengths",
    "micro_batches",
    "packing_note",
    "paths_of",
    "rows_of_step",
    "steps_in",
]

_SLACK: Final = 256
"""Padded cells that cost less than a second pass of attention does."""


@dataclass(frozen=True)
class Shared:
    """Tokens that several rows have in common: their `places` [S] in the sequence, `cells` [S, most] where each stands apart.

    Which of those cells are `real` is a bool [S, most]: not all tokens stand in equally many.
    """

    places: torch.Tensor
    cells: torch.Tensor
    real: torch.Tensor


@dataclass(frozen=True)
class PackedRows:
    """Which tokens of a packed sequence belong to one row, for an attention that keeps rows apart.

    Apart, rows lie in groups of like length, each `sizes` = (rows, width), one group behind the other. `apart` [cells]: the place in the
    sequence of each cell's token, a row's last one again where the row is shorter; `together` [T]: the (first) cell of each token.
    """

    sizes: tuple[tuple[int, int], ...] = ()
    apart: torch.Tensor | None = None
    together: torch.Tensor | None = None
    shared: Shared | None = None

    @classmethod
    def of(cls, paths: Sequence[np.ndarray]) -> PackedRows:
        """Rows of which each is given by the places of its tokens, int64; a place may be in several."""
        import numpy as np
        import torch

        ordered = sorted(paths, key=len)
        sizes, cells = [], []
        for group in _groups(ordered):
            width = len(group[-1])
            sizes.append((len(group), width))
            cells += [np.pad(path, (0, width - len(path)), mode="edge") for path in group]
        apart = np.concatenate(cells)
        first = np.unique(apart, return_index=True)[1]
        return cls(tuple(sizes), torch.from_numpy(apart), torch.from_numpy(first), _shared(ordered, sizes))

    def to(self, device: torch.device) -> PackedRows:
        """The same on another device, without waiting for it."""
        return cast("PackedRows", _moved(self, device))

    def mask(self) -> torch.Tensor:
        """Bool [1, 1, T, T], True where a token may attend: for an attention that does not keep rows apart by itself."""
        import torch

        assert self.apart is not None  # noqa: S101  for the type checker
        assert self.together is not None  # noqa: S101  the same
        total = len(self.together)
        may = torch.zeros(total, total, dtype=torch.bool, device=self.apart.device)
        begin = 0
        for count, width in self.sizes:
            cells = self.apart[begin : begin + count * width].view(count, width)
            later, earlier = torch.tril_indices(width, width, device=cells.device)
            may[cells[:, later], cells[:, earlier]] = True
            begin += count * width
        return may[None, None]


@dataclass(frozen=True)
class Batch:
    """Tensors of some rows, packed into one sequence or padded on the right.

    `input_ids` [B, T]; `position_ids` [B, T]; `predicts` int64 [n], places in the flat B * T whose output is read: those after which a
    trained token comes, or where a text is read for its class; `owner` [n], which row each of them belongs to; `targets`: those tokens [n],
    or the rows' classes [rows]. `num_tokens` counts the rows' real tokens, `num_places` all that goes through the model, pads too.
    `segments` [B, T] is 1 in the second of two texts where there are two; `weights` [rows] what rows weigh where they differ,
    `follows` [rows] the class of the second text where rows say whether it follows the first.
    Packed, B is 1, `packed` says where the rows are, and `places` [n], row by row, where each of their tokens is; padded, `padding` int
    [B, T] is 1 for real tokens. Where an encoder reads the prompts, `decoder_ids` [B, U] go into its decoder, padded, and `predicts` are
    places in their B * U.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor
    num_tokens: int
    num_places: int
    num_rows: int
    padding: torch.Tensor | None = None
    packed: PackedRows | None = None
    places: torch.Tensor | None = None
    segments: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    follows: torch.Tensor | None = None
    decoder_ids: torch.Tensor | None = None

    @property
    def num_pads(self) -> int:
        """Places that no token fills; 0 where packed."""
        return self.num_places - self.num_tokens if self.padding is not None else 0

    @cached_property
    def attention_mask(self) -> torch.Tensor:
        """Padded: `padding`. Packed: bool [1, 1, T, T], True where a token may attend, made when it is first asked for."""
        import torch

        if self.padding is not None:
            return self.padding
        if self.packed is not None and self.packed.sizes:
            return self.packed.mask()
        return torch.ones(1, 1, self.input_ids.shape[1], self.input_ids.shape[1], dtype=torch.bool, device=self.input_ids.device).tril()

    def to(self, device: torch.device) -> Batch:
        """The same on another device, without waiting for it."""
        return self if self.input_ids.device == device else cast("Batch", _moved(self, device))


def _moved(data: Any, device: torch.device) -> Any:
    """A dataclass with its tensors on another device, without waiting for it; those inside dataclasses of its own too."""
    import torch

    found = {}
    for field in fields(data):
        value = getattr(data, field.name)
        if isinstance(value, torch.Tensor):
            found[field.name] = value.to(device, non_blocking=True)
        elif is_dataclass(value):
            found[field.name] = _moved(value, device)
    return replace(data, **found)


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


def micro_batches(rows: Sequence[int], lengths: Sequence[int] | Mapping[int, int], size: int) -> Iterator[list[int]]:
    """A step's rows in groups of at most `size`, like lengths together so that padding is small."""
    ordered = sorted(rows, key=lambda row: (lengths[row], row))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def like_lengths(lengths: Sequence[int], most: int, *, packed: bool) -> list[list[int]]:
    """All row numbers in groups of at most `most` tokens (padding counted), by length and number: the same whenever they are made."""
    groups: list[list[int]] = []
    filled = math.inf
    for row in sorted(range(len(lengths)), key=lambda number: (lengths[number], number)):
        filled = filled + lengths[row] if packed or not groups else lengths[row] * (len(groups[-1]) + 1)
        if filled > most:
            groups.append([])
            filled = lengths[row]
        groups[-1].append(row)
    return groups


def packing_note(*, packed: bool, reason: str = "") -> str:
    """How the rows of a batch lie, in one line to show; `reason` says why they could not be packed."""
    if packed:
        return "rows are packed end to end, without padding; what they begin with alike is computed once"
    return "rows of like length are padded together" + (f": {reason}" if reason else "")


def collate(rows: Sequence[Encoded], *, packed: bool, pad_id: int, shared: bool = True) -> Batch:
    """The tensors of `rows`. Packed and `shared`, what rows begin with alike is there once.

    A causal model gives a token the same output whatever comes behind it: so what a template, an instruction or a soft prompt puts in
    front of every row is computed once a batch, and nothing behind the last place that is read is computed at all.
    Not to be shared where chance has a part in a token's output (dropout, noise on the embeddings), which is to be each row's own.
    """
    return _packed(rows, shared=shared) if packed else _padded(rows, pad_id)


def alike(rows: Sequence[tuple[int, ...]]) -> tuple[list[int], list[int]]:
    """An order of rows in which each has most in common with the one before, and with how many tokens each begins like that one."""
    import numpy as np

    order = sorted(range(len(rows)), key=rows.__getitem__)
    begins = [0]
    for before, row in pairwise(order):
        size = min(len(rows[before]), len(rows[row]))
        differ = np.array(rows[before][:size]) != np.array(rows[row][:size])
        begins.append(int(differ.argmax()) if differ.any() else size)
    return order, begins


def paths_of(lengths: Sequence[int], begins: Sequence[int]) -> list[np.ndarray]:
    """The places of each row's tokens in a sequence to which each row adds what it does not have in common with the one before."""
    import numpy as np

    paths: list[np.ndarray] = []
    end = 0
    for length, begin in zip(lengths, begins, strict=True):
        own = np.arange(end, end + length - begin)
        paths.append(np.concatenate([paths[-1][:begin], own]) if begin else own)
        end += len(own)
    return paths


def _packed(rows: Sequence[Encoded], *, shared: bool) -> Batch:
    import numpy as np
    import torch

    inputs = [row.ids[: row.reads[-1] + 1] if shared else row.ids for row in rows]
    order, begins = alike(inputs) if shared else (list(range(len(rows))), [0] * len(rows))
    laid = dict(zip(order, paths_of([len(inputs[number]) for number in order], begins), strict=True))
    paths = [laid[number] for number in range(len(rows))]
    places = np.concatenate(paths)
    first = np.unique(places, return_index=True)[1]
    ids = np.concatenate([np.array(row) for row in inputs])[first]
    positions = np.concatenate([np.arange(len(row)) for row in inputs])[first]
    reads = np.concatenate([path[list(row.reads)] for path, row in zip(paths, rows, strict=True)])
    return Batch(
        torch.from_numpy(ids)[None],
        torch.from_numpy(positions)[None],
        torch.from_numpy(reads),
        *_targets(rows),
        num_tokens=sum(len(row.ids) for row in rows),
        num_places=len(ids),
        num_rows=len(rows),
        packed=PackedRows.of(paths),
        places=torch.from_numpy(places),
        weights=_weights(rows),
    )


def _groups(paths: Sequence[np.ndarray]) -> Iterator[Sequence[np.ndarray]]:
    """Rows of like length, a new group where padding would be more than the tokens: one pass over many rows is quicker than two."""
    first, tokens = 0, 0
    for number, path in enumerate(paths):
        if tokens and len(path) * (number + 1 - first) > 2 * (tokens + len(path)) + _SLACK:
            yield paths[first:number]
            first, tokens = number, 0
        tokens += len(path)
    yield paths[first:]


def _shared(paths: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> Shared | None:
    """The tokens that are in more than one of these rows, which lie in groups of these sizes."""
    import numpy as np
    import torch

    widths = np.repeat([width for _, width in sizes], [count for count, _ in sizes])
    begins = widths.cumsum() - widths
    tokens = np.concatenate(paths)
    cells = np.concatenate([begin + np.arange(len(path)) for begin, path in zip(begins, paths, strict=True)])
    counts = np.bincount(tokens)
    places = (counts > 1).nonzero()[0]
    if not len(places):
        return None
    by_token = np.argsort(tokens, kind="stable")
    starts = counts.cumsum() - counts
    copies = np.arange(counts.max())
    real = copies < counts[places, None]
    found = cells[by_token[starts[places, None] + np.where(real, copies, 0)]]
    return Shared(torch.from_numpy(places), torch.from_numpy(found), torch.from_numpy(real))


def _padded(rows: Sequence[Encoded], pad_id: int) -> Batch:
    import torch

    written = [row.written for row in rows if isinstance(row, Answered)]
    read = [row.ids[: row.start] for row in rows] if written else [row.ids for row in rows]
    ids, mask = _rectangle(read, pad_id)
    decoder_ids = _rectangle(written, pad_id)[0] if written else None
    width = (ids if decoder_ids is None else decoder_ids).shape[1]
    return Batch(
        ids,
        torch.arange(ids.shape[1])[None].expand(len(rows), -1),
        torch.tensor([number * width + place for number, row in enumerate(rows) for place in row.reads]),
        *_targets(rows),
        num_tokens=sum(map(len, (*read, *written))),
        num_places=ids.numel() + (0 if decoder_ids is None else decoder_ids.numel()),
        num_rows=len(rows),
        padding=mask,
        segments=_segments(rows, mask.numpy()),
        weights=_weights(rows),
        follows=_follows(rows),
        decoder_ids=decoder_ids,
    )


def _rectangle(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids padded on the right, and which of them are real, int [B, T] both."""
    import numpy as np
    import torch

    ids = np.full((len(rows), max(len(row) for row in rows)), pad_id)
    mask = np.zeros(ids.shape, np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _follows(rows: Sequence[Encoded]) -> torch.Tensor | None:
    """What rows say of their second text, int64; None where they say nothing."""
    import torch

    found = [getattr(row, "says", None) for row in rows]
    return None if None in found else torch.tensor(found)


def _segments(rows: Sequence[Encoded], mask: np.ndarray) -> torch.Tensor | None:
    """Which of two texts each token is of, int64 as `mask` [rows, T]; None where no row has two."""
    import torch

    if all(row.second is None for row in rows):
        return None
    second = mask.copy()
    for number, row in enumerate(rows):
        second[number, : row.second if row.second is not None else None] = 0
    return torch.from_numpy(second)


def _weights(rows: Sequence[Encoded]) -> torch.Tensor | None:
    """What the rows weigh, float32; None where all weigh alike."""
    import torch

    found = [float(getattr(row, "weight", 1.0)) for row in rows]
    return torch.tensor(found) if any(weight != 1.0 for weight in found) else None


def _targets(rows: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    targets = [target for row in rows for target in row.targets]
    owner = [number for number, row in enumerate(rows) for _ in row.reads]
    return torch.tensor(targets), torch.tensor(owner)
