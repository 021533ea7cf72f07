"""How a metric is written down so that another process finds it again: by name, or as module and function."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from nbtune.errors import DataError
from nbtune.metrics.scores import METRICS, Kind, Metric, metric_of

__all__ = ["named_metric", "saved_metric"]


def saved_metric(metric: Metric) -> dict[str, str | None]:
    """{"metric_name", "metric_function"}: the function is None for a built-in metric, "" for one of a notebook, else "module:name"."""
    if _built_in(metric):
        return {"metric_name": metric.name, "metric_function": None}
    module = getattr(metric.function, "__module__", "") or ""
    name = getattr(metric.function, "__qualname__", "") or ""
    importable = module not in ("", "__main__") and getattr(inspect.getmodule(metric.function), name, None) is metric.function
    return {"metric_name": metric.name, "metric_function": f"{module}:{name}" if importable else ""}


def named_metric(record: Mapping[str, Any], kind: Kind) -> Metric:
    """The metric that `saved_metric` wrote down; a function that is not to be found fails when it is used, saying so."""
    function = record["metric_function"]
    if function is None:
        return metric_of(record["metric_name"], kind)
    found = _found(function)
    return Metric(record["metric_name"], binary=False, function=found or _Absent(record["metric_name"], function).score)


def _built_in(metric: Metric) -> bool:
    return metric.name in METRICS and any(metric == metric_of(metric.name, kind) for kind in METRICS[metric.name])


def _found(function: str) -> Any:
    module, _, name = function.partition(":")
    if not module:
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    return found if callable(found) else None


class _Absent:
    """Stands for a function that lived in another process."""

    def __init__(self, name: str, function: str) -> None:
        self.name = name
        self.function = function

    def score(self, _output: str, _expected: str) -> float:
        where = f"{self.function} cannot be imported" if self.function else "it was defined in a notebook"
        msg = f"the metric {self.name!r} is not there: {where}"
        raise DataError(msg, hint="open the task with metric=FUNCTION, or put the function into a module that can be imported")
