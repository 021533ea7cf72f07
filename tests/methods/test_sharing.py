"""Adapters on one base: each is what it would be alone, and those that would not be get copies of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import nbtune
from nbtune.errors import SpecError
from nbtune.methods import Method, attach, get, is_estimator, kind_of, names
from nbtune.models.base import Base
from nbtune.models.loading import source_of
from nbtune.models.shared import is_loaded, own_base, shared_base
from nbtune.spec import FinetuneSpec
from tests.examples import ticket_task
from tests.methods.support import OPTIONS
from tests.tiny import tiny_llama

IDS = torch.arange(5, 25)[None]
ADAPTERS = tuple(name for name in names() if not get(name).writes_base and not is_estimator(get(name)))
HELD: dict[str, Any] = {"dtype": "float32", "quantization": None, "device": "cpu"}
OTHERS: dict[str, tuple[Any, ...]] = {"target_modules": (("q_proj", "v_proj"), ("down_proj",)), "layers_to_transform": ((1,),)}
SHARED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("vera", {"r": 16}, {"r": 8}),
    ("vera", {"r": 8}, {"r": 16}),
    ("vera", {"r": 8}, {"r": 8, "projection_prng_key": 1}),
    ("vera", {"r": 8}, {"r": 8, "save_projection": False}),
    ("vera", {"r": 8}, {"r": 8, "target_modules": ["q_proj", "v_proj"]}),
    ("vera", {"r": 8, "save_projection": False}, {"r": 8, "save_projection": False, "target_modules": ["q_proj", "v_proj"]}),
    ("vera", {"r": 8, "target_modules": ["q_proj", "v_proj"]}, {"r": 8}),
    ("randlora", {"r": 8, "sparse": True}, {"r": 8}),
    ("randlora", {"r": 8}, {"r": 8, "very_sparse": True}),
    ("randlora", {"r": 8}, {"r": 16}),
    ("tinylora", {}, {"save_projection": False}),
    ("tinylora", {"save_projection": False}, {"save_projection": False, "layers_to_transform": [1]}),
    ("ia3", {"target_modules": ["down_proj"], "feedforward_modules": ["down_proj"]}, {"target_modules": ["down_proj"]}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("sharing") / "llama")


def _spec(method: Method, options: dict[str, Any]) -> Any:
    return method.spec.build({**options, "seed": 3})


def _base(folder: Path, method: Method, **specs: Any) -> Base:
    base = own_base(source_of(folder), **HELD)
    for name, spec in specs.items():
        attach(method, base, spec, name)
    return base


def _look(base: Base, name: str) -> tuple[set[str], dict[str, torch.Tensor], torch.Tensor]:
    """What is trained under `name`, what would be written, and the logits once all that is trained is moved."""
    written = {key: value.clone() for key, value in base.state(name).tensors.items()}
    trained = base.named(name)
    for number, key in enumerate(sorted(trained)):
        moved = torch.randn(trained[key].shape, generator=torch.Generator().manual_seed(number))
        trained[key].data.add_(moved, alpha=0.05)
    with base.lease(name) as model:
        prompts = getattr(base.adapter_config(name), "is_prompt_learning", False)
        return set(trained), written, IDS.float() if prompts else model(input_ids=IDS).logits


def _refuse_different(found: Base, alone: Base, name: str, what: str) -> None:
    (keys, written, logits), (own_keys, own_written, own_logits) = _look(found, name), _look(alone, name)
    assert keys == own_keys, what
    assert written.keys() == own_written.keys(), what
    assert all(torch.equal(value, own_written[key]) for key, value in written.items()), what
    torch.testing.assert_close(logits, own_logits, msg=what)


def _changed(method: Method, spec: Any) -> list[tuple[str, Any]]:
    """The spec with one of the method's own options changed, for each."""
    found: list[tuple[str, Any]] = []
    for option in sorted(set(method.spec.model_fields) - set(FinetuneSpec.model_fields)):
        value = getattr(spec, option)
        others = (not value,) if isinstance(value, bool) else (value * 2, value // 2) if isinstance(value, int) else OTHERS.get(option, ())
        for other in others:
            try:
                found.append((f"{option}: {other}", method.spec.build({**spec.model_dump(exclude_unset=True), option: other})))
            except SpecError:
                continue  # out of range
    return found


@pytest.mark.parametrize("name", ADAPTERS)
def test_beside_another_on_its_base_an_adapter_is_what_it_would_be_alone(folder: Path, name: str) -> None:
    method = get(name)
    first = _spec(method, OPTIONS.get(name, {}))
    alike = [("as it is", first)] + [
        (what, spec) for what, spec in _changed(method, first) if kind_of(method, spec) == kind_of(method, first)
    ]
    for what, second in alike:
        try:
            alone = _base(folder, method, two=second)
        except SpecError:
            continue  # refused for itself
        both = _base(folder, method, one=first, two=second)
        _refuse_different(both, _base(folder, method, one=first), "one", what)
        _refuse_different(both, alone, "two", what)


@pytest.mark.parametrize(("name", "one", "two"), SHARED)
def test_what_options_share_on_a_base_is_shared_by_equal_options_alone(
    folder: Path, name: str, one: dict[str, Any], two: dict[str, Any]
) -> None:
    said: dict[str, Any] = {"task": ticket_task(30), "model": folder, "max_steps": 2, "num_samples": 0, "learning_rate": 1e-2, **HELD}
    runs = [nbtune.finetune(name, **said, **options).wait() for options in (one, two, one)]
    bases = [run.engine().base for run in runs]
    assert bases[0] is bases[2]
    assert bases[0] is not bases[1]
    wanted = [run.engine().logits("Ticket: the parcel") for run in runs]
    for run, logits in zip(runs, wanted, strict=True):
        nbtune.models.unload()
        assert torch.equal(nbtune.open(run.id).engine().logits("Ticket: the parcel"), logits)
    opened = [nbtune.open(run.id) for run in runs]
    for run, logits in zip(opened, wanted, strict=True):
        assert torch.equal(run.engine().logits("Ticket: the parcel"), logits)


def test_layers_named_in_another_order_share_a_base() -> None:
    method = get("vera")
    one, two = (_spec(method, {"target_modules": targets}) for targets in (["q_proj", "v_proj"], ["v_proj", "q_proj"]))
    assert kind_of(method, one) == kind_of(method, two) != kind_of(method, _spec(method, {}))
    assert kind_of(get("lora"), _spec(get("lora"), {"r": 4})) == kind_of(get("lora"), _spec(get("lora"), {"r": 8})) == "lora"


@pytest.mark.parametrize("beside", [False, True])
def test_a_refused_adapter_leaves_nothing_on_the_base_though_some_layers_would_have_had_it(tmp_path: Path, beside: bool) -> None:
    source, method = source_of(tiny_llama(tmp_path, intermediate_size=132)), get("vblora")
    spec = _spec(method, {"vector_length": 16, "num_vectors": 32})  # divides the sizes of the attention's layers, not of the feed-forward's
    base = shared_base(source, kind=kind_of(method, spec), **HELD)
    if beside:
        attach(method, base, _spec(method, {"vector_length": 4, "num_vectors": 32}), "beside")
    modules = {key for key, _ in base.model.named_modules()}
    with base.lease("beside" if beside else None) as model:
        wanted = model(input_ids=IDS).logits
    with pytest.raises(SpecError, match="132"):
        attach(method, base, spec, "refused")
    assert not base.has_adapter("refused")
    assert {key for key, _ in base.model.named_modules()} == modules
    assert not any("refused" in key for key in base.model.state_dict())
    with base.lease("beside" if beside else None) as model:
        assert torch.equal(model(input_ids=IDS).logits, wanted)
    assert is_loaded(source, kind="lora", **HELD) is not beside  # with nothing on it, it will do for any
