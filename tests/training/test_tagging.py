"""A tag for each word: which token a word is read at, whose scores the spans' are, what a run learns, and what is refused."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from seqeval.metrics import f1_score
from torch.nn import functional

import nbtune
from nbtune.data.batches import collate
from nbtune.data.encoded import Tagged, Tagging
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.data.readers import read
from nbtune.errors import DataError, ModelError, NbtuneError, SpecError
from nbtune.methods import attach, get
from nbtune.metrics.scores import metric_of
from nbtune.models.catalogue import DEFAULT_DECODER, DEFAULT_ENCODER
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from nbtune.objectives import encoder_for, source_for
from nbtune.objectives import get as objective
from tests.examples import tag_rows, tag_task, ticket_task
from tests.tiny import tiny, tiny_encoder

ODD = ["🙂👍🏽", "Zürich", "日本語テキスト", "ไทยภาษา", "Donaudampfschifffahrtsgesellschaft", "a", "été", "x.y@z.org"]
LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
QUICK: dict[str, Any] = {"dtype": "float32", "per_device_train_batch_size": 8, "num_samples": 1}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder("bert", tmp_path_factory.mktemp("encoder"))


@pytest.mark.parametrize("model", [DEFAULT_DECODER, DEFAULT_ENCODER])
def test_a_word_is_read_at_its_first_token_however_oddly_it_is_written(model: str) -> None:
    tokenizer = source_of(model).tokenizer
    encoder = Encoder(tokenizer, reading=Tagging(LABELS, both_ways=model == DEFAULT_ENCODER))
    chance = random.Random(0)
    for _ in range(20):
        words = chance.sample(ODD, len(ODD))
        tags = [chance.choice(("O", "B-LOC", "B-PER")) for _ in words]
        row, there = encoder.tagged(" ".join(words), " ".join(tags))
        assert there == tuple(range(len(words)))
        assert [LABELS[tag] for tag in row.tags] == tags
        assert list(row.places) == sorted(set(row.places))
        ends = [*row.places[1:], len(row.ids) - (model == DEFAULT_ENCODER)]
        for word, place, end in zip(words, row.places, ends, strict=True):
            said = tokenizer.decode(list(row.ids[place:end])).strip()
            plain = tokenizer.decode(tokenizer(" " + word, add_special_tokens=False)["input_ids"]).strip()
            assert said == plain, (word, said)


def test_a_word_is_read_where_transformers_own_word_ids_say_it_begins() -> None:
    tokenizer = source_of(DEFAULT_ENCODER).tokenizer
    encoder = Encoder(tokenizer, reading=Tagging(LABELS, both_ways=True))
    for item in tag_rows():
        row, _ = encoder.tagged(" ".join(item["tokens"]), " ".join(item["tags"]))
        said = tokenizer(item["tokens"], is_split_into_words=True)
        numbers = said.word_ids()
        assert row.ids == tuple(said["input_ids"])
        assert row.places == tuple(numbers.index(word) for word in range(len(item["tokens"])))


def test_a_word_without_a_token_is_not_trained_and_said_to_be_left_out(tmp_path: Path) -> None:
    rows = [*tag_rows(40), {"tokens": ["Ada", "\u200b", "flew"], "tags": ["B-PER", "O", "O"]}]
    task = tag_task(data={"train": rows, "dev": tag_rows(3)[1:], "test": [{"tokens": ["Emmy", "ran"], "tags": ["B-PER", "O"]}]})
    found = nbtune.doctor(task, model=DEFAULT_ENCODER)
    assert [item.rows for item in found.findings if "leaves out" in item.text] == [("train[40]",)]
    row, there = Encoder(source_of(DEFAULT_ENCODER).tokenizer, reading=Tagging(LABELS, both_ways=True)).tagged(
        "Ada \u200b flew", "B-PER O O"
    )
    assert there == (0, 2)
    assert row.num_trained == 2


def test_a_long_text_loses_the_words_at_its_end_and_keeps_what_closes_it() -> None:
    row = Tagged(tuple(range(10)), 0, (1, 3, 6, 8), (0, 1, 2, 3))
    cut = row.cut(7, None)
    assert (cut.ids, cut.places, cut.tags) == ((0, 1, 2, 3, 4, 5, 9), (1, 3), (0, 1))
    assert row.cut(10, None) == row
    assert row.behind((77, 78)).places == (3, 5, 8, 10)


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "llama", "gpt2"])
def test_the_loss_is_transformers_own_on_first_tokens_and_packed_as_padded(family: str, tmp_path: Path) -> None:
    folder = tiny_encoder(family, tmp_path) if family in {"bert", "deberta-v2"} else tiny(family, tmp_path)
    task = tag_task()
    spec = get("head").spec.build({"objective": "tagging"})
    base = own_base(source_for("tagging", folder, task), dtype="float32", quantization=None, device="cpu")
    attach(get("head"), base, spec, "it")
    rows, _ = encode_rows(encoder_for(task, spec, base.tokenizer, base.config), task.train[:6], max_length=64)
    losses = []
    for packed in (False, True):
        with base.lease("it") as model:
            total, weight = objective("tagging").loss(model, collate(rows, packed=packed and family == "llama", pad_id=0))
        losses.append(float(total) / weight)
    with base.lease("it") as model:
        each = []
        for row in rows:
            logits = model(input_ids=torch.tensor([row.ids])).logits[0]
            each.append(functional.cross_entropy(logits[list(row.reads)].float(), torch.tensor(row.targets), reduction="sum"))
    assert weight == sum(len(item.prompt.split(" ")) for item in task.train[:6])
    assert losses == pytest.approx([float(sum(each)) / weight] * 2, rel=1e-4)


@pytest.mark.parametrize(("family", "method"), [("bert", "lora"), ("bert", "full"), ("bert", "prompt-tuning"), ("llama", "lora")])
def test_a_run_learns_to_tag_and_its_scores_are_seqevals(family: str, method: str, tmp_path: Path) -> None:
    folder = tiny_encoder(family, tmp_path) if family == "bert" else tiny(family, tmp_path)
    task = tag_task()
    assert task.labels == LABELS
    rate = {"full": 3e-3, "lora": 1e-2}.get(method, 3e-2)
    run = nbtune.finetune(method, task=task, model=folder, learning_rate=rate, max_steps=60, **QUICK).wait()
    assert run.spec["objective"] == "tagging"
    outputs = run.predict([item.row for item in task.test])
    expected = [item.completion for item in task.test]
    assert [len(text.split(" ")) for text in outputs] == [len(text.split(" ")) for text in expected]
    score = f1_score([text.split(" ") for text in expected], [text.split(" ") for text in outputs])
    if method != "prompt-tuning":
        assert score > 0.5
    table = nbtune.compare([run], task=task).table
    assert table["span_f1"].iloc[0] == pytest.approx(score)
    assert nbtune.open(run.folder).predict(["Grace wrote to Paris"]) == run.predict([{"tokens": ["Grace", "wrote", "to", "Paris"]}])


def test_a_grid_is_kept_where_the_shortest_row_holds_nothing_that_the_model_reads(tmp_path: Path) -> None:
    folder, task = tiny_encoder("bert", tmp_path), tag_task()
    run = nbtune.finetune("lora", task=task, model=folder, max_steps=2, **QUICK).wait()
    unread = {"tokens": ["\u200b"], "tags": ["O"]}
    rows = [item.row for item in task.test]
    other = nbtune.Task(name="odd", data={"train": [item.row for item in task.train], "test": [*rows, unread]}, kind="tagging")
    comparison = nbtune.compare([run], task=other)
    assert comparison.table["rows"].iloc[0] == len(rows) + 1
    assert any("on, logits differ from the base's" in check for check in comparison.checks)


def test_span_f1_is_seqevals_and_word_accuracy_the_mean_of_rows() -> None:
    expected = ["B-PER I-PER O", "O B-LOC O", "B-LOC O"]
    outputs = ["B-PER O O", "O B-LOC O", "B-PER O"]
    said = f1_score([text.split() for text in expected], [text.split() for text in outputs])
    assert metric_of("span_f1", "tagging").score(outputs, expected) == pytest.approx(said)
    assert metric_of("span_f1", "tagging").rows(outputs, expected) == [0.0, 1.0, 0.0]
    assert metric_of("word_accuracy", "tagging").score(outputs, expected) == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert metric_of(None, "tagging", ("NOUN", "VERB")).name == "word_accuracy"
    assert metric_of(None, "tagging", LABELS).name == "span_f1"


def test_a_conll_file_is_read_with_the_tag_last_and_sentences_apart(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("-DOCSTART- -X- O\n\nAda NNP B-PER\nran VBD O\n\n\nTurin NNP B-LOC\n")
    rows = [{"tokens": ["Ada", "ran"], "tags": ["B-PER", "O"]}, {"tokens": ["Turin"], "tags": ["B-LOC"]}]
    assert read("a.conll", folder=tmp_path) == {"all": rows}
    (tmp_path / "b.conll").write_text("Ada B-PER\nran\n")
    with pytest.raises(DataError, match=r"b.conll: line 2 has 1 columns, the first has 2"):
        read("b.conll", folder=tmp_path)


def _as_json(words: list[str]) -> str:
    return json.dumps(words)


def _as_numpy(words: list[str]) -> str:
    return str(np.array(words, dtype=object))


@pytest.mark.parametrize("written", [str, _as_json, _as_numpy])
def test_lists_that_a_table_keeps_as_text_are_the_same_words_and_tags(written: Any, tmp_path: Path) -> None:
    rows = [*tag_rows(40), {"tokens": ["it's", "'", "[", "a,b", "]", '"', "Zürich"], "tags": ["O"] * 6 + ["B-LOC"]}]
    rows += [{"tokens": [f"word{number}" for number in range(30)], "tags": ["O"] * 30}]  # numpy breaks its line
    pd.DataFrame([{name: written(words) for name, words in row.items()} for row in rows]).to_csv(tmp_path / "tags.csv", index=False)
    wanted, task = tag_task(data=rows), tag_task(data=str(tmp_path / "tags.csv"))
    assert task.labels == LABELS
    assert task.metric.name == "span_f1"
    texts = [{(item.prompt, item.completion) for item in (*each.train, *each.dev, *each.test)} for each in (task, wanted)]
    assert texts[0] == texts[1]
    assert task.render({"tokens": written(["Ada", "flew"])}) == "Ada flew"


@pytest.mark.parametrize(
    ("tokens", "tags"), [("[ 1 ]", "O O O"), ("[1] , [2]", "O O O"), ("[ 'a' ]", "O O O"), ("[CLS] a [SEP]", "O O O"), ("[]", "O")]
)
def test_words_in_brackets_that_are_no_list_stay_words(tokens: str, tags: str) -> None:
    rows = [{name: " ".join(words) for name, words in row.items()} for row in tag_rows(20)]
    task = tag_task(data={"train": [*rows, {"tokens": tokens, "tags": tags}], "test": tag_rows(22)[20:]})
    assert (task.train[-1].prompt, task.train[-1].completion) == (tokens, tags)


@pytest.mark.parametrize(
    ("tags", "prompt", "completion"),
    [("tags", "{{tokens}}", "{{tags}}\n"), ("ner tags", "{{- tokens -}}", "{{ ner_tags }}"), ("tags", "{{  tokens }}", "{{tags }}")],
)
def test_a_column_is_named_with_any_white_space_and_by_any_name(tags: str, prompt: str, completion: str) -> None:
    rows = [{"tokens": row["tokens"], tags: row["tags"]} for row in tag_rows(40)]
    assert tag_task(data=rows, prompt=prompt, completion=completion).labels == LABELS


def _with(tokens: Any, tags: Any) -> dict[str, Any]:
    return {"data": [*tag_rows(20), {"tokens": tokens, "tags": tags}]}


REFUSED: list[tuple[dict[str, Any], str, type[NbtuneError]]] = [
    (_with(["a", "b"], ["O", "I-PER"]), "row 21, word 2: 'I-PER' follows 'O', and in BIO a span begins with 'B-PER'", DataError),
    (_with(["a", "b"], ["B-LOC", "I-PER"]), "row 21, word 2: 'I-PER' follows 'B-LOC'", DataError),
    (_with(["a", "b"], ["B-LOC", "person"]), "row 21, word 2: 'person' is no BIO tag", DataError),
    (_with(["a", "b"], ["O"]), "row 21 has 2 words and 1 tags", DataError),
    (_with(["a", ""], ["O", "O"]), "row 21, 'tokens': word 2 is ''", DataError),
    (_with(["a", "b"], [0, 1]), "row 21, 'tags': word 1 is 0", DataError),
    (_with([], []), "row 21: 'tokens' holds no words", DataError),
    (_with("['EU', rejects]", "['B-LOC', 'O']"), "row 21: 'tokens' begins like a list and is none: \"\\['EU', rejects", DataError),
    (_with("EU rejects", "[B-LOC, O]"), "row 21: 'tags' begins like a list and is none", DataError),
    (_with("['EU', 'rejects']", "[3 0]"), "row 21, 'tags': word 1 is 3", DataError),
    (_with("['New York', 'fell']", "['B-LOC', 'O']"), "row 21, 'tokens': word 1 is 'New York'", DataError),
    (_with("['a' 'b']", "['O' 'O' 'O']"), "row 21 has 2 words and 3 tags", DataError),
    ({"prompt": "{{ tokens | lower }}"}, "of kind tagging it names the one column", DataError),
    ({"prompt": "{{ tokens }} {{ tokens }}"}, "of kind tagging it names the one column", DataError),
    ({"prompt": "Words: {{ tokens }}"}, "of kind tagging it names the one column", DataError),
    ({"labels": ["O", "B-PER", "I-PER"]}, "has the tag 'B-LOC', which labels does not list", DataError),
    ({"labels": ["O", "B-PER", "place"]}, "labels lists 'place', which is no BIO tag", DataError),
    ({"metric": "accuracy"}, "accuracy is not a metric of tagging", SpecError),
]


@pytest.mark.parametrize(("changes", "message", "kind"), REFUSED, ids=[text[:40] for _, text, _ in REFUSED])
def test_rows_that_cannot_be_tagged_are_refused_with_their_place(changes: dict[str, Any], message: str, kind: type[NbtuneError]) -> None:
    with pytest.raises(kind, match=message):
        tag_task(**changes)


def test_what_has_no_place_with_tags_is_refused_before_anything_is_loaded(bert: Path) -> None:
    with pytest.raises(SpecError, match="objective tagging needs a task of that kind, and 'tickets' is classification"):
        nbtune.finetune("lora", task=ticket_task(), model=bert, objective="tagging")
    with pytest.raises(SpecError, match="zero-shot writes text in place of tags"):
        nbtune.compare(["zero-shot"], task=tag_task(), model=bert)
    run = nbtune.finetune("head", task=tag_task(), model=bert, max_steps=1, **QUICK).wait()
    with pytest.raises(ModelError, match="has a head over 5 labels and writes no text"):
        run.generate(["a"])


def test_a_task_of_tags_and_its_run_are_opened_again(bert: Path, tmp_path: Path) -> None:
    task = tag_task()
    task.save(tmp_path)
    again = nbtune.Task.open(tmp_path)
    assert (again.fingerprint, again.labels, again.metric.name) == (task.fingerprint, task.labels, "span_f1")
    assert task.preview().label_counts["B-PER"] == {"train": len(task.train), "dev": len(task.dev), "test": len(task.test)}
    assert not nbtune.doctor(task, model=bert).refusals
