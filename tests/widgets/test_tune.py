"""The form of `%tune`: each option has the input that suits it, and what is read back is what one would have typed."""

import itertools
import threading
import time

import ipywidgets
import pytest

from nbtune import methods
from nbtune.errors import SpecError
from nbtune.spec import FinetuneSpec, Option
from nbtune_widgets import tune_form
from nbtune_widgets.fields import make_field, powers_of_two, slider_step, two_digits
from nbtune_widgets.groups import FIRST, SECTIONS, grouped


def option(name="r", kind="int", default=8, **changes):
    values = {
        "name": name,
        "kind": kind,
        "default": default,
        "required": False,
        "low": None,
        "high": None,
        "scale": "linear",
        "choices": (),
        "optional": False,
        "meaning": "what it does",
        "aliases": (),
        "group": "method",
    }
    return Option(**(values | changes))


R = option("r", "int", 8, low=1, high=256, scale="log")
RATE = option("learning_rate", "float", 1e-3, low=1e-6, high=0.1, scale="log", group="training")
DROPOUT = option("lora_dropout", "float", 0.0, low=0, high=0.5)
STEPS = option("max_steps", "int", None, low=1, high=1000, optional=True, group="training")
SCHEDULE = option("lr_scheduler_type", "choice", "cosine", choices=("linear", "cosine"), group="training")
DTYPE = option("dtype", "choice", None, choices=("float32", "bfloat16"), optional=True, meaning="left out: the best", group="run")
PACKING = option("packing", "choice", "auto", choices=("auto", True, False), group="training")
CHECKPOINTING = option("gradient_checkpointing", "bool", default=False, group="training")
TARGETS = option("target_modules", "words", ("all-linear",))
ALL = (R, DROPOUT, TARGETS, RATE, STEPS, SCHEDULE, PACKING, CHECKPOINTING, DTYPE)


class Form:
    """A form with its callbacks' calls."""

    def __init__(self, options=ALL, values=None, **callbacks):
        self.ran, self.counted, self.inserted = [], [], []
        calls = {
            "cell_text": lambda values: f"%%finetune lora\n{values}",
            "count": self.count,
            "on_run": self.ran.append,
            "insert": self.inserted.append,
        }
        self.box = tune_form(options, values or {}, method="lora", **(calls | callbacks))

    def count(self, values):
        self.counted.append(values)
        return f"{len(self.counted)} counts"

    def all(self, kind=ipywidgets.Widget, box=None):
        found = []
        for child in getattr(box or self.box, "children", ()):
            found += [child] if isinstance(child, kind) else []
            found += self.all(kind, child)
        return found

    def named(self, name):
        (found,) = [widget for widget in self.all() if getattr(widget, "description", None) == name]
        return found

    def press(self, name):
        self.named(name).click()
        (ran,) = self.ran or [None]
        return ran

    @property
    def text(self):
        return self.all(ipywidgets.Textarea)[0].value

    @property
    def said(self):
        return " ".join(widget.value for widget in self.all(ipywidgets.HTML))


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (R, ipywidgets.SelectionSlider),
        (RATE, ipywidgets.FloatLogSlider),
        (DROPOUT, ipywidgets.FloatSlider),
        (SCHEDULE, ipywidgets.Dropdown),
        (CHECKPOINTING, ipywidgets.Checkbox),
        (TARGETS, ipywidgets.Text),
        (option(low=1, high=20), ipywidgets.IntSlider),
        (option(low=1), ipywidgets.BoundedIntText),
    ],
)
def test_each_kind_of_option_has_the_input_that_suits_it_with_its_meaning_as_tooltip(made, kind):
    widget = make_field(made, made.default).box
    assert type(widget) is kind
    assert widget.tooltip == "what it does"


def test_an_untouched_form_says_only_what_was_given():
    assert Form().press("Run") == {}
    assert Form(values={"r": 16, "learning_rate": 1e-3}).press("Run") == {"r": 16, "learning_rate": 1e-3}


def test_what_is_changed_is_told_in_the_order_of_the_options_and_going_back_takes_it_out():
    form = Form()
    form.named("learning_rate").value = 2e-4
    form.named("r").value = 32
    assert form.text == "%%finetune lora\n{'r': 32, 'learning_rate': 0.0002}"
    form.named("r").value = 8
    assert form.text == "%%finetune lora\n{'learning_rate': 0.0002}"


def test_a_learning_rate_from_the_slider_is_one_that_somebody_would_type():
    form = Form()
    form.named("learning_rate").value = 10**-3.7
    assert form.press("Run") == {"learning_rate": 2.0e-4}
    assert two_digits(0.00019952623149688788) == 2e-4


def test_ranks_are_powers_of_two_and_a_given_one_between_them_stays():
    assert [value for value in Form().named("r").options] == [1, 2, 4, 8, 16, 32, 64, 128, 256]  # noqa: C416  a tuple of traitlets
    assert Form(values={"r": 24}).press("Run") == {"r": 24}
    assert powers_of_two(3, 33, 24) == [4, 8, 16, 24, 32]


def test_a_given_value_beyond_the_slider_widens_it_rather_than_being_cut():
    assert Form(values={"learning_rate": 0.5}).press("Run") == {"learning_rate": 0.5}
    assert Form(values={"lora_dropout": 0.8}).press("Run") == {"lora_dropout": 0.8}


def test_a_value_that_the_front_end_moves_to_its_nearest_step_was_not_changed_by_anybody():
    form = Form((option("lora_alpha", "float", 8.0, low=1, high=256, scale="log"), DROPOUT), {"lora_dropout": 0.0123})
    form.named("lora_alpha").value = 10**0.9
    form.named("lora_dropout").value = 0.01
    assert form.press("Run") == {"lora_dropout": 0.0123}


def test_a_slider_moved_by_one_step_has_changed():
    form = Form((option("lora_alpha", "float", 8.0, low=1, high=256, scale="log"), DROPOUT))
    form.named("lora_alpha").value = 10**0.95
    form.named("lora_dropout").value = 0.005
    assert form.press("Run") == {"lora_alpha": 8.9, "lora_dropout": 0.005}


def test_none_is_a_choice_with_a_name_and_stays_none():
    dtype = Form().named("dtype")
    assert dtype.options[0] == ("auto", None)
    assert dtype.value is None


def test_true_false_and_auto_are_told_apart():
    form = Form()
    packing = form.named("packing")
    assert [label for label, _ in packing.options] == ["auto", "true", "false"]
    packing.index = 2
    (ran,) = [form.press("Run")]
    assert ran == {"packing": False}
    assert ran["packing"] is False


def test_an_optional_number_is_none_until_it_is_set():
    form = Form()
    slider = form.named("max_steps")
    assert slider.disabled
    (tick,) = [box for box in form.all(ipywidgets.Checkbox) if box.tooltip == "set max_steps"]
    slider.value = 200
    assert form.text.endswith("{}")
    tick.value = True
    assert not slider.disabled
    assert form.press("Run") == {"max_steps": 200}


def test_words_are_split_at_commas():
    form = Form()
    form.named("target_modules").value = "q_proj, v_proj"
    assert form.press("Run") == {"target_modules": ["q_proj", "v_proj"]}


def test_the_count_is_asked_once_for_a_drag_of_many_values_and_the_last_answer_is_shown():
    form = Form()
    for value in (1, 2, 4, 8, 16):
        form.named("r").value = value
    deadline = time.monotonic() + 5
    while "counts" not in form.said and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    assert form.counted == [{"r": 16}]
    assert "1 counts" in form.said


def test_a_slow_count_of_old_values_does_not_overwrite_a_newer_one():
    release, calls = threading.Event(), []

    def count(values):
        calls.append(values)
        if not values:
            release.wait(5)
            return "old"
        return "new"

    form = Form(count=count)
    while not calls:
        time.sleep(0.01)
    form.named("r").value = 16
    while len(calls) < 2:
        time.sleep(0.01)
    release.set()
    time.sleep(0.2)
    assert "new" in form.said
    assert "old" not in form.said


def test_a_users_mistake_on_run_is_two_clean_escaped_lines():
    def refuse(_):
        raise SpecError("no model <b>x</b>", hint="name one")

    form = Form(on_run=refuse)
    form.named("Run").click()
    assert "<b>SpecError: no model &lt;b&gt;x&lt;/b&gt;</b><br>→ name one" in form.said


def test_a_mistake_in_counting_is_one_line_and_the_form_goes_on():
    def refuse(_):
        raise SpecError("cannot count", hint="load it")

    form = Form(count=refuse)
    deadline = time.monotonic() + 5
    while "cannot count" not in form.said and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "cannot count" in form.said
    assert form.press("Run") == {}


def test_the_cells_text_is_inserted_as_it_stands_and_only_where_that_is_possible():
    form = Form()
    form.named("r").value = 64
    form.named("Insert cell").click()
    assert form.inserted == ["%%finetune lora\n{'r': 64}"]
    assert not [button for button in Form(insert=None).all(ipywidgets.Button) if button.description == "Insert cell"]


def test_what_the_method_adds_and_what_most_runs_change_is_open_and_the_rest_is_folded():
    form = Form()
    (folded,) = form.all(ipywidgets.Accordion)
    assert folded.selected_index is None
    assert folded.titles == ("length of the run, batches", "schedule of the learning rate", "memory and speed", "run")
    everywhere = [widget.description for widget in form.all() if getattr(widget, "description", "")]
    inside = [widget.description for widget in form.all(box=folded) if getattr(widget, "description", "")]
    assert [name for name in everywhere if name not in inside] == ["r", "lora_dropout", "target_modules", "learning_rate", *everywhere[-2:]]
    assert everywhere[-2:] == ["Run", "Insert cell"]
    assert {"max_steps", "packing", "lr_scheduler_type", "gradient_checkpointing", "dtype"} <= set(inside)


@pytest.mark.parametrize("name", methods.names())
def test_every_training_option_stands_under_a_heading_that_says_what_it_is_for(name):
    options = methods.get(name).spec.options()
    first, folded = grouped(options)
    assert "training" not in folded
    assert sorted(item.name for item in [*first, *itertools.chain(*folded.values())]) == sorted(item.name for item in options)
    assert sum(item.group == "training" for item in first) <= 5
    assert all(len(items) <= 10 for items in folded.values())


def test_no_heading_names_an_option_that_is_not_there():
    assert {*FIRST, *itertools.chain(*SECTIONS.values())} <= {item.name for item in FinetuneSpec.options()}


@pytest.mark.parametrize("spec", [FinetuneSpec, *(methods.get(name).spec for name in methods.names())])
def test_every_option_of_every_method_has_an_input_that_reads_back_its_default(spec):
    form = Form(spec.options())
    assert form.press("Run") == {}


@pytest.mark.parametrize(("low", "high", "step"), [(0, 1, 0.01), (0.5, 10, 0.1), (0, 0.3, 0.002), (0, 5, 0.05)])
def test_sliders_move_in_round_steps(low, high, step):
    assert slider_step(low, high) == pytest.approx(step)
