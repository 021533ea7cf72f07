"""Cells that train, prompt and compare, in a real kernel with a tiny model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.magics.kernel import Kernel, Result

pytestmark = pytest.mark.kernel

SHORT = "--task tickets --model tiny --max_steps 2"
LONG = "--task tickets --model tiny --num_train_epochs 1000 --eval_steps 100000"
PANEL = "application/vnd.jupyter.widget-view+json"


def good(result: Result) -> Result:
    assert result.status == "ok", result.lines
    return result


def once(kind: str, act: Callable[[], None], *, contains: str = "") -> Callable[[dict[str, Any]], None]:
    """Acts at the first message of a kind (that holds a text)."""
    done = threading.Event()

    def during(message: dict[str, Any]) -> None:
        if message["msg_type"] == kind and contains in str(message["content"]) and not done.is_set():
            done.set()
            act()

    return during


def test_a_task_is_shown_bound_and_returned(kernel: Kernel) -> None:
    result = good(kernel.run("%%task again --data rows.csv\nprompt: '{{ text }}'\ncompletion: ' {{ team }}'\n"))
    assert any("again" in bundle["text/plain"] and "text/html" in bundle for bundle in result.shown)
    assert result.result is None
    assert result.text == "task again, bound to the variable again\n"
    assert kernel.value("_ is again, again.kind") == "(True, 'classification')"


def test_tasks_become_instructions_of_which_one_is_held_out(kernel: Kernel) -> None:
    good(kernel.run("%%task others --data rows.csv\nprompt: 'Whose is it? {{ text }}'\ncompletion: ' {{ team }}'\n"))
    body = "sets:\n  tickets: {weight: 2, templates: ['{{ text }} Team:']}\n  others: {}\nhold_out: others\n"
    result = good(kernel.run(f"%%instructions mixed\n{body}"))
    assert any("mixed" in bundle["text/plain"] and "others: held out" in bundle["text/plain"] for bundle in result.shown)
    assert kernel.value("mixed.spec.format, {item.row['set'] for item in mixed.train}") == "('instruction', {'tickets'})"
    good(kernel.run("%%finetune lora --task mixed --model tiny --max_steps 2 --as instructed\n", timeout=120))
    assert (
        kernel.value("instructed.spec['objective'], 'eval_exact_match/others' in instructed.summary['scores']") == "('instruction', True)"
    )
    failed = kernel.run("%%instructions mixed\nsets: [tickets, nothing]\n")
    assert (failed.status, len(failed.lines)) == ("error", 2)
    assert "there is no task 'nothing'" in failed.lines[0]


def test_the_panel_is_drawn_and_the_cell_waits_and_the_run_is_the_value(kernel: Kernel) -> None:
    result = good(kernel.run(f"%%finetune lora {SHORT} --as first\nr: 4\nlr: 1e-3\n", timeout=120))
    assert any(PANEL in bundle for bundle in result.shown)
    last = result.shown[-1]
    assert PANEL not in last
    assert "finished" in last["text/plain"]
    assert result.result is None
    assert "run first, bound to the variable first" in result.text
    assert kernel.value("first.status, first.spec['r'], first.name") == "('finished', 4, 'first')"
    assert kernel.value("_.id == first.id") == "True"


def test_a_classifier_and_features_are_one_word_on_the_same_line(kernel: Kernel) -> None:
    tuned = good(kernel.run(f"%%finetune lora --objective classification {SHORT} --as headed\n", timeout=120))
    assert "finished" in tuned.shown[-1]["text/plain"]
    frozen = good(kernel.run("%%finetune features --task tickets --model tiny --as frozen\nclassifier: knn\n", timeout=120))
    assert "finished" in frozen.shown[-1]["text/plain"]
    grid = good(kernel.run("%%compare --task tickets\n- run: headed\n- run: frozen\n- zero-shot\n", timeout=120))
    assert all(name in grid.shown[-1]["text/plain"] for name in ("run: headed", "run: frozen", "zero-shot"))


def test_a_run_is_asked_at_other_strengths_with_what_it_forgets(kernel: Kernel) -> None:
    good(kernel.run(f"%%finetune lora {SHORT} --retain general --as kept\n", timeout=120))
    result = good(kernel.run("x = %strength kept 0 1", timeout=120))
    assert "retained loss" in result.shown[-1]["text/html"]
    assert "accuracy on dev" in result.shown[-1]["text/plain"]
    assert kernel.value("list(x['strength'])") == "[0.0, 1.0]"
    failed = kernel.run("%strength kept half")
    assert (failed.status, len(failed.lines)) == ("error", 2)
    assert "'half' is no strength" in failed.lines[0]
    assert kernel.run("%strength").status == "error"


def test_two_runs_are_combined_into_one_that_is_bound_listed_and_compared(kernel: Kernel) -> None:
    for name in ("left", "right"):
        good(kernel.run(f"%finetune lora {SHORT} --as {name}", timeout=120))
    result = good(kernel.run("%combine both-sides left right --weights [0.7, 0.3] --how linear", timeout=60))
    assert "run both-sides, bound to the variable both_sides" in result.text
    assert "combined by linear: left (0.7), right (0.3)" in result.result["text/plain"]
    assert kernel.value("both_sides.status, both_sides.spec['combined']['names']") == "('finished', ['left', 'right'])"
    assert "both-sides" in kernel.run("%runs").shown[-1]["text/plain"]
    grid = good(kernel.run("%%compare --task tickets\n- run: left\n- run: right\n- run: both-sides\n", timeout=120))
    assert "run: both-sides" in grid.shown[-1]["text/plain"]
    failed = kernel.run("%combine 7up left nobody --weights much")
    assert failed.status == "error"
    for words in ("3 problems", "'7up' cannot be a name", "there is no run 'nobody'", "weights: numbers such as [0.7, 0.3]"):
        assert words in "\n".join(failed.lines)
    assert "nothing is named" in kernel.run("%combine").lines[0]
    assert "to be of 1 runs" in kernel.run("%combine one left").lines[0]


def test_the_panel_is_drawn_before_the_run_has_begun(kernel: Kernel) -> None:
    result = good(kernel.run(f"x = %finetune lora {SHORT}", timeout=120))
    drawn = next(item for item in result.messages if item["msg_type"] == "display_data" and PANEL in item["content"]["data"])
    began = float(kernel.value("next(event.time for event in x.events() if event.type == 'started')"))
    assert drawn["header"]["date"].timestamp() < began
    assert kernel.value("x.status") == "finished"


@pytest.mark.parametrize(
    "code",
    [
        f"for seed in (1, 2):\n    run = %finetune lora {SHORT}\nok = run.status == 'finished'",
        f"def train():\n    run = %finetune lora {SHORT}\n    return run\nok = train().status == 'finished'",
        f"%%time\nrun = %finetune lora {SHORT}\nok = run.status == 'finished'",
        f"%%capture caught\nrun = %finetune lora {SHORT}\nok = run.status == 'finished'",
        f"%time run = get_ipython().run_line_magic('finetune', 'lora {SHORT}')\nok = run.status == 'finished'",
        f"%finetune lora {SHORT}\nok = _ is not None",
        f"async def train():\n    run = %finetune lora {SHORT}\n    return run\nok = (await train()).status == 'finished'",
        f"%%finetune lora {SHORT}\n",
    ],
    ids=["loop", "def", "time", "capture", "line time", "before more code", "async def", "no body"],
)
def test_it_runs_wherever_a_magic_can_stand(kernel: Kernel, code: str) -> None:
    kernel.run("ok = True")
    good(kernel.run(code, timeout=120))
    assert kernel.value("ok") == "True"


def test_an_awaited_cell_leaves_the_kernel_free_for_messages(kernel: Kernel) -> None:
    kernel.run(
        "import nbtune\nget_ipython().kernel.comm_manager.register_target('stop', lambda comm, opened: [run.stop() for run in nbtune.runs()])"
    )
    message = kernel.client.session.msg("comm_open", {"comm_id": "stop-1", "target_name": "stop", "data": {}})
    result = good(
        kernel.run(
            f"x = %finetune lora {LONG}", during=once("display_data", contains=PANEL, act=lambda: kernel.client.shell_channel.send(message))
        )
    )
    assert result.seconds < 30
    assert kernel.value("x.status") == "stopped"


def test_one_interrupt_stops_gracefully_with_a_checkpoint(kernel: Kernel) -> None:
    timer = threading.Timer(1.5, kernel.interrupt)
    result = good(kernel.run(f"x = %finetune lora {LONG}", during=once("display_data", timer.start, contains=PANEL)))
    assert "stopping after this step" in result.text
    assert kernel.value("x.status, len(list((x.folder / 'checkpoints').iterdir())) > 0") == "('stopped', True)"
    good(kernel.run("after = 1"))


def test_a_second_interrupt_leaves_the_cell_at_once(kernel: Kernel) -> None:
    def twice() -> None:
        kernel.interrupt()
        time.sleep(0.5)
        kernel.interrupt()

    slow = "import time\nfrom nbtune.training.loop import Training\nquick = Training._save\n"
    good(kernel.run(slow + "Training._save = lambda self: (time.sleep(3), quick(self))[1]"))
    result = kernel.run(f"%finetune lora {LONG}", during=once("display_data", threading.Timer(2, twice).start, contains=PANEL), timeout=60)
    assert result.ename == "KeyboardInterrupt"
    assert result.status == "error"
    good(kernel.run("Training._save = quick"))
    good(
        kernel.run(
            "import nbtune, time\nwhile any(run.status in ('queued', 'running') for run in nbtune.runs()): time.sleep(0.1)", timeout=60
        )
    )


def test_a_run_interrupted_while_torch_is_imported_never_begins(workplace: Path) -> None:
    fresh = Kernel(workplace)
    try:
        good(fresh.run("%load_ext nbtune\n%task fresh --data rows.csv --prompt '{{ text }}' --completion ' {{ team }}'"))
        result = good(
            fresh.run(
                "%finetune lora --task fresh --model tiny --num_train_epochs 1000 --as early",
                during=once("display_data", fresh.interrupt, contains="widget-view"),
            )
        )
        assert "stopping before it begins" in result.text
        assert fresh.value("early.status, len(early.history)") == "('stopped', 0)"
    finally:
        fresh.close()


def test_interrupting_python_works_as_before_afterwards(kernel: Kernel) -> None:
    began = time.monotonic()
    result = kernel.run("import time\nprint('on')\ntime.sleep(20)", during=once("stream", kernel.interrupt, contains="on"))
    assert result.ename == "KeyboardInterrupt"
    assert time.monotonic() - began < 15


def test_in_the_background_the_cell_returns_and_later_ones_wait(kernel: Kernel) -> None:
    good(kernel.run(f"%finetune lora {SHORT} --background --as later\nlater.pause()"))
    good(kernel.run("import time\nwhile later.status != 'paused': time.sleep(0.05)\nlater.resume()"))
    good(kernel.run("%%compare --task tickets --floor false --as grid\n- zero-shot\n- run: later\n", timeout=120))
    assert kernel.value("later.status, list(grid.table['approach'])") == "('finished', ['zero-shot', 'run: later'])"


def test_a_failed_run_fails_its_cell(kernel: Kernel) -> None:
    result = kernel.run("%finetune lora --task tickets --model tiny --layers_to_transform [7]")
    assert result.status == "error"
    assert len(result.lines) == 2


def test_the_grid_is_shown_once_and_returned(kernel: Kernel) -> None:
    result = good(kernel.run("%%compare --task tickets --model tiny\n- zero-shot\n- few-shot: {k: 4, select: balanced}\n", timeout=120))
    assert result.result is None
    assert "few-shot" in result.shown[-1]["text/plain"]
    assert "<table" in result.shown[-1]["text/html"]
    assert kernel.value("len(_.table)") == "4", "the floors stand last"


def test_functions_ensembles_and_runs_of_the_notebook_are_columns_by_their_names(kernel: Kernel) -> None:
    good(kernel.run("def by_rule(prompt):\n    return 'shipping' if 'arrived' in prompt or 'late' in prompt else 'billing'\n"))
    good(kernel.run(f"%%finetune lora {SHORT} --save_steps 1 --as noted\n", timeout=120))
    body = (
        "- by_rule\n- ensemble: [zero-shot, by_rule, run: noted]\n- run: {run: noted, strength: 0.5}\n"
        "- run: {run: noted, step: 1}\n- run: {run: noted, prompt: {few-shot: {k: 2}}}\n"
    )
    result = good(kernel.run(f"%%compare --task tickets --floor false --as mixed\n{body}", timeout=120))
    names = [
        *("function: by_rule", "ensemble (vote): zero-shot + function: by_rule + run: noted"),
        *("run: noted, strength 0.5", "run: noted, step 1", "run: noted, few-shot: k=2"),
    ]
    assert kernel.value("list(mixed.table['approach'])") == str(names)
    assert kernel.value("float(mixed.table['accuracy'][0]), mixed.warnings") == "(1.0, [])"
    assert all(name in result.shown[-1]["text/plain"] for name in names)
    asked = good(kernel.run("%%prompt --task tickets --model tiny\nfunction: by_rule\nfloor: majority\n", timeout=60))
    assert "function: by_rule: accuracy 1.000" in asked.shown[-1]["text/plain"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("- function: nobody", "there is no function 'nobody' in this notebook"),
        ("- function: by_ruel", "did you mean 'by_rule'?"),
        ("- ensemble: [zero-shot]", "a list of two approaches or more"),
        ("- ensemble: [zero-shot, few-shoot]", "no approach 'few-shoot'"),
        ("- ensemble: [zero-shot, run: nobody]", "there is no run 'nobody'"),
        ("- run: {run: nobody, strength: 0.5}", "there is no run 'nobody'"),
        ("- run: {run: nobody, strength: 5}", "strength must be at most 2"),
        ("- floor: median", "by cannot be 'median'"),
        ("- few-shot: {select: fixed, rows: nothing}", "rows must be a list"),
        ("- zero-shot: {calibrate: 3}", "calibrate must be true or false"),
    ],
)
def test_what_is_wrong_with_an_approach_is_one_line_with_its_line_in_the_cell(kernel: Kernel, body: str, said: str) -> None:
    good(kernel.run("def by_rule(prompt):\n    return 'billing'\n"))
    result = kernel.run(f"%%compare --task tickets --model tiny\n- zero-shot\n{body}\n")
    assert result.status == "error"
    assert len(result.lines) <= 2
    assert said in " ".join(result.lines)
    assert "line 3: " in result.lines[0]


def test_a_function_that_fails_leaves_the_rest_of_the_grid(kernel: Kernel) -> None:
    good(kernel.run("def careless(prompt):\n    return {}[prompt]\n"))
    result = good(kernel.run("%%compare --task tickets --model tiny --as kept_grid\n- zero-shot\n- careless\n", timeout=60))
    assert "row 0: it raised KeyError" in result.shown[-1]["text/plain"]
    assert kernel.value("list(kept_grid.table['approach'])[0]") == "zero-shot"


def test_help_tells_of_every_approach_and_of_what_each_understands(kernel: Kernel) -> None:
    for magic in ("compare", "prompt"):
        text = good(kernel.run(f"%%{magic} --help\n")).text
        for name in ("zero-shot", "few-shot", "ensemble", "function", "floor", "run", "--scoring", "byte", "--decoding"):
            assert name in text
        text = good(kernel.run(f"%%{magic} few-shot --help\n")).text
        for words in ("select: random|balanced|similar|diverse|fixed", "seeds: NUMBER", "calibrate: true|false"):
            assert words in text


def test_a_learning_curve_is_asked_for_on_the_line_and_its_runs_are_kept(kernel: Kernel) -> None:
    good(kernel.run(f"%finetune lora {SHORT} --as learner"))
    result = good(kernel.run("%%compare --task tickets --train-sizes 6,12 --as curved\n- zero-shot\n- run: learner\n", timeout=120))
    assert "6 rows" in result.shown[-1]["text/plain"]
    assert "The learning curve as a table" in result.shown[-1]["text/html"]
    assert kernel.value("sorted(set(curved.curve['train_rows']))[:3]") == "[0, 6, 12]"
    assert kernel.value("learner.name + '_6_rows' in [run.name for run in __import__('nbtune').runs()]") == "True"


def test_inputs_are_compared_by_eye(kernel: Kernel) -> None:
    code = "c = get_ipython().run_cell_magic('compare', '--task tickets --model tiny', 'approaches: [zero-shot]\\ninputs: [where is my parcel]\\n')"
    good(kernel.run(code, timeout=120))
    assert kernel.value("c.metric, len(c.outputs)") == "(None, 1)"


def test_prompting_is_shown_with_its_score_on_dev_rows(kernel: Kernel) -> None:
    result = good(kernel.run("%%prompt --task tickets --model tiny --as shots\nfew-shot: {k: 4}\n", timeout=120))
    assert "few-shot: k=4: accuracy" in result.shown[-1]["text/plain"]
    assert "dev rows" in result.shown[-1]["text/plain"]
    assert kernel.value("shots.predict([{'text': 'the parcel is late'}])[0] in ('billing', 'shipping')") == "True"


def test_a_prompt_search_shows_its_templates_and_takes_a_function_of_the_notebook_as_proposer(kernel: Kernel) -> None:
    kernel.run("def rewrite(request):\n    return 'Name the team <b>now</b>.'\n")
    body = "prompt-search:\n  proposer: rewrite\n  rounds: 1\n  proposals: 1\n  max_rows: 8\n"
    result = good(kernel.run(f"%%prompt --task tickets --model tiny --as searched\n{body}", timeout=120))
    html = result.shown[-1]["text/html"]
    assert "Templates by their score, the winner first" in html
    assert "Name the team &lt;b&gt;now" in html
    assert "<b>now" not in html
    assert "Best of 2 templates" in result.shown[-1]["text/plain"]
    assert kernel.value("len(searched.table), searched.template in set(searched.table['template'])") == "(2, True)"


def test_what_models_and_data_say_is_escaped(kernel: Kernel) -> None:
    kernel.run("rows = [{'text': f'<img src=x onerror=alert({n})> & {n}', 'team': '<b>a</b>' if n % 2 else 'c'} for n in range(40)]")
    good(kernel.run("%%task risky --data rows\nprompt: '{{ text }}'\ncompletion: ' {{ team }}'\n"))
    result = good(kernel.run("%%prompt --task risky --model tiny\nzero-shot:\n", timeout=120))
    html = result.shown[-1]["text/html"]
    assert "&lt;img" in html
    assert "<img" not in html
    assert "<b>a" not in html


def test_objects_are_bound_by_name(kernel: Kernel) -> None:
    kernel.run("import hashlib, pandas, nbtune\nwords = [hashlib.md5(bytes([n])).hexdigest() for n in range(60)]")
    kernel.run("frame = pandas.DataFrame({'text': words, 'team': ['billing', 'shipping'] * 30})\ntrain, test = frame[:40], frame[40:]")
    kernel.run("def strict(output, expected):\n    return float(output == expected)\nmine = nbtune.models.load('tiny')")
    good(kernel.run("%%task bound --metric strict\ndata: {train: train, test: test}\nprompt: '{{ text }}'\ncompletion: ' {{ team }}'\n"))
    assert kernel.value("len(bound.test), bound.metric.name") == "(20, 'strict')"
    good(kernel.run("x = %finetune lora --task bound --model mine --max_steps 1", timeout=120))
    assert kernel.value("x.status") == "finished"


def test_flags_win_over_the_body_whatever_name_they_go_by(kernel: Kernel) -> None:
    good(kernel.run(f"%%finetune lora {SHORT} --lora_r 3 --as flagged\nr: 9\nlearning_rate: 1e-4\n", timeout=120))
    assert kernel.value("flagged.spec['r'], flagged.spec['learning_rate']") == "(3, 0.0001)"


def test_the_runs_are_listed(kernel: Kernel) -> None:
    good(kernel.run(f"%finetune lora {SHORT} --as listed", timeout=120))
    bundle = good(kernel.run("%runs")).shown[-1]
    head, *rows = bundle["text/plain"].split("\n")
    assert head.split() == ["id", "name", "method", "model", "task", "status", "steps", "metric", "seconds"]
    assert any("listed" in row and "finished" in row for row in rows)
    assert "<table" in bundle["text/html"]


def test_a_run_is_stopped_by_name(kernel: Kernel) -> None:
    good(kernel.run(f"%finetune lora {LONG} --background --as long"))
    good(kernel.run("%runs stop long"))
    good(kernel.run("long.wait()", timeout=60))
    assert kernel.value("long.status") == "stopped"
    assert "is not running" in good(kernel.run("%runs stop long")).text


def test_what_waits_is_shown_moved_and_cancelled(kernel: Kernel) -> None:
    for name in ("ahead", "second", "third"):
        good(kernel.run(f"%finetune lora {LONG} --background --as {name}"))
    good(kernel.run("import time\nwhile len(ahead.events()) < 9: time.sleep(0.05)"))
    moved = good(kernel.run("%runs move third 1")).shown[-1]
    assert [line.split()[:2] for line in moved["text/plain"].splitlines()[-2:]] == [["1", "third"], ["2", "second"]]
    assert "<table" in moved["text/html"]
    assert "waits no more" in good(kernel.run("%runs cancel third")).text
    good(kernel.run("third.wait()"))
    assert kernel.value("ahead.status, second.status, third.status") == "('running', 'queued', 'stopped')"
    assert "RunError: run ahead does not wait: it is running" in kernel.run("%runs cancel ahead").lines[0]
    assert "%runs move NAME_OR_ID PLACE" in kernel.run("%runs move second").lines[1]
    good(kernel.run("second.stop(); ahead.stop(); ahead.wait(); second.wait()", timeout=60))
    assert "nothing is at work" in good(kernel.run("%runs queue")).shown[-1]["text/plain"]


def test_the_form_trains_below_its_own_cell(kernel: Kernel) -> None:
    form = good(kernel.run("%tune lora --task tickets --model tiny --r 4 --max_steps 2 --as tuned"))
    assert any(PANEL in bundle for bundle in form.shown)
    press = "import ipywidgets\n[w.click() for w in list(ipywidgets.widgets.widget._instances.values()) if getattr(w, 'description', '') == 'Run']"
    place = form.messages[-1]["parent_header"]["msg_id"]
    seen: list[str] = []

    def during(message: dict[str, Any]) -> None:
        if message["msg_type"] == "display_data":
            seen.append(message["parent_header"]["msg_id"])

    good(kernel.run(press, during=during))
    assert seen == [place]
    good(kernel.run("tuned.wait()", timeout=60))
    assert kernel.value("tuned.spec['r'], tuned.status, tuned.name") == "(4, 'finished', 'tuned')"


@pytest.mark.parametrize(
    "name", ["task", "instructions", "doctor", "methods", "finetune", "prompt", "compare", "tune", "strength", "combine", "runs"]
)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_tells_of_every_option(kernel: Kernel, name: str, flag: str) -> None:
    text = good(kernel.run(f"%%{name} {flag}\n")).text
    assert f"%{name}" in text
    assert "--help" in text
    for option in {"finetune": ("--learning_rate", "also --lr", "at most 1", "default 0.001"), "task": ("--data", "needed")}.get(name, ()):
        assert option in text


def test_help_of_a_method_has_its_options(kernel: Kernel) -> None:
    text = good(kernel.run("%finetune lora -h")).text
    assert "--target_modules" in text
    assert "--target_modules" not in kernel.run("%finetune -h").text


def test_a_question_mark_shows_the_same_help(kernel: Kernel) -> None:
    kernel.client.execute("%%finetune?")
    payload = kernel.client.get_shell_msg(timeout=20)["content"]["payload"]
    assert "--learning_rate" in payload[0]["data"]["text/plain"]


def test_completion_answers_a_front_end(kernel: Kernel) -> None:
    assert kernel.complete("%%finetune lora\nlr_sch") == (["lr_scheduler_type: "], "lr_sch")
    assert kernel.complete("%%finetune lora --task tick")[0] == ["tickets"]
    assert kernel.complete("%%finetune lora\nr: ")[0] == []
    assert "nf4" in kernel.complete("%%finetune lora\nquantization: ")[0]


def test_a_run_is_paused_resumed_stopped_and_carried_on_from_its_checkpoint(kernel: Kernel) -> None:
    good(kernel.run("%finetune lora --task tickets --model tiny --max_steps 100 --eval_steps 100 --background --as carried"))
    wait = "import time\nwhile carried.status != {!r}: time.sleep(0.05)"
    good(kernel.run("import time\nwhile not len(carried.history): time.sleep(0.02)\n%runs pause carried"))
    good(kernel.run(wait.format("paused")))
    assert "goes on" in good(kernel.run("%runs resume carried")).text
    good(kernel.run("%runs stop carried\ncarried.wait()"))
    assert kernel.value("carried.status") == "stopped"
    good(kernel.run("%runs resume carried", timeout=120))
    good(kernel.run("carried.wait()", timeout=120))
    assert kernel.value("carried.status, len(carried.history['loss'].dropna())") == "('finished', 100)"
