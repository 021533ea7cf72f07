"""Against forgetting: what a text adds to each step's loss, what that keeps, and what it cannot be asked of."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoTokenizer

import nbtune
from nbtune.data.encoded import Encoded
from nbtune.data.retained import rehearsed
from nbtune.errors import DataError, SpecError
from nbtune.events import Note
from nbtune.methods import attach, get
from nbtune.models.base import Base
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from nbtune.objectives import get as objective
from nbtune.training.guarding import Guard
from nbtune.training.state import State
from nbtune.training.step import Stepper
from tests.examples import ticket_task
from tests.tiny import tiny, tiny_llama
from tests.training.runs import bytes_of, start

TASK = [Encoded((10, 11, 12, 13, 14, 15), 4), Encoded((20, 21, 22, 23), 2)]
FAST: dict[str, Any] = {"dtype": "float32", "max_steps": 16, "per_device_train_batch_size": 4, "num_samples": 0, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def made(folder: Path, **options: Any) -> tuple[Base, Any, Guard]:
    """A base with LoRA that says something else than the base, and its guard."""
    spec = get("lora").spec.build({"seed": 3, **options})
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    attach(get("lora"), base, spec, "it")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in base.trained("it").values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    guard = Guard.of(spec, base.tokenizer, ())
    assert guard is not None
    return base, spec, guard


def by_hand(base: Base, guard: Guard, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy and Kullback-Leibler divergence a token, each piece by itself."""
    losses, gaps, count = torch.zeros(()), torch.zeros(()), 0
    for row in guard.of_step(step):
        ids = torch.tensor([row.ids])
        with base.lease() as model, torch.no_grad():
            expected = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        with base.lease("it", training=True) as model:
            said = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        losses = losses + functional.nll_loss(said, ids[0, 1:], reduction="sum")
        gaps = gaps + (expected.exp() * (expected - said)).sum()
        count += len(row.ids) - 1
    return losses / count, gaps / count


def test_what_a_text_adds_to_a_loss_is_its_cross_entropy_and_its_divergence_from_the_base(folder: Path) -> None:
    for options, weights in (
        ({"replay": 0.3}, (0.3, 0.0)),
        ({"kl_to_base": 2.0}, (0.0, 2.0)),
        ({"replay": 0.3, "kl_to_base": 2.0}, (0.3, 2.0)),
    ):
        base, _, guard = made(folder, **options)
        losses, gaps = by_hand(base, guard, 2)
        assert float(gaps) > 1e-4
        for at_once, parts in ((8, 1), (1, guard.rows)):
            with base.lease("it", training=True) as model:
                found = [float(loss) for loss in guard.losses(model, base, 2, at_once)]
            assert len(found) == parts
            assert sum(found) == pytest.approx(weights[0] * float(losses) + weights[1] * float(gaps), rel=1e-4)


@pytest.mark.parametrize("rows_at_once", [1, 2])
def test_a_step_goes_where_both_gradients_lead_and_tells_the_task_s_own_loss(folder: Path, rows_at_once: int) -> None:
    options = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "warmup_ratio": 0.0, "max_grad_norm": 0.0}
    base, spec, guard = made(folder, replay=0.25, kl_to_base=1.5, **options)
    before = {name: parameter.detach().clone() for name, parameter in base.trained("it").items()}
    losses, gaps = by_hand(base, guard, 1)
    with base.lease("it", training=True) as model:
        nats = [
            functional.cross_entropy(
                model(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1], torch.tensor(row.ids[row.start :]), reduction="sum"
            )
            for row in TASK
        ]
    mean = sum(nats) / 4  # type: ignore[operator]
    grads = torch.autograd.grad(0.75 * mean + 0.25 * losses + 1.5 * gaps, list(base.trained("it").values()))
    stepper = Stepper(spec=spec, base=base, adapter="it", objective=objective("sft"), rows=TASK, packed=True, total_steps=1, guard=guard)
    done = stepper.take(1, spec, State(micro_rows=rows_at_once))
    assert float(done.figures.values()[0]) == pytest.approx(float(mean), rel=1e-5)
    for (name, parameter), grad in zip(base.trained("it").items(), grads, strict=True):
        assert torch.allclose(parameter, before[name] - 0.1 * grad, atol=1e-6), name
        assert parameter.requires_grad


def test_every_piece_of_the_text_has_its_turn(folder: Path) -> None:
    _, _, guard = made(folder, replay=0.5)
    assert guard.rows == 4
    seen = [row.ids for step in range(1, 2 + len(guard.pieces) // 4) for row in guard.of_step(step)]
    assert set(seen) == {row.ids for row in guard.pieces}


def test_a_text_that_replay_comes_back_to_too_often_is_told_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer.txt"
    longer.write_text("\n".join(f"sentence number {number} of a text about nothing" for number in range(2000)))
    for options, told in (({"replay": 0.9}, True), ({"replay": 0.9, "retain": str(longer)}, False), ({"kl_to_base": 1.0}, False)):
        run = start(folder, max_steps=90, max_length=64, save_steps=90, eval_steps=90, **options).wait()
        warned = [event.text for event in run.events() if isinstance(event, Note) and event.level == "warning"]
        assert any("learnt by heart" in text and "retain: a text file" in text for text in warned) == told, options


def test_what_is_rehearsed_is_never_what_is_measured(folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (tmp_path / "long.txt").write_text("".join(f"{number} sheep went by. " for number in range(3000)))
    text = (tmp_path / "long.txt").read_text()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = rehearsed(str(tmp_path / "long.txt"), tokenizer, (), 128)
    begin = len(pieces[0].ids) - 128 if len(pieces[0].ids) > 128 else 0
    assert [token for piece in pieces for token in piece.ids[begin:]] == ids[4096:]
    (tmp_path / "short.txt").write_text("only this. " * 100)
    with pytest.raises(DataError, match=r"no more than the 4,096 tokens on which its loss is measured"):
        rehearsed(str(tmp_path / "short.txt"), tokenizer, (), 128)


@pytest.mark.parametrize(
    ("method", "guards"),
    [("lora", {"replay": 0.5}), ("full", {"replay": 0.5}), ("lora", {"kl_to_base": 5.0}), ("prompt-tuning", {"kl_to_base": 5.0})],
)
def test_a_guarded_run_knows_the_text_better_or_stays_nearer_to_the_base_than_one_that_is_not(
    folder: Path, method: str, guards: dict[str, float]
) -> None:
    rate = {"prompt-tuning": {"learning_rate": 0.3}}.get(method, {})
    plain = nbtune.finetune(method, task=ticket_task(), model=folder, retain="general", **{**FAST, **rate}).wait()
    held = nbtune.finetune(method, task=ticket_task(), model=folder, **guards, **{**FAST, **rate}).wait()
    without, kept = plain.summary["retained"], held.summary["retained"]
    assert kept["text"] == "general"
    assert kept["loss_before"] == pytest.approx(without["loss_before"], rel=1e-6)
    if "replay" in guards:
        assert kept["loss_after"] < without["loss_after"]
    else:  # a tiny model knows nothing that it could forget: but it stays where it was
        assert abs(kept["loss_after"] - kept["loss_before"]) < 0.7 * abs(without["loss_after"] - without["loss_before"])
    assert held.history["loss"].iloc[-1] < held.history["loss"].iloc[0]


def test_a_guarded_run_that_was_stopped_goes_on_bit_by_bit(folder: Path) -> None:
    guards = {"replay": 0.3, "kl_to_base": 0.5}
    whole = start(folder, name="whole", **guards).wait()
    cut = start(folder, name="cut", **guards)
    cut.listen(lambda event: cut.stop() if getattr(event, "step", 0) == 5 else None)
    cut.wait()
    assert cut.status == "stopped"
    assert bytes_of(cut.resume().wait()) == bytes_of(whole)


def test_what_cannot_be_guarded_is_refused(folder: Path) -> None:
    with pytest.raises(SpecError, match="kl_to_base asks what the base expects, and this method trains the base's own weights"):
        nbtune.finetune("full", task=ticket_task(), model=folder, kl_to_base=1.0, **FAST).wait()
    with pytest.raises(SpecError, match=r"replay asks a model to go on with a text, which .* does not under objective classification"):
        nbtune.finetune("lora", task=ticket_task(), model=folder, objective="classification", replay=0.1, **FAST).wait()
    with pytest.raises(SpecError, match="replay must be less than 1"):
        nbtune.finetune("lora", task=ticket_task(), model=folder, replay=1.0)


def test_what_the_base_expects_is_asked_without_dropout(tmp_path: Path) -> None:
    """A model that is still its base is no way from it, though it drops units while it trains."""
    spec = get("lora").spec.build({"kl_to_base": 1.0})
    base = own_base(source_of(tiny("gpt2", tmp_path)), dtype="float32", quantization=None, device="cpu")
    attach(get("lora"), base, spec, "it")
    guard = Guard.of(spec, base.tokenizer, ())
    assert guard is not None
    seen: list[bool] = []
    base.model.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    with base.lease("it", training=True) as model:
        list(guard.losses(model, base, 1, 8))
        assert model.training
    assert seen == [False, True]


@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning", "lora"])
def test_a_guarded_run_may_compute_its_blocks_again(folder: Path, method: str) -> None:
    losses = []
    for checkpointing in (False, True):
        said = {**FAST, "max_steps": 3, "kl_to_base": 1.0, "gradient_checkpointing": checkpointing}
        losses.append(nbtune.finetune(method, task=ticket_task(), model=folder, **said).wait().history["loss"].tolist())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
