"""Whole texts: how they are cut, whose loss theirs equals, what a run tells of before and after, and what has no place with them."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import nbtune
from nbtune.data.encoded import Texts, pieces_of
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.data.readers import read
from nbtune.errors import DataError, NbtuneError, RunError, SpecError
from nbtune.events import Evaluation, Note, Sample
from tests.examples import text_task, ticket_task
from tests.tiny import tiny_llama

SHORT: dict[str, Any] = {
    "dtype": "float32",
    "max_steps": 12,
    "per_device_train_batch_size": 4,
    "save_steps": 3,
    "num_samples": 1,
    "max_length": 64,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def encoder(folder: Path) -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(folder), reading=Texts())


@pytest.mark.parametrize("max_length", [8, 9, 50, 4096])
def test_every_token_of_a_text_is_predicted_once_but_its_first(encoder: Encoder, max_length: int) -> None:
    whole = encoder.text("A long line of words, said again. " * 20)
    assert whole.ids[-1] == encoder.tokenizer.eos_token_id
    pieces = pieces_of(whole, max_length)
    assert all(len(piece.ids) <= max_length and piece.start == 1 for piece in pieces)
    assert [token for piece in pieces for token in piece.ids[1:]] == list(whole.ids[1:])
    assert all(one.ids[-1] == other.ids[0] for one, other in pairwise(pieces))
    assert sum(piece.num_trained for piece in pieces) == len(whole.ids) - 1


def test_the_loss_of_a_text_is_transformers_own(folder: Path, encoder: Encoder) -> None:
    from nbtune.data.batches import collate
    from nbtune.objectives import get

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows, _ = encode_rows(encoder, text_task().train[:3], max_length=512)
    assert len(rows) == 3
    with torch.no_grad():
        total, weight = get("clm").loss(model, collate(rows, packed=True, pad_id=0))
        each = [model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.ids])).loss * (len(row.ids) - 1) for row in rows]
    assert weight == sum(len(row.ids) - 1 for row in rows)
    assert float(total) == pytest.approx(float(sum(each)), rel=1e-5)


@pytest.mark.parametrize("method", ["lora", "full", "prompt-tuning", "last-blocks"])
def test_a_run_tells_the_perplexity_of_the_base_and_its_own(folder: Path, encoder: Encoder, method: str) -> None:
    task = text_task()
    more: dict[str, Any] = {"learning_rate": 1e-2, "max_steps": 20, "max_length": 256}
    more |= {"num_blocks": 1} if method == "last-blocks" else {}
    run = nbtune.finetune(method, task=task, model=folder, **{**SHORT, **more}).wait()
    assert run.spec["objective"] == "clm"
    before, after = run.summary["scores_before"], run.summary["scores"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows, _ = encode_rows(encoder, task.dev, max_length=256)
    with torch.no_grad():
        nats = sum(
            float(model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.ids])).loss) * (len(row.ids) - 1) for row in rows
        )
    expected = nats / sum(len(row.ids) - 1 for row in rows)
    assert before["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert before["eval_perplexity"] == pytest.approx(torch.tensor(expected).exp().item(), rel=1e-4)
    assert after["eval_perplexity"] < before["eval_perplexity"] * 0.9
    assert run.history.loc[0, "eval_perplexity"] == before["eval_perplexity"]
    assert run.summary["best_step"] > 0
    said = [event for event in run.events() if isinstance(event, Sample)]
    assert said
    assert all(f"{event.prompt} {event.expected[:5]}" in " ".join(task.dev[event.row].prompt.split()) for event in said)
    assert len(run.generate(["A ticket about"], max_new_tokens=3)) == 1


def test_a_run_that_goes_on_has_the_same_bits_and_looks_at_the_base_once(folder: Path) -> None:
    whole = nbtune.finetune("lora", task=text_task(), model=folder, **SHORT).wait()
    cut = nbtune.finetune("lora", task=text_task(), model=folder, **SHORT, name="cut")
    cut.listen(lambda event: cut.stop() if getattr(event, "step", 0) == 5 else None)
    cut.wait()
    assert cut.status == "stopped"
    cut.resume().wait()
    name = "checkpoints/step-000012/adapter_model.safetensors"
    assert (whole.folder / name).read_bytes() == (cut.folder / name).read_bytes()
    assert cut.summary["scores_before"] == whole.summary["scores_before"]
    assert [event.step for event in cut.events() if isinstance(event, Evaluation)].count(0) == 1


def test_what_is_not_to_be_forgotten_is_told_beside(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "else.txt").write_text("Something else altogether, which is said only here. " * 10)
    run = nbtune.finetune("lora", task=text_task(), model=folder, retain=str(tmp_path / "else.txt"), **SHORT).wait()
    kept = run.summary["retained"]
    assert kept["loss_before"] != kept["loss_after"]


def test_long_texts_are_learnt_in_pieces_and_that_is_said(folder: Path) -> None:
    task = text_task()
    found = nbtune.doctor(task, model=folder, max_length=16)
    assert not found.refusals
    assert any("are learnt in" in item.text and item.level == "info" for item in found.findings)
    assert sum(row.num_trained for row in found.encoded) == sum(row.num_trained for row in nbtune.doctor(task, model=folder).encoded)
    run = nbtune.finetune("lora", task=task, model=folder, **{**SHORT, "max_length": 16, "max_steps": 2}).wait()
    assert run.status == "finished"


def test_a_text_file_is_cut_between_paragraphs_and_a_folder_read_with_all_its_texts(tmp_path: Path) -> None:
    long = "word " * 300
    (tmp_path / "one.txt").write_text(f"first\n\nsecond\r\n \nthird\n\n\n{long}\n\nlast")
    assert read("one.txt", folder=tmp_path) == {"all": [{"text": f"first\n\nsecond\n\nthird\n\n{long}"}, {"text": "last"}]}
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "two.md").write_text("# Title\n\nbody")
    (tmp_path / "deep" / "table.csv").write_text("a,b\n1,2\n")
    rows = read(str(tmp_path))["all"]
    assert [row["file"] for row in rows] == ["deep/two.md", "one.txt", "one.txt"]
    assert rows[0]["text"] == "# Title\n\nbody"
    (tmp_path / "deep" / "bad.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"deep/bad.txt: line 1: byte 0xe9 is not UTF-8"):
        read(str(tmp_path))


def test_a_task_of_texts_is_what_it_was_when_it_is_opened_again(tmp_path: Path) -> None:
    task = text_task()
    assert (task.kind, task.metric.name, task.labels) == ("text", "perplexity", ())
    task.save(tmp_path)
    again = nbtune.Task.open(tmp_path)
    assert (again.fingerprint, again.kind, again.train) == (task.fingerprint, task.kind, task.train)


REFUSED: list[tuple[dict[str, Any], str, type[NbtuneError]]] = [
    ({"completion": " {{ text }}"}, "completion is given, but kind: text has none", SpecError),
    ({"system": "be kind"}, "system is given, but kind: text has none", SpecError),
    ({"labels": ["a", "b"]}, "labels are given, but kind: text has none", SpecError),
    ({"metric": "accuracy"}, "accuracy is not a metric of text", SpecError),
    ({"kind": "generation"}, "completion is missing", SpecError),
    ({"kind": None}, "completion is missing", SpecError),
]


@pytest.mark.parametrize(("changes", "message", "kind"), REFUSED, ids=[text for _, text, _ in REFUSED])
def test_what_a_task_of_texts_cannot_have_is_said(changes: dict[str, Any], message: str, kind: type[NbtuneError]) -> None:
    with pytest.raises(kind, match=message):
        text_task(**changes)


def test_what_cannot_be_done_with_texts_is_refused_before_anything_is_loaded(folder: Path) -> None:
    with pytest.raises(SpecError, match="objective sft learns answers, and task 'texts' is of kind text"):
        nbtune.finetune("lora", task=text_task(), model=folder, objective="sft")
    with pytest.raises(SpecError, match="objective clm learns whole texts, and task 'tickets' is of kind classification"):
        nbtune.finetune("lora", task=ticket_task(), model=folder, objective="clm")
    with pytest.raises(SpecError, match="there is nothing to answer"):
        nbtune.compare(["zero-shot"], task=text_task(), model=folder)
    with pytest.raises(SpecError, match="needs a task of classes, and 'texts' is text"):
        nbtune.finetune("features", task=text_task(), model=folder)
    run = nbtune.finetune("lora", task=text_task(), model=folder, **{**SHORT, "max_steps": 1}).wait()
    with pytest.raises(RunError, match="learnt texts, and answers nothing"):
        run.predict(["a"])
    assert not [event for event in run.events() if isinstance(event, Note) and event.level == "warning"]


def test_a_merged_model_of_texts_is_asked_and_saved(folder: Path, tmp_path: Path) -> None:
    run = nbtune.finetune("lora", task=text_task(), model=folder, **SHORT).wait()
    run.save(tmp_path / "merged", merge=True)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").config.vocab_size > 0
    assert len(run.strength((0.0, 1.0))) == 2
