"""The form of `%tune`: a widget for each option of a method, the cell it stands for, and a Run button."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from nbtune.errors import NbtuneError
from nbtune_widgets.fields import Field, make_field
from nbtune_widgets.formats import shown
from nbtune_widgets.groups import grouped

if TYPE_CHECKING:
    import ipywidgets

    from nbtune.spec import Option

__all__ = ["tune_form"]

Values = Mapping[str, Any]
DEBOUNCE_SECONDS = 0.15


def tune_form(
    options: Sequence[Option],
    values: Values,
    *,
    method: str,
    cell_text: Callable[[Values], str],
    count: Callable[[Values], str],
    on_run: Callable[[Values], None],
    insert: Callable[[str], None] | None = None,
) -> ipywidgets.Widget:
    """A form of `options`, set to `values` or else to their defaults.

    The callbacks get {name: value} of the options that were in `values` or that differ from their default now, in the order of
    `options`. `cell_text` must be quick; `count` runs on a thread of its own, at most once each 150 ms, its last answer wins. An
    error of a callback becomes a line in the form; one that is not an NbtuneError is raised again, because it is a defect.
    """
    return _Form(options, values, method, _Callbacks(cell_text, count, on_run, insert)).box


@dataclass(frozen=True)
class _Callbacks:
    cell_text: Callable[[Values], str]
    count: Callable[[Values], str]
    on_run: Callable[[Values], None]
    insert: Callable[[str], None] | None


class _Form:
    """The parts of one form. Handlers may run on any thread, so what they share is behind a lock."""

    def __init__(self, options: Sequence[Option], values: Values, method: str, call: _Callbacks) -> None:
        import ipywidgets

        self._given = frozenset(values)
        self._call = call
        self._lock = threading.Lock()
        self._asked = 0
        self._fields = [make_field(option, values.get(option.name, option.default)) for option in options]
        self._counted = ipywidgets.HTML()
        self._message = ipywidgets.HTML()
        self._text = ipywidgets.Textarea(
            disabled=True,
            tooltip="the cell that does the same",
            layout=ipywidgets.Layout(width="auto"),
        )
        self._text.add_class("nbtune-cell-text")
        self.box = self._assemble(method)
        for field in self._fields:
            field.watch(self._changed)
        self._changed(None)

    def values(self) -> dict[str, Any]:
        """What was given or has been changed, in the order of the options."""
        read = ((field.option, field.read()) for field in self._fields)
        return {option.name: value for option, value in read if option.name in self._given or not _same(value, option.default)}

    def _assemble(self, method: str) -> Any:
        import ipywidgets

        fields = {field.option.name: field for field in self._fields}
        shown_first, groups = grouped(field.option for field in self._fields)
        first = [fields[option.name] for option in shown_first]
        rows = [_rows([fields[option.name] for option in group]) for group in groups.values()]
        folded = ipywidgets.Accordion(rows, titles=list(groups), selected_index=None)
        run = ipywidgets.Button(description="Run", button_style="primary", icon="play", tooltip="start a run with these values")
        run.on_click(self._run)
        buttons = [run]
        if self._call.insert is not None:
            put = ipywidgets.Button(description="Insert cell", icon="plus", tooltip="put the cell's text into a new cell below")
            put.on_click(self._put)
            buttons.append(put)
        head = ipywidgets.HTML(Markup("<b>{}</b>").format(shown(method, 60)))
        parts = [head, _rows(first), *([folded] if groups else []), self._text, self._counted, ipywidgets.HBox(buttons), self._message]
        box = ipywidgets.VBox(parts, layout=ipywidgets.Layout(max_width="960px"))
        box.add_class("nbtune-tune")
        return box

    def _changed(self, _: object) -> None:
        values = self.values()
        text = self._guarded(lambda: self._call.cell_text(values))
        if text is not None:
            self._text.value = text
            self._text.rows = min(16, text.count("\n") + 2)
        with self._lock:
            self._asked += 1
            asked = self._asked
        timer = threading.Timer(DEBOUNCE_SECONDS, self._recount, (asked, values))
        timer.daemon = True
        timer.start()

    def _recount(self, asked: int, values: Values) -> None:
        with self._lock:
            if asked != self._asked:
                return
        try:
            text = self._call.count(values)
        except NbtuneError as error:
            text = error.message.split("\n")[0]
        except Exception as error:  # noqa: BLE001  a label is not worth a thread's traceback; the run would raise it in full
            text = f"{type(error).__name__}: {error}".split("\n")[0]
        with self._lock:
            if asked == self._asked:
                self._counted.value = Markup("<span>{}</span>").format(shown(text, 300))

    def _run(self, _: object) -> None:
        self._message.value = ""
        values = self.values()
        self._guarded(lambda: self._call.on_run(values))

    def _put(self, _: object) -> None:
        insert, text = self._call.insert, self._text.value
        if insert is not None:
            self._guarded(lambda: insert(text))

    def _guarded(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except NbtuneError as error:
            self._tell(f"{type(error).__name__}: {error.message}", error.hint)
        except Exception as error:
            self._tell(f"{type(error).__name__}: {error}", "")
            raise
        return None

    def _tell(self, message: str, hint: str) -> None:
        second = Markup("<br>→ {}").format(shown(hint, 500)) if hint else Markup("")
        self._message.value = Markup('<div role="alert" style="line-height:1.5;white-space:pre-wrap"><b>{}</b>{}</div>').format(
            shown(message, 1000), second
        )


def _rows(fields: Sequence[Field]) -> Any:
    import ipywidgets

    rows = []
    for field in fields:
        meaning = ipywidgets.HTML(Markup('<span style="opacity:.75;font-size:12px">{}</span>').format(shown(field.option.meaning, 200)))
        rows.append(ipywidgets.HBox([field.box, meaning], layout=ipywidgets.Layout(flex_flow="row wrap")))
    return ipywidgets.VBox(rows)


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) == list(default)
    if isinstance(default, tuple | list) and len(default) == 1:
        return bool(value == default[0])
    if _number(value) and _number(default):
        return bool(value == default)
    return type(value) is type(default) and bool(value == default)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
