"""The learning curve: what each column would score if there were fewer training rows, on the same test rows.

The rows of each size are all among those of the next one (as in scikit-learn's `learning_curve`), drawn by seed and evenly over the labels.
What chooses examples or is fitted does so from them alone, and runs are trained again on them by their own spec.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from nbtune.approaches import approach_of, wanted
from nbtune.compare.retraining import trained_on
from nbtune.compare.scoring import Column, paired
from nbtune.compare.verdict import curve_verdict
from nbtune.errors import NbtuneError, RunError, SpecError
from nbtune.inference.progress import counted

if TYPE_CHECKING:
    from nbtune.approaches.base import Answers, Approach, Asking, Setting
    from nbtune.metrics.scores import Metric
    from nbtune.task import Example, Task

__all__ = ["Learning", "learning_curve", "nested", "refuse_sizes"]

ONCE: Final = 0
"""The size of what takes nothing from the training rows."""
Report = Callable[[str], None]
Full = Mapping[str, "tuple[Approach, Answers]"]


@dataclass(frozen=True)
class Learning:
    """Records of `Comparison.curve`, what follows from them, and what kept a column from a size."""

    points: tuple[dict[str, Any], ...] = ()
    verdict: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Point:
    """A column at a size."""

    label: str
    size: int
    column: Column
    run: str | None


def refuse_sizes(task: Task, sizes: Sequence[int], *, inputs: bool) -> None:
    """Refuses sizes of which there is no curve, before anything is loaded.

    Raises:
        SpecError: fewer than two, not increasing, more than there are training rows, fewer than labels; or inputs without answers.
    """
    said, rows, labels = ", ".join(map(str, sizes)), len(task.train), len({item.label for item in task.train})
    if inputs:
        raise SpecError("train_sizes makes a curve of scores, and inputs have no answers to score by", hint="leave one of the two out")
    if len(sizes) < 2:  # noqa: PLR2004
        raise SpecError(f"train_sizes is {said or 'empty'}, and a curve has two points at least", hint="name two sizes or more: 25,50,100")
    if any(b <= a for a, b in pairwise(sizes)):
        raise SpecError(f"train_sizes is {said}, which does not increase", hint=f"write {','.join(map(str, sorted(set(sizes))))}")
    if sizes[-1] > rows:
        raise SpecError(f"train_sizes has {sizes[-1]}, and there are {rows} training rows", hint=f"use at most {rows}")
    if sizes[0] < labels:
        message = f"train_sizes has {sizes[0]}, and {labels} {'labels' if labels > 1 else 'row'} have to be shown"
        raise SpecError(message, hint=f"use at least {labels}")


def nested(task: Task) -> list[Example]:
    """The training rows in an order of which every beginning holds the labels in nearly their shares, each label from the first on."""
    groups: dict[str, list[Example]] = {}
    for item in sorted(task.train, key=lambda item: (item.key, item.index)):
        groups.setdefault(str(item.row["set"]) if task.mixes else item.label or "", []).append(item)
    draw = random.Random(f"train-sizes:{task.spec.split.seed}")
    placed = []
    for tie, items in enumerate(draw.sample(list(groups.values()), len(groups))):
        draw.shuffle(items)
        placed += [(place / len(items), tie, item) for place, item in enumerate(items)]
    return [item for _, _, item in sorted(placed, key=lambda each: each[:2])]


def learning_curve(
    columns: Sequence[tuple[Any, Setting, str]], task: Task, sizes: Sequence[int], *, full: Full, asking: Asking, report: Report
) -> Learning:
    """The curve of columns (entry, the base it asks, label).

    `full` are {label: (approach, answers)} of the grid, whose columns learn from all training rows: its last points.
    """
    order, points, warnings = nested(task), list[_Point](), list[str]()
    prompts, expected = [item.question for item in task.test], [item.expected for item in task.test]

    def add(size: int, approach: Approach, answers: Answers, label: str) -> None:
        points.append(_Point(label, size, Column.of(task.metric, approach, answers, expected), approach.run_id))

    known = [column for column in columns if column[-1] in full]
    for _, _, label in (column for column in known if not learns(column[0])):
        add(ONCE, *full[label], label)
    known = [column for column in known if learns(column[0])]
    for size in [size for size in sizes if size < len(task.train)]:
        part = task.with_train(sorted(order[:size], key=lambda item: item.index))
        for entry, setting, label in known:
            try:
                report(f"{size} training rows: preparing {label}")
                approach = approach_of(_at(entry, task, part, report), part, setting, label)
                answers = approach.answer(prompts, asking, progress=counted(report, f"{size} training rows: {label}"))
            except NbtuneError as error:
                warnings.append(f"learning curve at {size} training rows: {label} is left out: {'; '.join(str(error).splitlines())}")
                continue
            add(size, approach, answers, label)
            _let_go(approach)
    for _, _, label in known:
        if any(point.label == label for point in points):
            add(len(task.train), *full[label], label)
    report("computing intervals and tests of the learning curve")
    records = tuple(_record(point) for point in points)
    note = (
        f"learning curve: the rows of each size are among those of the next, drawn evenly over labels; the {len(task.dev)} dev rows are "
        f"the same for all; the last points, of {len(task.train)} rows, are the grid's own columns"
    )
    pairs = _pairs(points, task.metric, expected)
    return Learning(records, curve_verdict(records, pairs, task.metric), (note,), tuple(warnings))


def learns(entry: Any) -> bool:
    """Whether an approach takes anything from the training rows that fewer of them would change."""
    name, options = wanted(entry)
    if name == "function":
        return False
    if name == "ensemble":
        return any(learns(member) for member in options.of)
    if name in ("zero-shot", "few-shot") and not options.calibrate:
        return name == "few-shot" and options.select != "fixed"
    return True


def _at(entry: Any, task: Task, part: Task, report: Report) -> Any:
    """The entry with its runs trained again on a part of the training rows.

    Raises:
        NbtuneError: a run cannot be.
    """
    from nbtune.approaches.tuned import run_named

    name, options = wanted(entry)
    if name == "few-shot" and options.select == "fixed":
        message = f"its examples, rows {', '.join(map(str, options.rows))}, are numbered in all training rows, and are others in fewer"
        raise SpecError(message, hint="use select: balanced")
    if name == "run":
        if options.prompt is not None:
            _at(options.prompt, task, part, report)
        if options.step is not None:
            message = f"run {run_named(options).name} is asked as it was after step {options.step}, which fewer rows reach elsewhere"
            raise RunError(message, hint="compare the run as it ended")
        return {"run": {**_said(options), "run": trained_on(part, run_named(options), task, report)}}
    if name == "ensemble":
        return {"ensemble": {**_said(options), "of": [_at(member, task, part, report) for member in options.of]}}
    return entry


def _said(options: Any) -> dict[str, Any]:
    """The options that are not as they would be anyway."""
    return {item.name: value for item in options.options() if (value := getattr(options, item.name)) != item.default}


def _let_go(approach: Approach) -> None:
    """Forgets a model that was trained for one point alone, where it is a copy of its own."""
    from nbtune.models.shared import forget_own

    if approach.run_id is not None:
        forget_own(approach.run_id)


def _record(point: _Point) -> dict[str, Any]:
    column = point.column
    return {
        "approach": point.label,
        "train_rows": point.size,
        "score": column.score,
        "ci_low": column.low,
        "ci_high": column.high,
        "seconds": column.answers.seconds,
        "train_seconds": column.approach.cost.train_seconds,
        "kind": column.approach.kind,
        "run": point.run,
    }


def _pairs(points: Sequence[_Point], metric: Metric, expected: Sequence[str]) -> list[dict[str, Any]]:
    """Tuned against prompting at each size, and each column against itself with the size before."""
    sizes = sorted({point.size for point in points} - {ONCE})
    wanted_pairs = [
        (tuned, prompted)
        for size in sizes
        for tuned in points
        if tuned.size == size and tuned.column.approach.kind == "tuned"
        for prompted in points
        if prompted.size in (size, ONCE) and prompted.column.approach.kind == "prompting"
    ]
    last = {point.label: point for point in points if sizes and point.size == sizes[-1] and point.column.approach.kind != "floor"}
    before = {point.label: point for point in points if len(sizes) > 1 and point.size == sizes[-2]}
    wanted_pairs += [(point, before[label]) for label, point in last.items() if label in before]
    return [
        {"a": a.label, "a_rows": a.size, "b": b.label, "b_rows": b.size, **paired(a.column, b.column, metric, expected)}
        for a, b in wanted_pairs
    ]
