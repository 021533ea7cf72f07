"""`%doctor` in a real kernel: what is shown, what is returned, and that a run refuses what it refuses."""

from __future__ import annotations

import pytest

from tests.magics.kernel import Kernel, Result

pytestmark = pytest.mark.kernel

MARK = "<|end|>"


def good(result: Result) -> Result:
    assert result.status == "ok", result.lines
    return result


def test_the_diagnosis_is_shown_once_and_returned(kernel: Kernel) -> None:
    result = good(kernel.run("%doctor tickets --model tiny"))
    assert result.result is None
    shown = result.shown[-1]
    assert "tickets as tiny reads it" in shown["text/plain"]
    assert "Train rows by tokens" in shown["text/html"]
    assert kernel.value("type(_).__name__, _.max_length, _.counts['train'] == len(tickets.train)") == "('Diagnosis', 512, True)"


def test_it_takes_a_length_and_the_one_task_there_is(kernel: Kernel) -> None:
    good(kernel.run("x = %doctor --model tiny --max_length 24"))
    assert kernel.value("x.task, x.max_length, x.cut_rows > 0") == "('tickets', 24, True)"


def test_the_python_call_gives_the_same_and_shows_itself(kernel: Kernel) -> None:
    good(kernel.run("x = %doctor tickets --model tiny"))
    result = good(kernel.run("import nbtune\nnbtune.doctor(tickets, model='tiny')"))
    assert result.result is not None
    assert "Train rows by tokens" in result.result["text/html"]
    assert kernel.value("_.findings == x.findings, x.model") == "(True, 'tiny')"


def test_a_run_refuses_what_the_doctor_refuses_in_two_lines(kernel: Kernel) -> None:
    kernel.run("rows = [{'text': f'row number {n}', 'team': ('shipping ', 'billing ')[n % 2] * 40} for n in range(40)]")
    good(kernel.run("%%task long --data rows\nprompt: '{{ text }}'\ncompletion: ' {{ team }}'\n"))
    shown = good(kernel.run("%doctor long --model tiny --max_length 32")).shown[-1]
    assert "cannot be trained: 1 thing to mend" in shown["text/plain"]
    failed = kernel.run("%finetune lora --task long --model tiny --max_length 32 --max_steps 1 --as never")
    assert (failed.status, len(failed.lines)) == ("error", 2)
    assert "DataError: " in failed.lines[0]
    assert "a completion that alone has" in failed.lines[0]
    assert "set max_length to" in failed.lines[1]


def test_a_run_notes_what_the_doctor_warns_of(kernel: Kernel) -> None:
    kernel.run(f"rows = [{{'text': f'row {MARK} number {{n}}', 'team': ('shipping', 'billing')[n % 2]}} for n in range(40)]")
    good(kernel.run("%%task glued --data rows\nprompt: '{{ text }} Team:'\ncompletion: '{{ team }}'\n"))
    good(kernel.run("x = %finetune lora --task glued --model tiny --max_steps 1", timeout=120))
    notes = kernel.value("[event.text for event in x.events() if event.type == 'note' and event.level == 'warning']")
    assert "no space between prompt and completion" in notes
    assert "inside the prompt" in notes


def test_what_the_data_says_is_escaped(kernel: Kernel) -> None:
    kernel.run("rows = [{'text': f'<img src=x onerror=alert({n})>', 'team': '<b>a</b>' if n % 2 else 'c'} for n in range(40)]")
    good(kernel.run("%%task nasty --data rows\nprompt: '{{ text }}'\ncompletion: ' {{ team }}'\n"))
    html = good(kernel.run("%doctor nasty --model tiny")).shown[-1]["text/html"]
    assert "&lt;b&gt;a" in html
    assert "<img" not in html
    assert "<b>a" not in html


def test_its_help_names_the_tasks_there_are(kernel: Kernel) -> None:
    text = good(kernel.run("%doctor tickets -h")).text
    assert "--max_length NUMBER" in text
    assert "classification, " in text
