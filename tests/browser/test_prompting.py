"""Asking a model, as a person sees it in JupyterLab: what it writes stands on the page while it writes."""

import re

import pytest

from tests.tiny import tiny_llama

TASK = """%%task stories --data demo:dates --metric chrf
prompt: "{{ text }}"
completion: " {{ date }}\""""
ASK = """%%prompt --task stories --model {tiny} --dtype float32 --num_rows 20
few-shot: {{k: 1, seeds: 20}}
decoding: {{max_new_tokens: 200, stop: [no text of a random model]}}"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


def test_what_is_written_is_seen_growing_and_an_interrupt_ends_it(open_notebook, tiny):
    notebook = open_notebook("%load_ext nbtune", TASK, ASK.format(tiny=tiny))
    notebook.run_all()
    line = notebook.output(2).locator("p", has_text=re.compile(r"dev rows, writing '"))
    line.wait_for(timeout=60_000)
    first = line.text_content()
    notebook.wait_until(lambda: line.count() and line.text_content() != first, 30, "nothing more was written", index=2)
    assert notebook.is_running(2)
    notebook.screenshot("prompting-writing")
    notebook.command("notebook:interrupt-kernel")
    notebook.wait_for_cell(2, seconds=10)
    assert notebook.output(2).locator("p", has_text="writing").count() == 0
    working = "any(thread.name.startswith('nbtune-cell') for thread in __import__('threading').enumerate())"
    notebook.wait_until(lambda: notebook.execute(f"print({working})").strip() == "False", 5, "the model goes on writing")
    assert notebook.problems == []
