"""Models of an encoder and a decoder from rows to runs: what is read and written, scores, answers, the whole way of a run."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import nbtune
from nbtune.data.batches import collate
from nbtune.data.encoded import Answered
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.errors import DataError, ModelError, NbtuneError
from nbtune.inference import Decoding, Engine
from nbtune.models.families import answering
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from nbtune.objectives.sft import Sft
from tests.examples import echo_task, ticket_task
from tests.tiny import SEQ2SEQ, tiny_seq2seq

PROMPTS = [f"Ticket: {'the parcel never came ' * n}number {n}\nTeam:" for n in range(1, 5)]
ANSWERS = [" billing", " shipping department", " x"]


@pytest.fixture(scope="module", params=SEQ2SEQ)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_seq2seq(request.param, tmp_path_factory.mktemp("seq2seq") / request.param)


def _engine(folder: Path) -> Engine:
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    return Engine(base, Encoder(base.tokenizer, reading=answering(base.config)))


def _taught(folder: Path, prompt: str, answer: str) -> tuple[torch.Tensor, int]:
    """The loss by transformers' own labels, summed over an answer and its end, and how many tokens these are.

    The mark that BART's tokenizer puts before the answer is given to the decoder and not counted.
    """
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)
    written = tokenizer(text_target=answer.strip(), return_tensors="pt")["input_ids"]
    labels = written.masked_fill(written == (-1 if tokenizer.bos_token_id is None else tokenizer.bos_token_id), -100)
    shifted = model.prepare_decoder_input_ids_from_labels(labels=written)
    count = int((labels != -100).sum())
    with torch.no_grad():
        loss = model(**tokenizer(prompt, return_tensors="pt"), labels=labels, decoder_input_ids=shifted).loss
    return loss * count, count


def test_the_loss_is_that_of_transformers_labels_alone_and_in_a_batch(family: Path) -> None:
    engine, task = _engine(family), ticket_task()
    rows, cut = encode_rows(engine.encoder, task.train[:6], max_length=128)
    assert cut == 0
    wanted = [_taught(family, item.prompt, item.completion) for item in task.train[:6]]
    assert [row.num_trained for row in rows] == [count for _, count in wanted]
    with engine.base.lease() as model:
        alone = [Sft().loss(model, collate([row], packed=False, pad_id=0))[0] for row in rows]
        together, weight = Sft().loss(model, collate(rows, packed=False, pad_id=0))
    torch.testing.assert_close(torch.stack(alone), torch.stack([loss for loss, _ in wanted]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together / weight, sum(alone) / weight, rtol=1e-5, atol=1e-5)  # type: ignore[operator]


def test_label_scores_are_those_of_transformers_labels_and_the_encoder_reads_each_prompt_once(family: Path) -> None:
    engine = _engine(family)
    read: list[int] = []
    engine.base.model.get_encoder().register_forward_hook(lambda *_: read.append(1))  # type: ignore[union-attr, operator]
    scores = engine.score(PROMPTS, ANSWERS)
    assert len(read) == len(PROMPTS)
    end = engine.base.tokenizer.eos_token_id
    for prompt, row in zip(PROMPTS, scores, strict=True):
        for answer, (total, count) in zip(ANSWERS, row, strict=True):
            loss, tokens = _taught(family, prompt, answer)
            ids = torch.tensor([[*engine.encoder.opening, *engine.encoder.answer_ids(prompt, answer)]])
            with engine.base.lease() as model:
                last = model(input_ids=torch.tensor([engine.encoder.prompt_ids(prompt)]), decoder_input_ids=ids).logits[0, -1]
            assert count == tokens - 1  # the end is no part of a label
            assert total == pytest.approx(-float(loss) - float(last.log_softmax(-1)[end]), abs=1e-4)


def test_answers_written_together_are_transformers_own(family: Path) -> None:
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(family, dtype=torch.float32), AutoTokenizer.from_pretrained(family)
    engine = _engine(family)
    texts = engine.generate(PROMPTS, Decoding(10))
    assert any(texts)
    for prompt, text in zip(PROMPTS, texts, strict=True):
        made = model.generate(
            **tokenizer(prompt, return_tensors="pt"), max_new_tokens=10 + len(engine.encoder.opening) - 1, do_sample=False
        )
        assert text == tokenizer.decode(made[0], skip_special_tokens=True)
    stopped = engine.generate(PROMPTS, Decoding(10, (texts[0][1],)))[0]
    assert stopped == texts[0][: texts[0].index(texts[0][1])]


def test_a_model_s_own_file_does_not_change_how_it_is_asked(family: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(family, tmp_path / family.name)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    model.generation_config.update(num_beams=3, min_length=9, no_repeat_ngram_size=2, repetition_penalty=1.5)
    model.generation_config.save_pretrained(folder)
    assert _engine(folder).generate(PROMPTS, Decoding(10)) == _engine(family).generate(PROMPTS, Decoding(10))


def test_a_row_is_a_prompt_with_its_marks_and_an_answer_of_its_own_with_its_end(family: Path) -> None:
    engine, t5 = _engine(family), family.name == "t5"
    row = engine.encoder.row("one two", " three ", max_length=64)
    assert isinstance(row, Answered)
    decode = engine.encoder.tokenizer.decode
    assert decode(row.ids[: row.start]) == ("one two</s>" if t5 else "<s>one two</s>")
    assert decode(row.written) == ("<pad>three" if t5 else "</s><s>three")
    assert decode(row.targets) == "three</s>"
    short = engine.encoder.row("word " * 50, " three", max_length=16)
    assert len(short.ids) == 16
    assert short.targets == row.targets
    assert decode(short.ids[: short.start]).startswith(" word" if t5 else "<s>")
    assert decode(short.ids[: short.start]).endswith("</s>")
    with pytest.raises(DataError, match="has no tokens"):
        engine.encoder.row("one", " ", max_length=64)


def test_the_doctor_shows_prompt_and_answer_and_finds_nothing_where_there_is_nothing(family: Path) -> None:
    found = nbtune.doctor(ticket_task(completion="{{ team }}"), family)
    assert found.refusals == ()
    assert found.warnings == ()
    trained = "".join(text for text, is_trained in found.marked[0].pieces if is_trained)
    assert trained.removesuffix("</s>") in ticket_task().labels
    assert "".join(text for text, is_trained in found.marked[0].pieces if not is_trained).endswith("Team:</s>")
    rows = [{"text": f"say </s> {number}", "team": ("a", "b")[number % 2]} for number in range(20)]
    assert any("inside the prompt" in item.text for item in nbtune.doctor(ticket_task(data=rows), family).warnings)


def test_a_run_learns_answers_is_compared_saved_and_opened_again(family: Path, tmp_path: Path) -> None:
    task = echo_task()
    run = nbtune.finetune("lora", task=task, model=family, dtype="float32", learning_rate=1e-2, num_train_epochs=8).wait()
    history = run.history["loss"]
    assert history.iloc[-3:].mean() < history.iloc[0] - 0.5
    prompt = task.test[0].prompt
    said, tuned = run.generate([prompt], max_new_tokens=6), run.engine().logits(prompt)
    assert run.predict([task.test[0].row]) == [run.generate([prompt])[0].strip()]
    comparison = nbtune.compare(["zero-shot", {"few-shot": {"k": 2}}, run], task=task)
    assert comparison.warnings == []
    assert any("on, logits differ" in check for check in comparison.checks)
    assert any("off, logits equal" in check for check in comparison.checks)
    merged = AutoModelForSeq2SeqLM.from_pretrained(run.save(tmp_path / "merged", merge=True), dtype=torch.float32)
    encoder = run.engine().encoder
    with torch.no_grad():
        logits = merged(input_ids=torch.tensor([encoder.prompt_ids(prompt)]), decoder_input_ids=torch.tensor([encoder.opening])).logits
    torch.testing.assert_close(logits[0, -1], tuned, rtol=1e-4, atol=1e-4)
    nbtune.models.unload()
    again = nbtune.open(run.id)
    assert torch.equal(again.engine().logits(prompt), tuned)
    assert again.generate([prompt], max_new_tokens=6) == said
    assert list(again.strength(strengths=[0, 1], max_rows=4).columns) == ["strength", task.metric.name]


def test_a_head_of_its_own_is_saved_beside_the_embeddings_that_it_was_tied_to(family: Path, tmp_path: Path) -> None:
    task = ticket_task()
    run = nbtune.finetune("head", task=task, model=family, dtype="float32", max_steps=3, num_samples=0).wait()
    tuned, encoder = run.engine().logits(task.test[0].prompt), run.engine().encoder
    merged = AutoModelForSeq2SeqLM.from_pretrained(run.save(tmp_path / "merged", merge=True), dtype=torch.float32).eval()
    with torch.no_grad():
        ids = torch.tensor([encoder.prompt_ids(task.test[0].prompt)])
        logits = merged(input_ids=ids, decoder_input_ids=torch.tensor([encoder.opening])).logits
    torch.testing.assert_close(logits[0, -1], tuned, rtol=1e-4, atol=1e-4)


def test_accumulated_steps_are_those_of_whole_batches(family: Path) -> None:
    losses = []
    for size, count in ((8, 1), (2, 4)):
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": count, "max_steps": 4, "num_samples": 0}
        run = nbtune.finetune("lora", task=ticket_task(), model=family, dtype="float32", **options).wait()
        losses.append(run.history["loss"].dropna().tolist())
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_bound_model_is_trained_and_left_as_it_was(family: Path) -> None:
    mine = nbtune.models.load(family, dtype="float32")
    before = {key: value.clone() for key, value in mine.model.state_dict().items()}
    run = nbtune.finetune("prefix-tuning", task=ticket_task(), model=mine, max_steps=2, num_virtual_tokens=4).wait()
    assert run.predict([ticket_task().test[0].row])[0] in ticket_task().labels
    after = mine.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"objective": "classification"}, "the objective is classification"),
        ({"retain": "general"}, "retain asks a model to go on"),
        ({"replay": 0.1}, "replay asks a model to go on"),
        ({"packing": True}, "packing is true"),
        ({"activation_cache": True}, "nothing is frozen below"),
    ],
)
def test_what_such_a_model_cannot_do_is_refused(family: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(NbtuneError, match=match) as error:
        nbtune.finetune("lora", task=ticket_task(), model=family, max_steps=2, **options).wait()
    assert error.value.hint


def test_a_config_that_does_not_say_how_a_decoder_begins_is_refused(tmp_path: Path) -> None:
    folder = tiny_seq2seq("t5", tmp_path / "t5", decoder_start_token_id=None)
    with pytest.raises(ModelError, match="with which token its decoder begins") as error:
        nbtune.estimate("lora", model=folder, task=ticket_task())
    assert "decoder_start_token_id" in error.value.hint


def test_noise_on_the_embeddings_reaches_the_prompt(family: Path) -> None:
    losses = [
        nbtune.finetune("lora", task=ticket_task(), model=family, dtype="float32", max_steps=1, num_samples=0, **noise)
        .wait()
        .history["loss"]
        for noise in ({}, {"neftune_noise_alpha": 5.0})
    ]
    assert losses[0].iloc[0] != losses[1].iloc[0]
