"""Checkpoints are whole or not there, and what is kept is what a run can go on from."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

import nbtune
from nbtune.events import Step
from nbtune.training import checkpoints
from nbtune.training.checkpoints import MARKER, Writer, newest_whole, remove, retain
from tests.tiny import tiny_llama
from tests.training.runs import OPTIONS, start


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def saved(root: Path, step: int, *, whole: bool = True) -> Path:
    path = root / f"step-{step:06d}"
    path.mkdir(parents=True)
    (path / MARKER).write_text('{"files": {}}' if whole else "")
    return path


def test_a_damaged_newer_one_takes_no_place_from_those_a_run_can_go_on_from(tmp_path: Path) -> None:
    for step in (3, 6):
        saved(tmp_path, step)
    saved(tmp_path, 12, whole=False)
    newest = saved(tmp_path, 9)
    retain(newest, 1, None)
    assert newest_whole(tmp_path)[0] == newest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000009", "step-000012"]


def test_the_best_one_is_kept_beside_the_newest(tmp_path: Path) -> None:
    paths = [saved(tmp_path, step) for step in (3, 6, 9, 12)]
    retain(paths[-1], 2, 3)
    assert sorted(tmp_path.iterdir()) == [paths[0], *paths[2:]]


def test_one_whose_removal_is_cut_short_is_a_checkpoint_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, 3)

    def killed(*_arguments: Any, **_named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove(path)
    assert newest_whole(tmp_path) == (None, [])


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".part-step-000007").mkdir()
    kept = saved(tmp_path, 6)
    Writer(tmp_path, 2)
    assert list(tmp_path.iterdir()) == [kept]


def test_a_checkpoint_has_its_name_after_its_files_their_names_and_the_events_before_it_are_on_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int | str] = []
    sync, rename = os.fsync, Path.rename

    def synced(handle: int) -> None:
        done.append(os.fstat(handle).st_ino)
        sync(handle)

    def renamed(self: Path, target: Path) -> Path:
        done.append(Path(target).name)
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    run = start(folder, max_steps=3).wait()
    path = run.folder / "checkpoints" / "step-000003"
    named = done.index(path.name)
    for before in (path, *path.iterdir(), run.folder / "events.jsonl"):
        assert before.stat().st_ino in done[:named], before.name
    assert path.parent.stat().st_ino in done[named:]


def test_no_step_is_told_before_the_checkpoint_ahead_of_it_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = checkpoints.write
    told: list[tuple[int, int]] = []

    def slow(root: Path, moment: Any) -> Path:
        time.sleep(0.5)
        path = real(root, moment)
        told.append((moment.step, max(event.step for event in nbtune.open(root.parent).events() if isinstance(event, Step))))
        return path

    monkeypatch.setattr(checkpoints, "write", slow)
    start(folder).wait()
    assert told == [(step, step) for step in range(OPTIONS["save_steps"], OPTIONS["max_steps"] + 1, OPTIONS["save_steps"])]
