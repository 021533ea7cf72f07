"""`%combine NAME RUN RUN ...`: the adapters of several runs on one base as one more run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbtune.combine import CombineSpec
from nbtune.errors import NbtuneError, Problem, SpecError
from nbtune_magics.magic import Call, Magic
from nbtune_magics.notice import with_progress
from nbtune_magics.output import bind, check_name
from nbtune_magics.said import said
from nbtune_magics.suggestions import run_names
from nbtune_magics.warmup import warmed

if TYPE_CHECKING:
    from nbtune import Run
    from nbtune_magics.notice import Report
    from nbtune_magics.steps import Steps

__all__ = ["COMBINE"]


def _run(call: Call) -> Steps[Run]:
    name, *runs = call.words or ("",)
    given = said(call, CombineSpec, problems=_problems(name, runs)).given

    def work(report: Report) -> Run:
        import nbtune

        report("importing torch")
        warmed()
        report(f"{name}: combining {', '.join(runs)}")
        return nbtune.combine(runs, name=name, report=lambda text: report(f"{name}: {text}"), **given)

    run, notice = yield from with_progress(work, f"{name}: combining")
    notice.replace()
    bind(call.shell, name, run, "run")
    return run


def _problems(name: str, runs: list[str]) -> list[Problem]:
    """What is wrong with the line's words."""
    from nbtune import open as open_run

    if not name:
        return [Problem("nothing is named", "write %combine NAME RUN RUN; %runs lists the runs", 1)]
    problems = []
    try:
        check_name(name)
    except SpecError as error:
        problems += list(error.problems)
    if len(runs) < 2:  # noqa: PLR2004
        problems.append(Problem(f"{name} is to be of {len(runs)} runs", "name two or more after it: %combine NAME RUN RUN", 1))
    for run in runs:
        try:
            open_run(run)
        except NbtuneError as error:
            problems.append(Problem(error.message, error.hint, 1))
    return problems


def _spec(_words: tuple[str, ...]) -> type[CombineSpec]:
    return CombineSpec


COMBINE = Magic(
    name="combine",
    usage="%combine NAME RUN RUN ... [--weights [0.7, 0.3]] [--how cat|svd|linear|ties ...]",
    about="The adapters of two or more runs on one base (lora, rslora, ia3) as one more run, called NAME, without training and without "
    "loading a model. It can be asked, compared, saved and opened like any other; `- run: NAME` puts it beside the others in a grid.",
    body="",
    run=_run,
    spec=_spec,
    more_names=run_names,
)
