"""Dividing rows into train, dev and test, once, by seed and content; and refusing rows that stand on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nbtune.data.duplicates import fold
from nbtune.errors import DataError
from nbtune.spec import SplitSpec

__all__ = ["refuse_overlap", "split_rows"]

_SHOWN: Final = 60


@dataclass(frozen=True)
class _Group:
    """Rows that stay together: their numbers, the commonest label, and where the seed puts them in the order."""

    rows: tuple[int, ...]
    label: str
    order: str


def split_rows(contents: Sequence[str], groups: Sequence[int], labels: Sequence[str] | None, spec: SplitSpec) -> list[str]:
    """The part of each row: train, dev or test.

    The order of the rows does not matter: a row's place comes from the seed and its content. Groups are never divided. With
    labels, each label's rows are divided in the given fractions (to one row, where groups are single rows) and every label is
    in train. A part whose fraction is not 0 gets at least one row.

    Args:
        contents: what tells rows apart, a text each.
        groups: rows of equal number stay together (see `near_duplicate_groups`).
        labels: the class of each row; left out, rows are alike.
        spec: fractions and seed.

    Raises:
        DataError: too few rows, groups or repeated labels for the parts asked for; fractions that leave nothing for train.
    """
    if spec.dev + spec.test >= 1:
        msg = f"split leaves no rows to train on: dev {spec.dev:g} + test {spec.test:g} is not below 1"
        raise DataError(msg, hint="for instance split: {dev: 0.1, test: 0.2}")
    names = list(labels) if labels is not None else [""] * len(contents)
    every = _groups(contents, groups, names, spec.seed)
    asked = [part for part, fraction in (("dev", spec.dev), ("test", spec.test)) if fraction > 0]
    _refuse_too_few(len(contents), len(every), asked)
    strata: dict[str, list[_Group]] = defaultdict(list)
    for group in every:
        strata[group.label].append(group)
    parts = _assign(strata, spec, len(contents))
    _give_back_labels(parts, every, names)
    for part in asked:
        if part not in parts.values():
            _steal(parts, every, names, part)
    return _by_row(parts, len(contents))


def refuse_overlap(parts: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[int]] | None = None) -> tuple[str, ...]:
    """Warnings about near-duplicates between parts that the user made, and about dev prompts that stand in train.

    Args:
        parts: the prompts of each part.
        groups: the near-duplicate group of each prompt, numbered over all parts together; left out, only case and space are folded.

    Raises:
        DataError: a prompt of test stands in train or dev too.
    """
    warnings: list[str] = []
    for left, right in (("train", "test"), ("dev", "test"), ("train", "dev")):
        if left not in parts or right not in parts:
            continue
        known = {text.strip() for text in parts[left]}
        both = [text for text in parts[right] if text.strip() in known]
        if both:
            are = "is" if len(both) == 1 else "are"
            msg = f"{len(both)} of {len(parts[right])} {right} prompts {are} in {left} too, for one {both[0].strip()[:_SHOWN]!r}"
            if right == "test":
                hint = f"drop them from {left}, or give all rows as one table: the split then keeps duplicates on one side"
                raise DataError(msg, hint=hint)
            warnings.append(msg)
            continue
        near = _near(parts, groups, left, right)
        if near:
            count = f"{len(near)} of {len(parts[right])} {right} prompts"
            warnings.append(
                f"{count} nearly equal a {left} prompt, for one {near[0].strip()[:_SHOWN]!r}: scores may flatter what was trained"
            )
    return tuple(warnings)


def _near(parts: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[int]] | None, left: str, right: str) -> list[str]:
    if groups is not None:
        numbers = set(groups[left])
        return [text for text, number in zip(parts[right], groups[right], strict=True) if number in numbers]
    folded = {fold(text) for text in parts[left]}
    return [text for text in parts[right] if fold(text) in folded]


def _groups(contents: Sequence[str], groups: Sequence[int], labels: Sequence[str], seed: int) -> list[_Group]:
    members: dict[int, list[int]] = defaultdict(list)
    for row, number in enumerate(groups):
        members[number].append(row)
    hashes = [hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).hexdigest() for text in contents]
    found: list[_Group] = []
    for rows in members.values():
        counts = Counter(labels[row] for row in rows)
        label = min(counts, key=lambda name: (-counts[name], name))
        found.append(_Group(tuple(rows), label, min(hashes[row] for row in rows)))
    return sorted(found, key=lambda group: (group.order, group.label))


def _refuse_too_few(rows: int, groups: int, asked: Sequence[str]) -> None:
    if groups > len(asked):
        return
    if not rows:
        message = "every row given for train is alike to a row of the parts given beside it, so none is left to learn from"
        raise DataError(message, hint="give other rows for train, or all rows as one table: the split keeps like rows together")
    wanted = ", ".join(("train", *asked[:-1])) + f" and {asked[-1]}" if asked else "train"
    noun = "1 row" if rows == 1 else f"{rows} rows"
    alike = f" ({groups} different)" if groups < rows else ""
    msg = f"{noun}{alike} cannot be divided into {wanted}"
    raise DataError(msg, hint="give more rows; a few dozen is a beginning")


def _assign(strata: Mapping[str, Sequence[_Group]], spec: SplitSpec, total: int) -> dict[_Group, str]:
    sizes = {label: sum(len(group.rows) for group in groups) for label, groups in strata.items()}
    # One group of each label stays in train.
    room = {label: sizes[label] - min(len(group.rows) for group in groups) for label, groups in strata.items()}
    test = _quotas(sizes, room, spec.test, total)
    dev = _quotas(sizes, {label: room[label] - test[label] for label in sizes}, spec.dev, total)
    parts: dict[_Group, str] = {}
    for label, groups in strata.items():
        left = {"test": test[label], "dev": dev[label]}
        for group in groups:
            size = len(group.rows)
            # The first part that comes nearer to its quota with this group than without it.
            part = next((part for part in ("test", "dev") if size < 2 * left[part]), "train")
            parts[group] = part
            if part != "train":
                left[part] = max(0, left[part] - size)
    return parts


def _quotas(sizes: Mapping[str, int], room: Mapping[str, int], fraction: float, total: int) -> dict[str, int]:
    """Rows of each label for a part: the fraction rounded down, the rest to the largest remainders, never above `room`."""
    wanted = {label: size * fraction for label, size in sizes.items()}
    given = {label: min(int(wanted[label]), room[label]) for label in sizes}
    rest = (max(1, round(total * fraction)) if fraction > 0 else 0) - sum(given.values())
    while rest > 0:
        open_labels = [label for label in sizes if given[label] < room[label]]
        if not open_labels:
            break
        label = max(open_labels, key=lambda name: (wanted[name] - given[name], sizes[name], name))
        given[label] += 1
        rest -= 1
    return given


def _give_back_labels(parts: dict[_Group, str], every: Sequence[_Group], labels: Sequence[str]) -> None:
    """Moves the first group of each label that train lacks into train."""
    seen = {labels[row] for group, part in parts.items() if part == "train" for row in group.rows}
    for group in every:
        here = {labels[row] for row in group.rows}
        if parts[group] != "train" and not here <= seen:
            parts[group] = "train"
            seen |= here


def _steal(parts: dict[_Group, str], every: Sequence[_Group], labels: Sequence[str], part: str) -> None:
    """Moves the smallest train group that train can spare into an empty part.

    Raises:
        DataError: train can spare none.
    """
    train = [group for group in every if parts[group] == "train"]
    counts = Counter(label for group in train for label in {labels[row] for row in group.rows})
    for group in sorted(train, key=lambda one: len(one.rows)):
        if all(counts[labels[row]] > 1 for row in group.rows):
            parts[group] = part
            return
    msg = f"no rows are left for {part}: nearly every label stands in one row only ({len(counts)} labels in {len(labels)} rows)"
    raise DataError(msg, hint="give more rows of each label; where the answers are free text, say kind: generation")


def _by_row(parts: Mapping[_Group, str], count: int) -> list[str]:
    result = ["train"] * count
    for group, part in parts.items():
        for row in group.rows:
            result[row] = part
    return result
