"""A line on the page for what takes longer than a moment, gone when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from typing import Any, Final, TypeVar

from nbtune_magics.output import handle
from nbtune_magics.steps import Steps, in_thread

__all__ = ["Notice", "Report", "with_notice", "with_progress"]

T = TypeVar("T")
Report = Callable[[str], None]
MOMENT: Final = 0.1
BETWEEN: Final = 0.2


class Notice:
    """One line that can be rewritten from any thread, at most five times a second, and replaced at the end."""

    def __init__(self) -> None:
        self._place: Any = None
        self._drawn, self._text = 0.0, ""

    def say(self, text: str) -> None:
        """Shows `text` in place of what stood there; skipped where it stands there already, or the last line is fresh."""
        now = time.monotonic()
        if text == self._text or now - self._drawn < BETWEEN:
            return
        self._drawn, self._text = now, text
        self._put(f"<p>{escape(text)}</p>", text)

    def replace(self, html: str = "", text: str = "") -> None:
        """Puts the result there; nothing, where only the line was wanted."""
        if self._place is not None or html or text:
            self._put(html, text)

    def _put(self, html: str, text: str) -> None:
        if self._place is None:
            self._place = handle(html, text)
        else:
            self._place.update({"text/html": html, "text/plain": text}, raw=True)


def with_notice(work: Callable[[], T], text: str) -> Steps[T]:
    """The result of `work`, done in a thread; `text` stands on the page where it takes longer than a moment."""
    result, notice = yield from with_progress(lambda _report: work(), text)
    notice.replace()
    return result


def with_progress(work: Callable[[Report], T], text: str) -> Steps[tuple[T, Notice]]:
    """(the result of `work`, done in a thread, the line to put it in); what `work` reports stands there meanwhile.

    Raises:
        KeyboardInterrupt: at the first interrupt; `work` ends when it reports next.
    """
    notice, said = Notice(), _Said(text)
    steps = in_thread(lambda: work(said.report))
    began = time.monotonic()
    try:
        next(steps)
        while True:
            count = yield
            if time.monotonic() - began > MOMENT:
                notice.say(said.text)
            steps.send(count)
    except StopIteration as end:
        result: T = end.value
        return result, notice
    except BaseException:
        said.left = True
        notice.replace()
        raise


class _Said:
    """What the work says of itself, from its own thread."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.left = False

    def report(self, text: str) -> None:
        """Keeps `text` for the page.

        Raises:
            KeyboardInterrupt: nobody waits any more.
        """
        if self.left:
            raise KeyboardInterrupt
        self.text = text
