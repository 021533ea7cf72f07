"""`%%finetune METHOD`: trains in the cell, live, and returns the Run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbtune import methods
from nbtune.errors import Problem, SpecError
from nbtune.spec import FinetuneSpec
from nbtune_magics.magic import AS, BACKGROUND, Call, Magic
from nbtune_magics.notice import Report, with_progress
from nbtune_magics.output import bind, in_notebook, say
from nbtune_magics.said import Said, no_more_words, said_of_task
from nbtune_magics.steps import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbtune import Run, Task
    from nbtune_magics.steps import Steps

__all__ = ["FINETUNE", "describe", "method_of", "spec_of", "tell_old_kernels"]


def _run(call: Call) -> Steps[Any]:
    method = method_of(call)
    call = no_more_words(call, 1, "one method a cell; flags are written --key value")
    _refuse_a_list(call)
    chosen, task = said_of_task(call, method.spec)
    run, notice = yield from with_progress(_start(method.name, task, chosen), f"{method.name} on {task.name}: starting")
    notice.replace()
    from nbtune_widgets.panel import RunPanel

    panel = RunPanel(run)
    panel.show()
    if chosen.name is not None:
        bind(call.shell, chosen.name, run, "run")
    if in_notebook():
        call.shown.mark(run)
    if call.own.get("background"):
        return run
    tell_old_kernels()
    try:
        yield from in_thread(run.wait, interrupted=_interrupted(run))
    finally:
        panel.close()
    return run


def _start(method: str, task: Task, chosen: Said) -> Callable[[Report], Run]:
    def start(report: Report) -> Run:
        import nbtune

        run = nbtune.finetune(method, task=task, **chosen.given)
        try:
            report(f"{method} on {task.name}: started")
        except KeyboardInterrupt:
            # The cell was left meanwhile: a run that nobody sees must not go on.
            run.stop()
            raise
        return run

    return start


def method_of(call: Call) -> Any:
    """The method that the line names.

    Raises:
        SpecError: it names none, or one that there is not; other problems of the line are told too.
    """
    known = ", ".join(methods.names())
    try:
        if not call.words:
            raise SpecError("no method is named", hint=f"one of: {known}")  # noqa: TRY301
        return methods.get(call.words[0])
    except SpecError as error:
        unknown = [problem for problem in call.problems if not problem.message.startswith("unknown flag")]
        raise SpecError.of([Problem(error.message, error.hint, 1), *unknown]) from None


def spec_of(words: tuple[str, ...]) -> type[FinetuneSpec]:
    """The options of the method that the first word names, or what all methods share."""
    try:
        return methods.get(words[0]).spec if words else FinetuneSpec
    except SpecError:
        return FinetuneSpec


def describe(method: str) -> str:
    """One line on a method."""
    return methods.get(method).summary


def _refuse_a_list(call: Call) -> None:
    if call.items is not None:
        raise SpecError.of([*call.problems, Problem("the body is a list", "write one `key: value` a line", call.lines.get("0"))])


def _interrupted(run: Run) -> Callable[[int], None]:
    def stop(count: int) -> None:
        run.stop()
        if count > 1:
            raise KeyboardInterrupt
        when = "after this step, with a checkpoint" if any(event.type == "step" for event in run.events()) else "before it begins"
        say(f"{run.name}: stopping {when}; interrupt again to leave the cell at once")

    return stop


def tell_old_kernels() -> None:
    """Before ipykernel 7.4 a running cell, awaited or not, keeps the panel's buttons from being heard."""
    import sys

    kernel = sys.modules.get("ipykernel")
    if kernel is not None and tuple(kernel.version_info[:2]) < (7, 4):
        say("interrupt the kernel to stop the run; on this ipykernel the panel's buttons work with --background only")


FINETUNE = Magic(
    name="finetune",
    usage="%%finetune METHOD --task NAME [--model MODEL] [--as NAME] [--background] [--key value ...]",
    about="Trains a model on a task, live in the cell. Interrupting the kernel stops it after the step, with a checkpoint; "
    "a second interrupt leaves the cell.",
    run=_run,
    spec=spec_of,
    own=(AS, BACKGROUND),
    names=methods.names,
    choice="methods",
    describe=describe,
    waits=True,
)
