"""The frozen part is computed once: the same losses as without, a file that is whole or not there, and a model left as it was found."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nbtune.data.batches import collate, rows_of_step
from nbtune.data.encoding import Encoded, Encoder, encode_rows
from nbtune.errors import ModelError, RunError, SpecError
from nbtune.methods import get
from nbtune.models.base import Base
from nbtune.models.families import blocks, final_norms
from nbtune.models.loading import LoadedModel, source_of
from nbtune.models.shared import own_base
from nbtune.objectives import get as objective_of
from nbtune.training import activations
from nbtune.training.activations import ActivationCache, open_cache
from nbtune.training.frozen import lowest_trained_block
from tests.examples import ticket_task
from tests.tiny import tiny_llama

SFT = objective_of("sft")
TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "last block": ("last-blocks", {"num_blocks": 1}),
    "head": ("head", {}),
    "lora on the last block": ("lora", {"layers_to_transform": [1], "r": 4}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Encoded]:
    return encode_rows(Encoder(source_of(folder).tokenizer), ticket_task().train, max_length=256)[0]


def base_with(folder: Path, method: str, dtype: str = "float32", **options: Any) -> Base:
    base = own_base(source_of(folder), dtype=dtype, quantization=None, device="cpu")
    chosen = get(method)
    chosen.attach(base, chosen.spec.build(options), "it")
    return base


def opened(base: Base, rows: list[Encoded], folder: Path, **changes: Any) -> ActivationCache:
    cache, _ = open_cache(base, "it", rows, **{"objective": SFT, "packed": True, "folder": folder, "wanted": True, **changes})
    assert cache is not None
    return cache


Loss = Callable[[Any, list[int]], torch.Tensor]


def plain(base: Base, rows: list[Encoded], *, packed: bool) -> Loss:
    return lambda model, chosen: SFT.loss(model, collate([rows[row] for row in chosen], packed=packed, pad_id=0))[0]


def kept(cache: ActivationCache) -> Loss:
    return lambda model, chosen: cache.loss(model, SFT, chosen)[0]


def trained(base: Base, rows: list[Encoded], loss_of: Loss, steps: int = 20) -> list[float]:
    optimizer = torch.optim.AdamW(base.trained("it").values(), lr=1e-3)
    losses = []
    for step in range(steps):
        chosen = rows_of_step(len(rows), 8, 0, step)
        with base.lease("it", training=True) as model:
            loss = loss_of(model, chosen) / sum(rows[row].num_trained for row in chosen)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("name", TRAINED)
def test_losses_over_twenty_steps_equal_those_without(folder: Path, rows: list[Encoded], tmp_path: Path, name: str, packed: bool) -> None:
    method, options = TRAINED[name]
    without, having = base_with(folder, method, **options), base_with(folder, method, **options)
    cache = opened(having, rows, tmp_path, packed=packed)
    expected = trained(without, rows, plain(without, rows, packed=packed))
    assert expected[-1] < expected[0] - 0.1
    assert trained(having, rows, kept(cache)) == pytest.approx(expected, abs=1e-5)
    for key, parameter in having.trained("it").items():
        assert torch.allclose(parameter, without.trained("it")[key], atol=1e-4)


def test_losses_in_bfloat16_are_those_without_but_for_rounding(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    without, having = (base_with(folder, "last-blocks", "bfloat16", num_blocks=1) for _ in range(2))
    cache = opened(having, rows, tmp_path)
    assert cache.num_bytes == sum(len(row.ids) for row in rows) * 64 * 2
    expected = trained(without, rows, plain(without, rows, packed=True), steps=6)
    assert trained(having, rows, kept(cache), steps=6) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("method", "options", "lowest"),
    [
        ("full", {}, None),  # the embeddings are trained
        ("head", {}, 2),
        ("last-blocks", {"num_blocks": 1}, 1),
        ("last-blocks", {"num_blocks": 2}, 0),
        ("lora", {}, 0),
        ("lora", {"layers_to_transform": [1]}, 1),
    ],
)
def test_the_lowest_trained_block_is_told_by_the_parameters(folder: Path, method: str, options: dict[str, Any], lowest: int | None) -> None:
    assert lowest_trained_block(base_with(folder, method, **options), "it") == lowest


def test_a_head_that_shares_the_embeddings_is_below_everything_and_a_norm_alone_above(folder: Path) -> None:
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    assert lowest_trained_block(base, "it") is None
    base.train_only(final_norms(base.model))
    assert lowest_trained_block(base, "it") == 2
    base.train_only([base.model.get_output_embeddings()])
    assert lowest_trained_block(base, "it") is None


@pytest.mark.parametrize("name", TRAINED)
def test_backward_never_runs_below_the_lowest_trained_block(folder: Path, rows: list[Encoded], tmp_path: Path, name: str) -> None:
    method, options = TRAINED[name]
    base = base_with(folder, method, **options)
    cache = opened(base, rows, tmp_path)
    seen: list[torch.Tensor] = []
    last_frozen = blocks(base.model)[cache.depth - 1]
    hook = last_frozen.register_forward_hook(lambda _module, _args, output: seen.append(output))
    with base.lease("it", training=True) as model:
        for loss_of in (plain(base, rows, packed=True), kept(cache)):
            loss = loss_of(model, [0, 1, 2])
            assert loss.requires_grad
    hook.remove()
    assert [states.requires_grad for states in seen] == [False, False]
    assert [states.grad_fn for states in seen] == [None, None]


def test_frozen_blocks_do_not_run_and_are_in_eval_mode_while_the_others_train(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    base = base_with(folder, "last-blocks", num_blocks=1)
    cache = opened(base, rows, tmp_path)
    ran: list[str] = []
    for key, module in base.model.named_modules():
        if key.endswith("q_proj"):
            module.register_forward_hook(lambda *_, key=key: ran.append(key))
    with base.lease("it", training=True) as model, cache.applied([3, 1]):
        assert [block.training for block in blocks(base.model)] == [False, True]
        SFT.loss(model, cache.batch([3, 1]))
    assert ran == ["model.layers.1.self_attn.q_proj"]


def test_where_only_the_head_is_trained_the_trained_positions_alone_are_kept_and_no_block_runs(
    folder: Path, rows: list[Encoded], tmp_path: Path
) -> None:
    base = base_with(folder, "head")
    cache = opened(base, rows, tmp_path)
    assert cache.num_bytes == sum(row.num_trained for row in rows) * 64 * 4
    batch = cache.batch([5, 0])
    assert batch.input_ids.shape == (1, rows[5].num_trained + rows[0].num_trained)
    assert batch.num_tokens == len(rows[5].ids) + len(rows[0].ids)


def test_gradient_checkpointing_computes_the_same_gradients(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    base = base_with(folder, "last-blocks", num_blocks=1)
    cache = opened(base, rows, tmp_path)
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            base.model.activation_checkpointing_enable({"use_reentrant": False})
        with base.lease("it", training=True) as model:
            kept(cache)(model, [0, 4, 2]).backward()
        found.append([parameter.grad.clone() for parameter in base.trained("it").values()])
        base.model.zero_grad()
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_model_is_whole_after_use_and_after_an_error_and_others_adapters_give_the_same(
    folder: Path, rows: list[Encoded], tmp_path: Path
) -> None:
    base = base_with(folder, "lora", r=4)  # "it" on every block, of somebody else
    get("lora").attach(base, get("lora").spec.build({"layers_to_transform": [1]}), "mine")
    with torch.no_grad():
        for key, parameter in base.trained("it").items():
            if "lora_B" in key:
                parameter.fill_(0.01)
    layers = list(blocks(base.model))
    ids = torch.tensor([rows[0].ids])

    def logits(adapter: str | None) -> torch.Tensor:
        with base.lease(adapter) as model:
            return model(input_ids=ids, use_cache=False).logits.clone()

    before = [logits(adapter) for adapter in (None, "it", "mine")]
    assert not torch.equal(before[0], before[1])
    cache, _ = open_cache(base, "mine", rows, objective=SFT, packed=True, folder=tmp_path, wanted=True)
    assert cache is not None
    with base.lease("mine", training=True) as model:
        cached = kept(cache)(model, [0, 1])
        through_peft = kept(cache)(base.peft, [0, 1])
        assert torch.equal(cached, through_peft)
        assert torch.allclose(cached, plain(base, rows, packed=True)(model, [0, 1]), rtol=1e-6)
        with pytest.raises(ZeroDivisionError), cache.applied([0]):
            raise ZeroDivisionError
    assert all(one is other for one, other in zip(blocks(base.model), layers, strict=True))
    assert not any("forward" in vars(layer) for layer in layers)
    assert all(torch.equal(one, logits(adapter)) for one, adapter in zip(before, (None, "it", "mine"), strict=True))
    cache.close()


def test_a_rebuild_gives_the_same_bytes_whatever_was_trained_since(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    base = base_with(folder, "last-blocks", num_blocks=1)
    cache = opened(base, rows, tmp_path)
    first = (tmp_path / "activations" / "states.bin").read_bytes()
    trained(base, rows, kept(cache), steps=5)
    cache.close()
    opened(base, rows, tmp_path)
    assert (tmp_path / "activations" / "states.bin").read_bytes() == first


def test_a_whole_cache_is_taken_up_again_by_a_run_that_carries_on(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    opened(base_with(folder, "last-blocks", num_blocks=1), rows, tmp_path)
    path = tmp_path / "activations" / "states.bin"
    stamp = path.stat().st_mtime_ns, path.stat().st_ino
    base = base_with(folder, "last-blocks", num_blocks=1)
    cache, text = open_cache(base, "it", rows, objective=SFT, packed=True, folder=tmp_path, limit=0)  # what lies there needs no room
    assert cache is not None
    assert "are taken up again" in text
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == stamp


def cut_short(folder: Path) -> None:
    path = folder / "states.bin"
    path.write_bytes(path.read_bytes()[:-100])


def without_index(folder: Path) -> None:
    (folder / "index.json").unlink()


def with_a_torn_index(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(path.read_text()[:40])


def of_other_rows(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rows": "0" * 64}))


def of_other_weights(folder: Path) -> None:
    path = folder / "states.bin"
    path.write_bytes(bytes(path.stat().st_size))


def never_renamed(folder: Path) -> None:
    folder.rename(folder.parent / ".part-activations")
    cut_short(folder.parent / ".part-activations")


@pytest.mark.parametrize("damage", [cut_short, without_index, with_a_torn_index, of_other_rows, of_other_weights, never_renamed])
def test_what_is_half_written_or_of_something_else_is_computed_anew(
    folder: Path, rows: list[Encoded], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    base = base_with(folder, "last-blocks", num_blocks=1)
    opened(base, rows, tmp_path)
    place = tmp_path / "activations"
    whole = {path.name: path.read_bytes() for path in place.iterdir()}
    damage(place)
    cache, text = open_cache(base, "it", rows, objective=SFT, packed=True, folder=tmp_path)
    assert cache is not None
    assert "are computed once" in text
    assert {path.name: path.read_bytes() for path in place.iterdir()} == whole
    assert [path.name for path in tmp_path.iterdir()] == ["activations"]


def test_nothing_is_left_behind_when_the_filling_is_ended(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(base_with(folder, "last-blocks", num_blocks=1), rows, tmp_path, tell=stop)
    assert told[0][1] == len(rows)
    assert list(tmp_path.iterdir()) == []


def test_others_get_their_turn_on_the_base_between_two_forwards_of_the_filling(
    folder: Path, rows: list[Encoded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "GROUP_TOKENS", 100)
    base = base_with(folder, "last-blocks", num_blocks=1)
    turns: list[int] = []
    counts: list[int] = []

    def somebody_else() -> None:
        with base.lease():
            turns.append(len(counts))

    def tell(done: int, _total: int) -> None:
        counts.append(done)
        thread = threading.Thread(target=somebody_else, daemon=True)
        thread.start()
        thread.join(10)
        assert len(turns) == len(counts)

    opened(base, rows, tmp_path, tell=tell)
    assert len(turns) > 5
    assert counts == sorted(set(counts))
    assert counts[-1] == len(rows)


def test_a_closed_cache_is_gone_from_the_disk_and_says_so(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    base = base_with(folder, "head")
    cache = opened(base, rows, tmp_path)
    assert (tmp_path / "activations").is_dir()
    cache.close()
    cache.close()
    assert list(tmp_path.iterdir()) == []
    with base.lease("it", training=True) as model, pytest.raises(RunError, match="is closed"):
        cache.loss(model, SFT, [0])


def test_too_large_a_cache_is_left_out_by_auto_and_refused_with_the_figures_by_true(
    folder: Path, rows: list[Encoded], tmp_path: Path
) -> None:
    base = base_with(folder, "last-blocks", num_blocks=1)
    cache, text = open_cache(base, "it", rows, objective=SFT, packed=True, folder=tmp_path, limit=1000)
    assert cache is None
    assert text.startswith("activation_cache is off: the states of ")
    with pytest.raises(SpecError, match=r"would take 0\.000\d+ GB, and it may take 1e-06 GB"):
        opened(base, rows, tmp_path, limit=1000)
    assert list(tmp_path.iterdir()) == []


def test_the_limit_is_a_fifth_of_the_free_disk_and_never_more_than_eight_gibibytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, expected in ((10_000, 2000), (10**15, 8 * 2**30)):
        monkeypatch.setattr("shutil.disk_usage", lambda _path, free=free: SimpleNamespace(free=free))
        assert activations.disk_limit(tmp_path) == expected


def test_a_full_disk_turns_auto_off_and_is_told_by_true(
    folder: Path, rows: list[Encoded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    base = base_with(folder, "last-blocks", num_blocks=1)
    cache, text = open_cache(base, "it", rows, objective=SFT, packed=True, folder=tmp_path)
    assert (cache, text) == (None, "activation_cache is off: the states could not be written: No space left on device")
    with pytest.raises(RunError, match="No space left on device"):
        opened(base, rows, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("trained", "changes"),
    [
        (("lora", {}), {}),
        (("full", {}), {}),
        (TRAINED["last block"], {"epochs": 1.0}),
        (TRAINED["last block"], {"noise": True}),
        (TRAINED["last block"], {"wanted": False}),
    ],
)
def test_auto_takes_none_where_nothing_is_saved_or_noise_would_be_lost(
    folder: Path, rows: list[Encoded], tmp_path: Path, trained: tuple[str, dict[str, Any]], changes: dict[str, Any]
) -> None:
    base = base_with(folder, trained[0], **trained[1])
    said = {"objective": SFT, "packed": True, "folder": tmp_path, **changes}
    assert open_cache(base, "it", rows, **said) == (None, "")
    assert list(tmp_path.iterdir()) == []


def test_true_refuses_where_there_is_nothing_frozen_or_noise_would_be_lost(folder: Path, rows: list[Encoded], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nothing is frozen below what is trained"):
        opened(base_with(folder, "lora"), rows, tmp_path)
    with pytest.raises(SpecError, match="noise on the embeddings is wanted"):
        opened(base_with(folder, "head"), rows, tmp_path, noise=True)


def test_auto_takes_none_where_dropout_below_would_be_lost_but_another_s_adapter_does_not_count(
    folder: Path, rows: list[Encoded], tmp_path: Path
) -> None:
    base = base_with(folder, "lora", layers_to_transform=[1])
    get("lora").attach(base, get("lora").spec.build({"lora_dropout": 0.5}), "other")
    cache, _ = open_cache(base, "it", rows, objective=SFT, packed=True, folder=tmp_path)
    assert cache is not None
    cache.close()
    blocks(base.model)[0].self_attn.attention_dropout = 0.1
    assert open_cache(base, "it", rows, objective=SFT, packed=True, folder=tmp_path) == (None, "")


def a_base(model: Any, folder: Path) -> Base:
    return Base(LoadedModel(model.eval().requires_grad_(False), source_of(folder).tokenizer, model.config, "made here"))


def made(kind: str, folder: Path) -> Base:
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    windows = {"sliding_window": 8} if kind in {"gemma2", "gemma3_text", "mistral"} else {}
    if kind == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 4, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = CONFIG_MAPPING[kind](
        vocab_size=len(source_of(folder).tokenizer), pad_token_id=0, bos_token_id=None, eos_token_id=0, **sizes, **windows
    )
    torch.manual_seed(0)
    return a_base(AutoModelForCausalLM.from_config(config), folder)


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "gemma", "gemma2", "gemma3_text", "granite", "gpt2"])
def test_families_that_scale_embeddings_or_alternate_attention_give_the_plain_losses(
    folder: Path, rows: list[Encoded], tmp_path: Path, kind: str
) -> None:
    for num_blocks in (2, 0):
        base = made(kind, folder)
        if num_blocks:
            get("last-blocks").attach(base, get("last-blocks").spec.build({"num_blocks": num_blocks}), "it")
        else:
            get("head").attach(base, get("head").spec.build({}), "it")
        cache = opened(base, rows, tmp_path, packed=False)
        with base.lease("it") as model:
            for chosen in ([0, 7, 3], [11]):
                expected = float(plain(base, rows, packed=False)(model, chosen))
                assert float(kept(cache)(model, chosen)) == pytest.approx(expected, rel=1e-5)
        cache.close()


@pytest.fixture
def with_a_side_way(folder: Path) -> Iterator[Base]:
    """A family whose top takes more than the states of the block below: the first block's output is added before the norm."""
    base = base_with(folder, "last-blocks", num_blocks=1)
    side: list[torch.Tensor] = []
    blocks(base.model)[0].mlp.register_forward_hook(lambda _module, _args, output: side.append(output))
    final_norms(base.model)[0].register_forward_pre_hook(lambda _module, args: (args[0] + side.pop() if side else args[0],))
    return base


def test_a_family_that_does_not_go_on_from_kept_states_is_found_out(with_a_side_way: Base, rows: list[Encoded], tmp_path: Path) -> None:
    cache, text = open_cache(with_a_side_way, "it", rows, objective=SFT, packed=True, folder=tmp_path)
    assert cache is None
    assert "does not train on from kept states: the loss of a first batch moves by" in text
    with pytest.raises(ModelError, match="does not train on from kept states"):
        opened(with_a_side_way, rows, tmp_path)
    assert list(tmp_path.iterdir()) == []
