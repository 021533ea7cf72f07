"""A kernel with the magics loaded, a tiny model, data and a task: what the tests of real cells stand on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.magics.kernel import Kernel
from tests.tiny import tiny_llama

PROBLEMS = {"billing": ("the invoice is wrong", "I was charged twice"), "shipping": ("the parcel is late", "nothing has arrived")}
TEMPLATES = "prompt: |\n  Which team?\n  {{ text }}\n  Team:\ncompletion: ' {{ team }}'\n"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """The notebook's folder."""
    folder = tmp_path_factory.mktemp("notebook")
    rows = [f"{texts[number % 2]} number {number},{team}" for number in range(30) for team, texts in PROBLEMS.items()]
    (folder / "rows.csv").write_text("\n".join(["text,team", *rows]) + "\n")
    (folder / "empty.csv").write_text("")
    (folder / "one.csv").write_text("text,team\na,b\n")
    (folder / "strange.csv").write_text("text,team\nnew,legal\nodd,legal\n")
    (folder / "gaps.csv").write_text("text,team\n" + "".join(f"t{number},\n" for number in range(20)))
    (folder / "tiny").symlink_to(tiny)
    giant, half = shutil.copytree(tiny, folder / "giant"), shutil.copytree(tiny, folder / "half")
    config = json.loads((giant / "config.json").read_text())
    config |= {"hidden_size": 65536, "intermediate_size": 262144, "num_hidden_layers": 96, "head_dim": 512, "num_attention_heads": 128}
    (giant / "config.json").write_text(json.dumps(config))
    weights = half / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return folder


@pytest.fixture(scope="module")
def kernel(workplace: Path) -> Iterator[Kernel]:
    """One kernel a module: starting one and importing torch in it takes seconds."""
    before = os.environ.pop("NBTUNE_HOME", None)
    kernel = Kernel(workplace)
    if before is not None:
        os.environ["NBTUNE_HOME"] = before
    try:
        assert kernel.run("%load_ext nbtune").status == "ok"
        assert kernel.run(f"%%task tickets --data rows.csv\n{TEMPLATES}").status == "ok"
        yield kernel
    finally:
        kernel.close()
