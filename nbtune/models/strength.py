"""What was trained at another strength: 0 is the base, 1 what was trained, between them some of both.

Adapters whose output is added are scaled; trained parts are interpolated with the base's own weights (WiSE-FT, Wortsman et al. 2022,
https://arxiv.org/abs/2109.01903).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import RunError

if TYPE_CHECKING:
    import torch

    from nbtune.models.base import Base

__all__ = ["at_strength", "scalings", "set_strength"]

_SCALED: Final = frozenset({"lora", "loha", "lokr", "bottleneck", "fourierft"})
"""peft's names of the tuners whose output is multiplied by a number before it is added."""


@contextmanager
def at_strength(base: Base, name: str, strength: float, untouched: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside it what was trained under `name` counts `strength` times.

    Args:
        base: that it is on.
        name: the run's id.
        strength: 0 to 1; more goes beyond what was trained.
        untouched: the base's own weights by name, where parts of it were trained; else not looked at.

    Raises:
        RunError: the adapter is of a kind that has no strength.
    """
    yield from (_parts(base, name, strength, untouched) if not base.has_adapter(name) else _adapter(base, name, strength))


def set_strength(base: Base, name: str, strength: float, untouched: Mapping[str, torch.Tensor]) -> None:
    """The same for good: of an adapter, or a copy of the base, that nobody else asks.

    Raises:
        RunError: as `at_strength`.
    """
    import torch

    if base.has_adapter(name):
        _refuse_unscaled(base, name)
        for held, key in _numbers(base, name):
            held[key] *= strength
        return
    with torch.no_grad():
        for key, parameter in base.trained(name).items():
            parameter.copy_(torch.lerp(untouched[key].to(parameter), parameter, strength))


def scalings(base: Base, name: str) -> list[float]:
    """By which numbers the outputs of an adapter's layers are multiplied, layer by layer; none, where they are not."""
    return [float(held[key]) for held, key in _numbers(base, name)] if base.kind in _SCALED else []


def _refuse_unscaled(base: Base, name: str) -> None:
    if base.kind not in _SCALED or any(getattr(module, "use_dora", {}).get(name) for module in base.model.modules()):
        message = "what this run trained has no strength: it does not add to the model's outputs"
        raise RunError(message, hint="lora, loha, lokr, fourierft and adapter have, and so has what trains the model's own weights")


def _adapter(base: Base, name: str, strength: float) -> Iterator[None]:
    _refuse_unscaled(base, name)
    places = list(_numbers(base, name))
    before = [held[key] for held, key in places]
    try:
        for (held, key), value in zip(places, before, strict=True):
            held[key] = value * strength
        yield
    finally:
        for (held, key), value in zip(places, before, strict=True):
            held[key] = value


def _numbers(base: Base, name: str) -> Iterator[tuple[Any, str]]:
    """Where the scaling of each of the adapter's layers stands."""
    for module in base.model.modules():
        own = vars(module)  # to ask a module for what it does not have takes long, and there are many
        for attribute in ("scaling", "fourierft_scaling"):
            held = own.get(attribute)
            if isinstance(held, dict) and name in held:
                yield held, name
        config = own.get("bottleneck_config", {})
        if name in config:
            yield vars(config[name]), "scaling"
            return  # one configuration for all layers


def _parts(base: Base, name: str, strength: float, untouched: Mapping[str, torch.Tensor]) -> Iterator[None]:
    import torch

    tuned = {key: parameter.detach().clone() for key, parameter in base.trained(name).items()}
    live = base.trained(name)
    try:
        with torch.no_grad():
            for key, parameter in live.items():
                parameter.copy_(torch.lerp(untouched[key].to(parameter), tuned[key], strength))
        yield
    finally:
        with torch.no_grad():
            for key, parameter in live.items():
                parameter.copy_(tuned[key])
