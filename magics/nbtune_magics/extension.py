"""What `%load_ext nbtune` puts into a shell, and what unloading takes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbtune.launch.signals import stop_on_sigterm
from nbtune_magics.combine import COMBINE
from nbtune_magics.compare import COMPARE
from nbtune_magics.completion import Completion
from nbtune_magics.doctor import DOCTOR
from nbtune_magics.finetune import FINETUNE
from nbtune_magics.index import INDEX
from nbtune_magics.instructions import INSTRUCTIONS
from nbtune_magics.magic import Magic, Registered
from nbtune_magics.methods import METHODS
from nbtune_magics.output import Shown
from nbtune_magics.prompt import PROMPT
from nbtune_magics.runs import RUNS
from nbtune_magics.strength import STRENGTH
from nbtune_magics.task import TASK
from nbtune_magics.transform import AwaitMagics, BodylessCells
from nbtune_magics.tune import TUNE
from nbtune_magics.warmup import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["MAGICS", "load", "unload"]

MAGICS: tuple[Magic, ...] = (TASK, INSTRUCTIONS, DOCTOR, METHODS, FINETUNE, INDEX, PROMPT, COMPARE, TUNE, STRENGTH, COMBINE, RUNS)

_loaded: dict[int, _Loaded] = {}


@dataclass(frozen=True)
class _Loaded:
    """What was put into one shell."""

    bodyless: BodylessCells
    awaiting: AwaitMagics
    callbacks: tuple[tuple[str, Callable[..., None]], ...]
    matcher: Any


def load(shell: InteractiveShell) -> None:
    """Puts the magics into `shell`; loading twice is loading once."""
    if id(shell) in _loaded:
        return
    names = [magic.name for magic in MAGICS]
    shown = Shown(shell)
    awaiting = AwaitMagics([magic.name for magic in MAGICS if magic.waits], lambda: _awaits_on_asyncio(shell))
    # The cell that loads us runs now, and will end: it has to be counted.
    awaiting.enter()
    matcher = Completion(shell, MAGICS).matcher()
    found = _Loaded(
        bodyless=BodylessCells(names),
        awaiting=awaiting,
        callbacks=(("pre_run_cell", awaiting.enter), ("post_run_cell", awaiting.leave), ("post_run_cell", shown.forget)),
        matcher=matcher,
    )
    for magic in MAGICS:
        shell.magics_manager.register_function(Registered(magic, shell, shown), magic_kind="line_cell", magic_name=magic.name)
    shell.input_transformers_cleanup.append(found.bodyless)
    shell.input_transformers_post.append(found.awaiting)
    for event, callback in found.callbacks:
        shell.events.register(event, callback)
    shell.Completer.custom_matchers.append(matcher)
    _loaded[id(shell)] = found
    stop_on_sigterm()
    warm_up()


def _awaits_on_asyncio(shell: InteractiveShell) -> bool:
    """Whether `%autoawait` is on and has not been set to trio, curio or sync."""
    from IPython.core.async_helpers import _asyncio_runner  # as ipykernel asks whether cells may be awaited

    return bool(shell.autoawait) and shell.loop_runner is _asyncio_runner


def unload(shell: InteractiveShell) -> None:
    """Takes out what `load` put in."""
    found = _loaded.pop(id(shell), None)
    if found is None:
        return
    for magic in MAGICS:
        for kind in ("line", "cell"):
            shell.magics_manager.magics[kind].pop(magic.name, None)
    shell.input_transformers_cleanup.remove(found.bodyless)
    shell.input_transformers_post.remove(found.awaiting)
    for event, callback in found.callbacks:
        shell.events.unregister(event, callback)
    shell.Completer.custom_matchers.remove(found.matcher)
