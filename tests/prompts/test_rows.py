"""The rows a search looks at: never a test row, and of classes about as many in each part as in all."""

from __future__ import annotations

from collections import Counter

import pytest

from nbtune.prompts.racing import BLOCK
from nbtune.prompts.rows import SearchRows
from tests.examples import echo_task, ticket_task


@pytest.mark.parametrize("seed", range(5))
def test_each_part_of_the_rows_has_about_the_labels_of_all(seed: int) -> None:
    task = ticket_task(700)
    found = SearchRows.of(task, (), most=128, seed=seed).scored
    every = Counter(row.label for row in found)
    for end in range(BLOCK, len(found) + 1, BLOCK):
        part = Counter(row.label for row in found[:end])
        for label, count in every.items():
            assert abs(part[label] - end * count / len(found)) <= 1.5


def test_another_seed_asks_them_in_another_order_and_the_same_seed_in_the_same() -> None:
    for task in (ticket_task(700), echo_task()):
        one, same, other = (SearchRows.of(task, (), most=128, seed=seed).scored for seed in (0, 0, 1))
        assert one == same
        assert one != other
        assert not {row.index for row in one if row.split == "test"}
