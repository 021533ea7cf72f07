"""What the answers are: whether they are classes, which ones, and how each is written as a completion."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final, Literal

__all__ = ["Kind", "completion_texts", "decide_kind"]

Kind = Literal["generation", "classification", "multi-label", "regression", "tagging", "text"]
_LONGEST: Final = 60
_MOST: Final = 200
_ROWS_A_LABEL: Final = 8


def decide_kind(completions: Sequence[str]) -> tuple[Kind, str]:
    """The kind of task that the training answers show, and why, in words.

    Classification: at least two different answers, each one line of at most 60 characters, no more different ones than an
    eighth of the rows (but two are always few enough) and no more than 200.
    """
    distinct = {text.strip() for text in completions}
    counted = f"{len(distinct)} different answer{'s' if len(distinct) != 1 else ''} in {len(completions)} rows"
    if len(distinct) < 2:  # noqa: PLR2004
        return "generation", f"kind: generation, because there is only one answer in {len(completions)} rows"
    if any(len(text) > _LONGEST or "\n" in text for text in distinct):
        return "generation", "kind: generation, because some answers are long or have several lines"
    if len(distinct) > min(_MOST, max(2, len(completions) / _ROWS_A_LABEL)):
        return "generation", f"kind: generation, because answers rarely repeat ({counted})"
    return "classification", f"kind: classification, because answers repeat ({counted})"


def completion_texts(completions: Sequence[str], listed: Sequence[str] = ()) -> tuple[dict[str, str], tuple[str, ...]]:
    """{label: the completion that writes it}, sorted by label, and warnings.

    A label is a completion without its outer spaces. Where one label is written with different outer spaces, the commonest
    writing is taken; a `listed` label without a row gets the commonest outer spaces of the others.
    """
    writings: dict[str, Counter[str]] = defaultdict(Counter)
    spaces: Counter[tuple[str, str]] = Counter()
    for text in completions:
        label = text.strip()
        writings[label][text] += 1
        start = text.index(label)
        spaces[text[:start], text[start + len(label) :]] += 1
    before, after = min(spaces, key=lambda pair: (-spaces[pair], pair)) if spaces else (" ", "")
    texts = {label: min(counts, key=lambda text: (-counts[text], text)) for label, counts in writings.items()}
    for label in listed:
        texts.setdefault(label.strip(), before + label.strip() + after)
    mixed = sorted(label for label, counts in writings.items() if len(counts) > 1)
    warnings = [f"the label {mixed[0]!r} is written with different outer spaces; {texts[mixed[0]]!r} is taken"] if mixed else []
    folded = Counter(label.casefold() for label in texts)
    twins = sorted(label for label in texts if folded[label.casefold()] > 1)
    warnings += [f"labels that differ only in case are different labels: {', '.join(twins[:4])}"] if twins else []
    return dict(sorted(texts.items())), tuple(warnings)
