"""The handle of a run: to watch it, wait for it, steer it, and use what it learnt. All it knows comes from the run's folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from nbtune.errors import NbtuneError, RunError
from nbtune.events import Estimated, Evaluation, Event, Failed, Finished, Step, Stopped
from nbtune.launch.follow import follow
from nbtune.launch.live import Listener, live_run
from nbtune.launch.process import log_tail
from nbtune.models.device import rest_threads
from nbtune.store import RunFolder, Status, find_run, run_folders
from nbtune.views import view

if TYPE_CHECKING:
    import pandas as pd

    from nbtune.inference import Engine
    from nbtune.models.loading import LoadedModel
    from nbtune.task import Task

__all__ = ["Run", "open_run", "runs"]


class Run:
    """One training, alive or long over, of this process or another's."""

    def __init__(self, folder: RunFolder, task: Task | None = None) -> None:
        self._folder = folder
        self._task = task

    @property
    def id(self) -> str:
        """Unique in the project."""
        return self._folder.id

    @property
    def name(self) -> str:
        """What it was called; not unique."""
        return self._folder.name

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return self._folder.path

    @property
    def spec(self) -> dict[str, Any]:
        """What was asked for, flat."""
        return self._folder.spec

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.spec["method"])

    @property
    def status(self) -> Status:
        """queued, running, paused, finished, stopped, failed, or interrupted (its process is gone)."""
        return self._folder.status()

    @property
    def task(self) -> Task:
        """The task it learns, from the folder.

        Raises:
            RunError: it ended before its task was saved.
            DataError: the folder is damaged.
        """
        if self._task is None:
            from nbtune.task import Task

            if not (self.folder / "task.json").exists():
                message = f"run {self.name} ended before its rows were saved: nothing was trained"
                raise RunError(message, hint="start it again")
            self._task = Task.open(self.folder)
        return self._task

    @property
    def learnt(self) -> dict[str, str]:
        """{fingerprint: name} of the tasks whose rows are in what it learnt: its own, and those of the runs it was combined of.

        Raises:
            RunError, DataError: as `task`.
        """
        return {self.task.fingerprint: self.task.name, **self.spec.get("combined", {}).get("tasks", {})}

    def events(self) -> list[Event]:
        """Everything that happened so far."""
        return self._folder.events()

    @property
    def history(self) -> pd.DataFrame:
        """By step: loss, learning_rate, grad_norm, num_tokens, epoch, seconds; where dev was looked at, eval_loss and eval_<metric>."""
        import pandas as pd

        rows: dict[int, dict[str, float]] = {}
        for event in self.events():
            if isinstance(event, Step):
                row = {"loss": event.loss, "learning_rate": event.learning_rate, "grad_norm": event.grad_norm}
                row |= {"num_tokens": event.num_tokens, "epoch": event.epoch, "seconds": event.seconds}
                rows.setdefault(event.step, {}).update(row)
            elif isinstance(event, Evaluation):
                rows.setdefault(event.step, {}).update(event.scores)
        columns = ["loss", "learning_rate", "grad_norm", "num_tokens", "epoch", "seconds"]
        frame = pd.DataFrame.from_dict(rows, orient="index")
        frame = frame.reindex(columns=[*columns, *(name for name in frame.columns if name not in columns)])
        return frame.sort_index().rename_axis("step")

    @property
    def summary(self) -> dict[str, Any]:
        """trainable_parameters, total_parameters, adapter_bytes, steps, num_tokens, seconds, peak_memory_bytes, scores; {} before the end.

        `seconds` are from the first step to the last, with the looks at dev between them; `adapter_bytes` what `save` writes.
        """
        for event in reversed(self.events()):
            if isinstance(event, Finished | Stopped) and event.summary:
                return dict(event.summary)
        return {}

    @property
    def estimate(self) -> Estimated | None:
        """What the run is expected to need, after its third step set right by what these needed; None: nothing is known yet."""
        return next((event for event in reversed(self.events()) if isinstance(event, Estimated)), None)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` with each event from now on, whichever process trains; what is returned ends that.

        Events come from a thread: the one that trains, or one that reads what another process writes.
        """
        live = live_run(self.id)
        return live.listen(listener) if live is not None and not live.over.is_set() else follow(self._folder, listener)

    def stop(self) -> None:
        """Asks the run to stop after the step it is at, with a checkpoint; returns at once."""
        if not self._is_over():
            self._folder.control("stop")

    def pause(self) -> None:
        """Asks the run to stand still after its step, the model and the optimizer where they are; returns at once.

        Raises:
            RunError: it is over.
        """
        self._ask("pause")

    def resume(self, model: Any = None) -> Self:
        """Lets a paused run go on; one that was stopped, failed or was interrupted goes on from its last checkpoint. Returns at once.

        The result is bit for bit that of a run that was never stopped, on the same device and packages.

        Args:
            model: the model again, where the run's was an object of a notebook that is gone.

        Raises:
            RunError: it is finished, or another process has it.
        """
        if not self._is_over():
            self._ask("resume")
            return self
        from nbtune.start import resume_run

        resume_run(self._folder, self.task, model)
        return self

    def set(self, **settings: Any) -> None:
        """Asks for other settings from the next step on; returns at once.

        Args:
            **settings: learning_rate (the peak; its course goes on), max_grad_norm, eval_steps, sample_steps, save_steps.

        Raises:
            SpecError: a setting that cannot be changed, is unknown, or out of range.
            RunError: the run is over.
        """
        from nbtune.start import spec_of
        from nbtune.training.controls import check_settings

        self._ask("set", **check_settings(spec_of(self._folder), settings))

    def evaluate(self) -> None:
        """Asks for a look at dev after this step; RunError where the run is over."""
        self._ask("evaluate")

    def sample(self) -> None:
        """Asks for sample answers after this step; RunError where the run is over."""
        self._ask("sample")

    def checkpoint(self) -> None:
        """Asks for a checkpoint after this step; RunError where the run is over."""
        self._ask("checkpoint")

    def fork(self, step: int | None = None, *, name: str | None = None, **changes: Any) -> Run:
        """A new run that goes on from this one's checkpoint of `step` (left out: the newest), with other options.

        Unchanged, it repeats the rest of this run bit for bit, and with it what was set, looked at and sampled meanwhile. What differs is
        told as a note.

        Raises:
            RunError: there is no checkpoint of that step.
            SpecError: an unknown option, or one that makes another model of it (the method's own, model, quantization, optim).
        """
        from nbtune.start import fork_run

        return fork_run(self._folder, self.task, step, name, changes)

    def _ask(self, action: str, **values: Any) -> None:
        if self._is_over():
            raise RunError(f"run {self.name} is {self.status}, not running", hint="run.resume() goes on, run.fork() tries something else")
        self._folder.control(action, **values)

    def wait(self, timeout: float | None = None) -> Self:
        """Waits until the run is over.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Raises:
            NbtuneError: what made it fail.
            TimeoutError: it is not over in time.
        """
        end = None if timeout is None else time.monotonic() + timeout
        live = live_run(self.id)
        rest_threads()
        while not self._is_over():
            if end is not None and time.monotonic() > end:
                message = f"run {self.name} is {self.status} after {timeout} s"
                raise TimeoutError(message)
            if live is not None:
                live.over.wait(0.1)
            else:
                time.sleep(0.1)
        self._raise_failure()
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._finished().__await__()

    async def _finished(self) -> Self:
        while not self._is_over():  # noqa: ASYNC110  it may be another process's: there is nothing to be woken by
            await asyncio.sleep(0.05)
        self._raise_failure()
        return self

    def _is_over(self) -> bool:
        live = live_run(self.id)
        if live is not None and not live.over.is_set():
            return False
        return self.status in ("finished", "stopped", "failed", "interrupted")  # another process may have gone on with it

    def _raise_failure(self) -> None:
        live = live_run(self.id)
        status = self.status
        if live is not None and live.error is not None and status in ("failed", "interrupted"):
            raise live.error
        for event in reversed(self.events()) if status == "failed" else ():
            if isinstance(event, Failed):
                raise RunError(event.message, hint=event.hint)
        if status == "interrupted":
            said = log_tail(self._folder)
            message = f"run {self.name} was interrupted: its process is gone" + (f". It said last: {said}" if said else "")
            raise RunError(message, hint="run.resume() goes on from its last checkpoint")

    def generate(self, prompts: Sequence[str], max_new_tokens: int = 20) -> list[str]:
        """What the tuned model writes after each prompt, greedily, to an end of sequence or `max_new_tokens`.

        Raises:
            RunError: there is nothing trained yet.
        """
        from nbtune.inference import Decoding

        if isinstance(prompts, str):
            message = "generate takes a list of prompts, not one text"
            raise RunError(message, hint=f"run.generate([{prompts[:30]!r}])")
        return self.engine().generate(list(prompts), Decoding(max_new_tokens))

    def fill(self, texts: Sequence[str]) -> list[list[str]]:
        """What the tuned model puts in the place of each mask token of each text, in their order (objective mlm).

        Raises:
            RunError: there is nothing trained yet, or it was not trained to fill in.
            DataError: a text has no mask, or more tokens than the model reads.
        """
        from nbtune.inference.filling import Filler

        engine = self.engine()
        if not isinstance(engine, Filler):
            message = f"run {self.name} was trained with objective {self._folder.spec['objective']}, and fills nothing in"
            raise RunError(message, hint="ask it by run.generate or run.predict")
        if isinstance(texts, str):
            raise RunError("fill takes a list of texts, not one", hint=f"run.fill([{texts[:30]!r}])")
        return engine.fill(list(texts))

    def predict(self, rows: Sequence[Any]) -> list[str]:
        """The tuned model's answers to new rows (dicts of the prompt's columns): labels scored, or texts generated as in a comparison.

        Raises:
            RunError: there is nothing trained yet.
            DataError: a row lacks a column.

        Warns:
            UserWarning: texts are longer than a model with a head reads, and are cut.
        """
        from nbtune.launch.attached import predictions

        return predictions(self._folder, self.task, rows)

    def strength(
        self, strengths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0), *, retain: str | None = None, max_rows: int = 64
    ) -> pd.DataFrame:
        """What was trained at several strengths, from 0 (the base) over 1 (as it was trained) to 2: what the task gains, what is forgotten.

        Adapters that add are scaled; trained parts are interpolated with the base's own weights (https://arxiv.org/abs/2109.01903).

        Args:
            strengths: the curve's points.
            retain: the text whose loss is told: general, or a file; left out: the run's, or general.
            max_rows: most dev rows that are answered.

        Returns:
            By row: strength, the task's metric on dev, retained_loss (nats a token; not where the model has a head over classes).

        Raises:
            SpecError: a strength out of range.
            RunError: it is not over, what was trained has no strength, or there is nothing trained or no dev row yet.
            DataError: the text cannot be read.
        """
        from nbtune.launch.strengths import strength_curve

        return strength_curve(self._folder, self.task, strengths, retain=retain, max_rows=max_rows)

    def engine(self, *, step: int | None = None, strength: float = 1.0) -> Engine:
        """The tuned model, as it is asked: from memory, or loaded from the last checkpoint.

        With `step` it is asked as it was at that checkpoint, with `strength` what was trained counts so many times (0: the base).

        Raises:
            RunError: there is nothing trained yet, no checkpoint of that step, or what was trained has no strength.
            SpecError: a strength out of range.
            ModelError: its base cannot be loaded.
        """
        from nbtune.launch.attached import engine_of
        from nbtune.launch.variants import variant_engine

        if step is None and strength == 1:
            return engine_of(self._folder, self.task)
        return variant_engine(self._folder, self.task, step=step, strength=float(strength))

    @property
    def model(self) -> LoadedModel:
        """A copy of the tuned model of the caller's own (`.model`, `.tokenizer`, `.config`)."""
        from nbtune.launch.attached import own_model

        return own_model(self._folder)

    def save(self, folder: str | Path, *, merge: bool = False) -> Path:
        """Writes what was learnt: the adapter as peft opens it, or, with `merge`, a whole model as transformers opens it.

        Raises:
            RunError: there is nothing trained yet, or the folder is not empty.
        """
        from nbtune.launch.attached import save_run

        return save_run(self._folder, Path(folder).expanduser(), merge=merge)

    def plot(self) -> Any:
        """A plotly figure of loss, dev loss, metric and learning rate."""
        return view("run_figure")(self)

    def show(self) -> None:
        """Displays curves, figures and samples: live while the run goes on, in whatever process, and static when it is over."""
        view("show_run")(self)

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {self.method}, {self.status}, {self.id})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", view("run_mimebundle")(self))
        except NbtuneError:
            return {"text/plain": repr(self)}


def runs() -> list[Run]:
    """Every run of the project, the oldest first."""
    return [Run(folder) for folder in run_folders()]


def open_run(run: str | Path) -> Run:
    """The run of that id, name (the newest so called) or folder.

    Raises:
        RunError: there is none.
    """
    return Run(find_run(run))
