"""Waiting in a cell: awaited or blocking, errors come through, and interrupts are counted instead of lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
import time

import pytest

from nbtune_magics.steps import Steps, awaited, blocking, in_thread

DRIVERS = [blocking, lambda steps: asyncio.run(awaited(steps))]


@pytest.fixture(params=DRIVERS, ids=["blocking", "awaited"])
def drive(request):
    return request.param


def interrupt_after(seconds: float) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_the_result_of_the_thread_comes_back(drive) -> None:
    assert drive(in_thread(lambda: 42)) == 42


def test_an_error_in_the_thread_is_raised_in_the_cell(drive) -> None:
    def fail() -> None:
        message = "no"
        raise ValueError(message)

    with pytest.raises(ValueError, match="no"):
        drive(in_thread(fail))


def test_steps_that_never_wait_just_return(drive) -> None:
    def steps() -> Steps[int]:
        return 7
        yield

    assert drive(steps()) == 7


def test_the_first_interrupt_leaves_the_cell_where_nothing_else_is_said(drive) -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupt_after(0.1)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        drive(in_thread(lambda: time.sleep(3)))
    assert time.monotonic() - began < 2
    assert signal.getsignal(signal.SIGINT) is before


def test_each_interrupt_is_told_with_its_count(drive) -> None:
    counts: list[int] = []
    stop = threading.Event()

    def interrupted(count: int) -> None:
        counts.append(count)
        if count == 2:
            stop.set()

    interrupt_after(0.1)
    interrupt_after(0.4)
    drive(in_thread(lambda: stop.wait(5), interrupted=interrupted))
    assert counts == [1, 2]


def test_the_loop_stays_free_while_a_cell_is_awaited() -> None:
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def both() -> None:
        ticking = asyncio.create_task(tick())
        await awaited(in_thread(lambda: time.sleep(0.5)))
        ticking.cancel()

    asyncio.run(both())
    assert len(ticks) > 15
    assert max(later - earlier for earlier, later in itertools.pairwise(ticks)) < 0.3


def test_a_cancelled_cell_is_an_interrupted_one() -> None:
    ended: list[type[BaseException]] = []

    def steps() -> Steps[None]:
        try:
            while True:
                yield
        except KeyboardInterrupt:
            ended.append(KeyboardInterrupt)
            raise

    async def cell() -> None:
        task = asyncio.current_task()
        asyncio.get_running_loop().call_later(0.1, task.cancel)
        await awaited(steps())

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(cell())
    assert ended == [KeyboardInterrupt]


def test_off_the_main_thread_no_handler_is_set() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(blocking(in_thread(lambda: 5))))
    thread.start()
    thread.join(5)
    assert found == [5]
