"""Turns on a shared base are fair, and everybody gets the adapter and the mode that he asked for."""

import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import nbtune
from nbtune.methods import get
from nbtune.models import loading
from nbtune.models import lock as lock_module
from nbtune.models.loading import LoadedModel, source_of
from nbtune.models.lock import FairLock
from nbtune.models.shared import own_base, shared_base
from tests.examples import ticket_task
from tests.tiny import tiny_llama


def test_a_thread_that_takes_the_lock_again_at_once_lets_the_waiting_one_in() -> None:
    lock, order = FairLock(), []

    def greedy() -> None:
        for _ in range(50):
            with lock.held():
                order.append("greedy")
                time.sleep(0.002)

    thread = threading.Thread(target=greedy)
    thread.start()
    time.sleep(0.01)
    for _ in range(5):
        with lock.held():
            order.append("guest")
    thread.join()
    first = order.index("guest")
    assert order[first : first + 15].count("guest") == 5, "the guest did not get every second turn"


def taken_by_another(lock: FairLock) -> bool:
    """Whether another thread gets it at once."""
    taken = threading.Event()

    def take() -> None:
        with lock.held():
            taken.set()

    threading.Thread(target=take, daemon=True).start()
    return taken.wait(5)


def test_an_interrupt_while_waiting_lets_those_behind_it_in() -> None:
    lock, entered, leave = FairLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock.held():
            entered.set()
            leave.wait()

    threading.Thread(target=hold, daemon=True).start()
    entered.wait()
    threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), lock.held():
        pass
    leave.set()
    assert taken_by_another(lock)


def test_an_interrupt_anywhere_in_taking_and_giving_leaves_it_to_the_next_one() -> None:
    files = {lock_module.__file__, threading.__file__}
    for moment in range(1, 100):
        lock, moments = FairLock(), 0

        def interrupt(frame: Any, event: str, _value: Any, moment: int = moment) -> None:
            """Python looks for one where a function begins, and behind each call of one that is written in C."""
            nonlocal moments
            if frame.f_code.co_filename in files and event in {"call", "c_return"}:
                moments += 1
                if moments == moment:
                    raise KeyboardInterrupt

        before = sys.getprofile()
        sys.setprofile(interrupt)
        with suppress(KeyboardInterrupt), lock.held():
            pass
        sys.setprofile(before)
        assert taken_by_another(lock), f"held for good after an interrupt at moment {moment}"
        if moments < moment:
            break
    assert 10 < moment < 99


def test_an_interrupt_while_adapter_or_mode_are_set_has_the_next_lease_set_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = own_base(source_of(tiny_llama(tmp_path)), dtype="float32", quantization=None, device="cpu")
    lora = get("lora")
    for name in ("one", "two"):
        lora.attach(base, lora.spec.build({"r": 4}), name)
    with base.lease("one", training=True):
        pass

    def cut(call: Any) -> Any:
        def partly(*arguments: Any) -> None:
            call(*arguments)
            raise KeyboardInterrupt

        return partly

    for target, name in ((base.peft, "set_adapter"), (base.model, "train")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, cut(getattr(target, name)))
            with pytest.raises(KeyboardInterrupt), base.lease("two"):
                pass
        with base.lease("one", training=True) as model:
            assert {module.training for module in model.modules()} == {True}
            assert all(parameter.requires_grad for parameter in base.trained("one").values())
            assert not any(parameter.requires_grad for parameter in base.trained("two").values())


def test_adapters_on_one_base_do_not_disturb_each_other_and_off_is_the_base(tmp_path: Path) -> None:
    base = own_base(source_of(tiny_llama(tmp_path)), dtype="float32", quantization=None, device="cpu")
    ids = torch.arange(9)[None]

    def logits(adapter: str | None) -> torch.Tensor:
        with base.lease(adapter) as model:
            return model(input_ids=ids).logits

    untouched = logits(None)
    lora = get("lora")
    for name in ("one", "two"):
        lora.attach(base, lora.spec.build({"r": 4, "seed": 1}), name)
        for key, parameter in base.trained(name).items():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.1)
    one, two = logits("one"), logits("two")
    assert not torch.equal(one, two)
    assert torch.equal(logits(None), untouched)
    assert torch.equal(logits("one"), one)
    assert base.drift() == 0
    with base.lease("one", training=True) as model:
        assert model.training
        assert torch.is_grad_enabled()
        model(input_ids=ids).logits.sum().backward()
    assert all(parameter.grad is None for parameter in base.trained("two").values())
    base.remove_adapter("two")
    assert torch.equal(logits("one"), one)


def test_adapter_and_mode_are_set_when_they_change_alone_and_always_are_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = own_base(source_of(tiny_llama(tmp_path)), dtype="float32", quantization=None, device="cpu")
    lora = get("lora")
    for name in ("one", "two"):
        lora.attach(base, lora.spec.build({"r": 4}), name)
    real, calls = type(base.peft).set_adapter, []
    monkeypatch.setattr(type(base.peft), "set_adapter", lambda self, name: (calls.append(name), real(self, name))[1])
    asked = [("one", True), ("one", True), ("one", False), (None, False), ("one", True), ("two", True), ("one", True), ("one", True)]
    for adapter, training in asked:
        with base.lease(adapter, training=training) as model:
            assert {module.training for module in model.modules()} == {training}
            for name in ("one", "two"):
                assert {parameter.requires_grad for parameter in base.trained(name).values()} == {name == adapter}
    assert calls == ["one", "two", "one"]
    lora.attach(base, lora.spec.build({"r": 4}), "three")
    with base.lease("one") as model:
        assert {module.training for module in model.modules()} == {False}
    assert calls[-1] == "one"
    with base.lease("one", training=True):
        pass
    for name in ("one", "two", "three"):
        base.remove_adapter(name)
    assert {module.training for module in base.model.modules()} == {False}


def test_a_base_is_shared_until_it_is_unloaded_and_a_loaded_model_is_the_callers_own(tmp_path: Path) -> None:
    source = source_of(tiny_llama(tmp_path))
    first = shared_base(source, dtype=None, quantization=None, device=None)
    assert shared_base(source_of(tmp_path), dtype=None, quantization=None, device=None) is first
    assert nbtune.models.load(tmp_path).model is not first.model
    assert nbtune.models.unload() >= 1
    assert shared_base(source, dtype=None, quantization=None, device=None) is not first


def test_runs_on_one_base_share_one_copy_and_answer_in_turn_without_another_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, prompts = tiny_llama(tmp_path / "tiny"), [item.prompt for item in ticket_task().test[:4]]
    said: dict[str, Any] = {"task": ticket_task(), "model": folder, "dtype": "float32", "max_steps": 4, "learning_rate": 3e-2}
    runs = [nbtune.finetune("lora", r=4, seed=seed, **said).wait() for seed in (1, 2)]
    runs.append(nbtune.combine(runs, [1, 1]))
    wanted = []
    for run in runs:
        nbtune.models.unload()
        wanted.append((run.generate(prompts), run.engine().logits(prompts[0])))
    assert len({tuple(texts) for texts, _ in wanted}) == 3
    nbtune.models.unload()
    real, loads = loading.load_weights, []
    monkeypatch.setattr(loading, "load_weights", lambda *args, **options: (loads.append(args), real(*args, **options))[1])
    opened = [nbtune.open(run.id) for run in runs]
    for _ in range(2):
        for run, (texts, logits) in zip(opened, wanted, strict=True):
            assert run.generate(prompts) == texts
            assert torch.equal(run.engine().logits(prompts[0]), logits)
    (base,) = {id(run.engine().base): run.engine().base for run in opened}.values()
    assert len(loads) == 1
    alone = sum(parameter.numel() for parameter in nbtune.models.load(folder).model.parameters())
    added = sum(run.summary["trainable_parameters"] for run in opened)
    assert sum(parameter.numel() for parameter in base.model.parameters()) == alone + added


def test_a_bound_model_is_left_as_it_was_found(tmp_path: Path) -> None:
    bound = nbtune.models.load(tiny_llama(tmp_path), dtype="float32")
    before = {name: value.clone() for name, value in bound.model.state_dict().items()}
    run = nbtune.finetune("lora", task=ticket_task(30), model=bound, max_steps=2).wait()
    assert isinstance(bound, LoadedModel)
    assert run.status == "finished"
    after = bound.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in bound.model.parameters())


def test_a_comparison_beside_a_background_training_is_right_on_both_sides(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    task = ticket_task()
    said = {"task": task, "model": folder, "dtype": "float32", "r": 4, "max_steps": 12, "num_samples": 0}
    alone = nbtune.finetune("lora", name="alone", **said).wait()
    quiet = nbtune.compare(["zero-shot", alone], task=task)
    beside = nbtune.finetune("lora", name="beside", **said)
    busy = nbtune.compare(["zero-shot", alone], task=task)
    beside.wait()
    assert list(busy.outputs["output"]) == list(quiet.outputs["output"])
    assert beside.history["loss"].tolist() == alone.history["loss"].tolist()
