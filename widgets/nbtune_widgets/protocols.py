"""What the views need of the things they show, so that this package depends on none of their modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from nbtune.events import Event

__all__ = ["ComparisonView", "RunView", "SearchView", "SteeredRun", "TaskView", "TokensView"]


class RunView(Protocol):
    """A run as it is seen: its names, its events so far, and the next ones as they come."""

    @property
    def id(self) -> str:
        """The run's id, which names its folder."""

    @property
    def name(self) -> str:
        """The name the user gave it, or one made for it."""

    @property
    def method(self) -> str:
        """The adaptation method's name, such as "lora"."""

    @property
    def status(self) -> str:
        """One of queued, running, paused, finished, stopped, failed, interrupted."""

    def events(self) -> Sequence[Event]:
        """All events so far, oldest first; cheap."""

    def listen(self, callback: Callable[[Event], None], /) -> Callable[[], None]:
        """Call `callback` with each event to come, on the thread that trains; returns what ends that."""


class SteeredRun(RunView, Protocol):
    """A run as the live panel steers it. Each of these only leaves a request, which takes effect after the step the run is at."""

    @property
    def spec(self) -> Mapping[str, Any]:
        """What was asked for, flat."""

    def stop(self) -> None:
        """Stop, with a checkpoint."""

    def pause(self) -> None:
        """Wait, with the model kept in memory."""

    def resume(self) -> object:
        """Go on after a pause."""

    def evaluate(self) -> None:
        """Look at dev now."""

    def sample(self) -> None:
        """Answer some dev rows now."""

    def checkpoint(self) -> None:
        """Save now."""

    def set(self, *, learning_rate: float) -> None:
        """Change the peak learning rate; its course goes on.

        Raises:
            NbtuneError: the value cannot be.
        """


class ComparisonView(Protocol):
    """A comparison as the grid shows it; `table` and `outputs` are DataFrames."""

    @property
    def metric(self) -> str | None:
        """The name of the score's column in `table`; None where there are no answers to score by."""

    @property
    def task_name(self) -> str:
        """The task whose test rows were answered."""

    @property
    def table(self) -> Any:
        """A row an approach: approach, the metric, its interval, the paired difference to the best other, parameters, seconds ..."""

    @property
    def kind(self) -> str | None:
        """The task's kind."""

    @property
    def outputs(self) -> Any:
        """A row per (test row, approach): row, approach, prompt, output, expected, correct, score, log_probabilities."""

    @property
    def curve(self) -> Any:
        """The learning curve, a row for each (approach, train_rows): score, ci_low, ci_high, train_seconds, kind; empty without."""

    def per_class(self, approach: str) -> Any:
        """precision, recall, f1, support by label, of a task of classes."""

    def confusion(self, approach: str) -> Any:
        """Counts by expected label and output, of a task of classes."""

    def slices(self, by: str = "length", *, intervals: bool = True) -> Any:
        """A row for each (slice, approach): slice, approach, rows, score, ci_low, ci_high."""

    @property
    def warnings(self) -> Sequence[str]:
        """What the checks found wrong."""

    @property
    def checks(self) -> Sequence[str]:
        """What was verified."""

    @property
    def verdict(self) -> Sequence[str]:
        """What follows, in sentences."""

    @property
    def notes(self) -> Sequence[str]:
        """What else a reader should know, such as how labels were scored."""


class SearchView(Protocol):
    """What a prompt search found; `table` is a DataFrame."""

    @property
    def label(self) -> str:
        """What it is called."""

    @property
    def template(self) -> str:
        """The winner."""

    @property
    def metric(self) -> str:
        """The name of the score's column in `table`."""

    @property
    def table(self) -> Any:
        """A row a template, the winner first: template, origin, rows, the metric, its interval, dropped_after, prompt_tokens."""

    @property
    def told(self) -> Sequence[str]:
        """What a reader should know of it, in sentences."""


class TaskView(Protocol):
    """A task's preview: counts, balance, two rendered rows, and what was noticed."""

    @property
    def name(self) -> str:
        """The task's name."""

    @property
    def kind(self) -> str:
        """The kind: generation, classification."""

    @property
    def metric(self) -> str:
        """The metric's name."""

    @property
    def counts(self) -> Mapping[str, int]:
        """{split: rows}."""

    @property
    def label_counts(self) -> Mapping[str, Mapping[str, int]]:
        """{label: {split: rows}}; empty where there are no labels."""

    @property
    def examples(self) -> Sequence[tuple[str, str]]:
        """Rendered rows as (prompt, completion)."""

    @property
    def notes(self) -> Sequence[str]:
        """What a reader should know."""

    @property
    def warnings(self) -> Sequence[str]:
        """What a reader should look into."""


class TokensView(Protocol):
    """What a tokenizer adds to a task's preview."""

    @property
    def lengths_text(self) -> str:
        """One line such as "12 to 64 tokens, median 30"."""

    @property
    def marked(self) -> Sequence[Sequence[tuple[str, bool]]]:
        """A row an example: its tokens as (text, whether it is trained on)."""
