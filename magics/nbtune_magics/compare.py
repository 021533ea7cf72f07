"""`%%compare`: the grid of approaches on the task's test rows, and the Comparison as the cell's value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbtune import approaches
from nbtune.errors import Problem
from nbtune.spec import CompareSpec
from nbtune_magics.columns import checked
from nbtune_magics.magic import AS, Call, Magic
from nbtune_magics.notice import with_progress
from nbtune_magics.output import bind
from nbtune_magics.said import no_more_words, said_of_task
from nbtune_magics.suggestions import approach_spec, describe_approach
from nbtune_magics.warmup import warmed

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbtune import Comparison, Task
    from nbtune_magics.said import Said
    from nbtune_magics.steps import Steps

__all__ = ["COMPARE"]


def _run(call: Call) -> Steps[Any]:
    call = no_more_words(call, 0, "approaches stand in the body, one `- approach` a line; flags are written --key value")
    entries, problems = checked(_entries(call), call.shell.user_ns)
    if not entries:
        problems.append(Problem("there is nothing to compare", "write - zero-shot, - few-shot, - run: NAME, one a line"))
    chosen, task = said_of_task(call, CompareSpec, problems=problems, approaches=entries)
    comparison, notice = yield from with_progress(_work(chosen, task, entries), "comparing")
    from nbtune_widgets.comparison import comparison_html, comparison_text

    notice.replace(comparison_html(comparison), comparison_text(comparison))
    if chosen.name is not None:
        bind(call.shell, chosen.name, comparison, "comparison")
    call.shown.mark(comparison)
    return comparison


def _entries(call: Call) -> list[tuple[Any, int | None]]:
    """The approaches with their lines: the items of a list body, or those under `approaches:`."""
    if call.items is not None:
        return [(item, call.lines.get(str(number))) for number, item in enumerate(call.items)]
    entries = call.values.get("approaches") or []
    return [(item, call.lines.get("approaches")) for item in (entries if isinstance(entries, list) else [entries])]


def _work(chosen: Said, task: Task, entries: list[Any]) -> Callable[[Callable[[str], None]], Comparison]:
    def work(report: Callable[[str], None]) -> Comparison:
        import nbtune

        report("importing torch")
        warmed()
        given = {key: value for key, value in chosen.given.items() if key not in ("approaches", "name")}
        return nbtune.compare(entries, task=task, report=report, **given)

    return work


def _spec(_words: tuple[str, ...]) -> type[CompareSpec]:
    return CompareSpec


COMPARE = Magic(
    name="compare",
    usage="%%compare --task NAME [--as NAME] [--key value ...]",
    about="Answers the task's test rows by every approach, the same rows asked the same way, and scores them with 95 % intervals "
    "and paired tests.",
    body="a list of approaches, one `- zero-shot`, `- few-shot: {k: 8}`, `- run: NAME` or `- FUNCTION` of the notebook a line; "
    "or `approaches:`, `inputs:` and the options",
    run=_run,
    spec=_spec,
    own=(AS,),
    choice="approaches",
    describe=describe_approach,
    parts=approaches.names,
    part_spec=approach_spec,
    waits=True,
)
