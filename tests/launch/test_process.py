"""Runs in processes of their own: the same results as a thread's, through closed kernels, signals and failures to start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nbtune
from nbtune.errors import RunError, SpecError
from nbtune.events import Event, Step
from tests.examples import ticket_task
from tests.magics.kernel import Kernel
from tests.tiny import tiny_llama

ROOT = Path(__file__).parents[2]
LONG = {"max_steps": 100_000, "eval_steps": 1_000_000}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def launched() -> Iterator[list[nbtune.Run]]:
    """Runs that must not outlive their test, whatever becomes of it."""
    runs: list[nbtune.Run] = []
    yield runs
    for run in runs:
        run.stop()


def until(true: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def trains(run: nbtune.Run) -> bool:
    return any(isinstance(event, Step) for event in run.events())


def worker(run: nbtune.Run) -> int:
    """The process id of a run that trains."""
    return int(run._folder.read_json("environment.json")["process"])


def adapter(run: nbtune.Run) -> bytes:
    return (max((run.folder / "checkpoints").iterdir()) / "adapter_model.safetensors").read_bytes()


def test_a_process_run_gives_the_bytes_of_a_thread_run_and_is_heard_once_and_never_interrupted(tiny: Path) -> None:
    said = {"task": ticket_task(), "model": tiny, "max_steps": 6, "eval_steps": 3, "per_device_train_batch_size": 4}
    thread = nbtune.finetune("lora", name="thread", **said).wait()
    run = nbtune.finetune("lora", name="process", launch="process", **said)
    seen = {run.status, nbtune.open("process").status}
    heard: list[Event] = []
    run.listen(heard.append)
    nbtune.open("process").listen(lambda _: seen.add(nbtune.open("process").status))
    while run.status not in ("finished", "failed"):
        seen.add(run.status)
    assert run.wait(60).status == "finished"
    assert seen <= {"queued", "running", "finished"}
    assert worker(run) != os.getpid()
    assert adapter(run) == adapter(thread)
    assert run.history.drop(columns="seconds").equals(thread.history.drop(columns="seconds"))
    until(lambda: heard and heard[-1].type == "finished", 10)
    assert heard == run.events()
    assert run.predict([{"text": "the parcel"}]) == thread.predict([{"text": "the parcel"}])


def test_a_process_run_that_was_stopped_is_resumed_in_a_process_and_forked_in_a_thread(tiny: Path) -> None:
    said = {"task": ticket_task(), "model": tiny, "max_steps": 40, "eval_steps": 40, "per_device_train_batch_size": 4}
    thread = nbtune.finetune("lora", name="thread", **said).wait()
    run = nbtune.finetune("lora", name="process", launch="process", **said)
    run.listen(lambda event: run.stop() if event.type == "step" and event.step == 5 else None)
    assert run.wait(120).status == "stopped"
    assert run.resume().status in {"queued", "running"}
    assert run.wait(120).status == "finished"
    assert adapter(run) == adapter(thread)
    fork = run.fork(launch="thread", max_steps=44).wait(120)
    assert fork.history.index.tolist() == list(range(1, 45))


def test_a_run_goes_on_when_the_script_that_launched_it_has_ended_and_sigterm_stops_it(tiny: Path, launched: list[nbtune.Run]) -> None:
    code = (
        "import nbtune; from tests.examples import ticket_task\n"
        f"nbtune.finetune('lora', task=ticket_task(), model={str(tiny)!r}, name='far', launch='process', **{LONG!r},\n"
        "                save_steps=5, warmup_steps=0, learning_rate=1e-2, dtype='float32')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    run = nbtune.open("far")
    launched.append(run)
    while not trains(run):
        assert run.status in ("queued", "running")
    with pytest.raises(TimeoutError, match="running after"):
        run.wait(0.3)
    with pytest.raises(RunError, match="in use by another process"):
        run._folder.take()
    until(run._folder.checkpoints)
    early = run.engine().logits("Ticket")
    heard: list[Event] = []

    def broken(event: Event) -> None:
        heard.append(event)
        raise ZeroDivisionError

    end = run.listen(broken)
    until(lambda: len(heard) > 2)
    end()
    until(lambda: not any(thread.name == f"nbtune-follow-{run.id}" for thread in threading.enumerate()), 10)
    os.kill(worker(run), signal.SIGTERM)
    assert run.wait(60).status == "stopped"
    assert adapter(run)
    assert "stopped" not in {event.type for event in heard}
    late = run.engine().logits("Ticket")  # of the last checkpoint, whatever this process had read of the run before
    nbtune.models.unload()
    assert (late == run.engine().logits("Ticket")).all()
    assert (late != early).any()


def test_a_killed_worker_leaves_its_run_interrupted_and_out_of_the_way(tiny: Path, launched: list[nbtune.Run]) -> None:
    run = nbtune.finetune("lora", task=ticket_task(), model=tiny, launch="process", **LONG)
    launched.append(run)
    waits = nbtune.finetune("lora", task=ticket_task(), model=tiny, name="waits", max_steps=1)
    until(lambda: trains(run))
    assert waits.status == "queued"
    os.kill(worker(run), signal.SIGKILL)
    with pytest.raises(RunError, match="its process is gone"):
        run.wait(60)
    assert run.status == "interrupted"
    assert waits.wait(60).status == "finished"


def test_a_process_that_cannot_start_is_told_with_what_it_said(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nsleep 0.3\necho 'libpython is <gone>' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    run = nbtune.finetune("lora", task=ticket_task(), model=tiny, launch="process", max_steps=1)
    seen = set()
    while (status := run.status) not in ("failed", "finished", "interrupted"):
        seen.add(status)
    assert (seen, status) == ({"queued"}, "failed")
    with pytest.raises(RunError, match=r"exit status 3 before its run did: libpython is <gone>"):
        run.wait(10)
    assert len(nbtune.queue()) == 0
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RunError, match="no process could be started"):
        nbtune.finetune("lora", task=ticket_task(), model=tiny, launch="process", max_steps=1)
    assert len(nbtune.runs()) == 1


def test_what_fails_in_a_process_is_told_there_as_a_user_s_mistake(tiny: Path) -> None:
    run = nbtune.finetune("lora", task=ticket_task(), model=tiny, launch="process", target_modules=["q_prj"])
    with pytest.raises(RunError, match="no module 'q_prj'"):
        run.wait(120)
    assert nbtune.open(run.id).status == "failed"


def test_what_cannot_travel_is_refused_and_nothing_is_written(tiny: Path, home: Path) -> None:
    with pytest.raises(SpecError, match="is an object of this process"):
        nbtune.finetune("lora", task=ticket_task(), model=nbtune.models.load(tiny), launch="process")

    def strict(output: str, expected: str) -> float:
        return float(output == expected)

    with pytest.raises(SpecError, match="'strict' is a function of this notebook"):
        nbtune.finetune("lora", task=ticket_task(metric=strict), model=tiny, launch="process")
    assert not (home / "runs").exists()


def test_a_process_run_that_is_stopped_while_it_waits_ends_at_once(tiny: Path, launched: list[nbtune.Run]) -> None:
    first = nbtune.finetune("lora", task=ticket_task(), model=tiny, name="first", **LONG)
    launched.append(first)
    until(lambda: trains(first))
    second = nbtune.finetune("lora", task=ticket_task(), model=tiny, name="second", launch="process", **LONG)
    until(lambda: any(event.type == "queued" for event in second.events()))
    second.stop()
    assert second.wait(60).status == "stopped"
    assert first.status == "running"
    first.stop()
    first.wait(60)


TASK = (
    f"import sys; sys.path.append({str(ROOT)!r})\n"
    "%load_ext nbtune\n"
    "import nbtune; from tests.examples import ticket_task; tickets = ticket_task()\n"
    "LONG = {'max_steps': 100_000, 'eval_steps': 1_000_000}"
)


@pytest.mark.kernel
def test_a_process_run_outlives_its_kernel_and_is_attached_from_a_new_one(tiny: Path, home: Path, launched: list[nbtune.Run]) -> None:
    first = Kernel(home.parent)
    assert first.run(TASK).status == "ok"
    line = f"%finetune lora --task tickets --model {tiny} --max_steps 100000 --eval_steps 1000000 --launch process --background --as far"
    wait = "import time\nwhile not any(event.type == 'step' for event in far.events()): time.sleep(0.1)"
    assert first.run(f"{line}\n{wait}", timeout=120).status == "ok"
    launched.append(nbtune.open("far"))
    first.close()  # kills it
    second = Kernel(home.parent)
    try:
        second.run(TASK)
        assert second.value("nbtune.open('far').status") == "running"
        attached = second.run("%runs attach far")
        assert attached.status == "ok", attached.lines
        shown = attached.shown
        assert "application/vnd.jupyter.widget-view+json" in shown[0]
        steps = "sum(event.type == 'step' for event in far.events())"
        before = int(second.value(steps))
        heard = "heard = []\nend = far.listen(heard.append)\nimport time\nwhile len(heard) < 3: time.sleep(0.05)\nend()"
        assert second.run(heard, timeout=60).status == "ok"
        assert int(second.value(steps)) > before
        assert "far" in second.run("%runs queue").shown[-1]["text/plain"]
        last = second.run("far.stop()\nfar.wait()\ntime.sleep(1)", timeout=60)
        assert last.status == "ok"
        assert second.value("far.status") == "stopped"
    finally:
        second.close()
    assert adapter(nbtune.open("far"))


@pytest.mark.kernel
def test_sigterm_to_a_kernel_stops_its_run_with_a_checkpoint_and_keeps_what_waits(tiny: Path, home: Path) -> None:
    kernel = Kernel(home.parent)
    try:
        runs = f"for name in ('works', 'waits'): run = nbtune.finetune('lora', task=tickets, model={str(tiny)!r}, name=name, **LONG)"
        wait = "import time\nwhile not any(event.type == 'step' for event in nbtune.open('works').events()): time.sleep(0.1)"
        assert kernel.run(f"{TASK}\n{runs}\n{wait}\nimport os", timeout=120).status == "ok"
        os.kill(int(kernel.value("os.getpid()")), signal.SIGTERM)
        until(lambda: not kernel.manager.is_alive(), 60)
    finally:
        kernel.close()
    assert [(run.name, run.status) for run in nbtune.runs()] == [("works", "stopped"), ("waits", "interrupted")]
    assert adapter(nbtune.open("works"))
    assert [run.name for run in nbtune.queue()] == ["waits"]


def test_a_handler_of_somebody_else_s_is_called_after_the_runs_are_stopped() -> None:
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: print('theirs', flush=True))\n"
        "from nbtune.launch.signals import stop_on_sigterm\n"
        "stop_on_sigterm(); stop_on_sigterm()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "before = signal.getsignal(signal.SIGTERM)\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: (print('newer', flush=True), before(number, frame)))\n"
        "stop_on_sigterm()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL); stop_on_sigterm()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('not ended')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout.split(), done.returncode) == (["theirs", "newer", "theirs"], -signal.SIGTERM)
