"""What only a CUDA device can show: nothing waits for it, its memory running out, float16, bitsandbytes' kernels, and equal bits."""

from pathlib import Path
from typing import Any

import pytest
import torch

import nbtune
from nbtune.events import Note
from nbtune.training.step import Stepper
from tests.tiny import tiny_llama
from tests.training.runs import OPTIONS, bytes_of, figures, start

pytestmark = pytest.mark.cuda

LONG = {"text": "the parcel never came, I want my money back. " * 9, "team": "billing"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def notes(run: nbtune.Run) -> str:
    return "\n".join(event.text for event in run.events() if isinstance(event, Note))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lora", {}),
        ("lora", {"packing": False}),
        ("lora", {"neftune_noise_alpha": 5.0, "gradient_accumulation_steps": 2}),
        ("lora", {"gradient_checkpointing": True}),
        ("lora", {"dtype": "float16"}),
        ("lora", {"quantization": "nf4"}),
        ("full", {}),
        ("head", {}),
        ("last-blocks", {"num_blocks": 1}),
    ],
)
def test_a_step_never_waits_for_the_device(folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, options: dict[str, Any]) -> None:
    real, steps = Stepper._take, []

    def take(self: Stepper, step: int, *arguments: Any) -> Any:
        if step > 2:  # kernels are loaded in the first, and the optimizer's state is made
            torch.cuda.set_sync_debug_mode("error")
            steps.append(step)
        try:
            return real(self, step, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Stepper, "_take", take)
    run = start(folder, method, **options).wait()
    assert steps == list(range(3, 13))
    assert run.summary["peak_memory_bytes"] > 0


def test_memory_that_runs_out_halves_the_batch_and_gives_the_same_numbers(folder: Path) -> None:
    options = {"lora_dropout": 0.0, "dtype": "float32", "gradient_checkpointing": False, "per_device_train_batch_size": 8}
    whole = start(folder, **options).wait()
    free, total = torch.cuda.mem_get_info()
    real = Stepper._micro_step
    taken: list[torch.Tensor] = []

    def greedy(self: Stepper, model: Any, micro: list[int], of: Any) -> Any:
        """More than the device has, for more than two rows."""
        if len(micro) > 2:
            taken.append(torch.empty(total, dtype=torch.uint8, device="cuda"))
        return real(self, model, micro, of)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "_micro_step", greedy)
        run = start(folder, **options).wait()
    assert not taken
    assert free > 0
    assert "out of memory: from here on 2 rows at once" in notes(run)
    assert run.history["loss"].tolist() == pytest.approx(whole.history["loss"].tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lora", {"dtype": "bfloat16"}),
        ("lora", {"dtype": "float32"}),
        ("lora", {"dtype": "float16"}),
        ("lora", {"dtype": "bfloat16", "packing": False}),
        ("lora", {"quantization": "nf4"}),
        ("lora", {"quantization": "int8"}),
        ("full", {"dtype": "bfloat16"}),
        ("lora", {"optim": "adamw_8bit"}),
    ],
)
def test_a_run_of_long_rows_that_was_stopped_and_resumed_ends_with_the_same_bits(
    folder: Path, method: str, options: dict[str, Any]
) -> None:
    rows = [{"text": f"{number} {LONG['text']}"[: 60 + 37 * number], "team": LONG["team"]} for number in range(10)]
    data = {"train": rows, "dev": [{"text": "quite another one", "team": "login"}], "test": [{"text": "and a last", "team": "login"}]}
    task = nbtune.Task(name="long", kind="generation", data=data, prompt="{{ text }}:", completion=" {{ team }}")
    wanted = {**OPTIONS, "max_length": 512, "lora_dropout": 0.1, **options}
    if method != "lora":
        del wanted["lora_dropout"]
    whole = nbtune.finetune(method, task=task, model=folder, **wanted).wait()
    run = nbtune.finetune(method, task=task, model=folder, **wanted)
    run.listen(lambda event: run.stop() if event.type == "step" and event.step == 4 else None)
    run.wait()
    assert run.resume().wait().status == "finished"
    assert figures(run) == figures(whole)
    assert bytes_of(run) == bytes_of(whole)


@pytest.mark.parametrize("optim", ["adamw", "adamw_8bit", "adafactor", "sgd"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_whose_gradient_is_not_finite_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, optim: str, value: float
) -> None:
    real, calls = Stepper._update, [0]

    def update(self: Stepper, *said: Any) -> Any:
        calls[0] += 1
        if calls[0] != 3:
            return real(self, *said)
        next(iter(self.trained.values())).grad.view(-1)[0] = value
        before = [parameter.detach().clone() for parameter in self.trained.values()]
        norm = real(self, *said)
        assert all(torch.equal(old, new) for old, new in zip(before, self.trained.values(), strict=True))
        return norm

    monkeypatch.setattr(Stepper, "_update", update)
    run = start(folder, optim=optim).wait()
    assert run.status == "finished"
    assert [event.step for event in run.events() if event.type == "step" and event.skipped] == [3]


def test_float16_trains_its_masters_in_float32_and_its_losses_follow_those_of_float32(folder: Path) -> None:
    found = [start(folder, dtype=dtype, lora_dropout=0.0).wait().history["loss"].tolist() for dtype in ("float32", "float16")]
    assert found[1] == pytest.approx(found[0], abs=0.02)


def test_two_runs_at_once_queue_for_the_device(folder: Path) -> None:
    runs = [start(folder, name=name) for name in ("one", "two")]
    for run in runs:
        assert run.wait().status == "finished"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second device")
def test_a_run_on_another_device_than_the_current_one_tells_the_same_figures(folder: Path) -> None:
    first, second = (start(folder, name=name, device=f"cuda:{name[-1]}", lora_dropout=0.0).wait() for name in ("on_0", "on_1"))
    assert torch.cuda.current_device() == 0
    for name in ("loss", "grad_norm"):
        assert second.history[name].tolist() == pytest.approx(first.history[name].tolist(), rel=1e-3)
    steps = [event for event in second.events() if event.type == "step"]
    assert all(event.forward_seconds > 0 for event in steps)
