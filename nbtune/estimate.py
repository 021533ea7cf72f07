"""What a training would need, from the config alone: parameters exactly, memory roughly. No weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from nbtune.methods import Facts, get
from nbtune.models.base import Base
from nbtune.models.catalogue import DEFAULT_DECODER

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec

_counted: dict[tuple[str, str, tuple[tuple[str, str], ...]], tuple[int, int]] = {}

__all__ = ["Estimate", "estimate", "estimate_spec"]


@dataclass(frozen=True)
class Estimate:
    """Counts of parameters are exact; `peak_memory_bytes` is a rough figure (weights, gradients, AdamW's moments, activations)."""

    trainable_parameters: int
    total_parameters: int
    peak_memory_bytes: int


def estimate(method: str, *, model: Any = DEFAULT_DECODER, **options: Any) -> Estimate:
    """What training `model` by `method` would need.

    Args:
        method: a method's name.
        model: as in `finetune`; of a hub model only the config is read.
        **options: as in `finetune`.

    Raises:
        SpecError: unknown method, option, or a value out of range.
        ModelError: the model cannot be found, or the method cannot adapt it.
    """
    from nbtune.models.loading import source_of

    chosen = get(method)
    return estimate_spec(method, chosen.spec.build(options), source_of(model))


def estimate_spec(method: str, spec: FinetuneSpec, source: Source) -> Estimate:
    """The same for a spec that is already built; attaching to the weightless model also finds options that the model refuses.

    Raises:
        SpecError, ModelError: the method cannot adapt this model with these options.
    """
    from nbtune.models.device import device_of, dtype_of

    get(method).requires(Facts(source.name, source.config, spec.quantization), spec)
    trained, total = _counts(method, spec, source)
    width = dtype_of(spec.dtype, device_of(spec.device)).itemsize
    return Estimate(trained, total, _peak_bytes(source.config, spec, trained, total, width))


def _counts(method: str, spec: FinetuneSpec, source: Source) -> tuple[int, int]:
    """(trained, in all), counted once for the same files and the same options of the method."""
    from nbtune.models.loading import LoadedModel
    from nbtune.models.skeleton import skeleton

    options = tuple((item.name, repr(getattr(spec, item.name))) for item in spec.options() if item.group == "method")
    key = (source.key, method, options)
    if key in _counted:
        return _counted[key]
    base = Base(LoadedModel(skeleton(source), cast("Any", None), source.config, source.name))
    get(method).attach(base, spec, "estimate")
    trained = sum(parameter.numel() for parameter in base.trained("estimate").values())
    total = sum(parameter.numel() for parameter in base.model.parameters())
    if source.bound is None:  # an object's key is its id, which another may have one day
        _counted[key] = trained, total
    return trained, total


def _peak_bytes(config: PretrainedConfig, spec: FinetuneSpec, trained: int, total: int, width: int) -> int:
    """Frozen weights as stored; 16 bytes for each trained one (float32 weight, gradient, two moments); activations.

    Activations are counted as 34 values of the hidden size a token and block, without the square of the length, which sdpa does
    not keep (Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, equation 2), or 2 with checkpointing.
    """
    stored = {None: float(width), "int8": 1.1, "nf4": 0.6, "fp4": 0.6}[spec.quantization]
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    tokens = spec.per_device_train_batch_size * spec.max_length
    values = tokens * int(text.hidden_size) * int(text.num_hidden_layers) * (2 if spec.gradient_checkpointing else 34)
    return int((total - trained) * stored + trained * 16 + values * min(width, 2))
