"""Adapters of several runs as one: peft's numbers, the sum of the updates by hand, and a run like any other."""

import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import nbtune
from nbtune.errors import NbtuneError, RunError, SpecError
from nbtune.models.combining import How, prunes
from tests.examples import ticket_task
from tests.tiny import tiny_encoder, tiny_llama

PROMPT = "Ticket: the parcel never came\nTeam:"
FAST: dict[str, Any] = {"dtype": "float32", "max_steps": 4, "learning_rate": 1e-2, "num_samples": 0}
FILE = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, nbtune.Run]:
    """Runs that all tests here read and none changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBTUNE_HOME", str(tmp_path_factory.mktemp("home")))

        def train(name: str, method: str = "lora", **options: Any) -> nbtune.Run:
            return nbtune.finetune(method, name=name, **{"task": ticket_task(), "model": folder, **FAST, **options}).wait()

        return {
            "one": train("one", r=4, lora_alpha=6, seed=1),
            "two": train("two", r=4, seed=2),
            "wide": train("wide", "rslora", r=6, seed=3, target_modules=["q_proj", "up_proj"]),
            "top": train("top", r=4, seed=4, layers_to_transform=[1]),
            "ia3": train("ia3", "ia3", seed=5),
            "other ia3": train("other_ia3", "ia3", seed=6, learning_rate=5e-2),
            "dora": train("dora", "dora", r=4),
            "loha": train("loha", "loha", r=4),
            "full": train("full", "full", learning_rate=1e-3),
        }


def _logits(model: Any, run: nbtune.Run) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([run.engine().encoder.prompt_ids(PROMPT)])).logits[0, -1]
    return logits


def _updates(run: nbtune.Run, target: Path) -> dict[str, torch.Tensor]:
    """{layer's weight: what a LoRA adds to it}, by its files alone."""
    tensors, config = load_file(run.save(target) / FILE), run.spec
    scaling = config["lora_alpha"] / config["r"] ** (0.5 if config["use_rslora"] else 1)
    layers = [key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")]
    return {
        key.removeprefix("base_model.model.") + ".weight": scaling * tensors[f"{key}.lora_B.weight"] @ tensors[f"{key}.lora_A.weight"]
        for key in layers
    }


@pytest.mark.parametrize("how", get_args(How))
def test_logits_are_those_of_peft_s_own_combination(trained: dict[str, nbtune.Run], folder: Path, tmp_path: Path, how: str) -> None:
    one, two = trained["one"], trained["two"]
    weights, density = [0.7, -0.4], 0.3 if prunes(how) else None
    if how.startswith("dare"):
        density = 1 - 1e-7  # what is left out at random is left out by nobody
    run = nbtune.combine([one, two], weights, how, density=density)
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), one.save(tmp_path / "1"), "one")
    peft.load_adapter(two.save(tmp_path / "2"), "two")
    peft.base_model.add_weighted_adapter(["one", "two"], weights, "both", combination_type=how, density=density)
    peft.set_adapter("both")
    wanted = _logits(peft.eval(), run)
    torch.testing.assert_close(run.engine().logits(PROMPT), wanted, rtol=0, atol=1e-5)
    assert float((wanted - one.engine().logits(PROMPT)).abs().max()) > 1e-3


@pytest.mark.parametrize(("how", "rank"), [("cat", None), ("svd", 14)])
def test_the_sum_is_exact_whatever_ranks_scalings_and_layers_the_runs_have(
    trained: dict[str, nbtune.Run], folder: Path, tmp_path: Path, how: str, rank: int | None
) -> None:
    parents, weights = [trained["one"], trained["wide"], trained["top"]], [1.0, 0.5, 2.0]
    run = nbtune.combine(parents, weights, how, svd_rank=rank)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    parameters = dict(plain.named_parameters())
    with torch.no_grad():
        for number, (parent, weight) in enumerate(zip(parents, weights, strict=True)):
            for key, update in _updates(parent, tmp_path / f"{number}").items():
                parameters[key] += weight * update
    assert run.spec["r"] == 14
    assert len(_updates(run, tmp_path / "run")) == 14
    torch.testing.assert_close(run.engine().logits(PROMPT), _logits(plain, run), rtol=0, atol=1e-5)


def test_a_run_that_began_at_the_weights_is_added_by_what_it_learnt(trained: dict[str, nbtune.Run], folder: Path, tmp_path: Path) -> None:
    began = nbtune.finetune("pissa", task=ticket_task(), model=folder, name="began", **{**FAST, "r": 4}).wait()
    run = nbtune.combine([trained["one"], began], [1.0, 0.5])
    assert run.spec["r"] == 4 + 2 * 4  # its file has what was learnt and, taken from it, where it began
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    parameters = dict(plain.named_parameters())
    with torch.no_grad():
        for weight, parent in ((1.0, trained["one"]), (0.5, began)):
            opened = PeftModel.from_pretrained(
                AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), parent.save(tmp_path / parent.name)
            )
            changed = dict(opened.merge_and_unload().named_parameters())
            original = dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())
            for key, value in changed.items():
                parameters[key] += weight * (value - original[key])
    torch.testing.assert_close(run.engine().logits(PROMPT), _logits(plain, run), rtol=0, atol=1e-5)


def test_svd_of_less_rank_is_the_nearest_there_is(trained: dict[str, nbtune.Run], tmp_path: Path) -> None:
    both = [trained["one"], trained["two"]]
    whole = _updates(nbtune.combine(both, [1, 1]), tmp_path / "whole")
    for key, update in _updates(nbtune.combine(both, [1, 1], "svd", svd_rank=3), tmp_path / "less").items():
        left_out = torch.linalg.svdvals(whole[key])[3:].norm()
        assert float((whole[key] - update).norm()) == pytest.approx(float(left_out), rel=1e-3)


def test_dare_keeps_a_random_part_scaled_up_and_the_same_for_the_same_seed(trained: dict[str, nbtune.Run], tmp_path: Path) -> None:
    both = [trained["two"], trained["one"]]
    before = torch.get_rng_state()
    runs = [nbtune.combine(both, [1, 0], "dare_linear", density=0.25, seed=seed) for seed in (0, 0, 1)]
    first, same, other = (load_file(run.save(tmp_path / f"{number}") / FILE) for number, run in enumerate(runs))
    assert torch.equal(torch.get_rng_state(), before), "torch's own generator is a training's"
    whole = load_file(trained["two"].save(tmp_path / "whole") / FILE)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    for key, tensor in first.items():
        kept = tensor != 0
        torch.testing.assert_close(tensor[kept], 4 * 2**0.5 * whole[key][kept])  # the run's scaling of 2, half of it in each matrix
    parts = torch.cat([(tensor != 0).float().flatten() for tensor in first.values()])
    assert float(parts.mean()) == pytest.approx(0.25, abs=0.03)


def test_what_is_interrupted_leaves_no_run(trained: dict[str, nbtune.Run]) -> None:
    said: list[str] = []

    def interrupt(text: str) -> None:
        said.append(text)
        if len(said) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nbtune.combine([trained["one"], trained["two"]], how="ties_svd", report=interrupt)
    assert said == [f"ties_svd: {done} of 14 layers" for done in range(3)]
    assert nbtune.runs() == []


def test_weights_left_out_are_the_mean_and_1_each_for_ties(trained: dict[str, nbtune.Run], tmp_path: Path) -> None:
    one, two = trained["one"], trained["two"]
    mean = _updates(nbtune.combine([one, two]), tmp_path / "mean")
    for key, update in _updates(one, tmp_path / "one").items():
        torch.testing.assert_close(mean[key], (update + _updates(two, tmp_path / "two")[key]) / 2)
        shutil.rmtree(tmp_path / "two")
    for how in ("ties", "dare_ties_svd"):
        told = nbtune.combine([one, two], how=how).spec["combined"]
        assert (told["weights"], told["density"]) == ([1.0, 1.0], 0.5)
    assert nbtune.combine([one, two]).spec["combined"]["how"] == "cat"


def test_vectors_of_ia3_are_added_with_their_weights(trained: dict[str, nbtune.Run], tmp_path: Path) -> None:
    both = [trained["ia3"], trained["other ia3"]]
    files = [load_file(run.save(tmp_path / f"{number}") / FILE) for number, run in enumerate([nbtune.combine(both, [0.25, 0.75]), *both])]
    for key, tensor in files[0].items():
        torch.testing.assert_close(tensor, 0.25 * files[1][key] + 0.75 * files[2][key])
    assert nbtune.combine(both).predict(["no parcel"])[0] in ticket_task().labels


def test_it_is_a_run_like_any_other_and_nothing_is_loaded_for_it(
    trained: dict[str, nbtune.Run], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBTUNE_HOME", str(trained["one"].folder.parent.parent))
    nbtune.models.unload()
    with monkeypatch.context() as patch:
        patch.setattr("nbtune.models.loading.load_weights", lambda *_, **__: pytest.fail("weights were read"))
        run = nbtune.combine(["one", "two"], [1, 1], name="both")
    assert (run.name, run.method, run.status, run.history.empty) == ("both", "lora", "finished", True)
    assert run.id in [each.id for each in nbtune.runs()]
    before = run.engine().logits(PROMPT)
    nbtune.models.unload()
    again = nbtune.open("both")
    assert torch.equal(again.engine().logits(PROMPT), before)
    assert again.predict(["no parcel"])[0] in ticket_task().labels
    assert len(again.generate([PROMPT], max_new_tokens=3)) == 1
    sizes = sum(parameter.numel() for parameter in again.engine().base.trained(run.id).values())
    assert sizes == run.summary["trainable_parameters"]
    parents = [trained[name].summary for name in ("one", "two")]
    assert run.summary["num_tokens"] == sum(each["num_tokens"] for each in parents) > 0
    assert run.summary["seconds"] > sum(each["seconds"] for each in parents)
    assert run.summary["peak_memory_bytes"] == max(each["peak_memory_bytes"] for each in parents)
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), run.save(tmp_path / "adapter"))
    merged = AutoModelForCausalLM.from_pretrained(run.save(tmp_path / "merged", merge=True), dtype=torch.float32)
    for model in (peft.eval(), merged.eval()):
        torch.testing.assert_close(_logits(model, run), before, rtol=0, atol=1e-5)
    grid = nbtune.compare([{"run": "one"}, {"run": "two"}, {"run": "both"}], task=ticket_task(), floor=False)
    assert list(grid.table["approach"]) == ["run: one", "run: two", "run: both"]
    assert grid.warnings == []
    assert "combined by cat: one (1), two (1)" in run._repr_mimebundle_()["text/plain"]


def test_a_fork_trains_it_on_from_where_it_is(trained: dict[str, nbtune.Run], tmp_path: Path) -> None:
    run = nbtune.combine([trained["one"], trained["two"]], [1, 1])
    still = run.fork(max_steps=1, learning_rate=1e-30).wait()
    torch.testing.assert_close(still.engine().logits(PROMPT), run.engine().logits(PROMPT), rtol=0, atol=1e-6)
    assert still.spec["combined"] == run.spec["combined"]
    on = run.fork(max_steps=6, learning_rate=1e-3).wait()
    assert on.history["loss"].iloc[-1] < on.history["loss"].iloc[0]
    with pytest.raises(RunError, match="is finished"):
        run.resume()


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"quantization": "nf4"}, {"quantization": "int8"}])
def test_on_a_base_of_few_bits_the_sum_is_as_exact(folder: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    said = {"task": ticket_task(), "model": folder, **FAST, "dtype": None, **options}
    runs = [nbtune.finetune("lora", r=4, seed=seed, **said).wait() for seed in (1, 2)]
    run = nbtune.combine(runs, [1, 1])
    found, *parts = (_updates(each, tmp_path / f"{number}") for number, each in enumerate([run, *runs]))
    for key, update in found.items():
        torch.testing.assert_close(update, parts[0][key] + parts[1][key], rtol=0, atol=1e-6)
    assert torch.isfinite(run.engine().logits(PROMPT)).all()
    assert nbtune.compare([run], task=ticket_task()).warnings == []


def test_a_grid_says_where_any_of_the_runs_learnt_other_rows(trained: dict[str, nbtune.Run], folder: Path) -> None:
    other = nbtune.finetune("lora", r=4, task=ticket_task(30, name="fewer"), model=folder, **FAST).wait()
    run = nbtune.combine([trained["one"], other])
    again = nbtune.combine([trained["two"], run], name="again")
    grid = nbtune.compare([again.fork(max_steps=1, name="on"), again], task=ticket_task())
    for name in ("on", "again"):
        assert [warning for warning in grid.warnings if warning.startswith(f"run: {name} was trained on task 'fewer' with other rows")]


@pytest.mark.parametrize(
    ("names", "options", "error", "match"),
    [
        (["one"], {}, SpecError, "two runs or more, not 1"),
        (["one", "one"], {}, SpecError, "a run is there twice"),
        (["one", "two"], {"weights": [1]}, SpecError, "1 weights for 2 runs"),
        (["one", "two"], {"weights": ["much", 1]}, SpecError, "weights: numbers such as"),
        (["one", "two"], {"weights": [float("nan"), 1]}, SpecError, "weights: numbers such as"),
        (["one", "two"], {"how": "tie"}, SpecError, "how cannot be 'tie'"),
        (["one", "two"], {"how": "linear", "density": 0.5}, SpecError, "density is what ties, dare"),
        (["one", "two"], {"how": "ties", "density": 1.0}, SpecError, "density must be less than 1"),
        (["one", "two"], {"svd_rank": 3}, SpecError, "svd_rank is the rank of what svd gives, and how is cat"),
        (["one", "two"], {"how": "svd", "svd_rank": 33}, SpecError, "combined: r is 33, and the weight of .*k_proj is 32 x 64"),
        (["one", "two"], {"name": "a b"}, RunError, "cannot be a name"),
        (["one", "wide"], {"how": "linear"}, SpecError, "adds matrices of one rank, and one has r 4, wide has r 6"),
        (["one", "dora"], {}, SpecError, "dora trained .*lora_magnitude_vector beside its lora adapter"),
        (["one", "loha"], {}, SpecError, "of method loha, of which there is no sum"),
        (["full", "one"], {}, SpecError, "of method full, of which there is no sum"),
        (["one", "ia3"], {}, SpecError, "of method lora and ia3 of ia3"),
        (["ia3", "other ia3"], {"how": "cat"}, SpecError, "how cannot be 'cat'"),
    ],
)
def test_what_cannot_be_combined_is_refused_with_what_can_and_leaves_no_run(
    trained: dict[str, nbtune.Run], names: list[str], options: dict[str, Any], error: type[NbtuneError], match: str
) -> None:
    with pytest.raises(error, match=match) as refused:
        nbtune.combine([trained[name] for name in names], **options)
    assert refused.value.hint
    assert nbtune.runs() == []


def test_runs_of_other_bases_with_heads_of_their_own_still_at_work_or_damaged_are_refused(folder: Path, tmp_path: Path) -> None:
    task = ticket_task()

    def train(name: str, **options: Any) -> nbtune.Run:
        return nbtune.finetune("lora", name=name, **{"task": task, "model": folder, **FAST, **options})

    one, other = train("one").wait(), train("other", model=tiny_llama(tmp_path / "other", seed=1)).wait()
    with pytest.raises(RunError, match=r"runs one and other are not of one base: .*/tiny.* in float32, and .*other in float32") as refused:
        nbtune.combine([one, other])
    assert refused.value.hint
    held = train("held", quantization="nf4").wait()
    with pytest.raises(RunError, match=r"in float32, and .* in nf4"):
        nbtune.combine([one, held])
    bert = tiny_encoder("bert", tmp_path / "bert")
    heads = [train(f"head{seed}", model=bert, objective="classification", seed=seed).wait() for seed in (1, 2)]
    with pytest.raises(SpecError, match=r"head1 trained classifier.* beside its lora adapter"):
        nbtune.combine(heads)
    bound = train("bound", model=nbtune.models.load(folder, dtype="float32")).wait()
    with pytest.raises(RunError, match="was an object of a notebook"):
        nbtune.combine([one, bound])
    busy = train("busy", max_steps=10_000, eval_steps=10**6)
    with pytest.raises(RunError, match=r"busy is .*: it can be combined when it is over"):
        nbtune.combine([one, busy])
    busy.stop()
    busy.wait()
    path = one.folder / "checkpoints" / "step-000004" / FILE
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(RunError, match="checkpoint step-000004 of run one is damaged"):
        nbtune.combine([one, busy])
    with pytest.raises(RunError, match="there is no run 'nobody'"):
        nbtune.combine(["one", "nobody"])
