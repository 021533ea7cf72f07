"""A task: data, templates, split and metric, as examples ready for any model. Knows no tokenizer and loads no model."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from nbtune.data.conversations import asked
from nbtune.data.examples import Example
from nbtune.data.instructions import FORMAT, Instruction
from nbtune.data.pairs import Pair
from nbtune.data.preparation import Prepared, prepare
from nbtune.data.rows import plain_value
from nbtune.data.tables import read_examples, write_examples, write_whole
from nbtune.data.tags import words_of
from nbtune.data.templates import Template
from nbtune.errors import DataError
from nbtune.metrics.naming import named_metric, saved_metric
from nbtune.metrics.scores import METRICS, Metric, metric_of
from nbtune.metrics.several import labels_in
from nbtune.spec import SplitSpec, TaskSpec

__all__ = ["Example", "Task", "TaskPreview"]

_FORMAT = 1


@dataclass(frozen=True)
class TaskPreview:
    """What a task shows before anything is loaded; all texts come from the data and are untrusted.

    `counts` is {part: rows}, `label_counts` {label: {part: rows}}, `examples` two rows as (prompt, completion), of
    texts ("", text).
    """

    name: str
    kind: str
    metric: str
    counts: Mapping[str, int]
    label_counts: Mapping[str, Mapping[str, int]]
    examples: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


class Task:
    """What to learn: rows divided into `train`, `dev` and `test`, each with its prompt and completion. Never changes.

    Args are the keys of `%%task`; `folder` is what relative paths in `data` are relative to (left out: the working folder).

    Raises:
        SpecError: a key or value that cannot be.
        DataError: data, templates or a split that cannot be used.
    """

    def __init__(
        self,
        *,
        data: Any,
        prompt: str | None = None,
        text_pair: str | None = None,
        completion: str | None = None,
        name: str = "task",
        kind: Literal["generation", "classification", "multi-label", "regression", "pairs", "tagging", "text"] | None = None,
        metric: Any = None,
        chat: Literal["auto"] | bool = "auto",
        labels: Iterable[str] | None = None,
        split: Mapping[str, Any] | SplitSpec | None = None,
        format: str = "auto",  # noqa: A002  the key of %%task
        system: str | None = None,
        folder: Path | None = None,
    ) -> None:
        values: dict[str, Any] = {
            "name": name,
            "kind": kind,
            "data": data,
            "prompt": prompt,
            "text_pair": text_pair,
            "completion": completion,
            "metric": metric,
            "format": format,
        }
        values |= {"chat": chat, "system": system, "labels": list(labels) if labels is not None and not isinstance(labels, str) else labels}
        if split is not None:
            values["split"] = split
        self._fill(TaskSpec.build(values), folder)

    @classmethod
    def from_spec(cls, spec: TaskSpec, folder: Path | None = None) -> Self:
        """The task of a spec.

        Raises:
            DataError: as the constructor.
        """
        task = cls.__new__(cls)
        task._fill(spec, folder)  # noqa: SLF001  # our own, made above
        return task

    @classmethod
    def of(cls, prepared: Prepared) -> Self:
        """The task of rows that are divided already.

        Raises:
            SpecError: a metric that is not for its kind.
        """
        task = cls.__new__(cls)
        task._hold(prepared.spec, prepared, metric_of(prepared.spec.metric, prepared.kind))  # noqa: SLF001  our own, made above
        return task

    def _fill(self, spec: TaskSpec, folder: Path | None) -> None:
        if isinstance(spec.metric, str):  # a misspelt name is said before any data is read
            kind = "classification" if spec.kind == "pairs" else spec.kind
            metric_of(spec.metric, kind or METRICS.get(spec.metric, ("generation",))[0])
        prepared = prepare(spec, folder)
        metric = "rougeL" if spec.metric is None and prepared.spec.format == "messages" else spec.metric
        self._hold(prepared.spec, prepared, metric_of(metric, prepared.kind, tuple(prepared.completion_of)))

    def _hold(self, spec: TaskSpec, prepared: Prepared, metric: Metric) -> None:
        self.spec = spec
        self.name = spec.name
        self.kind = prepared.kind
        self.metric = metric
        self.train, self.dev, self.test = prepared.train, prepared.dev, prepared.test
        self.completion_of: Mapping[str, str] = prepared.completion_of
        self.labels: tuple[str, ...] = tuple(prepared.completion_of)
        self.notes, self.warnings = prepared.notes, prepared.warnings
        self.system = spec.system
        self.chat = spec.chat
        self._prompt = Template(str(spec.prompt))
        self._second = None if spec.text_pair is None else Template(spec.text_pair)

    def __repr__(self) -> str:
        labels = f", {len(self.labels)} labels" if self.labels else ""
        rows = f"{len(self.train)} train + {len(self.dev)} dev + {len(self.test)} test rows"
        return f"Task({self.name!r}, {self.kind}{labels}, {rows}, {self.metric.name})"

    @property
    def uses_chat(self) -> bool:
        """Whether prompts go through the model's chat template; "auto": where a system text is given, or rows are conversations."""
        return self.system is not None or self._talks if self.chat == "auto" else bool(self.chat)

    @property
    def mixes(self) -> bool:
        """Whether it is one of instructions: rows name their set, and say whether it is held out and whether they are turned round."""
        return self.spec.format == FORMAT

    def is_held_out(self, item: Example) -> bool:
        """Whether the example's set is trained nowhere."""
        return self.mixes and item.row["held_out"] is True

    @property
    def asked(self) -> tuple[Example, ...]:
        """The training rows that ask for an answer: of instructions those that are not turned round, where there are any."""
        return tuple(item for item in self.train if not (self.mixes and item.row["turned"] is True)) or self.train

    @property
    def head_labels(self) -> tuple[str, ...]:
        """What each output of a head for this task stands for: its labels, or "number"; of a task of texts nothing."""
        return ("number",) if self.kind == "regression" else self.labels

    @property
    def _talks(self) -> bool:
        return self.spec.format == "messages"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides what is learned and asked: kind, templates, chat, labels, and the rows of each part."""
        parts = {part: [item.key for item in items] for part, items in self._parts().items()}
        said = [self.kind, self.spec.prompt, self.spec.completion, self.system, self.chat, dict(self.completion_of), parts]
        said += [self.spec.text_pair] if self._second is not None else []
        return hashlib.sha256(json.dumps(said, ensure_ascii=True).encode()).hexdigest()

    def render(self, row: Mapping[str, Any] | str) -> str:
        """The prompt of a new row; a text is the value of the one column that the prompt reads.

        Raises:
            DataError: a column is lacking, a value is None, the prompt comes out empty, a text where the prompt reads several columns.
        """
        if isinstance(row, str) and self._talks:
            row = {"messages": [{"role": "user", "content": row}]}
        if isinstance(row, str):
            read = tuple(dict.fromkeys((*self._prompt.fields, *(self._second.fields if self._second is not None else ()))))
            if len(read) != 1:
                msg = f"the prompt reads {len(read)} columns ({', '.join(read)}), one text cannot fill them"
                raise DataError(msg, hint="give a dict of column and value")
            row = {read[0]: row}
        elif not isinstance(row, Mapping):
            msg = f"a row is a dict or a text, not {type(row).__name__}"
            raise DataError(msg, hint='for instance {"text": "..."}')
        if self._talks:
            return asked(row)
        if self.kind == "tagging":
            return " ".join(words_of(row, self._prompt, "a row"))
        plain = {str(name): plain_value(value) for name, value in row.items()}
        text = self._prompt.render(plain)
        if not text.strip():
            msg = f"the prompt of {str(dict(row))[:80]} is empty or white space only"
            raise DataError(msg, hint="fill the columns that the prompt reads")
        if self.mixes and plain.get("set") is not None:
            return Instruction.of(text, str(plain["set"]))
        return text if self._second is None else Pair.of(text, self._second.render(plain))

    def prompts(self, rows: Iterable[Mapping[str, Any] | str]) -> list[str]:
        """The prompts of new rows (texts, dicts, or a DataFrame).

        Raises:
            DataError: as `render`; says which row, from 1.
        """
        if isinstance(rows, str | Mapping):
            msg = "prompts takes a list of rows, this is one"
            raise DataError(msg, hint="put it in a list, or use render")
        if hasattr(rows, "iloc"):
            from nbtune.data.readers import read

            rows = read(rows)["all"]
        rendered: list[str] = []
        for number, row in enumerate(rows, start=1):
            try:
                rendered.append(self.render(row))
            except DataError as error:
                raise DataError(f"row {number}: {error.message}", hint=error.hint) from None
        return rendered

    def preview(self) -> TaskPreview:
        """What there is to see without a model."""
        parts = self._parts()
        counted = {part: self.label_counts(items) for part, items in parts.items()}
        return TaskPreview(
            name=self.name,
            kind=self.kind,
            metric=self.metric.name,
            counts={part: len(items) for part, items in parts.items()},
            label_counts={label: {part: counts[label] for part, counts in counted.items()} for label in self.labels},
            examples=tuple(("", item.prompt) if self.kind == "text" else (item.prompt, item.completion) for item in self.train[:2]),
            notes=self.notes,
            warnings=self.warnings,
        )

    def label_counts(self, items: Sequence[Example]) -> Counter[str]:
        """How often each label stands in these rows; of tagging, how many words have each tag."""
        if self.kind == "tagging":
            return Counter(tag for item in items for tag in item.completion.split(" "))
        if self.kind == "multi-label":
            return Counter(label for item in items for label in labels_in(item.completion))
        return Counter(item.label for item in items if item.label is not None)

    def save(self, folder: Path) -> None:
        """Writes data.parquet and then task.json, each whole, from which `open` makes the task again without its data."""
        write_examples(folder / "data.parquet", [item for items in self._parts().values() for item in items])
        metric = saved_metric(self.metric)
        spec = self.spec.model_dump(mode="python", exclude={"data", "metric"}) | {
            "kind": self.kind,
            "data": self.spec.data if isinstance(self.spec.data, str) else "data.parquet",
            "metric": metric["metric_name"] if metric["metric_function"] is None else None,
        }
        record = {
            "format": _FORMAT,
            "spec": spec,
            **metric,
            "completion_of": dict(self.completion_of),
            "notes": self.notes,
            "warnings": self.warnings,
            "fingerprint": self.fingerprint,
        }
        write_whole(folder / "task.json", json.dumps(record, ensure_ascii=False, indent=1).encode())

    @classmethod
    def open(cls, folder: Path, *, metric: Any = None) -> Self:
        """The task that `save` wrote; `metric` stands in for a function that lived in a notebook.

        A metric function is imported by module and name. One that cannot be is an error only when the metric is used.

        Raises:
            DataError: the folder holds no task, or another one than was saved.
        """
        record = _record(Path(folder) / "task.json")
        try:
            spec = TaskSpec.build(record["spec"])
            found = metric_of(metric, record["spec"]["kind"]) if metric is not None else named_metric(record, record["spec"]["kind"])
            completion_of, notes, warnings = dict(record["completion_of"]), tuple(record["notes"]), tuple(record["warnings"])
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{folder}/task.json lacks {error}"
            raise DataError(msg, hint="save the task again") from None
        examples = read_examples(Path(folder) / "data.parquet")
        if spec.format == "messages":
            examples = tuple(replace(item, prompt=asked(item.row)) for item in examples)
        if spec.format == FORMAT:
            examples = tuple(replace(item, prompt=Instruction.of(item.prompt, str(item.row["set"]))) for item in examples)
        if spec.text_pair is not None:
            second = Template(spec.text_pair)
            examples = tuple(replace(item, prompt=_pair_again(item, second)) for item in examples)
        train, dev, test = (tuple(item for item in examples if item.split == part) for part in ("train", "dev", "test"))
        task = cls.__new__(cls)
        prepared = Prepared(spec, record["spec"]["kind"], train, dev, test, completion_of, notes, warnings)
        task._hold(spec, prepared, found)  # noqa: SLF001  # our own, made above
        if task.fingerprint != record.get("fingerprint"):
            msg = f"{folder} holds other rows than were saved"
            raise DataError(msg, hint="task.json and data.parquet belong together; save the task again")
        return task

    def _parts(self) -> dict[str, tuple[Example, ...]]:
        return {"train": self.train, "dev": self.dev, "test": self.test}


def _pair_again(item: Example, second: Template) -> Pair:
    """The prompt as the pair that it was written from."""
    text = second.render(item.row)
    return Pair.of(item.prompt.removesuffix(f"\n{text}"), text)


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"{path.parent} holds no task"
        raise DataError(msg, hint="name a folder that Task.save wrote") from None
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {error}"
        raise DataError(msg, hint="save the task again") from None
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        msg = f"{path} was written by another version of nbtune"
        raise DataError(msg, hint="make the task again from its data")
    return record
