"""Approaches as they are said in a body: names, `name: {options}`, `run: NAME`, and variables that hold a run or a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nbtune import approaches
from nbtune.errors import NbtuneError, Problem, did_you_mean

__all__ = ["checked", "functions_in"]


def checked(entries: Sequence[tuple[Any, int | None]], variables: Mapping[str, Any]) -> tuple[list[Any], list[Problem]]:
    """(the entries, runs and functions bound to variables in their place, what is wrong with any); each comes with its line of the cell."""
    found: list[Any] = []
    problems: list[Problem] = []
    for entry, line in entries:
        resolved = _with_objects(entry, variables)
        problems += [Problem(item.message, item.hint, line) for item in _problems(resolved, variables)]
        found.append(resolved)
    return found, problems


def functions_in(variables: Mapping[str, Any]) -> list[str]:
    """The names of the functions that a notebook has defined."""
    return [name for name, thing in variables.items() if not name.startswith("_") and _is_function(thing) and _is_own(thing)]


def _problems(entry: Any, variables: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with an entry, or with those within it."""
    try:
        name, options = approaches.wanted(entry)
        if name == "run":
            _find(options)
        if name == "retrieval":
            _find_index(options)
        if name == "function" and not callable(options.function):
            known = functions_in(variables)
            hint = did_you_mean(str(options.function), known) if known else "define it in a cell before: def NAME(prompt): return ..."
            return [Problem(f"there is no function {options.function!r:.60} in this notebook", hint)]
        inner = options.of if name == "ensemble" else [options.prompt] if name == "run" and options.prompt is not None else []
        found = [problem for member in (inner if isinstance(inner, list) else []) for problem in _problems(member, variables)]
        if not found:
            approaches.label_of(name, options)  # refuses an ensemble that is none
    except NbtuneError as error:
        return list(getattr(error, "problems", None) or [Problem(error.message, error.hint)])
    return found


def _find(options: Any) -> None:
    from nbtune.approaches.tuned import run_named

    run_named(options)


def _find_index(options: Any) -> None:
    from nbtune.approaches.retrieval import index_named

    index_named(options)


def _with_objects(entry: Any, variables: Mapping[str, Any]) -> Any:
    """An entry with runs and functions of the notebook in the place of their names."""
    if isinstance(entry, str) and entry.replace("_", "-") not in approaches.names():
        return _run_of(entry, variables) or _function_of(entry, variables) or entry
    if not isinstance(entry, Mapping) or len(entry) != 1:
        return entry
    ((name, said),) = entry.items()
    if isinstance(said, Mapping):
        return {name: {key: _option_with_objects(str(name), key, value, variables) for key, value in said.items()}}
    return {name: _option_with_objects(str(name), approaches.short_option(str(name)), said, variables)}


def _option_with_objects(name: str, key: Any, value: Any, variables: Mapping[str, Any]) -> Any:
    if name == "run" and key in ("run", "name") and isinstance(value, str):
        return _run_of(value, variables) or value
    if name == "run" and key == "prompt":
        return _with_objects(value, variables)
    if name == "function" and isinstance(value, str):
        return _function_of(value, variables) or value
    if name.replace("_", "-") == "prompt-search" and key == "proposer" and isinstance(value, str):
        return _proposer_of(value, variables)
    if name == "ensemble" and isinstance(value, list):
        return [_with_objects(member, variables) for member in value]
    return value


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
    return thing if _is_function(thing) else None


def _is_function(thing: Any) -> bool:
    return callable(thing) and not isinstance(thing, type)


def _is_own(thing: Any) -> bool:
    return getattr(thing, "__module__", "") == "__main__"
