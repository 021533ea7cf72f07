"""A run's events folded into what is shown of it: figures, curves, samples, notes. Live and static views are both made of this."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from nbtune import events as ev
from nbtune_widgets.protocols import RunView
from nbtune_widgets.series import Curve

__all__ = ["OVER", "Progress"]

OVER: Final = frozenset({"finished", "stopped", "failed", "interrupted"})
SAMPLES: Final = 6
NOTES: Final = 50


@dataclass
class Progress:
    """What is known of a run so far. One thread adds events; `rewound` tells that a curve lost points since it was last cleared."""

    status: str = "starting"
    phase: str = ""
    started: ev.Started | None = None
    step: ev.Step | None = None
    evaluation: ev.Evaluation | None = None
    failed: ev.Failed | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    metric: str = ""
    checkpoint_step: int | None = None
    loss: Curve = field(default_factory=Curve)
    dev_loss: Curve = field(default_factory=Curve)
    score: Curve = field(default_factory=Curve)
    learning_rate: Curve = field(default_factory=Curve)
    samples: deque[ev.Sample] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    notes: deque[ev.Note] = field(default_factory=lambda: deque(maxlen=NOTES))
    peak_memory_bytes: int = 0
    rewound: bool = False
    _first_seconds: float = 0.0
    _first_step: int = 0

    @classmethod
    def of(cls, run: RunView) -> Progress:
        """The progress of all that the run has told so far, with the run's own word on how it ended."""
        progress = cls()
        for event in run.events():
            progress.add(event)
        if run.status in OVER | {"paused"} and progress.status not in OVER:
            progress.status = run.status
        return progress

    @property
    def over(self) -> bool:
        """Whether the run has ended, in whatever way."""
        return self.status in OVER

    @property
    def curves(self) -> tuple[Curve, Curve, Curve, Curve]:
        """Loss, dev loss, metric and learning rate by step."""
        return self.loss, self.dev_loss, self.score, self.learning_rate

    @property
    def steps_done(self) -> int:
        """The last step heard of."""
        return self.step.step if self.step else 0

    @property
    def total_steps(self) -> int | None:
        """All steps there will be, once known."""
        return self.started.total_steps if self.started else None

    @property
    def seconds(self) -> float | None:
        """Training time so far: first step to last."""
        recorded = self.summary.get("seconds")
        if isinstance(recorded, int | float):
            return float(recorded)
        return self.step.seconds if self.step else None

    @property
    def seconds_left(self) -> float | None:
        """What is left at the mean pace of all steps but the first, which warms up."""
        total = self.total_steps
        if self.step is None or total is None or self.over:
            return None
        steps = self.step.step - self._first_step
        if steps < 1:
            return None
        return (total - self.step.step) * (self.step.seconds - self._first_seconds) / steps

    def add(self, event: ev.Event) -> None:
        """Take in one event."""
        handler = _HANDLERS.get(event.type)
        if handler is not None:
            handler(self, event)

    def _queued(self, event: ev.Queued) -> None:
        self.status = "queued"
        self.phase = f"waiting for {', '.join(event.ahead)}" if event.ahead else "waiting for the device"

    def _phase(self, event: ev.Phase) -> None:
        self.phase = event.text
        if self.status in OVER | {"queued"}:
            self.status = "starting"

    def _started(self, event: ev.Started) -> None:
        self.started, self.metric = event, event.metric
        self.status, self.phase, self.summary, self.failed = "running", "", {}, None

    def _step(self, event: ev.Step) -> None:
        if self.step is None or event.step <= self._first_step:
            self._first_step, self._first_seconds = event.step, event.seconds
        self.step, self.phase = event, ""
        if self.status != "stopping":
            self.status = "running"
        self.peak_memory_bytes = max(self.peak_memory_bytes, event.memory_bytes)
        kept = self.loss.add(event.step, event.loss) and self.learning_rate.add(event.step, event.learning_rate)
        self.rewound = self.rewound or not kept

    def _evaluation(self, event: ev.Evaluation) -> None:
        self.evaluation = event
        kept = self.dev_loss.add(event.step, event.loss)
        name = self.metric if self.metric in event.metrics else next(iter(event.metrics), "")
        if name:
            self.metric = self.metric or name
            kept = self.score.add(event.step, event.metrics[name]) and kept
        self.rewound = self.rewound or not kept

    def _sample(self, event: ev.Sample) -> None:
        self.samples.append(event)

    def _checkpoint(self, event: ev.Checkpoint) -> None:
        self.checkpoint_step = event.step

    def _control(self, event: ev.Control) -> None:
        if event.action == "stop":
            self.status = "stopping"
        elif event.action == "pause":
            self.status = "paused"
        elif event.action == "set":
            said = ", ".join(f"{key} = {value}" for key, value in event.values.items())
            self.notes.append(ev.Note(time=event.time, level="info", text=f"step {event.step}: {said}"))

    def _note(self, event: ev.Note) -> None:
        self.notes.append(event)

    def _finished(self, event: ev.Finished) -> None:
        self.status, self.phase, self.summary = "finished", "", event.summary

    def _stopped(self, event: ev.Stopped) -> None:
        self.status, self.phase, self.summary = "stopped", "", event.summary

    def _failed(self, event: ev.Failed) -> None:
        self.status, self.phase, self.failed = "failed", "", event


_HANDLERS: Final[dict[str, Callable[[Progress, Any], None]]] = {
    cls.type: getattr(Progress, f"_{cls.type}")
    for cls in (
        ev.Queued,
        ev.Phase,
        ev.Started,
        ev.Step,
        ev.Evaluation,
        ev.Sample,
        ev.Checkpoint,
        ev.Control,
        ev.Note,
        ev.Finished,
        ev.Stopped,
        ev.Failed,
    )
}
