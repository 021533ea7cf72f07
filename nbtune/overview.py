"""`nbtune.methods_on`: every way to adapt a model, and what each would train of this one; no weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from nbtune.errors import NbtuneError
from nbtune.models.catalogue import DEFAULT_DECODER
from nbtune.spec import Spec, option

__all__ = ["LOW_RANK", "QUANTIZATIONS", "SECOND_TIER", "MethodOnModel", "MethodsSpec", "methods_on"]

QUANTIZATIONS: Final = ("nf4", "fp4", "int8")
LOW_RANK: Final = (
    "Low rank, by an example: a weight of 25 x 50 has 1,250 numbers. At rank 5 it is changed by the product of a 25 x 5 matrix "
    "and a 5 x 50 one, which have 375 together."
)

SECOND_TIER: Final = "Tier 2: methods of peft's that are contract tested, and of which nothing more is claimed."


class MethodsSpec(Spec):
    """`%methods`: of which model, held how."""

    model: str = option(
        "",
        f"catalogue name, folder, hub id, or a bound model; left out: {DEFAULT_DECODER}",
        aliases=("model_name_or_path", "base_model"),
        group="options",
    )
    quantization: Literal["nf4", "fp4", "int8"] | None = option(None, "hold the base in 4 or 8 bits", group="options")


@dataclass(frozen=True)
class MethodOnModel:
    """A method with its defaults on a model of `total` parameters, of which it trains `trained`; `refused` says why it cannot.

    `quantizations` are those of a base that it works on; what `merges` can be made part of the base's weights; what `writes_base` has a
    copy of the base for itself. Of `tier` 2 is what is contract tested and of which nothing more is claimed.
    """

    name: str
    summary: str
    paper: str
    trained: int | None
    total: int | None
    refused: str
    quantizations: tuple[str, ...]
    merges: bool
    writes_base: bool
    tier: int


def methods_on(model: Any = DEFAULT_DECODER, quantization: str | None = None) -> tuple[MethodOnModel, ...]:
    """Each method, the fewest trained parameters first, and those that cannot adapt the model last.

    An encoder writes nothing, so it is counted with a head over two classes.

    Args:
        model: as in `finetune`.
        quantization: of its base: "nf4", "fp4" or "int8".

    Raises:
        ModelError: there is no such model.
        SpecError: an unknown quantization.
    """
    from nbtune.methods import names
    from nbtune.models.families import is_encoder
    from nbtune.models.loading import source_of

    spec = MethodsSpec.build({"quantization": quantization})
    source = source_of(model or DEFAULT_DECODER)
    if is_encoder(source.config):
        source = source.over(("no", "yes"))
    found = [_on(name, source, spec.quantization) for name in names()]
    return tuple(sorted(found, key=lambda each: (each.trained is None, each.trained)))


def _on(name: str, source: Any, quantization: str | None) -> MethodOnModel:
    from nbtune.estimate import counted
    from nbtune.methods import get, tier

    method = get(name)
    trained = total = None
    refused = ""
    try:
        trained, total = counted(name, method.spec.build({"quantization": quantization}), source)
    except NbtuneError as error:
        refused = error.message
    works = tuple(each for each in QUANTIZATIONS if _works(name, source, each))
    return MethodOnModel(
        name, method.summary, method.paper, trained, total, refused, works, method.merges, method.writes_base, tier(method)
    )


def _works(name: str, source: Any, quantization: str) -> bool:
    from nbtune.methods import Facts, get

    method = get(name)
    try:
        method.requires(Facts(source, quantization), method.spec.build({"quantization": quantization}))
    except NbtuneError:
        return False
    return True
