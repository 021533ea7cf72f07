"""The verdict says what the figures say and no more: by rules that hold their error rate, and with "cannot say" among its answers."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from nbtune.compare.claims import claims
from nbtune.compare.verdict import break_even, break_even_rows, few_rows, verdict_of
from nbtune.metrics import interval, metric_of, paired_p_value
from nbtune.metrics.statistics import adjusted, detectable, paired_difference

ACCURACY = metric_of("accuracy", "classification")


def row(approach: str, kind: str, score: float, **more: Any) -> dict[str, Any]:
    costs = {"seconds": 10.0, "rows": 200, "prompt_tokens": 30.0, "train_seconds": 0.0, "trainable_parameters": 0}
    return {"approach": approach, "kind": kind, "accuracy": score, **costs, **more}


def pair(a: str, b: str, difference: float, p_value: float, half: float = 0.05) -> dict[str, Any]:
    more = {"low": difference - half, "high": difference + half, "detectable": 0.07}
    return {"a": a, "b": b, "difference": difference, "p_value": p_value, **more}


TUNED = row("run: lora", "tuned", 0.9, train_seconds=100.0, trainable_parameters=1000)
SHOTS = row("few-shot", "prompting", 0.7, seconds=60.0, prompt_tokens=300.0)
FLOOR = row("floor: tf-idf", "floor", 0.6, prompt_tokens=0.0)


def said(rows: list[dict[str, Any]], pairs: list[dict[str, Any]], metric: Any = ACCURACY) -> str:
    return " ".join(verdict_of(rows, pairs, metric))


def grid(tuned_p: float, difference: float = 0.2, half: float = 0.05) -> str:
    pairs = [pair("run: lora", "few-shot", difference, tuned_p, half), pair("few-shot", "floor: tf-idf", 0.1, 0.01)]
    return said([TUNED, SHOTS, FLOOR], [*pairs, pair("floor: tf-idf", "run: lora", -0.3, 0.001)])


def test_fine_tuning_pays_where_the_test_says_so_with_its_figures() -> None:
    text = grid(0.001)
    assert "Fine-tuning pays here: run: lora is better than the best prompt, few-shot" in text
    for figure in ("0.900 against 0.700", "+0.150 to +0.250", "p = 0.001"):
        assert figure in text


def test_it_cannot_say_where_the_test_does_not_and_the_interval_leaves_room() -> None:
    text = grid(0.2)
    assert "Cannot say whether fine-tuning is better than prompting" in text
    assert "within noise" in text
    assert "0.07" in text


def test_prompting_is_enough_where_tuning_can_gain_no_more_than_the_margin() -> None:
    assert "Prompting is enough here" in grid(0.8, difference=-0.005, half=ACCURACY.margin)
    assert "Prompting is enough here: few-shot is better than what was tuned" in grid(0.01, difference=-0.2)


def test_what_does_not_beat_the_floor_has_shown_nothing() -> None:
    pairs = [
        pair("run: lora", "few-shot", 0.2, 0.01),
        pair("few-shot", "floor: tf-idf", 0.1, 0.3),
        pair("floor: tf-idf", "run: lora", -0.3, 0.3),
    ]
    text = said([TUNED, SHOTS, FLOOR], pairs)
    assert "Nothing here is shown to beat floor: tf-idf: run: lora has 0.900 against 0.600, +0.250 to +0.350" in text
    pairs[2] = pair("floor: tf-idf", "run: lora", -0.3, 0.01)
    assert "run: lora beats floor: tf-idf" in said([TUNED, SHOTS, FLOOR], pairs)
    assert "Not shown to: few-shot." in said([TUNED, SHOTS, FLOOR], pairs)


def test_of_errors_less_is_better() -> None:
    mae = metric_of("mae", "regression")
    rows = [{**TUNED, "mae": 0.5}, {**SHOTS, "mae": 0.9}]
    assert "run: lora is better" in said(rows, [pair("run: lora", "few-shot", -0.4, 0.001)], mae)
    assert "few-shot is better" in said([{**TUNED, "mae": 0.9}, {**SHOTS, "mae": 0.5}], [pair("few-shot", "run: lora", -0.4, 0.001)], mae)


def test_the_cheapest_of_those_not_told_apart_is_named() -> None:
    small = row("run: ia3", "tuned", 0.89, train_seconds=80.0, trainable_parameters=10)
    pairs = [pair("run: lora", "run: ia3", 0.01, 0.9), pair("run: lora", "few-shot", 0.2, 0.01), pair("run: ia3", "few-shot", 0.19, 0.01)]
    assert "run: ia3 is not told apart from run: lora" in said([TUNED, small, SHOTS], pairs)
    assert "trains 10 numbers in place of 1,000" in said([TUNED, small, SHOTS], pairs)
    pairs[0] = pair("run: lora", "run: ia3", 0.1, 0.01)
    assert "not told apart" not in said([TUNED, small, SHOTS], pairs)


def test_training_is_paid_for_after_as_many_answers_as_its_seconds_take_to_be_won_back() -> None:
    assert break_even(SHOTS, TUNED) == 400, "100 s at (60 - 10) / 200 s an answer"
    assert break_even({**SHOTS, "seconds": 10.0}, TUNED) is None
    assert break_even({**SHOTS, "seconds": 10.1}, TUNED) is None, "a hundredth is what a clock tells of the same thing twice"
    assert "paid for its 100 s of training after about 400 answers, against few-shot (0.300 and 0.050 s an answer)" in grid(0.001)


def test_the_table_tells_it_of_tuned_columns_against_the_best_longer_prompt_alone() -> None:
    zero = row("zero-shot", "prompting", 0.8, seconds=9.0)
    longer = row("few-shot: k=16", "prompting", 0.65, seconds=110.0, prompt_tokens=600.0)
    assert break_even_rows([TUNED, zero, SHOTS, longer, FLOOR], ACCURACY) == [400, None, None, None, None]
    assert break_even_rows([TUNED, zero, FLOOR], ACCURACY) == [None, None, None]
    assert break_even_rows([{**TUNED, "seconds": 90.0}, SHOTS], ACCURACY) == [None, None]


def test_one_column_alone_has_no_verdict_and_few_rows_are_said_to_be_few() -> None:
    assert verdict_of([TUNED], [], ACCURACY) == ()
    rows = [{**TUNED, "rows": 40}, {**SHOTS, "rows": 40}]
    (note,) = few_rows(rows, [pair("run: lora", "few-shot", 0.2, 0.01)], ACCURACY)
    assert "40 test rows are few" in note
    assert "0.07" in note
    assert few_rows([TUNED, SHOTS], [pair("run: lora", "few-shot", 0.2, 0.01)], ACCURACY) == []


@cache
def mcnemar(wins: int, losses: int) -> float:
    """The grid's own test, which looks at nothing else; it is asked ten thousands of times here."""
    return paired_p_value([1.0] * wins + [0.0] * losses, [0.0] * wins + [1.0] * losses, binary=True) if wins + losses else 1.0


def mcnemar_of(a: list[float], b: list[float]) -> float:
    gaps = np.subtract(a, b)
    return mcnemar(int((gaps > 0).sum()), int((gaps < 0).sum()))


def compared(columns: dict[str, list[float]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The table and the pairs of columns named by their kind and a number; intervals are of no matter here."""
    rows = [row(name, name.split()[0], float(np.mean(values)), rows=len(values)) for name, values in columns.items()]
    pairs = [
        pair(a, b, float(np.mean(columns[a]) - np.mean(columns[b])), mcnemar_of(columns[a], columns[b]), half=0.5)
        for a, b in combinations(columns, 2)
    ]
    return rows, pairs


def drawn(chance: np.random.Generator, share: float, hard: np.ndarray) -> list[float]:
    """Which rows one column has right: rows are hard or easy for all columns alike, as rows are."""
    return (chance.random(len(hard)) * 0.6 + hard * 0.4 > 1 - share).astype(float).tolist()


@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 3, 2), (5, 9, 3)], ids=["three columns", "seven", "seventeen"])
def test_under_no_difference_better_is_said_in_at_most_seven_of_a_hundred_grids(counts: tuple[int, int, int]) -> None:
    chance = np.random.default_rng(0)
    pays = beats = 0
    for _ in range(500):
        hard = chance.random(120)
        kinds = {
            f"{kind} {number}": kind for kind, count in zip(("prompting", "tuned", "floor"), counts, strict=True) for number in range(count)
        }
        text = said(*compared({name: drawn(chance, 0.6, hard) for name in kinds}))
        pays += "Fine-tuning pays" in text or "is better than what was tuned" in text
        beats += " beats " in text
    assert pays / 500 <= 0.07
    assert beats / 500 <= 0.07


def test_nor_is_it_where_others_differ_and_the_best_of_either_kind_are_alike() -> None:
    chance = np.random.default_rng(3)
    shares = {"tuned 0": 0.7, "tuned 1": 0.7, "tuned 2": 0.4, "prompting 0": 0.7, "prompting 1": 0.3, "prompting 2": 0.2}
    wrong = 0
    for _ in range(500):
        hard = chance.random(120)
        text = said(*compared({name: drawn(chance, share, hard) for name, share in shares.items()}))
        wrong += "Fine-tuning pays" in text or "is better than what was tuned" in text
    assert wrong / 500 <= 0.07


def test_many_columns_cost_little_of_the_power_to_tell_that_tuning_pays() -> None:
    chance = np.random.default_rng(4)
    found = {"claims": 0, "all pairs": 0}
    for _ in range(200):
        hard = chance.random(120)
        shares = {
            "tuned 0": 0.65,
            **{f"tuned {number}": 0.5 for number in range(1, 8)},
            **{f"prompting {number}": 0.5 for number in range(8)},
        }
        columns = {name: drawn(chance, share, hard) for name, share in shares.items()}
        rows, pairs = compared(columns)
        found["claims"] += "Fine-tuning pays here: tuned 0" in said(rows, pairs)
        holm = adjusted([each["p_value"] for each in pairs])
        against = [
            p for each, p in zip(pairs, holm, strict=True) if "tuned 0" in (each["a"], each["b"]) and "prompting" in each["a"] + each["b"]
        ]
        found["all pairs"] += max(against) < 0.05
    assert found["claims"] > 1.25 * found["all pairs"]
    assert found["claims"] >= 80


def test_a_claim_is_the_hardest_of_its_tests_paid_for_by_the_number_of_candidates() -> None:
    table = {("a", "x"): (0.1, 0.01), ("a", "y"): (0.2, 0.02), ("b", "x"): (0.1, 0.03), ("b", "y"): (-0.1, 0.001)}

    def pair_of(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        difference, p_value = table[a["approach"], b["approach"]]
        return {"difference": difference, "p_value": p_value}

    first, second = claims([{"approach": "a"}, {"approach": "b"}], [{"approach": "x"}, {"approach": "y"}], pair_of)
    assert (first.p_value, first.holds, first.among) == (0.04, True, 2), "twice the larger of 0.01 and 0.02"
    assert (second.p_value, second.holds) == (1.0, False), "it is worse than y"


def test_a_lead_that_only_the_choice_among_many_undoes_is_not_called_noise() -> None:
    others = [row(f"run: {number}", "tuned", 0.5, trainable_parameters=2000) for number in range(4)]
    pairs = [pair("run: lora", "few-shot", 0.2, 0.02), *(pair(each["approach"], "few-shot", -0.2, 0.02) for each in others)]
    pairs += [pair(a["approach"], b["approach"], 0.1, 0.01) for a, b in combinations([TUNED, *others], 2)]
    text = said([TUNED, *others, SHOTS], pairs)
    assert "Cannot say whether fine-tuning is better than prompting: run: lora leads" in text
    assert "p = 0.100 with 5 to choose from" in text
    assert "of the two alone it would be told (p = 0.020), but not of the best of 5" in text
    assert "noise" not in text


def test_a_real_difference_is_found_as_often_as_its_power_says() -> None:
    chance = np.random.default_rng(1)
    wins, losses, count = 0.18, 0.06, 160

    def drawn() -> tuple[list[float], list[float]]:
        told = chance.choice([1.0, -1.0, 0.0], p=[wins, losses, 1 - wins - losses], size=count)
        return (told > 0).astype(float).tolist(), (told < 0).astype(float).tolist()

    sizes = [detectable(*drawn()) for _ in range(50)]
    assert np.mean(sizes) == pytest.approx(wins - losses, abs=0.02), "so many rows tell just this difference four times in five"
    found = np.mean([paired_p_value(*drawn(), binary=True) < 0.05 for _ in range(400)])
    assert 0.7 <= found <= 0.9


def test_intervals_cover_as_often_as_they_say() -> None:
    chance = np.random.default_rng(2)
    wilson = [interval(list((chance.random(80) < 0.8).astype(float)), binary=True) for _ in range(500)]
    assert 0.92 <= np.mean([low <= 0.8 <= high for low, high in wilson]) <= 0.98
    scores = [interval(list(chance.beta(2, 3, size=80)), binary=False) for _ in range(500)]
    assert 0.92 <= np.mean([low <= 0.4 <= high for low, high in scores]) <= 0.98
    gaps = []
    for _ in range(500):
        shared = chance.normal(size=80)
        gaps.append(paired_difference(list(shared + chance.normal(0.3, 1, 80)), list(shared + chance.normal(0, 1, 80))))
    assert 0.92 <= np.mean([gap.low <= 0.3 <= gap.high for gap in gaps]) <= 0.98
