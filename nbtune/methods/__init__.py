"""The methods that there are: one file and one line here each; other packages register theirs as `nbtune.methods`."""

from __future__ import annotations

from typing import Final

from nbtune.methods.base import (
    Facts,
    Method,
    attach,
    begin,
    finish,
    finish_saved,
    first_ids,
    folds,
    is_estimator,
    kind_of,
    merges,
    remembered,
    settled,
    tier,
)
from nbtune.registry import Registry

__all__ = [
    "Facts",
    "Method",
    "attach",
    "begin",
    "finish",
    "finish_saved",
    "first_ids",
    "folds",
    "get",
    "is_estimator",
    "kind_of",
    "merges",
    "names",
    "remembered",
    "settled",
    "tier",
]

_FILES: Final = {
    "lora": "lora",
    "rslora": "rslora",
    "dora": "dora",
    "pissa": "pissa",
    "adalora": "adalora",
    "vera": "vera",
    "loha": "loha",
    "lokr": "lokr",
    "oft": "oft",
    "boft": "boft",
    "hra": "hra",
    "fourierft": "fourierft",
    "ia3": "ia3",
    "adapter": "adapter",
    "adaption-prompt": "adaption_prompt",
    "prompt-tuning": "prompt_tuning",
    "p-tuning": "p_tuning",
    "prefix-tuning": "prefix_tuning",
    "multitask-prompt-tuning": "multitask_prompt_tuning",
    "cpt": "cpt",
    "features": "features",
    "full": "full",
    "last-blocks": "last_blocks",
    "head": "head",
    "bitfit": "bitfit",
    "layernorm": "layernorm",
    "trainable-tokens": "trainable_tokens",
    "randlora": "second_tier.randlora",
    "waveft": "second_tier.waveft",
    "c3a": "second_tier.c3a",
    "vblora": "second_tier.vblora",
    "shira": "second_tier.shira",
    "road": "second_tier.road",
    "miss": "second_tier.miss",
    "tinylora": "second_tier.tinylora",
    "gralora": "second_tier.gralora",
    "unilora": "second_tier.unilora",
    "psoft": "second_tier.psoft",
    "peanut": "second_tier.peanut",
    "osf": "second_tier.osf",
}
_METHODS: Final = Registry[Method]("method", "nbtune.methods", _FILES, "METHOD")


def names() -> tuple[str, ...]:
    """Every method's name, the built-in ones first."""
    return _METHODS.names


def get(name: str) -> Method:
    """The method called `name`; `_` may stand for `-`.

    Raises:
        SpecError: there is none of that name.
    """
    return _METHODS.get(name)
