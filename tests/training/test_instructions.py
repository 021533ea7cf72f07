"""Instruction tuning: how sets are asked and mixed, what is held out of the training, and how each set is scored."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import nbtune
from nbtune.errors import DataError, NbtuneError, SpecError
from nbtune.metrics.scores import metric_of
from tests.examples import TEAMS, echo_task, tag_task, text_task, ticket_rows, ticket_task
from tests.tiny import tiny

QUICK: dict[str, Any] = {"dtype": "float32", "per_device_train_batch_size": 8, "num_samples": 1, "learning_rate": 3e-3}


def _others(count: int = 60) -> nbtune.Task:
    """Another classification: whether a text is about money."""
    rows = [{"text": row["text"].upper(), "money": "yes" if row["team"] == "billing" else "no"} for row in ticket_rows(count)]
    return nbtune.Task(name="money", data=rows, prompt="{{ text }}\nMoney:", completion=" {{ money }}", kind="classification")


def _mixed(**options: Any) -> nbtune.Task:
    sets = options.pop("sets", {"tickets": ticket_task(), "money": _others(), "words": echo_task()})
    return nbtune.instructions(sets, **{"hold_out": ["money"], **options})


def test_each_row_is_asked_by_its_set_in_one_of_several_ways() -> None:
    task = _mixed(inverted=0.3)
    beginnings = Counter(item.prompt.split(" ", 1)[0] for item in task.train if item.row["set"] == "tickets" and not item.row["turned"])
    assert len(beginnings) >= 3  # its own, and others
    own = [item for item in task.train if item.prompt.startswith("Ticket: ") and item.row["set"] == "tickets" and not item.row["turned"]]
    assert own
    for item in task.train:
        if item.row["set"] == "tickets" and not item.row["turned"]:
            word = next(word for word in item.prompt.split() if word in {*TEAMS, "password", "saddle", "login", "tent", "screen"})
            assert item.completion == " " + TEAMS.get(word, "technical")
    listed = [item.prompt for item in task.train if "Which of these fits" in item.prompt]
    assert all("billing, shipping, technical" in prompt for prompt in listed)
    assert listed


def test_of_the_training_rows_a_part_is_turned_round_and_of_the_others_none() -> None:
    task = _mixed(inverted=0.25, sets={"tickets": ticket_task(240), "money": _others(), "words": echo_task(200)})
    share = sum(item.row["turned"] for item in task.train) / len(task.train)
    assert share == pytest.approx(0.25, abs=0.08)
    around = next(item for item in task.train if item.row["turned"] and item.row["set"] == "tickets")
    assert any(team in around.prompt for team in ("billing", "shipping", "technical"))
    assert around.completion.strip() in {row["text"] for row in ticket_rows(240)}
    assert not any(item.row["turned"] for item in (*task.dev, *task.test))
    assert not any(item.row["turned"] for item in _mixed(inverted=0.0).train)


def test_a_set_that_is_held_out_is_trained_nowhere_and_asked_on_its_own_test_rows() -> None:
    task, money = _mixed(), _others()
    assert {item.row["set"] for item in task.train} == {"tickets", "words"}
    assert {item.row["set"] for item in task.dev} == {item.row["set"] for item in task.test} == {"tickets", "words", "money"}
    asked = [item for item in task.test if item.row["set"] == "money"]
    assert len(asked) == len(money.test)
    assert all(item.row["held_out"] for item in asked)
    texts = {str(item.row["text"]) for item in money.test}
    assert all(any(text in item.prompt for text in texts) for item in asked)
    assert len({item.row["set"] for item in task.dev[:3]}) == 3  # whatever part of them is looked at, all sets are in it


@pytest.mark.parametrize(("limit", "weight", "wanted"), [(3000, 1.0, None), (3000, 3.0, None), (20, 1.0, 0.5)])
def test_sets_are_mixed_by_their_size_up_to_a_limit_and_by_their_weight(limit: int, weight: float, wanted: float | None) -> None:
    tickets, words = ticket_task(120), echo_task(60)
    task = _mixed(limit=limit, sets={"tickets": tickets, "words": {"task": words, "weight": weight}}, hold_out=None)
    sizes = {"tickets": min(len(tickets.train), limit), "words": min(len(words.train), limit)}
    counts = Counter(item.row["set"] for item in task.train)
    share = weight * sizes["words"] / (sizes["tickets"] + weight * sizes["words"])
    assert counts["words"] / counts.total() == pytest.approx(share if wanted is None else wanted, abs=0.01)
    assert counts.total() == pytest.approx(sum(sizes.values()), abs=1)
    again = [item.prompt for item in task.train if item.row["set"] == "words" and not item.row["turned"]]
    assert len(set(again)) > 5


def test_templates_of_one_s_own_stand_beside_the_set_s_own_prompt() -> None:
    sets = {"tickets": {"task": ticket_task(), "templates": ["{{ text }} => one of {{ options }}:"], "turned": []}, "money": _others()}
    task = _mixed(sets=sets, inverted=0.5)
    prompts = [item.prompt for item in task.train]
    assert {prompt.startswith("Ticket:") or prompt.endswith("=> one of billing, shipping, technical:") for prompt in prompts} == {True}
    assert {prompt.startswith("Ticket:") for prompt in prompts} == {True, False}


def test_usual_phrasings_say_all_that_the_prompt_reads_whatever_the_columns_are_called() -> None:
    rows = [{"aspect": "price", "answer": "no", "options": "none", **row} for row in ticket_rows(60)]
    prompt = "Aspect: {{ aspect }}\nReview: {{ text }}\nTeam:"
    reviews = nbtune.Task(name="reviews", data=rows, prompt=prompt, completion=" {{ team }}", kind="classification")
    task = _mixed(sets={"reviews": reviews, "money": _others()}, inverted=0.5)
    items = [item for item in task.train if item.row["set"] == "reviews"]
    asked = [item for item in items if not item.row["turned"]]
    around = [item for item in items if item.row["turned"]]
    assert all("price" in item.prompt for item in asked)
    assert all("billing, shipping, technical" in item.prompt for item in asked if not item.prompt.startswith("Aspect"))
    fitting = {f"{ahead} {team}" for ahead in ("fits:", "example of") for team in ("billing", "shipping", "technical")}
    assert all(any(words in item.prompt for words in fitting) for item in around)
    assert asked
    assert around
    own = {"task": reviews, "templates": ["{{ aspect }} of {{ text }}, {{ options }}?"], "turned": []}
    written = [item.prompt for item in _mixed(sets={"reviews": own, "money": _others()}).train if item.prompt.endswith("none?")]
    assert written
    assert all(prompt.startswith("price of ") and "aspect:" not in prompt for prompt in written)


def test_the_mixture_is_the_same_by_its_seed_and_when_it_is_opened_again(tmp_path: Path) -> None:
    task = _mixed()
    assert _mixed().fingerprint == task.fingerprint != _mixed(seed=1).fingerprint
    task.save(tmp_path)
    again = nbtune.Task.open(tmp_path)
    assert (again.fingerprint, again.spec.format, again.metric.name) == (task.fingerprint, "instruction", "exact_match")
    assert [item.row for item in again.test] == [item.row for item in task.test]


def test_a_run_tells_the_metric_of_each_set_before_and_after(tmp_path: Path) -> None:
    task = _mixed(inverted=0.0, metric="rouge1")
    run = nbtune.finetune("full", task=task, model=tiny("llama", tmp_path), num_train_epochs=4, **QUICK).wait()
    assert run.spec["objective"] == "instruction"
    before, after = run.summary["scores_before"], run.summary["scores"]
    names = {"eval_loss", "eval_rouge1", "eval_rouge1/tickets", "eval_rouge1/words", "eval_rouge1/money"}
    assert set(before) == set(after) == names
    assert after["eval_loss"] < before["eval_loss"] - 1
    assert after["eval_rouge1"] > before["eval_rouge1"]
    dev = [item for item in task.dev[:64] if not item.row["held_out"]]
    said = run.predict([dict(item.row) for item in dev])
    wanted = metric_of("rouge1", "generation").score(said, [item.expected for item in dev])
    assert after["eval_rouge1"] == pytest.approx(wanted)
    assert "eval_rouge1/money" in run.history.columns
    table = nbtune.compare(["zero-shot", run], task=task).table
    assert list(table["approach"]) == ["zero-shot", f"run: {run.name}"]


def test_what_a_soft_prompt_puts_in_front_is_not_there_before(tmp_path: Path) -> None:
    run = nbtune.finetune("prompt-tuning", task=_mixed(), model=tiny("llama", tmp_path), max_steps=1, **QUICK).wait()
    plain = nbtune.finetune("lora", task=_mixed(), model=tiny("llama", tmp_path), max_steps=1, **QUICK).wait()
    assert run.summary["scores_before"] == pytest.approx(plain.summary["scores_before"], abs=1e-5)


@pytest.mark.parametrize(
    ("sets", "options", "error", "message"),
    [
        ({"tickets": ticket_task()}, {"hold_out": None}, SpecError, "sets are two tasks or more"),
        ([ticket_task(), "others"], {"hold_out": None}, SpecError, "there is no task 'others'"),
        ([ticket_task(), echo_task()], {"hold_out": ["word"]}, SpecError, "hold_out names 'word'"),
        ([ticket_task(), echo_task()], {"hold_out": ["words", "tickets"]}, SpecError, "nothing is left to train"),
        ([ticket_task(), ticket_task()], {"hold_out": None}, SpecError, "set 'tickets' is there twice"),
        ([ticket_task(), echo_task()], {"hold_out": None, "name": "words"}, SpecError, "to be called words, as one of their tasks is"),
        ([ticket_task(), text_task()], {"hold_out": None}, SpecError, "set 'texts' is of kind text"),
        ([ticket_task(), tag_task()], {"hold_out": None}, SpecError, "set 'spans' is of kind tagging"),
        ({"tickets": {"task": ticket_task(), "wieght": 2}, "w": echo_task()}, {"hold_out": None}, SpecError, "wieght"),
        (
            {"a": {"task": ticket_task(), "templates": ["{{ nothing }}"]}, "b": echo_task()},
            {"hold_out": None},
            DataError,
            "set 'a': .*'nothing'",
        ),
        ({"a": {"task": ticket_task(), "templates": ["{{ text"]}, "b": echo_task()}, {"hold_out": None}, DataError, "set 'a': line 1"),
    ],
)
def test_what_cannot_be_mixed_is_refused(sets: Any, options: dict[str, Any], error: type[NbtuneError], message: str) -> None:
    with pytest.raises(error, match=message):
        nbtune.instructions(sets, **options)


def test_a_column_that_is_called_held_out_says_nothing_in_any_other_task(tmp_path: Path) -> None:
    task = ticket_task(data=[{**row, "set": "a", "held_out": True, "turned": True} for row in ticket_rows()])
    assert not any(task.is_held_out(item) for item in task.dev)
    assert task.asked == task.train
    run = nbtune.finetune("lora", task=task, model=tiny("llama", tmp_path), max_steps=1, **QUICK).wait()
    assert set(run.summary["scores"]) == {"eval_loss", "eval_accuracy"}


def test_one_task_is_no_instructions(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="learns several tasks at once, and 'tickets' is one"):
        nbtune.finetune("lora", task=ticket_task(), model=tiny("llama", tmp_path), objective="instruction", max_steps=1)
