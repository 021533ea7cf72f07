"""What a model is writing is told while it writes, and whoever listens may end it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nbtune
from nbtune.errors import ModelError
from nbtune.inference import Decoding, Engine
from nbtune.inference.generating import _Heard
from nbtune.inference.progress import counted
from tests.examples import echo_task
from tests.tiny import tiny_llama


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tiny_llama(tmp_path_factory.mktemp("tiny"))
    approach = nbtune.prompt("zero-shot", task=echo_task(), model=folder)
    return next(iter(approach.engines))


def test_an_answer_is_told_token_by_token(engine: Engine) -> None:
    heard: list[tuple[int, int, str]] = []
    (output,) = engine.generate(["about the tent"], Decoding(6), progress=lambda *said: heard.append((*said, "")[:3]))
    *written, end = heard
    assert [said[:2] for said in written] == [(0, 1)] * 6, "six tokens, and no row is done before the last of them"
    assert written[-1][2] == output != ""
    lengths = [len(text) for _, _, text in written]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]
    assert end == (1, 1, "")


def test_what_is_told_ends_where_a_stop_text_begins(engine: Engine) -> None:
    (free,) = engine.generate(["about the tent"], Decoding(12))
    stop = free[-2:]
    heard: list[str] = []
    (output,) = engine.generate(["about the tent"], Decoding(12, (stop,)), progress=lambda _d, _t, writing="": heard.append(writing))
    assert output == free[: free.index(stop)]
    assert not any(stop in text for text in heard)


@pytest.mark.parametrize("named", ["by the model", "by the chat template"])
def test_a_token_that_ends_a_turn_ends_what_is_written(engine: Engine, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, free = engine.encoder.prompt_ids("about the tent"), Decoding(6)
    with engine.base.lease() as model:
        end = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
    assert end not in engine.ends
    (written,) = engine.generate(["about the tent"], free)
    usual = engine.base.tokenizer.eos_token_id
    if named == "by the model":
        monkeypatch.setattr(engine.base.model.generation_config, "eos_token_id", [usual, end])
    else:
        monkeypatch.setitem(vars(engine.encoder), "closing", (usual, end))
    assert engine.ends == sorted((usual, end))
    (output,) = engine.generate(["about the tent"], free)
    assert output == engine.base.tokenizer.decode([end])
    assert written.startswith(output)
    assert written != output


def test_who_listens_may_end_the_work_between_two_tokens_and_the_model_is_free_again(engine: Engine) -> None:
    tokens = 0

    def leave(done: int, total: int, writing: str = "") -> None:
        nonlocal tokens
        tokens += 1
        if tokens == 3:
            raise KeyboardInterrupt

    before = engine.generate(["about the tent"], Decoding(40))
    with pytest.raises(KeyboardInterrupt):
        engine.generate(["about the tent"], Decoding(40), progress=leave)
    assert tokens == 3
    assert engine.generate(["about the tent"], Decoding(40)) == before


def test_the_row_that_is_told_is_one_that_goes_on(engine: Engine) -> None:
    tokenizer, heard = engine.base.tokenizer, list[str]()
    begun = tokenizer("Team:")["input_ids"]
    ended, going = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" tent", " shipping"))
    width = max(len(ended) + 1, len(going))
    rows = [[*begun, *ids, *[tokenizer.pad_token_id] * (width - len(ids))][: len(begun) + width] for ids in (ended, going)]
    rows[1][len(begun) + len(going) :] = going[-1:] * (width - len(going))
    listener = _Heard(tokenizer, tokenizer.pad_token_id, (), len(begun), heard.append)
    assert listener(torch.tensor(rows), None).tolist() == [False, False], "it ends nothing"
    assert listener(torch.tensor(rows[:1]), None).tolist() == [False]
    assert heard[0].startswith(" shipping")
    assert heard[1] == " tent", "where all have ended, the first"


def test_who_listens_cannot_ask_the_model_that_is_answering_and_nothing_is_left_held(engine: Engine) -> None:
    before = engine.generate(["about the tent"], Decoding(4))
    with pytest.raises(ModelError, match=r"asked by what is told how far it is"):
        engine.generate(["about the tent"], Decoding(4), progress=lambda *_: engine.generate(["about the saddle"], Decoding(4)) and None)
    assert engine.generate(["about the tent"], Decoding(4)) == before


def test_a_line_of_progress_holds_the_end_of_what_is_written_and_names_control_characters() -> None:
    lines: list[str] = []
    progress = counted(lines.append, "zero-shot")
    progress(8, 84)
    progress(8, 84, "a line\nand \x1b[2J more")
    progress(8, 84, "word " * 100)
    assert lines[:2] == ["zero-shot: 8 of 84 rows", r"zero-shot: 8 of 84 rows, writing 'a line and \x1b[2J more'"]
    assert lines[2].endswith("word word'")
    assert len(lines[2]) < 120


def test_a_grid_tells_what_its_columns_write(tmp_path: Path) -> None:
    lines: list[str] = []
    nbtune.compare(["zero-shot", {"few-shot": {"k": 2, "seeds": 2}}], task=echo_task(), model=tiny_llama(tmp_path), report=lines.append)
    for label in ("zero-shot", "few-shot"):
        assert any(line.startswith(label) and ", writing '" in line for line in lines)
