"""The LoRA layers' own forward: peft's numbers, in fewer operations, and peft's own wherever more is asked of a layer."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import Linear
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nbtune.models.low_rank import lean

Found = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


class _Two(nn.Module):
    """Two layers, the second with a bias, and a number between them that bends."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 40, bias=False), nn.Linear(40, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))  # type: ignore[no-any-return]


def _adapted(dtype: torch.dtype = torch.float32, **options: Any) -> tuple[nn.Module, nn.Module]:
    """The same adapted model twice: with peft's forward, and with ours."""
    torch.manual_seed(0)
    config = LoraConfig(**({"r": 4, "lora_alpha": 10, "target_modules": ["first", "second"]} | options))
    plain = get_peft_model(_Two().to(dtype), config)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    ours = copy.deepcopy(plain)
    lean(ours)
    assert all(type(module) is not Linear for module in ours.modules())
    return plain, ours


def _trained(model: nn.Module, x: torch.Tensor, *, mixed: bool = False) -> Found:
    """Output, gradient of the input, gradients of what is trained."""
    x = x.clone().requires_grad_()
    model.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        out = model(x)
    (out.float() ** 2).sum().backward()
    assert x.grad is not None
    return out.detach(), x.grad, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _gap(found: Found, wanted: Found) -> float:
    """The largest relative difference."""
    assert found[2].keys() == wanted[2].keys() != set()
    pairs = [*zip(found[:2], wanted[:2], strict=True), *((found[2][name], wanted[2][name]) for name in wanted[2])]
    return max(float((one.double() - two.double()).norm() / two.double().norm()) for one, two in pairs)


@pytest.mark.parametrize("shape", [(5, 24), (2, 7, 24), (1, 24)], ids=str)
def test_output_and_all_gradients_are_those_of_peft(shape: tuple[int, ...]) -> None:
    plain, ours = _adapted()
    x = torch.randn(shape)
    assert _gap(_trained(ours, x), _trained(plain, x)) < 1e-6


def test_in_mixed_precision_it_is_no_further_from_float32_than_peft_is() -> None:
    exact, _ = _adapted()
    plain, ours = _adapted(torch.bfloat16)
    x = torch.randn(64, 24)
    wanted = _trained(exact, x)
    theirs, found = (_gap(_trained(model, x.bfloat16(), mixed=True), wanted) for model in (plain, ours))
    assert found < max(1.1 * theirs, 0.02)
    assert all(grad.dtype == torch.float32 for grad in _trained(ours, x.bfloat16(), mixed=True)[2].values())


class _Passes(TorchDispatchMode):
    """Operations over as many numbers as a layer has in or out for these tokens, products left out."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.least, self.calls = 16 * tokens, Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        large = isinstance(out, torch.Tensor) and out.numel() >= self.least
        self.calls[str(func)] += large and not func.is_view and "mm" not in str(func)
        return out


def test_in_mixed_precision_an_adapter_adds_products_alone_and_no_pass_over_what_goes_in_or_out() -> None:
    plain, ours = _adapted(torch.bfloat16)
    counts = []
    for model in (_Two().bfloat16(), ours, plain):
        with _Passes(64) as passes:
            _trained(model, torch.randn(64, 24).bfloat16(), mixed=True)
        counts.append(passes.calls.total())
    assert counts[0] == counts[1] < counts[2] - 10


@pytest.mark.parametrize(
    "options", [{"lora_dropout": 0.3}, {"use_dora": True}, {"lora_bias": True}], ids=lambda options: next(iter(options))
)
def test_a_layer_of_which_more_is_asked_has_the_forward_of_peft(options: dict[str, Any]) -> None:
    plain, ours = _adapted(**options)
    x = torch.randn(6, 24)
    found, wanted = _trained(ours.train(), x), _trained(plain.train(), x)
    assert torch.equal(found[0], wanted[0])
    assert all(torch.equal(found[2][name], wanted[2][name]) for name in wanted[2])


def test_dropout_counts_in_training_alone() -> None:
    plain, ours = _adapted(lora_dropout=0.3)
    x = torch.randn(6, 24)
    assert _gap(_trained(ours.eval(), x), _trained(plain.eval(), x)) < 1e-6


@pytest.mark.parametrize("state", ["off", "merged", "two", "other"])
def test_adapters_that_are_off_merged_or_several_count_as_in_peft(state: str) -> None:
    pairs = _adapted()
    for model in pairs:
        torch.manual_seed(3)
        peft: Any = model
        peft.add_adapter("second", LoraConfig(r=2, target_modules=["first", "second"], init_lora_weights=False))
        if state == "other":
            peft.set_adapter("second")
        if state == "two":
            peft.base_model.set_adapter(["default", "second"])
        if state == "merged":
            peft.merge_adapter()
    plain, ours = pairs
    x = torch.randn(6, 24)
    with torch.no_grad():
        if state == "off":
            with plain.disable_adapter(), ours.disable_adapter():  # type: ignore[operator]
                wanted, found = plain(x), ours(x)
        else:
            wanted, found = plain(x), ours(x)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_what_is_hooked_on_the_base_layer_is_called_and_a_bias_that_is_trained_has_its_gradient() -> None:
    for model in (ours := _adapted(bias="all")[1], _adapted()[1]):
        seen: list[int] = []
        layer: Any = model.get_submodule("base_model.model.first.base_layer")
        layer.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        found = _trained(model, torch.randn(6, 24))
        assert seen == [1]
        assert any("bias" in name for name in found[2]) == (model is ours)


def test_weights_have_the_names_of_peft_and_the_layers_can_be_taken_off_again() -> None:
    plain, ours = _adapted()
    assert get_peft_model_state_dict(ours).keys() == get_peft_model_state_dict(plain).keys()
    x = torch.randn(6, 24)
    wanted = plain.merge_and_unload()(x)  # type: ignore[operator]
    found = ours.merge_and_unload()  # type: ignore[operator]
    assert type(found.first) is nn.Linear
    torch.testing.assert_close(found(x), wanted)
