"""The LoRA layer in one piece computes what peft's does, and stands aside wherever peft's does more."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from nbtune.models.lora_linear import plain_lora


class Two(nn.Module):
    def __init__(self, dtype: torch.dtype, bias: bool) -> None:
        super().__init__()
        self.first = nn.Linear(48, 96, bias=bias, dtype=dtype)
        self.second = nn.Linear(96, 32, bias=bias, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def adapted(dtype: torch.dtype, *, bias: bool = False, **options: object) -> nn.Module:
    torch.manual_seed(0)
    model = get_peft_model(
        Two(dtype, bias), LoraConfig(r=4, lora_alpha=12, target_modules=["first", "second"], **options), adapter_name="run"
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape) * 0.2
    return model.train()


def outcome(model: nn.Module, x: torch.Tensor, expected: int | None) -> list[torch.Tensor]:
    """Output, gradient of the input, gradients of the adapter; with `expected` layers in one piece, or peft's own (None)."""
    x = x.clone().requires_grad_()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    mixed = next(model.parameters()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        if expected is None:
            y = model(x)
        else:
            with plain_lora(model, "run") as count:
                assert count == expected
                y = model(x)
        grads = torch.autograd.grad(y.float().square().mean(), [x, *parameters])
    return [y.detach().float(), *(grad.float() for grad in grads)]


@pytest.mark.parametrize("bias", [False, True])
def test_in_float32_output_and_gradients_equal_pefts(bias: bool) -> None:
    model = adapted(torch.float32, bias=bias)
    x = torch.randn(3, 17, 48)
    for ours, theirs in zip(outcome(model, x, 2), outcome(model, x, None), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6, rtol=1e-5)


def test_in_bfloat16_output_and_gradients_equal_pefts_within_its_rounding() -> None:
    model = adapted(torch.bfloat16)
    x = torch.randn(3, 17, 48, dtype=torch.bfloat16)
    exact = outcome(adapted(torch.float32), x.float(), None)
    for ours, theirs, right in zip(outcome(model, x, 2), outcome(model, x, None), exact, strict=True):
        assert ours.dtype == theirs.dtype
        scale = right.abs().max()
        assert (ours - theirs).abs().max() < 0.03 * scale
        assert (ours - right).norm() < 1.5 * (theirs - right).norm() + 1e-3 * right.norm()


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_dropout": 0.5}, {"lora_bias": True}])
def test_what_is_not_plain_stays_pefts(options: dict[str, object]) -> None:
    model = adapted(torch.float32, bias="lora_bias" in options, **options)
    with plain_lora(model, "run") as count:
        assert count == 0


def test_layers_are_pefts_again_afterwards_and_another_adapters_are_left_alone() -> None:
    model = adapted(torch.float32)
    with plain_lora(model, "other") as count:
        assert count == 0
    with pytest.raises(ZeroDivisionError), plain_lora(model, "run"):
        raise ZeroDivisionError
    assert not [module for module in model.modules() if "forward" in module.__dict__]
