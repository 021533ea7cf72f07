"""The methods that there are: one file and one line here each; other packages register theirs as `nbtune.methods`."""

from __future__ import annotations

from typing import Final

from nbtune.methods.base import Facts, Method, attach, first_ids, is_estimator
from nbtune.registry import Registry

__all__ = ["Facts", "Method", "attach", "first_ids", "get", "is_estimator", "names"]

_FILES: Final = {
    "lora": "lora",
    "rslora": "rslora",
    "dora": "dora",
    "vera": "vera",
    "loha": "loha",
    "lokr": "lokr",
    "oft": "oft",
    "boft": "boft",
    "hra": "hra",
    "fourierft": "fourierft",
    "ia3": "ia3",
    "adapter": "adapter",
    "prompt-tuning": "prompt_tuning",
    "p-tuning": "p_tuning",
    "prefix-tuning": "prefix_tuning",
    "features": "features",
    "full": "full",
    "last-blocks": "last_blocks",
    "head": "head",
    "bitfit": "bitfit",
    "layernorm": "layernorm",
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
