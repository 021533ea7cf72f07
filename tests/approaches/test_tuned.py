"""A run as a column: at its end, at another checkpoint, at another strength, with examples before the prompt, and beside other bases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import nbtune
from nbtune.approaches.few_shot import FewShotSpec, choose
from nbtune.errors import NbtuneError, RunError, SpecError
from nbtune.models.strength import at_strength
from tests.approaches.by_hand import shots_before
from tests.examples import echo_task, ticket_rows, ticket_task
from tests.tiny import tiny_llama


def trained(folder: Path, method: str = "lora", **options: Any) -> nbtune.Run:
    said = {"max_steps": 3, "save_steps": 1, "save_total_limit": 9, "num_samples": 0, "learning_rate": 1e-2, "name": "tuned"}
    return nbtune.finetune(method, task=ticket_task(30), model=folder, dtype="float32", **{**said, **options}).wait()


def scores_of(grid: nbtune.Comparison, approach: str) -> list[list[float]]:
    return [list(row.values()) for row in grid.outputs[grid.outputs["approach"] == approach]["log_probabilities"]]


def scored(engine: Any, task: nbtune.Task, texts: list[str] | None = None) -> list[Any]:
    rows = engine.score(texts or [item.prompt for item in task.test], list(task.completion_of.values()))
    return [pytest.approx([nats for nats, _ in row], abs=1e-4) for row in rows]


@pytest.mark.parametrize("method", ["lora", "adapter", "layernorm", "full"])
def test_at_strength_nought_it_is_the_base_at_one_itself_and_between_something_between(folder: Path, method: str) -> None:
    run, task = trained(folder, method), ticket_task(30)
    entries = ["zero-shot", run, *({"run": {"run": run, "strength": strength}} for strength in (0.0, 0.5, 0.6))]
    grid = nbtune.compare(entries, task=task, floor=False)
    assert scores_of(grid, "run: tuned, strength 0") == [pytest.approx(row, abs=1e-5) for row in scores_of(grid, "zero-shot")]
    assert any("run: tuned, strength 0: its" in warning and "changed nothing" in warning for warning in grid.warnings)
    half, more, whole = (scores_of(grid, f"run: tuned{name}") for name in (", strength 0.5", ", strength 0.6", ""))
    assert half != more, "what was kept of one strength is no answer of another"
    assert whole == scored(run.engine(), task), "the run is as it was"
    engine = run.engine()
    assert {key for key in engine.base.state(run.id).tensors if "variant" in key} == set()
    if engine.base.has_adapter(run.id):
        with at_strength(engine.base, run.id, 0.5, {}):
            assert half == scored(engine, task)
    again = nbtune.compare([run, {"run": {"run": run, "strength": 0.5}}], task=task, floor=False)
    assert scores_of(again, "run: tuned, strength 0.5") == half
    assert scores_of(again, "run: tuned") == whole


def test_parts_at_a_strength_are_interpolated_with_the_bases_own_weights(folder: Path) -> None:
    run = trained(folder, "layernorm")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    own, found = dict(base.named_parameters()), run.engine(strength=0.25).base.trained(run.id)
    assert found
    for key, tuned in run.engine().base.trained(run.id).items():
        torch.testing.assert_close(found[key], 0.75 * own[key] + 0.25 * tuned)


@pytest.mark.parametrize("method", ["lora", "prefix-tuning"])
def test_at_a_step_it_is_what_that_checkpoint_holds(folder: Path, method: str) -> None:
    run, task = trained(folder, method), ticket_task(30)
    grid = nbtune.compare([run, *({"run": {"run": "tuned", "step": step}} for step in (1, 3))], task=task, floor=False)
    assert scores_of(grid, "run: tuned, step 3") == [pytest.approx(row, abs=1e-5) for row in scores_of(grid, "run: tuned")]
    first = run.engine(step=1)
    assert scores_of(grid, "run: tuned, step 1") == scored(first, task)
    assert scores_of(grid, "run: tuned, step 1") != scores_of(grid, "run: tuned")
    if method == "lora":
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        opened = PeftModel.from_pretrained(plain, run.folder / "checkpoints" / "step-000001").eval()
        ids = torch.tensor([first.encoder.prompt_ids(task.test[0].prompt)])
        with torch.no_grad():
            torch.testing.assert_close(first.logits(task.test[0].prompt), opened(input_ids=ids).logits[0, -1], rtol=0, atol=1e-4)
    table = grid.table.set_index("approach")
    assert 0 <= table.loc["run: tuned, step 1", "train_seconds"] < table.loc["run: tuned", "train_seconds"]
    assert 0 < table.loc["run: tuned, step 1", "train_tokens"] < table.loc["run: tuned", "train_tokens"]
    assert grid.warnings == []


def test_a_run_is_asked_with_examples_before_the_prompt(folder: Path) -> None:
    run, task = trained(folder), ticket_task(30)
    grid = nbtune.compare([run, {"run": {"run": run, "prompt": {"few-shot": {"k": 2}}}}], task=task, floor=False)
    shots = choose(task, FewShotSpec(k=2))
    texts = [shots_before(shots, item.prompt) for item in task.test]
    assert scores_of(grid, "run: tuned, few-shot: k=2") == scored(run.engine(), task, texts)
    assert list(grid.table["kind"]) == ["tuned", "tuned"]
    assert grid.table["prompt_tokens"].iloc[1] > grid.table["prompt_tokens"].iloc[0]
    assert any("run: tuned, few-shot: k=2: adapter on, logits differ" in check for check in grid.checks)


def test_what_is_not_there_is_refused_with_what_is(folder: Path) -> None:
    run = trained(folder)
    cases: list[tuple[dict[str, Any], type[NbtuneError], str]] = [
        ({"step": 7}, RunError, "no checkpoint of step 7"),
        ({"strength": 2.5}, SpecError, "strength must be at most 2"),
        ({"strength": -1.0}, SpecError, "strength must be at least 0"),
        ({"prompt": {"floor": "majority"}}, SpecError, "a run is not asked by floor"),
        ({"prompt": {"few-shot": {"k": 0}}}, SpecError, "k must be at least 1"),
        ({"steps": 3}, SpecError, "unknown run option 'steps'"),
    ]
    for options, error, match in cases:
        with pytest.raises(error, match=match) as raised:
            nbtune.compare([{"run": {"run": run, **options}}], task=ticket_task(30))
        assert raised.value.hint
    with pytest.raises(RunError) as raised:
        run.engine(step=7)
    assert "there are: 1, 2, 3" in raised.value.hint


def test_what_does_not_add_to_the_models_outputs_has_no_strength_and_leaves_nothing_behind(folder: Path) -> None:
    run = trained(folder, "ia3")
    with pytest.raises(RunError, match="has no strength"):
        nbtune.compare([{"run": {"run": run, "strength": 0.5}}], task=ticket_task(30))
    assert list(run.engine().base.peft.peft_config) == [run.id]
    frozen = nbtune.finetune("features", task=ticket_task(30), model=folder, name="frozen").wait()
    with pytest.raises(RunError, match="a classifier over frozen states"):
        nbtune.compare([{"run": {"run": frozen, "step": 1}}], task=ticket_task(30))


def test_runs_of_several_bases_give_each_prompt_a_column_of_each(folder: Path, tmp_path: Path) -> None:
    other, task = tiny_llama(tmp_path / "another", seed=1), ticket_task(30)
    one, two = trained(folder, name="one"), trained(other, name="two")
    grid = nbtune.compare(["zero-shot", one, {"few-shot": {"k": 2}}, two, trained(folder, name="third")], task=task, floor=False)
    names = [f"zero-shot on {folder} (float32)", f"zero-shot on {other} (float32)", "run: one"]
    names += [f"few-shot: k=2 on {folder} (float32)", f"few-shot: k=2 on {other} (float32)", "run: two", "run: third"]
    assert list(grid.table["approach"]) == names
    alone = nbtune.compare(["zero-shot"], task=task, model=other, dtype="float32", floor=False)
    assert scores_of(grid, names[1]) == scores_of(alone, "zero-shot")
    named = nbtune.compare(["zero-shot", one, two], task=task, model=other, floor=False)
    assert list(named.table["approach"]) == ["zero-shot", "run: one", "run: two"]


def test_two_runs_of_one_name_are_told_apart(folder: Path) -> None:
    task, runs = ticket_task(30), [trained(folder), trained(folder, seed=1)]
    grid = nbtune.compare(runs, task=task, floor=False)
    assert list(grid.table["approach"]) == ["run: tuned", "run: tuned (2)"]
    for run, name in zip(runs, grid.table["approach"], strict=True):
        assert scores_of(grid, name) == scored(run.engine(), task)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_of_a_model_that_is_an_object_of_the_notebook_a_run_can_be_compared_all_the_same(folder: Path, method: str) -> None:
    held, task = nbtune.models.load(str(folder), dtype="float32"), ticket_task(30)
    mine = replace(held, name="mine")
    run = nbtune.finetune(method, task=task, model=mine, max_steps=2, num_samples=0, learning_rate=1e-2, name="tuned").wait()
    if method == "lora":
        grid = nbtune.compare(["zero-shot", run], task=task, floor=False)
        assert grid.warnings == []
        plain = nbtune.compare(["zero-shot"], task=task, model=folder, dtype="float32", floor=False)
        assert scores_of(grid, "zero-shot") == [pytest.approx(row, abs=1e-4) for row in scores_of(plain, "zero-shot")]
    else:
        (warning,) = nbtune.compare([run], task=task, floor=False).warnings
        assert "its trained parts cannot be told from its base" in warning
        assert nbtune.compare(["zero-shot", run], task=task, model=mine, floor=False).warnings == []
    with pytest.raises(RunError, match="an object of a notebook"):
        run.engine(strength=0.5)


def test_a_run_that_has_learnt_rows_that_are_asked_is_named(folder: Path) -> None:
    rows = ticket_rows(60)
    learnt = ticket_task(data={"train": rows[10:40], "test": rows[40:]})
    asked = ticket_task(data={"train": rows[:30], "test": rows[30:60]}, prompt="Case: {{ text }}\nTeam:")
    run = nbtune.finetune("lora", task=learnt, model=folder, max_steps=1, name="tuned").wait()
    known = {item.row["text"] for item in (*learnt.train, *learnt.dev)} & {item.row["text"] for item in asked.test}
    warnings = nbtune.compare([run], task=asked, floor=False).warnings
    assert known
    assert any(f"run: tuned: {len(known)} of the rows asked were among those that it was trained on" in text for text in warnings)
    assert nbtune.compare([run], task=learnt, floor=False).warnings == []


def test_of_a_run_that_has_learnt_them_among_others_in_other_words_too(folder: Path) -> None:
    rows = ticket_rows(60)
    learnt = ticket_task(data={"train": rows[10:40], "test": rows[40:]}, name="one")
    mixed = nbtune.instructions({"one": {"task": learnt, "turned": []}, "words": echo_task(30)}, name="mixed")
    run = nbtune.finetune("lora", task=mixed, model=folder, max_steps=1, num_samples=0, name="tuned").wait()
    asked = ticket_task(data={"train": rows[:30], "test": rows[30:60]}, prompt="Case: {{ text }}\nTeam:")
    known = {item.row["text"] for item in (*learnt.train, *learnt.dev)} & {item.row["text"] for item in asked.test}
    told = [f"run: tuned: {len(known)} of the rows asked were among those"]
    assert known
    assert [text[: len(told[0])] for text in nbtune.compare([run], task=asked, floor=False).warnings[1:]] == told
    assert not any("of the rows asked" in text for text in nbtune.compare([run], task=learnt, floor=False).warnings)


def test_rows_that_differ_in_columns_that_the_prompt_does_not_read_or_in_type_are_known_again(folder: Path) -> None:
    rows = [{**row, "desk": number % 7} for number, row in enumerate(ticket_rows(60))]
    prompt = "Ticket {{ desk }}: {{ text }}\nTeam:"
    learnt = ticket_task(data={"train": [{**row, "desk": str(row["desk"])} for row in rows[:40]], "test": rows[40:]}, prompt=prompt)
    run = nbtune.finetune("lora", task=learnt, model=folder, max_steps=1, num_samples=0, name="tuned").wait()
    asked = ticket_task(data={"train": rows[40:], "test": [{**row, "seen": "today"} for row in rows[:20]]}, prompt=prompt)
    known = sum(item.prompt in {each.prompt for each in (*learnt.train, *learnt.dev)} for item in asked.test)
    assert known
    warnings = nbtune.compare([run], task=asked, floor=False).warnings
    assert any(f"{known} of the rows asked were among those that it was trained on" in text for text in warnings)
