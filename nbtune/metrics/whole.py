"""Scores of all rows together that are no mean of rows: F1 over classes, over spans, over labels; correlations, errors, BLEU, chrF.

Each comes from the library whose numbers people know, and beside it as a function of row numbers, so that a bootstrap can ask it
thousands of times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nbtune.metrics import overlap
from nbtune.metrics.numbers import numbers_of
from nbtune.metrics.several import labels_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["WHOLE", "Resampled", "Whole"]

Texts = Sequence[str]
Resampled = Callable[["NDArray[np.intp]"], "NDArray[np.float64]"]
"""The score of resampled rows: row numbers [..., rows] to scores [...]."""


@dataclass(frozen=True)
class Whole:
    """`score(outputs, expected)` over all rows, and `resampled(outputs, expected)`, the same of any choice of them."""

    score: Callable[[Texts, Texts], float]
    resampled: Callable[[Texts, Texts], Resampled]


def _macro_f1(outputs: Texts, expected: Texts) -> float:
    from sklearn.metrics import f1_score

    truth = [text.strip() for text in expected]
    # Only classes that occur in `expected`: else each new wrong text that a model writes would count as one more class.
    classes = sorted(set(truth))
    return float(f1_score(truth, [text.strip() for text in outputs], labels=classes, average="macro", zero_division=0))


def _macro_f1_of(outputs: Texts, expected: Texts) -> Resampled:
    """The mean over the classes that the resample expects of F1 = 2 tp / (expected + predicted)."""
    import numpy as np

    truth = np.asarray([text.strip() for text in expected], dtype=object)
    output = np.asarray([text.strip() for text in outputs], dtype=object)
    classes = np.asarray(sorted(set(truth)), dtype=object)
    is_class, said_class = truth[:, None] == classes, output[:, None] == classes
    marks = np.concatenate([is_class, said_class, is_class & said_class], axis=1).astype(np.float64)

    def statistic(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        wanted, said, right = np.split(_times(rows, len(truth)) @ marks, 3, axis=-1)
        f1 = np.where(wanted > 0, 2 * right / np.maximum(wanted + said, 1), 0)
        scores: NDArray[np.float64] = f1.sum(axis=-1) / (wanted > 0).sum(axis=-1)
        return scores

    return statistic


def _times(rows: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """How often each of `count` rows was drawn [..., count]: sums over a resample are products with it."""
    import numpy as np

    drawn = rows.reshape(-1, rows.shape[-1])
    places = drawn + count * np.arange(len(drawn))[:, None]
    found: NDArray[np.float64] = np.bincount(places.ravel(), minlength=count * len(drawn)).astype(np.float64)
    return found.reshape(*rows.shape[:-1], count)


def _span_f1(outputs: Texts, expected: Texts) -> float:
    from seqeval.metrics import f1_score

    return float(f1_score([text.split(" ") for text in expected], [text.split(" ") for text in outputs], zero_division=0))


def _span_f1_of(outputs: Texts, expected: Texts) -> Resampled:
    from seqeval.metrics.sequence_labeling import get_entities

    pairs = [(set(get_entities(said.split(" "))), set(get_entities(true.split(" ")))) for said, true in zip(outputs, expected, strict=True)]
    return _micro(pairs)


def _micro_f1(outputs: Texts, expected: Texts) -> float:
    """F1 over all pairs of a row and a label; 0 where there is none and none is said."""
    from sklearn.metrics import f1_score
    from sklearn.preprocessing import MultiLabelBinarizer

    truth, said = [labels_in(text) for text in expected], [labels_in(text) for text in outputs]
    binarizer = MultiLabelBinarizer().fit([*truth, *said])
    return float(f1_score(binarizer.transform(truth), binarizer.transform(said), average="micro", zero_division=0))


def _micro_f1_of(outputs: Texts, expected: Texts) -> Resampled:
    return _micro([(set(labels_in(said)), set(labels_in(true))) for said, true in zip(outputs, expected, strict=True)])


def _micro(pairs: Sequence[tuple[set[Any], set[Any]]]) -> Resampled:
    """F1 = 2 tp / (predicted + expected) over things of which each row has (those said, the true ones)."""
    import numpy as np

    right = np.array([len(said & true) for said, true in pairs], dtype=np.float64)
    both = np.array([len(said) + len(true) for said, true in pairs], dtype=np.float64)

    def statistic(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        total = both[rows].sum(axis=-1)
        scores: NDArray[np.float64] = 2 * right[rows].sum(axis=-1) / np.maximum(total, 1)
        return scores

    return statistic


def _pearson(outputs: Texts, expected: Texts) -> float:
    """0 where one of the two does not vary: it then says nothing of the other."""
    import numpy as np
    from scipy import stats

    said, true = numbers_of(outputs, expected)
    return float(stats.pearsonr(said, true).statistic) if len(true) > 1 and np.ptp(said) and np.ptp(true) else 0.0


def _correlation_of(said: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's r along the last axis; 0 where one of the two does not vary."""
    import numpy as np

    one, other = said - said.mean(-1, keepdims=True), true - true.mean(-1, keepdims=True)
    below = np.sqrt((one**2).sum(-1) * (other**2).sum(-1))
    r: NDArray[np.float64] = np.where(below > 0, (one * other).sum(-1) / np.where(below > 0, below, 1), 0.0)
    return r


def _pearson_of(outputs: Texts, expected: Texts) -> Resampled:
    said, true = numbers_of(outputs, expected)
    return lambda rows: _correlation_of(said[rows], true[rows])


def _spearman(outputs: Texts, expected: Texts) -> float:
    import numpy as np
    from scipy import stats

    said, true = numbers_of(outputs, expected)
    return float(stats.spearmanr(said, true).statistic) if len(true) > 1 and np.ptp(said) and np.ptp(true) else 0.0


def _spearman_of(outputs: Texts, expected: Texts) -> Resampled:
    from scipy import stats

    said, true = numbers_of(outputs, expected)
    return lambda rows: _correlation_of(stats.rankdata(said[rows], axis=-1), stats.rankdata(true[rows], axis=-1))


def _rmse(outputs: Texts, expected: Texts) -> float:
    from sklearn.metrics import root_mean_squared_error

    said, true = numbers_of(outputs, expected)
    return float(root_mean_squared_error(true, said))


def _rmse_of(outputs: Texts, expected: Texts) -> Resampled:
    said, true = numbers_of(outputs, expected)
    squared = (said - true) ** 2

    def statistic(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = squared[rows].mean(axis=-1) ** 0.5
        return found

    return statistic


WHOLE: Final[dict[str, Whole]] = {
    "macro_f1": Whole(_macro_f1, _macro_f1_of),
    "span_f1": Whole(_span_f1, _span_f1_of),
    "micro_f1": Whole(_micro_f1, _micro_f1_of),
    "pearson": Whole(_pearson, _pearson_of),
    "spearman": Whole(_spearman, _spearman_of),
    "rmse": Whole(_rmse, _rmse_of),
    "bleu": Whole(overlap.bleu, overlap.bleu_of),
    "chrf": Whole(overlap.chrf, overlap.chrf_of),
}
