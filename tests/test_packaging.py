"""What is built and imported: the wheel holds what it must, names are what modules say, and starting is light."""

import importlib
import json
import pkgutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import nbtune
import nbtune_magics
import nbtune_widgets

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "pandas", "pyarrow", "sklearn", "scipy", "plotly", "datasets", "lancedb", "bs4"}
FRONT = {"IPython", "ipywidgets", "anywidget", "plotly", "nbtune_magics", "nbtune_widgets"}
MODULES = sorted(
    name
    for package in (nbtune, nbtune_magics, nbtune_widgets)
    for name in (package.__name__, *(info.name for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")))
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_three_packages_and_nothing_else(wheel):
    assert {name.split("/")[0] for name in wheel.namelist()} == {
        "nbtune",
        "nbtune_magics",
        "nbtune_widgets",
        f"nbtune-{nbtune.__version__}.dist-info",
    }


def test_the_wheel_holds_what_is_not_python(wheel):
    names = set(wheel.namelist())
    for package in ("nbtune", "nbtune_magics", "nbtune_widgets"):
        assert f"{package}/py.typed" in names
    assert {"nbtune/demos/tickets.csv", "nbtune/demos/dates.jsonl"} <= names
    for ending in (".js", ".css"):
        built = [name for name in names if name.startswith("nbtune_widgets/static/") and name.endswith(ending)]
        assert built
        assert all(wheel.getinfo(name).file_size > 1000 for name in built)


def test_the_wheel_holds_every_module_of_the_checkout(wheel):
    names = set(wheel.namelist())
    for folder in (ROOT, ROOT / "magics", ROOT / "widgets"):
        for package in folder.glob("nbtune*"):
            assert {path.relative_to(folder).as_posix() for path in package.rglob("*.py")} <= names


def test_the_wheel_says_its_licence_and_python(wheel):
    metadata = Parser().parsestr(wheel.read(f"nbtune-{nbtune.__version__}.dist-info/METADATA").decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Version"] == nbtune.__version__
    assert b"Apache License" in wheel.read(f"nbtune-{nbtune.__version__}.dist-info/licenses/LICENSE")


def test_every_view_that_is_registered_can_be_loaded():
    points = importlib.metadata.entry_points(group="nbtune.views")
    assert {point.name for point in points} == {
        "show_run",
        "run_figure",
        "run_mimebundle",
        "comparison_mimebundle",
        "comparison_page",
        "comparison_markdown",
        "comparison_figure",
        "search_mimebundle",
        "task_mimebundle",
        "doctor_mimebundle",
        "index_mimebundle",
        "passages_mimebundle",
    }
    for point in points:
        assert callable(point.load())


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_offers(name):
    module = importlib.import_module(name)
    assert module.__doc__, "a module's docstring says why it exists"
    assert len(module.__all__) == len(set(module.__all__)), "a name stands twice in __all__"
    for public in module.__all__:
        assert hasattr(module, public), f"{name}.__all__ names {public}, which it has not"


def imported_after(code: str) -> set[str]:
    """Top-level modules that a fresh Python has imported after running `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_nbtune_imports_nothing_heavy_and_no_front_end():
    assert not imported_after("import nbtune") & (HEAVY | FRONT)


def test_parsing_a_spec_imports_nothing_heavy():
    code = "from nbtune.spec import FinetuneSpec; FinetuneSpec.build({'task': 'tickets', 'lr': 1e-4})"
    assert not imported_after(code) & (HEAVY | FRONT)


def test_loading_the_extension_imports_nothing_heavy_before_it_returns():
    # The warm-up starts behind it, after the cell; what counts is what stood in the way of the cell.
    code = """
import sys, threading
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "nbtune")
loaded = set(sys.modules)
import os, json
print(json.dumps(sorted({name.partition('.')[0] for name in loaded})), flush=True)
os._exit(0)
"""
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout.splitlines()[-1])) & {"torch", "transformers", "peft", "bitsandbytes"}


def test_notebooks_are_committed_without_outputs():
    notebooks = list((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs"), f"{path.name} holds outputs: clear them before committing"
            assert cell.get("execution_count") is None, f"{path.name} holds execution counts: clear them before committing"
