"""The live panel of a run: one widget that follows its events, and the static content that takes its place at the end."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import NbtuneError, SpecError
from nbtune_widgets.formats import shown
from nbtune_widgets.progress import OVER, Answer, Progress
from nbtune_widgets.static import progress_html, run_html, run_text

if TYPE_CHECKING:
    from nbtune.events import Event
    from nbtune_widgets._live import LivePanel
    from nbtune_widgets.protocols import RunView, SteeredRun

__all__ = ["RunPanel"]

PUBLISH_SECONDS: Final = 0.2
HEARTBEAT_SECONDS: Final = 4.0
READY_SECONDS: Final = 3.0
BUSY_SECONDS: Final = 10.0
WIDGET_MIME: Final = "application/vnd.jupyter.widget-view+json"
_log = logging.getLogger(__name__)


class RunPanel:
    """Shows a run live in a notebook; without a notebook kernel it shows nothing.

    Events are only noted on the thread that trains. A thread of the panel folds them, sends at most five messages a second, and ends
    with the run. Where the front end does not report within three seconds in which the kernel could have heard it (ten while the
    kernel is busy), HTML progress takes the widget's place until it does.
    """

    def __init__(self, run: SteeredRun) -> None:
        self._run = run
        rate = run.spec.get("learning_rate")
        self._progress = Progress(peak_rate=float(rate) if isinstance(rate, int | float) else None)
        self._noted: deque[Event] = deque()
        self._folded = 0
        self._latest: deque[tuple[Any, ...]] = deque(maxlen=64)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._ready = threading.Event()
        self._hearing_since: float | None = None
        self._widget: LivePanel | None = None
        self._handle: Any = None
        self._thread: threading.Thread | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._html_drawn: float | None = None

    def show(self) -> None:
        """Draw at once and return; what is not known yet comes as the run tells it. A run that is over is drawn static."""
        if not _in_notebook() or self._widget is not None:
            return
        self._subscribe()
        if self._run.status in OVER or self._progress.over:
            self._release()
            _display(_static(self._run))
            return
        from nbtune_widgets._live import LivePanel

        fixed = {"id": self._run.id, "name": shown(self._run.name, 80), "method": shown(self._run.method, 60)}
        self._widget = LivePanel(self._progress, fixed, on_control=self._control, on_ready=self._is_ready)
        self._handle = _display(self._bundle(), display_id=f"nbtune-{self._run.id}-{time.monotonic_ns():x}")
        self._ask_the_kernel()
        self._thread = threading.Thread(target=self._follow, args=(self._widget,), name=f"nbtune-panel-{self._run.id}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End following: a last update, then the static content in the widget's place. The second time it does nothing."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)

    def _subscribe(self) -> None:
        """Listen first and fold the past second, so that nothing falls between; what is in both is folded once."""
        self._unsubscribe = self._run.listen(self._note)
        self._catch_up()
        self._progress.rewound = False

    def _release(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _catch_up(self) -> None:
        """Fold what the run has told and this panel has not heard, as of a run in another process."""
        for event in list(self._run.events())[self._folded :]:
            self._take(event)

    def _take(self, event: Event) -> None:
        key = (event.type, event.time, getattr(event, "step", None), getattr(event, "row", None))  # NaN would not equal itself
        if key not in self._latest:
            self._latest.append(key)
            self._progress.add(event)
            self._folded += 1

    def _note(self, event: Event) -> None:
        self._noted.append(event)
        self._wake.set()

    def _control(self, action: str, value: float | None) -> None:
        """Runs in a message handler, which must not raise. What is asked for is noted first: it may take effect before the call returns."""
        assert self._widget is not None  # noqa: S101  its message came here
        with self._widget.lock:
            if self._progress.over:
                return
            self._progress.ask(action)
        answer = self._ask_the_run(action, value)
        if answer is not None:
            with self._widget.lock:
                self._progress.refuse(action, answer)
        self._wake.set()

    def _ask_the_run(self, action: str, value: float | None) -> Answer | None:
        """What is wrong with the request, if anything is."""
        try:
            if action == "set":
                self._run.set(learning_rate=_a_number(value))
            elif action != "resume" or self._run.status not in OVER:  # to resume a run that is over would start it again
                getattr(self._run, action)()
        except NbtuneError as error:
            return Answer("error", error.message, error.hint)
        except Exception as error:  # noqa: BLE001  a handler of the widget swallows it: it is logged and shown instead
            _log.exception("run %s could not be asked to %s", self._run.id, action)
            return Answer("error", f"{type(error).__name__}: {error}")
        return None

    def _is_ready(self) -> None:
        self._ready.set()
        self._wake.set()

    def _ask_the_kernel(self) -> None:
        """Learn when the kernel gets to its messages: a busy one (it imports, or a blocking cell runs) cannot hear a front end."""

        def hears() -> None:
            self._hearing_since = time.monotonic()

        kernel = sys.modules["IPython"].get_ipython().kernel
        kernel.io_loop.add_callback(kernel.io_loop.call_later, 0.1, hears)

    def _follow(self, widget: LivePanel) -> None:
        began = time.monotonic()
        try:
            while True:
                silent = not self._wake.wait(HEARTBEAT_SECONDS if self._ready.is_set() else 1.0)
                self._wake.clear()
                over = self._fold(widget, ask=silent)
                if over or self._closing.is_set():
                    break
                widget.publish()
                self._fall_back(began)
                self._closing.wait(PUBLISH_SECONDS)
        except Exception:  # noqa: BLE001  a panel that breaks must not look like a run that broke
            _log.exception("the panel of run %s broke; the run itself goes on", self._run.id)
        finally:
            self._end(widget)

    def _fold(self, widget: LivePanel, *, ask: bool) -> bool:
        """Take in what was noted, and `ask` a silent run itself; True when it is over, also where it ended without a word."""
        status = self._run.status if ask else ""
        with widget.lock:
            while self._noted:
                self._take(self._noted.popleft())
            if ask:
                self._catch_up()
            if status in OVER and not self._progress.over:
                self._progress.status = status
        return self._progress.over

    def _fall_back(self, began: float) -> None:
        """HTML progress where no widget came up; drawn the more rarely the longer it goes on, for every drawing is kept."""
        now = time.monotonic()
        if self._ready.is_set():
            if self._html_drawn is not None:
                self._html_drawn = None
                self._handle.update(self._bundle(), raw=True)
        elif self._is_mute(now, began) and (self._html_drawn is None or now - self._html_drawn >= min(30.0, max(1.0, (now - began) / 60))):
            self._html_drawn = now
            self._handle.update({"text/html": progress_html(self._run, self._progress), "text/plain": run_text(self._run)}, raw=True)

    def _is_mute(self, now: float, began: float) -> bool:
        since = self._hearing_since
        return now - since > READY_SECONDS if since is not None else now - began > BUSY_SECONDS

    def _end(self, widget: LivePanel) -> None:
        self._release()
        self._fold(widget, ask=True)
        widget.settle()
        self._handle.update(_static(self._run), raw=True)

    def _bundle(self) -> dict[str, Any]:
        assert self._widget is not None  # noqa: S101  show() made it
        return {WIDGET_MIME: {"version_major": 2, "version_minor": 0, "model_id": self._widget.model_id}, **_static(self._run)}


def _a_number(value: float | None) -> float:
    if value is None:
        message = "the learning rate must be a number"
        raise SpecError(message, hint="write it as 2e-4 or 0.0002")
    return value


def _static(run: RunView) -> dict[str, str]:
    return {"text/html": run_html(run), "text/plain": run_text(run)}


def _display(bundle: dict[str, Any], **options: Any) -> Any:
    from IPython.display import display

    return display(bundle, raw=True, **options)  # type: ignore[no-untyped-call]


def _in_notebook() -> bool:
    """Whether there is a kernel whose front end could show a widget; a plain script or a terminal shell has none."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None
