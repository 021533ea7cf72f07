"""Labels told apart by the log-probability of their tokens: in all, by token or by byte, less what a model always prefers."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["calibrated", "normalised"]


def normalised(scores: Sequence[Sequence[tuple[float, int]]], completions: Sequence[str], scoring: str) -> list[list[float]]:
    """Of (nats, tokens) a label [rows][labels]: `sum` the nats, `mean` those of a token, `byte` those of a byte of the label's text.

    By byte long labels are not at a disadvantage, whichever tokenizer cuts them (Gao 2021, "Multiple choice normalization").
    """
    if scoring == "byte":
        sizes = [max(1, len(text.strip().encode())) for text in completions]
        return [[total / size for (total, _), size in zip(row, sizes, strict=True)] for row in scores]
    return [[total / (count if scoring == "mean" else 1) for total, count in row] for row in scores]


def calibrated(scores: Sequence[Sequence[float]], known: Sequence[Sequence[float]]) -> list[list[float]]:
    """Scores [rows][labels] less the log of the mean probability that the model gives each label over `known` [texts][labels].

    Zhao et al. 2021 (https://arxiv.org/abs/2102.09690) ask a text without content for what a model prefers; here, as Zhou et al. 2023
    (https://arxiv.org/abs/2309.17249) do, texts of the task are asked, whose answers are not looked at.
    """
    import numpy as np
    from scipy.special import log_softmax, logsumexp

    always = logsumexp(log_softmax(np.asarray(known, dtype=float), axis=1), axis=0) - np.log(len(known))
    return [list(map(float, row)) for row in np.asarray(scores, dtype=float) - always]
