"""Whether a run fits into memory, told before anything is loaded, with the changes that would make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import ModelError, NbtuneError
from nbtune.estimate.core import Estimate, estimate_spec
from nbtune.estimate.lengths import most_tokens
from nbtune.methods import get, kind_of

if TYPE_CHECKING:
    from nbtune.data.encoded import Encoded
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec

__all__ = ["Change", "changes_that_fit", "fits", "in_memory", "resolve_checkpointing", "room_for"]

_LEAST_TOKENS: Final = 32


@dataclass(frozen=True)
class Change:
    """Options to set, and what the run would need with them."""

    options: dict[str, Any]
    estimate: Estimate

    def __str__(self) -> str:
        said = " with ".join(f"{name} {str(value).lower()}" for name, value in self.options.items())
        return f"{said} ({self.estimate.peak_memory_bytes / 1e9:.1f} GB)"


def fits(
    method: str, spec: FinetuneSpec, source: Source, rows: Sequence[Encoded] | None = None, *, room: int | None = None
) -> tuple[FinetuneSpec, Estimate]:
    """The spec with `gradient_checkpointing: auto` decided, and what the run needs.

    Args:
        method: its name.
        spec: its options.
        source: the model.
        rows: the training rows; left out: every row has `max_length` tokens.
        room: bytes that may be used; left out: what is free on the device, and the weights' where they are in memory already.

    Raises:
        ModelError: it does not fit, with every single change that makes it fit.
    """
    found = _resolved(method, spec, source, rows, room)
    room = room_for(method, spec, source, found[1]) if room is None else room
    need = found[1].peak_memory_bytes
    if need <= room:
        return found
    device = spec.device or "this machine"
    message = f"{method} on {source.name!r} needs about {need / 1e9:.1f} GB, and {device} has {max(room, 0) / 1e9:.1f} GB free"
    changes = changes_that_fit(method, spec, source, rows, room=room)
    told = ", or ".join(str(change) for change in changes)
    raise ModelError(message, hint=f"set {told}" if told else "use a smaller model, or nbtune.models.unload() what you no longer need")


def resolve_checkpointing(
    method: str, spec: FinetuneSpec, source: Source, rows: Sequence[Encoded] | None = None, *, room: int | None = None
) -> bool:
    """What `gradient_checkpointing` comes to: "auto" is on only where the run would not fit without and does with it."""
    return _resolved(method, spec, source, rows, room)[0].gradient_checkpointing is True


def changes_that_fit(
    method: str, spec: FinetuneSpec, source: Source, rows: Sequence[Encoded] | None = None, *, room: int
) -> tuple[Change, ...]:
    """The least of each kind of change with which the run fits alone; where none does, all of them together if that does."""
    found: list[Change] = []
    strongest: dict[str, Any] = {}
    for kind in (_smaller_batches, _shorter_rows, _checkpointed, _quantized, _lower_ranks):
        for options in kind(spec, source, rows):
            if (change := _tried(method, spec, source, rows, options, room=room)) is not None:
                found.append(change)
                break
            if _possible(method, spec, source, options):
                strongest |= options
    if not found and strongest and (change := _tried(method, spec, source, rows, strongest, room=room)) is not None:
        found.append(change)
    return tuple(found)


def room_for(method: str, spec: FinetuneSpec, source: Source, need: Estimate) -> int:
    """Bytes free on the device, and those of the weights that are in memory already."""
    from nbtune.models.device import available_bytes, device_of

    return available_bytes(device_of(spec.device)) + in_memory(method, spec, source, need)


def in_memory(method: str, spec: FinetuneSpec, source: Source, need: Estimate) -> int:
    """Bytes of what the run needs that are there before it: the weights, where the base that it shares is loaded."""
    from nbtune.models.shared import is_loaded

    chosen = get(method)
    held: dict[str, Any] = {"dtype": spec.dtype, "quantization": spec.quantization, "device": spec.device}
    return need.weights_bytes if not chosen.writes_base and is_loaded(source, kind=kind_of(chosen, spec), **held) else 0


def _resolved(
    method: str, spec: FinetuneSpec, source: Source, rows: Sequence[Encoded] | None, room: int | None
) -> tuple[FinetuneSpec, Estimate]:
    if spec.gradient_checkpointing != "auto":
        return spec, estimate_spec(method, spec, source, rows)
    off, on = (spec.model_copy(update={"gradient_checkpointing": value}) for value in (False, True))
    plain = estimate_spec(method, off, source, rows)
    room = room_for(method, spec, source, plain) if room is None else room
    if plain.peak_memory_bytes <= room:
        return off, plain
    lean = estimate_spec(method, on, source, rows)
    return (on, lean) if lean.peak_memory_bytes <= room else (off, plain)


def _tried(
    method: str, spec: FinetuneSpec, source: Source, rows: Sequence[Encoded] | None, options: dict[str, Any], *, room: int
) -> Change | None:
    changed = spec.model_copy(update=options)
    if rows and "max_length" in options:
        rows = [row.cut(options["max_length"], None) for row in rows]  # which tokens stay is no matter
    try:
        get(method).requires(_facts(source, changed), changed)
        _, need = _resolved(method, changed, source, rows, room)
    except NbtuneError:
        return None
    return Change(options, need) if need.peak_memory_bytes <= room else None


def _possible(method: str, spec: FinetuneSpec, source: Source, options: dict[str, Any]) -> bool:
    changed = spec.model_copy(update=options)
    try:
        get(method).requires(_facts(source, changed), changed)
    except NbtuneError:
        return False
    return True


def _facts(source: Source, spec: FinetuneSpec) -> Any:
    from nbtune.methods import Facts

    return Facts(source, spec.quantization)


def _smaller_batches(spec: FinetuneSpec, _source: Source, _rows: Sequence[Encoded] | None) -> Iterator[dict[str, Any]]:
    """The same rows to an optimizer step, so the same training."""
    for size in range(spec.per_device_train_batch_size - 1, 0, -1):
        if spec.step_rows % size == 0:
            yield {"per_device_train_batch_size": size, "gradient_accumulation_steps": spec.step_rows // size}


def _shorter_rows(spec: FinetuneSpec, source: Source, rows: Sequence[Encoded] | None) -> Iterator[dict[str, Any]]:
    """Halves, down to what leaves every completion whole and a token of its prompt."""
    longest, least = most_tokens(spec, source.config), _LEAST_TOKENS
    if rows:
        longest = min(longest, max(len(row.ids) for row in rows))
        least = max(least, max(row.num_trained for row in rows) + 1)
    length = longest // 2
    while length >= least:
        yield {"max_length": length}
        length //= 2


def _checkpointed(spec: FinetuneSpec, _source: Source, _rows: Sequence[Encoded] | None) -> Iterator[dict[str, Any]]:
    if spec.gradient_checkpointing is False:
        yield {"gradient_checkpointing": True}


def _quantized(spec: FinetuneSpec, source: Source, _rows: Sequence[Encoded] | None) -> Iterator[dict[str, Any]]:
    if spec.quantization is None and source.bound is None:
        yield {"quantization": "nf4"}


def _lower_ranks(spec: FinetuneSpec, _source: Source, _rows: Sequence[Encoded] | None) -> Iterator[dict[str, Any]]:
    rank = getattr(spec, "r", 1)
    while rank > 1:
        rank //= 2
        yield {"r": rank}
