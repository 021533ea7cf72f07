"""The methods that there are: built in by file, or registered by others under the entry point group `nbtune.methods`."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Final, cast

from nbtune.errors import SpecError, did_you_mean
from nbtune.methods.base import Facts, Method

__all__ = ["Facts", "Method", "get", "names"]

_BUILT_IN: Final = {"lora": "lora", "full": "full", "head": "head", "last-blocks": "last_blocks"}


@cache
def names() -> tuple[str, ...]:
    """Every method's name, the built-in ones first."""
    return (*_BUILT_IN, *sorted(point.name for point in entry_points(group="nbtune.methods") if point.name not in _BUILT_IN))


@cache
def get(name: str) -> Method:
    """The method called `name`; `_` may stand for `-`.

    Raises:
        SpecError: there is none of that name.
    """
    wanted = name.replace("_", "-")
    if wanted in _BUILT_IN:
        return cast("Method", importlib.import_module(f"nbtune.methods.{_BUILT_IN[wanted]}").METHOD)
    for point in entry_points(group="nbtune.methods"):
        if point.name in {name, wanted}:
            return cast("Method", point.load())
    raise SpecError(f"there is no method {name!r}", hint=did_you_mean(name, names()))
