"""A model that cannot be had is told in two lines, and nothing is left behind."""

import gc
import json
import shutil
import sys
from pathlib import Path

import pytest

import nbtune
from nbtune.errors import ModelError
from nbtune.models.catalogue import folder_of
from nbtune.models.loading import load_weights, source_of
from tests.tiny import tiny_llama


@pytest.mark.parametrize(
    ("name", "match", "hint"),
    [
        ("smolm2-135m", "no model 'smolm2-135m'", "did you mean 'smollm2-135m'"),
        ("./nowhere", "no catalogue name and no folder", "known"),
        ("", "a model is a name", "catalogue"),
        (3, "not int", "catalogue"),
    ],
)
def test_a_name_that_names_nothing_is_answered_with_what_there_is(name: object, match: str, hint: str) -> None:
    with pytest.raises(ModelError, match=match) as error:
        source_of(name)
    assert hint in error.value.hint


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        source_of(tmp_path)


def test_a_hub_id_without_a_hub_says_so() -> None:
    with pytest.raises(ModelError, match=r"not on this machine, and the hub cannot be reached"):
        nbtune.models.load("someone/some-model")


def test_an_interrupted_download_is_told_from_a_wrong_name(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ModelError, match=r"damaged, or their download was interrupted"):
        nbtune.models.load(folder)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no weights as safetensors"):
        nbtune.models.load(folder)


def test_code_of_the_models_own_is_never_run(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "surprise", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(ModelError, match=r"needs code of its own|could not be loaded"):
        nbtune.models.load(folder)


def test_a_model_larger_than_the_memory_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 65536, "intermediate_size": 262144, "num_hidden_layers": 96, "head_dim": 512, "num_attention_heads": 128}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"needs about .* GB as .*has .* GB free") as error:
        nbtune.models.load(folder)
    assert "nf4" in error.value.hint


@pytest.mark.real_model
def test_a_packaged_model_is_written_out_once_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    done = folder_of("smollm2-135m")
    before = (done / "model.safetensors").stat().st_mtime_ns
    assert folder_of("smollm2-135m") == done
    assert (done / "model.safetensors").stat().st_mtime_ns == before
    assert not list(done.parent.glob(".part-*"))
    monkeypatch.setenv("NBTUNE_CACHE", str(tmp_path))
    shutil.copytree(done, tmp_path / "models" / done.name)
    loaded = load_weights(
        source_of("smollm2-135m"), dtype=__import__("torch").bfloat16, quantization=None, device=__import__("torch").device("cpu")
    )
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 134_515_008
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is mapped")
def test_a_quantized_model_lets_go_of_the_file_it_was_read_from(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    whole = nbtune.models.load(folder, dtype="float32", device="cpu")
    assert str(folder) in Path("/proc/self/maps").read_text()
    del whole
    quantized = nbtune.models.load(folder, dtype="float32", quantization="int8", device="cpu")
    gc.collect()
    assert quantized.model.get_input_embeddings().weight.is_floating_point()
    assert str(folder) not in Path("/proc/self/maps").read_text()
