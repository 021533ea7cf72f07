"""Every bad input, through a real kernel: two clean lines, an error reply so that Run All stops, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.magics.kernel import Kernel

pytestmark = pytest.mark.kernel

TASK = "%%task other --data {data}\nprompt: '{prompt}'\ncompletion: '{completion}'\n"


def task(data: str = "rows.csv", prompt: str = "{{ text }}", completion: str = " {{ team }}") -> str:
    return TASK.format(data=data, prompt=prompt, completion=completion)


CASES = {
    "unknown method": ("%%finetune lorra --task tickets\nr: 8", "SpecError: line 1: there is no method 'lorra'", "did you mean 'lora'?"),
    "no method": ("%finetune", "SpecError: line 1: no method is named", "one of: lora"),
    "unknown key": (
        "%%finetune lora --task tickets\nlerning_rate: 1e-3",
        "line 2: unknown option 'lerning_rate'",
        "did you mean 'learning_rate'?",
    ),
    "unknown flag": ("%finetune lora --task tickets --batchsize 4", "line 1: unknown flag --batchsize", "did you mean 'batch_size'?"),
    "unknown model": (
        "%finetune lora --task tickets --model smollm2-135",
        "there is no model 'smollm2-135'",
        "did you mean 'smollm2-135m'?",
    ),
    "no memory": ("%finetune lora --task tickets --model giant", "ModelError: model 'giant' needs about", "nf4"),
    "an interrupted download": ("%finetune lora --task tickets --model half", "are damaged, or their download was interrupted", "again"),
    "unknown task": ("%finetune lora --task tickts --model tiny", "line 1: unknown task 'tickts'", "did you mean 'tickets'?"),
    "unknown approach": (
        "%%compare --task tickets\n- zero-shoot",
        "line 2: there is no approach 'zero-shoot'",
        "did you mean 'zero-shot'?",
    ),
    "unknown prompting": (
        "%%prompt --task tickets\nfew-shoot: {k: 2}",
        "line 2: unknown approach or option 'few-shoot'",
        "did you mean 'few-shot'?",
    ),
    "unknown run": ("%%compare --task tickets\n- zero-shot\n- run: nothing", "line 3: there is no run 'nothing'", "there is none yet"),
    "unknown run to stop": ("%runs stop nothing", "RunError: there is no run 'nothing'", "there is none yet"),
    "unknown task to look at": ("%doctor tickts --model tiny", "SpecError: line 1: unknown task 'tickts'", "did you mean 'tickets'?"),
    "two tasks to look at": ("%doctor tickets --task other", "line 1: the line names two tasks, 'tickets' and 'other'", "keep one"),
    "a length below all": ("%doctor tickets --max_length 2", "line 1: max_length must be at least 8, not 2", "most tokens"),
    "unknown column": (task(prompt="{{ txt }}"), "DataError: prompt: the template reads column 'txt'", "did you mean 'text'?"),
    "unknown metric": (task().replace("rows.csv", "rows.csv --metric acuracy"), "unknown metric 'acuracy'", "did you mean 'accuracy'?"),
    "out of range": ("%%finetune lora --task tickets --model tiny\nr: 0", "line 2: r must be at least 1, not 0", "rank"),
    "not a number": ("%%finetune lora --task tickets --model tiny\nr: many", "line 2: r must be a whole number, not 'many'", "rank"),
    "not a choice": (
        "%finetune lora --task tickets --model tiny --quantization nf5",
        "quantization cannot be 'nf5'",
        "did you mean 'nf4'?",
    ),
    "no such layer": ("%finetune lora --task tickets --model tiny --target_modules q_prj", "the model has no module 'q_prj'", "q_proj"),
    "malformed YAML": ("%%finetune lora --task tickets\nr: [1\nlr: 2", "line 2: [ is opened and not closed", "close it"),
    "a list for a mapping": ("%%finetune lora --task tickets\n- r: 1", "line 2: the body is a list", "key: value"),
    "duplicate keys": ("%%finetune lora --task tickets\nr: 1\nr: 2", "line 3: 'r' is given twice", "keep one"),
    "unquoted braces": ("%%task other --data rows.csv\nprompt: {{ text }}\ncompletion: x", "line 2: {{ stands without quotes", "use |"),
    "a comment in a prompt": (
        "%%task other --data rows.csv\nprompt: Ticket #{{ text }}\ncompletion: x",
        "would be taken for a comment",
        "use |",
    ),
    "no file": (task("nope.csv"), "DataError: there is no file nope.csv", "did you mean"),
    "empty file": (task("empty.csv"), "DataError: empty.csv is empty", "saved"),
    "one row": (task("one.csv"), "DataError: 1 row cannot be divided", "more rows"),
    "attributes": (task(prompt="{{ text.__class__ }}"), "reads an attribute", "a template may hold"),
    "rows that render empty": (task(prompt="{{ text if false }}"), "DataError", ""),
    "empty completions": (task("gaps.csv"), "the completion is empty or white space only", "fill"),
    "white space": (task(completion="  "), "the completion is empty or white space only", "fill"),
    "labels never trained": (task("{train: rows.csv, test: strange.csv}"), "legal", ""),
    "a bad name": ("%finetune lora --task tickets --model tiny --as 2nd", "line 1: '2nd' cannot be a name", "beginning with a letter"),
    "an open quote": ("%finetune lora --task 'tickets", "a quote is opened and never closed", "close it"),
    "a curve of one point": ("%%compare --task tickets --model tiny --train-sizes 20\n- zero-shot", "a curve has two points", "25,50,100"),
    "sizes that are words": (
        "%%compare --task tickets --model tiny --train-sizes 20,many\n- zero-shot",
        "line 1: train_sizes",
        "25,50,100",
    ),
    "too many shots": ("%%compare --task tickets --model tiny\n- few-shot: {k: 200}", "training rows", "at most"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_two_clean_lines_and_leaves_nothing(kernel: Kernel, workplace: Path, name: str) -> None:
    code, message, hint = CASES[name]
    result = kernel.run(code)
    assert result.status == "error"
    assert len(result.lines) == 2, result.lines
    assert message in result.lines[0]
    assert result.lines[1].startswith("  → ")
    assert hint in result.lines[1]
    left = [path.read_text() for path in workplace.glob(".nbtune/runs/*/events.jsonl")]
    assert not left
    assert not list(workplace.glob(".nbtune/runs/*"))
    assert kernel.value("'other' in globals()") == "False"


def test_all_mistakes_come_at_once_with_their_lines(kernel: Kernel) -> None:
    result = kernel.run("%%finetune lora --task tickts --model nope --rr 3\nr: 0\nlerning_rate: 1\nlr: -1")
    assert [line.strip().partition(":")[0] for line in result.lines] == [
        "SpecError",
        "line 1",
        "line 1",
        "line 1",
        "line 2",
        "line 3",
        "line 4",
    ]


def test_run_all_stops_there(kernel: Kernel) -> None:
    # The wait: a kernel aborts what stands in its queue when a cell fails, so the next cell must have reached it by then.
    kernel.client.execute("import time; time.sleep(1)\n%finetune lorra")
    after = kernel.client.execute("reached = True")
    replies = [kernel.client.get_shell_msg(timeout=20) for _ in range(2)]
    states = {reply["parent_header"]["msg_id"]: reply["content"]["status"] for reply in replies}
    assert states[after] in ("aborted", "error")
    kernel.run("0")
    assert kernel.value("'reached' in globals()") == "False"
