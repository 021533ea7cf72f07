"""What is wrong with a task's rows whatever the tokenizer: rows that repeat, overlap, contradict, give away, or are too few of a kind."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nbtune.data.division import MOST_COMPARED, contents_of, equal_groups
from nbtune.data.duplicates import fold, near_duplicate_groups
from nbtune.data.examples import Example
from nbtune.data.findings import Finding, Level, place, quoted
from nbtune.data.templates import Template

if TYPE_CHECKING:
    from nbtune.task import Task

__all__ = ["content_findings"]

_MOST: Final = 0.8
"""The share of rows that counts as most of them."""
_TELLING: Final = 0.5
"""A label gives itself away where it stands in so many more of its own rows than in others'."""
_REPEATS: Final = 0.05
_ALIKE: Final = 0.2
_HALF: Final = 0.5
_FEW: Final = 5
_TIMES: Final = 10
_SHORT: Final = 3
_NAMED: Final = 5


@dataclass(frozen=True)
class _Rows:
    """All rows of a task, the parts one after another; `contents` are their prompts without the template's words, `groups` who is alike."""

    examples: tuple[Example, ...]
    contents: tuple[str, ...]
    groups: tuple[int, ...]

    def part(self, name: str) -> list[int]:
        """The numbers of one part's rows."""
        return [number for number, item in enumerate(self.examples) if item.split == name]

    def places(self, numbers: Sequence[int]) -> tuple[str, ...]:
        """Where rows stand."""
        return tuple(place(self.examples[number]) for number in numbers)


def content_findings(task: Task, *, near: bool = True) -> list[Finding]:
    """All that can be said without a tokenizer.

    Args:
        task: what to look at.
        near: look for near-duplicates too, not only for rows equal but for case and spacing; takes seconds from thousands of rows on.
    """
    rows = _rows(task, near=near)
    found = [*_overlaps(rows), *_repeats(rows)]
    if task.kind == "text":
        return found
    found += _contradictions(rows, classes=task.kind == "classification")
    if task.kind in ("classification", "generation") and task.spec.format != "messages":
        found += _labels_given_away(task, rows) if task.kind == "classification" else _answers_given_away(task, rows)
    return [*found, *_imbalance(task)]


def _rows(task: Task, *, near: bool) -> _Rows:
    examples = (*task.train, *task.dev, *task.test)
    contents = contents_of(examples, _columns(f"{task.spec.prompt}{task.spec.text_pair or ''}", examples[0]) if examples else ())
    groups = equal_groups(contents)
    if near and len(examples) <= MOST_COMPARED:
        alike = near_duplicate_groups(contents)
        # Where most rows are alike, that is what this data is like: only equal ones say something.
        groups = alike if max(Counter(alike).values(), default=0) <= max(2, _HALF * len(examples)) else groups
    return _Rows(examples, tuple(contents), tuple(groups))


def _columns(source: str, example: Example) -> list[str]:
    """The columns that a template reads."""
    return list(Template(source).columns(example.row).values())


def _overlaps(rows: _Rows) -> Iterator[Finding]:
    mend = "drop them from {}, or give all rows as one table: the split then keeps duplicates on one side"
    for left, right in (("train", "test"), ("dev", "test"), ("train", "dev")):
        here, there = rows.part(left), rows.part(right)
        known = {rows.examples[number].prompt.strip() for number in here}
        equal = [number for number in there if rows.examples[number].prompt.strip() in known]
        groups, told = {rows.groups[number] for number in here}, set(equal)
        alike = [number for number in there if rows.groups[number] in groups and number not in told]
        if equal:
            what = f"{len(equal)} of {len(there)} {right} prompts {_verb(equal, 'stands', 'stand')} in {left} too"
            yield Finding("refuse" if right == "test" else "warn", what, mend.format(left), rows.places(equal))
        if alike:
            what = (
                f"{len(alike)} of {len(there)} {right} prompts nearly {_verb(alike, 'equals', 'equal')} one of {left}: scores may flatter"
            )
            yield Finding("warn", what, mend.format(left), rows.places(alike))


def _repeats(rows: _Rows) -> Iterator[Finding]:
    train = rows.part("train")
    first: dict[tuple[str, str], int] = {}
    said = {number: (fold(rows.examples[number].prompt), rows.examples[number].completion.strip()) for number in train}
    repeated = [number for number in train if first.setdefault(said[number], number) != number]
    if repeated:
        what = f"{len(repeated)} of {len(train)} train rows {_verb(repeated, 'repeats', 'repeat')} another one"
        level: Level = "warn" if len(repeated) >= _REPEATS * len(train) else "info"
        yield Finding(level, what, "drop them, or they are learned that many times as hard", rows.places(repeated))
    contents: dict[int, set[str]] = defaultdict(set)
    for number in train:
        contents[rows.groups[number]].add(fold(rows.contents[number]))
    alike = [number for number in train if len(contents[rows.groups[number]]) > 1]
    if alike:
        what = f"{len(alike)} of {len(train)} train rows nearly equal another one"
        kind: Level = "warn" if len(alike) >= _ALIKE * len(train) else "info"
        yield Finding(kind, what, "a few do no harm; many teach their wording in place of the task", rows.places(alike))


def _contradictions(rows: _Rows, *, classes: bool) -> Iterator[Finding]:
    answers: dict[str, dict[str, int]] = defaultdict(dict)
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(rows.examples):
        prompt = fold(item.prompt)
        answers[prompt].setdefault(item.completion.strip(), number)
        numbers[prompt].append(number)
    torn = [prompt for prompt, found in answers.items() if len(found) > 1]
    if not torn:
        return
    given = answers[torn[0]]
    example = " and ".join(f"{quoted(text)} in {place(rows.examples[number])}" for text, number in list(given.items())[:_NAMED])
    content = quoted(rows.contents[numbers[torn[0]][0]])
    where = rows.places([number for prompt in torn for number in numbers[prompt]])
    count = "1 prompt has" if len(torn) == 1 else f"{len(torn)} prompts have"
    if classes:
        mend = "decide for one label and drop the others: what contradicts itself cannot be learned"
        yield Finding("warn", f"{count} contradicting labels, for one {content}: {example}", mend, where)
    else:
        mend = "fine where several answers are right; a model learns to give any of them"
        yield Finding("info", f"{count} different answers, for one {content}: {example}", mend, where)


def _labels_given_away(task: Task, rows: _Rows) -> Iterator[Finding]:
    """Labels that stand in most of their own rows and in few of the others': in a column, not in the template's words."""
    train = rows.part("train")
    folded = {number: fold(rows.contents[number]) for number in train}
    telling: dict[str, list[int]] = {}
    for label in task.completion_of:
        text = fold(label)
        word = re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")
        # Most rows do not hold the text at all, and `in` is much faster than a pattern.
        holds = {number for number in train if text in folded[number] and word.search(folded[number])}
        own = [number for number in train if rows.examples[number].label == label]
        inside, outside = len(holds.intersection(own)), len(holds.difference(own))
        others = len(train) - len(own)
        if len(own) >= _FEW and inside >= _MOST * len(own) and inside / len(own) - outside / max(1, others) >= _TELLING:
            telling[label] = [number for number in own if number in holds]
    if not telling:
        return
    counts = sum(len(numbers) for numbers in telling.values())
    names = ", ".join(map(quoted, list(telling)[:_NAMED])) + (", ..." if len(telling) > _NAMED else "")
    what = f"the prompt gives the label away in {counts} of {len(train)} train rows ({names})"
    mend = _mend(task, rows) or "take the words that name the label out of the prompt, unless new rows will hold them too"
    yield Finding("warn", what, mend, rows.places([number for numbers in telling.values() for number in numbers]))


def _answers_given_away(task: Task, rows: _Rows) -> Iterator[Finding]:
    train = rows.part("train")
    folded = {number: fold(rows.examples[number].completion) for number in train}
    inside = [number for number in train if len(folded[number]) >= _SHORT and folded[number] in fold(rows.contents[number])]
    if len(train) < _FEW or len(inside) < _MOST * len(train):
        return
    mend = _mend(task, rows)
    what = f"the answer stands word for word in the prompt of {len(inside)} of {len(train)} train rows"
    yield Finding("warn" if mend else "info", what, mend or "right where the task is to pick it out", rows.places(inside))


def _mend(task: Task, rows: _Rows) -> str:
    """What to do where the prompt reads every column that the answer is made of."""
    asked, told = (_columns(source, rows.examples[0]) for source in (task.spec.prompt or "", task.spec.completion or ""))
    named = ", ".join(f"{{{{ {name} }}}}" for name in told)
    return f"the prompt reads {named}, which the completion is made of: take it out of the prompt" if set(told) <= set(asked) else ""


def _imbalance(task: Task) -> Iterator[Finding]:
    counts = Counter(dict.fromkeys(task.completion_of, 0))
    counts.update(task.label_counts(task.train))
    if not counts:
        return
    few = sorted((count, label) for label, count in counts.items() if count < _FEW)
    if few:
        names = ", ".join(f"{quoted(label)} ({count})" for count, label in few[:_NAMED]) + (", ..." if len(few) > _NAMED else "")
        verb = "1 label has" if len(few) == 1 else f"{len(few)} labels have"
        labels = {label for _, label in few}
        where = tuple(place(item) for item in task.train if labels.intersection(task.label_counts([item])))
        yield Finding(
            "warn",
            f"{verb} fewer than {_FEW} train {'words' if task.kind == 'tagging' else 'rows'}: {names}",
            "add rows of them: so few teach nothing sure",
            where,
        )
    present = {label: count for label, count in counts.items() if count}
    if not present:
        return
    most, least = max(present, key=lambda label: present[label]), min(present, key=lambda label: present[label])
    if task.kind == "classification" and present[most] >= _TIMES * present[least]:
        what = (
            f"labels are out of balance: {quoted(most)} has {present[most]:,} train rows ({present[most] / len(task.train):.0%}), "
            f"{quoted(least)} has {present[least]:,} ({present[least] / len(task.train):.1%})"
        )
        yield Finding("warn", what, f"add rows of {quoted(least)}, and score by metric: macro_f1, which counts each label alike")


def _verb(numbers: Sequence[int], one: str, many: str) -> str:
    return one if len(numbers) == 1 else many
