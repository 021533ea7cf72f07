"""Outputs side by side, in sections that need no script: fixed by tuning, broken by tuning, other disagreements, all wrong, all right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from nbtune.metrics.scores import LESS_IS_BETTER
from nbtune_widgets.answers import Answer, AnswerRow, answer_rows, approaches, records
from nbtune_widgets.formats import NOTHING, distinct, figure, one_line, shown
from nbtune_widgets.markup import join, mark
from nbtune_widgets.protocols import ComparisonView

__all__ = ["BUDGET", "CAP", "SHOWN", "marked", "outputs_html", "sections"]

SHOWN: Final = 30
CAP: Final = 200
BUDGET: Final = 150_000
_WORDS: Final = re.compile(r"\s+|\w+|[^\w\s]")
_SAID: Final = 300
_LABELS: Final = 6
Section = tuple[str, str, Sequence[AnswerRow]]
"""(title, what it means, rows)."""


def outputs_html(comparison: ComparisonView) -> Markup:
    """All sections; in each 30 rows at once and the rest folded, 200 in all and 150,000 characters, and how many are left out."""
    names, rows = approaches(comparison), answer_rows(comparison)
    if not rows:
        return Markup("")
    prompts = dict(zip([row.row for row in rows], distinct([row.prompt for row in rows]), strict=True))
    form = _Form(names, prompts, any(row.expected is not None for row in rows))
    left = _Left(CAP, BUDGET)
    found = sections(comparison, rows)
    drawn = [_section(section, form, left, opened=place == 0) for place, section in enumerate(found)]
    differ = sum(row.rank < 2 for row in rows)  # noqa: PLR2004
    title = f"Outputs side by side: {differ:,} of {len(rows):,} rows differ" if len(names) > 1 else "Outputs"
    parts = [Markup('<p class="nbt-key"><b>{}</b></p>').format(title), *drawn]
    if left.drawn < len(rows):
        words = f"{len(rows) - left.drawn:,} rows are left out here; all are in comparison.outputs"
        parts.append(Markup('<p class="nbt-dim">{}</p>').format(words))
    return join(parts)


def sections(comparison: ComparisonView, rows: Sequence[AnswerRow]) -> list[Section]:
    """Each row in one section, those that are empty left out; what tuning fixed or broke is told of the best prompt and the best tuned."""
    prompted, tuned = _best(comparison, "prompting"), _best(comparison, "tuned")
    ways: list[tuple[str, str, Callable[[AnswerRow], bool]]] = []
    if prompted is not None and tuned is not None:
        ways = _by_tuning(prompted, tuned, -1 if comparison.kind == "regression" else 1)
    several = len(approaches(comparison)) > 1
    ways += [
        ("Other disagreements" if ways else "Disagree", "some right, some wrong", lambda row: row.rank == 0),
        ("All wrong", "", lambda row: _all(row) is False),
        ("All right", "", lambda row: _all(row) is True),
        ("Different outputs", "", lambda row: row.rank == 1),
        ("The same output" if several else "Outputs", "", lambda _row: True),
    ]
    left, found = list(rows), list[Section]()
    for title, meaning, belongs in ways:
        chosen = [row for row in left if belongs(row)]
        left = [row for row in left if not belongs(row)]
        if chosen:
            found.append((title, meaning, chosen))
    return found


def _by_tuning(prompted: str, tuned: str, sign: int) -> list[tuple[str, str, Callable[[AnswerRow], bool]]]:
    """What tuning did to a row: right or wrong, and where there is no such thing by the row's score; `sign` -1: less is better."""
    names = f"{one_line(prompted, 60)} {{}}, {one_line(tuned, 60)} {{}}"
    scores = f"{one_line(tuned, 60)} against {one_line(prompted, 60)}, by the score of the row"

    def gain(row: AnswerRow) -> float:
        one, other = row.answers.get(prompted), row.answers.get(tuned)
        if one is None or other is None or one.right is not None or one.score is None or other.score is None:
            return 0.0
        return sign * (other.score - one.score)

    return [
        ("Fixed by tuning", names.format("wrong", "right"), lambda row: (_right(row, prompted), _right(row, tuned)) == (False, True)),
        ("Broken by tuning", names.format("right", "wrong"), lambda row: (_right(row, prompted), _right(row, tuned)) == (True, False)),
        ("Better by tuning", scores, lambda row: gain(row) > 0),
        ("Worse by tuning", scores, lambda row: gain(row) < 0),
    ]


def marked(output: str, expected: str) -> Markup:
    """An output with the words in `mark` tags that the expected answer has not, and a sign where words of that are missing."""
    said, wanted = _WORDS.findall(output), _WORDS.findall(expected)
    parts = []
    for what, a, b, c, d in difflib.SequenceMatcher(None, wanted, said, autojunk=False).get_opcodes():
        text, missing = "".join(said[c:d]), "".join(wanted[a:b]).strip()
        if what == "equal":
            parts.append(Markup("{}").format(text))
        elif text.strip():
            parts.append(Markup("<mark>{}</mark>").format(text))
        elif missing:
            parts.append(Markup('<mark title="missing: {}">‸</mark>{}').format(missing, text))
        else:
            parts.append(Markup("{}").format(text))
    return join(parts)


@dataclass(frozen=True)
class _Form:
    """How a row is drawn: the columns, what of each prompt is shown, and whether answers are expected."""

    names: Sequence[str]
    prompts: Mapping[int, str]
    expected: bool

    def table(self, rows: Iterable[Markup]) -> Markup:
        heads = ["row", "prompt", *(["expected"] if self.expected else []), *(one_line(name, 60) for name in self.names)]
        head = join(Markup('<th scope="col">{}</th>').format(text) for text in heads)
        return Markup('<div class="nbt-scroll"><table class="nbt-t"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
            head, join(rows)
        )

    def row(self, row: AnswerRow) -> Markup:
        text = Markup('<td{}><span class="nbt-x">{}</span></td>')
        cells = [
            Markup('<th scope="row" class="nbt-n nbt-dim">{}</th>').format(row.row),
            text.format(Markup(' class="nbt-p"'), self.prompts[row.row]),
        ]
        expected = None if row.expected is None else shown(row.expected.strip(), _SAID)
        if self.expected:
            cells.append(text.format("", NOTHING if expected is None else expected))
        cells += [_answer(row.answers.get(name), expected) for name in self.names]
        return Markup("<tr>{}</tr>").format(join(cells))


class _Left:
    """How many rows and characters may still be drawn."""

    def __init__(self, rows: int, characters: int) -> None:
        self._rows, self._characters, self.drawn = rows, characters, 0

    def take(self, row: Markup) -> bool:
        """Whether the row may stand; the first always."""
        self._characters -= len(row)
        if self.drawn and (self.drawn >= self._rows or self._characters < 0):
            self._characters = -1
            return False
        self.drawn += 1
        return True


def _section(section: Section, form: _Form, left: _Left, *, opened: bool) -> Markup:
    title, meaning, rows = section
    kept = []
    for row in rows:
        drawn = form.row(row)
        if not left.take(drawn):
            break
        kept.append(drawn)
    body = [form.table(kept[:SHOWN])] if kept else []
    if len(kept) > SHOWN:
        more = form.table(kept[SHOWN:])
        body.append(Markup("<details><summary>{} more rows</summary>{}</details>").format(f"{len(kept) - SHOWN:,}", more))
    words = f"{title}: {len(rows):,} {'row' if len(rows) == 1 else 'rows'}"
    small = Markup(' <small class="nbt-dim">{}</small>').format(meaning) if meaning else Markup("")
    return Markup("<details{}><summary>{}{}</summary>{}</details>").format(Markup(" open") if opened else "", words, small, join(body))


def _answer(answer: Answer | None, expected: str | None) -> Markup:
    if answer is None:
        return Markup('<td class="nbt-none">{}</td>').format(NOTHING)
    said = shown(answer.output.strip(), _SAID)
    if not said:
        words = Markup('<span class="nbt-none">(empty)</span>')
    elif expected is None or answer.right or said == expected:
        words = Markup('<span class="nbt-x">{}</span>').format(said)
    else:
        words = Markup('<span class="nbt-x">{}</span>').format(marked(said, expected))
    told = _log_probabilities(answer)
    title = Markup(' title="{}"').format(told) if told else Markup("")
    return Markup("<td{}>{}{}{}</td>").format(title, mark(answer.right), "\u00a0" if answer.right is not None else "", words)


def _log_probabilities(answer: Answer) -> str:
    """The likeliest labels, in nats."""
    ranked = sorted((answer.log_probabilities or {}).items(), key=lambda pair: -pair[1])
    said = [f"{one_line(label, 30)} {figure(value)}" for label, value in ranked[:_LABELS]]
    said += [f"{len(ranked) - _LABELS} more"] if len(ranked) > _LABELS else []
    return f"log-probability: {', '.join(said)}" if said else ""


def _best(comparison: ComparisonView, kind: str) -> str | None:
    """The column of that kind with the best score."""
    rows: list[dict[str, Any]] = [row for row in records(comparison.table) if row.get("kind") == kind] if comparison.metric else []
    sign = -1 if comparison.metric in LESS_IS_BETTER else 1
    scored = [row for row in rows if isinstance(row.get(str(comparison.metric)), int | float)]
    best = max(scored, key=lambda row: sign * float(row[str(comparison.metric)]), default=None)
    return None if best is None else str(best["approach"])


def _right(row: AnswerRow, name: str) -> bool | None:
    answer = row.answers.get(name)
    return None if answer is None else answer.right


def _all(row: AnswerRow) -> bool | None:
    """Whether all are right, or none is; None: neither, or it is not known."""
    found = {answer.right for answer in row.answers.values()}
    return found.pop() if len(found) == 1 else None
