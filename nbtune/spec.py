"""All that a user can say, as frozen pydantic models: the one source of flags, keys, help, completion and sliders.

A field is declared once with `option(default, meaning, ...)`; everything that is shown or checked about it comes from there.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError, PydanticUndefined

from nbtune.errors import Problem, SpecError, did_you_mean

__all__ = [
    "CompareSpec",
    "DecodingSpec",
    "FinetuneSpec",
    "Option",
    "Spec",
    "SplitSpec",
    "TaskSpec",
    "Words",
    "option",
]

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


def _nested(spec: type[Spec]) -> BeforeValidator:
    """A mapping becomes a spec of its own; its problems are told with those of the spec that it stands in."""

    def build(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        try:
            return spec.build(value)
        except SpecError as error:
            raise PydanticCustomError("nested", "nested problems", {"problems": error.problems}) from None

    return BeforeValidator(build)


def _words(value: Any) -> Any:
    """Lists become tuples; one word stays text and is told apart by the field's type."""
    return tuple(value) if isinstance(value, list) else value


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else _words(value)


Words = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]
"""One word or a list of words."""


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


class SplitSpec(Spec):
    """How rows are divided when the data does not say; the parts are fractions of all rows."""

    what: ClassVar[str] = "split key"

    dev: float = option(0.1, "fraction of the rows held out for tuning", ge=0, lt=1)
    test: float = option(0.2, "fraction of the rows held out for comparing", ge=0, lt=1)
    seed: int = option(0, "seed of the split", ge=0, le=SEED_LIMIT)


class TaskSpec(Spec):
    """`%%task`: what to learn."""

    what: ClassVar[str] = "task key"

    name: str = option("task", "name of the task")
    kind: Literal["generation", "classification"] | None = option(
        None, "what the answer is; left out: classification where few distinct answers repeat, else generation"
    )
    data: Any = option(..., "path (csv, jsonl, json, parquet), a bound DataFrame, list or Dataset, or {train:, dev:, test:} of these")
    prompt: str = option(..., "template of the input, with {{ column }}")
    completion: str = option(..., "template of the answer to learn, with {{ column }}; most models want it to start with a space")
    labels: Words | None = option(None, "the classes, where the data does not show them all (as completions without outer spaces)")
    metric: Any = option(None, "accuracy, macro_f1, exact_match, rouge1, rouge2, rougeL, or a bound function (output, expected) -> number")
    split: Annotated[SplitSpec, _nested(SplitSpec)] = option(SplitSpec(), "{dev: 0.1, test: 0.2, seed: 0}")
    chat: Literal["auto", True, False] = option("auto", "use the model's chat template; auto: where a system text is given")
    system: str | None = option(None, "system text of the chat template")


class DecodingSpec(Spec):
    """How answers are generated: greedily; one spec for a whole grid."""

    what: ClassVar[str] = "decoding key"

    max_new_tokens: int | None = option(None, "most tokens of an answer; left out: the longest training answer and a half", ge=1, le=8192)
    stop: Words | None = option(None, "texts that end an answer; left out: a line break, where no training answer holds one")


class FinetuneSpec(Spec):
    """What every `%%finetune` understands; a method's own spec adds its options to these.

    Defaults follow transformers' `TrainingArguments` but where a notebook's first run on few rows needs others.
    """

    what: ClassVar[str] = "option"

    task: str = option("", "name of the task", group="run")
    model: str = option("", "catalogue name, folder, hub id, or a bound model", aliases=("model_name_or_path", "base_model"), group="run")
    quantization: Literal["nf4", "fp4", "int8"] | None = option(None, "hold the base in 4 or 8 bits", group="run")
    dtype: Literal["float32", "bfloat16", "float16"] | None = option(
        None, "number format of the base; left out: bfloat16 where the device is fast at it", aliases=("torch_dtype",), group="run"
    )
    device: str | None = option(None, "cpu, cuda, cuda:1, mps; left out: the best there is", group="run")
    name: str | None = option(None, "name of the run", group="run")
    objective: Literal["sft"] = option("sft", "what the loss is", group="run")
    seed: int = option(0, "seed of everything random", ge=0, le=SEED_LIMIT, slider=(0, 20), group="training")

    learning_rate: float = option(
        1e-3, "peak learning rate", gt=0, le=1, scale="log", slider=(1e-6, 1e-1), aliases=("lr",), group="training"
    )
    num_train_epochs: float = option(
        2.0, "passes over the training rows", gt=0, le=1000, slider=(0.5, 10), aliases=("epochs", "num_epochs"), group="training"
    )
    max_steps: int | None = option(None, "optimizer steps in all, whatever the epochs", ge=1, slider=(1, 1000), group="training")
    per_device_train_batch_size: int = option(
        8,
        "rows that go through the model at once",
        ge=1,
        le=4096,
        scale="log",
        slider=(1, 64),
        aliases=("micro_batch_size", "batch_size", "train_batch_size"),
        group="training",
    )
    gradient_accumulation_steps: int = option(
        1, "batches of rows to an optimizer step", ge=1, le=4096, scale="log", slider=(1, 32), aliases=("grad_accum",), group="training"
    )
    max_length: int = option(
        512,
        "most tokens of a row",
        ge=8,
        scale="log",
        slider=(32, 4096),
        aliases=("max_seq_length", "cutoff_len", "max_seq_len"),
        group="training",
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = option(
        "cosine", "course of the learning rate after the warm-up", aliases=("lr_scheduler", "scheduler"), group="training"
    )
    warmup_ratio: float = option(0.05, "part of the steps in which the learning rate rises", ge=0, le=1, group="training")
    weight_decay: float = option(0.0, "AdamW's decay of the trained matrices", ge=0, le=10, slider=(0, 0.3), group="training")
    max_grad_norm: float = option(
        1.0, "gradients longer than this are shortened; 0: never", ge=0, slider=(0, 5), aliases=("gradient_clipping",), group="training"
    )
    gradient_checkpointing: bool = option(False, "compute activations twice to save memory", group="training")
    packing: Literal["auto", True, False] = option("auto", "put the rows of a batch end to end instead of padding them", group="training")
    eval_steps: int | None = option(
        None,
        "steps between looks at the dev rows; left out: four times a run",
        ge=1,
        slider=(1, 200),
        aliases=("eval_every",),
        group="training",
    )
    save_steps: int | None = option(
        None, "steps between checkpoints; left out: with each look at the dev rows", ge=1, slider=(1, 500), group="training"
    )
    save_total_limit: int = option(2, "checkpoints kept", ge=1, le=1000, slider=(1, 10), group="training")
    num_samples: int = option(2, "dev rows answered in full at each look", ge=0, le=20, group="training")
    max_eval_rows: int = option(64, "most dev rows in a look during training", ge=1, scale="log", slider=(8, 1024), group="training")

    @property
    def step_rows(self) -> int:
        """Rows of one optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


class CompareSpec(Spec):
    """`%%compare`: the columns of the grid, and how all of them are asked."""

    what: ClassVar[str] = "comparison key"

    task: str = option("", "name of the task")
    approaches: Any = option((), "list of zero-shot, few-shot: {k: 8}, run: NAME")
    model: str | None = option(None, "base of the prompting columns; left out: that of the runs named")
    dtype: Literal["float32", "bfloat16", "float16"] | None = option(None, "number format of the base", aliases=("torch_dtype",))
    device: str | None = option(None, "cpu, cuda, cuda:1, mps; left out: the best there is")
    scoring: Literal["sum", "mean", "generate"] = option(
        "sum", "classification by the summed or the mean log-probability of each label's tokens, or by generating"
    )
    decoding: Annotated[DecodingSpec, _nested(DecodingSpec)] = option(DecodingSpec(), "{max_new_tokens: 20, stop: [...]}")
    inputs: Any = option(None, "texts (or rows) without answers, compared by eye only")
    name: str | None = option(None, "name of the comparison")
