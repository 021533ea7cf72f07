"""What a model forgets: the loss of another text before and after, and what a lower strength wins back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import nbtune
from nbtune.data.retained import pieces_of, read_retained
from nbtune.errors import DataError, RunError, SpecError
from nbtune.events import Note
from tests.examples import ticket_task
from tests.tiny import tiny_encoder

FAST: dict[str, Any] = {"dtype": "float32", "learning_rate": 1e-2, "num_train_epochs": 3, "num_samples": 0}


def _by_hand(folder: Path) -> float:
    """Mean nats a token of the general text in pieces of 256, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(read_retained("general"), add_special_tokens=False)["input_ids"][:4096]
    total, count = 0.0, 0
    for at in range(0, len(ids), 256):
        piece = torch.tensor([ids[at : at + 256]])
        if piece.shape[1] > 1:
            with torch.no_grad():
                total += float(model(input_ids=piece, labels=piece).loss) * (piece.shape[1] - 1)
            count += piece.shape[1] - 1
    return total / count


@pytest.mark.parametrize("method", ["lora", "full", "prompt-tuning"])
def test_the_text_s_loss_before_is_the_base_s_and_after_that_of_what_was_trained(folder: Path, method: str, tmp_path: Path) -> None:
    run = nbtune.finetune(method, task=ticket_task(), model=folder, retain="general", **FAST).wait()
    kept = run.summary["retained"]
    assert kept["loss_before"] == pytest.approx(_by_hand(folder), abs=1e-4)
    assert kept["loss_after"] != kept["loss_before"]
    told = [event.text for event in run.events() if isinstance(event, Note) and event.text.startswith("retained, general")]
    assert len(told) == 1
    assert f"{kept['loss_after']:.3f} after" in told[0]
    if method == "full":
        merged = run.save(tmp_path / "merged", merge=True)
        assert kept["loss_after"] == pytest.approx(_by_hand(merged), abs=1e-4)


def test_a_run_that_goes_on_in_another_session_still_knows_the_loss_before(folder: Path) -> None:
    run = nbtune.finetune("full", task=ticket_task(), model=folder, retain="general", save_steps=1, **FAST)
    run.listen(lambda event: run.stop() if event.type == "step" and event.step == 3 else None)
    run.wait()
    assert run.status == "stopped"
    first = run.summary["retained"]
    nbtune.models.unload()
    run.resume().wait()
    assert run.status == "finished"
    assert run.summary["retained"]["loss_before"] == first["loss_before"] == pytest.approx(_by_hand(folder), abs=1e-4)


def test_a_fork_knows_the_loss_before_and_one_of_another_text_does_not_make_it_up(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("The parcel of last week was about the saddle, and nobody came. " * 4)
    run = nbtune.finetune("full", task=ticket_task(), model=folder, retain="general", save_steps=3, save_total_limit=9, **FAST).wait()
    same = run.fork(step=3).wait()
    assert same.summary["retained"] == run.summary["retained"]
    changed = run.fork(step=3, retain=str(other)).wait()
    assert "retained" not in changed.summary
    assert any("its loss before is not known" in event.text for event in changed.events() if isinstance(event, Note))


def test_the_strength_of_a_run_that_still_trains_is_not_asked(folder: Path) -> None:
    run = nbtune.finetune("lora", task=ticket_task(), model=folder, dtype="float32", num_train_epochs=500, eval_steps=10**6, num_samples=0)
    try:
        with pytest.raises(RunError, match="when it is over"):
            run.strength()
    finally:
        run.stop()
        run.wait()


@pytest.mark.parametrize("method", ["lora", "loha", "adapter", "fourierft", "full", "last-blocks"])
def test_strength_0_is_the_base_1_what_was_trained_and_nothing_is_left_changed(folder: Path, method: str) -> None:
    task = ticket_task()
    options = {"num_blocks": 1} if method == "last-blocks" else {"n_frequency": 200} if method == "fourierft" else {}
    run = nbtune.finetune(method, task=task, model=folder, retain="general", **{**FAST, **options}).wait()
    prompt = task.test[0].prompt
    before = run.engine().logits(prompt)
    curve = run.strength((0, 0.5, 1))
    assert list(curve.columns) == ["strength", "accuracy", "retained_loss"]
    assert torch.equal(run.engine().logits(prompt), before)
    kept = run.summary["retained"]
    assert curve["retained_loss"].iloc[0] == pytest.approx(kept["loss_before"], abs=1e-4)
    assert curve["retained_loss"].iloc[2] == pytest.approx(kept["loss_after"], abs=1e-4)
    assert curve["accuracy"].iloc[2] == pytest.approx(run.summary["scores"]["eval_accuracy"])
    half = curve["retained_loss"].iloc[1]
    assert half not in (curve["retained_loss"].iloc[0], curve["retained_loss"].iloc[2])


def test_pieces_cover_the_text_and_stand_behind_what_an_adapter_puts_in_front(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("word " * 400, add_special_tokens=False)["input_ids"]
    plain = pieces_of("word " * 400, tokenizer)
    assert [token for piece in plain for token in piece.ids] == ids
    assert sum(piece.num_trained for piece in plain) == len(ids) - len(plain)
    ahead = pieces_of("word " * 400, tokenizer, (600, 601))
    assert all(piece.ids[:2] == (600, 601) for piece in ahead)
    assert [list(piece.targets) for piece in ahead] == [list(piece.targets) for piece in plain]


def test_the_general_text_is_a_page_of_prose_that_holds_code_and_talk() -> None:
    text = read_retained("general")
    assert 600 < len(text.split()) < 1200
    assert "def average" in text


def test_what_cannot_be_retained_or_scaled_is_refused_before_anything_is_loaded(folder: Path, tmp_path: Path) -> None:
    task = ticket_task()
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "short.txt").write_text("ab")
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (DataError, "cannot be read", {"retain": tmp_path / "absent.txt"}),
        (DataError, "holds no text", {"retain": str(tmp_path / "empty.txt")}),
        (DataError, "too few", {"retain": str(tmp_path / "short.txt")}),
        (
            SpecError,
            "does not under objective classification",
            {"retain": "general", "objective": "classification", "model": tiny_encoder("bert", tmp_path / "bert")},
        ),
    ]
    for kind, match, options in cases:
        with pytest.raises(kind, match=match) as refused:
            nbtune.finetune("lora", task=task, **{"model": folder, "max_steps": 1, **options}).wait()
        assert refused.value.hint  # type: ignore[attr-defined]
    run = nbtune.finetune("ia3", task=task, model=folder, max_steps=1).wait()
    with pytest.raises(RunError, match="has no strength") as error:
        run.strength()
    assert "lora" in error.value.hint
    with pytest.raises(SpecError, match="from 0 to 2"):
        run.strength([3])
