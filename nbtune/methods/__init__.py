"""The methods that there are: one file and one line here each; other packages register theirs as `nbtune.methods`."""

from __future__ import annotations

from typing import Final

from nbtune.methods.base import Facts, Method
from nbtune.registry import Registry

__all__ = ["Facts", "Method", "get", "names"]

_METHODS: Final = Registry[Method](
    "method", "nbtune.methods", {"lora": "lora", "full": "full", "head": "head", "last-blocks": "last_blocks"}, "METHOD"
)


def names() -> tuple[str, ...]:
    """Every method's name, the built-in ones first."""
    return _METHODS.names


def get(name: str) -> Method:
    """The method called `name`; `_` may stand for `-`.

    Raises:
        SpecError: there is none of that name.
    """
    return _METHODS.get(name)
