"""Masked texts: what is hidden and how much of it, which passage follows, whose losses they equal, and what is refused."""

import math
from collections import Counter
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from transformers import AutoModelForMaskedLM, BertForPreTraining

import nbtune
from nbtune.data.batches import collate
from nbtune.data.encoding import encode_dev, encode_rows
from nbtune.data.masking import FOLLOWS, Masked, Masking, masked_rows
from nbtune.errors import DataError, ModelError, NbtuneError, RunError, SpecError
from nbtune.methods import attach, get
from nbtune.models.base import Base
from nbtune.models.catalogue import DEFAULT_ENCODER
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from nbtune.objectives import encoder_for, source_for
from nbtune.objectives import get as objective
from tests.examples import text_task, ticket_task
from tests.tiny import ENCODERS, tiny, tiny_encoder

QUICK: dict[str, Any] = {"dtype": "float32", "per_device_train_batch_size": 8, "num_samples": 1, "learning_rate": 1e-3, "max_length": 48}
LONG = "Courier parcels were unexpectedly redirected. Nobody had photographed the warehouse. Everything arrived afterwards! Was it late? "


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder("bert", tmp_path_factory.mktemp("encoder"))


def _how(*, whole_words: bool = False, sentences: bool = False, probability: float = 0.15) -> Masking:
    return Masking.of(source_of(DEFAULT_ENCODER).tokenizer, probability=probability, whole_words=whole_words, sentences=sentences)


def _rows(how: Masking, texts: int = 20, length: int = 64) -> list[Masked]:
    return masked_rows(source_of(DEFAULT_ENCODER).tokenizer, [f"{LONG * 4} number {number}" for number in range(texts)], how, length)


def _prepared(folder: Path, name: str, task: nbtune.Task) -> tuple[Base, list[Any]]:
    spec = get("full").spec.build({"objective": name})
    base = own_base(source_for(name, folder, task), dtype="float32", quantization=None, device="cpu")
    attach(get("full"), base, spec, "it")
    return base, list(encode_dev(encoder_for(task, spec, base.tokenizer, base.config), task.train[:8], max_length=40))


def test_fifteen_in_a_hundred_tokens_are_chosen_of_which_80_are_masked_10_replaced_10_kept() -> None:
    how, kinds, places, total = _how(), Counter[str](), Counter[int](), 0
    for number, row in enumerate(_rows(how)):
        for time in range(20):
            drawn = row.drawn(f"{number}:{time}")
            total += sum(map(len, row.words))
            assert drawn.tokens == tuple(row.ids[place] for place in drawn.places)
            assert all(one == other for place, (one, other) in enumerate(zip(row.ids, drawn.ids, strict=True)) if place not in drawn.places)
            for place in drawn.places:
                now, before = drawn.ids[place], row.ids[place]
                kinds["mask" if now == how.mask else "kept" if now == before else "other"] += 1
                places[place] += 1
    count = kinds.total()
    assert count / total == pytest.approx(0.15, abs=0.01)
    assert stats.chisquare([kinds["mask"], kinds["other"], kinds["kept"]], [0.8 * count, 0.1 * count, 0.1 * count]).pvalue > 1e-3
    assert min(places) >= 1
    tokenizer = source_of(DEFAULT_ENCODER).tokenizer
    assert not set(tokenizer.all_special_ids) & set(how.words)
    marks = {tokenizer.cls_token_id, tokenizer.sep_token_id}
    assert not any(token in marks for row in _rows(how) for token in row.drawn("x").tokens)


def test_other_tokens_are_hidden_each_time_and_the_same_by_the_same_chance() -> None:
    row = _rows(_how(), 1)[0]
    drawn = {row.drawn(f"0:{step}:0").places for step in range(20)}
    assert len(drawn) > 15
    assert row.drawn("0:3:0") == row.drawn("0:3:0")


def test_whole_words_are_hidden_together_and_no_more_tokens_than_are_wanted() -> None:
    tokenizer = source_of(DEFAULT_ENCODER).tokenizer
    how, seen = _how(whole_words=True), 0
    for number, row in enumerate(_rows(how) * 3):
        drawn = row.drawn(str(number))
        for word in row.words:
            assert len({place in drawn.places for place in word}) == 1
            text = tokenizer.convert_ids_to_tokens([row.ids[place] for place in word])
            assert [part.startswith("##") for part in text] == [False, *[True] * (len(word) - 1)] or word[0] == 1
            seen += len(word) > 1 and word[0] in drawn.places
        first = max(map(len, row.words))
        assert 1 <= len(drawn.places) <= max(first, round(0.15 * sum(map(len, row.words))))
    assert seen > 10


def _of_words(*lengths: int) -> Masked:
    ends = list(accumulate(lengths, initial=0))
    words = tuple(tuple(range(begin, end)) for begin, end in pairwise(ends))
    return Masked(tuple(range(1000, 1000 + ends[-1])), 0, words, _how(whole_words=True))


@pytest.mark.parametrize("lengths", [(30,), (25, 2, 3), (100, 1), (2, 60, 60), (3, 2, 4), (2,)])
def test_a_text_without_spaces_is_never_hidden_whole_and_each_of_its_tokens_is_at_times(lengths: tuple[int, ...]) -> None:
    row, places, count = _of_words(*lengths), Counter[int](), 0
    wanted = max(1, round(0.15 * sum(lengths)))
    for time in range(400):
        drawn = row.drawn(str(time))
        assert 1 <= len(drawn.places) <= wanted
        assert len(set(drawn.places)) == len(drawn.places)
        places.update(drawn.places)
        count += len(drawn.places)
        for word in row.words:
            assert len(word) > min(wanted, 12) or len({place in drawn.places for place in word}) == 1
    assert count / 400 >= 0.8 * wanted
    assert set(places) == set(range(sum(lengths)))


def test_of_ordinary_words_the_same_are_drawn_as_ever() -> None:
    row = _of_words(*[1, 2, 1, 3, 1, 1, 2, 4] * 3)
    assert [row.drawn(str(time)).places for time in range(3)] == [
        (1, 2, 18, 26, 27, 28, 29),
        (8, 11, 12, 13, 14, 31, 32),
        (4, 5, 6, 8, 15, 23, 30),
    ]


def test_half_of_the_second_passages_follow_and_the_others_are_of_another_text() -> None:
    how = _how(sentences=True)
    rows = _rows(how, texts=6)
    counts = Counter[int]()
    known = rows[0].passages
    assert known is not None
    for number, row in enumerate(rows):
        for time in range(60):
            drawn = row.drawn(f"{number}:{time}")
            assert drawn.begins is not None
            second = list(drawn.ids[drawn.begins : -len(how.closing)])
            for place, token in zip(drawn.places, drawn.tokens, strict=True):
                if place >= drawn.begins:
                    second[place - drawn.begins] = token
            counts[int(drawn.says or 0)] += 1
            if drawn.says == FOLLOWS:
                assert tuple(second) == known.ids[row.number + 1]
            else:
                assert any(tuple(second) == ids and known.texts[at] != known.texts[row.number] for at, ids in enumerate(known.ids))
            assert len(drawn.ids) <= 64
            assert drawn.ids[drawn.begins - 1] == how.between[-1]
    assert stats.binomtest(counts[FOLLOWS], counts.total()).pvalue > 1e-3


def test_no_text_is_lost_in_rows_of_any_length() -> None:
    tokenizer = source_of(DEFAULT_ENCODER).tokenizer
    whole = tokenizer(LONG * 4, add_special_tokens=False)["input_ids"]
    for length in (8, 21, 64, 500):
        rows = masked_rows(tokenizer, [LONG * 4], _how(), length)
        assert [token for row in rows for token in row.ids[1:-1]] == whole
        assert max(len(row.ids) for row in rows) <= length


@pytest.mark.parametrize("family", sorted(ENCODERS))
def test_the_loss_is_transformers_own_on_the_same_masks(family: str, tmp_path: Path) -> None:
    folder, task = tiny_encoder(family, tmp_path), text_task()
    base, rows = _prepared(folder, "mlm", task)
    with base.lease() as model, torch.no_grad():
        loss, weight = objective("mlm").loss(model, collate(rows, packed=False, pad_id=0))
        wanted, count = 0.0, 0
        for row in rows:
            labels = torch.full((1, len(row.ids)), -100)
            labels[0, list(row.places)] = torch.tensor(row.tokens)
            wanted += float(base.model(input_ids=torch.tensor([row.ids]), labels=labels).loss) * len(row.places)
            count += len(row.places)
    assert (weight, float(loss)) == (count, pytest.approx(wanted, rel=1e-4))
    own = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32)
    assert set(base.heads) <= {name for name, _ in own.named_modules()}
    assert base.heads


def test_both_losses_are_berts_own_and_told_apart(bert: Path) -> None:
    base, rows = _prepared(bert, "mlm+nsp", text_task())
    assert isinstance(base.model, BertForPreTraining)
    with base.lease() as model, torch.no_grad():
        loss, weight, told = objective("mlm+nsp").measured(model, collate(rows, packed=False, pad_id=0))
        nats, follows, right = 0.0, 0.0, 0
        for row in rows:
            labels, segments = torch.full((1, len(row.ids)), -100), torch.zeros(1, len(row.ids), dtype=torch.long)
            labels[0, list(row.places)] = torch.tensor(row.tokens)
            segments[0, row.begins :] = 1
            both = base.model(
                input_ids=torch.tensor([row.ids]), token_type_ids=segments, labels=labels, next_sentence_label=torch.tensor([row.says])
            )
            one = torch.nn.functional.cross_entropy(both.seq_relationship_logits, torch.tensor([row.says]))
            nats += float(both.loss - one) * len(row.places)
            follows += float(one) * len(row.places)
            right += int(both.seq_relationship_logits.argmax() == row.says)
    assert float(loss) == pytest.approx(nats + follows, rel=1e-4)
    assert float(told["perplexity"][0]) == pytest.approx(nats, rel=1e-4)
    assert (float(told["nsp_accuracy"][0]), told["nsp_accuracy"][1]) == (right, len(rows))
    assert weight == sum(len(row.places) for row in rows)


@pytest.mark.parametrize(("name", "method"), [("mlm", "lora"), ("mlm+nsp", "full"), ("mlm", "head"), ("mlm", "prompt-tuning")])
def test_a_run_learns_to_fill_in_and_says_how_it_was_before(name: str, method: str, bert: Path) -> None:
    run = nbtune.finetune(method, task=text_task(), model=bert, objective=name, num_train_epochs=4, **QUICK).wait()
    before, after = run.summary["scores_before"], run.summary["scores"]
    assert after["eval_perplexity"] < 0.9 * before["eval_perplexity"]
    assert ("eval_nsp_accuracy" in after) == (name == "mlm+nsp")
    if name == "mlm":
        assert after["eval_perplexity"] == pytest.approx(math.exp(after["eval_loss"]))
    mask = source_of(bert).tokenizer.mask_token
    asked = [f"The {mask} team has {mask} it.", f"about the {mask}"]
    found = run.fill(asked)
    assert [len(words) for words in found] == [2, 1]
    assert nbtune.open(run.id).fill(asked) == found


def test_an_encoder_learns_texts_by_masks_without_being_told() -> None:
    run = nbtune.finetune("lora", task=text_task(24), model=DEFAULT_ENCODER, max_steps=1, max_eval_rows=2)
    assert run.wait().spec["objective"] == "mlm"


def test_the_strength_of_a_run_on_an_encoder_of_few_positions_is_told_of_the_rows_that_it_was_trained_on(tmp_path: Path) -> None:
    folder = tiny_encoder("bert", tmp_path, max_position_embeddings=24)
    run = nbtune.finetune("lora", task=text_task(), model=folder, objective="mlm", max_steps=2, **{**QUICK, "max_length": 64}).wait()
    assert run.strength((0.0, 1.0))["perplexity"].iloc[1] == pytest.approx(run.summary["scores"]["eval_perplexity"], rel=1e-4)


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(bert: Path) -> None:
    ends = []
    for stops in (False, True):
        run = nbtune.finetune(
            "lora", task=text_task(), model=bert, objective="mlm+nsp", max_steps=6, save_steps=1, name=f"m{stops}", **QUICK
        )
        if stops:
            run.stop()
            run.wait()
            run.resume()
        ends.append(list(run.wait().history["loss"].dropna()))
    assert ends[0] == ends[1]
    assert len(ends[0]) == 6


def test_losses_do_not_depend_on_how_a_step_is_split(bert: Path) -> None:
    found = []
    for rows, times in ((8, 1), (2, 4)):
        more = {**QUICK, "per_device_train_batch_size": rows, "gradient_accumulation_steps": times, "max_steps": 5}
        run = nbtune.finetune("lora", task=text_task(), model=bert, objective="mlm+nsp", **more).wait()
        found.append(list(run.history["loss"].dropna()))
    assert found[0] == pytest.approx(found[1], abs=1e-4)


@pytest.mark.parametrize("name", ["mlm", "mlm+nsp"])
def test_a_merged_model_opens_as_an_encoder_and_serves_a_classifier(name: str, bert: Path, tmp_path: Path) -> None:
    run = nbtune.finetune("lora", task=text_task(), model=bert, objective=name, max_steps=4, **QUICK).wait()
    folder = run.save(tmp_path / "merged", merge=True)
    task = ticket_task()
    after = nbtune.finetune("head", task=task, model=folder, objective="classification", max_steps=2, dtype="float32").wait()
    assert set(after.predict([dict(item.row) for item in task.test])) <= set(task.labels)


@pytest.mark.parametrize(
    ("model", "changes", "options", "error", "message"),
    [
        ("llama", {}, {"objective": "mlm"}, ModelError, "reads from left to right, and cannot fill"),
        ("roberta", {}, {"objective": "mlm+nsp"}, ModelError, "next sentence prediction has a head in BERT alone"),
        ("bert", {"kind": "generation", "completion": "{{ text }}"}, {"objective": "mlm"}, SpecError, "learns whole texts, and task"),
        ("bert", {}, {"objective": "mlm", "mlm_probability": 1.5}, SpecError, "mlm_probability"),
        (
            "bert",
            {},
            {"objective": "mlm", "activation_cache": True, "method": "last-blocks"},
            SpecError,
            "other tokens of a row are hidden",
        ),
        ("bert", {}, {"objective": "mlm", "retain": "general"}, SpecError, "retain asks a model to go on with a text"),
        (
            "bert",
            {"data": [{"text": f"one sentence without an end, {number}"} for number in range(30)]},
            {"objective": "mlm+nsp"},
            DataError,
            "asked over texts of several sentences",
        ),
    ],
)
def test_what_cannot_be_masked_is_refused(  # noqa: PLR0917  pytest hands them over by name
    model: str, changes: dict[str, Any], options: dict[str, Any], error: type[NbtuneError], message: str, tmp_path: Path
) -> None:
    folder = tiny("llama", tmp_path) if model == "llama" else tiny_encoder(model, tmp_path)
    options = {"method": "lora", "max_steps": 1, "num_blocks": 1, **options}
    method = options.pop("method")
    if method != "last-blocks":
        options.pop("num_blocks")
    with pytest.raises(error, match=message):
        nbtune.finetune(method, task=text_task(**changes), model=folder, dtype="float32", **options).wait()


def test_a_text_that_hides_nothing_and_a_run_that_fills_nothing_are_refused(bert: Path) -> None:
    run = nbtune.finetune("lora", task=text_task(), model=bert, objective="mlm", max_steps=1, **QUICK).wait()
    with pytest.raises(DataError, match="hides nothing"):
        run.fill(["all is said"])
    with pytest.raises(DataError, match="a text to fill in is None"):
        run.fill([None])  # type: ignore[list-item]
    with pytest.raises(ModelError, match="does not go on with it"):
        run.generate(["The parcel"])
    with pytest.raises(RunError, match="learnt texts, and answers nothing"):
        run.predict([{"text": "x"}])
    other = nbtune.finetune("head", task=ticket_task(), model=bert, objective="classification", max_steps=1, dtype="float32").wait()
    with pytest.raises(RunError, match="fills nothing in"):
        other.fill(["x"])


def test_the_doctor_shows_masks_and_counts_what_is_predicted(bert: Path) -> None:
    task = text_task()
    spec = get("lora").spec.build({"objective": "mlm"})
    source = source_for("mlm", bert, task)
    encoder = encoder_for(task, spec, source.tokenizer, source.config)
    from nbtune.data.doctor import diagnose

    found = diagnose(task, source.tokenizer, reading=encoder.reading)
    assert not [item for item in found.findings if item.level == "refuse"]
    marked = [text for text, trained in found.marked[0].pieces if trained]
    assert marked
    assert len(marked) == pytest.approx(0.15 * len(found.marked[0].pieces), abs=3)
    rows, _ = encode_rows(encoder, task.train, max_length=found.max_length)
    assert len(found.encoded) == len(rows)
