"""A spec says all that is wrong with what was typed, at once, each with its line and the mend."""

import pytest

from nbtune.errors import SpecError
from nbtune.methods.lora import LoraSpec
from nbtune.spec import CompareSpec, FinetuneSpec, TaskSpec


def test_all_problems_come_together_in_the_order_of_their_lines() -> None:
    said = {"lr": -1, "learning_rat": 3, "epochs": "many", "quantization": "nf5", "load_best_model_at_end": 1, "r": 0}
    lines = {key: number for number, key in enumerate(said, start=2)}
    with pytest.raises(SpecError) as error:
        LoraSpec.build(said, lines)
    assert [problem.line for problem in error.value.problems] == [2, 3, 4, 5, 6, 7]
    text = str(error.value)
    for expected in (
        "line 2: learning_rate must be greater than 0",
        "line 3: unknown option 'learning_rat' → did you mean 'learning_rate'?",
        "line 4: num_train_epochs must be a number, not 'many'",
        "line 5: quantization cannot be 'nf5' → did you mean 'nf4'?",
        "line 6: load_best_model_at_end must be true or false, not 1",
        "line 7: r must be at least 1, not 0",
    ):
        assert expected in text


def test_problems_inside_a_mapping_are_told_with_the_others() -> None:
    said = {"data": 3, "prompt": "x", "completion": "y", "split": {"dve": 0.1, "test": 2}, "kind": "classify"}
    with pytest.raises(SpecError) as error:
        TaskSpec.build(said, {"split": 5, "kind": 6})
    messages = [(problem.line, problem.message) for problem in error.value.problems]
    assert messages == [
        (5, "split: unknown split key 'dve'"),
        (5, "split: test must be less than 1.0, not 2"),
        (6, "kind cannot be 'classify'"),
    ]


def test_one_problem_is_two_lines() -> None:
    with pytest.raises(SpecError) as error:
        CompareSpec.build({"scorring": "sum"})
    assert error.value._render_traceback_() == ["SpecError: unknown comparison key 'scorring'", "  → did you mean 'scoring'?"]


def test_a_thing_said_by_two_of_its_names_is_refused() -> None:
    with pytest.raises(SpecError, match="'lr' and 'learning_rate' are the same option"):
        FinetuneSpec.build({"lr": 1e-3, "learning_rate": 1e-3})


@pytest.mark.parametrize("alias", ["lora_r", "rank", "lora-rank"])
def test_the_usual_other_names_and_dashes_are_understood(alias: str) -> None:
    assert LoraSpec.build({alias: 4}).r == 4


def test_true_is_no_number_and_a_number_no_text() -> None:
    for value in ({"r": True}, {"r": 4.5}, {"model": 3}, {"learning_rate": "1e-3"}):
        with pytest.raises(SpecError):
            LoraSpec.build(value)


def test_every_option_of_every_spec_says_what_it_means_and_sliders_span_the_default() -> None:
    from nbtune.methods import get, names

    for spec in (TaskSpec, CompareSpec, *(get(name).spec for name in names())):
        for item in spec.options():
            assert item.meaning, item.name
            if item.kind in {"int", "float"} and item.low is not None and item.high is not None and item.default is not None:
                assert item.low <= item.default <= item.high, item.name
