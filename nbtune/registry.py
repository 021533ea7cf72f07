"""Words that name things: built in by file, or registered by other packages under an entry point group."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from nbtune.errors import SpecError, did_you_mean

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """The things of one kind; a module is imported when its thing is first asked for.

    Args:
        what: the kind, in the singular, as the user calls it.
        group: the entry point group, also the package that holds the built-in ones.
        built_in: {name: module of the package}.
        attribute: what each module calls its thing.
    """

    def __init__(self, what: str, group: str, built_in: Mapping[str, str], attribute: str) -> None:
        self._what, self._group, self._built_in, self._attribute = what, group, built_in, attribute

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every name, the built-in ones first."""
        return (*self._built_in, *sorted(self._others))

    def get(self, name: str) -> T:
        """The thing called `name`; `_` may stand for `-`.

        Raises:
            SpecError: there is none of that name.
        """
        dashed = name.replace("_", "-")
        if dashed in self._built_in:
            return cast("T", getattr(importlib.import_module(f"{self._group}.{self._built_in[dashed]}"), self._attribute))
        if (point := self._others.get(name) or self._others.get(dashed)) is not None:
            return cast("T", point.load())
        raise SpecError(f"there is no {self._what} {name!r}", hint=did_you_mean(name, self.names))

    @cached_property
    def _others(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group) if point.name not in self._built_in}
