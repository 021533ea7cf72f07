"""The kept states on the disk: whole or not there, taken up again, and gone when nobody needs them."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import nbtune
from nbtune.data.encoded import Encoded
from nbtune.errors import RunError
from nbtune.training import activations
from nbtune.training.activations import open_cache, remove_left
from tests.training.cached import SFT, base_with, kept, opened, trained
from tests.training.runs import start


def test_a_rebuild_gives_the_same_bytes_whatever_was_trained_since(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    base = base_with(folder, "last-blocks", num_blocks=1)
    cache = opened(base, rows, tmp_path)
    first = (tmp_path / "activations" / "states.bin").read_bytes()
    trained(base, rows, kept(cache), steps=5)
    cache.close()
    opened(base, rows, tmp_path)
    assert (tmp_path / "activations" / "states.bin").read_bytes() == first


def test_a_whole_cache_is_taken_up_again_by_a_run_that_carries_on(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    opened(base_with(folder, "last-blocks", num_blocks=1), rows, tmp_path)
    path = tmp_path / "activations" / "states.bin"
    stamp = path.stat().st_mtime_ns, path.stat().st_ino
    base = base_with(folder, "last-blocks", num_blocks=1)
    cache, text = open_cache(base, "it", rows, objective=SFT, packed=True, folder=tmp_path, limit=0)  # what lies there needs no room
    assert cache is not None
    assert "are taken up again" in text
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == stamp


def cut_short(folder: Path) -> None:
    path = folder / "states.bin"
    path.write_bytes(path.read_bytes()[:-100])


def without_index(folder: Path) -> None:
    (folder / "index.json").unlink()


def with_a_torn_index(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(path.read_text()[:40])


def of_other_rows(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rows": "0" * 64}))


def of_other_weights(folder: Path) -> None:
    path = folder / "states.bin"
    path.write_bytes(bytes(path.stat().st_size))


def never_renamed(folder: Path) -> None:
    folder.rename(folder.parent / ".part-activations")
    cut_short(folder.parent / ".part-activations")


@pytest.mark.parametrize("damage", [cut_short, without_index, with_a_torn_index, of_other_rows, of_other_weights, never_renamed])
def test_what_is_half_written_or_of_something_else_is_computed_anew(
    folder: Path, rows: list[Encoded], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    base = base_with(folder, "last-blocks", num_blocks=1)
    opened(base, rows, tmp_path)
    place = tmp_path / "activations"
    whole = {path.name: path.read_bytes() for path in place.iterdir()}
    damage(place)
    cache, text = open_cache(base, "it", rows, objective=SFT, packed=True, folder=tmp_path)
    assert cache is not None
    assert "are computed once" in text
    assert {path.name: path.read_bytes() for path in place.iterdir()} == whole
    assert [path.name for path in tmp_path.iterdir()] == ["activations"]


def test_nothing_is_left_behind_when_the_filling_is_ended(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(base_with(folder, "last-blocks", num_blocks=1), rows, tmp_path, tell=stop)
    assert told[0][1] == len(rows)
    assert list(tmp_path.iterdir()) == []


def test_others_get_their_turn_on_the_base_between_two_forwards_of_the_filling(
    folder: Path, rows: list[Encoded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "GROUP_TOKENS", 100)
    base = base_with(folder, "last-blocks", num_blocks=1)
    turns: list[int] = []
    counts: list[int] = []

    def somebody_else() -> None:
        with base.lease():
            turns.append(len(counts))

    def tell(done: int, _total: int) -> None:
        counts.append(done)
        thread = threading.Thread(target=somebody_else, daemon=True)
        thread.start()
        thread.join(10)
        assert len(turns) == len(counts)

    opened(base, rows, tmp_path, tell=tell)
    assert len(turns) > 5
    assert counts == sorted(set(counts))
    assert counts[-1] == len(rows)


def test_a_closed_cache_is_gone_from_the_disk_and_says_so(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    base = base_with(folder, "head")
    cache = opened(base, rows, tmp_path)
    assert (tmp_path / "activations").is_dir()
    cache.close()
    cache.close()
    assert list(tmp_path.iterdir()) == []
    with base.lease("it", training=True) as model, pytest.raises(RunError, match="is closed"):
        cache.loss(model, SFT, [0])


def test_a_full_disk_turns_auto_off_and_is_told_by_true(
    folder: Path, rows: list[Encoded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    base = base_with(folder, "last-blocks", num_blocks=1)
    cache, text = open_cache(base, "it", rows, objective=SFT, packed=True, folder=tmp_path)
    assert (cache, text) == (None, "activation_cache is off: the states could not be written: No space left on device")
    with pytest.raises(RunError, match="No space left on device"):
        opened(base, rows, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_states_of_a_run_that_nobody_trains_any_more_go_when_another_begins(folder: Path) -> None:
    def states(run: nbtune.Run) -> bool:
        return (run.folder / "activations").exists()

    options = {"num_blocks": 1, "max_steps": 100_000, "eval_steps": 100_000}
    left = start(folder, "last-blocks", name="left", **options)
    left.listen(lambda event: left.stop() if event.type == "step" and event.step == 2 else None)
    left.wait()
    assert states(left)
    trains = start(folder, "last-blocks", name="trains", **options)
    while not trains.history.index.size:
        time.sleep(0.02)
    assert (states(left), states(trains)) == (False, True)
    remove_left()
    assert states(trains)
    trains.stop()
    trains.wait()
    left.resume().listen(lambda event: left.stop() if event.type == "step" else None)
    assert left.wait().summary["steps"] > 2
