"""Every method on models of an encoder and a decoder: counts, gradients, learning, the untouched base, saving, opening and writing."""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM

import nbtune
from nbtune.data.batches import collate
from nbtune.data.encoded import Encoded
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.errors import NbtuneError
from nbtune.estimate import counted
from nbtune.estimate.quantized import quantized_layers
from nbtune.inference import Decoding, Engine
from nbtune.methods import first_ids, get
from nbtune.models.base import Base
from nbtune.models.families import keys_values, stacks, sublayers
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from nbtune.models.skeleton import skeleton
from nbtune.objectives import encoder_for
from nbtune.objectives.sft import Sft
from tests.examples import tag_task, text_task, ticket_task
from tests.methods.support import EVERYWHERE, TRAINED, seq2seq_refusal
from tests.methods.test_methods import METHODS
from tests.tiny import SEQ2SEQ, tiny_seq2seq

CASES = [(name, method) for name in SEQ2SEQ for method in TRAINED if name == "t5" or method in EVERYWHERE or seq2seq_refusal(method, name)]
WORKING = [(name, method) for name, method in CASES if not seq2seq_refusal(method, name)]


@pytest.fixture(scope="module", params=SEQ2SEQ)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_seq2seq(request.param, tmp_path_factory.mktemp("seq2seq") / request.param)


def _on(method: str, folder: Path, **held: Any) -> tuple[Base, Encoder, list[Encoded]]:
    """A base with the method on, how its prompts are encoded, and some rows."""
    chosen, task = get(method), ticket_task()
    spec = chosen.spec.build(METHODS[method])
    base = own_base(source_of(folder), **{"dtype": "float32", "quantization": None, "device": "cpu", **held})
    chosen.attach(base, spec, "it")
    encoder = encoder_for(task, spec, base.tokenizer, base.config, first_ids(chosen, spec, base.config))
    return base, encoder, encode_rows(encoder, task.train[:6], max_length=128)[0]


def _adapter(base: Base) -> str | None:
    return "it" if base.has_adapter("it") else None


def _backward(base: Base, rows: list[Encoded], *, checkpointing: bool = False) -> float:
    with base.lease(_adapter(base), training=True, checkpointing=checkpointing) as model:
        loss, weight = Sft().loss(model, collate(rows, packed=False, pad_id=0))
        (loss / weight).backward()
    return float(loss.detach() / weight)


def _stir(base: Base) -> None:
    """Moves what is trained away from where it starts."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in base.trained("it").values():
            parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize(("family", "method"), CASES, indirect=["family"])
def test_what_is_trained_is_what_was_counted_it_learns_and_the_base_stays_as_it_was(family: Path, method: str) -> None:
    if reason := seq2seq_refusal(method, family.name):
        with pytest.raises(NbtuneError, match=reason) as refused:
            nbtune.estimate(method, model=family, **METHODS[method])
        assert refused.value.hint
        return
    expected = counted(method, get(method).spec.build(METHODS[method]), source_of(family))
    base, _, rows = _on(method, family)
    trained = base.trained("it")
    sizes = [sum(parameter.numel() for parameter in some) for some in (trained.values(), base.model.parameters())]
    assert tuple(sizes) == expected
    optimizer = torch.optim.AdamW(trained.values(), lr=METHODS[method].get("learning_rate", 1e-2))
    losses = [_backward(base, rows)]
    moved = {name for name, parameter in base.model.named_parameters() if parameter.grad is not None}
    assert moved == set(trained)
    for _ in range(5):
        optimizer.step()
        optimizer.zero_grad()
        losses.append(_backward(base, rows))
    assert losses[-1] < losses[0] - 0.005
    assert base.drift() == 0


@pytest.mark.parametrize(("family", "method"), WORKING, indirect=["family"])
def test_checkpointing_and_batches_change_no_number_and_what_is_written_is_transformers_own(family: Path, method: str) -> None:
    base, encoder, rows = _on(method, family)
    _stir(base)
    whole = _backward(base, rows)
    wanted = {name: parameter.grad.clone() for name, parameter in base.trained("it").items() if parameter.grad is not None}
    base.model.zero_grad()
    assert _backward(base, rows, checkpointing=True) == pytest.approx(whole, abs=1e-5)
    for name, parameter in base.trained("it").items():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-3, atol=1e-5)
    weights = [row.num_trained for row in rows]
    base.model.zero_grad()
    alone = [_backward(base, [row]) * weight for row, weight in zip(rows, weights, strict=True)]
    assert sum(alone) / sum(weights) == pytest.approx(whole, abs=1e-5)

    prompts = [item.prompt[:end] for item, end in zip(ticket_task().test, (30, 45, 60), strict=False)]
    texts = Engine(base, encoder, _adapter(base)).generate(prompts, Decoding(8))
    assert any(texts)
    for prompt, text in zip(prompts, texts, strict=True):
        ids = torch.tensor([encoder.prompt_ids(prompt)])
        with base.lease(_adapter(base)) as model:
            made = model.generate(input_ids=ids, max_new_tokens=8 + len(encoder.opening) - 1, do_sample=False)  # type: ignore[operator]
        assert text == base.tokenizer.decode(made[0], skip_special_tokens=True)


@pytest.mark.parametrize(("family", "method"), WORKING, indirect=["family"])
def test_what_is_saved_opens_on_a_fresh_base_and_merges_into_it(family: Path, tmp_path: Path, method: str) -> None:
    base, encoder, _ = _on(method, family)
    _stir(base)
    told = {
        "input_ids": torch.tensor([encoder.prompt_ids("a parcel is late")]),
        "decoder_input_ids": torch.tensor([[*encoder.opening, 9, 8]]),
    }
    with base.lease(_adapter(base)) as model:
        wanted = model(**told).logits
    base.state("it").write(tmp_path)
    fresh, _, _ = _on(method, family)
    fresh.restore("it", tmp_path)
    with fresh.lease(_adapter(fresh)) as model:
        assert torch.equal(model(**told).logits, wanted)
    if base.peft is None:
        return
    opened = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(family, dtype=torch.float32), tmp_path).eval()
    assert type(opened).__name__ == "PeftModelForSeq2SeqLM"
    with torch.no_grad():
        torch.testing.assert_close(opened(**told).logits, wanted, rtol=1e-5, atol=1e-5)
        if get(method).merges:
            torch.testing.assert_close(opened.merge_and_unload()(**told).logits, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "method"), WORKING, indirect=["family"])
def test_in_half_precision_everything_has_a_finite_gradient(family: Path, method: str) -> None:
    base, _, rows = _on(method, family, dtype="bfloat16")
    _backward(base, rows)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in base.trained("it").values())


def test_the_layers_counted_as_quantized_are_those_that_are(family: Path) -> None:
    counted_on = skeleton(source_of(family))
    layers = quantized_layers(counted_on)
    base = own_base(source_of(family), dtype="float32", quantization="nf4", device="cpu")
    held = {name for name, module in base.model.named_modules() if type(module).__name__ == "Linear4bit"}
    assert {name for name, module in counted_on.named_modules() if module in layers} == held


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("method", ["lora", "adapter", "prefix-tuning", "head"])
def test_on_a_quantized_base_it_learns_too(family: Path, method: str, quantization: str) -> None:
    base, _, rows = _on(method, family, quantization=quantization)
    optimizer = torch.optim.AdamW(base.trained("it").values(), lr=1e-2)
    losses = []
    for _ in range(6):
        losses.append(_backward(base, rows))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.005
    assert base.drift() == 0


@pytest.mark.parametrize(("kin", "changes"), [("t5", {"feed_forward_proj": "gated-gelu"}), ("mt5", {}), ("mbart", {}), ("pegasus", {})])
@pytest.mark.parametrize("method", ["adapter", "prefix-tuning"])
def test_the_kin_of_t5_and_bart_are_adapted_likewise(tmp_path: Path, kin: str, changes: dict[str, Any], method: str) -> None:
    folder = tiny_seq2seq(kin, tmp_path / kin, **changes)
    base, _, rows = _on(method, folder)
    _backward(base, rows)
    assert {name for name, parameter in base.model.named_parameters() if parameter.grad is not None} == set(base.trained("it"))
    expected = counted(method, get(method).spec.build(METHODS[method]), source_of(folder))[0]
    assert sum(parameter.numel() for parameter in base.trained("it").values()) == expected


@pytest.mark.parametrize("kin", ["t5", "umt5", "bart"])
def test_a_head_begins_at_the_model_s_own_answers_and_a_merged_one_ends_at_the_run_s(tmp_path: Path, kin: str) -> None:
    folder = tiny_seq2seq(kin, tmp_path / kin, **(SEQ2SEQ["t5"] if "t5" in kin else {}))
    told = {"input_ids": torch.arange(5, 25)[None], "decoder_input_ids": torch.arange(3, 9)[None]}
    with torch.no_grad():
        plain = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)(**told).logits
        base, _, _ = _on("head", folder)
        assert torch.equal(base.model(**told).logits, plain)
    run = nbtune.finetune("head", task=ticket_task(30), model=folder, dtype="float32", max_steps=3, num_samples=0).wait()
    with run.engine().base.lease() as model:
        wanted = model(**told).logits
    assert not torch.allclose(wanted, plain)
    run.save(tmp_path / "merged", merge=True)
    run.model.model.save_pretrained(tmp_path / "own")
    for written in ("merged", "own"):
        with torch.no_grad():
            opened = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / written, dtype=torch.float32)
            torch.testing.assert_close(opened(**told).logits, wanted)


def test_the_estimate_follows_both_stacks(family: Path) -> None:
    options = {"dtype": "float32", "device": "cpu", "r": 4}
    found = nbtune.estimate("lora", model=family, task=ticket_task(), **options)
    base, encoder, _ = _on("lora", family)
    rows, _ = encode_rows(encoder, ticket_task().train, max_length=512)
    places = [collate(pair, packed=False, pad_id=0).num_places for pair in itertools.combinations(rows, 2)]
    pair = nbtune.estimate("lora", model=family, task=ticket_task(), **options, per_device_train_batch_size=2)
    assert min(places) < pair.most_places <= max(places) < found.most_places
    assert found.total_parameters == sum(parameter.numel() for parameter in base.model.parameters())
    assert 0 < pair.activation_bytes < found.activation_bytes
    long = [nbtune.estimate("lora", model=family, max_length=length, **options).activation_bytes for length in (64, 128)]
    assert long[0] < long[1]


def test_adapters_stand_after_both_attentions_and_prefixes_where_a_prompt_is_attended_to(family: Path) -> None:
    base = own_base(source_of(family), dtype="float32", quantization=None, device="cpu")
    parts, found = sublayers(base.model), keys_values(base.model)
    cross = {"t5": "EncDecAttention", "bart": "encoder_attn"}[family.name]
    assert len(parts.attention_out) == 2 + 2 * 2
    assert sum(cross in name for name in parts.attention_out) == 2
    assert len(parts.feed_forward_out) == 4
    assert (parts.feed_forward is None) == (family.name == "bart")
    assert len(found.modules) == 2 * 2 + 2 * 2
    assert all("encoder." in name or cross in name for name in found.modules)
    for name in (*parts.attention_out, *parts.feed_forward_out, *found.modules):
        assert base.model.get_submodule(name).out_features == 64


def test_last_blocks_are_the_decoder_s_with_the_norm_behind_them_alone(family: Path) -> None:
    base, _, _ = _on("last-blocks", family)
    last = {f"{name}." for name, module in base.model.named_modules() if module is stacks(base.model)[1][1]}
    others = {key for key in base.trained("it") if not key.startswith(tuple(last))}
    assert others == {"t5": {"decoder.final_layer_norm.weight"}, "bart": set()}[family.name]


@pytest.mark.parametrize(("kin", "changes"), [("t5", {}), ("bart", {}), ("bart", {"scale_embedding": True})])
def test_a_soft_prompt_begins_as_random_words_in_front_of_the_prompt(tmp_path: Path, kin: str, changes: dict[str, Any]) -> None:
    base, encoder, _ = _on("prompt-tuning", tiny_seq2seq(kin, tmp_path / kin, **changes))
    start, chance = torch.tensor([encoder.opening]), random.Random(0)
    words = [chance.randrange(len(base.tokenizer)) for _ in encoder.first]
    with base.lease("it") as model:
        found = model(input_ids=torch.tensor([[*encoder.first, *range(20, 32)]]), decoder_input_ids=start).logits
    with base.lease() as model:
        wanted = model(input_ids=torch.tensor([[*words, *range(20, 32)]]), decoder_input_ids=start).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_prefix_begins_as_what_random_words_have_in_the_first_block(family: Path) -> None:
    base, _, _ = _on("prefix-tuning", family)
    chance = random.Random(0)
    words = torch.tensor([[chance.randrange(len(base.tokenizer)) for _ in range(6)]])
    layer: Any = base.model.get_submodule(keys_values(base.model).modules[0])
    seen: list[torch.Tensor] = []
    layer.base_layer.register_forward_hook(lambda _module, _args, out: seen.append(out[0]))
    with base.lease() as model:
        model(input_ids=words, decoder_input_ids=words)
    torch.testing.assert_close(layer.prefix_values_own["it"].detach(), seen[0])


@pytest.mark.parametrize(
    ("method", "options", "match"),
    [
        ("lora", {"layers_to_transform": [1]}, "both counted from 0"),
        ("last-blocks", {"num_blocks": 3}, "has 2 blocks"),
        ("features", {"task": ticket_task()}, "the objective is classification"),
        ("lora", {"task": text_task()}, "the objective is clm"),
        ("lora", {"task": tag_task()}, "the objective is tagging"),
        ("lora", {"target_modules": ["query"]}, "no module 'query'"),
        ("prompt-tuning", {"num_virtual_tokens": 100, "max_length": 64}, "leaves no room"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(family: Path, method: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(NbtuneError, match=match) as error:
        nbtune.estimate(method, model=family, **options)
    assert error.value.hint
