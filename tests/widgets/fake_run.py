"""A run that trains nothing: it tells the events of a plausible training, at once or from a thread at a pace, and obeys as a real one."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nbtune import events as ev
from nbtune.errors import SpecError

__all__ = ["FakeRun", "plausible_events"]

PROMPTS = (
    "Which team handles this ticket?\nTicket: my card was charged twice for one order\nTeam:",
    "Which team handles this ticket?\nTicket: the parcel says delivered but nothing came\nTeam:",
    "Which team handles this ticket?\nTicket: app crashes when i open the setings\nTeam:",
)
ANSWERS = (" billing", " shipping", " technical")


def plausible_events(
    steps: int = 120, *, every: int = 20, seed: int = 0, metric: str = "accuracy", overfits: bool = False
) -> Iterator[ev.Event]:
    """Loading, `steps` steps with a falling loss, a look at dev each `every` steps, and the end.

    Where it `overfits` the dev loss rises again in the second half.
    """
    chance = random.Random(seed)
    lowest = math.inf
    yield ev.Phase(text="loading smollm2-135m")
    yield ev.Phase(text="encoding 400 rows")
    yield ev.Started(
        total_steps=steps,
        num_rows=400,
        trainable_parameters=2_442_240,
        total_parameters=136_957_248,
        metric=metric,
        device="cpu",
        dtype="bfloat16",
    )
    yield ev.Note(level="info", text="3 of 400 rows are longer than 128 tokens and were cut")
    for step in range(1, steps + 1):
        part = step / steps
        yield ev.Step(
            step=step,
            epoch=2 * part,
            loss=0.35 + 2.2 * math.exp(-5 * part) + chance.gauss(0, 0.12) * (1.2 - part),
            learning_rate=1e-3 * (min(1.0, part / 0.05) * 0.5 * (1 + math.cos(math.pi * part))),
            grad_norm=1.0,
            num_tokens=step * 410,
            seconds=step * 0.8,
            tokens_per_second=512 + chance.gauss(0, 8),
            memory_bytes=1_965_000_000,
            fill=0.96 + chance.uniform(-0.02, 0.02),
            data_seconds=0.006,
            forward_seconds=0.25,
            backward_seconds=0.5,
            optimizer_seconds=0.05,
        )
        if step % every == 0 or step == steps:
            score = 0.9 - 0.7 * math.exp(-4 * part)
            loss = 0.42 + 2.0 * math.exp(-5 * part) + (max(0.0, part - 0.5) if overfits else 0.0)
            best, lowest = loss < lowest, min(loss, lowest)
            yield ev.Evaluation(
                step=step,
                epoch=2 * part,
                loss=loss,
                metrics={metric: score},
                num_rows=64,
                seconds=1.5,
                best=best,
                train_loss=0.35 + 2.1 * math.exp(-5 * part),
            )
            for row in range(2):
                index = chance.randrange(3)
                right = chance.random() < score
                output = ANSWERS[index] if right else ANSWERS[(index + 1) % 3]
                yield ev.Sample(step=step, row=row, prompt=PROMPTS[index], output=output, expected=ANSWERS[index])
            yield ev.Checkpoint(step=step, path=f"checkpoints/step-{step:06d}")
    yield ev.Finished(step=steps, summary={"seconds": steps * 0.8, "peak_memory_bytes": 1_965_000_000, "adapter_bytes": 9_812_345})


class FakeRun:
    """A `SteeredRun` over a sequence of events; `start` tells them from a thread, which does what is asked between two steps."""

    def __init__(self, events: Sequence[ev.Event] = (), *, name: str = "tickets_lora", method: str = "lora") -> None:
        self.id = f"{name}-0001"
        self.name = name
        self.method = method
        self.status = "queued"
        self.spec = {"method": method, "learning_rate": 1e-3}
        self._events: list[ev.Event] = []
        self._listeners: list[Callable[[ev.Event], None]] = []
        self._asked: list[tuple[str, dict[str, float]]] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        for event in events:
            self.tell(event)

    def events(self) -> Sequence[ev.Event]:
        return list(self._events)

    def listen(self, callback: Callable[[ev.Event], None], /) -> Callable[[], None]:
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    def stop(self) -> None:
        self._stopping.set()

    def pause(self) -> None:
        self._asked.append(("pause", {}))

    def resume(self) -> None:
        self._asked.append(("resume", {}))

    def evaluate(self) -> None:
        self._asked.append(("evaluate", {}))

    def sample(self) -> None:
        self._asked.append(("sample", {}))

    def checkpoint(self) -> None:
        self._asked.append(("checkpoint", {}))

    def set(self, *, learning_rate: float) -> None:
        if not 0 < learning_rate <= 1:
            raise SpecError(f"learning_rate must be greater than 0 and at most 1, not {learning_rate}", hint="peak learning rate")
        self._asked.append(("set", {"learning_rate": learning_rate}))

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def tell(self, event: ev.Event) -> None:
        """Append an event, then tell who listens, as a real run does."""
        self._events.append(event)
        states = {"started": "running", "step": "running", "finished": "finished", "stopped": "stopped", "failed": "failed"}
        self.status = states.get(event.type, self.status)
        for listener in list(self._listeners):
            listener(event)

    def start(self, events: Iterator[ev.Event], *, pace: float = 0.1, first: float = 0.0) -> FakeRun:
        """Tell `events` from a thread, `pace` seconds between steps and `first` seconds after each phase."""
        self._thread = threading.Thread(target=self._train, args=(events, pace, first), daemon=True)
        self._thread.start()
        return self

    def wait(self, timeout: float = 60) -> FakeRun:
        if self._thread is not None:
            self._thread.join(timeout)
        return self

    def _train(self, events: Iterator[ev.Event], pace: float, first: float) -> None:
        changed: dict[str, float] = {}
        for event in events:
            if isinstance(event, ev.Step):
                time.sleep(pace)
                changed |= self._obey(event.step - 1)
                event = replace(event, **changed)  # noqa: PLW2901
                if self._stopping.is_set():
                    self.tell(ev.Control(step=event.step, action="stop"))
                    self.tell(ev.Checkpoint(step=event.step - 1, path=f"checkpoints/step-{event.step - 1:06d}"))
                    self.tell(ev.Stopped(step=event.step - 1, summary={"seconds": 1.0}))
                    return
            elif isinstance(event, ev.Phase):
                self._stopping.wait(first)
            self.tell(event)

    def _obey(self, step: int) -> dict[str, float]:
        """What was asked for since the last step, as events; waits while it is paused. Returns the settings that were changed."""
        changed: dict[str, float] = {}
        paused = False
        while (self._asked or paused) and not self._stopping.is_set():
            if not self._asked:
                time.sleep(0.01)
                continue
            action, values = self._asked.pop(0)
            self.tell(ev.Control(step=step, action=action, values=values))
            paused = action == "pause" or (paused and action != "resume")
            self.status = "paused" if paused else "running"
            changed |= values
        return changed
