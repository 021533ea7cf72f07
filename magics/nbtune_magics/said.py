"""From a call to a spec: names given by `--as`, variables in place of their names, and every problem told at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from nbtune.errors import NbtuneError, Problem, SpecError
from nbtune_magics.output import check_name
from nbtune_magics.project import state
from nbtune_magics.variables import bound

if TYPE_CHECKING:
    from nbtune import Task
    from nbtune.spec import Spec
    from nbtune_magics.magic import Call

__all__ = ["Said", "no_more_words", "said", "said_of_task"]

S = TypeVar("S", bound="Spec")


@dataclass(frozen=True)
class Said:
    """What a call says: the checked spec, the options that were given (Python objects in place), and the name of `--as`."""

    spec: Any
    given: dict[str, Any]
    name: str | None


def said(call: Call, spec_type: type[Spec], *, problems: Sequence[Problem] = (), **more: Any) -> Said:
    """The checked spec of `call`; `more` are values that the magic itself adds, `problems` what it has found.

    Raises:
        SpecError: with every problem of line, body and names at once.
    """
    problems = [*call.problems, *problems]
    values = {**call.values, **more}
    lines = dict(call.lines)
    name = _name(call, values, problems)
    if name is not None and "name" in spec_type.model_fields:
        values["name"] = name
    variables = call.shell.user_ns
    table = spec_type.names()
    objects = {table[key]: bound(table[key], value, variables) for key, value in _known(values, table).items()}
    _check_model(objects.get("model"), problems, next((lines.get(key) for key in values if table.get(_plain(key)) == "model"), None))
    checked = {key: _checkable(table.get(_plain(key)), objects, value) for key, value in values.items()}
    spec = spec_type.build(checked, lines, extra=problems)
    given = {key: value for key, value in objects.items() if key != "task"}
    chosen = {key: given[key] if _is_object(given[key]) else getattr(spec, key) for key in given}
    return Said(spec=spec, given=chosen, name=name)


def said_of_task(call: Call, spec_type: type[Spec], *, problems: Sequence[Problem] = (), **more: Any) -> tuple[Said, Task]:
    """The same, and the task that the call names; without a name the only task there is.

    Raises:
        SpecError: as `said`, an unknown task among the problems.
    """
    try:
        task = state.task(str(call.values.get("task", "")), call.shell.user_ns)
    except SpecError as error:
        missing = Problem(error.message, error.hint, call.lines.get("task", 1))
        said(call, spec_type, problems=[*problems, missing], **more)
        raise
    return said(call, spec_type, problems=problems, **more), task


def no_more_words(call: Call, number: int, hint: str) -> Call:
    """The call, with a problem for each word beyond the first `number`."""
    extra = [Problem(f"unexpected word {word!r}", hint, 1) for word in call.words[number:]]
    return replace(call, problems=(*call.problems, *extra))


def _plain(key: str) -> str:
    return str(key).replace("-", "_")


def _known(values: dict[str, Any], table: dict[str, str]) -> dict[str, Any]:
    return {_plain(key): value for key, value in values.items() if _plain(key) in table}


def _is_object(value: Any) -> bool:
    """Whether a value is a Python object that a cell's text could not have said."""
    if isinstance(value, dict):
        return any(_is_object(item) for item in value.values())
    return value is not None and not isinstance(value, str | int | float | list | tuple)


def _checkable(name: str | None, objects: dict[str, Any], value: Any) -> Any:
    """The value a spec checks: a bound model stays its name there, because the spec is written to disk."""
    return value if name is None or name == "model" else objects.get(name, value)


def _name(call: Call, values: dict[str, Any], problems: list[Problem]) -> str | None:
    """The name given by `--as`; None without."""
    name = call.own.get("as")
    if name is None:
        return None
    try:
        check_name(name)
    except SpecError as error:
        problems.append(Problem(error.message, error.hint, 1))
        return None
    if values.get("name") not in (None, name):
        problems.append(Problem(f"--as says {name!r} and name says {values['name']!r}", "keep one of them", 1))
    return str(name)


def _check_model(model: Any, problems: list[Problem], line: int | None) -> None:
    """A model that cannot be is told with the other problems; nothing is opened for it."""
    if not isinstance(model, str) or not model:
        return
    from nbtune.models.loading import source_of

    try:
        source_of(model)
    except NbtuneError as error:
        problems.append(Problem(error.message, error.hint, line))
