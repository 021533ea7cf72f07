"""A run's events folded into what is shown of it: figures, curves, samples, notes. Live and static views are both made of this."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from nbtune import events as ev
from nbtune_widgets.formats import rate
from nbtune_widgets.looks import best_look
from nbtune_widgets.pace import Pace
from nbtune_widgets.protocols import RunView
from nbtune_widgets.series import Curve

__all__ = ["OVER", "Answer", "Mark", "Progress"]

OVER: Final = frozenset({"finished", "stopped", "failed", "interrupted"})
SAMPLES: Final = 6
NOTES: Final = 50
MARKS: Final = 100


@dataclass(frozen=True)
class Mark:
    """Something that happened to the run after a step: it went on from there, or a setting was changed."""

    step: int
    text: str


@dataclass(frozen=True)
class Answer:
    """What came of the last setting or control that was asked for; `level` is "info" or "error"."""

    level: str
    text: str
    hint: str = ""


@dataclass
class Progress:
    """What is known of a run so far. One thread adds events; `rewound` tells that a curve lost points since it was last cleared.

    `asked` holds the controls that were asked for here and have not taken effect, `controls` counts those that have, and `refused`
    those that could not be asked for. `skipped` are the steps whose update was left out, `looks` the evaluations, both without what a
    resumed run did again.
    """

    status: str = "starting"
    phase: str = ""
    estimated: ev.Estimated | None = None
    started: ev.Started | None = None
    step: ev.Step | None = None
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
    looks: list[ev.Evaluation] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    asked: frozenset[str] = frozenset()
    controls: Counter[str] = field(default_factory=Counter)
    peak_rate: float | None = None
    answer: Answer | None = None
    refused: int = 0
    peak_memory_bytes: int = 0
    rewound: bool = False

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
        return None if total is None or self.over else self.pace.seconds_left(total)

    @property
    def expected_memory_bytes(self) -> int | None:
        """The most that it is expected to have in use at once, while it goes on."""
        return None if self.estimated is None or self.over else self.estimated.peak_memory_bytes

    @property
    def best_step(self) -> int | None:
        """The step of the best look at dev, by the run's own word."""
        look = best_look(self.looks)
        return None if look is None else look.step

    def ask(self, action: str) -> None:
        """Remember that a control was asked for, until it takes effect."""
        self.asked |= {action}
        if action == "set":
            self.answer = None
        elif action == "stop":
            self.status = "stopping"

    def refuse(self, action: str, answer: Answer) -> None:
        """Take that back: the run cannot do it."""
        self.asked -= {action}
        self.answer, self.refused = answer, self.refused + 1
        if action == "stop" and self.status == "stopping":
            self.status = "running"

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

    def _estimated(self, event: ev.Estimated) -> None:
        self.estimated = event

    def _started(self, event: ev.Started) -> None:
        self.started, self.metric = event, event.metric
        self._go_on()

    def _resumed(self, event: ev.Resumed) -> None:
        """Back to the checkpoint of a step: what was told of later ones is done again, with the settings made then."""
        lost = [curve.rewind(event.step) for curve in self.curves]
        self.rewound = self.rewound or any(lost)
        self.looks = [look for look in self.looks if look.step <= event.step]
        self.skipped = [step for step in self.skipped if step <= event.step]
        self.samples = deque((sample for sample in self.samples if sample.step <= event.step), maxlen=SAMPLES)
        if self.step is not None and self.step.step > event.step:
            self.step = replace(self.step, step=event.step, loss=_at(self.loss), learning_rate=_at(self.learning_rate))
        self.pace.restart()
        self._mark(event.step, "went on from its checkpoint" if event.step else "began again")
        self._go_on()

    def _go_on(self) -> None:
        self.status = "stopping" if "stop" in self.asked else "running"
        self.phase, self.summary, self.failed = "", {}, None

    def _step(self, event: ev.Step) -> None:
        self.step, self.phase = event, ""
        if self.status != "stopping":
            self.status = "running"
        self.pace.add(event)
        self.skipped = [*(step for step in self.skipped if step < event.step), *([event.step] if event.skipped else [])]
        self.peak_memory_bytes = max(self.peak_memory_bytes, event.memory_bytes)
        kept = self.loss.add(event.step, event.loss)
        kept = self.learning_rate.add(event.step, event.learning_rate) and kept
        self.rewound = self.rewound or not kept

    def _evaluation(self, event: ev.Evaluation) -> None:
        self.looks = [*(look for look in self.looks if look.step < event.step), event]
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
        self.asked -= {event.action}
        self.controls[event.action] += 1
        if event.action == "stop":
            self.status = "stopping"
        elif event.action == "pause":
            self.status = "paused"
        elif event.action == "resume" and self.status == "paused":
            self.status = "running"
        elif event.values:
            self.peak_rate = event.values.get("learning_rate", self.peak_rate)
            said = ", ".join(f"{key} = {_said(value)}" for key, value in event.values.items())
            self.answer = Answer("info", f"{said} after step {event.step:,}")
            self._mark(event.step, said)

    def _mark(self, step: int, text: str) -> None:
        self.marks = [*self.marks[1 - MARKS :], Mark(step, text)]

    def _note(self, event: ev.Note) -> None:
        self.notes.append(event)

    def _finished(self, event: ev.Finished) -> None:
        self.summary = event.summary
        self._end("finished")
        early, kept = event.summary.get("ended_early"), event.summary.get("checkpoint_step", event.step)
        self.phase = "; ".join(
            [*([f"early, {early}"] if early else []), *([f"the best is kept, of step {kept}"] if kept != event.step else [])]
        )

    def _stopped(self, event: ev.Stopped) -> None:
        self.summary = event.summary
        self._end("stopped")

    def _failed(self, event: ev.Failed) -> None:
        self.failed = event
        self._end("failed")

    def _end(self, status: str) -> None:
        self.status, self.phase, self.asked = status, "", frozenset()


def _at(curve: Curve) -> float:
    return math.nan if curve.last is None else curve.last


def _said(value: Any) -> str:
    return rate(value) if isinstance(value, float) else str(value)


_HANDLERS: Final[dict[str, Callable[[Progress, Any], None]]] = {
    cls.type: getattr(Progress, f"_{cls.type}")
    for cls in (
        ev.Queued,
        ev.Phase,
        ev.Estimated,
        ev.Started,
        ev.Resumed,
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
