"""What a training would need, from the config alone: parameters exactly, memory by a step on shapes. No weights are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from nbtune.estimate.lengths import Load, encoded, guard_of, load_of
from nbtune.estimate.quantized import quantized_layers
from nbtune.estimate.step import LARGE, Micro, Shape, micro_step
from nbtune.estimate.throughput import throughput
from nbtune.estimate.trace import Work
from nbtune.methods import Facts, attach, first_ids, get, remembered, settled
from nbtune.models.base import MOST_COPIED, Base
from nbtune.models.families import can_pack
from nbtune.models.frozen import has_dropout
from nbtune.models.loading import stored_dtype

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from nbtune.data.encoded import Encoded
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = ["Estimate", "counted", "estimate", "estimate_spec"]

_MOMENTS: Final = {"adamw": 8, "adamw_8bit": 2, "adafactor": 0, "sgd": 0}
"""Bytes of an optimizer's state for each trained parameter: two in float32, two in 8 bits, rows and columns alone, none."""
_STORED: Final = {"int8": 1.0, "nf4": 0.5625, "fp4": 0.5625}
"""Bytes of a quantized parameter; 4 bits have a float32 scale to each 64."""
_COPIES: Final = {"int8": 2, "nf4": 4, "fp4": 4}
"""Bytes of the copy that a parameter is quantized from."""
_HOLES_SHARE: Final = 0.65
_HOLES_LEAST: Final = 40e6
_UPDATE_COPIES: Final = {"adafactor": 2}
"""Temporary copies of the parameter that an update is working on; the other optimizers work in place, in one kernel."""
_known: dict[tuple[Any, ...], Any] = {}


@dataclass(frozen=True)
class Estimate:
    """Counts of parameters are exact; the rest is what the model's own code would do on this device.

    `peak_memory_bytes` is the most above the level before the model is loaded, `weights_bytes` the part of it that the weights take.
    `seconds_per_epoch` is rough and mostly too low: it leaves looks at the dev rows out, and what an update costs beside its arithmetic;
    None: no rows were given.

    Of the peak, `activation_bytes` grow with the largest micro-batch, which has `most_places` tokens and pads; `checkpoint_bytes` are there
    while a checkpoint is written. An epoch has `places_per_epoch` of them (0: no rows were given).
    """

    trainable_parameters: int
    total_parameters: int
    peak_memory_bytes: int
    weights_bytes: int
    seconds_per_epoch: float | None = None
    steps_per_epoch: int = 0
    activation_bytes: int = 0
    checkpoint_bytes: int = 0
    most_places: int = 0
    places_per_epoch: float = 0.0


@dataclass(frozen=True)
class _Counts:
    trained: int
    total: int
    quantized: int
    heaped: int
    largest: int
    packs: bool
    drops: bool


def estimate(method: str, *, model: Any = None, task: Task | None = None, **options: Any) -> Estimate:
    """What training `model` by `method` would need.

    Args:
        method: a method's name.
        model: as in `finetune`, left out: the objective's; of a hub model only the config is read, and with a task the tokenizer.
        task: what to learn; left out: every row has `max_length` tokens, all of them trained, and no time is told.
        **options: as in `finetune`.

    Raises:
        SpecError: unknown method, option, or a value out of range.
        ModelError: the model cannot be found, or the method cannot adapt it.
        DataError: a row of the task cannot be trained on.
    """
    from nbtune.objectives import objective_for, source_for

    chosen = get(method)
    spec = chosen.spec.build({**options, "objective": objective_for(chosen, {**options, "model": model}, task)})
    source = source_for(spec.objective, model, task)
    if task is not None:
        spec = settled(chosen, spec, task)
    first = first_ids(get(method), spec, source.config)
    return estimate_spec(method, spec, source, encoded(task, spec, source, first) if task is not None else None)


def estimate_spec(method: str, spec: FinetuneSpec, source: Source, rows: Sequence[Encoded] | None = None) -> Estimate:
    """The same for a spec that is already built; attaching to the weightless model also finds options that the model refuses.

    Raises:
        SpecError, ModelError: the method cannot adapt this model with these options.
    """
    from nbtune.models.device import device_of, dtype_of

    get(method).requires(Facts(source, spec.quantization), spec)
    device = device_of(spec.device)
    dtype = dtype_of(spec.dtype, device)
    base, counts = _counts(method, spec, source)
    shared = spec.neftune_noise_alpha is None and not counts.drops
    load = load_of(spec, source.config, rows, can_pack=counts.packs, shared=shared)
    micro = _micro(method, spec, source, load.largest, dtype, device, base)
    guard = guard_of(spec, len(first_ids(get(method), spec, source.config)), can_pack=counts.packs)
    beside = None if guard is None else _micro(method, spec, source, guard[0], dtype, device, None, after_others=True)
    each = [micro] if beside is None else [micro, beside]
    stored = _STORED.get(spec.quantization or "", dtype.itemsize)
    weights = counts.quantized * stored + (counts.total - counts.trained - counts.quantized) * dtype.itemsize + counts.trained * 4
    remembers = _MOMENTS[spec.optim] + remembered(get(method))
    always = weights + counts.trained * remembers
    updating = 4 * (counts.trained + _UPDATE_COPIES.get(spec.optim, 0) * counts.largest)
    copied = 0
    if device.type == "cpu":
        step = max(max(one.big, updating - one.gradients) + _heap_bytes(one) for one in each)
        copied = _snapshot_bytes(counts.trained * (4 + remembers))
        peak = always + step + copied + _mapped_bytes(method, spec, source, counts, dtype)
        peak = max(peak, _loading_bytes(source, counts, dtype, spec.quantization))
    else:
        step = max(updating, *(one.peak for one in each))
        peak = always + step
    added = Work() if guard is None or beside is None else beside.work * (guard[1] * load.steps)
    return Estimate(
        counts.trained,
        counts.total,
        int(peak),
        int(weights),
        _seconds(load, micro, added, counts, dtype, device) if load.steps else None,
        load.steps,
        activation_bytes=max(0, int(step) - 4 * counts.trained),
        checkpoint_bytes=copied,
        most_places=load.largest.rows * load.largest.width,
        places_per_epoch=load.worth * load.largest.rows * load.largest.width,
    )


def _heap_bytes(micro: Micro) -> float:
    """Resident memory for what is alive at once in small storages: the heap keeps holes between those of different length and age.

    Gradients are alike from step to step and leave none. Two constants, fitted on a 135 M model under glibc, on two threads. With an
    allocator that keeps nothing (MALLOC_MMAP_THRESHOLD_=65536) the same runs need `small` itself, to a few percent. Nor do float32
    gradients fit where the 16-bit copies of their weights lay, which the backward frees: a first micro-batch's come on top of them.
    """
    holes = _HOLES_SHARE * max(0, micro.small - micro.gradients)
    beside = 0 if micro.accumulating else micro.kept + micro.gradients
    return max(micro.small + holes, beside) + min(_HOLES_LEAST, 4 * micro.small)


def _snapshot_bytes(copied: int) -> int:
    """The copy that a checkpoint is written from while training goes on."""
    return copied if copied <= MOST_COPIED else 0


def _mapped_bytes(method: str, spec: FinetuneSpec, source: Source, counts: _Counts, dtype: torch.dtype) -> int:
    """Weights of the model's file that stay mapped though what is trained has taken their place: the file is held as a whole.

    That is so where the file's dtype is the base's, nothing is quantized, and some weights are used as they lie there.
    """
    if source.bound is not None or spec.quantization or stored_dtype(source.config) != dtype:
        return 0
    copied = get(method).name == "head" and getattr(source.config, "tie_word_embeddings", False)
    replaced = get(method).writes_base and not copied and counts.trained < counts.total
    return counts.trained * dtype.itemsize if replaced else 0


def _loading_bytes(source: Source, counts: _Counts, dtype: torch.dtype, quantization: str | None) -> int:
    """What reading the weights takes where that is more than training: small runs, and files of another dtype.

    Then the file and the weights are both there. Quantizing makes copies of what it has read (float32 for 4 bits, float16 for 8), and
    the heap mostly keeps those that are not large until all is read.
    """
    stored = stored_dtype(source.config)
    if stored is None or source.bound is not None:
        return 0
    if quantization is not None:
        return int(counts.total * stored.itemsize + counts.quantized * _STORED[quantization] + counts.heaped * _COPIES[quantization])
    return 0 if stored == dtype else counts.total * (stored.itemsize + dtype.itemsize)


def counted(method: str, spec: FinetuneSpec, source: Source) -> tuple[int, int]:
    """(trained, all) parameters; also finds options that the model refuses.

    Raises:
        SpecError, ModelError: the method cannot adapt this model with these options.
    """
    get(method).requires(Facts(source, spec.quantization), spec)
    _, counts = _counts(method, spec, source)
    return counts.trained, counts.total


def _attached(method: str, spec: FinetuneSpec, source: Source) -> Base:
    from nbtune.models.loading import LoadedModel
    from nbtune.models.skeleton import skeleton

    base = Base(LoadedModel(skeleton(source), cast("Any", None), source.config, source.name, source.labels, source.learns))
    attach(get(method), base, spec, "estimate")
    return base


def _key(method: str, spec: FinetuneSpec, source: Source, *more: Any) -> tuple[Any, ...]:
    options = tuple((item.name, repr(getattr(spec, item.name))) for item in spec.options() if item.group == "method")
    return (source.key, method, options, *more)


def _counts(method: str, spec: FinetuneSpec, source: Source) -> tuple[Base | None, _Counts]:
    """Counted once for the same files and the same options of the method; with the model on which it was, where it was made for that."""
    key = _key(method, spec, source, spec.quantization)
    if key in _known:
        return None, cast("_Counts", _known[key])
    base = _attached(method, spec, source)
    sizes = [parameter.numel() for parameter in base.trained("estimate").values()]
    trained = sum(sizes)
    total = sum(parameter.numel() for parameter in base.model.parameters())
    held = [layer.weight.numel() for layer in quantized_layers(base.model)] if spec.quantization else []
    heaped = sum(size for size in held if size * _COPIES[spec.quantization or ""] < LARGE)
    found = _Counts(trained, total, sum(held), heaped, max(sizes, default=0), can_pack(base.model.config), has_dropout(base, "estimate"))
    if source.bound is None:  # an object's key is its id, which another may have one day
        _known[key] = found
    return base, found


def _micro(  # noqa: PLR0917  all of them decide
    method: str,
    spec: FinetuneSpec,
    source: Source,
    shape: Shape,
    dtype: torch.dtype,
    device: torch.device,
    base: Base | None,
    *,
    after_others: bool = False,
) -> Micro:
    """Of `shape`; `base` is taken apart for it (None: another is made). `after_others`: it is never a step's first micro-batch."""
    checkpointing, accumulating = spec.gradient_checkpointing is True, after_others or spec.gradient_accumulation_steps > 1
    key = _key(method, spec, source, shape, dtype, device, spec.quantization, checkpointing, accumulating)
    if key in _known:
        return cast("Micro", _known[key])
    try:
        found = micro_step(
            base or _attached(method, spec, source),
            "estimate",
            shape,
            dtype=dtype,
            device=device,
            quantization=spec.quantization,
            checkpointing=checkpointing,
            accumulating=accumulating,
        )
    except Exception:  # noqa: BLE001  any model's own code has run, and an estimate must not stop what may well train
        found = _rough(
            source.config, shape, _counts(method, spec, source)[1], dtype, checkpointing=checkpointing, accumulating=accumulating
        )
    if source.bound is None:
        _known[key] = found
    return found


def _rough(
    config: PretrainedConfig, shape: Shape, counts: _Counts, dtype: torch.dtype, *, checkpointing: bool, accumulating: bool
) -> Micro:
    """For a model whose code does not run without numbers: gradients, logits, and 34 values of the hidden size a token and block.

    The 34 leave out the square of the length, which sdpa does not keep (Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198,
    equation 2); with checkpointing 2. Six operations a parameter and token.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    tokens = shape.rows * shape.width
    values = tokens * int(text.hidden_size) * int(text.num_hidden_layers) * (2 if checkpointing else 34)
    logits = shape.trained * int(text.vocab_size) * 12
    kept = counts.trained * 4 + values * dtype.itemsize
    work = Work(flops=6.0 * counts.total * tokens)
    return Micro(kept + logits, kept, logits, counts.trained * 4, values * dtype.itemsize, work, accumulating)


def _seconds(load: Load, micro: Micro, added: Work, counts: _Counts, dtype: torch.dtype, device: torch.device) -> float:  # noqa: PLR0917
    """An epoch's micro-batches, what is added to them, and updates; AdamW reads and writes weight, gradient and two moments."""
    speed = throughput(device, dtype)
    sized = Work(micro.work.flops * load.worth, micro.work.moved * load.worth, micro.work.calls * load.micro_batches)
    return speed.seconds(sized + added + Work(moved=28.0 * counts.trained * load.steps))
