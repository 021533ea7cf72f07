"""How long the rows are: what decides activations and time beside the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from nbtune.data.batches import alike, micro_batches, rows_of_step
from nbtune.data.encoded import Answered
from nbtune.data.retained import rehearsed_rows, rehearsed_width
from nbtune.estimate.step import Shape
from nbtune.models.families import context_of, is_seq2seq

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from nbtune.data.encoded import Encoded
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = ["Load", "encoded", "guard_of", "load_of", "most_tokens"]

_STEPS_LOOKED_AT: Final = 50


@dataclass(frozen=True)
class Load:
    """The largest micro-batch, and of an epoch (0: unknown) the micro-batches, optimizer steps, and micro-batches' worth of the largest."""

    largest: Shape
    micro_batches: int = 0
    steps: int = 0
    worth: float = 0.0


def most_tokens(spec: FinetuneSpec, config: PretrainedConfig) -> int:
    """`max_length`, or what the model's positions allow where that is less."""
    context = context_of(config)
    return spec.max_length if context is None else min(spec.max_length, context)


def encoded(task: Task, spec: FinetuneSpec, source: Source, first: tuple[int, ...] = ()) -> list[Encoded]:
    """The task's training rows in the model's tokens, behind the ids that stand before every prompt.

    Raises:
        DataError: a row cannot be trained on.
    """
    from nbtune.data.encoding import encode_rows
    from nbtune.objectives import encoder_for

    encoder = encoder_for(task, spec, source.tokenizer, source.config, first)
    rows, _ = encode_rows(encoder, task.train, max_length=most_tokens(spec, source.config))
    return rows


def load_of(spec: FinetuneSpec, config: PretrainedConfig, rows: Sequence[Encoded] | None, *, can_pack: bool, shared: bool) -> Load:
    """From the rows as the loop will divide them, and packed as `collate` packs them.

    Without rows each has `max_length` trained tokens; where an encoder reads its prompt, half of them are that.
    """
    size = spec.per_device_train_batch_size
    packed = can_pack and spec.packing is not False
    if not rows:
        length = most_tokens(spec, config)
        if is_seq2seq(config):
            half = length // 2
            return Load(Shape((length - half,) * size, half * size, packed=False, written=half))
        return Load(Shape((length,) * size, length * size, packed))
    lengths = [len(row.ids) for row in rows]
    steps = math.ceil(len(rows) / spec.step_rows)
    shapes: list[Shape] = []
    looked_at = sorted({number * steps // _STEPS_LOOKED_AT for number in range(_STEPS_LOOKED_AT)})
    for step in looked_at:
        chosen = rows_of_step(len(rows), spec.step_rows, spec.seed, step)
        shapes += [_shape([rows[row] for row in micro], packed, shared) for micro in micro_batches(chosen, lengths, size)]
    width = max(shape.rows * shape.width for shape in shapes)
    largest = next(shape for shape in shapes if shape.rows * shape.width == width)
    largest = replace(largest, trained=max(shape.trained for shape in shapes))
    scale = steps / len(looked_at)
    worth = scale * sum(shape.rows * shape.width for shape in shapes) / width
    return Load(largest, round(scale * len(shapes)), steps, worth)


def guard_of(spec: FinetuneSpec, num_first: int, *, can_pack: bool) -> tuple[Shape, int] | None:
    """What `replay` and `kl_to_base` add to each optimizer step: a micro-batch of pieces of text, and how many of them; None: nothing."""
    if not spec.replay and not spec.kl_to_base:
        return None
    pieces, width = rehearsed_rows(spec), rehearsed_width(spec, num_first)
    at_once = min(pieces, spec.per_device_train_batch_size)
    shape = Shape((num_first + width,) * at_once, width * at_once, can_pack, held=bool(spec.kl_to_base))
    return shape, math.ceil(pieces / at_once)


def _shape(rows: Sequence[Encoded], packed: bool, shared: bool) -> Shape:
    trained = sum(len(row.reads) for row in rows)
    written = [(row.start, len(row.written)) for row in rows if isinstance(row, Answered)]
    if written:
        return Shape(tuple(read for read, _ in written), trained, packed=False, written=max(size for _, size in written))
    if not packed or not shared:
        return Shape(tuple(len(row.ids) for row in rows), trained, packed)
    inputs = [row.ids[: row.reads[-1] + 1] for row in rows]
    order, begins = alike(inputs)
    return Shape(tuple(len(inputs[number]) for number in order), trained, packed, tuple(begins))
