"""The one anywidget: a run's state in traits, so that a reloaded page gets it back, and its curves as appended points."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anywidget
import traitlets

from nbtune_widgets.formats import distinct, shown
from nbtune_widgets.looks import gap, gap_text
from nbtune_widgets.series import pack

if TYPE_CHECKING:
    from nbtune.events import Sample
    from nbtune_widgets.progress import Progress

__all__ = ["POINTS", "LivePanel"]

POINTS: Final = 2000
CONTROLS: Final = frozenset({"stop", "pause", "resume", "evaluate", "sample", "checkpoint"})
LARGEST: Final = 1e300
_STATIC: Final = Path(__file__).parent / "static"


class LivePanel(anywidget.AnyWidget):
    """What the front end draws. One thread publishes; messages from the front end may come in on another.

    Points travel as numbered batches; the front end that misses a number asks for all of them ("snapshot"). `history` is packed anew
    whenever the whole state is asked for, as a reloaded page does, with the number of the last batch that was sent.
    """

    _esm = _STATIC / "panel.js"
    _css = _STATIC / "panel.css"

    state = traitlets.Dict().tag(sync=True)
    samples: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    history = traitlets.Bytes(b"").tag(sync=True)

    def __init__(
        self, progress: Progress, fixed: dict[str, Any], *, on_control: Callable[[str, float | None], None], on_ready: Callable[[], None]
    ) -> None:
        self.lock = threading.RLock()
        self._progress, self._fixed = progress, fixed
        self._on_control, self._on_ready = on_control, on_ready
        self._seq, self._sent, self._beat = 0, [len(curve) for curve in progress.curves], 0
        super().__init__(state=self._state(), samples=_samples(progress.samples), history=self._pack())
        self.on_msg(self._message)

    def publish(self) -> None:
        """Send what is new since the last time."""
        with self.lock:
            new = [len(curve) for curve in self._progress.curves]
            if self._progress.rewound:
                self._progress.rewound = False
                self._seq, self._sent = self._seq + 1, new
                self._send_snapshot()
            elif new != self._sent:
                pairs = zip(self._progress.curves, self._sent, strict=True)
                fresh = [(curve.xs[start:], curve.ys[start:]) for curve, start in pairs]
                self._seq, self._sent = self._seq + 1, new
                self.send({"type": "append", "seq": self._seq}, [pack(self._seq, fresh)])
            self._beat += 1
            with self.hold_sync():
                self.state = self._state()
                self.samples = _samples(self._progress.samples)

    def settle(self) -> None:
        """The last update: the curves go into the trait, too, where a second view finds them."""
        with self.lock:
            self.publish()
            self.history = self._pack()

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """The traits to sync; the whole state has the curves as they are now."""
        state: dict[str, Any] = super().get_state(key=key, drop_defaults=drop_defaults)
        if key is None and "history" in state:
            with self.lock:
                state["history"] = self._pack()
        return state

    def _message(self, _: object, content: Any, __: object) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "set":
            self._on_control("set", _number(content.get("learning_rate")))
        elif isinstance(kind, str) and kind in CONTROLS:
            self._on_control(kind, None)
        elif kind == "ready":
            self._on_ready()
        elif kind == "snapshot":
            with self.lock:
                self._send_snapshot()

    def _send_snapshot(self) -> None:
        self.send({"type": "snapshot", "seq": self._seq}, [self._pack()])

    def _pack(self) -> bytes:
        """The curves up to what was sent, thinned."""
        pairs = zip(self._progress.curves, self._sent, strict=True)
        cut = [type(curve)(curve.xs[:end], curve.ys[:end]).points(POINTS) for curve, end in pairs]
        return pack(self._seq, cut)

    def _state(self) -> dict[str, Any]:
        progress = self._progress
        step, started, failed = progress.step, progress.started, progress.failed
        known: dict[str, Any] = {
            **self._fixed,
            "seq": self._seq,
            "beat": self._beat,
            "status": progress.status,
            "phase": shown(progress.phase, 200),
            "step": progress.steps_done,
            "total_steps": progress.total_steps,
            "seconds": _finite(progress.seconds),
            "seconds_left": _finite(progress.seconds_left),
            "metric": shown(progress.metric, 60),
            "score": _finite(progress.score.last),
            "dev_loss": _finite(progress.dev_loss.last),
            "checkpoint_step": progress.checkpoint_step,
            "expected_memory_bytes": progress.expected_memory_bytes,
            **_measured(progress),
            "asked": sorted(progress.asked),
            "controls": dict(progress.controls),
            "refused": progress.refused,
            "peak_rate": _finite(progress.peak_rate),
            "answer": _answer(progress),
            "notes": [{"level": note.level, "text": shown(note.text, 500)} for note in progress.notes],
            "error": "" if failed is None else shown(f"{failed.kind}: {failed.message}", 1000),
            "hint": "" if failed is None else shown(failed.hint, 500),
        }
        if step is not None:
            known |= {
                name: _finite(getattr(step, name)) for name in ("epoch", "loss", "learning_rate", "tokens_per_second", "memory_bytes")
            }
        if started is not None:
            counted = ("num_rows", "trainable_parameters", "total_parameters", "device", "dtype")
            known |= {name: getattr(started, name) for name in counted}
        return known


def _measured(progress: Progress) -> dict[str, Any]:
    return {
        "gap": _finite(gap(progress.looks)),
        "gap_text": gap_text(progress.looks),
        "best_step": progress.best_step,
        "fill": _finite(progress.pace.fill),
        "parts": {part: _finite(seconds) for part, seconds in progress.pace.parts.items()},
        "skipped": len(progress.skipped),
        "marks": [{"step": mark.step, "text": shown(mark.text, 120)} for mark in progress.marks],
    }


def _answer(progress: Progress) -> dict[str, Any] | None:
    answer = progress.answer
    return None if answer is None else {"level": answer.level, "text": shown(answer.text, 300), "hint": shown(answer.hint, 300)}


def _number(value: Any) -> float | None:
    """What the page sent, if it is a finite number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _samples(samples: Sequence[Sample] | Any) -> list[dict[str, Any]]:
    prompts = distinct([sample.prompt for sample in samples])
    return [
        {
            "step": sample.step,
            "prompt": shown(prompt),
            "expected": shown(sample.expected.strip(), 400),
            "output": shown(sample.output.strip(), 400),
            "right": sample.output.strip() == sample.expected.strip(),
        }
        for sample, prompt in zip(reversed(samples), reversed(prompts), strict=True)
    ]
