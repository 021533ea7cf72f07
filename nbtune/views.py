"""The seam to whatever draws: front ends register functions under the entry point group `nbtune.views`, found by name when asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Any, cast

from nbtune.errors import NbtuneError

__all__ = ["view"]


@cache
def view(name: str) -> Callable[..., Any]:
    """The function that a front end registered under `name`.

    Raises:
        NbtuneError: none did.
    """
    for point in entry_points(group="nbtune.views"):
        if point.name == name:
            return cast("Callable[..., Any]", point.load())
    message = f"nothing is installed that can draw {name!r}"
    raise NbtuneError(message, hint="install nbtune as a package: pip install .")
