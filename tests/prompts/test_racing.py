"""The race's promises on simulated scorers: the best is kept as often as is said, and the worse cost little."""

from __future__ import annotations

import numpy as np
import pytest

from nbtune.prompts.racing import Race, race

Scores = np.ndarray


def rights(shares: list[float], rows: int, seed: int) -> Scores:
    """Whether each variant is right on each row, by its share of rows; half of what decides is the row, alike for all."""
    draw = np.random.default_rng(seed)
    luck = np.where(draw.random((len(shares), rows)) < 0.5, draw.random(rows), draw.random((len(shares), rows)))
    return (luck < np.array(shares)[:, None]).astype(float)


def raced(scores: Scores, **said) -> Race:
    return race(len(scores), scores.shape[1], lambda number, begin, end: scores[number, begin:end], **said)


def cost(found: Race) -> int:
    return sum(found.rows if rows is None else rows for rows in found.dropped_after)


@pytest.mark.parametrize("rows", [64, 200])
def test_a_better_one_among_much_worse_ones_is_kept_alone_for_less_than_half_of_the_full_cost(rows: int) -> None:
    shares = [0.3] * 9
    shares.insert(4, 0.9)
    found = [raced(rights(shares, rows, seed)) for seed in range(100)]
    assert all(4 in each.kept for each in found)
    assert np.mean([cost(each) for each in found]) < 0.5 * rows * len(shares)


@pytest.mark.parametrize("level", [0.05, 0.2])
@pytest.mark.parametrize("count", [2, 6])
def test_one_of_equals_is_dropped_no_more_often_than_the_level_says(level: float, count: int) -> None:
    times = 400
    dropped = sum(raced(rights([0.7] * count, 120, seed), level=level).dropped_after[0] is not None for seed in range(times))
    assert dropped / times <= level


def test_of_scores_without_bounds_only_better_and_worse_count_and_equals_are_kept_as_often() -> None:
    draw = np.random.default_rng(0)
    wild = [draw.standard_t(2, (4, 120)) * 100 for _ in range(300)]
    assert sum(raced(scores, bounded=False).dropped_after[0] is not None for scores in wild) / 300 <= 0.05
    errors = np.abs(draw.standard_t(2, (3, 200))) * np.array([[1], [30], [30]])
    assert raced(-errors, bounded=False).kept == (0,)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 8, 12, 24])
@pytest.mark.parametrize("rows", [32, 33, 42, 50, 64, 127, 128])
def test_of_variants_that_are_alike_halving_takes_at_most_half_of_the_calls_and_leaves_some(count: int, rows: int) -> None:
    scores = np.tile(rights([0.6], rows, 0), (count, 1))
    found = raced(scores, halve=range(count))
    assert cost(found) <= 0.5 * rows * count
    assert len(found.kept) == max(1, count // 4)
    assert found.halved == frozenset(range(count)) - set(found.kept), "none of them is shown to be worse"
    assert cost(raced(scores)) == rows * count


def test_who_has_answered_every_row_is_not_halved_away() -> None:
    found = raced(np.tile(rights([0.6], 8, 0), (4, 1)), halve=range(4))
    assert found == Race(8, (None,) * 4), "one look takes all eight rows"


def test_halving_keeps_the_best_nearly_always_where_it_is_much_better() -> None:
    shares = [0.4, 0.4, 0.4, 0.8, 0.4, 0.4, 0.4, 0.4]
    found = [raced(rights(shares, 64, seed), halve=range(8)) for seed in range(200)]
    assert np.mean([3 in each.kept for each in found]) > 0.95


def test_what_is_known_already_is_not_halved_away() -> None:
    scores = rights([0.2, 0.9, 0.9, 0.9, 0.9], 64, 1)
    assert not raced(scores, level=1e-30, halve=[1, 2, 3, 4]).halved & {0}
    assert 0 in raced(scores, level=1e-30, halve=[1, 2, 3, 4]).kept


def test_ties_and_noise_are_kept_to_the_last_row() -> None:
    same = rights([0.6], 50, 0)
    assert raced(np.vstack([same, same, same])) == Race(50, (None, None, None))
    assert raced(np.vstack([same, 1 - same])[:, :8]).rows == 8


def test_rows_are_asked_block_by_block_each_once_and_the_dropped_no_more() -> None:
    asked: dict[int, list[int]] = {0: [], 1: []}

    def ask(number: int, begin: int, end: int) -> list[float]:
        asked[number] += range(begin, end)
        return [float(number)] * (end - begin)

    found = race(2, 45, ask, block=10)
    assert asked[1] == list(range(45))
    assert asked[0] == list(range(found.dropped_after[0] or 0))
    assert 0 < len(asked[0]) < 45


def test_what_the_budget_does_not_allow_is_not_asked() -> None:
    found = race(3, 40, lambda _number, begin, end: [1.0] * (end - begin), affords=lambda racing, upto: len(racing) * upto <= 60)
    assert found == Race(16, (None, None, None))
