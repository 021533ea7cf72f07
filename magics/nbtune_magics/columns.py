"""Approaches as they are said in a body: names, `name: {options}`, `run: NAME`, and variables that hold a run or a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nbtune import approaches
from nbtune.errors import NbtuneError, Problem

__all__ = ["checked"]


def checked(entries: Sequence[tuple[Any, int | None]], variables: Mapping[str, Any]) -> tuple[list[Any], list[Problem]]:
    """(the entries, runs and functions bound to variables in their place, what is wrong with any); each comes with its line of the cell."""
    found: list[Any] = []
    problems: list[Problem] = []
    for entry, line in entries:
        resolved = _with_objects(entry, variables)
        try:
            name, options = approaches.wanted(resolved)
            if name == "run":
                _find(options)
        except NbtuneError as error:
            inner = getattr(error, "problems", None) or [Problem(error.message, error.hint)]
            problems += [Problem(item.message, item.hint, line) for item in inner]
        found.append(resolved)
    return found, problems


def _find(options: Any) -> None:
    from nbtune.approaches.tuned import run_named

    run_named(options)


def _with_objects(entry: Any, variables: Mapping[str, Any]) -> Any:
    if isinstance(entry, str) and entry.replace("_", "-") not in approaches.names():
        return _run_of(entry, variables) or _function_of(entry, variables) or entry
    if not isinstance(entry, Mapping) or len(entry) != 1:
        return entry
    ((name, said),) = entry.items()
    if name == "run" and isinstance(said, str):
        return {name: _run_of(said, variables) or said}
    if name == "function" and isinstance(said, str):
        return {name: _function_of(said, variables) or said}
    if name.replace("_", "-") == "prompt-search" and isinstance(said, Mapping) and isinstance(said.get("proposer"), str):
        return {name: {**said, "proposer": _proposer_of(said["proposer"], variables)}}
    if name == "ensemble" and isinstance(said, Mapping):
        return {name: {key: _with_objects({name: value}, variables)[name] if key == "of" else value for key, value in said.items()}}
    if name == "ensemble" and isinstance(said, list):
        return {name: [_with_objects(member, variables) for member in said]}
    return entry


def _run_of(name: str, variables: Mapping[str, Any]) -> Any:
    from nbtune import Run

    thing = variables.get(name.replace("-", "_"))
    return thing if isinstance(thing, Run) else None


def _proposer_of(name: str, variables: Mapping[str, Any]) -> Any:
    """A function, or a model that is bound; else the name, which is a model's."""
    thing = variables.get(name)
    return thing if hasattr(thing, "tokenizer") else _function_of(name, variables) or name


def _function_of(name: str, variables: Mapping[str, Any]) -> Any:
    """A function of the notebook; classes and nbtune's own things are none."""
    thing = variables.get(name)
    return thing if callable(thing) and not isinstance(thing, type) else None
