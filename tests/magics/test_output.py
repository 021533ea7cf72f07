"""What is displayed once is not displayed again, and what is bound is said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell

from nbtune.errors import SpecError
from nbtune_magics.finetune import tell_old_kernels
from nbtune_magics.output import Shown, bind, check_name


class Thing:
    def __repr__(self) -> str:
        return "<thing>"


class Ours(Thing):
    pass


Ours.__module__ = "nbtune.somewhere"


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell.instance()
    shown = Shown(shell)
    shell.events.register("post_run_cell", shown.forget)

    def magic(line: str) -> Thing:
        thing = Thing()
        shown.mark(thing)
        return thing

    shell.register_magic_function(magic, magic_name="thing")
    shell.user_ns["Thing"] = Thing
    yield shell
    shell.events.unregister("post_run_cell", shown.forget)
    InteractiveShell.clear_instance()


def printed(shell: InteractiveShell, capsys: pytest.CaptureFixture[str], code: str) -> str:
    capsys.readouterr()
    result = shell.run_cell(code, store_history=True)
    assert result.success
    return capsys.readouterr().out


def test_a_shown_result_is_not_displayed_again_but_is_there(shell, capsys) -> None:
    assert "<thing>" not in printed(shell, capsys, "%thing")
    assert "<thing>" in printed(shell, capsys, "_")
    assert "<thing>" in printed(shell, capsys, "x = %thing\nx = [x]\nx")


def test_other_things_of_that_type_are_displayed_as_ever(shell, capsys) -> None:
    assert "<thing>" in printed(shell, capsys, "x = %thing\nThing()")
    assert "<thing>" in printed(shell, capsys, "Thing()")


def test_a_name_binds_a_variable_and_says_so(shell, capsys) -> None:
    bind(shell, "my-run", thing := Ours(), "run")
    assert shell.user_ns["my_run"] is thing
    assert capsys.readouterr().out == "run my-run, bound to the variable my_run\n"


def test_a_variable_of_the_users_own_is_never_overwritten(shell, capsys) -> None:
    shell.user_ns["df"] = [1]
    bind(shell, "df", Ours(), "run")
    assert shell.user_ns["df"] == [1]
    assert "keeps it" in capsys.readouterr().out


def test_a_later_thing_of_ours_takes_the_name(shell) -> None:
    bind(shell, "run", Ours(), "run")
    bind(shell, "run", later := Ours(), "run")
    assert shell.user_ns["run"] is later


@pytest.mark.parametrize("name", ["2x", "a b", "for", "", "-x", "a.b", "x" * 65, None, 3])
def test_what_cannot_be_a_variable_cannot_be_a_name(name) -> None:
    with pytest.raises(SpecError, match="cannot be a name"):
        check_name(name)


@pytest.mark.parametrize(("version", "told"), [((6, 29, 0), True), ((7, 3, 1), True), ((7, 4, 0), False), ((8, 0, 0), False)])
def test_an_old_kernel_is_told_of_where_the_buttons_work(version, told, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace(version_info=version))
    tell_old_kernels()
    assert ("--background" in capsys.readouterr().out) is told
