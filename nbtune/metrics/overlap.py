"""Scores of generated texts by the words and characters they share with the expected ones, by the libraries whose numbers are published.

BLEU and chrF by sacrebleu (Post 2018, https://aclanthology.org/W18-6319; Papineni et al. 2002, https://aclanthology.org/P02-1040; Popović
2015, https://aclanthology.org/W15-3049), of all rows together, from 0 to 100: BLEU of words as `13a` splits them, chrF of one to six
characters, recall counting twice as much. SQuAD's exact match and F1 of words (Rajpurkar et al. 2016, https://aclanthology.org/D16-1264) by
torchmetrics, from 0 to 1: case, punctuation and English articles do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nbtune.metrics.whole import Resampled

__all__ = ["bleu", "bleu_of", "chrf", "chrf_of", "row_bleu", "row_chrf", "squad_exact_match", "squad_f1"]

Texts = Sequence[str]
_BLEU_ORDER: Final = 4
_CHRF_ORDER: Final = 6
_CHRF_BETA: Final = 2


def squad_exact_match(output: str, expected: str) -> float:
    """1 where they are the same but for case, punctuation and articles."""
    return _squad(output, expected)["exact_match"]


def squad_f1(output: str, expected: str) -> float:
    """F1 of the words they share."""
    return _squad(output, expected)["f1"]


def _squad(output: str, expected: str) -> dict[str, float]:
    from torchmetrics.functional.text.squad import squad

    said: list[Any] = [{"prediction_text": output, "id": "row"}]
    true: list[Any] = [{"answers": {"text": [expected], "answer_start": [0]}, "id": "row"}]
    return {name: float(value) / 100 for name, value in squad(said, true).items()}


@cache
def _sacrebleu(name: str, **options: Any) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"BLEU": BLEU, "CHRF": CHRF}[name](**options)


def row_bleu(output: str, expected: str) -> float:
    """Of one row, by the orders of n-grams that it has."""
    return float(_sacrebleu("BLEU", effective_order=True).sentence_score(output, [expected]).score)


def row_chrf(output: str, expected: str) -> float:
    """Of one row."""
    return float(_sacrebleu("CHRF").sentence_score(output, [expected]).score)


def bleu(outputs: Texts, expected: Texts) -> float:
    """Of all rows."""
    return float(_sacrebleu("BLEU").corpus_score(list(outputs), [list(expected)]).score)


def chrf(outputs: Texts, expected: Texts) -> float:
    """Of all rows."""
    return float(_sacrebleu("CHRF").corpus_score(list(outputs), [list(expected)]).score)


def bleu_of(outputs: Texts, expected: Texts) -> Resampled:
    """BP exp(mean log p_n), p_n being matches over n-grams said; an order without a match counts 1/2, 1/4, ... of one (`exp` smoothing)."""
    import numpy as np

    each = [_sacrebleu("BLEU", effective_order=True).sentence_score(said, [true]) for said, true in zip(outputs, expected, strict=True)]
    counts, totals = (np.array([getattr(one, name) for one in each], dtype=np.float64).T for name in ("counts", "totals"))
    said, true = (np.array([getattr(one, name) for one in each], dtype=np.float64) for name in ("sys_len", "ref_len"))

    def statistic(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        length, wanted = said[rows].sum(axis=-1), true[rows].sum(axis=-1)
        halved, logs, whole = np.ones(rows.shape[:-1]), np.zeros(rows.shape[:-1]), np.ones(rows.shape[:-1], dtype=bool)
        any_match = np.zeros(rows.shape[:-1], dtype=bool)
        for order in range(_BLEU_ORDER):
            right, number = counts[order][rows].sum(axis=-1), totals[order][rows].sum(axis=-1)
            any_match |= right > 0
            whole &= number > 0
            halved = np.where((right == 0) & whole, 2 * halved, halved)
            share = np.where(right > 0, right, 1 / halved) / np.maximum(number, 1)
            logs += np.log(share) / _BLEU_ORDER
        brevity = np.exp(np.minimum(0.0, 1 - wanted / np.maximum(length, 1)))
        found: NDArray[np.float64] = np.where(whole & any_match, 100 * brevity * np.exp(logs), 0.0)
        return found

    return statistic


def chrf_of(outputs: Texts, expected: Texts) -> Resampled:
    """F2 of the mean precision and the mean recall of character n-grams, of the orders that both sides have."""
    import numpy as np

    said, true = [_characters(text) for text in outputs], [_characters(text) for text in expected]
    shared = [[one & other for one, other in zip(*pair, strict=True)] for pair in zip(said, true, strict=True)]
    counted = [[[row[order].total() for row in side] for side in (said, true, shared)] for order in range(_CHRF_ORDER)]
    counts = np.array(counted, dtype=np.float64)

    def statistic(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        precision, recall, orders = np.zeros((3, *rows.shape[:-1]))
        for in_said, in_true, in_both in counts:
            number, wanted, right = (each[rows].sum(axis=-1) for each in (in_said, in_true, in_both))
            there = (number > 0) & (wanted > 0)
            precision += np.where(there, right / np.maximum(number, 1), 0)
            recall += np.where(there, right / np.maximum(wanted, 1), 0)
            orders += there
        precision, recall = precision / np.maximum(orders, 1), recall / np.maximum(orders, 1)
        below = _CHRF_BETA**2 * precision + recall
        found: NDArray[np.float64] = np.where(
            below > 0, 100 * (1 + _CHRF_BETA**2) * precision * recall / np.where(below > 0, below, 1), 0.0
        )
        return found

    return statistic


def _characters(text: str) -> list[Counter[str]]:
    """The n-grams of a text's characters but spaces, by n."""
    line = "".join(text.split())
    return [Counter(line[start : start + size] for start in range(len(line) - size + 1)) for size in range(1, _CHRF_ORDER + 1)]
