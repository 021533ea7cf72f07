"""`%methods [MODEL]`: every way to adapt a model, and what each would train of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbtune.models.catalogue import DEFAULT_DECODER
from nbtune.overview import MethodsSpec
from nbtune_magics.magic import Call, Magic
from nbtune_magics.notice import with_progress
from nbtune_magics.said import no_more_words, said
from nbtune_magics.warmup import warmed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbtune.overview import MethodOnModel
    from nbtune_magics.notice import Report
    from nbtune_magics.steps import Steps

__all__ = ["METHODS"]


def _run(call: Call) -> Steps[Any]:
    call = no_more_words(call, 1, "one model at a time; flags are written --key value")
    if call.words:
        call = replace(call, values={**call.values, "model": call.words[0]}, lines={**call.lines, "model": 1})
    given = said(call, MethodsSpec).given
    name = str(call.values.get("model") or DEFAULT_DECODER)

    def look(report: Report) -> tuple[MethodOnModel, ...]:
        import nbtune

        report("importing torch")
        warmed()
        report(f"counting what each method would train of {name}")
        return nbtune.methods_on(**given)

    found, notice = yield from with_progress(look, f"{name}: counting")
    from nbtune_widgets.methods import methods_html, methods_text

    notice.replace(methods_html(found, name), methods_text(found, name))
    call.shown.mark(found)
    return found


def _models() -> Iterable[str]:
    from nbtune.models.catalogue import CATALOGUE

    return tuple(CATALOGUE)


def _spec(_words: tuple[str, ...]) -> type[MethodsSpec]:
    return MethodsSpec


METHODS = Magic(
    name="methods",
    usage="%methods [MODEL] [--quantization nf4|fp4|int8]",
    about="Every way to adapt a model: what it is, how many parameters it would train, on which bases it works, and its paper. "
    "Loads no weights.",
    body="",
    run=_run,
    spec=_spec,
    names=_models,
    choice="the model",
)
