"""One optimizer step: the same numbers however it is split, the optimizers' rules, and no waiting for the device."""

import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_wsd_schedule,
)

from nbtune.data.batches import collate
from nbtune.data.encoded import Encoded
from nbtune.errors import SpecError
from nbtune.methods import attach, get
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from nbtune.objectives import source_for
from nbtune.training.noise import neftune, row_lengths
from nbtune.training.optimizing import blocks_below, learning_rate_at, make_optimizer
from nbtune.training.step import Stepper
from nbtune.training.timing import Reading, Stopwatch
from tests.examples import ticket_task
from tests.tiny import ENCODERS, FAMILIES, SEQ2SEQ, tiny, tiny_encoder
from tests.training.runs import start


def test_losses_are_the_same_however_a_step_is_split_and_packed_or_not(folder: Path) -> None:
    found = []
    for size, accumulation, packing in ((8, 1, True), (4, 2, True), (2, 4, False), (1, 8, True), (8, 1, False)):
        run = start(
            folder,
            max_steps=20,
            eval_steps=20,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            packing=packing,
            lora_dropout=0.0,
        ).wait()
        found.append(run.history["loss"].tolist())
    for losses in found[1:]:
        assert losses == pytest.approx(found[0], abs=1e-4)


class Counted(TorchDispatchMode):
    """Counts calls that copy a number off the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("packing", [True, False])
def test_no_step_reads_a_number_off_the_device(folder: Path, monkeypatch: pytest.MonkeyPatch, packing: bool) -> None:
    real, counts = Stepper._take, []

    def take(self: Stepper, *arguments: Any) -> Any:
        with Counted() as mode:
            done = real(self, *arguments)
        counts.append(mode.count)
        return done

    monkeypatch.setattr(Stepper, "_take", take)
    start(folder, packing=packing).wait()
    assert counts == [0] * 12


class Event:
    """A CUDA event that knows its stream."""

    streams: ClassVar[list[Any]] = []

    def __init__(self, *, enable_timing: bool = False) -> None: ...

    def record(self, stream: Any = None) -> None:
        self.streams.append(stream)


def test_figures_and_times_are_those_of_the_device_that_is_used_and_not_of_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Event, "streams", [])
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"the stream of {device}")
    with FakeTensorMode():
        Reading(torch.zeros((), device="cuda:1"))
    Stopwatch(torch.device("cuda:1")).lap("data")
    assert Event.streams == ["the stream of cuda:1"] * 3


def spec(method: str = "lora", **options: Any) -> Any:
    return get(method).spec.build(options)


@pytest.mark.parametrize(
    ("name", "options"),
    [("linear", {}), ("cosine", {}), ("warmup_stable_decay", {"decay_ratio": 0.25}), ("constant", {})],
)
def test_the_learning_rate_takes_the_course_that_transformers_gives_it_after_the_warm_up(name: str, options: dict[str, Any]) -> None:
    total, warmup = 40, 8
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = {
        "linear": lambda: get_linear_schedule_with_warmup(optimizer, warmup, total),
        "cosine": lambda: get_cosine_schedule_with_warmup(optimizer, warmup, total),
        "warmup_stable_decay": lambda: get_wsd_schedule(
            optimizer, warmup, num_decay_steps=10, num_training_steps=total, decay_type="linear", min_lr_ratio=0.0
        ),
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0),
    }[name]()
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    chosen = spec(learning_rate=1.0, lr_scheduler_type=name, warmup_steps=warmup, **options)
    ours = [learning_rate_at(step, total, chosen) for step in range(total)]
    assert ours[warmup:] == pytest.approx(expected[warmup:], abs=1e-6)
    assert ours[:warmup] == pytest.approx([(step + 1) / (warmup + 1) for step in range(warmup)])


def parameters() -> dict[str, torch.nn.Parameter]:
    torch.manual_seed(0)
    names = {"q.lora_A.run.weight": (4, 8), "q.lora_B.run.weight": (8, 4), "norm.weight": (8,)}
    return {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in names.items()}


@pytest.mark.parametrize(
    ("family", "changes", "below"),
    [
        ("opt", {}, {"final_layer_norm": 0, "embed_positions": 2}),
        ("opt", {"word_embed_proj_dim": 32}, {"project_out": 0, "project_in": 2}),
        ("deberta-v2", {"norm_rel_ebd": "layer_norm", "conv_kernel_size": 3}, {"rel_embeddings": 2, "encoder.LayerNorm": 2, "conv": 2}),
        ("bart", {}, {"encoder.layernorm_embedding": 4, "decoder.layernorm_embedding": 2}),
        ("t5", {}, {"encoder.final_layer_norm": 2, "decoder.final_layer_norm": 0}),
    ],
)
def test_what_a_family_lists_elsewhere_lies_where_it_is_used(family: str, changes: dict[str, Any], below: dict[str, int]) -> None:
    known, kind = next(
        (found[family], kind)
        for found, kind in ((FAMILIES, AutoModelForCausalLM), (ENCODERS, AutoModel), (SEQ2SEQ, AutoModelForSeq2SeqLM))
        if family in found
    )
    with torch.device("meta"):
        model = kind.from_config(AutoConfig.for_model(family, vocab_size=64, **{"pad_token_id": 0, **known, **changes}))
    found = blocks_below(name for name, _ in model.named_parameters())
    for part, depth in below.items():
        assert {number for name, number in found.items() if f"{part}." in name and not re.search(r"\.\d+\.", name)} == {depth}


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_with_layerwise_decay_each_block_below_learns_slower_and_the_embeddings_slowest(tmp_path: Path, family: str) -> None:
    encoder = family == "bert"
    folder = (tiny_encoder if encoder else tiny)(family, tmp_path / family)
    source = source_for("classification", folder, ticket_task()) if encoder else source_of(folder)
    base = own_base(source, dtype="float32", quantization=None, device="cpu")
    chosen = get("full").spec.build({"layerwise_lr_decay": 0.5, "weight_decay": 0.1, "objective": "classification" if encoder else "sft"})
    attach(get("full"), base, chosen, "it")
    trained = base.trained("it")
    optimizer = make_optimizer(trained, chosen)
    ratio = {id(item): group["lr_ratio"] for group in optimizer.param_groups for item in group["params"]}
    found = {name: ratio[id(parameter)] for name, parameter in trained.items()}
    wanted = {".0.": 0.5, ".1.": 1.0}
    for name, value in found.items():
        inside = next((part for part in wanted if part in name), None)
        ends = any(word in name for word in ("classifier", "model.norm", "ln_f"))
        assert value == (wanted[inside] if inside else 1.0 if ends else 0.25), name
    assert set(found.values()) == {0.25, 0.5, 1.0}


def test_vectors_do_not_decay_and_lora_plus_gives_b_its_own_rate() -> None:
    trained = parameters()
    optimizer = make_optimizer(trained, spec(weight_decay=0.1, loraplus_lr_ratio=16.0))
    found = {id(item): (group["weight_decay"], group["lr_ratio"]) for group in optimizer.param_groups for item in group["params"]}
    assert {name: found[id(item)] for name, item in trained.items()} == {
        "q.lora_A.run.weight": (0.1, 1.0),
        "q.lora_B.run.weight": (0.1, 16.0),
        "norm.weight": (0.0, 1.0),
    }


def test_adamw_takes_the_steps_of_its_paper() -> None:
    trained, chosen = parameters(), spec(learning_rate=0.01, weight_decay=0.1, adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-6)
    optimizer = make_optimizer(trained, chosen)
    weight = trained["q.lora_A.run.weight"]
    expected, mean, square = weight.detach().clone().double(), torch.zeros(4, 8).double(), torch.zeros(4, 8).double()
    for number in range(1, 6):
        gradient = torch.randn(4, 8)
        for parameter in trained.values():
            parameter.grad = torch.zeros_like(parameter)
        weight.grad = gradient.clone()
        optimizer.step()
        mean, square = 0.8 * mean + 0.2 * gradient, 0.9 * square + 0.1 * gradient**2
        update = mean / (1 - 0.8**number) / ((square / (1 - 0.9**number)).sqrt() + 1e-6)
        expected = expected - 0.01 * 0.1 * expected - 0.01 * update
    assert torch.allclose(weight.double(), expected, atol=1e-6)


def test_an_optimizer_that_the_device_has_not_is_refused() -> None:
    with pytest.raises(SpecError, match="adamw_8bit needs a CUDA device, and this run is on cpu"):
        make_optimizer(parameters(), spec(optim="adamw_8bit"))


@pytest.mark.parametrize("packed", [True, False])
def test_noise_on_the_embeddings_has_the_size_of_its_paper_for_each_row_s_own_length(folder: Path, packed: bool) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    rows = [Encoded(tuple(range(10, 10 + length)), 2) for length in (5, 9, 16)]
    batch = collate(rows, packed=packed, pad_id=0, shared=False)
    embeddings = model.get_input_embeddings()
    clean = embeddings(batch.input_ids)
    with neftune(model, 5.0, batch):
        noise = embeddings(batch.input_ids) - clean
    bound = 5.0 / (row_lengths(batch) * 64).sqrt()
    assert (noise.abs() <= bound[..., None] * (1 + 1e-5)).all()
    assert (noise.abs().amax(-1) > 0.8 * bound).all()
    lengths = row_lengths(batch)[0].tolist() if packed else row_lengths(batch)[:, 0].tolist()
    assert sorted(set(lengths)) == [5, 9, 16]
    assert torch.equal(embeddings(batch.input_ids), clean)
