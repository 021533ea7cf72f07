"""The values that completion offers for an option: choices, names of tasks, runs and models, files and variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import NbtuneError
from nbtune_magics.columns import functions_in
from nbtune_magics.project import state

if TYPE_CHECKING:
    from nbtune.spec import Option, Spec

__all__ = ["approach_names", "approach_spec", "describe_approach", "index_names", "run_names", "values_of"]

_DATA_FILES: Final = (".csv", ".jsonl", ".json", ".parquet")
_FILES_LIMIT: Final = 200


def values_of(option: Option, typed: str, variables: Mapping[str, Any]) -> list[str]:
    """What may stand as a value of `option`; empty where only the user can know."""
    if option.choices:
        return [str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in option.choices]
    if option.kind == "bool":
        return ["true", "false"]
    if option.name == "task":
        return list(reversed(state.tasks))
    if option.name == "run":
        return list(run_names())
    if option.name == "index":
        return list(index_names())
    if option.name == "function":
        return functions_in(variables)
    if option.name in ("model", "proposer"):
        from nbtune.models import CATALOGUE

        return [*CATALOGUE, *_variables(variables, lambda thing: hasattr(thing, "forward"))]
    if option.name == "metric":
        from nbtune.metrics import METRICS

        return [*METRICS, *_variables(variables, lambda thing: callable(thing) and getattr(thing, "__module__", "") == "__main__")]
    if option.name == "data":
        return [*_variables(variables, lambda thing: type(thing).__name__ in ("DataFrame", "Dataset", "DatasetDict")), *_files(typed)]
    return []


def approach_names(*, runs: bool = False) -> list[str]:
    """The approaches that may stand in a body, and `run: ` where runs may stand too."""
    from nbtune import approaches

    return [*(name for name in approaches.names() if name != "run"), *(["run: "] if runs else [])]


def approach_spec(name: str) -> type[Spec] | None:
    """The options of an approach; None for a name that is none."""
    from nbtune import approaches

    try:
        return approaches.get(name).spec
    except NbtuneError:
        return None


def describe_approach(name: str) -> str:
    """One line on an approach."""
    from nbtune import approaches

    return approaches.get(name).summary


def run_names() -> Iterable[str]:
    """The names of the runs there are, the newest first."""
    import nbtune

    return dict.fromkeys(run.name for run in reversed(nbtune.runs()))


def index_names() -> Iterable[str]:
    """The names of the indexes there are."""
    from nbtune.retrieval.indexed import index_names as names

    return names()


def _variables(variables: Mapping[str, Any], fits: Any) -> list[str]:
    return [name for name, thing in variables.items() if not name.startswith("_") and fits(thing)]


def _files(typed: str) -> list[str]:
    folder = typed.rpartition("/")[0]
    root = Path(folder or ".").expanduser()
    if not root.is_dir():
        return []
    prefix = f"{folder}/" if "/" in typed else ""
    found = sorted(path for path in root.iterdir() if not path.name.startswith("."))[:_FILES_LIMIT]
    return [f"{prefix}{path.name}" + ("/" if path.is_dir() else "") for path in found if path.is_dir() or path.suffix in _DATA_FILES]
