"""Intervals and p-values equal those of scipy and statsmodels, and are honest where there is no spread."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from nbtune.errors import DataError
from nbtune.metrics import METRICS, interval, metric_of, paired_difference, paired_p_value, score_interval
from nbtune.metrics.statistics import adjusted, contrast_of_whole, detectable, repeated_interval
from nbtune.metrics.whole import WHOLE


@pytest.mark.parametrize(("ones", "count"), [(0, 1), (0, 20), (20, 20), (13, 20), (77, 80), (1, 3), (500, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_equals_statsmodels(ones, count, level):
    found = interval([1.0] * ones + [0.0] * (count - ones), binary=True, level=level)
    assert found == pytest.approx(proportion_confint(ones, count, alpha=1 - level, method="wilson"), abs=1e-12)


def test_the_interval_of_numbers_equals_scipys_bca():
    values = np.random.default_rng(1).beta(2, 5, size=60)
    found = interval(list(values), binary=False, seed=7)
    reference = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=9999, rng=np.random.default_rng(7)).confidence_interval
    assert found == pytest.approx((reference.low, reference.high), abs=2e-3)
    assert found == interval(list(values), binary=False, seed=7)


def test_the_interval_of_numbers_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        low, high = interval(list(rng.beta(2, 3, size=50)), binary=False)
        hits += low <= 0.4 <= high
    assert 88 <= hits <= 100


@pytest.mark.parametrize(("value", "count"), [(1.0, 30), (0.0, 30), (1.0, 1)])
def test_values_without_spread_get_wilsons_width_not_none(value, count):
    expected = interval([value] * count, binary=True)
    assert interval([value] * count, binary=False) == pytest.approx(expected)
    assert expected[1] - expected[0] > 0.05


def test_a_middling_value_without_spread_may_go_both_ways():
    low, high = interval([0.25] * 40, binary=False)
    assert 0 < low < 0.25 < high < 1
    assert interval([3.0] * 40, binary=False) == (-math.inf, math.inf)


def test_two_values_still_give_an_interval():
    low, high = interval([0.2, 0.8], binary=False)
    assert 0.2 <= low < 0.5 < high <= 0.8


def test_an_interval_of_nothing_or_of_no_zeros_and_ones_is_refused():
    with pytest.raises(DataError, match="no rows"):
        interval([], binary=True)
    with pytest.raises(DataError, match="not 0 or 1"):
        interval([0.5], binary=True)


def columns(both, only_a, only_b, neither):
    a = [1.0] * (both + only_a) + [0.0] * (only_b + neither)
    b = [1.0] * both + [0.0] * only_a + [1.0] * only_b + [0.0] * neither
    return a, b


@pytest.mark.parametrize("table", [(40, 12, 3, 25), (0, 1, 0, 5), (10, 5, 5, 10), (3, 0, 9, 1), (50, 30, 8, 12)])
def test_mcnemar_equals_statsmodels(table):
    both, only_a, only_b, neither = table
    a, b = columns(*table)
    reference = mcnemar([[both, only_a], [only_b, neither]], exact=True).pvalue
    assert paired_p_value(a, b, binary=True) == pytest.approx(reference, abs=1e-12)
    assert paired_p_value(b, a, binary=True) == pytest.approx(reference, abs=1e-12)


def test_columns_that_agree_everywhere_do_not_differ():
    assert paired_p_value([1, 0, 1], [1, 0, 1], binary=True) == 1
    assert paired_p_value([0.5, 0.7], [0.5, 0.7], binary=False) == 1


def test_the_permutation_test_is_exact_for_few_rows():
    differences = [0.3, 0.1, 0.25, 0.4, -0.05, 0.2, 0.15, 0.35]
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1)
    means = np.abs((signs * np.array(differences)[:, None]).mean(axis=0))
    exact = float((means >= abs(np.mean(differences)) - 1e-12).mean())
    assert paired_p_value(differences, [0.0] * 8, binary=False) == pytest.approx(exact)


def test_the_permutation_test_on_zeros_and_ones_is_mcnemars():
    a, b = columns(0, 9, 2, 1)
    assert paired_p_value(a, b, binary=False) == pytest.approx(paired_p_value(a, b, binary=True))


def test_the_permutation_test_is_near_the_t_test_for_many_rows():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.55, 0.2, 200), rng.normal(0.5, 0.2, 200)
    assert paired_p_value(list(a), list(b), binary=False) == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.01)


def test_the_paired_difference_equals_scipys_bca_of_the_differences():
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 2, 80).astype(float), rng.integers(0, 2, 80).astype(float)
    found = paired_difference(list(a), list(b), seed=2)
    reference = stats.bootstrap((a - b,), np.mean, method="BCa", n_resamples=9999, rng=np.random.default_rng(2)).confidence_interval
    assert found.mean == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.03)
    swapped = paired_difference(list(b), list(a), seed=2)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), abs=0.03)


def test_differences_without_spread_stay_uncertain():
    same = paired_difference([1, 0, 1] * 20, [1, 0, 1] * 20)
    assert same.mean == 0
    assert same.low == pytest.approx(-same.high)
    assert 0.03 < same.high < 0.1
    always = paired_difference([1] * 30, [0] * 30)
    assert always.mean == always.high == 1
    assert 0.7 < always.low < 0.9


def test_columns_of_other_lengths_or_none_are_refused():
    with pytest.raises(DataError, match="not 2 and 1"):
        paired_p_value([1, 0], [1], binary=True)
    with pytest.raises(DataError, match="no rows"):
        paired_difference([], [])


def test_the_interval_of_macro_f1_resamples_rows():
    rng = np.random.default_rng(0)
    expected = [str(label) for label in rng.integers(0, 3, 90)]
    outputs = [label if rng.random() < 0.7 else str(rng.integers(0, 4)) for label in expected]
    metric = metric_of("macro_f1", "classification")
    low, high = score_interval(metric, outputs, expected, seed=1)
    resampled = []
    for _ in range(400):
        rows = rng.integers(0, 90, 90)
        resampled.append(metric.score([outputs[row] for row in rows], [expected[row] for row in rows]))
    assert low < metric.score(outputs, expected) < high
    assert (low, high) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])), abs=0.04)


def test_the_score_interval_fits_the_metric():
    outputs, expected = ["a", "b", "c", "c"], ["a", "b", "c", "d"]
    assert score_interval(metric_of("accuracy", "classification"), outputs, expected) == interval([1, 1, 1, 0], binary=True)
    rouge = metric_of("rouge1", "generation")
    sentences, truths = ["a b c", "d e", "f g h i"], ["a b", "d e f", "f g x y"]
    assert score_interval(rouge, sentences, truths) == interval(rouge.rows(sentences, truths), binary=False)
    right = score_interval(metric_of("macro_f1", "classification"), ["a", "b"] * 10, ["a", "b"] * 10)
    assert right == interval([1.0] * 20, binary=True)


def _sentences(chance):
    """Some of them empty, too short for an order of n-grams, or without a word in common."""
    words = np.array(["the", "cat", "sat", "on", "a", "mat", "dog", "it's", "12.5", "ö"])
    expected = [" ".join(chance.choice(words, size=chance.integers(1, 9))) for _ in range(40)]
    said = [" ".join(word for word in text.split() if chance.random() < 0.7) for text in expected]
    return [*said[:30], "", *said[31:36], "zzz", "q q q q", *expected[38:]], expected


def _cases():
    chance = np.random.default_rng(2)
    numbers = chance.normal(size=40)
    tags = [" ".join(chance.choice(["O", "B-A", "B-B"], size=4)) for _ in range(40)]
    labels = [", ".join(sorted(chance.choice(["a", "b", "c"], size=2, replace=False))) for _ in range(40)]
    return {
        "bleu": ("generation", *_sentences(chance)),
        "chrf": ("generation", *_sentences(chance)),
        "span_f1": ("tagging", [*tags[:20], *tags[:20]], tags),
        "micro_f1": ("multi-label", [*labels[:20], *labels[:20]], labels),
        "macro_f1": ("classification", [*labels[:25], *labels[:15]], labels),
        **{
            name: ("regression", [str(value) for value in numbers + chance.normal(size=40)], [str(value) for value in numbers])
            for name in ("pearson", "spearman", "rmse", "mae")
        },
    }


@pytest.mark.parametrize("name", ["span_f1", "micro_f1", "macro_f1", "pearson", "spearman", "rmse", "bleu", "chrf"])
def test_what_is_resampled_is_the_score_itself(name):
    kind, outputs, expected = _cases()[name]
    metric = metric_of(name, kind)
    chance = np.random.default_rng(5)
    chosen = np.concatenate([chance.integers(0, 40, size=(6, 40)), np.repeat(chance.integers(30, 38, size=(4, 1)), 40, axis=1)])
    wanted = [metric.score([outputs[row] for row in rows], [expected[row] for row in rows]) for rows in chosen]
    assert metric.whole.resampled(outputs, expected)(chosen) == pytest.approx(np.array(wanted), abs=1e-12)


@pytest.mark.parametrize("name", ["span_f1", "micro_f1", "pearson", "spearman", "rmse", "mae", "bleu", "chrf"])
def test_the_interval_holds_the_score(name):
    kind, outputs, expected = _cases()[name]
    metric = metric_of(name, kind)
    low, high = score_interval(metric, outputs, expected)
    assert low < metric.score(outputs, expected) < high
    assert math.isfinite(low)
    assert math.isfinite(high)


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_holm_equals_statsmodels_and_the_steps_by_hand(count):
    chance = np.random.default_rng(count)
    p_values = list(chance.random(count) ** 3)
    found = adjusted(p_values)
    assert found == pytest.approx(list(multipletests(p_values, method="holm")[1]))
    by_hand, so_far = [0.0] * count, 0.0
    for place, number in enumerate(sorted(range(count), key=p_values.__getitem__)):
        so_far = max(so_far, min(1.0, (count - place) * p_values[number]))
        by_hand[number] = so_far
    assert found == pytest.approx(by_hand)


def test_no_test_needs_no_adjusting():
    assert adjusted([]) == []


def test_what_can_be_told_shrinks_with_the_root_of_the_rows_and_by_the_formula():
    a, b = [1.0, 0.0, 1.0, 1.0] * 25, [0.0, 0.0, 1.0, 1.0] * 25
    spread = math.sqrt(0.25 * 0.75)
    assert detectable(a, b) == pytest.approx((1.959964 + 0.841621) * spread / 10, abs=1e-6)
    assert detectable(a * 4, b * 4) == pytest.approx(detectable(a, b) / 2)
    assert 0 < detectable([1.0] * 50, [1.0] * 50) < 0.1, "columns that agree everywhere may still differ a little"
    with pytest.raises(DataError, match="not 1 and 2"):
        detectable([1.0], [1.0, 0.0])


def test_the_interval_over_repeats_is_that_of_the_rows_means():
    chance = np.random.default_rng(4)
    expected = [str(label) for label in chance.integers(0, 3, 60)]
    repeats = [[label if chance.random() < 0.7 else "x" for label in expected] for _ in range(3)]
    metric = metric_of("accuracy", "classification")
    means = np.mean([metric.rows(outputs, expected) for outputs in repeats], axis=0)
    assert repeated_interval(metric, repeats, expected) == interval(list(means), binary=False)
    low, high = repeated_interval(metric, repeats, expected)
    single = score_interval(metric, repeats[0], expected)
    assert low < means.mean() < high
    assert high - low < single[1] - single[0], "the mean of several is surer than one"


def test_the_interval_over_repeats_of_an_f1_resamples_the_same_rows_of_all():
    chance = np.random.default_rng(4)
    expected = [str(label) for label in chance.integers(0, 3, 60)]
    repeats = [[label if chance.random() < 0.7 else "1" for label in expected] for _ in range(3)]
    metric = metric_of("macro_f1", "classification")
    low, high = repeated_interval(metric, repeats, expected)
    scores = [metric.score(outputs, expected) for outputs in repeats]
    resampled = []
    for _ in range(400):
        rows = chance.integers(0, 60, 60)
        resampled.append(np.mean([metric.score([one[row] for row in rows], [expected[row] for row in rows]) for one in repeats]))
    assert low < np.mean(scores) < high
    assert (low, high) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])), abs=0.04)
    assert repeated_interval(metric, [expected, expected], expected) == interval([1.0] * 60, binary=True)


# ---- scores that are no mean of rows

LABELS = ["yes", "no", "maybe"]


def _answered(chance: np.random.Generator, count: int, right: float) -> tuple[list[str], list[str], list[str]]:
    """(answers of one, answers of another, expected), each right on that share of rows."""
    expected = [LABELS[int(place)] for place in chance.choice(3, count, p=[0.6, 0.3, 0.1])]
    one, other = ([text if chance.random() < right else LABELS[int(chance.integers(3))] for text in expected] for _ in range(2))
    return one, other, expected


def test_an_f1_is_told_apart_by_every_exchange_of_outputs_and_by_its_own_difference() -> None:
    metric = metric_of("macro_f1", "classification")
    one, other, expected = _answered(np.random.default_rng(3), 8, 0.5)

    def gap(a: list[str], b: list[str]) -> float:
        return metric.score(a, expected) - metric.score(b, expected)

    observed, changed = gap(one, other), []
    for places in product((False, True), repeat=len(expected)):
        pairs = [(b, a) if turn else (a, b) for a, b, turn in zip(one, other, places, strict=True)]
        changed.append(gap([a for a, _ in pairs], [b for _, b in pairs]))
    found = contrast_of_whole(metric, [one], [other], expected)
    assert found.difference == pytest.approx(observed)
    above, below = (np.mean([sign * value >= sign * observed - 1e-12 for value in changed]) for sign in (1, -1))
    assert found.p_value == pytest.approx(min(1.0, 2 * min(above, below)))
    assert found.low <= observed <= found.high
    turned = contrast_of_whole(metric, [other], [one], expected)
    assert (turned.difference, turned.p_value) == (pytest.approx(-found.difference), pytest.approx(found.p_value))


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_score_of_all_rows_is_told_apart_in_the_direction_in_which_it_differs(name: str) -> None:
    chance, kind = np.random.default_rng(0), METRICS[name][0]
    texts = {
        "classification": LABELS,
        "multi-label": ["a, b", "b", "none"],
        "tagging": ["B-PER I-PER O", "O B-LOC O", "O O B-PER"],
        "generation": ["the parcel is late again", "an invoice was paid twice today", "no login for the new tent"],
    }
    expected = [f"{value:.3f}" for value in chance.normal(size=60)] if kind == "regression" else [texts[kind][i % 3] for i in range(60)]
    wrong = set(chance.choice(60, 40, replace=False).tolist())
    worse = [expected[(place + 1) % 60] if place in wrong else text for place, text in enumerate(expected)]
    better = [expected[(place + 1) % 60] if place in wrong and place % 4 == 0 else text for place, text in enumerate(expected)]
    metric = metric_of(name, kind)
    found = contrast_of_whole(metric, [better], [worse], expected)
    assert found.difference == pytest.approx(metric.score(better, expected) - metric.score(worse, expected))
    assert metric.sign * found.difference > 0
    assert found.p_value < 0.05
    assert found.low <= found.difference <= found.high
    assert found.detectable > 0
    same = contrast_of_whole(metric, [better], [better, better], expected)
    assert (same.difference, same.p_value) == (0, 1)


def test_a_column_asked_several_times_counts_by_the_mean_of_its_scores() -> None:
    metric = metric_of("macro_f1", "classification")
    one, other, expected = _answered(np.random.default_rng(5), 40, 0.6)
    third = expected[:30] + other[30:]
    found = contrast_of_whole(metric, [one, other], [third], expected)
    mean = (metric.score(one, expected) + metric.score(other, expected)) / 2
    assert found.difference == pytest.approx(mean - metric.score(third, expected))


def test_columns_alike_by_chance_are_seldom_told_apart_by_an_f1() -> None:
    """Two that answer by one rule: at most 7 of 100 pairs, as the grid's verdict promises."""
    metric, chance = metric_of("macro_f1", "classification"), np.random.default_rng(11)
    told = 0
    for _ in range(200):
        one, other, expected = _answered(chance, 12, 0.6)
        told += contrast_of_whole(metric, [one], [other], expected).p_value < 0.05
    assert told <= 14
