"""Python objects bound by name: `--data df`, `model: my_model`, `metric: my_score`. Never pasted as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["bound"]


def bound(name: str, value: Any, variables: Mapping[str, Any]) -> Any:
    """`value` of the option `name`, with variables in place of their names where the option takes objects.

    A file, a catalogue's model and a metric of ours win over a variable of the same name; a folder of texts does not.
    """
    resolve = _RESOLVERS.get(name)
    if resolve is None:
        return value
    if isinstance(value, Mapping):
        return {key: resolve(item, variables) for key, item in value.items()}
    return resolve(value, variables)


def _data(value: Any, variables: Mapping[str, Any]) -> Any:
    if not isinstance(value, str) or Path(value).expanduser().is_file():
        return value
    return _variable(value, variables, lambda thing: not callable(thing))


def _model(value: Any, variables: Mapping[str, Any]) -> Any:
    from nbtune.models import CATALOGUE

    if not isinstance(value, str) or value in CATALOGUE or Path(value).expanduser().exists():
        return value
    return _variable(value, variables, lambda thing: hasattr(thing, "model") or hasattr(thing, "forward"))


def _metric(value: Any, variables: Mapping[str, Any]) -> Any:
    from nbtune.metrics import METRICS

    return value if not isinstance(value, str) or value in METRICS else _variable(value, variables, callable)


def _variable(value: Any, variables: Mapping[str, Any], fits: Callable[[Any], bool]) -> Any:
    if not isinstance(value, str) or not value.isidentifier() or value not in variables:
        return value
    return variables[value] if fits(variables[value]) else value


_RESOLVERS: Final[dict[str, Callable[[Any, Mapping[str, Any]], Any]]] = {
    "data": _data,
    "inputs": _data,
    "metric": _metric,
    "model": _model,
    "texts": _data,
}
