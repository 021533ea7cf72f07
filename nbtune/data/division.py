"""From filled rows to parts: by the user's own division, by seed, or what is lacking of the one by the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nbtune.data.conversations import Conversation
from nbtune.data.duplicates import fold, near_duplicate_groups, united
from nbtune.data.examples import Example, Filled
from nbtune.data.rows import canonical
from nbtune.data.splits import refuse_overlap, split_rows
from nbtune.errors import DataError
from nbtune.spec import SplitSpec

__all__ = ["MOST_COMPARED", "Division", "contents_of", "divide", "equal_groups"]

MOST_COMPARED: Final = 10_000
"""Near-duplicates are looked for in no more rows than these."""
_LARGEST_SHARE: Final = 0.5


@dataclass(frozen=True)
class Division:
    """The rows of each part ("train", "dev", "test"), and what was done, in words."""

    parts: Mapping[str, tuple[Filled, ...]]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def divide(
    given: Mapping[str, Sequence[Filled]], read: Sequence[str], columns: Sequence[str], spec: SplitSpec, *, by_label: bool
) -> Division:
    """The rows by part. What the user divided stays so; a dev or test part that is lacking is taken from the rest.

    Args:
        given: {"all": rows} or {"train": rows, ...}.
        read: the columns that the prompt reads: rows are duplicates by these.
        columns: all columns that templates read: a row's place comes from these, so that wording a template anew moves no row.
        spec: fractions and seed of what is taken.
        by_label: keep the shares of the labels.

    Raises:
        DataError: too few rows; no test rows wanted; rows of one part stand in another.
    """
    if "test" not in given and spec.test == 0:
        msg = "there are no test rows: split says test: 0"
        raise DataError(msg, hint="hold some out, for instance split: {test: 0.2}")
    lacking = {"dev", "test"} - given.keys()
    groups, notes, warnings = _groups(given, read)
    prompts = {part: [item.prompt for item in items] for part, items in given.items()}
    warnings += refuse_overlap(prompts, groups)
    source = "all" if "all" in given else "train"
    parts = {part: tuple(items) for part, items in given.items()}
    if lacking:
        spec = SplitSpec(dev=spec.dev if "dev" in lacking else 0.0, test=spec.test if "test" in lacking else 0.0, seed=spec.seed)
        parts.pop(source)
        parts |= _cut(given[source], groups[source], {n for part in parts for n in groups[part]}, columns, spec, by_label=by_label)
        notes += (_divided(spec, source),)
    return Division({part: parts.get(part, ()) for part in ("train", "dev", "test")}, notes, warnings)


def _cut(
    rows: Sequence[Filled], groups: Sequence[int], held: set[int], columns: Sequence[str], spec: SplitSpec, *, by_label: bool
) -> dict[str, tuple[Filled, ...]]:
    """Rows taken from `rows`; those that nearly equal a row of another part (their group is `held`) stay in train."""
    free = [number for number, group in enumerate(groups) if group not in held]
    contents = [canonical(rows[number].row, [name for name in columns if name in rows[number].row]) for number in free]
    labels = [rows[number].label for number in free] if by_label else None
    part_of = dict(zip(free, split_rows(contents, [groups[number] for number in free], labels, spec), strict=True))
    cut: dict[str, list[Filled]] = {"train": [], "dev": [], "test": []}
    for number, row in enumerate(rows):
        cut[part_of.get(number, "train")].append(row)
    return {part: tuple(items) for part, items in cut.items() if items}


def _divided(spec: SplitSpec, source: str) -> str:
    taken = " and ".join(f"{part} {fraction:g}" for part, fraction in (("dev", spec.dev), ("test", spec.test)) if fraction)
    whole = "all rows" if source == "all" else "the train rows"
    return f"split: {taken} of {whole}, by seed {spec.seed} and content"


def _groups(given: Mapping[str, Sequence[Filled]], read: Sequence[str]) -> tuple[dict[str, list[int]], tuple[str, ...], tuple[str, ...]]:
    """The duplicate group of each row, numbered over all parts together, with notes and warnings."""
    every = [item for items in given.values() for item in items]
    contents = contents_of(every, read)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    if len(every) > MOST_COMPARED:
        numbers = equal_groups(contents)
        notes = (f"near-duplicates were not looked for in {len(every):,} rows, only equal ones",)
    else:
        numbers = near_duplicate_groups(contents)
        largest = max(Counter(numbers).values(), default=0)
        if largest > max(2, _LARGEST_SHARE * len(every)) and "all" in given:
            numbers = equal_groups(contents)
            warnings = (
                f"{largest} of {len(every)} rows are near-duplicates of each other: only equal rows are kept on one side of the split",
            )
    # What is asked twice is on one side, however the rows differ in what their prompts do not show.
    numbers = united(numbers, [item.prompt.strip() for item in every])
    near = sum(count for count in Counter(numbers).values() if count > 1)
    if near and "all" in given:
        notes += (f"{near} rows have duplicates or near-duplicates, which stay on one side of the split",)
    groups: dict[str, list[int]] = {}
    start = 0
    for part, items in given.items():
        groups[part] = numbers[start : start + len(items)]
        start += len(items)
    return groups, notes, warnings


def contents_of(rows: Sequence[Filled | Example], read: Sequence[str]) -> list[str]:
    """What the prompts say without their fixed words: the values of the columns read, but those that are the same throughout.

    Of conversations it is their turns up to the answer that is wanted, without those that all of them begin with.
    """
    if not rows:
        return []
    talks = [item.prompt.turns for item in rows if isinstance(item.prompt, Conversation)]
    if talks:
        return _said(talks)
    names = [name for name in read if all(name in item.row for item in rows)]
    varying = [name for name in names if any(item.row[name] != rows[0].row[name] for item in rows)] or names
    return ["\n".join(str(item.row[name]) for name in varying) for item in rows]


def _said(talks: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
    same = 0
    while all(len(turns) > same + 1 and turns[same] == talks[0][same] for turns in talks):
        same += 1
    return ["\n".join(turn["content"] for turn in turns[same:]) for turns in talks]


def equal_groups(contents: Sequence[str]) -> list[int]:
    """The group of each text, numbered from 0 by first appearance: texts that differ in case and spacing alone share one."""
    first: dict[str, int] = {}
    return [first.setdefault(fold(text), len(first)) for text in contents]
