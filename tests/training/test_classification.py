"""A head over classes: where texts are read, whose numbers the losses equal, what survives a checkpoint, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

import nbtune
from nbtune.data.batches import collate
from nbtune.data.encoded import Labelled
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.errors import DataError, ModelError, NbtuneError, RunError, SpecError
from nbtune.inference import engine_for
from nbtune.methods import attach, get
from nbtune.models.base import Base
from nbtune.models.shared import own_base
from nbtune.objectives import encoder_for, source_for
from nbtune.objectives import get as objective
from tests.examples import echo_task, ticket_task
from tests.tiny import tiny, tiny_encoder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder("bert", tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(request.param, tmp_path_factory.mktemp("decoder"))


def _tuned(folder: Path, pooling: str = "auto") -> tuple[Base, Encoder]:
    """A base whose head is drawn and moved, and how texts are read."""
    task = ticket_task()
    spec = get("head").spec.build({"objective": "classification", "pooling": pooling})
    base = own_base(source_for("classification", folder, task), dtype="float32", quantization=None, device="cpu")
    attach(get("head"), base, spec, "it")
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in base.trained("it").values():
            parameter.add_(torch.randn_like(parameter))
    return base, encoder_for(task, spec, base.tokenizer, base.config)


def _row(pooling: Any, start: int = 0) -> Labelled:
    return Labelled(tuple(range(10, 16)), start, 2, pooling)


def test_a_text_is_read_at_its_first_token_its_last_or_at_all_of_its_own() -> None:
    assert list(_row("cls", 2).reads) == [2]
    assert list(_row("last", 2).reads) == [5]
    assert list(_row("mean", 2).reads) == [2, 3, 4, 5]
    assert list(_row("cls").behind((98, 99)).reads) == [2]
    assert {_row(pooling).num_trained for pooling in ("cls", "mean", "last")} == {1}


def test_a_text_that_is_too_long_keeps_the_end_where_it_is_read_and_what_closes_it() -> None:
    assert _row("cls").cut(4, None).ids == (10, 11, 12, 15)
    assert _row("mean").cut(4, None).ids == (10, 11, 12, 15)
    assert _row("last").cut(4, None).ids == (12, 13, 14, 15)
    assert _row("last").cut(4, 10).ids == (10, 13, 14, 15)
    assert _row("last").cut(6, None) == _row("last")
    assert _row("cls").cut(9, None).ids == _row("cls").ids


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_an_encoder_s_loss_is_that_of_transformers_own_head_on_the_texts_one_by_one(bert: Path, pooling: str) -> None:
    base, encoder = _tuned(bert, pooling)
    task = ticket_task()
    rows, cut = encode_rows(encoder, task.train[:7], max_length=128)
    assert cut == 0
    with base.lease() as model, torch.no_grad():
        loss, weight = objective("classification").loss(model, collate(rows, packed=False, pad_id=0))
    plain = AutoModelForTokenClassification.from_pretrained(bert, num_labels=3, dtype=torch.float32).eval()
    plain.classifier.load_state_dict({key.removeprefix("classifier."): value for key, value in base.named("it").items()})
    tokenizer = AutoTokenizer.from_pretrained(bert)
    expected = 0.0
    for item in task.train[:7]:
        with torch.no_grad():
            logits = plain(**tokenizer(item.prompt, return_tensors="pt")).logits[0]
        read = {"cls": logits[0], "last": logits[-1], "mean": logits.mean(0)}[pooling]
        expected += float(functional.cross_entropy(read[None], torch.tensor([task.labels.index(str(item.label))])))
    assert weight == 7
    assert float(loss) == pytest.approx(expected, abs=1e-4)


def test_a_decoder_s_classes_are_those_of_transformers_sequence_classification_packed_or_padded(decoder: Path) -> None:
    base, encoder = _tuned(decoder)
    task = ticket_task()
    rows, _ = encode_rows(encoder, task.train[:6], max_length=128)
    plain = AutoModelForSequenceClassification.from_pretrained(decoder, num_labels=3, dtype=torch.float32).eval()
    weights = {key.rpartition(".")[2]: value for key, value in base.named("it").items()}
    plain.score.load_state_dict({"weight": weights["weight"]})
    wanted = []
    for row in rows:
        with torch.no_grad():
            ids = torch.tensor([row.ids])
            wanted.append(plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0] + weights["bias"])
    found = engine_for(base, encoder)
    for item, logits in zip(task.train[:6], wanted, strict=True):
        torch.testing.assert_close(found.logits(item.prompt), logits, rtol=1e-4, atol=1e-4)
    labels = torch.tensor([task.labels.index(str(item.label)) for item in task.train[:6]])
    expected = float(functional.cross_entropy(torch.stack(wanted), labels, reduction="sum"))
    for packed in {False, base.config.model_type == "llama"}:
        with base.lease() as model, torch.no_grad():
            loss, _ = objective("classification").loss(model, collate(rows, packed=packed, pad_id=0))
        assert float(loss) == pytest.approx(expected, abs=1e-4)


def test_scores_are_log_probabilities_and_no_matter_who_else_is_asked(bert: Path) -> None:
    base, encoder = _tuned(bert)
    prompts = [item.prompt for item in ticket_task().test] * 4
    engine = engine_for(base, encoder)
    together = engine.score(prompts, ["a", "b", "c"])
    for prompt, scores in list(zip(prompts, together, strict=True))[:5]:
        alone = engine.score([prompt], ["a", "b", "c"])[0]
        assert [value for value, _ in scores] == pytest.approx([value for value, _ in alone], abs=1e-5)
        assert sum(torch.tensor(value).exp() for value, _ in scores) == pytest.approx(1.0, abs=1e-5)
    long = "word " * 1000
    assert engine.prompt_tokens([long]) == [140]
    assert len(engine.score([long], ["a", "b", "c"])[0]) == 3


@pytest.mark.parametrize("method", ["lora", "head", "full"])
def test_a_stopped_run_goes_on_and_a_fork_repeats_bit_for_bit_with_its_head(bert: Path, method: str) -> None:
    options: dict[str, Any] = {"dtype": "float32", "max_steps": 8, "save_steps": 2, "save_total_limit": 9, "objective": "classification"}
    whole = nbtune.finetune(method, task=ticket_task(), model=bert, **options).wait()
    forked = whole.fork(step=4).wait()
    assert list(forked.history["loss"]) == list(whole.history["loss"])
    names = sorted(path.name for path in (whole.folder / "checkpoints" / "step-000008").glob("*.safetensors"))
    for name in names:
        assert (whole.folder / "checkpoints" / "step-000008" / name).read_bytes() == (
            forked.folder / "checkpoints" / "step-000008" / name
        ).read_bytes()
    rows = [item.row for item in ticket_task().test]
    assert forked.predict(rows) == whole.predict(rows)


def test_two_runs_share_one_encoder_each_with_a_head_of_its_own(bert: Path) -> None:
    task = ticket_task()
    first, second = (
        nbtune.finetune("lora", task=task, model=bert, objective="classification", max_steps=3, seed=seed, learning_rate=1e-2).wait()
        for seed in (0, 1)
    )
    assert first.engine().base is second.engine().base
    prompt = task.test[0].prompt
    assert not torch.equal(first.engine().logits(prompt), second.engine().logits(prompt))
    other = ticket_task(labels=["shipping", "billing", "technical", "sales"])
    third = nbtune.finetune("lora", task=other, model=bert, objective="classification", max_steps=2).wait()
    assert third.engine().base is not first.engine().base
    assert third.engine().logits(prompt).shape == (4,)


def test_an_adapter_with_its_head_is_opened_by_peft_on_transformers_own_class(bert: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    task = ticket_task()
    run = nbtune.finetune("lora", task=task, model=bert, objective="classification", pooling="cls", dtype="float32", max_steps=4).wait()
    plain = AutoModelForTokenClassification.from_pretrained(bert, num_labels=3, dtype=torch.float32)
    opened = PeftModel.from_pretrained(plain, run.save(tmp_path / "adapter")).eval()
    prompt = task.test[0].prompt
    with torch.no_grad():
        logits = opened(**AutoTokenizer.from_pretrained(bert)(prompt, return_tensors="pt")).logits[0, 0]
    torch.testing.assert_close(logits, run.engine().logits(prompt), rtol=1e-4, atol=1e-5)
    merged = AutoModelForTokenClassification.from_pretrained(run.save(tmp_path / "merged", merge=True), dtype=torch.float32)
    assert merged.config.id2label == dict(enumerate(task.labels))
    with torch.no_grad():
        logits = merged(**AutoTokenizer.from_pretrained(bert)(prompt, return_tensors="pt")).logits[0, 0]
    torch.testing.assert_close(logits, run.engine().logits(prompt), rtol=1e-4, atol=1e-4)


def test_the_doctor_s_warnings_of_a_run_are_about_reading(bert: Path) -> None:
    task = ticket_task()
    run = nbtune.finetune("lora", task=task, model=bert, objective="classification", max_steps=1, max_length=16).wait()
    notes = [event.text for event in run.events() if event.type == "note"]
    assert any("are read in part, max_length is 16" in text for text in notes)
    assert not any("end-of-sequence" in text for text in notes)


def test_what_cannot_be_a_classifier_is_refused_with_what_to_do(bert: Path, decoder: Path, tmp_path: Path) -> None:
    opt = tiny("opt", tmp_path / "opt")
    cases: list[tuple[type[NbtuneError], str, Any]] = [
        (SpecError, "is generation", lambda: nbtune.finetune("lora", task=echo_task(), model=bert, objective="classification")),
        (
            SpecError,
            "pooling cls reads the first token",
            lambda: nbtune.finetune("lora", task=ticket_task(), model=decoder, objective="classification", pooling="cls").wait(),
        ),
        (
            ModelError,
            "transformers has no opt with a head over classes",
            lambda: nbtune.finetune("lora", task=ticket_task(), model=opt, objective="classification").wait(),
        ),
        (SpecError, "needs a task", lambda: nbtune.estimate("lora", model=bert, objective="classification")),
        (ModelError, "is bound as an object", lambda: source_for("classification", nbtune.models.load(decoder), ticket_task())),
        (SpecError, "no objective 'clasification'", lambda: objective("clasification")),
    ]
    for kind, match, call in cases:
        with pytest.raises(kind, match=match) as refused:
            call()
        assert refused.value.hint


def test_a_classifier_writes_nothing_and_is_not_compared_on_other_labels(bert: Path) -> None:
    run = nbtune.finetune("lora", task=ticket_task(), model=bert, objective="classification", max_steps=1).wait()
    with pytest.raises(ModelError, match="writes no text"):
        run.generate(["Ticket: parcel"])
    with pytest.raises(RunError, match="labels of task 'tickets' are others"):
        nbtune.compare([run], task=ticket_task(labels=["shipping", "billing", "technical", "sales"]))


def test_a_label_that_is_not_the_head_s_is_named(bert: Path) -> None:
    _, encoder = _tuned(bert)
    with pytest.raises(DataError, match="'sales' is none of billing, shipping, technical"):
        encoder.labelled("Ticket: parcel", "sales")
