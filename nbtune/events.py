"""What a run tells the world: small frozen records, one JSON line each, appended to `events.jsonl`.

Everything that is seen (the live panel, a reload, a replay after a restart, the summary, the history) is made of these.
"""

from __future__ import annotations

import json
import math
import time as _time
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Final

__all__ = [
    "Checkpoint",
    "Control",
    "Estimated",
    "Evaluation",
    "Event",
    "Failed",
    "Finished",
    "Note",
    "Phase",
    "Queued",
    "Resumed",
    "Sample",
    "Started",
    "Step",
    "Stopped",
    "parse_event",
]


@dataclass(frozen=True, kw_only=True)
class Event:
    """`time` is in seconds since the epoch (UTC)."""

    type: ClassVar[str] = "event"
    time: float = field(default_factory=_time.time)

    def to_json(self) -> str:
        """One line of JSON; a number that is not finite becomes null, because JSON has none."""
        return json.dumps({"type": self.type, **_finite(asdict(self))}, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class Queued(Event):
    """The run waits for its device; `ahead` names the run ids before it."""

    type: ClassVar[str] = "queued"
    ahead: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Phase(Event):
    """What goes on before the first step and after the last, in a few words: "loading smollm2-135m"."""

    type: ClassVar[str] = "phase"
    text: str


@dataclass(frozen=True, kw_only=True)
class Estimated(Event):
    """What the run is expected to need: from shapes alone, then set right by its first steps (`measured_steps` of them).

    `peak_memory_bytes` is the most in use at once as `Step.memory_bytes` counts it, `seconds_per_epoch` of training alone (NaN: not known).
    """

    type: ClassVar[str] = "estimated"
    peak_memory_bytes: int
    seconds_per_epoch: float
    measured_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """Training begins. Counts: optimizer steps in all, rows trained on, parameters trained and in all."""

    type: ClassVar[str] = "started"
    total_steps: int
    num_rows: int
    trainable_parameters: int
    total_parameters: int
    metric: str
    device: str
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Resumed(Event):
    """Training goes on after `step` (0: from the beginning), from that step's checkpoint; what was told of later steps is done again."""

    type: ClassVar[str] = "resumed"
    step: int


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    """One optimizer step: `loss` is nats a trained token, `seconds` of training so far, `num_tokens` real tokens so far.

    `fill` is the part of the batches that is real tokens, `skipped` tells of an update left out because the gradient was not finite.
    `memory_bytes` is the most in use so far: allocated on a GPU, resident in the training process on the CPU.
    The step's own seconds are split into those of making the batch, forward, backward and the optimizer.
    """

    type: ClassVar[str] = "step"
    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    num_tokens: int
    seconds: float
    tokens_per_second: float
    memory_bytes: int
    fill: float = 1.0
    skipped: bool = False
    data_seconds: float = 0.0
    forward_seconds: float = 0.0
    backward_seconds: float = 0.0
    optimizer_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Evaluation(Event):
    """Dev loss (nats a trained token) and the task's metric at a step; `metrics` holds {name: value}.

    `best`: no look before was better. `train_loss` is the mean over the trained tokens since the look before (NaN: not known).
    """

    type: ClassVar[str] = "evaluation"
    step: int
    epoch: float
    loss: float
    metrics: dict[str, float]
    num_rows: int
    seconds: float
    best: bool = False
    train_loss: float = math.nan

    @property
    def scores(self) -> dict[str, float]:
        """Loss and metrics under the names that a history has for them."""
        return {"eval_loss": self.loss, **{f"eval_{name}": value for name, value in self.metrics.items()}}


@dataclass(frozen=True, kw_only=True)
class Sample(Event):
    """One dev row answered by the model as it is at this step. All three texts are untrusted."""

    type: ClassVar[str] = "sample"
    step: int
    row: int
    prompt: str
    output: str
    expected: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Event):
    """A checkpoint was written whole; `path` is relative to the run's folder."""

    type: ClassVar[str] = "checkpoint"
    step: int
    path: str


@dataclass(frozen=True, kw_only=True)
class Control(Event):
    """A control took effect after `step`: "stop", "pause", "resume", "set", "checkpoint", "evaluate", "sample".

    `position` is how far control.jsonl was read, so that a resumed run does not obey twice.
    """

    type: ClassVar[str] = "control"
    step: int
    action: str
    values: dict[str, Any] = field(default_factory=dict)
    position: int = 0


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    """Something the user should know; `level` is "info" or "warning"."""

    type: ClassVar[str] = "note"
    level: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The last step is done and saved; `summary` is `Run.summary`."""

    type: ClassVar[str] = "finished"
    step: int
    summary: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Stopped(Event):
    """The user stopped it; the checkpoint of `step` is there."""

    type: ClassVar[str] = "stopped"
    step: int
    summary: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """It ended by an error. `kind` is the exception's class name; `traceback` is empty for a user's mistake."""

    type: ClassVar[str] = "failed"
    step: int
    kind: str
    message: str
    hint: str = ""
    traceback: str = ""


_TYPES: Final[dict[str, type[Event]]] = {cls.type: cls for cls in Event.__subclasses__()}


def parse_event(line: str) -> Event:
    """The event of one JSON line.

    Keys that this version does not know are left out, so that an older nbtune can read a newer one's folder.

    Raises:
        ValueError: the line is not one of our events (a torn last line after a power loss, for one).
    """
    data = json.loads(line)
    if not isinstance(data, dict) or data.get("type") not in _TYPES:
        msg = f"not an event: {line[:80]!r}"
        raise ValueError(msg)
    cls = _TYPES[data["type"]]
    known = {f.name for f in fields(cls)}
    values = {key: value for key, value in data.items() if key in known}
    for f in fields(cls):
        if f.type in ("float", float) and f.name in values and values[f.name] is None:
            values[f.name] = math.nan
    if "ahead" in values:
        values["ahead"] = tuple(values["ahead"])
    try:
        return cls(**values)
    except TypeError as error:
        msg = f"an event of type {cls.type!r} lacks a key: {line[:80]!r}"
        raise ValueError(msg) from error


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
