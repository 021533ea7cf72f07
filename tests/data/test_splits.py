"""Splits depend on seed and content only, keep groups whole and labels in proportion; overlap is refused."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from nbtune.data import refuse_overlap, split_rows
from nbtune.errors import DataError
from nbtune.spec import SplitSpec

SPEC = SplitSpec()


def made(counts):
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [f"{label} row {number}" for number, label in enumerate(labels)], list(range(len(labels))), labels


def test_each_label_is_divided_in_the_fractions_to_one_row():
    counts = {"a": 100, "b": 37, "c": 11, "d": 52}
    contents, groups, labels = made(counts)
    parts = split_rows(contents, groups, labels, SPEC)
    assert Counter(parts) == {"train": 140, "dev": 20, "test": 40}
    for label, count in counts.items():
        here = Counter(part for part, name in zip(parts, labels, strict=True) if name == label)
        assert abs(here["test"] - 0.2 * count) <= 1
        assert abs(here["dev"] - 0.1 * count) <= 1
        assert here["train"] > 0


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_does_not_matter_but_the_seed_does(seed):
    contents, groups, labels = made({"a": 60, "b": 40})
    groups = [number // 3 for number in groups]
    parts = dict(zip(contents, split_rows(contents, groups, labels, SPEC), strict=True))
    order = random.Random(seed).sample(range(100), 100)
    again = split_rows([contents[i] for i in order], [groups[i] for i in order], [labels[i] for i in order], SPEC)
    assert dict(zip([contents[i] for i in order], again, strict=True)) == parts
    assert dict(zip(contents, split_rows(contents, groups, labels, SplitSpec(seed=seed + 1)), strict=True)) != parts


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_never_divided_and_every_label_is_in_train(seed):
    rng = random.Random(seed)
    count = rng.randint(12, 120)
    contents = [f"row {number}" for number in range(count)]
    groups = [rng.randrange(max(6, count // 2)) for _ in range(count)]
    labels = [rng.choice("aaaabbc") for _ in range(count)]
    parts = split_rows(contents, groups, labels, SplitSpec(dev=0.15, test=0.25, seed=seed))
    for group in set(groups):
        assert len({part for part, number in zip(parts, groups, strict=True) if number == group}) == 1
    train = {label for label, part in zip(labels, parts, strict=True) if part == "train"}
    assert train == set(labels)
    assert set(parts) == {"train", "dev", "test"}


def test_without_labels_the_fractions_hold():
    contents, groups, _ = made({"a": 200})
    assert Counter(split_rows(contents, groups, None, SplitSpec(dev=0.05, test=0.5))) == {"train": 90, "dev": 10, "test": 100}


@pytest.mark.parametrize("seed", range(8))
def test_a_label_that_stands_only_in_a_group_of_another_is_trained_on(seed):
    contents, _, _ = made({"a": 20})
    labels = ["b", "a", "a"] + ["a"] * 17
    parts = split_rows(contents, [0, 0, 0, *range(1, 18)], labels, SplitSpec(dev=0.3, test=0.4, seed=seed))
    assert parts[:3] == ["train"] * 3


def test_a_label_of_one_row_is_trained_on():
    contents, groups, labels = made({"a": 50, "rare": 1})
    parts = split_rows(contents, groups, labels, SPEC)
    assert parts[-1] == "train"


def test_three_rows_are_just_enough_and_small_fractions_give_a_row():
    assert sorted(split_rows(["a", "b", "c"], [0, 1, 2], None, SPEC)) == ["dev", "test", "train"]
    contents, groups, _ = made({"a": 20})
    assert Counter(split_rows(contents, groups, None, SplitSpec(dev=0.001, test=0.001))) == {"train": 18, "dev": 1, "test": 1}


def test_a_part_of_fraction_zero_stays_empty():
    contents, groups, _ = made({"a": 20})
    assert Counter(split_rows(contents, groups, None, SplitSpec(dev=0.0, test=0.5))) == {"train": 10, "test": 10}


def test_groups_bigger_than_a_part_still_leave_every_part_a_group():
    contents = [f"row {number}" for number in range(40)]
    parts = split_rows(contents, [number // 10 for number in range(40)], None, SPEC)
    assert set(parts) == {"train", "dev", "test"}


@pytest.mark.parametrize(
    ("contents", "groups", "message"),
    [
        (["a"], [0], "1 row cannot be divided into train, dev and test"),
        (["a", "b"], [0, 1], "2 rows cannot"),
        (["a"] * 9, [0] * 9, r"9 rows \(1 different\) cannot"),
        ([], [], "every row given for train is alike"),
    ],
)
def test_too_few_rows_are_refused(contents, groups, message):
    with pytest.raises(DataError, match=message):
        split_rows(contents, groups, None, SPEC)


def test_labels_that_never_repeat_leave_nothing_to_test():
    contents, groups, _ = made({"a": 9})
    with pytest.raises(DataError, match="no rows are left for") as caught:
        split_rows(contents, groups, list("abcdefghi"), SPEC)
    assert "generation" in caught.value.hint


def test_fractions_must_leave_rows_to_train_on():
    with pytest.raises(DataError, match="no rows to train on"):
        split_rows(["a", "b", "c"], [0, 1, 2], None, SplitSpec(dev=0.5, test=0.5))


@pytest.mark.parametrize("left", ["train", "dev"])
def test_a_test_prompt_that_is_trained_or_tuned_on_is_refused(left):
    with pytest.raises(DataError, match=rf"2 of 3 test prompts are in {left} too, for one 'b'"):
        refuse_overlap({"train": ["z"], left: ["a", "b", "c"], "test": ["x", "b", "c "]})


def test_near_duplicates_are_counted_not_refused():
    parts = {"train": ["My printer", "b"], "dev": ["b"], "test": ["my  PRINTER", "y"]}
    warnings = refuse_overlap(parts)
    assert len(warnings) == 2
    assert warnings[0].startswith("1 of 2 test prompts nearly equal a train prompt, for one 'my  PRINTER'")
    assert warnings[1] == "1 of 1 dev prompts is in train too, for one 'b'"
    grouped = refuse_overlap({"train": ["one", "two"], "test": ["three", "four"]}, {"train": [0, 1], "test": [1, 2]})
    assert grouped[0].startswith("1 of 2 test prompts nearly equal a train prompt, for one 'three'")


def test_parts_without_overlap_give_no_warning():
    assert refuse_overlap({"train": ["a"], "dev": ["b"], "test": ["c"]}) == ()
