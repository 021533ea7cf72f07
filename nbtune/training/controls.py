"""What is asked of a running loop: lines of `control.jsonl`, looked at between steps. Any process may write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import Problem, SpecError
from nbtune.events import Checkpoint, Control, Event

if TYPE_CHECKING:
    from nbtune.spec import FinetuneSpec

__all__ = ["ACTIONS", "SETTABLE", "Controls", "Request", "changed", "not_left_behind", "read_until", "to_repeat"]

ACTIONS: Final = frozenset({"stop", "pause", "resume", "set", "checkpoint", "evaluate", "sample"})
SETTABLE: Final = ("learning_rate", "max_grad_norm", "eval_steps", "sample_steps", "save_steps")
"""What `set` may change while a run goes on."""


@dataclass(frozen=True)
class Request:
    """One thing asked. `position` is where control.jsonl goes on after it; `again`: a resumed run repeats what was obeyed before."""

    action: str
    values: dict[str, Any] = field(default_factory=dict)
    position: int = 0
    again: bool = False


class Controls:
    """Reads what was added since the last look; a look at an unchanged file is one `stat`."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self._path = path
        self._position = position

    def new(self) -> list[Request]:
        """Requests not seen before, in the order they were written; a line that is none of ours is passed over."""
        found = list(self._unread())
        self._position = found[-1].position if found else self._position
        return found

    def stop_asked(self) -> Request | None:
        """The first request to stop that was not read yet, which it still is then."""
        return next((request for request in self._unread() if request.action == "stop"), None)

    def _unread(self) -> Iterator[Request]:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        position = self._position
        if size <= position:
            return
        with self._path.open("rb") as file:
            file.seek(position)
            data = file.read()
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            position += len(line)
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict) and said.get("action") in ACTIONS:
                values = {key: value for key, value in said.items() if key not in ("time", "action")}
                yield Request(said["action"], values, position)


def read_until(events: Iterable[Event]) -> int:
    """How far control.jsonl was obeyed before."""
    return max((event.position for event in events if isinstance(event, Control)), default=0)


def to_repeat(events: Sequence[Event], step: int, planned: Iterable[Mapping[str, Any]] = ()) -> dict[int, list[Request]]:
    """{step: what was done to the run there} from `step` on, for a run that goes on from that step's checkpoint.

    Settings of `step` itself are repeated too, because they may have come after it was saved. Where a run went back with a lower learning
    rate, the learning rates that were set later than there are not repeated.

    Args:
        events: of the run.
        step: where it goes on.
        planned: step, action and values of what a fork repeats of its parent; what its own events tell of was done already.
    """
    done = [(event.step, event.action, event.values) for event in events if isinstance(event, Control)]
    ahead = [(one["step"], one["action"], one["values"]) for one in planned]
    found = [(one[0], Request(one[1], one[2])) for one in ahead if one[0] >= step and one not in done]
    for event in events:
        if not isinstance(event, Control) or event.step < step:
            continue
        if event.action == "back_off":
            found = [(at, one) for at, one in found if at <= event.step or "learning_rate" not in one.values]
            found.append((event.step, Request("set", event.values, again=True)))
        elif event.action == "set" or (event.action in ("evaluate", "sample") and event.step > step):
            found.append((event.step, Request(event.action, event.values, again=True)))
    repeated: dict[int, list[Request]] = {}
    for at, request in found:
        repeated.setdefault(at, []).append(request)
    return repeated


def not_left_behind(events: Iterable[Event]) -> Callable[[int], bool]:
    """Whether the checkpoint of a step belongs to the run as it is: not where the run went back to before it and has not saved it anew."""
    back: int | None = None
    anew: set[int] = set()
    for event in events:
        if isinstance(event, Control) and event.action == "back_off":
            back, anew = event.step, set()
        elif isinstance(event, Checkpoint):
            anew.add(event.step)
    return lambda step: back is None or step <= back or step in anew


def changed(spec: FinetuneSpec, values: Mapping[str, Any]) -> FinetuneSpec:
    """The spec with other settings.

    Raises:
        SpecError: a setting that cannot be changed while a run goes on, is unknown, or out of range.
    """
    names = type(spec).names()
    fixed = [key for key in values if (name := names.get(key.replace("-", "_"))) is not None and name not in SETTABLE]
    problems = [Problem(f"{key} cannot be changed while a run goes on", f"what can: {', '.join(SETTABLE)}; or run.fork") for key in fixed]
    given = {key: value for key, value in values.items() if key not in fixed}
    new = type(spec).build(given, extra=problems)
    said = {names[key.replace("-", "_")] for key in given}
    return spec.model_copy(update={name: getattr(new, name) for name in said})


def check_settings(spec: FinetuneSpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` by the options' own names.

    Raises:
        SpecError: there are none, or as `changed`.
    """
    if not values:
        message = "nothing is set"
        raise SpecError(message, hint=f"what can be: {', '.join(SETTABLE)}")
    new = changed(spec, values)
    names = type(spec).names()
    return {names[key.replace("-", "_")]: getattr(new, names[key.replace("-", "_")]) for key in values}
