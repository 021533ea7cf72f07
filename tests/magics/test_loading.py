"""`%load_ext nbtune` is quick, imports nothing heavy, and says nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

SCRIPT = """
import sys
import nbtune_magics.warmup
nbtune_magics.warmup.REPLY_FIRST = 1000
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
shell.run_line_magic("load_ext", "nbtune")
heavy = ("torch", "transformers", "peft", "numpy", "pandas", "pyarrow", "scipy", "jinja2", "ipywidgets", "anywidget", "plotly")
print([name for name in heavy if name in sys.modules])
"""

COMPLETE = """
import sys
import nbtune_magics.warmup
nbtune_magics.warmup.REPLY_FIRST = 1000
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
shell.run_line_magic("load_ext", "nbtune")
with provisionalcompleter():
    for cell in ("%%finetune lo", "%%finetune lora\\nquantization: ", "%%compare\\n- few-shot: {se", "%%compare\\n- run: ", "%finetune lora --model s"):
        list(shell.Completer.completions(cell, len(cell)))
shell.run_cell("%finetune lora -h")
print([name for name in ("torch", "transformers", "peft", "pandas") if name in sys.modules])
"""

QUIET = """
import nbtune_magics.warmup
nbtune_magics.warmup.REPLY_FIRST = 0
nbtune_magics.warmup.warm_up()
nbtune_magics.warmup.warmed()
import sys
assert "bitsandbytes" in sys.modules
assert "transformers" not in sys.modules
"""


def output(script: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def test_loading_imports_nothing_heavy() -> None:
    """Which is what keeps it under 300 ms: `make bench B=startup` has the time."""
    assert output(SCRIPT)[0].strip() == "[]"


def test_completion_and_help_need_no_torch() -> None:
    assert output(COMPLETE)[0].strip().endswith("[]")


def test_the_warm_up_says_nothing() -> None:
    assert output(QUIET) == ("", "")


BESIDE = """
import nbtune_magics.warmup, time
nbtune_magics.warmup.REPLY_FIRST = 0
nbtune_magics.warmup.warm_up()
time.sleep({pause})
from transformers import LlamaConfig
import peft
print(LlamaConfig().model_type)
"""


@pytest.mark.parametrize("pause", [0, 0.3, 1.0])
def test_imports_of_the_user_s_own_meanwhile_are_whole(pause: float) -> None:
    assert output(BESIDE.format(pause=pause)) == ("llama\n", "")


PART_FIRST = """
import builtins, sys, time
import nbtune_magics.warmup as warmup
sys.path.insert(0, {folder!r})
warmup.REPLY_FIRST, warmup.MODULES, warmup._PACKAGES = 0, ("package",), {{"package"}}
warmup.warm_up()
while "package" not in sys.modules:
    time.sleep(0.01)
import package.part
print(package.part.value)
warmup.warmed()
print(builtins.__import__)
"""


def test_a_part_that_is_imported_while_its_package_is_being_imported_behind_it_is_whole(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("import time\ntime.sleep(0.5)\nname = 'whole'\nfrom .part import value\n")
    (package / "part.py").write_text("from package import name\nvalue = name\n")
    assert output(PART_FIRST.format(folder=str(tmp_path))) == ("whole\n<built-in function __import__>\n", "")
