"""A model without weights: its modules on torch's meta device, from the config alone. Counts are exact and cost no memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nbtune.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from nbtune.models.loading import Source

__all__ = ["skeleton"]


def skeleton(source: Source) -> PreTrainedModel:
    """A new model of the source's architecture on the meta device, frozen.

    Raises:
        ModelError: the architecture generates no text (takes no head over classes), or transformers does not know it.
    """
    import copy

    import torch

    from nbtune.models.loading import answer_alike, class_for, refuse_encoder
    from nbtune.models.quiet import quiet

    refuse_encoder(source)
    config = copy.deepcopy(source.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    try:
        with quiet(), torch.device("meta"):
            model = class_for(source).from_config(config, trust_remote_code=False)
    except ValueError as error:
        if source.labels:
            message = f"transformers has no {config.model_type} with a head over classes, which {source.name!r} would be"
            raise ModelError(message, hint="use objective sft, or an encoder such as minilm") from error
        message = f"model {source.name!r} ({config.model_type}) does not generate text"
        raise ModelError(message, hint="use a decoder such as smollm2-135m") from error
    answer_alike(model)
    return cast("PreTrainedModel", model.requires_grad_(False))
