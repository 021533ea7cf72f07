"""The search: variants are raced, the best are kept, new ones are written from them, and so on until rounds or the budget are at an end.

It is decided by what is answered alone. What was asked before is taken from what is kept, so that a killed search begins again at its
beginning and is, in no time, where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from nbtune.errors import ComparisonError
from nbtune.prompts.found import Found, Tried
from nbtune.prompts.proposing import Mistake, Requests
from nbtune.prompts.racing import BLOCK, Race, race
from nbtune.prompts.variants import Unusable

if TYPE_CHECKING:
    from nbtune.prompts.kept import KeptSearch, Said
    from nbtune.prompts.proposing import Proposer, Request
    from nbtune.prompts.rows import SearchRows
    from nbtune.prompts.variants import Frame, Variant
    from nbtune.task import Example, Task

__all__ = ["AskRows", "Plan", "Search"]

_LEARNT_FROM: Final = 16
"""Training rows that each parent is asked in a round, for its mistakes."""


class AskRows(Protocol):
    """How a variant is asked."""

    def __call__(self, variant: Variant, rows: Sequence[Example]) -> list[Said]:
        """Its answers to a few rows, all or none: what has been asked is kept, whoever leaves before the next."""


class Begin(Protocol):
    """What a variant takes before its first row."""

    def __call__(self, variant: Variant) -> Said:
        """Tokens and seconds; no text."""


@dataclass(frozen=True)
class Plan:
    """How far the search goes: see the options of `prompt-search`. `calibrating` calls come before each variant's first row."""

    calibrating: int
    rounds: int
    proposals: int
    beam: int
    level: float
    halve: bool
    seed: int
    max_calls: int | None
    max_seconds: float | None


@dataclass
class _Spent:
    """What the search has taken up to here, asked now or before."""

    scoring: int = 0
    calibrating: int = 0
    others: int = 0
    seconds: float = 0.0
    tokens: int = 0
    seen: set[tuple[str, str, int]] = field(default_factory=set)

    @property
    def calls(self) -> int:
        return self.scoring + self.calibrating + self.others

    def add(self, said: Said, *, scoring: int = 0, calibrating: int = 0, others: int = 0) -> None:
        self.scoring += scoring
        self.calibrating += calibrating
        self.others += others
        self.seconds += said.seconds
        self.tokens += said.tokens


class Search:
    """One search on one task's rows. `fits` says whether the model can read a variant."""

    def __init__(
        self,
        task: Task,
        rows: SearchRows,
        plan: Plan,
        *,
        ask: AskRows,
        begin: Begin,
        fits: Callable[[Variant], bool],
        kept: KeptSearch,
        report: Callable[[str], None],
        frame: Frame,
        proposer: Proposer | None = None,
    ) -> None:
        self._task, self._rows, self._plan = task, rows, plan
        self._ask, self._begin, self._fits, self._kept, self._report = ask, begin, fits, kept, report
        self._frame, self._proposer = frame, proposer
        self._spent = _Spent()
        self._all: list[Variant] = []
        self._asked_rows: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._halved: set[str] = set()
        self._refused: Counter[str] = Counter()
        self._ended = ""

    def run(self, given: Sequence[Variant]) -> Found:
        """The best variant there is, and all that were tried.

        Raises:
            ComparisonError: the proposer failed, or wrote nothing.
            ModelError: the model cannot answer, or the proposer cannot read what it is asked.
        """
        try:
            pool = list(given)
            self._all += pool
            for number in range(1, max(1, self._plan.rounds) + 1):
                new = self._proposed(pool, number) if self._plan.rounds else []
                if number > 1 and not new:
                    break
                self._all += new
                ran = self._race([*pool, *new], number)
                pool = self._ranked([variant for variant in [*pool, *new] if variant.source not in self._dropped])[: self._plan.beam]
                if ran.rows < len(self._rows.scored):
                    break
        finally:
            self._kept.write(now=True)
        return self._found()

    # ---- racing

    def _race(self, variants: Sequence[Variant], number: int) -> Race:
        """Races variants; of those asked before what they answered stands."""
        metric, total = self._task.metric, len(self._rows.scored)

        def ask(place: int, begin: int, end: int) -> list[float]:
            self._report(self._state(variants, number, begin))
            rows = self._rows.scored[begin:end]
            said = self._answers(variants[place], rows, scoring=True)
            self._asked_rows[variants[place].source] = max(end, self._asked_rows.get(variants[place].source, 0))
            scores = metric.rows([each.text for each in said], [row.expected for row in rows])
            return [metric.row_sign * score / (metric.most or 1.0) for score in scores]

        def affords(racing: Sequence[int], end: int) -> bool:
            return self._affords(sum(self._cost(variants[place], end) for place in racing))

        new = [place for place, variant in enumerate(variants) if self._asked_rows.get(variant.source, 0) < total]
        ran = race(
            len(variants),
            total,
            ask,
            level=self._plan.level,
            bounded=metric.most is not None,
            halve=new if self._plan.halve else (),
            affords=affords,
        )
        for variant, rows in zip(variants, ran.dropped_after, strict=True):
            if rows is not None:
                self._dropped[variant.source] = rows
        self._halved |= {variants[number].source for number in ran.halved}
        return ran

    def _state(self, variants: Sequence[Variant], number: int, rows: int) -> str:
        going = sum(variant.source not in self._dropped for variant in variants)
        turn = f"round {number} of {self._plan.rounds}, " if self._plan.rounds else ""
        return f"{turn}{going} templates on row {rows + 1} of {len(self._rows.scored)}, {self._spent.calls:,} calls so far"

    def _affords(self, calls: int) -> bool:
        """Whether the budget allows so many more calls; where not, that is what ends the search. What is free is always allowed."""
        plan, spent = self._plan, self._spent
        over = ""
        if plan.max_calls is not None and spent.calls + calls > plan.max_calls:
            over = f"max_calls {plan.max_calls:,} ended the search"
        elif spent.scoring and plan.max_seconds is not None and spent.seconds >= plan.max_seconds:
            over = f"max_seconds {plan.max_seconds:g} ended the search"
        self._ended = over if calls else self._ended
        return not (over and calls)

    def _cost(self, variant: Variant, end: int) -> int:
        """Calls up to so many rows."""
        asked = self._asked_rows.get(variant.source, 0)
        return max(0, end - asked) + (0 if asked else self._plan.calibrating)

    def _answers(self, variant: Variant, rows: Sequence[Example], *, scoring: bool) -> list[Said]:
        """What was answered before, and the rest asked now; counted once."""
        if self._plan.calibrating and not self._asked_rows.get(variant.source):
            said = self._once("calibration", variant.source, lambda: self._begin(variant))
            self._spent.add(said, calibrating=self._plan.calibrating)
        lacking = [row for row in rows if self._kept.answer(variant.source, row) is None]
        if lacking:
            for row, said in zip(lacking, self._ask(variant, lacking), strict=True):
                self._kept.put_answer(variant.source, row, said)
            self._kept.write()
        found = self._kept.answers(variant.source, rows)
        for row, said in zip(rows, found, strict=True):
            name = (variant.source, row.split, row.index)
            if name not in self._spent.seen:
                self._spent.seen.add(name)
                self._spent.add(said, scoring=scoring, others=not scoring)
        return found

    # ---- proposing

    def _proposed(self, pool: Sequence[Variant], number: int) -> list[Variant]:
        """New variants, at most as many as the budget lets be asked once; none that is there already."""
        if self._proposer is None:
            return []
        parents = [(variant, self._mistakes(variant, number) if number > 1 else []) for variant in pool]
        count = self._affordable(pool)
        requests = Requests(self._task, self._frame, self._proposer, self._rows.others, self._plan.seed).of_round(number, count, parents)
        found: list[Variant] = []
        written: list[str] = []
        for place, request in enumerate(requests):
            self._report(f"round {number} of {self._plan.rounds}, {self._proposer.name} writes {place + 1} of {count}")
            written.append(self._written(self._proposer, request, f"{number}.{place}"))
            try:
                self._admit(self._frame.variant(written[-1], f"round {number}"), found)
            except Unusable as reason:
                self._refused[reason.message] += 1
        if number == 1 and written and not any(text.strip() for text in written):
            message = f"prompt-search: the proposer {self._proposer.name} was asked {len(written)} times and wrote nothing"
            raise ComparisonError(message, hint="name another proposer: a model that answers instructions, or a function str -> str")
        return found

    def _affordable(self, pool: Sequence[Variant]) -> int:
        """How many proposals can be asked for and looked at once."""
        plan = self._plan
        if plan.max_calls is None or not self._affords(1):
            return plan.proposals if self._affords(1) else 0
        look = plan.calibrating + BLOCK
        first = look * sum(variant.source not in self._asked_rows for variant in pool)
        count = min(plan.proposals, (plan.max_calls - self._spent.calls - first) // (1 + look))
        return count if count > 0 else int(self._affords(first + 1 + look))

    def _mistakes(self, variant: Variant, number: int) -> list[Mistake]:
        """What a variant gets wrong of some training rows, others in each round; of a metric of degrees the worst half."""
        others = self._rows.others
        begin = (number - 2) * _LEARNT_FROM % max(1, len(others))
        rows = [*others[begin : begin + _LEARNT_FROM]]
        if not rows or not self._affords(len(rows)):
            return []
        self._report(f"round {number} of {self._plan.rounds}, looking for mistakes on {len(rows)} training rows")
        said = self._answers(variant, rows, scoring=False)
        metric = self._task.metric
        scores = metric.rows([each.text for each in said], [row.expected for row in rows])
        order = sorted(range(len(rows)), key=lambda place: metric.row_sign * scores[place])
        wrong = [place for place in order if scores[place] < (metric.most or 1.0)] if metric.row_sign > 0 else order
        return [Mistake(rows[place], said[place].text) for place in wrong[: max(1, len(rows) // 2)]]

    def _written(self, proposer: Proposer, request: Request, place: str) -> str:
        """What a proposer writes, or wrote before in this place."""
        said = self._once(place, f"{request.text} {request.begin}", lambda: proposer.write(request))
        self._spent.add(said, others=1)
        return said.text

    def _once(self, place: str, request: str, ask: Callable[[], Said]) -> Said:
        """What was said to a request in this place of the search, before or now."""
        said = self._kept.proposal(place, request)
        if said is None:
            said = ask()
            self._kept.put_proposal(place, request, said)
            self._kept.write(now=True)
        return said

    def _admit(self, variant: Variant, found: list[Variant]) -> None:
        """Adds what can be asked and was not there.

        Raises:
            Unusable: as it says.
        """
        if any(variant.words == other.words for other in (*self._all, *found)):
            raise Unusable("said before")
        if not self._fits(variant):
            raise Unusable("cannot be filled, or too long for the model")
        found.append(variant)

    # ---- the result

    def _asked_of(self, variant: Variant) -> Sequence[Example]:
        return self._rows.scored[: self._asked_rows.get(variant.source, 0)]

    def _score(self, variant: Variant) -> float:
        rows = self._asked_of(variant)
        outputs = [said.text for said in self._kept.answers(variant.source, rows)]
        return self._task.metric.score(outputs, [row.expected for row in rows])

    def _ranked(self, variants: Sequence[Variant]) -> list[Variant]:
        """The best first: of those asked most rows, by their score; of equals the first."""
        asked = [variant for variant in variants if self._asked_rows.get(variant.source)]
        return sorted(asked, key=lambda variant: (-self._asked_rows[variant.source], -self._task.metric.sign * self._score(variant)))

    def _found(self) -> Found:
        standing = self._ranked([each for each in self._all if each.source not in self._dropped])
        behind = sorted((each for each in self._all if each.source in self._dropped), key=lambda each: -self._dropped[each.source])
        return Found(
            metric=self._task.metric,
            tried=tuple(self._tried(variant) for variant in (*standing, *behind)),
            winner=standing[0],
            rows=self._rows.told,
            total=len(self._rows.scored),
            scoring_calls=self._spent.scoring,
            calibrating_calls=self._spent.calibrating,
            other_calls=self._spent.others,
            seconds=self._spent.seconds,
            tokens=self._spent.tokens,
            refused=dict(self._refused),
            ended=self._ended,
            level=self._plan.level,
            halved=len(self._halved),
            trouble=self._kept.trouble,
        )

    def _tried(self, variant: Variant) -> Tried:
        rows = self._asked_of(variant)
        said = self._kept.answers(variant.source, rows)
        dropped = self._dropped.get(variant.source)
        return Tried.of(self._task.metric, variant, said, [row.expected for row in rows], dropped_after=dropped)
