"""One input widget for each kind of option, with one way to read its value back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbtune.spec import Option

__all__ = ["Field", "make_field", "powers_of_two", "slider_step", "two_digits"]

_WIDTH = "440px"
LOG_STEP = 0.05


@dataclass(frozen=True)
class Field:
    """An option's widget: `box` is what is shown, `read` gives the value, `watch` calls back on each change."""

    option: Option
    box: Any
    read: Callable[[], Any]
    watch: Callable[[Callable[..., None]], None]


def make_field(option: Option, value: Any) -> Field:
    """The widget that suits the option, set to `value`; a slider's range grows to hold it."""
    import ipywidgets

    number = option.kind in {"int", "float"} and not option.choices
    layout = ipywidgets.Layout(width=_WIDTH, max_width="100%")
    common = {
        "description": option.name,
        "tooltip": option.meaning or option.name,
        "style": {"description_width": "200px"},
        "layout": layout,
        "continuous_update": False,
    }
    if option.choices:
        return _choice(option, value, common)
    if option.kind == "bool":
        return _plain(option, ipywidgets.Checkbox(value=bool(value), indent=True, **_without(common, "continuous_update")), bool)
    if number and option.optional:
        return _optional_number(option, value, common)
    if number:
        return _plain(option, *_number(option, value, common))
    text = "" if value is None else _as_text(value)
    placeholder = "auto" if option.optional else ""
    return _plain(option, ipywidgets.Text(value=text, placeholder=placeholder, **common), _reader(option))


def powers_of_two(low: float, high: float, *others: int) -> list[int]:
    """The powers of two from `low` to `high`, and `others` among them."""
    first, last = math.ceil(math.log2(max(1.0, low))), math.floor(math.log2(max(1.0, high)))
    return sorted({*(2**power for power in range(first, last + 1)), *others})


def slider_step(low: float, high: float) -> float:
    """A round step that divides a range into 50 to 200 parts."""
    raw = (high - low) / 100
    size: float = 10.0 ** math.floor(math.log10(raw))
    return min((size * factor for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / raw)))


def two_digits(value: float) -> float:
    """A slider's value as one would type it: two significant digits."""
    return float(f"{value:.1e}")


def _plain(option: Option, widget: Any, convert: Callable[[Any], Any]) -> Field:
    return Field(option, widget, lambda: convert(widget.value), lambda callback: widget.observe(callback, "value"))


def _without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def _choice(option: Option, value: Any, common: dict[str, Any]) -> Field:
    import ipywidgets

    none = "auto" if "left out" in option.meaning and "auto" not in option.choices else "none"
    pairs = [(none, None)] if option.optional else []
    pairs += [(str(choice).lower() if isinstance(choice, bool) else str(choice), choice) for choice in option.choices]
    index = next((position for position, (_, choice) in enumerate(pairs) if choice is value or choice == value), 0)
    widget = ipywidgets.Dropdown(options=pairs, index=index, **_without(common, "continuous_update"))
    return _plain(option, widget, lambda chosen: chosen)


def _number(option: Option, value: Any, common: dict[str, Any]) -> tuple[Any, Callable[[Any], Any]]:
    import ipywidgets

    whole = option.kind == "int"
    convert: Callable[[Any], Any] = int if whole else float
    if option.low is None or option.high is None:
        if option.low is None:
            return (ipywidgets.IntText if whole else ipywidgets.FloatText)(value=value or 0, **common), convert
        bounded = ipywidgets.BoundedIntText if whole else ipywidgets.BoundedFloatText
        return bounded(value=option.low if value is None else value, min=convert(option.low), max=convert(2**53), **common), convert
    start = option.low if value is None else value
    low, high = min(option.low, start), max(option.high, start)
    if option.scale == "log" and whole:
        default = [option.default] if isinstance(option.default, int) else []
        steps = powers_of_two(low, high, int(start), *default)
        return ipywidgets.SelectionSlider(options=steps, value=int(start), **common), int
    if option.scale == "log" and low > 0:
        ends = {"min": math.log10(low), "max": math.log10(high)}
        readout = ".1e" if low < 0.01 else ".2g"  # noqa: PLR2004
        slider = ipywidgets.FloatLogSlider(value=start, base=10, step=LOG_STEP, readout_format=readout, **ends, **common)
        return slider, lambda moved: start if _is_near(math.log10(moved), math.log10(start), LOG_STEP) else two_digits(moved)
    if whole:
        return ipywidgets.IntSlider(value=int(start), min=int(low), max=int(high), **common), int
    step = slider_step(low, high)
    slider = ipywidgets.FloatSlider(value=start, min=low, max=high, step=step, readout_format=".3g", **common)
    return slider, lambda moved: start if _is_near(moved, start, step) else round(float(moved), 10)


def _is_near(moved: float, start: float, step: float) -> bool:
    """Whether a slider stands where it was set: the front end moves a value to the nearest step by itself, which nobody asked for."""
    return abs(moved - start) <= step * 0.501


def _optional_number(option: Option, value: Any, common: dict[str, Any]) -> Field:
    """A tick says whether there is a number at all; the slider is only live where it is set."""
    import ipywidgets

    slider, convert = _number(option, value, common)
    slider.disabled = value is None
    tick = ipywidgets.Checkbox(
        value=value is not None, indent=False, description="set", tooltip=f"set {option.name}", layout=ipywidgets.Layout(width="60px")
    )

    def follow(_: object) -> None:
        slider.disabled = not tick.value

    def watch(callback: Callable[..., None]) -> None:
        tick.observe(callback, "value")
        slider.observe(callback, "value")

    tick.observe(follow, "value")
    return Field(option, ipywidgets.HBox([slider, tick]), lambda: convert(slider.value) if tick.value else None, watch)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _reader(option: Option) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        said = text.strip()
        if not said:
            return None if option.optional else option.default if option.kind != "text" else ""
        if option.kind == "text":
            return said
        if option.kind == "words":
            words = [word.strip() for word in said.split(",") if word.strip()]
            return words[0] if len(words) == 1 else words
        try:
            return json.loads(said)
        except ValueError:
            return said

    return read
