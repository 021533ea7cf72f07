"""`%strength RUN [STRENGTH ...]`: what was trained between the base and itself, and what each point gains and forgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from nbtune.errors import Problem
from nbtune.spec import Spec, option
from nbtune_magics.magic import Call, Magic
from nbtune_magics.notice import with_progress
from nbtune_magics.said import said
from nbtune_magics.suggestions import run_names
from nbtune_magics.warmup import warmed

if TYPE_CHECKING:
    import pandas as pd

    from nbtune_magics.notice import Report
    from nbtune_magics.steps import Steps

__all__ = ["STRENGTH"]


class StrengthSpec(Spec):
    """`%strength`: of what, and which text must not be forgotten."""

    what: ClassVar[str] = "option"

    retain: str | None = option(None, "the text whose loss is told: general, or a file; left out: the run's, or general", group="options")
    max_rows: int = option(64, "most dev rows that are answered", ge=1, group="options")


def _run(call: Call) -> Steps[Any]:
    problems, strengths = [], []
    if not call.words:
        problems.append(Problem("no run is named", "write %strength NAME; %runs lists them", 1))
    for word in call.words[1:]:
        try:
            strengths.append(float(word))
        except ValueError:
            problems.append(Problem(f"{word!r} is no strength", "write numbers from 0 to 2, such as 0 0.5 1", 1))
    spec = said(call, StrengthSpec, problems=problems).spec
    name = call.words[0]

    def look(report: Report) -> pd.DataFrame:
        import nbtune

        report("importing torch")
        warmed()
        report(f"{name}: asking it at {len(strengths) or 'five'} strengths")
        points = {"strengths": strengths} if strengths else {}
        return nbtune.open(name).strength(**points, retain=spec.retain, max_rows=spec.max_rows)

    found, notice = yield from with_progress(look, f"{name}: asking")
    from nbtune_widgets.strength import strength_html, strength_text

    notice.replace(strength_html(found, name), strength_text(found, name))
    call.shown.mark(found)
    return found


def _spec(_words: tuple[str, ...]) -> type[StrengthSpec]:
    return StrengthSpec


STRENGTH = Magic(
    name="strength",
    usage="%strength RUN [STRENGTH ...] [--retain general|FILE]",
    about="What a run trained, between 0 (the base) and 1 (as it was trained): its score on dev rows, and the loss of another text, which "
    "tells what is forgotten. Scales adapters that add; interpolates trained weights with the base's.",
    body="",
    run=_run,
    spec=_spec,
    names=run_names,
    choice="the run",
)
