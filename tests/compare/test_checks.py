"""Each way in which a grid could lie is planted once, and each is caught and named."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nbtune
from nbtune.approaches import few_shot
from nbtune.inference import Engine
from nbtune.models.base import Base
from tests.examples import echo_task, ticket_rows, ticket_task
from tests.tiny import tiny_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def trained(folder: Path, task: nbtune.Task, method: str = "lora", **options: Any) -> Any:
    said = {"max_steps": 3, "num_samples": 0, "learning_rate": 1e-2, "name": "tuned", **options}
    return nbtune.finetune(method, task=task, model=folder, **said).wait()


def test_an_honest_grid_has_no_warning_and_says_what_was_checked(folder: Path) -> None:
    task = ticket_task()
    run = trained(folder, task)
    grid = nbtune.compare(["zero-shot", {"few-shot": {"k": 2}}, run], task=task)
    assert grid.warnings == []
    said = "\n".join(grid.checks)
    for words in (
        f"same rows: {len(task.test)} prompts in every column (sha256 ",
        "by one template (sha256 ",
        "same decoding: labels scored by the summed log-probability",
        f"none of the {len(task.test)} rows asked is among the {len(task.train) + len(task.dev)} train and dev rows",
        "zero-shot: 3 of 3 rows asked alone answered the same",
        "run: tuned: adapter on, logits differ from the base's by up to",
        "run: tuned: adapter off, logits equal those of the base as it was loaded",
    ):
        assert words in said


def test_the_adapters_hash_is_that_of_its_own_tensors(folder: Path) -> None:
    task = ticket_task(30)
    hashes = {}
    for method, seed in (("lora", 0), ("lora", 1), ("layernorm", 0)):
        run = trained(folder, task, method, seed=seed, name=f"{method}_{seed}")
        grids = [nbtune.compare([run], task=task, floor=False) for _ in range(2)]
        found = [re.findall(rf"run: {method}_{seed}: .*sha256 (\w+)", "\n".join(grid.checks)) for grid in grids]
        assert found[0] == found[1]
        assert len(found[0]) == 1
        hashes[method, seed] = found[0][0]
        with torch.no_grad():
            next(iter(run.engine().base.trained(run.id).values())).add_(1e-3)
        (after,) = re.findall(rf"run: {method}_{seed}: .*sha256 (\w+)", "\n".join(nbtune.compare([run], task=task, floor=False).checks))
        assert after != found[0][0]
    assert len(set(hashes.values())) == 3


def test_an_adapter_that_is_zero_is_named(folder: Path) -> None:
    task = ticket_task(30)
    run = trained(folder, task)
    with torch.no_grad():
        for key, parameter in run.engine().base.trained(run.id).items():
            if "lora_B" in key:
                parameter.zero_()
    grid = nbtune.compare(["zero-shot", run], task=task)
    assert any("run: tuned: its adapter changed nothing" in warning for warning in grid.warnings)


@pytest.mark.parametrize("with_run", [True, False])
def test_an_adapter_left_on_in_the_bases_column_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, with_run: bool) -> None:
    task = ticket_task(30)
    run = trained(folder, task)
    run.engine()

    @contextmanager
    def left_on(self: Base, adapter: str | None) -> Iterator[Any]:
        if self.peft is not None:
            self.peft.set_adapter(adapter or run.id)
        yield self.model

    monkeypatch.setattr(Base, "_switched", left_on)
    grid = nbtune.compare(["zero-shot", *([run] if with_run else [])], task=task, model=folder)
    monkeypatch.undo()
    nbtune.models.unload()
    assert any("away from the base as it was loaded" in warning for warning in grid.warnings)


@pytest.mark.parametrize("kind", ["labels", "texts"])
def test_outputs_that_got_into_another_order_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    task = ticket_task() if kind == "labels" else echo_task()
    name = "score" if kind == "labels" else "generate"
    plain = getattr(Engine, name) if kind == "labels" else lambda _self, prompts, *_more, **_named: [prompt[8:20] for prompt in prompts]

    def turned(self: Engine, prompts: Any, *more: Any, **named: Any) -> Any:
        found = plain(self, prompts, *more, **named)
        return [*found[1:], *found[:1]]

    monkeypatch.setattr(Engine, name, turned)
    grid = nbtune.compare(["zero-shot"], task=task, model=folder, dtype="float32")
    (warning,) = grid.warnings
    assert warning.startswith("zero-shot: rows ")
    assert "its outputs may be other rows'" in warning


def test_test_rows_among_those_that_a_column_may_learn_from_are_named(folder: Path) -> None:
    task = ticket_task()
    task.train = (*task.train, *task.test[:3])
    grid = nbtune.compare(["zero-shot", {"few-shot": {"k": 2}}], task=task, model=folder, floor=False)
    assert [warning.split(":")[0] for warning in grid.warnings if "3 of the rows that it may learn from are asked here" in warning] == [
        "zero-shot",
        "few-shot",
    ]


def test_examples_that_are_asked_themselves_are_named_wherever_they_come_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ticket_task()
    monkeypatch.setattr(few_shot, "choose", lambda task, _options: list(task.test[:2]))
    grid = nbtune.compare(["zero-shot", {"few-shot": {"k": 2}}], task=task, model=folder, floor=False)
    (warning,) = grid.warnings
    assert warning.startswith("few-shot: k=2: 2 of the rows asked stand among its examples")


def test_inputs_that_a_column_has_learnt_from_are_named(folder: Path) -> None:
    task = ticket_task(30)
    grid = nbtune.compare(["zero-shot"], task=task, model=folder, inputs=[task.train[0].row, {"text": "something new"}])
    assert any("1 of the rows that it may learn from are asked here" in warning for warning in grid.warnings)


@pytest.mark.parametrize("entry", ["zero-shot", "few-shot"])
def test_a_template_changed_between_columns_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    from nbtune import approaches

    task = ticket_task(30)
    plain = approaches.approach_of

    def other_words(said: Any, *more: Any, **named: Any) -> Any:
        made = plain(said, *more, **named)
        return replace(made, wrap=lambda prompt: made.wrap(prompt.replace("Ticket:", "Case:"))) if said == entry else made

    if entry == "zero-shot":
        monkeypatch.setattr(sys.modules["nbtune.compare.grid"], "approach_of", other_words)
    else:
        before = few_shot._before
        monkeypatch.setattr(few_shot, "_before", lambda shots, prompt: before(shots, prompt.replace("Ticket:", "Case:")))
    grid = nbtune.compare(["zero-shot", "few-shot"], task=task, model=folder, floor=False)
    (warning,) = grid.warnings
    assert warning == f"{entry}: it does not ask with the template of the others"


def test_a_run_of_another_base_than_the_prompts_is_named(folder: Path, tmp_path: Path) -> None:
    task = ticket_task(30)
    run = trained(folder, task)
    grid = nbtune.compare(["zero-shot", run], task=task, model=tiny_llama(tmp_path / "another", seed=1), floor=False)
    assert any("do not share one base" in warning for warning in grid.warnings)


def test_the_hashes_of_rows_and_template_are_those_of_what_was_asked(folder: Path) -> None:
    def first(task: nbtune.Task) -> list[str]:
        return re.findall(r"sha256 (\w+)", nbtune.compare(["zero-shot"], task=task, model=folder, floor=False).checks[0])

    rows = ticket_rows(30)
    parts = {"train": rows[:20], "test": rows[20:]}
    plain, again = first(ticket_task(data=parts)), first(ticket_task(data=json.loads(json.dumps(parts))))
    assert plain == again
    other_rows = first(ticket_task(data={**parts, "test": [*rows[20:29], {"text": "new", "team": "billing"}]}))
    other_words = first(ticket_task(data=parts, prompt="Case: {{ text }}\nTeam:"))
    assert other_rows[0] != plain[0]
    assert other_rows[1] == plain[1]
    assert other_words[0] != plain[0]
    assert other_words[1] != plain[1]


def test_generations_that_were_cut_short_are_told(folder: Path) -> None:
    grid = nbtune.compare(["zero-shot"], task=echo_task(), model=folder, decoding={"max_new_tokens": 3})
    assert any("at most 3 tokens" in check for check in grid.checks)
