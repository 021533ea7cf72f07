"""What a run is expected to need: told before the model is loaded, and set right by its first three steps."""

from __future__ import annotations

import gc
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nbtune
from nbtune.data.batches import collate, rows_of_step
from nbtune.errors import SpecError
from nbtune.estimate.lengths import encoded
from nbtune.events import Estimated, Event, Note, Phase, Step
from nbtune.methods import get
from nbtune.models.device import give_back
from nbtune.models.loading import source_of
from nbtune.training import forecast as module
from nbtune.training.memory import PeakMemory
from tests.examples import echo_task
from tests.training.runs import start


def _estimates(events: list[Event]) -> list[Estimated]:
    return [event for event in events if isinstance(event, Estimated)]


def test_it_is_told_before_the_model_is_loaded_and_again_after_the_third_step(folder: Path) -> None:
    run = start(folder).wait()
    events = run.events()
    first, second = _estimates(events)
    loading = next(event for event in events if isinstance(event, Phase) and event.text.startswith("loading"))
    assert events.index(first) < events.index(loading)
    assert first.measured_steps == 0
    told = [event.step for event in events[: events.index(second)] if isinstance(event, Step)]
    assert (told[-1], second.measured_steps) == (3, 3)
    assert run.estimate == second


def test_the_second_is_what_was_measured_where_all_rows_are_of_one_length(folder: Path) -> None:
    data = {"train": [{"text": f"{number:03}"} for number in range(40)], "test": [{"text": "abc"}]}
    task = nbtune.Task(
        name="same", kind="generation", data=data, prompt="{{ text }}:", completion=" {{ text }}", split={"dev": 0, "test": 0}
    )
    run = nbtune.finetune("lora", task=task, model=folder, max_steps=10, per_device_train_batch_size=4, num_samples=0).wait()
    first, second = _estimates(run.events())
    third = next(event for event in run.events() if isinstance(event, Step) and event.step == 3)
    expected = nbtune.estimate("lora", task=task, model=folder, per_device_train_batch_size=4)
    assert second.peak_memory_bytes == third.memory_bytes + expected.checkpoint_bytes
    rows = encoded(task, get("lora").spec.build({}), source_of(folder))
    batches = [collate([rows[number] for number in rows_of_step(40, 4, 0, step)], packed=True, pad_id=0) for step in range(10)]
    assert expected.places_per_epoch == sum(batch.num_places for batch in batches)
    steps = [event for event in run.events() if isinstance(event, Step)]
    pace = sum(step.data_seconds + step.forward_seconds + step.backward_seconds + step.optimizer_seconds for step in steps[1:3]) / 2
    assert second.seconds_per_epoch == pytest.approx(10 * pace, rel=0.5)
    assert first.seconds_per_epoch == pytest.approx(expected.seconds_per_epoch, rel=0.5)


def test_rows_that_are_longer_and_still_to_come_are_added(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["ab" * (100 if number == 19 else 1) for number in range(20)]
    data = {"train": [{"text": f"{number} {text}", "say": "x"} for number, text in enumerate(texts)], "test": [{"text": "abc", "say": "y"}]}
    task = nbtune.Task(name="one", kind="generation", data=data, prompt="{{ text }}:", completion=" {{ say }}", split={"dev": 0, "test": 0})
    free = 10**12
    monkeypatch.setattr(module, "available_bytes", lambda _: free)

    def told(seed: int) -> tuple[int, list[str]]:
        options: dict[str, Any] = {"max_steps": 5, "per_device_train_batch_size": 4, "num_samples": 0, "seed": seed}
        run = nbtune.finetune("lora", task=task, model=folder, **options).wait()
        events, last = run.events(), _estimates(run.events())[-1]
        place = events.index(last)
        before = max(event.memory_bytes for event in events[:place] if isinstance(event, Step))
        return last.peak_memory_bytes - before, [event.text for event in events if isinstance(event, Note) and event.level == "warning"]

    from nbtune.data.batches import rows_of_step

    def when(seed: int) -> int:
        return next(step for step in range(5) if 19 in rows_of_step(20, 4, seed, step))

    early, late = (next(seed for seed in range(99) if (when(seed) < 3) is sooner) for sooner in (True, False))
    assert told(late)[0] > told(early)[0] + 100_000
    assert not told(late)[1]
    free = 0
    assert any("the longest rows are still to come" in text and "0.0 GB are free" in text for text in told(late)[1])


def test_a_run_of_fewer_steps_keeps_the_first(folder: Path) -> None:
    run = start(folder, max_steps=2).wait()
    assert [told.measured_steps for told in _estimates(run.events())] == [0]
    assert run.estimate is not None
    assert run.estimate.peak_memory_bytes > 0


def test_a_run_that_is_refused_expects_nothing(folder: Path) -> None:
    with pytest.raises(SpecError):
        nbtune.finetune("lora", task=echo_task(), model=folder, layers_to_transform=[9]).wait()


@pytest.fixture
def quiet() -> None:
    """Nothing that earlier tests left is given back while memory is watched."""
    gc.collect()
    give_back()


def _mapped(size: int) -> mmap.mmap:
    """So many bytes in use, of the kernel's own: a heap would take pages that earlier tests left resident in it."""
    pages = mmap.mmap(-1, size)
    np.frombuffer(pages, dtype=np.uint8).fill(1)
    return pages


def _use(size: int) -> None:
    _mapped(size).close()


@pytest.mark.usefixtures("quiet")
def test_a_peak_that_is_over_is_remembered_and_the_next_begins_anew() -> None:
    peak = PeakMemory(torch.device("cpu"))
    assert peak.bytes() - peak.before < 20e6
    _use(300_000_000)
    assert 290e6 < peak.bytes() - peak.before < 350e6
    _use(100_000_000)
    assert peak.bytes() - peak.before > 290e6
    again = PeakMemory(torch.device("cpu"))
    _use(100_000_000)
    assert 90e6 < again.bytes() - again.before < 150e6


@pytest.mark.usefixtures("quiet")
def test_where_the_kernel_has_no_mark_the_most_that_was_seen_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("nbtune.training.memory._PROCESS", tmp_path / "none")
    peak = PeakMemory(torch.device("cpu"))
    held = _mapped(200_000_000)
    most = peak.bytes()
    assert most - peak.before > 190e6
    held.close()
    assert peak.bytes() == most
