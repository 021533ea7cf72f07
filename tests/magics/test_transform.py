"""Cells are rewritten to `await` where that can stand, and only there."""

from __future__ import annotations

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell

from nbtune_magics import load_ipython_extension, unload_ipython_extension
from nbtune_magics.transform import AwaitMagics, BodylessCells


def transformed(cell: str, *, running: bool = False) -> str:
    manager = TransformerManager()
    awaiting = AwaitMagics(["finetune", "compare"])
    awaiting.running = int(running)
    manager.cleanup_transforms.append(BodylessCells(["finetune", "compare", "task"]))
    lines = manager.transform_cell(cell).splitlines(keepends=True)
    return "".join(awaiting(lines))


@pytest.mark.parametrize(
    "cell",
    [
        "%%finetune lora\nr: 1\n",
        "%finetune lora",
        "x = %finetune lora",
        "for r in (1, 2):\n    %finetune lora --r 1\n",
        "for r in (1, 2):\n    x = %finetune lora\n    print(x)\n",
        "if True:\n    %compare\nelse:\n    %finetune lora\n",
        "async def f():\n    %finetune lora\nawait f()\n",
        "ü = '€'; print(ü)\nx = %finetune lora ü\n",
        "with open('f') as f:\n    %finetune lora\n",
    ],
)
def test_plain_cells_are_awaited(cell: str) -> None:
    text = transformed(cell)
    assert text.count("await get_ipython().run_") == cell.count("%finetune") + cell.count("%compare")
    assert text.count("'--awaited ") == text.count("await get_ipython().run_")
    compile(text, "<test>", "exec", 0x2000)


@pytest.mark.parametrize(
    "cell",
    [
        "def f():\n    %finetune lora\nf()\n",
        "f = lambda: get_ipython().run_line_magic('finetune', 'lora')\n",
        "class A:\n    %finetune lora\n",
        "%%time\n%finetune lora\n",
        "%%capture\n%finetune lora\n",
        "%time %finetune lora\n",
        "def f(:\n%finetune lora\n",
        "get_ipython().run_line_magic('other', 'x')\n",
        "print('finetune')\n",
    ],
)
def test_where_await_cannot_stand_the_cell_is_left_alone(cell: str) -> None:
    assert "await" not in transformed(cell)


def test_nothing_is_rewritten_while_a_cell_runs() -> None:
    assert "await" not in transformed("%finetune lora", running=True)


def test_rewriting_twice_is_rewriting_once() -> None:
    awaiting = AwaitMagics(["finetune"])
    once = awaiting(["get_ipython().run_line_magic('finetune', 'lora')\n"])
    assert awaiting(once) == once


@pytest.mark.parametrize("cell", ["%%finetune lora", "%%finetune lora\n", "\n%%finetune lora\n\n  \n"])
def test_a_cell_magic_without_a_body_becomes_the_line_magic(cell: str) -> None:
    assert "run_line_magic('finetune', '--awaited lora')" in transformed(cell)


@pytest.mark.parametrize("cell", ["%%finetune lora\nr: 1\n", "%%finetune?", "%%time\n", "x = 1\n%%finetune\n", "%%finetuned x\n"])
def test_other_cells_are_not_taken_for_body_less_ones(cell: str) -> None:
    lines = cell.splitlines(keepends=True)
    assert BodylessCells(["finetune"])(lines) == lines


def test_running_never_falls_below_zero() -> None:
    awaiting = AwaitMagics(["finetune"])
    awaiting.leave()
    awaiting.enter()
    assert awaiting.running == 1


def test_where_the_shell_awaits_nothing_cells_are_left_alone() -> None:
    lines = ["get_ipython().run_line_magic('finetune', 'lora')\n"]
    assert AwaitMagics(["finetune"], lambda: False)(lines) == lines


def test_a_plain_shell_awaits_until_it_is_told_not_to() -> None:
    shell = InteractiveShell()
    load_ipython_extension(shell)
    shell.events.trigger("post_run_cell", None)
    try:
        assert "await" in shell.transform_cell("%finetune lora")
        for runner in ("sync", "trio"):
            shell.run_line_magic("autoawait", runner)
            assert "await" not in shell.transform_cell("%finetune lora")
    finally:
        unload_ipython_extension(shell)
