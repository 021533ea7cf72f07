"""The bases that cells and runs share: one copy of each, kept until `unload()`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from nbtune.models.base import Base

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from nbtune.models.loading import LoadedModel, Source

__all__ = [
    "forget_own",
    "is_loaded",
    "keep_tuned",
    "load",
    "loaded_tokenizer",
    "own_base",
    "shared_base",
    "tuned_base",
    "unload",
    "warm_up",
]

_bases: dict[str, list[Base]] = {}
_bound: dict[str, Any] = {}
_tuned: dict[str, Base] = {}
_loading = threading.RLock()
_importing = threading.RLock()


def load(model: Any, *, dtype: str | None = None, quantization: str | None = None, device: str | None = None) -> LoadedModel:
    """A model of the caller's own, frozen and in eval mode; nothing of nbtune's touches it.

    Args:
        model: catalogue name, local folder or hub id.
        dtype: "float32", "bfloat16" or "float16"; left out: what the device is fast at.
        quantization: "nf4", "fp4" or "int8".
        device: as torch names it; left out: the best there is.

    Raises:
        ModelError: it cannot be found, read, or held in memory.
    """
    from nbtune.models.device import device_of, dtype_of
    from nbtune.models.loading import load_weights, source_of

    where = device_of(device)
    return load_weights(source_of(model), dtype=dtype_of(dtype, where), quantization=quantization, device=where)


def shared_base(source: Source, *, dtype: str | None, quantization: str | None, device: str | None, kind: str | None = None) -> Base:
    """The copy of that base that is in memory, loaded if it is not there yet.

    Args:
        source: the model.
        dtype: as `load` has it.
        quantization: likewise.
        device: likewise.
        kind: what the adapters are that the copy is to hold, by `methods.kind_of`: peft's name of the tuner, and the options by which all
            on one base share something. A second kind gets a second copy, because peft's tuners cannot be put on one model together, and
            what is shared is the first adapter's. None: any copy will do.

    Raises:
        ModelError: as `load`.
    """
    key = _key(source, dtype, quantization, device)
    with _loading:
        found = _for_kind(key, kind)
        if found is None:
            found = own_base(source, dtype=dtype, quantization=quantization, device=device)
            _bases.setdefault(key, []).append(found)
            _bound[key] = source.bound  # held, so that its id stays its own
        found.held_for = found.held_for or kind  # nobody else's from here on
        return found


def _for_kind(key: str, kind: str | None) -> Base | None:
    return next((base for base in _bases.get(key, ()) if kind is None or (base.held_for or base.kind) in (None, kind)), None)


def is_loaded(source: Source, *, dtype: str | None, quantization: str | None, device: str | None, kind: str | None = None) -> bool:
    """Whether `shared_base` has that base in memory."""
    return _for_kind(_key(source, dtype, quantization, device), kind) is not None


def own_base(source: Source, *, dtype: str | None, quantization: str | None, device: str | None) -> Base:
    """A copy for a method that writes base weights.

    Raises:
        ModelError: as `load`.
    """
    from nbtune.models.device import device_of, dtype_of
    from nbtune.models.loading import load_weights

    where = device_of(device)
    return Base(load_weights(source, dtype=dtype_of(dtype, where), quantization=quantization, device=where), quantization=quantization)


def tuned_base(run_id: str) -> Base | None:
    """The base that a run's training or last use left in memory; None where none did, or after `unload()`."""
    return _tuned.get(run_id)


def keep_tuned(run_id: str, base: Base) -> None:
    """Remembers the base on which a run's adapter or parts are."""
    _tuned[run_id] = base


def forget_own(run_id: str) -> None:
    """Forgets the base of a run that wrote the weights of its own copy; what is asked of it later is read from its folder."""
    base = _tuned.get(run_id)
    if base is not None and not base.has_adapter(run_id):
        del base, _tuned[run_id]
        _give_back()


def loaded_tokenizer(name: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a shared base that is already in memory under that name; None where none is."""
    return next((base.tokenizer for bases in list(_bases.values()) for base in bases if base.name == name), None)


def unload() -> int:
    """Forgets all models in memory, and gives back what no training is using; how many shared bases there were.

    A training that goes on keeps what it has; what is needed later is loaded again.
    """
    with _loading:
        count = sum(len(bases) for bases in _bases.values())
        _bases.clear()
        _bound.clear()
        _tuned.clear()
    _give_back()
    return count


def _give_back() -> None:
    """What nothing refers to any more, cycles included."""
    import gc
    import sys

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def warm_up() -> None:
    """Imports what a training needs, saying nothing; meant for a thread behind the first cell.

    Whoever needs it meanwhile waits here: two threads that import transformers at once see it half done.
    """
    from nbtune.models.quiet import quiet

    with _importing, quiet():
        import peft
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        _ = (peft.PeftModel, torch.nn, AutoModelForCausalLM, AutoTokenizer)


def _key(source: Source, dtype: str | None, quantization: str | None, device: str | None) -> str:
    from nbtune.models.device import device_of, dtype_of

    where = device_of(device)
    return "|".join((source.key, str(dtype_of(dtype, where)), str(quantization), str(where)))
