"""How options are declared: once, with `option(default, meaning, ...)`; all that is shown or checked about one comes from there."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError, PydanticUndefined

from nbtune.errors import Problem, SpecError, did_you_mean

__all__ = ["SEED_LIMIT", "Kind", "Option", "Scale", "Sizes", "Spec", "Words", "nested", "option", "peak", "unless"]

Scale = Literal["linear", "log"]
Kind = Literal["int", "float", "bool", "choice", "text", "words", "other"]
SEED_LIMIT: Final = 2**32 - 1


def option(
    default: Any = ...,
    meaning: str = "",
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    scale: Scale = "linear",
    slider: tuple[float, float] | None = None,
    aliases: tuple[str, ...] = (),
    group: str = "method",
) -> Any:
    """A field: its default, one line of meaning, bounds, scale, the range a slider shows, and other names it goes by."""
    return Field(
        default,
        description=meaning,
        ge=ge,
        gt=gt,
        le=le,
        lt=lt,
        json_schema_extra={
            "scale": scale,
            "slider": list(slider) if slider else None,
            "aliases": list(aliases),
            "group": group,
        },
    )


def peak(default: float) -> Any:
    """The learning rate of a method, found by its score on dev rows (`make bench B=rates`)."""
    return option(default, "peak learning rate", gt=0, le=1, scale="log", slider=(1e-6, 1e-1), aliases=("lr",), group="training")


@dataclass(frozen=True)
class Option:
    """One field as the front ends see it. `low` and `high` are what a slider spans (None: no slider)."""

    name: str
    kind: Kind
    default: Any
    required: bool
    low: float | None
    high: float | None
    scale: Scale
    choices: tuple[Any, ...]
    optional: bool
    meaning: str
    aliases: tuple[str, ...]
    group: str

    @property
    def flag(self) -> str:
        """How it is written on a magic's line."""
        return "--" + self.name


class Spec(BaseModel):
    """The base of every spec: frozen, strict, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)
    what: ClassVar[str] = "setting"

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """The fields in the order they are declared."""
        return tuple(_option(name, info) for name, info in cls.model_fields.items())

    @classmethod
    def names(cls) -> dict[str, str]:
        """{every name or alias: the field's name}; `-` may stand for `_` in all of them."""
        table: dict[str, str] = {}
        for item in cls.options():
            for name in (item.name, *item.aliases):
                table[name] = item.name
        return table

    @classmethod
    def build(cls, values: Mapping[str, Any], lines: Mapping[str, int] | None = None, *, extra: Iterable[Problem] = ()) -> Self:
        """The spec out of keys (names or aliases) and values; `lines` says where each key stood.

        Raises:
            SpecError: with every problem at once, `extra` (found by the caller) included.
        """
        where = lines or {}
        problems = list(extra)
        table = cls.names()
        fields: dict[str, Any] = {}
        said: dict[str, str] = {}
        for key, value in values.items():
            name = table.get(str(key).replace("-", "_"))
            if name is None:
                hint = did_you_mean(str(key).replace("-", "_"), table)
                problems.append(Problem(f"unknown {cls.what} {str(key)!r}", hint, where.get(key)))
            elif name in fields:
                message = f"{said[name]!r} and {key!r} are the same {cls.what}"
                problems.append(Problem(message, "keep one of them", where.get(key)))
            else:
                fields[name], said[name] = value, key
        try:
            spec = cls.model_validate(fields)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                name = str(item["loc"][0]) if item["loc"] else ""
                line = where.get(said.get(name, name))
                if item["type"] == "nested":
                    problems += [replace(problem, message=f"{name}: {problem.message}", line=line) for problem in item["ctx"]["problems"]]
                    continue
                problems.append(cls._problem(dict(item), name, line))
            raise SpecError.of(problems) from None
        if problems:
            raise SpecError.of(problems)
        return spec

    @classmethod
    def _problem(cls, item: dict[str, Any], name: str, line: int | None) -> Problem:
        known = {entry.name: entry for entry in cls.options()}
        if name not in known:
            return Problem(_plain(item["msg"]), "", line)
        entry = known[name]
        if item["type"] == "missing":
            return Problem(f"{name} is missing", entry.meaning, line)
        context = item.get("ctx", {})
        inner = ".".join(str(part) for part in item["loc"][1:] if isinstance(part, int | str) and str(part) in str(item.get("input", "")))
        label = f"{name}.{inner}" if inner and entry.kind == "other" else name
        value = f"{item.get('input')!r}"[:80]
        if entry.choices:
            choices = ", ".join(str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in entry.choices)
            near = did_you_mean(str(item.get("input")), map(str, entry.choices))
            hint = f"{near} ({choices})" if near.startswith("did") else f"one of: {choices}"
            return Problem(f"{label} cannot be {value}", hint, line)
        bounds = {
            "greater_than": "greater than {gt}",
            "greater_than_equal": "at least {ge}",
            "less_than": "less than {lt}",
            "less_than_equal": "at most {le}",
        }
        if item["type"] in bounds:
            return Problem(f"{label} must be {bounds[item['type']].format(**context)}, not {value}", entry.meaning, line)
        wanted = {"int": "a whole number", "float": "a number", "bool": "true or false", "text": "text", "words": "a list of words"}
        if item["type"] != "value_error" and entry.kind in wanted:
            return Problem(f"{label} must be {wanted[entry.kind]}, not {value}", entry.meaning, line)
        return Problem(f"{label}: {_plain(item['msg'])}", entry.meaning, line)


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")


def nested(spec: type[Spec]) -> BeforeValidator:
    """A mapping becomes a spec of its own; its problems are told with those of the spec that it stands in."""

    def build(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        try:
            return spec.build(value)
        except SpecError as error:
            raise PydanticCustomError("nested", "nested problems", {"problems": error.problems}) from None

    return BeforeValidator(build)


def unless(allowed: Callable[[Mapping[str, Any]], bool]) -> BeforeValidator:
    """The field, whose default is validated, may be left out where the fields declared before it are `allowed`; elsewhere it is missing."""

    def check(given: Any, info: ValidationInfo) -> Any:
        if given is None and not allowed(info.data):
            raise PydanticCustomError("missing", "Field required")
        return given

    return BeforeValidator(check)


def _words(value: Any) -> Any:
    """Lists become tuples; one word stays text and is told apart by the field's type."""
    return tuple(value) if isinstance(value, list) else value


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else _words(value)


Words = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]
"""One word or a list of words."""


def _numbers(value: Any) -> Any:
    """Whole numbers, as a list, alone, or as they stand on a line: 25,50,100."""
    if isinstance(value, str):
        value = [int(word) if word.strip().isdecimal() else word for word in value.split(",")]
    return (value,) if isinstance(value, int) else _words(value)


Sizes = Annotated[tuple[int, ...], BeforeValidator(_numbers)]
"""Whole numbers."""


def _option(name: str, info: Any) -> Option:
    extra: dict[str, Any] = info.json_schema_extra or {}
    inner, optional = _strip_optional(info.annotation)
    choices = _choices(inner)
    low, high = extra.get("slider") or _bounds(info)
    required = info.default is PydanticUndefined
    return Option(
        name=name,
        kind=_kind(inner, choices),
        default=None if required else info.default,
        required=required,
        low=low,
        high=high,
        scale=extra.get("scale", "linear"),
        choices=choices,
        optional=optional,
        meaning=info.description or "",
        aliases=tuple(extra.get("aliases") or ()),
        group=extra.get("group", "method"),
    )


def _bounds(info: Any) -> tuple[float | None, float | None]:
    low = high = None
    for item in info.metadata:
        for side in ("ge", "gt"):
            low = getattr(item, side, low)
        for side in ("le", "lt"):
            high = getattr(item, side, high)
    return low, high


def _strip_optional(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        optional = len(parts) < len(typing.get_args(annotation))
        return (parts[0] if len(parts) == 1 else typing.Union[tuple(parts)]), optional  # noqa: UP007
    return annotation, False


def _choices(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def _kind(annotation: Any, choices: tuple[Any, ...]) -> Kind:
    if choices:
        return "choice"
    if annotation is Words or typing.get_origin(annotation) is tuple:
        return "words"
    kinds: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "text"}
    return kinds.get(annotation, "words" if tuple[str, ...] in typing.get_args(annotation) else "other")
