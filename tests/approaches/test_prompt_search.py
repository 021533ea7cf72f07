"""Prompt search: the race and the proposals on a model whose answers are planted, the rest on a tiny real one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nbtune
from nbtune.approaches import label_of, wanted
from nbtune.approaches.base import Asking, Setting
from nbtune.errors import ComparisonError, DataError, ModelError, NbtuneError, SpecError
from nbtune.inference import Engine
from nbtune.spec import DecodingSpec
from nbtune_magics import prompt as prompt_magic
from tests.examples import TEAMS, WORDS, echo_task, number_task, pair_task, tag_task, text_task, ticket_rows, ticket_task
from tests.tiny import tiny_encoder, tiny_llama

ROOT = Path(__file__).resolve().parents[2]
OWN = "Ticket: {{ text }}\nTeam:"
SHARES = {"Ticket:": 0.5, "GOOD": 0.95, "BAD": 0.15, "WORSE": 0.1, "POOR": 0.2, "FAIR": 0.5}
Search = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


class Planted(Engine):
    """Scores the right label highest on the share of rows that the first word of a prompt stands for; `asked` holds all prompts."""

    asked: list[str]

    def score(self, prompts: Sequence[str], answers: Sequence[str], *, progress: Any = None) -> list[list[tuple[float, int]]]:
        found = []
        for prompt in prompts:
            self.asked.append(prompt)
            text = prompt.rpartition("\n\n")[2]
            share = next((share for word, share in SHARES.items() if word in text), 0.5)
            ticket = next(line for line in text.splitlines() if "about the" in line)
            right = TEAMS.get(next(word for word in WORDS if f"about the {word}" in ticket), "technical")
            lucky = random.Random(ticket.partition("case")[2] + text[:8]).random() < share
            found.append([(-1.0 if (answer.strip() == right) == lucky else -2.0, 1) for answer in answers])
            if progress is not None:
                progress(len(found), len(prompts))
        return found


@pytest.fixture
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every prompt that the model is asked."""
    prompts: list[str] = []
    real = Setting.engine

    def planted(setting: Setting, task: nbtune.Task) -> Engine:
        engine = real(setting, task)
        made = Planted(engine.base, engine.encoder)
        object.__setattr__(made, "asked", prompts)
        return made

    monkeypatch.setattr(Setting, "engine", planted)
    return prompts


@pytest.fixture
def search(folder: Path, asked: list[str]) -> Search:
    def run(task: nbtune.Task | None = None, **said: Any) -> Any:
        return nbtune.prompt("prompt-search", task=task or ticket_task(300), model=folder, **said)

    return run


def variants(*words: str) -> list[str]:
    return [f"{word} {{{{ text }}}}\nTeam:" for word in words]


# ---- racing the user's own templates


def test_the_best_of_planted_templates_wins_for_less_than_half_of_the_full_cost(search: Search, asked: list[str]) -> None:
    found = search(templates=variants("BAD", "WORSE", "GOOD", "POOR", "BAD as well,", "WORSE still,", "POOR too,"))
    assert found.template == "GOOD {{ text }}\nTeam:"
    assert len(asked) == found.found.calls < 0.5 * found.found.full_calls
    table = found.table
    assert table["template"].iloc[0] == found.template
    assert set(table["origin"]) == {"task", "given"}
    assert OWN in set(table["template"]), "the task's own prompt is always among them"
    assert table["rows"].max() == table["rows"].iloc[0] == found.found.total
    dropped = table[table["dropped_after"].notna()]
    assert len(dropped) >= 6
    assert (dropped["dropped_after"] == dropped["rows"]).all()
    assert ((table["ci_low"] <= table["accuracy"]) & (table["accuracy"] <= table["ci_high"])).all()


def test_test_rows_are_never_asked_while_it_searches(search: Search, asked: list[str]) -> None:
    task = ticket_task(300)
    search(task, templates=variants("GOOD", "FAIR"), proposer=lambda _request: "POOR instruction", rounds=2, proposals=2, k=2)
    texts = {str(row.row["text"]) for row in task.test}
    assert asked
    assert not [prompt for prompt in asked if any(text in prompt for text in texts)]


def test_every_variant_is_asked_the_same_rows_and_none_twice(search: Search, asked: list[str]) -> None:
    found = search(templates=variants("GOOD", "FAIR"))
    assert max(Counter(asked).values()) == 1
    rows = {word: {prompt.partition(" ")[2] for prompt in asked if prompt.startswith(word)} for word in ("GOOD", "FAIR", "Ticket:")}
    asked_most = max(rows.values(), key=len)
    assert all(each <= asked_most for each in rows.values())
    assert len(asked_most) == found.found.total


def test_in_a_grid_it_asks_test_rows_with_the_winner_and_its_dev_and_test_scores_stand_apart(folder: Path, asked: list[str]) -> None:
    task = ticket_task(300)
    grid = nbtune.compare(["zero-shot", {"prompt-search": {"templates": variants("GOOD", "BAD")}}], task=task, model=folder, floor=False)
    name = grid.table["approach"].iloc[1]
    row = grid.table.set_index("approach").loc[name]
    assert row["accuracy"] > 0.85
    assert row["train_seconds"] > 0
    assert row["train_tokens"] > 0
    assert row["kind"] == "prompting"
    note = next(note for note in grid.notes if note.startswith(f"{name}: Best of 3 templates: accuracy"))
    assert "GOOD {{ text }}" in note
    texts = {str(item.row["text"]) for item in task.test}
    assert {text for text in texts if any(prompt.startswith(f"GOOD {text}") for prompt in asked)} == texts
    assert grid.warnings == []


def test_without_dev_training_rows_that_are_no_examples_are_scored_on(search: Search, asked: list[str]) -> None:
    rows = ticket_rows(80)
    task = ticket_task(data={"train": rows[:60], "test": rows[60:]}, split={"dev": 0.0})
    found = search(task, templates=variants("GOOD"), k=3)
    shots = {prompt.rpartition("\n\n")[0] for prompt in asked if prompt.rpartition("\n\n")[2].startswith("GOOD")}
    assert len(shots) == 1, "the same examples stand before all prompts of a template"
    assert shots.pop().count("GOOD") == 3
    own = {prompt.rpartition("\n\n")[2] for prompt in asked}
    examples = {line for prompt in asked for line in prompt.rpartition("\n\n")[0].splitlines() if "about the" in line}
    assert not examples & {text.splitlines()[0] for text in own}
    assert "training rows" in found.found.rows


def test_a_template_may_read_columns_that_the_tasks_prompt_does_not(search: Search) -> None:
    rows = [{**row, "place": f"desk {number % 3}"} for number, row in enumerate(ticket_rows(120))]
    found = search(ticket_task(data=rows), templates=["GOOD {{ text }}\nAt {{ place }}. Team:"])
    assert found.template.startswith("GOOD")
    assert found.predict([{"text": "case 7: about the parcel", "place": "desk 1"}])
    with pytest.raises(DataError, match="reads column 'place'"):
        found.predict([{"text": "case 7: about the parcel"}])


def test_a_column_that_only_a_template_reads_is_asked_again_where_it_has_changed(search: Search, asked: list[str]) -> None:
    rows = [{**row, "place": f"desk {number % 3}"} for number, row in enumerate(ticket_rows(120))]
    template = "GOOD {{ text }}\nAt {{ place }}. Team:"
    search(ticket_task(data=rows), templates=[template])
    asked.clear()
    search(ticket_task(data=rows), templates=[template])
    assert not asked
    search(ticket_task(data=[{**row, "place": "the door"} for row in rows]), templates=[template])
    assert asked
    assert all("At the door" in prompt for prompt in asked if prompt.startswith("GOOD"))


def test_another_form_of_answers_is_another_search(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forms: list[Any] = []
    real = Engine.generate

    def generate(engine: Engine, prompts: Sequence[str], decoding: Any, **more: Any) -> list[str]:
        forms.append(decoding.constraint.grammar)
        return real(engine, prompts, decoding, **more)

    monkeypatch.setattr(Engine, "generate", generate)
    own = {"prompt-search": {"templates": ["Word of {{ text }}:"], "max_rows": 8}}
    for choices in (["parcel", "tent"], ["login", "bank"]):
        forms.clear()
        nbtune.compare([own], task=echo_task(), model=folder, decoding={"choices": choices, "max_new_tokens": 3})
        assert forms, "nothing was asked anew"
        assert all(choices[0] in form for form in forms)


def test_a_cell_s_search_asks_in_the_form_that_the_cell_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def approach_of(_entry: Any, _task: Any, setting: Setting) -> None:
        seen.append(setting.decoding)
        raise SpecError("seen", hint="")

    monkeypatch.setattr(prompt_magic.approaches, "approach_of", approach_of)
    spec = prompt_magic.PromptSpec.build({"task": "words", "decoding": {"choices": ["parcel", "tent"]}})
    work = prompt_magic._work(SimpleNamespace(spec=spec, given={"model": folder}), echo_task(), ["prompt-search"])
    with pytest.raises(SpecError, match="seen"):
        work(print)
    assert [each.choices for each in seen] == [("parcel", "tent")]


def test_numbers_are_raced_by_which_is_nearer(folder: Path) -> None:
    found = nbtune.prompt("prompt-search", task=number_task(120), model=folder, templates=["{{ premise }} and {{ hypothesis }}: alike?"])
    assert found.metric == "pearson"
    assert len(found.table) == 2


# ---- proposals


def test_a_functions_variants_are_raced_deduplicated_and_counted(search: Search) -> None:
    said = ["GOOD instruction.", "good   INSTRUCTION.", "", "Read {{ team }}.", "BAD one {{ text }}\nTeam:", "{% if text %}"]
    requests: list[str] = []

    def proposer(request: str) -> str:
        requests.append(request)
        return said[(len(requests) - 1) % len(said)]

    found = search(proposer=proposer, rounds=1, proposals=6)
    assert found.template == f"GOOD instruction.\n{OWN}"
    assert found.found.refused == {"said before": 1, "empty": 1, "reads other columns": 1, "not a template": 1}
    assert len(requests) == 6
    assert len(found.table) == 3
    assert "4 proposals were left out" in " ".join(found.told)
    assert "billing, shipping, technical" in requests[0]


def test_later_rounds_are_told_what_the_best_gets_wrong_on_training_rows(search: Search) -> None:
    task, requests = ticket_task(300), list[str]()

    def proposer(request: str) -> str:
        requests.append(request)
        return f"FAIR instruction number {len(requests)}."

    search(task, proposer=proposer, rounds=2, proposals=3)
    later = [request for request in requests[3:] if "got these wrong" in request]
    assert later
    train = {str(row.row["text"]) for row in task.train}
    shown = {line.removeprefix("Input: Ticket: ") for request in requests for line in request.splitlines() if line.startswith("Input: ")}
    assert shown
    assert shown <= train


def test_the_model_itself_or_another_one_may_propose(tmp_path: Path, folder: Path) -> None:
    wide = tiny_llama(tmp_path / "wide", seed=1)
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    task = ticket_task(120)
    for model, proposer in ((wide, None), (folder, str(wide))):
        found = nbtune.prompt("prompt-search", task=task, model=model, proposer=proposer, rounds=1, proposals=1, max_rows=16)
        assert found.found.other_calls == 1
        assert len(found.table) + sum(found.found.refused.values()) == 2
    with pytest.raises(ModelError, match="cannot read what a proposer is asked"):
        nbtune.prompt("prompt-search", task=task, model=folder, rounds=1, proposals=1)


# ---- budget and going on


def test_calls_are_limited_and_the_best_up_to_there_is_given(search: Search, asked: list[str]) -> None:
    found = search(templates=variants("GOOD", "FAIR", "POOR"), max_calls=100)
    assert len(asked) == found.found.calls <= 100
    assert found.template.startswith("GOOD")
    assert "max_calls 100 ended the search" in " ".join(found.told)
    more = search(templates=variants("GOOD", "FAIR", "POOR"), max_calls=None)
    assert len(asked) == more.found.calls, "it goes on where it was"
    assert search(templates=variants("GOOD", "FAIR"), max_seconds=1e-9).table["rows"].max() == 8


def test_proposals_and_rows_together_stay_within_the_calls(search: Search, asked: list[str]) -> None:
    written: list[str] = []

    def proposer(_request: str) -> str:
        written.append("")
        return f"FAIR number {len(written)}"

    found = search(proposer=proposer, rounds=5, proposals=4, max_calls=150)
    assert found.found.calls == len(asked) + len(written) <= 150
    assert len(written) > 0


def test_what_is_interrupted_goes_on_without_asking_anything_twice(search: Search, asked: list[str]) -> None:
    calls: list[str] = []

    def proposer(request: str) -> str:
        calls.append(request)
        return f"{('GOOD', 'FAIR', 'POOR', 'BAD')[random.Random(request).randrange(4)]} {len(request)} {request[-80:-40]}"

    def stop_at(count: int) -> Callable[[str], None]:
        def report(_text: str) -> None:
            if len(asked) >= count:
                raise KeyboardInterrupt

        return report

    options = {"proposer": proposer, "rounds": 2, "proposals": 4, "templates": variants("FAIR")}
    for count in (30, 150):
        with pytest.raises(KeyboardInterrupt):
            search(**options, report=stop_at(count))
    found = search(**options)
    assert max(Counter(asked).values()) == 1
    assert max(Counter(calls).values()) == 1
    assert found.found.calls == len(asked) + len(calls)
    again = search(**options)
    assert len(asked) + len(calls) == found.found.calls
    assert again.table.equals(found.table)
    assert again.cost == found.cost


def test_a_killed_search_goes_on_in_another_process(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """if True:
        import os, sys
        import nbtune
        from tests.examples import ticket_task

        def report(text):
            print(text, flush=True)
            if "48 calls so far" in text:
                os._exit(9)

        nbtune.prompt("prompt-search", task=ticket_task(120), model=sys.argv[1], templates=["{{ text }} Team:"], report=report)
    """
    killed = subprocess.run((sys.executable, "-c", code, folder), cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)
    assert killed.returncode == 9, killed.stderr
    counted: list[str] = []
    real = Engine.score

    def counting(engine: Engine, prompts: Sequence[str], answers: Sequence[str], **more: Any) -> Any:
        counted.extend(prompts)
        return real(engine, prompts, answers, **more)

    monkeypatch.setattr(Engine, "score", counting)
    found = nbtune.prompt("prompt-search", task=ticket_task(120), model=folder, templates=["{{ text }} Team:"])
    assert len(counted) == found.found.calls - 48


def test_a_kept_search_that_is_damaged_is_told_and_begun_anew(search: Search, home: Path, asked: list[str]) -> None:
    search(templates=variants("FAIR"))
    (file,) = (home / "searches").iterdir()
    file.write_text('{"format": 1, "answers": {"x": {"y": 3}}}')
    before = len(asked)
    found = search(templates=variants("FAIR"))
    assert len(asked) == 2 * before
    assert any("cannot be read" in text for text in found.told)


# ---- calibrated


def test_each_template_is_calibrated_before_its_first_row_which_counts_among_the_calls(search: Search, asked: list[str]) -> None:
    found = search(templates=variants("GOOD", "BAD", "POOR"), calibrate=True)
    assert found.template == "GOOD {{ text }}\nTeam:"
    assert len(asked) == found.found.calls
    assert found.found.calibrating_calls == 4 * 32
    assert any("128 to calibrate" in text for text in found.told)
    task = ticket_task(300)
    train = {str(row.row["text"]) for row in task.train}
    assert all(any(text in prompt for text in train) for prompt in asked[:32])
    test = {str(row.row["text"]) for row in task.test}
    assert not [prompt for prompt in asked if any(text in prompt for text in test)]


def test_what_calibrating_takes_is_within_the_calls_that_are_allowed(search: Search, asked: list[str]) -> None:
    found = search(templates=variants("GOOD", "BAD"), calibrate=True, max_calls=150)
    assert len(asked) == found.found.calls <= 150
    with pytest.raises(SpecError, match="one look at 3 templates takes 120 calls"):
        search(templates=variants("GOOD", "BAD"), calibrate=True, max_calls=119)


def test_a_column_answers_as_its_template_was_scored_and_a_search_done_again_asks_nothing(folder: Path, monkeypatch: Any) -> None:
    task = ticket_task(700)

    def search(calibrate: bool) -> Any:
        return nbtune.prompt("prompt-search", task=task, model=folder, templates=variants("GOOD", "BAD"), calibrate=calibrate)

    found, plain = search(True), search(False)
    whole = found.table[found.table["rows"] == found.found.total].iloc[0]
    rows = list(task.dev)
    assert found.found.rows == f"{len(rows)} dev rows"
    right = [said == row.label for said, row in zip(found.predict([row.row for row in rows]), rows, strict=True)]
    assert sum(right) / len(rows) == pytest.approx(whole["accuracy"])
    assert found.table["accuracy"].tolist() != plain.table["accuracy"].tolist()
    monkeypatch.setattr(Engine, "score", None)
    again = search(True)
    assert again.table.equals(found.table)
    assert again.cost == found.cost
    assert again.found.calls == found.found.calls


# ---- what cannot be


def _raises(_request: str) -> str:
    message = "no connection"
    raise OSError(message)


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        ({"templates": ["Which team?"]}, SpecError, "template 1: it reads no column"),
        ({"templates": [""]}, SpecError, "template 1: it reads no column"),
        ({"templates": [OWN, "{{ txt }}"]}, DataError, "template 2: the template reads column 'txt'"),
        ({"templates": ["{{ text }} {{ team }}"]}, SpecError, "template 1: it reads column 'team', which holds the answer"),
        ({"templates": ["{{ text"]}, DataError, "template 1: line 1 of the template"),
        (
            {"templates": variants("GOOD", "FAIR"), "max_calls": 20},
            SpecError,
            "max_calls is 20, and one look at 3 templates takes 24 calls",
        ),
        ({"rounds": 0}, SpecError, "nothing to try"),
        ({"k": 300}, SpecError, "k must be at most 256"),
        ({"templates": variants("GOOD"), "k": 250}, SpecError, "k is 250, and there are"),
        ({"templates": variants("GOOD"), "k": 30}, ModelError, "tokens longer than"),
        ({"proposer": lambda _request: ""}, ComparisonError, "was asked 8 times and wrote nothing"),
        ({"proposer": lambda _request: None}, ComparisonError, "returned None, which is no text"),
        ({"proposer": _raises}, ComparisonError, "the proposer _raises raised OSError: no connection"),
        ({"proposer": "no-such-model"}, ModelError, "no-such-model"),
        ({"round": 3}, SpecError, "unknown prompt-search option 'round'"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_the_model_is_asked(
    search: Search, asked: list[str], said: dict[str, Any], error: type[NbtuneError], match: str
) -> None:
    with pytest.raises(error, match=match) as raised:
        search(**said)
    assert raised.value.hint
    assert asked == []


def test_tasks_without_a_template_an_answer_or_rows_are_refused(folder: Path, tmp_path: Path) -> None:
    turns = [{"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]} for n in range(40)]
    few = ticket_task(data={"train": ticket_rows(60)[:10], "test": ticket_rows(60)[20:30]}, split={"dev": 0.0})
    cases = (
        (nbtune.Task(data=turns), SpecError, "are conversations"),
        (tag_task(), SpecError, "of kind tagging"),
        (text_task(), SpecError, "of kind text"),
        (few, SpecError, "scores on dev rows, and there are 0, with 10 training rows"),
    )
    for task, error, match in cases:
        with pytest.raises(error, match=match):
            nbtune.prompt("prompt-search", task=task, model=folder, templates=["Now {{ text }}"])
    with pytest.raises(ModelError, match="is an encoder"):
        nbtune.prompt("prompt-search", task=ticket_task(), model=tiny_encoder("bert", tmp_path / "reads"), templates=variants("GOOD"))


# ---- alone, and how it is called


@pytest.mark.parametrize("task", [echo_task(80), pair_task(80)], ids=["generation", "pairs"])
def test_it_answers_new_rows_alone(folder: Path, task: nbtune.Task) -> None:
    own = str(task.spec.prompt)
    found = nbtune.prompt(
        "prompt-search", task=task, model=folder, templates=[f"Now: {own}"] if task.name == "words" else [f"{own} and so?"]
    )
    assert len(found.predict([task.test[0].row, task.test[1].row])) == 2
    assert found.template in set(found.table["template"])


def test_a_prompt_of_which_the_row_is_unknown_is_refused_rather_than_asked_in_other_words(search: Search) -> None:
    task = ticket_task(300)
    found = search(task, templates=variants("GOOD"))
    asking = Asking.of(task, (), "sum", DecodingSpec())
    assert found.answer([task.test[0].prompt], asking).outputs == found.answer([task.test[0].question], asking).outputs
    with pytest.raises(DataError, match="of what row the prompt"):
        found.answer(["Ticket: something else\nTeam:"], asking)


def test_a_run_may_be_asked_by_what_a_search_on_it_finds(folder: Path, home: Path) -> None:
    task = ticket_task(60)
    run = nbtune.finetune("lora", task=task, model=folder, max_steps=2, num_samples=0, name="few").wait()
    entry = {"prompt-search": {"templates": ["{{ text }} Team:"], "max_rows": 16}}
    grid = nbtune.compare([entry, {"run": {"run": "few", "prompt": entry}}], task=task, floor=False)
    assert list(grid.table["kind"]) == ["prompting", "tuned"]
    assert len(list((home / "searches").iterdir())) == 2, "what the run answers is kept apart from what the base does"
    assert grid.table["train_seconds"].iloc[1] > run.summary["seconds"]


def test_columns_are_named_by_what_is_not_as_usual_and_templates_by_a_few_digits() -> None:
    labels = [label_of(*wanted(entry)) for entry in ("prompt-search", {"prompt-search": variants("A")}, {"prompt-search": variants("B")})]
    assert labels[0] == "prompt-search"
    assert len(set(labels)) == 3
    assert all("A {{" not in label for label in labels)
    assert label_of(*wanted({"prompt-search": {"proposer": _raises, "k": 2}})) == "prompt-search: proposer=_raises, k=2"
