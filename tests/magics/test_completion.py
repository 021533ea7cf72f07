"""Completion in our cells: what fits, nothing else, and no torch for it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from nbtune.approaches.few_shot import FewShotSpec
from nbtune.methods import names
from nbtune_magics import load_ipython_extension, unload_ipython_extension
from nbtune_magics.completion import Completion
from nbtune_magics.extension import MAGICS
from nbtune_magics.project import state


def at(cell: str, variables: dict[str, Any] | None = None) -> tuple[str, ...] | None:
    """What fits at the `‸` of a cell."""
    before, _, after = cell.partition("‸")
    lines = before.split("\n")
    shell: Any = SimpleNamespace(user_ns=variables or {})
    found = Completion(shell, MAGICS).complete(before + after, len(lines) - 1, len(lines[-1]))
    return None if found is None else found.texts


@pytest.fixture(autouse=True)
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    task: Any = SimpleNamespace(name="tickets")
    monkeypatch.setattr(state, "tasks", {"dates": task, "tickets": task})


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("%%finetune ‸", names()),
        ("%%finetune lo‸", ("lora", "loha", "lokr")),
        ("x = %finetune he‸", ("head",)),
        ("%tune la‸", ("last-blocks", "layernorm")),
        ("%%finetune lora --task ‸", ("tickets", "dates")),
        ("%%finetune lora --task=ti‸", ("tickets",)),
        ("%%finetune lora --quant‸", ("--quantization",)),
        ("%%finetune lora --quantization ‸", ("nf4", "fp4", "int8")),
        ("%%finetune lora --quantization=n‸", ("nf4",)),
        ("%%finetune lora --lora_r‸", ("--lora_r", "--lora_rank")),
        ("%%finetune lora --r 8 --r‸", ("--retain", "--replay")),
        ("%%finetune last-blocks --num_bl‸", ("--num_blocks",)),
        ("%%finetune lora --model smo‸", ("smollm2-135m",)),
        ("%%finetune lora --back‸", ("--background",)),
        ("%%finetune lora --prompt 'open ‸", ()),
        ("%%finetune lora --r ‸", ()),
        ("%%finetune lora\nlr_sch‸", ("lr_scheduler_type: ",)),
        ("%%finetune lora\nlr_scheduler_type: ‸", ("linear", "cosine", "constant", "warmup_stable_decay")),
        ("%%finetune lora\nlr_scheduler_type: c‸", ("cosine", "constant")),
        ("%%finetune lora\nquantization: ‸\nr: 8", ("nf4", "fp4", "int8")),
        ("%%finetune lora\nr: ‸", ()),
        ("%%finetune lora\nr:‸", ()),
        ("%%finetune lora\nr: 8\nlora_dr‸", ("lora_dropout: ",)),
        ("%%finetune lora\nlora_alpha: 8\nlora_al‸", ()),
        ("%%finetune lora\nload_best_model_at_end: ‸", ("true", "false")),
        ("%%task t\nprompt: |\n  some te‸", ()),
        ("%%task t\nmetric: ac‸", ("accuracy",)),
        ("%%task t\nki‸", ("kind: ",)),
        (
            "%%compare --task tickets\n- ‸",
            ("zero-shot", "few-shot", "prompt-search", "ensemble", "retrieval", "function", "floor", "run: "),
        ),
        ("%%compare\n- few-shot: {‸", tuple(f"{name}: " for name in FewShotSpec.model_fields)),
        ("%%compare\n- few-shot: {k: 8, or‸", ("order: ",)),
        ("%%compare\n- few-shot: {k: 8, k‸", ()),
        ("%%compare\n- few-shot: {k: 8, select: b‸", ("balanced",)),
        ("%%compare\n- few-shot: {calibrate: ‸", ("true", "false")),
        ("%%compare\n- floor: ‸", ("majority", "tf-idf", "neighbours")),
        ("%%compare\nfloor: ‸", ("true", "false")),
        ("%%compare\n- ensemble: [zero-shot, few‸", ("few-shot",)),
        ("%%compare\n- ensemble: {by: ‸", ("vote", "mean")),
        ("%%compare\n- run: {run: x, st‸", ("step: ", "strength: ")),
        ("%%compare\nscor‸", ("scoring: ",)),
        ("%%prompt --task tickets\nfew‸", ("few-shot",)),
        ("%%prompt\nfew-shot: {se‸", ("select: ", "seed: ", "seeds: ")),
        ("%%prompt\nfloor: m‸", ("majority",)),
        ("%%prompt\nscoring: b‸", ("byte",)),
        ("%runs st‸", ("stop",)),
        ("%combine both --how ti‸", ("ties", "ties_svd")),
        ("%combine both --weights ‸", ()),
        ("%doctor ‸", ("tickets", "dates")),
        ("%doctor ti‸", ("tickets",)),
        ("%doctor tickets --max_l‸", ("--max_length",)),
        ("%doctor tickets --model smo‸", ("smollm2-135m",)),
    ],
)
def test_what_fits_is_offered(cell: str, wanted: tuple[str, ...]) -> None:
    assert at(cell) == wanted


def test_runs_are_offered_after_the_name_of_their_combination_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = [SimpleNamespace(name=name) for name in ("one", "two", "third")]
    monkeypatch.setattr("nbtune.runs", lambda: made)
    assert at("%combine both ‸") == ("third", "two", "one")
    assert at("%combine both one t‸") == ("third", "two")
    assert at("%combine ‸") is not None
    assert "one" not in (at("%combine ‸") or ())
    assert at("%strength t‸") == ("third", "two")
    assert "--max_rows" in (at("%strength two ‸") or ())


def test_functions_of_the_notebook_are_offered_as_approaches() -> None:
    def by_rule(prompt: str) -> str:
        return prompt

    by_rule.__module__ = "__main__"
    variables = {"by_rule": by_rule, "number": 3, "_hidden": by_rule, "imported": pd.DataFrame}
    assert at("%%compare\n- function: ‸", variables) == ("by_rule",)
    assert at("%%compare\n- by‸", variables) == ("by_rule",)
    assert at("%%prompt\nfunction: b‸", variables) == ("by_rule",)


@pytest.mark.parametrize("cell", ["x = 1‸", "%%fine‸", "%%time\nlo‸", "%matplotlib ‸", "%%finetune‸", "print('%finetune ‸"])
def test_what_is_not_ours_is_left_to_ipython(cell: str) -> None:
    assert at(cell) is None


def test_variables_and_files_are_offered_as_data(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("a\n1\n")
    (tmp_path / "notes.md").write_text("")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "deep.jsonl").write_text("")
    variables = {"df": pd.DataFrame({"a": [1]}), "_df": pd.DataFrame(), "n": 3}
    assert at("%%task t --data ‸", variables) == ("df", "more/", "rows.csv")
    assert at("%%task t\ndata: more/‸", variables) == ("more/deep.jsonl",)


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell()
    shell.Completer.use_jedi = False  # it takes seconds while torch is imported beside it
    load_ipython_extension(shell)
    yield shell
    unload_ipython_extension(shell)


def completed(shell: InteractiveShell, cell: str) -> list[str]:
    with provisionalcompleter():
        return [item.text for item in shell.Completer.completions(cell, len(cell))]


def test_other_completers_are_kept_out_even_where_nothing_fits(shell: InteractiveShell) -> None:
    shell.user_ns["result_of_mine"] = 1
    assert completed(shell, "%%finetune lora\nr: ") == []
    assert completed(shell, "%%finetune lora\nlr_sch") == ["lr_scheduler_type: "]
    assert "result_of_mine" in completed(shell, "resu")


def test_unloading_takes_everything_out(shell: InteractiveShell) -> None:
    unload_ipython_extension(shell)
    assert shell.find_line_magic("finetune") is None
    assert shell.find_cell_magic("finetune") is None
    assert not any("nbtune" in type(item).__module__ for item in (*shell.input_transformers_cleanup, *shell.input_transformers_post))
    assert shell.Completer.custom_matchers == []
