"""What a magic shows, and the names it binds: each thing once, each said in one line."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import SpecError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Place", "Shown", "bind", "check_name", "handle", "in_notebook", "say", "show", "variable"]

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_OURS: Final = ("nbtune", "nbtune_magics", "nbtune_widgets")


class Shown:
    """Keeps what a magic has displayed from being displayed again as the cell's result, while `_` and `x = %magic` still get it.

    IPython asks `ipython_display_formatter` first and shows nothing more where it answers; it is asked about the type of
    one object, until the cell ends.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        display_formatter: Any = shell.display_formatter
        self._formatter = display_formatter.ipython_display_formatter
        self._objects: list[Any] = []

    def mark(self, thing: Any) -> None:
        """`thing` stands on the page already."""
        self._objects.append(thing)
        self._formatter.for_type(type(thing), self._print)

    def forget(self, *_: Any) -> None:
        """The cell has ended (post_run_cell): everything is displayed as usual again."""
        for thing in self._objects:
            self._formatter.pop(type(thing), None)
        self._objects.clear()

    def _print(self, thing: Any) -> None:
        if any(thing is known for known in self._objects):
            return
        self._formatter.pop(type(thing), None)
        try:
            show(thing)
        finally:
            self._formatter.for_type(type(thing), self._print)


class Place:
    """The cell that runs now, as a place where output can go later: what a button's handler displays belongs to no cell by itself."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._publisher: Any = shell.display_pub
        self._header = getattr(self._publisher, "parent_header", None)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Within it, what this thread displays goes below that cell."""
        if self._header is None:
            yield
            return
        before = self._publisher.parent_header
        self._publisher.set_parent(self._header)
        try:
            yield
        finally:
            self._publisher.set_parent(before)


def show(thing: Any, *, html: str | None = None, text: str | None = None) -> None:
    """Displays `thing`, or what is given as HTML and as plain text in its place."""
    from IPython import display

    if html is None and text is None:
        _untyped(display.display)(thing)
    else:
        _untyped(display.display)({"text/html": html or "", "text/plain": text or ""}, raw=True)


def handle(html: str, text: str) -> Any:
    """A place on the page that can be replaced later, from any thread: `.update({...}, raw=True)`."""
    from IPython import display

    place: Any = _untyped(display.DisplayHandle)()
    place.display({"text/html": html, "text/plain": text}, raw=True)
    return place


def _untyped(function: Any) -> Any:
    """IPython's display functions have no types."""
    return function


def say(text: str) -> None:
    """One line under the cell."""
    print(text)  # noqa: T201  (a cell's output is the place to say it)


def check_name(name: Any) -> str:
    """`name` where it can name a thing of the project and, with `_` for `-`, a variable.

    Raises:
        SpecError: it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or keyword.iskeyword(variable(name)):
        message = f"{name!r} cannot be a name"
        raise SpecError(message, hint="use letters, digits, - and _, beginning with a letter; at most 64 signs")
    return name


def variable(name: str) -> str:
    """The variable that a name is bound to."""
    return name.replace("-", "_")


def bind(shell: InteractiveShell, name: str, thing: Any, what: str) -> None:
    """Binds the variable `name` (`-` becomes `_`) to `thing` and says so; something of the user's own is never overwritten."""
    target = variable(name)
    there = shell.user_ns.get(target)
    if there is not None and type(there).__module__.partition(".")[0] not in _OURS:
        say(f"{what} {name}. The variable {target} holds your {type(there).__name__} and keeps it")
        return
    shell.user_ns[target] = thing
    say(f"{what} {name}, bound to the variable {target}")


def in_notebook() -> bool:
    """Whether the shell is a Jupyter kernel's: a terminal has no panel to show."""
    import sys

    zmqshell = sys.modules.get("ipykernel.zmqshell")
    if zmqshell is None:
        return False
    from IPython.core.getipython import get_ipython

    return isinstance(get_ipython(), zmqshell.ZMQInteractiveShell)
