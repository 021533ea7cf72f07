"""The queue of a project: order, turns, moving and cancelling, and what dead processes leave in it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import nbtune
from nbtune.errors import RunError
from nbtune.events import Event, Queued, Step
from nbtune.launch.queue import QueueFile
from nbtune.launch.turns import GaveUpError, take_place, turn
from nbtune.store import RunFolder, find_run
from tests.examples import ticket_task
from tests.tiny import tiny_llama

ROOT = Path(__file__).parents[2]
LONG = {"max_steps": 100_000, "eval_steps": 1_000_000}
HOLDER = """
import sys, time
from nbtune.launch.turns import take_place, turn
from nbtune.store import RunFolder
folder = RunFolder.create("other", {"method": "lora"})
take_place(folder, "cpu")
with turn(folder, "cpu", tell=lambda event: None, cancelled=lambda: False):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def ignore(_event: Event) -> None:
    pass


def waiting(name: str, device: str = "cpu") -> RunFolder:
    folder = RunFolder.create(name, {"method": "lora", "name": name})
    take_place(folder, device)
    return folder


def taking_turns(folders: list[RunFolder], done: list[str], told: list[Event]) -> list[threading.Thread]:
    def work(folder: RunFolder) -> None:
        with turn(folder, "cpu", tell=told.append, cancelled=lambda: False):
            done.append(folder.name)
        folder.release()

    threads = [threading.Thread(target=work, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    return threads


def test_turns_come_in_the_order_of_the_places_and_not_of_who_asked_first() -> None:
    folders = [waiting(name) for name in ("one", "two", "three")]
    done: list[str] = []
    told: list[Event] = []
    last, second = taking_turns([folders[2], folders[1]], done, told)
    until(lambda: len(told) == 2)
    assert done == []
    (first,) = taking_turns([folders[0]], done, told)
    for thread in (first, second, last):
        thread.join(30)
    assert done == ["one", "two", "three"]
    assert {event.ahead for event in told if isinstance(event, Queued)} >= {(folders[0].id, folders[1].id), (folders[0].id,)}
    assert QueueFile.of(folders[0]).entries() == []


def test_a_run_whose_process_is_gone_is_in_nobody_s_way_and_stays_listed_as_interrupted() -> None:
    dead, living = waiting("dead"), waiting("living")
    dead.release()  # as a killed process does
    with turn(living, "cpu", tell=ignore, cancelled=lambda: False):
        assert [(run.name, run.status) for run in nbtune.queue()] == [("living", "queued"), ("dead", "interrupted")]
    living.release()
    nbtune.queue().cancel("dead")
    assert len(nbtune.queue()) == 0


def test_devices_are_waited_for_separately_and_one_not_known_yet_is_waited_for_by_all() -> None:
    first, other = waiting("first", "cpu"), waiting("other", "cuda:1")
    queue = QueueFile.of(first)
    assert queue.ahead(other.id) == ()
    queue.enter("unknown", None)
    assert queue.ahead("unknown") == (first.id, other.id)
    for folder in (first, other):
        folder.release()


def test_a_run_moved_up_goes_first_but_never_before_the_one_at_work() -> None:
    work, *rest = (waiting(name) for name in ("work", "a", "b", "c"))
    assert QueueFile.of(work).begin(work.id) == ()
    nbtune.queue().move("c", 1)
    assert [run.name for run in nbtune.queue()] == ["work", "c", "a", "b"]
    nbtune.queue().move("c", 99)
    nbtune.queue().move(nbtune.open("a"), 2)
    assert [run.name for run in nbtune.queue()] == ["work", "b", "a", "c"]
    with pytest.raises(RunError, match="does not wait"):
        nbtune.queue().move("work", 1)
    with pytest.raises(RunError, match="1 or more, not 0"):
        nbtune.queue().move("c", 0)
    with pytest.raises(RunError, match="no run 'nobody'"):
        nbtune.queue().cancel("nobody")
    assert repr(nbtune.queue()).splitlines()[2].split()[:3] == ["1", "b", "cpu"]
    assert "<td" in nbtune.queue()._repr_html_()
    for folder in (work, *rest):
        folder.release()


def test_who_is_cancelled_while_waiting_gives_up() -> None:
    first, second = waiting("first"), waiting("second")
    with pytest.raises(GaveUpError), turn(second, "cpu", tell=ignore, cancelled=lambda: True):
        pytest.fail("it had a turn")
    for folder in (first, second):
        folder.release()


def test_another_process_s_turn_is_waited_for_and_ends_with_it(home: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mine\n"
        mine = waiting("mine")
        assert QueueFile.of(mine).begin(mine.id) == (find_run("other").id,)
        holder.kill()
        holder.wait()
        assert QueueFile.of(mine).begin(mine.id) == ()
        mine.release()
    finally:
        holder.kill()
        holder.communicate()


def test_many_threads_that_enter_and_leave_at_once_lose_no_place(home: Path) -> None:
    queue = QueueFile(home)
    home.mkdir()
    folders = [RunFolder.create(f"r{number}", {}) for number in range(8)]

    def work(folder: RunFolder) -> None:
        for _ in range(5):
            queue.enter(folder.id, "cpu")
            queue.leave(folder.id)
        queue.enter(folder.id, "cpu")

    threads = [threading.Thread(target=work, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.run for entry in queue.entries()} == {folder.id for folder in folders}
    assert json.loads((home / "queue.json").read_text())["entries"]
    for folder in folders:
        folder.release()


def test_asking_for_the_owner_never_looks_like_one_and_keeps_none_out() -> None:
    folder = RunFolder.create("idle", {})
    folder.release()
    answers: list[bool] = []

    def asking() -> list[threading.Thread]:
        ask = [threading.Thread(target=lambda: answers.extend(RunFolder(folder.path).is_owned() for _ in range(300))) for _ in range(4)]
        for thread in ask:
            thread.start()
        return ask

    for thread in asking():
        thread.join()
    assert answers == [False] * 1200
    threads = asking()
    for _ in range(20):
        again = RunFolder(folder.path)
        again.take()
        again.release()
    for thread in threads:
        thread.join()


def test_runs_of_this_process_wait_in_the_queue_and_can_be_reordered_and_cancelled(tiny: Path) -> None:
    task = ticket_task()
    first = nbtune.finetune("lora", task=task, model=tiny, name="first", **LONG)
    until(lambda: any(isinstance(event, Step) for event in first.events()))
    second, third, fourth = (nbtune.finetune("lora", task=task, model=tiny, name=name, max_steps=1) for name in ("b", "c", "d"))
    nbtune.queue().move(third, 1)
    nbtune.queue().cancel(fourth)
    assert fourth.wait(30).status == "stopped"  # at once, while the first still trains
    assert [(run.name, run.status) for run in nbtune.queue()] == [("first", "running"), ("c", "queued"), ("b", "queued")]
    with pytest.raises(RunError, match="does not wait"):
        nbtune.queue().cancel(first)
    first.stop()
    for run in (first, second, third):
        run.wait(60)
    began = {run.name: next(event.time for event in run.events() if event.type == "started") for run in (second, third)}
    assert began["c"] < began["b"]
    until(lambda: len(nbtune.queue()) == 0)


def test_a_device_named_and_the_same_one_chosen_by_itself_are_one(tiny: Path) -> None:
    from nbtune.models.device import best_device

    first = nbtune.finetune("lora", task=ticket_task(), model=tiny, name="first", **LONG)
    until(lambda: any(isinstance(event, Step) for event in first.events()))
    named = nbtune.finetune("lora", task=ticket_task(), model=tiny, max_steps=1, device=str(best_device()))
    until(named.events)
    assert (named.events()[0].type, named.status) == ("queued", "queued")
    first.stop()
    assert named.wait(60).status == "finished"
