"""What lies in a run's folder is read again, whatever a power loss, a full disk or another process has left there."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

import nbtune
from nbtune.errors import RunError
from nbtune.events import Finished, Note, Phase, Sample, Stopped
from nbtune.launch.live import Live
from nbtune.run import Run
from nbtune.store import RunFolder
from nbtune.training.controls import Controls
from tests.examples import echo_task

SPEC: dict[str, Any] = {"method": "lora", "task": "words", "model": "smollm2-135m"}


def folder_of(name: str = "words", *events: Any) -> RunFolder:
    folder = RunFolder.create(name, SPEC)
    for event in events:
        folder.append(event)
    return folder


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0b", "\r"])
def test_a_text_with_another_end_of_line_in_it_is_told_whole(home: Path, end: str) -> None:
    sample = Sample(step=1, row=0, prompt="a", output=f"one{end}two", expected="")
    folder = folder_of("words", sample, Note(level="info", text="after"))
    folder.release()
    assert RunFolder(folder.path).events() == folder.events()
    assert folder.events()[0] == sample


def test_what_is_asked_after_a_line_that_was_torn_is_heard(home: Path) -> None:
    folder = folder_of()
    path = folder.path / "control.jsonl"
    path.write_text('{"time": 1.0, "act')
    folder.control("stop")
    assert [request.action for request in Controls(path).new()] == ["stop"]
    folder.release()


def test_a_full_disk_is_said_to_who_asks_a_run_for_something(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of("words", Phase(text="training"))

    def full(path: Path, lines: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nbtune.store, "_append", full)
    with pytest.raises(RunError, match="cannot be asked to stop: No space left on device"):
        Run(folder).stop()
    folder.release()


def test_a_run_of_a_damaged_folder_hides_no_other(home: Path) -> None:
    for name in ("one", "two"):
        folder_of(name).release()
    damaged = nbtune.runs()[1]
    (damaged.folder / "spec.json").write_bytes(b"")
    assert nbtune.open("one").name == "one"
    with pytest.raises(RunError, match="there is no run 'on'") as error:
        nbtune.open("on")
    assert "one" in error.value.hint
    with pytest.raises(RunError, match=r"spec\.json"):
        _ = nbtune.open(damaged.id).name


@pytest.mark.parametrize(
    ("file", "what"), [("adapter_config.json", "an adapter"), ("trained.safetensors", "weights that"), ("config.json", "a model")]
)
def test_what_was_saved_from_a_run_is_told_from_the_run(tmp_path: Path, file: str, what: str) -> None:
    (tmp_path / file).write_text("{}")
    with pytest.raises(RunError, match=f"is no run but {what}") as error:
        nbtune.open(tmp_path)
    assert error.value.hint


def test_a_folder_of_which_only_the_lock_was_written_is_no_run(home: Path) -> None:
    folder = folder_of()
    folder.release()
    (folder.path / "spec.json").unlink()
    assert nbtune.runs() == []
    assert folder_of("next").name == "next"


def test_checkpoints_are_in_the_order_of_their_steps_whatever_their_digits(home: Path) -> None:
    folder = folder_of()
    names = ["step-000009", "step-999999", "step-1000000"]
    for name in names:
        (folder.path / "checkpoints" / name).mkdir(parents=True)
        (folder.path / "checkpoints" / name / "state.json").write_text("{}")
    assert [path.name for path in folder.checkpoints()] == names
    folder.release()


def test_a_spec_is_on_the_disk_before_it_has_its_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        done.append("on the disk")
        sync(handle)

    def named(self: Path, target: Path) -> Path:
        done.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", named)
    folder_of().release()
    assert done == ["on the disk", "spec.json"]


def test_a_run_that_another_process_goes_on_with_is_steered_from_the_one_that_began_it(home: Path) -> None:
    mine = folder_of("words", Phase(text="training"), Stopped(step=3, summary={}))
    live = Live(mine)
    mine.release()
    live.over.set()
    run = Run(mine)
    with pytest.raises(RunError, match="is stopped, not running"):
        run.pause()
    theirs = RunFolder(mine.path)
    theirs.take()
    theirs.append(Phase(text="training"))
    run.stop()
    with pytest.raises(TimeoutError):
        run.wait(0.1)
    theirs.append(Finished(step=6, summary={"steps": 6}))
    theirs.release()
    assert json.loads((mine.path / "control.jsonl").read_text())["action"] == "stop"
    assert run.wait().summary == {"steps": 6}


def test_a_run_that_another_process_finished_meanwhile_is_not_trained_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of("words", Phase(text="training"))
    echo_task().save(folder.path)
    folder.release()
    take = RunFolder.take

    def late(self: RunFolder) -> None:
        other = RunFolder(self.path)
        other.append(Finished(step=6, summary={}))
        take(self)

    monkeypatch.setattr(RunFolder, "take", late)
    run = nbtune.open("words")
    with pytest.raises(RunError, match="is finished"):
        run.resume()
    assert not run._folder.is_owned()
