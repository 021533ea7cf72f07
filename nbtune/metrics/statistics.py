"""How sure a score is, and whether two columns of the same rows differ.

Several pairs of columns are a family, of which one may look different by chance: their p-values are adjusted by Holm's method.

Two columns are told apart by the score that they are shown with: by their rows where it is a mean of these, else by itself (`whole`).

Sources: Wilson 1927 (https://doi.org/10.1080/01621459.1927.10502953), Efron 1987 for the BCa bootstrap
(https://doi.org/10.1080/01621459.1987.10478410), McNemar 1947 (https://doi.org/10.1007/BF02295996), Holm 1979
(https://www.jstor.org/stable/4615733), Yeh 2000 for the exchange of outputs (https://aclanthology.org/C00-2137).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nbtune.metrics.scores import Metric

__all__ = [
    "Contrast",
    "Difference",
    "adjusted",
    "contrast_of_rows",
    "contrast_of_whole",
    "detectable",
    "interval",
    "paired_difference",
    "paired_p_value",
    "repeated_interval",
    "score_interval",
]

Texts = Sequence[str]
_RESAMPLES: Final = 9999
_CELLS: Final = 2_000_000


@dataclass(frozen=True)
class Difference:
    """The mean of a - b over paired rows, with its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Contrast:
    """What tells two columns apart: the difference of their scores with its interval, its two-sided p-value, and what so many rows tell."""

    difference: float
    low: float
    high: float
    p_value: float
    detectable: float


def interval(values: Sequence[float], *, binary: bool, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """The interval of the mean of `values` at `level`: Wilson's for 0/1 values, else the BCa bootstrap's.

    Wilson, with k ones in n and z the normal quantile: (k + z²/2 ± z sqrt(k (n - k) / n + z²/4)) / (n + z²).

    Equal values show no spread to resample. They then say only that something else happens in at most a share u of rows, u
    being Wilson's upper end of 0 in n: values within [0, 1] give [v - u v, v + u (1 - v)], others (-inf, inf).

    Raises:
        DataError: no values; with `binary`, values other than 0 and 1.
    """
    _refuse_none(values)
    if binary:
        if any(value not in (0, 1) for value in values):
            msg = "values that are not 0 or 1 have no Wilson interval"
            raise DataError(msg, hint="say binary=False")
        return _wilson(round(math.fsum(values)), len(values), level)
    bounds = (0.0, 1.0) if all(0 <= value <= 1 for value in values) else (-math.inf, math.inf)
    return _mean_interval(values, bounds, level, seed)


def repeated_interval(
    metric: Metric, repeats: Sequence[Sequence[str]], expected: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The interval of the mean of `metric.score(outputs, expected)` over several outputs of the same rows, by resampling rows (BCa).

    Raises:
        DataError: as `score_interval`.
    """
    means = _mean_rows(metric, repeats, expected)
    if metric.whole is None:
        return interval(means, binary=False, level=level, seed=seed)
    import numpy as np

    _refuse_none(means)
    each = [metric.whole.resampled(outputs, expected) for outputs in repeats]

    def mean(numbers: NDArray[np.intp]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = np.mean([one(numbers) for one in each], axis=0)
        return total

    found = _bootstrap(len(means), mean, level, seed)
    return found[:2] if found is not None else score_interval(metric, repeats[0], expected, level=level, seed=seed)


def score_interval(
    metric: Metric, outputs: Sequence[str], expected: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The interval of `metric.score(outputs, expected)`: of the mean of its rows, or, where it is none, by resampling rows (BCa).

    Where every row is right, or every row wrong, resampling an F1 shows no spread; Wilson's interval of the accuracy stands in. Of
    a correlation or an error without spread nothing is known but the score itself.

    Raises:
        DataError: no rows, or as `metric.rows`.
    """
    rows = metric.rows(outputs, expected)
    if metric.whole is None:
        return interval(rows, binary=metric.binary, level=level, seed=seed)
    _refuse_none(rows)
    found = _bootstrap(len(rows), metric.whole.resampled(outputs, expected), level, seed)
    if found is not None:
        return found[:2]
    return interval(rows, binary=True, level=level) if metric.binary else (-math.inf, math.inf)


def paired_p_value(a: Sequence[float], b: Sequence[float], *, binary: bool, seed: int = 0) -> float:
    """The two-sided p-value of "a and b do not differ" over the same rows.

    Binary: exact McNemar, i.e. the binomial test of n01 among the n01 + n10 rows that only one of them has right.
    Else: the permutation test of the mean difference under random signs (exact for few rows, 9,999 permutations for many).
    Columns that agree on every row give 1.

    Raises:
        DataError: unequal lengths, or no rows.
    """
    differences = _paired(a, b)
    if not any(differences):
        return 1.0
    import numpy as np
    from scipy import stats

    if binary:
        wins = sum(value > 0 for value in differences)
        losses = sum(value < 0 for value in differences)
        return float(stats.binomtest(wins, wins + losses, 0.5).pvalue)
    result = stats.permutation_test(
        (np.asarray(differences),),
        np.mean,
        permutation_type="samples",
        n_resamples=_RESAMPLES,
        batch=_batch(len(differences)),
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def paired_difference(a: Sequence[float], b: Sequence[float], level: float = 0.95, seed: int = 0) -> Difference:
    """The mean of a - b over the same rows with its BCa bootstrap interval (rows are resampled as pairs).

    Differences that are all equal are handled as in `interval`, within [-1, 1] where all scores are within [0, 1].

    Raises:
        DataError: unequal lengths, or no rows.
    """
    differences = _paired(a, b)
    bounds = (-1.0, 1.0) if all(0 <= value <= 1 for value in (*a, *b)) else (-math.inf, math.inf)
    low, high = _mean_interval(differences, bounds, level, seed)
    return Difference(math.fsum(differences) / len(differences), low, high)


def contrast_of_rows(a: Sequence[float], b: Sequence[float], *, binary: bool) -> Contrast:
    """Of a score that is the mean of its rows' scores: `paired_difference`, `paired_p_value` and `detectable`.

    Raises:
        DataError: unequal lengths, or no rows.
    """
    gap = paired_difference(a, b)
    return Contrast(gap.mean, gap.low, gap.high, paired_p_value(a, b, binary=binary), detectable(a, b))


def contrast_of_whole(metric: Metric, a: Sequence[Texts], b: Sequence[Texts], expected: Texts, *, seed: int = 0) -> Contrast:
    """Of a score that is no mean of rows (`metric.whole`): score(a) - score(b), of columns asked once or several times (their mean).

    The interval is the BCa bootstrap's, rows being resampled as pairs. The p-value is how often the difference is as large where the two
    outputs of each row change places at random (all ways to, for few rows; 9,999 for many). Columns that agree on every row give 1.

    Raises:
        DataError: no rows, or as `metric.rows`.
    """
    import numpy as np
    from scipy import stats

    _refuse_none(expected)
    count, times = len(expected), math.lcm(len(a), len(b))
    pairs = [(a[time % len(a)], b[time % len(b)]) for time in range(times)]
    resampled = [metric.whole.resampled([*one, *other], [*expected, *expected]) for one, other in pairs]  # type: ignore[union-attr]

    def score(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = np.mean([each(rows) for each in resampled], axis=0)
        return mean

    def gap(one: NDArray[np.intp], other: NDArray[np.intp], axis: int = -1) -> NDArray[np.float64]:
        of_a, of_b = (score(np.moveaxis(side, axis, -1).astype(np.intp)) for side in (one, other))
        return of_a - of_b

    own, others = np.arange(count), np.arange(count, 2 * count)
    difference = float(gap(own, others))
    found = _bootstrap(count, lambda rows: gap(rows, rows + count), 0.95, seed)
    if found is None:  # no resample shows another difference: of the rows something is known all the same
        rows = contrast_of_rows(_mean_rows(metric, a, expected), _mean_rows(metric, b, expected), binary=False)
        low, high = (rows.low, rows.high) if metric.binary else (-math.inf, math.inf)
        least = rows.detectable
    else:
        low, high, least = found[0], found[1], _told(found[2])
    if all(list(one) == list(other) for one, other in pairs):
        return Contrast(difference, low, high, 1.0, least)
    known: dict[str, Any] = {"permutation_type": "samples", "n_resamples": _RESAMPLES, "batch": _batch(2 * count), "vectorized": True}
    result = stats.permutation_test((own, others), gap, rng=np.random.default_rng(seed), **known)
    return Contrast(difference, low, high, float(result.pvalue), least)


def _mean_rows(metric: Metric, said: Sequence[Texts], expected: Texts) -> list[float]:
    """Each row's score, on average over the times that it was asked."""
    rows = [metric.rows(outputs, expected) for outputs in said]
    return [math.fsum(column) / len(column) for column in zip(*rows, strict=True)]


def adjusted(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family by Holm's method: whichever are below 0.05 then, one of them wrong is at most 5 % likely.

    Of n in rising order the i-th (from 0) becomes max over j <= i of (n - j) p_j, at most 1.
    """
    import numpy as np

    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    found = np.empty_like(values)
    found[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return [float(value) for value in found]


def detectable(a: Sequence[float], b: Sequence[float], *, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest mean difference that as many rows would tell from none with this power, if rows differ as much as these do.

    By the normal approximation (z_(1 - level/2) + z_power) s / sqrt(n), s being the standard deviation of the paired differences; where
    all are equal, of one row that differs.

    Raises:
        DataError: unequal lengths, or no rows.
    """
    differences = _paired(a, b)
    import numpy as np

    spread = float(np.std(differences)) or float(np.std([1.0, *[0.0] * (len(differences) - 1)])) or 1.0
    return _told(spread / math.sqrt(len(differences)), power, level)


def _told(error: float, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest difference with that standard error that is told with this power."""
    from scipy import stats

    return float((stats.norm.ppf(1 - level / 2) + stats.norm.ppf(power)) * error)


def _refuse_none(values: Sequence[Any]) -> None:
    if not len(values):
        msg = "there are no rows to compute an interval on"
        raise DataError(msg, hint="give at least one row")


def _paired(a: Sequence[float], b: Sequence[float]) -> list[float]:
    if len(a) != len(b):
        msg = f"paired columns have the same rows, not {len(a)} and {len(b)}"
        raise DataError(msg, hint="compare columns of one grid")
    _refuse_none(a)
    return [float(left) - float(right) for left, right in zip(a, b, strict=True)]


def _wilson(successes: int, count: int, level: float) -> tuple[float, float]:
    from scipy import stats

    found = stats.binomtest(successes, count).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def _mean_interval(values: Sequence[float], bounds: tuple[float, float], level: float, seed: int) -> tuple[float, float]:
    import numpy as np

    column = np.asarray(values, dtype=np.float64)

    def mean(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = column[rows].mean(axis=-1)
        return means

    if np.ptp(column) > 0:
        found = _bootstrap(len(column), mean, level, seed)
        if found:
            return found[:2]
    value, (lowest, highest) = float(column[0]), bounds
    share = _wilson(0, len(column), level)[1]
    return value + share * (lowest - value), value + share * (highest - value)


def _bootstrap(
    count: int, statistic: Callable[[NDArray[np.intp]], NDArray[np.float64]], level: float, seed: int
) -> tuple[float, float, float] | None:
    """The BCa interval and standard error of a statistic of row numbers (..., rows) -> (...); None where resampling shows no spread."""
    import numpy as np
    from scipy import stats

    def along(rows: NDArray[np.intp], axis: int = -1) -> NDArray[np.float64]:
        return statistic(np.moveaxis(rows, axis, -1))

    if count < 2:  # noqa: PLR2004
        return None
    known: dict[str, Any] = {"n_resamples": _RESAMPLES, "batch": _batch(count), "vectorized": True, "confidence_level": level}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degenerate data is looked for below
        result = stats.bootstrap((np.arange(count),), along, method="BCa", rng=np.random.default_rng(seed), **known)
    if np.ptp(result.bootstrap_distribution) == 0:
        return None
    low, high = (float(end) for end in result.confidence_interval)
    if math.isnan(low) or math.isnan(high):
        low, high = (float(end) for end in np.quantile(result.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2]))
    return low, high, float(result.standard_error)


def _batch(rows: int) -> int:
    return max(1, _CELLS // rows)
