"""What goes wrong while a run trains: it is said, nothing is lost, and the numbers are those of a run where nothing did."""

import errno
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

import nbtune
from nbtune.errors import RunError
from nbtune.events import Checkpoint, Control, Note, Step
from nbtune.models import shared
from nbtune.training import checkpoints
from nbtune.training.step import Stepper
from tests.training.runs import bytes_of, figures, start


def notes(run: nbtune.Run) -> str:
    return "\n".join(event.text for event in run.events() if isinstance(event, Note))


def failing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException, when: Any) -> None:
    """Has `owner.name` raise `error` on the calls whose number (from 1) `when` is true of."""
    real, calls = getattr(owner, name), [0]

    def sometimes(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if when(calls[0]):
            raise error
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, sometimes)


@pytest.mark.parametrize("call", [1, 6, 11])
def test_out_of_memory_takes_the_step_again_with_half_the_rows_and_the_same_numbers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    whole = start(folder, lora_dropout=0.0).wait()
    failing(monkeypatch, Stepper, "_micro_step", torch.OutOfMemoryError("CUDA out of memory"), lambda number: number == call)
    run = start(folder, lora_dropout=0.0).wait()
    assert "out of memory: from here on 2 rows at once" in notes(run)
    assert run.history["loss"].tolist() == pytest.approx(whole.history["loss"].tolist(), abs=1e-4)
    assert run.history["num_tokens"].tolist() == whole.history["num_tokens"].tolist()


def test_where_not_one_row_fits_the_run_says_what_to_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, Stepper, "_micro_step", RuntimeError("DefaultCPUAllocator: can't allocate memory"), lambda _: True)
    with pytest.raises(RunError, match="with one row at a time") as error:
        start(folder).wait()
    assert "max_length" in error.value.hint


def test_an_update_in_which_memory_runs_out_is_not_done_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = start(folder, optim="adafactor").wait()
    with monkeypatch.context() as patched:
        failing(patched, Stepper, "_update", torch.OutOfMemoryError("CUDA out of memory"), lambda number: number == 5)
        run = start(folder, optim="adafactor")
        with pytest.raises(RunError, match="out of memory in the optimizer's update") as error:
            run.wait()
    assert "adafactor or sgd" in error.value.hint
    assert "out of memory: from here on" not in notes(run)
    assert bytes_of(run.resume().wait()) == bytes_of(whole)


def moments_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [value.clone() for values in optimizer.state.values() for value in values.values() if isinstance(value, torch.Tensor)]


def broken_gradients(monkeypatch: pytest.MonkeyPatch, steps: set[int], value: float = float("nan")) -> list[int]:
    """Makes the gradient of the calls numbered so not finite; what is returned collects the numbers."""
    real, calls = Stepper._update, []

    def update(self: Stepper, *said: Any) -> Any:
        calls.append(len(calls) + 1)
        if calls[-1] not in steps:
            return real(self, *said)
        next(iter(self.trained.values())).grad.view(-1)[0] = value
        before, moments = [parameter.detach().clone() for parameter in self.trained.values()], moments_of(self.optimizer)
        norm = real(self, *said)
        assert all(torch.equal(old, new) for old, new in zip(before, self.trained.values(), strict=True))
        if moments:  # the first update of all makes them
            assert all(torch.equal(old, new) for old, new in zip(moments, moments_of(self.optimizer), strict=True))
        return norm

    monkeypatch.setattr(Stepper, "_update", update)
    return calls


@pytest.mark.parametrize("optim", ["adamw", "adafactor", "sgd"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_whose_gradient_is_not_finite_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, optim: str, value: float
) -> None:
    broken_gradients(monkeypatch, {4, 5, 9}, value)
    run = start(folder, optim=optim).wait()
    assert [event.step for event in run.events() if isinstance(event, Step) and event.skipped] == [4, 5, 9]
    assert [event.step for event in run.events() if isinstance(event, Checkpoint)] == [3, 6, 12]
    assert all(torch.isfinite(tensor).all() for tensor in run.model.model.state_dict().values())


def test_several_in_a_row_take_it_back_to_the_last_checkpoint_with_half_the_learning_rate(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_gradients(monkeypatch, {8, 9, 10})
    run = start(folder, lr_scheduler_type="constant", warmup_steps=0).wait()
    assert run.status == "finished"
    assert "back to its checkpoint of step 6 with learning_rate 0.0005" in notes(run)
    assert run.history["learning_rate"].tolist() == [1e-3] * 6 + [5e-4] * 6
    assert run.history["loss"].notna().all()


def test_before_the_first_checkpoint_it_begins_anew_and_resuming_keeps_the_lower_rate(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_gradients(monkeypatch, {1, 2, 3})
    run = start(folder, "last-blocks", num_blocks=1, learning_rate=1e-3, lr_scheduler_type="constant", warmup_steps=0)
    run.listen(lambda event: run.stop() if event.type == "step" and event.step == 5 else None)
    run.wait()
    run.resume().wait()
    assert run.history["learning_rate"].tolist() == [5e-4] * 12


def test_a_checkpoint_after_which_nothing_is_finite_gives_way_to_the_one_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Stepper._update, []

    def update(self: Stepper, *said: Any) -> Any:
        norm = real(self, *said)
        calls.append(1)
        if len(calls) == 6:  # as an update that is too large: told only by the step after, when it is saved already
            for parameter in self.trained.values():
                parameter.data.fill_(float("inf"))
        return norm

    monkeypatch.setattr(Stepper, "_update", update)
    run = start(folder, lr_scheduler_type="constant", warmup_steps=0).wait()
    assert [event.step for event in run.events() if isinstance(event, Control) and event.action == "back_off"] == [6, 3]
    assert "back to its checkpoint of step 3 with learning_rate 0.00025" in notes(run)
    assert run.history["learning_rate"].tolist() == [1e-3] * 3 + [2.5e-4] * 9
    assert all(torch.isfinite(tensor).all() for tensor in run.model.model.state_dict().values())


def test_a_gradient_that_is_never_finite_is_given_up_with_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = broken_gradients(monkeypatch, set(range(1, 1000)))
    run = start(folder)
    with pytest.raises(RunError, match=r"not finite at step 3, nor at any learning rate down to 0\.000125") as error:
        run.wait()
    assert "lower learning_rate" in error.value.hint
    assert run.status == "failed"
    assert len(calls) <= 16
    assert len([event for event in run.events() if isinstance(event, Control) and event.action == "back_off"]) == 3


def test_a_checkpoint_that_cannot_be_written_is_said_and_the_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = start(folder).wait()
    full = OSError(errno.ENOSPC, "No space left on device")
    failing(monkeypatch, checkpoints, "_write_moments", full, lambda number: number == 2)
    run = start(folder).wait()
    assert "checkpoint of step 6 could not be written: No space left on device; the run goes on" in notes(run)
    assert [event.step for event in run.events() if isinstance(event, Checkpoint)] == [3, 9, 12]
    assert bytes_of(run) == bytes_of(whole)


def test_a_last_checkpoint_that_cannot_be_written_fails_the_run_which_then_goes_on_from_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = start(folder).wait()
    full = OSError(errno.ENOSPC, "No space left on device")
    failing(monkeypatch, checkpoints, "_write_moments", full, lambda number: number == 4)
    run = start(folder)
    with pytest.raises(RunError, match="checkpoint of step 12 could not be written: No space left on device") as error:
        run.wait()
    assert "free some disk space" in error.value.hint
    assert not list((run.folder / "checkpoints").glob(".part*"))
    assert run.resume().wait().status == "finished"
    assert bytes_of(run) == bytes_of(whole)


def test_events_that_cannot_be_written_are_kept_until_they_can(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = start(folder).wait()
    real = nbtune.store.RunFolder._write_events
    calls: list[int] = []

    def write(self: Any) -> None:
        calls.append(1)
        if 4 <= len(calls) <= 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self)

    monkeypatch.setattr(nbtune.store.RunFolder, "_write_events", write)
    run = start(folder).wait()
    assert len(calls) > 12
    assert run.status == "finished"
    assert figures(nbtune.open(run.folder)) == figures(whole)


def test_a_line_torn_by_a_full_disk_costs_no_other_event(home: Path) -> None:
    folder = nbtune.store.RunFolder.create("torn", {"method": "lora"})
    folder.append(Note(level="info", text="one"))
    with (folder.path / "events.jsonl").open("ab") as file:
        file.write(b'{"type": "note", "lev')
    folder.append(Note(level="info", text="two"))
    folder.release()
    assert [event.text for event in nbtune.store.RunFolder(folder.path).events()] == ["one", "two"]


def test_a_listener_that_raises_is_its_own_affair(folder: Path) -> None:
    run = start(folder)
    heard: list[str] = []
    run.listen(lambda _: 1 / 0)
    run.listen(lambda event: heard.append(event.type))
    run.wait()
    assert run.status == "finished"
    assert heard.count("step") >= 11


def test_a_run_that_goes_back_holds_its_copy_of_the_model_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_gradients(monkeypatch, {5, 6, 7})
    real, made, alive = shared.own_base, [], []

    def own_base(*said: Any, **more: Any) -> Any:
        alive.append(sum(each() is not None for each in made))
        base = real(*said, **more)
        made.append(weakref.ref(base))
        return base

    monkeypatch.setattr(shared, "own_base", own_base)
    run = start(folder, "full", learning_rate=1e-4).wait()
    assert "back to its checkpoint of step 3" in notes(run)
    assert alive == [0, 0]


def test_float16_may_seek_its_scale_for_as_many_steps_as_that_takes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_gradients(monkeypatch, {1, 2, 3, 4})
    run = start(folder, dtype="float16").wait()
    assert "back to" not in notes(run)
    assert [event.step for event in run.events() if isinstance(event, Step) and event.skipped] == [1, 2, 3, 4]
    assert run.status == "finished"
