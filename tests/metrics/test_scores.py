"""Metrics equal their reference implementations and refuse what is no score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from nbtune.errors import DataError, SpecError
from nbtune.metrics import METRICS, metric_of

EXPECTED = ["a", "b", "b", "c", "a", "c"]
OUTPUTS = ["a", "b", "a", "c", "a", "nonsense"]


def test_accuracy_and_macro_f1_equal_scikit_learn():
    accuracy, macro = metric_of("accuracy", "classification"), metric_of("macro_f1", "classification")
    assert accuracy.rows(OUTPUTS, EXPECTED) == macro.rows(OUTPUTS, EXPECTED) == [1, 1, 0, 1, 1, 0]
    assert accuracy.score(OUTPUTS, EXPECTED) == pytest.approx(accuracy_score(EXPECTED, OUTPUTS))
    assert macro.score(OUTPUTS, EXPECTED) == pytest.approx(f1_score(EXPECTED, OUTPUTS, labels=["a", "b", "c"], average="macro"))


def test_macro_f1_does_not_fall_with_the_variety_of_wrong_texts():
    macro = metric_of("macro_f1", "classification")
    assert macro.score(["a", "x", "y", "z"], ["a", "a", "b", "b"]) == macro.score(["a", "x", "x", "x"], ["a", "a", "b", "b"])


def test_outer_spaces_never_count():
    for name in ("accuracy", "macro_f1", "exact_match"):
        assert metric_of(name, "classification").score([" a\n", "b"], ["a", " b"]) == 1


def test_exact_match_tells_case_and_inner_spaces_apart():
    assert metric_of("exact_match", "generation").rows(["A", "a  b", "a b"], ["a", "a b", "a b"]) == [0, 0, 1]


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_equals_rouge_score_on_english(name):
    outputs = ["The cat sat on the mat.", "a dog_house: 12% of 3,4", "", "same text"]
    expected = ["On the mat, a cat sat!", "the dog house 12 of 34", "something", "Same text"]
    reference = RougeScorer([name])
    rows = [reference.score(truth, output)[name].fmeasure for output, truth in zip(outputs, expected, strict=True)]
    metric = metric_of(name, "generation")
    assert metric.rows(outputs, expected) == pytest.approx(rows)
    assert metric.score(outputs, expected) == pytest.approx(sum(rows) / 4)


SAID = ["The cat sat on the mat.", "a dog house, 12 % of it", "", "the very same text", "x"]
TRUE = ["On the mat a cat sat!", "the dog house, 12 of it", "something", "the very same text", "the very long text"]


def test_bleu_and_chrf_of_all_rows_and_of_each_equal_sacrebleu():
    bleu, chrf = metric_of("bleu", "generation"), metric_of("chrf", "generation")
    assert bleu.score(SAID, TRUE) == pytest.approx(sacrebleu.corpus_bleu(SAID, [TRUE]).score)
    assert chrf.score(SAID, TRUE) == pytest.approx(sacrebleu.corpus_chrf(SAID, [TRUE]).score)
    assert bleu.rows(SAID, TRUE) == pytest.approx(
        [sacrebleu.sentence_bleu(*pair).score for pair in zip(SAID, [[t] for t in TRUE], strict=True)]
    )
    assert chrf.rows(SAID, TRUE) == pytest.approx(
        [sacrebleu.sentence_chrf(*pair).score for pair in zip(SAID, [[t] for t in TRUE], strict=True)]
    )
    assert bleu.score(TRUE, TRUE) == pytest.approx(100), "out of 100, as it is published"


def test_squads_metrics_are_those_of_its_paper():
    f1, exact = metric_of("squad_f1", "generation"), metric_of("squad_exact_match", "generation")
    assert exact.rows(["The Cat!", "cats", ""], ["a cat", "cat", "cat"]) == [1, 0, 0], "case, punctuation and articles do not count"
    assert f1.rows(["the black cat", "a dog", ""], ["black cats", "dog", "cat"]) == pytest.approx([0.5, 1, 0])
    assert f1.rows(["to be or not to be"], ["to be"]) == pytest.approx([2 * (2 / 6) * 1 / (2 / 6 + 1)]), "each word counts once"


def test_a_difference_that_nobody_pays_for_is_told_of_known_scales_alone():
    assert (metric_of("accuracy", "classification").margin, metric_of("chrf", "generation").margin) == (0.02, 2.0)
    assert metric_of("mae", "regression").margin == 0, "an error of 0.02 may be large"
    assert metric_of(lambda _output, _expected: 3.0, "generation").margin == 0


def test_rouge_sees_words_of_other_scripts():
    metric = metric_of("rouge1", "generation")
    assert metric.rows(["Über Öl", "これは犬", "привет мир"], ["über öl", "これは猫", "привет"]) == pytest.approx([1, 0.75, 2 / 3])


def test_a_function_is_a_metric_by_its_name():
    def closeness(output, expected):
        return 1 / (1 + abs(len(output) - len(expected)))

    metric = metric_of(closeness, "generation")
    assert (metric.name, metric.binary) == ("closeness", False)
    assert metric.rows(["ab", "a"], ["ab", "abc"]) == pytest.approx([1, 1 / 3])
    assert metric.score(["ab", "a"], ["ab", "abc"]) == pytest.approx(2 / 3)


def test_a_function_named_like_a_built_in_metric_is_still_the_users():
    def macro_f1(_output, _expected):
        return 0.25

    assert metric_of(macro_f1, "generation").score(["a"], ["a"]) == 0.25
    assert metric_of(macro_f1, "generation").name == "my_macro_f1"


@pytest.mark.parametrize("name", ["mae", "bleu", "accuracy"])
def test_of_such_a_function_more_is_better_and_nothing_is_known_of_its_bounds(name):
    def function(output, expected):
        return -abs(float(output) - float(expected))

    function.__name__ = name
    metric = metric_of(function, "regression")
    assert (metric.sign, metric.row_sign, metric.most, metric.margin) == (1, 1, None, 0)


def test_a_function_that_fails_is_an_error_that_names_the_row():
    def picky(output, _expected):
        return 1 / len(output)

    with pytest.raises(DataError, match="metric picky failed on row 1: ZeroDivisionError") as caught:
        metric_of(picky, "generation").rows(["a", ""], ["a", "b"])
    assert "'b'" in caught.value.hint


@pytest.mark.parametrize("value", [math.nan, math.inf, "much", None])
def test_a_result_that_is_no_finite_number_is_refused(value):
    with pytest.raises(DataError, match="row 0"):
        metric_of(lambda _output, _expected: value, "generation").rows(["a"], ["a"])


def test_defaults_follow_the_kind():
    assert metric_of(None, "classification").name == "accuracy"
    assert metric_of(None, "generation").name == "exact_match"
    assert metric_of(None, "text").name == "perplexity"


def test_which_metrics_are_binary():
    binary = {name for name, kinds in METRICS.items() if metric_of(name, kinds[0]).binary}
    assert binary == {"accuracy", "macro_f1", "micro_f1", "exact_match", "squad_exact_match", "span_f1"}


@pytest.mark.parametrize(
    ("name", "kind", "message", "hint"),
    [
        ("acuracy", "classification", "unknown metric 'acuracy'", "did you mean 'accuracy'?"),
        ("ROUGE-L", "generation", "unknown metric 'ROUGE-L'", "did you mean 'rougeL'?"),
        ("accuracy", "generation", "accuracy is not a metric of generation", "exact_match"),
        ("macro_f1", "generation", "not a metric of generation", "exact_match"),
        ("rouge1", "classification", "not a metric of classification", "accuracy"),
        (3, "generation", "metric cannot be 3", "rougeL"),
    ],
)
def test_a_metric_that_cannot_be_is_refused(name, kind, message, hint):
    with pytest.raises(SpecError, match=message) as caught:
        metric_of(name, kind)
    assert hint in caught.value.hint


def test_unequal_lengths_and_no_rows_are_refused():
    metric = metric_of("accuracy", "classification")
    with pytest.raises(DataError, match="2 outputs but 1 expected"):
        metric.rows(["a", "b"], ["a"])
    with pytest.raises(DataError, match="no rows"):
        metric.score([], [])


def test_numbers_are_scored_as_scipy_and_scikit_learn_score_them():
    expected = ["1.5", "2", "-3", "4.25", "0"]
    outputs = ["1", "2.5", "-2", "5 stars", ".5"]
    said, true = np.array([1, 2.5, -2, 5, 0.5]), np.array([1.5, 2, -3, 4.25, 0])
    wanted = {
        "pearson": stats.pearsonr(said, true).statistic,
        "spearman": stats.spearmanr(said, true).statistic,
        "mae": np.abs(said - true).mean(),
        "rmse": math.sqrt(((said - true) ** 2).mean()),
    }
    for name, value in wanted.items():
        metric = metric_of(name, "regression")
        assert metric.score(outputs, expected) == pytest.approx(value)
        assert metric.rows(outputs, expected) == pytest.approx(np.abs(said - true))
        assert metric.sign == (1 if name in ("pearson", "spearman") else -1)


def test_what_is_no_number_counts_as_the_farthest_and_a_constant_correlates_with_nothing():
    mae = metric_of("mae", "regression")
    assert mae.rows(["many", "", "3"], ["1", "4", "3"]) == [3.0, 3.0, 0.0]
    assert metric_of("pearson", "regression").score(["2", "2", "2"], ["1", "2", "3"]) == 0.0
    with pytest.raises(DataError, match="expects 'x', which is no number"):
        mae.rows(["1"], ["x"])
