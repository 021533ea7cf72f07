"""Heads beside that of one class: two texts, several labels, a number, classes that weigh alike; whose numbers they equal, what is refused."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils.class_weight import compute_class_weight
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

import nbtune
from nbtune.data.batches import collate
from nbtune.data.encoded import Labelled, Reading
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.data.pairs import Pair
from nbtune.errors import DataError, ModelError, NbtuneError, SpecError
from nbtune.launch.attached import _away
from nbtune.methods import attach, get
from nbtune.metrics.scores import metric_of
from nbtune.models.base import Base
from nbtune.models.catalogue import DEFAULT_ENCODER
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from nbtune.objectives import encoder_for, source_for
from nbtune.objectives import get as objective
from tests.examples import number_task, pair_rows, pair_task, ticket_rows, ticket_task, topic_task
from tests.tiny import tiny, tiny_encoder

QUICK: dict[str, Any] = {"dtype": "float32", "per_device_train_batch_size": 8, "num_samples": 1, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder("bert", tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny("llama", tmp_path_factory.mktemp("decoder"))


def _tuned(folder: Path, name: str, task: nbtune.Task, **options: Any) -> tuple[Base, Encoder]:
    """A base whose head is drawn and moved, and how texts are read."""
    spec = get("head").spec.build({"objective": name, **options})
    base = own_base(source_for(name, folder, task), dtype="float32", quantization=None, device="cpu")
    attach(get("head"), base, spec, "it")
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in base.trained("it").values():
            parameter.add_(torch.randn_like(parameter))
    return base, encoder_for(task, spec, base.tokenizer, base.config)


def _loss(base: Base, encoder: Encoder, name: str, items: Any) -> float:
    rows, _ = encode_rows(encoder, items, max_length=128)
    with base.lease() as model, torch.no_grad():
        loss, weight = objective(name).loss(model, collate(rows, packed=False, pad_id=0))
    assert weight == len(items)
    return float(loss)


def _own_head(base: Base, folder: Path, outputs: int) -> Any:
    """Transformers' own model with the same head, to be asked text by text."""
    plain = AutoModelForTokenClassification.from_pretrained(folder, num_labels=outputs, dtype=torch.float32).eval()
    plain.classifier.load_state_dict({key.removeprefix("classifier."): value for key, value in base.named("it").items()})
    return plain


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "electra", "distilbert"])
def test_two_texts_are_read_as_their_tokenizer_and_model_want_it(family: str, tmp_path: Path) -> None:
    folder, task = tiny_encoder(family, tmp_path), pair_task(20)
    base, encoder = _tuned(folder, "pairs", task)
    plain, tokenizer = _own_head(base, folder, 2), AutoTokenizer.from_pretrained(folder)
    wanted = 0.0
    for item in task.train[:5]:
        known = {"token_type_ids"} if int(getattr(plain.config, "type_vocab_size", 0) or 0) > 1 else set()
        told = tokenizer(item.row["premise"], item.row["hypothesis"], return_tensors="pt", return_token_type_ids=True)
        told = {key: value for key, value in told.items() if key in {"input_ids", "attention_mask"} | known}
        with torch.no_grad():
            logits = plain(**told).logits.mean(1)
        wanted += float(torch.nn.functional.cross_entropy(logits, torch.tensor([task.labels.index(item.expected)])))
    assert _loss(base, encoder, "pairs", task.train[:5]) == pytest.approx(wanted, abs=1e-4)


def test_of_two_long_texts_the_longer_one_is_cut_as_transformers_cuts_it() -> None:
    tokenizer = source_of(DEFAULT_ENCODER).tokenizer
    encoder = Encoder(tokenizer, reading=Reading(("a", "b"), "mean", both_ways=True))
    one, two = "the quick brown fox jumps over the lazy dog " * 3, "a cat sleeps"
    for first, second in ((one, two), (two, one), (one, one), (two, two)):
        row = encoder.labelled(Pair.of(first, second), "a")
        for most in (10, 13, 21, 40):
            said = tokenizer(first, second, truncation="longest_first", max_length=most)
            cut = row.cut(most, None)
            assert len(cut.ids) == len(said["input_ids"])
            assert abs(cut.second - said.sequence_ids().index(1)) <= 1  # an odd place may go to either text
            assert (cut.ids[0], cut.ids[-1], cut.ids[cut.second - 1]) == (
                tokenizer.cls_token_id,
                tokenizer.sep_token_id,
                tokenizer.sep_token_id,
            )
    assert row.behind((9, 9)).second == row.second + 2


def test_the_second_text_has_segments_of_its_own_and_a_single_text_none() -> None:
    rows = [
        Labelled(tuple(range(8)), 0, 0, "mean", spans=((1, 4), (5, 7))),
        Labelled(tuple(range(4)), 0, 0, "mean", spans=((1, 2), (3, 3))),
    ]
    batch = collate(rows, packed=False, pad_id=0)
    assert batch.segments is not None
    assert batch.segments.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 0, 0, 0, 0]]
    assert collate([Labelled((1, 2), 0, 0, "mean")], packed=False, pad_id=0).segments is None


def test_several_labels_have_the_loss_of_transformers_multi_label_classification(llama: Path) -> None:
    task = topic_task()
    base, encoder = _tuned(llama, "classification", task)
    count = len(task.labels)
    more: dict[str, Any] = {"num_labels": count, "problem_type": "multi_label_classification", "dtype": torch.float32}
    plain = AutoModelForSequenceClassification.from_pretrained(llama, **more).eval()
    plain.config.pad_token_id = 0
    head = {key: value for key, value in base.named("it").items() if key.endswith("weight")}
    bias = next(value for key, value in base.named("it").items() if key.endswith("bias"))
    plain.score.weight.data.copy_(next(iter(head.values())))
    with torch.no_grad():
        wanted = 0.0
        for item in task.train[:6]:
            ids = torch.tensor([AutoTokenizer.from_pretrained(llama)(item.prompt)["input_ids"]])
            said = plain(input_ids=ids).logits + bias
            true = torch.tensor([[float(label in item.row["topics"]) for label in task.labels]])
            wanted += float(torch.nn.functional.binary_cross_entropy_with_logits(said, true))
    assert _loss(base, encoder, "classification", task.train[:6]) == pytest.approx(wanted, abs=1e-4)


def test_a_number_is_learnt_in_units_of_its_spread_and_told_in_its_own(bert: Path) -> None:
    task = number_task()
    base, encoder = _tuned(bert, "regression", task)
    numbers = np.array([float(item.row["alike"]) for item in task.train])
    assert isinstance(encoder.reading, Reading)
    assert (encoder.reading.centre, encoder.reading.spread) == pytest.approx((numbers.mean(), numbers.std()))
    plain, tokenizer = _own_head(base, bert, 1), AutoTokenizer.from_pretrained(bert)
    with torch.no_grad():
        more = {"return_tensors": "pt", "return_token_type_ids": True}
        told = [tokenizer(item.row["premise"], item.row["hypothesis"], **more) for item in task.train[:6]]
        outputs = [float(plain(**each).logits.mean()) for each in told]
    true = (numbers[:6] - numbers.mean()) / numbers.std()
    assert _loss(base, encoder, "regression", task.train[:6]) == pytest.approx(((np.array(outputs) - true) ** 2).sum(), abs=1e-3)
    assert float(encoder.reading.answer([0.5])) == pytest.approx(numbers.mean() + 0.5 * numbers.std(), rel=1e-4)


def test_a_number_far_from_nought_is_told_to_a_part_of_its_spread_and_others_in_six_digits() -> None:
    seconds = [1_700_000_000.0 + 613 * number for number in range(140)]
    reading = Reading(("number",), "cls", both_ways=True, of="number", centre=float(np.mean(seconds)), spread=float(np.std(seconds)))
    told = [reading.answer([reading.target(str(value))]) for value in seconds]  # type: ignore[list-item]
    assert [float(text) for text in told] == pytest.approx(seconds, rel=0, abs=1)
    assert reading.answer([math.nan]) == "nan"
    assert Reading(("number",), "cls", both_ways=True, of="number", centre=0.1).answer([0.2]) == "0.3"
    assert Reading(("number",), "cls", both_ways=True, of="number", centre=2000.0, spread=10.0).answer([0.34567]) == "2003.46"


def test_balanced_weights_are_scikit_learns_and_weigh_the_loss(bert: Path) -> None:
    data = [row for number, row in enumerate(ticket_rows(120)) if row["team"] != "shipping" or number % 3 == 0]
    task = ticket_task(data=data)
    base, encoder = _tuned(bert, "classification", task, class_weights="balanced")
    assert isinstance(encoder.reading, Reading)
    truth = [item.expected for item in task.train]
    wanted = compute_class_weight("balanced", classes=np.array(task.labels), y=truth)
    assert encoder.reading.weights == pytest.approx(tuple(wanted))
    assert max(wanted) > 1.3 * min(wanted)
    _, plain = _tuned(bert, "classification", task)
    alone = [(_loss(base, encoder, "classification", [item]), _loss(base, plain, "classification", [item])) for item in task.train[:12]]
    for item, (weighted, unweighted) in zip(task.train[:12], alone, strict=True):
        assert weighted == pytest.approx(unweighted * wanted[task.labels.index(item.expected)], rel=1e-4)
    assert _loss(base, encoder, "classification", task.train[:12]) == pytest.approx(sum(value for value, _ in alone), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "make", "better"), [("pairs", pair_task, 0.8), ("regression", number_task, 0.8), ("classification", topic_task, 0.6)]
)
def test_a_run_learns_answers_in_the_task_s_own_words_and_stands_in_the_grid(name: str, make: Any, better: float, bert: Path) -> None:
    task = make(96)
    run = nbtune.finetune("full", task=task, model=bert, objective=name, num_train_epochs=8, **QUICK).wait()
    table = nbtune.compare([run], task=task).table
    assert table[task.metric.name].iloc[0] > better
    assert table["ci_low"].iloc[0] <= table[task.metric.name].iloc[0] <= table["ci_high"].iloc[0]
    asked = [dict(item.row) for item in task.test[:5]]
    again = nbtune.open(run.id)
    said = again.predict(asked)
    assert said == run.predict(asked)
    if name == "regression":
        assert all(np.isfinite(float(text)) for text in said)
    else:
        assert {label for text in said for label in text.split(", ")} <= {*task.labels, "none"}


@pytest.mark.parametrize("method", ["head", "last-blocks"])
@pytest.mark.parametrize(("name", "make"), [("pairs", pair_task), ("regression", number_task), ("classification", topic_task)])
def test_losses_over_kept_states_are_those_without_them(name: str, make: Any, method: str, bert: Path) -> None:
    found = []
    for cache in (True, False):
        more: dict[str, Any] = {"activation_cache": cache, **({"num_blocks": 1} if method == "last-blocks" else {})}
        more |= {"class_weights": "balanced"} if name == "pairs" else {}
        run = nbtune.finetune(method, task=make(), model=bert, objective=name, num_train_epochs=2, **QUICK, **more).wait()
        found.append(list(run.history["loss"].dropna()))
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_a_run_of_pairs_ends_the_same_when_it_was_stopped_between(bert: Path) -> None:
    ends = []
    for stops in (False, True):
        run = nbtune.finetune("lora", task=pair_task(), model=bert, objective="pairs", max_steps=6, save_steps=1, name=f"p{stops}", **QUICK)
        if stops:
            run.stop()
            run.wait()
            run.resume().wait()
        ends.append(run.wait())
    one, other = (list(run.history["loss"].dropna()) for run in ends)
    assert one == other
    assert len(one) == 6


def test_prompting_writes_several_labels_and_numbers_and_both_texts_of_a_pair(llama: Path) -> None:
    for task in (topic_task(), number_task(), pair_task()):
        table = nbtune.compare(["zero-shot", {"few-shot": {"k": 2}}], task=task, model=llama, dtype="float32").table
        assert np.isfinite(table[task.metric.name]).all()
    prompt = pair_task().test[0].prompt
    assert prompt == f"{prompt.first}\n{prompt.second}"


@pytest.mark.parametrize("make", [pair_task, topic_task, number_task])
def test_a_task_is_the_same_when_it_is_opened_again(make: Any, tmp_path: Path) -> None:
    task = make()
    task.save(tmp_path)
    again = nbtune.Task.open(tmp_path)
    assert (again.fingerprint, again.labels, again.kind, again.metric.name) == (task.fingerprint, task.labels, task.kind, task.metric.name)
    firsts = [(getattr(item.prompt, "first", None), getattr(item.prompt, "second", None)) for item in task.train]
    assert [(getattr(item.prompt, "first", None), getattr(item.prompt, "second", None)) for item in again.train] == firsts
    assert again.render(dict(task.train[0].row)) == task.train[0].prompt


def test_labels_come_from_lists_and_from_texts_that_commas_divide_and_none_is_none() -> None:
    data = [{"text": f"{number} about this and that", "topics": ("b, a", "a", "", "b;a", "none")[number % 5]} for number in range(40)]
    task = topic_task(data=data)
    assert task.labels == ("a", "b")
    assert {item.completion for item in (*task.train, *task.dev, *task.test)} == {"b, a", "a", "none"}
    assert task.label_counts(task.train)["a"] == sum("a" in item.row["topics"].replace(";", ",").split(",")[-1] for item in task.train)


def test_lists_that_a_table_keeps_as_text_are_lists() -> None:
    texts = ('["x"]', "['x', 'y']", "[]", "y", "['x' 'y']")
    task = topic_task(data=[{"text": f"{number} about something", "topics": texts[number % 5]} for number in range(40)])
    assert task.labels == ("x", "y")
    assert {item.completion for item in task.train} == {"x", "x, y", "none", "y"}


def test_numbers_that_are_all_the_same_in_a_part_are_warned_of() -> None:
    chance = random.Random(0)
    rows = [{"text": " ".join(f"{chance.randrange(10**6):x}" for _ in range(8)), "y": number % 7} for number in range(40)]
    data = {"train": rows[:20], "dev": rows[20:30], "test": [{**row, "y": 2} for row in rows[30:]]}
    task = nbtune.Task(data=data, prompt="{{ text }}", completion="{{ y }}", kind="regression")
    assert [text for text in task.warnings if "every test row expects 2: no correlation" in text]


@pytest.mark.parametrize(("make", "hint"), [(pair_task, "pairs"), (topic_task, "classification"), (number_task, "regression")])
def test_an_encoder_that_is_to_write_is_refused_with_the_objective_that_suits_the_task(make: Any, hint: str) -> None:
    with pytest.raises(ModelError, match="reads text and does not write it") as caught:
        nbtune.finetune("lora", task=make(), model=DEFAULT_ENCODER)
    assert caught.value.hint == f"use objective {hint}, or 'smollm2-135m'"


def test_micro_f1_is_scikit_learns_and_a_set_is_right_in_any_order() -> None:
    outputs, expected = ["a, b", "none", "c", "b, a", ""], ["a", "none", "c, d", "a, b", "a"]
    binarizer = MultiLabelBinarizer(classes=list("abcd"))
    sets = [[[] if text in ("none", "") else text.split(", ") for text in texts] for texts in (expected, outputs)]
    wanted = f1_score(binarizer.fit_transform(sets[0]), binarizer.transform(sets[1]), average="micro")
    metric = metric_of(None, "multi-label")
    assert metric.score(outputs, expected) == pytest.approx(wanted)
    assert metric.rows(outputs, expected) == [0.0, 1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"text_pair": None}, SpecError, "kind is pairs, and text_pair is missing"),
        ({"prompt": None, "completion": None}, SpecError, "text_pair is given, and prompt is missing"),
        ({"text_pair": "{{ hypo }}"}, DataError, "text_pair: the template reads column 'hypo'"),
        ({"text_pair": "the same"}, DataError, "the text_pair reads no column"),
        ({"kind": "text", "completion": None}, SpecError, "kind text reads one text"),
        ({"kind": "regression"}, DataError, "row 1: the completion is 'yes', which is no number"),
        ({"kind": "regression", "data": [{**row, "follows": "1,200"} for row in pair_rows()]}, DataError, "is '1,200', which is no number"),
        (
            {"kind": "regression", "data": [{**row, "follows": "3 apples"} for row in pair_rows()]},
            DataError,
            "'3 apples', which is no number",
        ),
        ({"kind": "regression", "data": [{**row, "follows": "3"} for row in pair_rows()]}, DataError, "every answer is 3.0"),
        ({"kind": "regression", "completion": "{{ alike }}", "labels": ["1", "2"]}, SpecError, "kind: regression has none"),
        ({"kind": "regression", "completion": "{{ alike }}", "metric": "accuracy"}, SpecError, "not a metric of regression"),
    ],
)
def test_pairs_and_numbers_that_cannot_be_are_refused(changes: dict[str, Any], error: type[NbtuneError], message: str) -> None:
    with pytest.raises(error, match=message):
        pair_task(**changes)


def test_labels_that_are_not_listed_or_cannot_be_written_are_refused() -> None:
    with pytest.raises(DataError, match="which labels does not list"):
        topic_task(labels=["urgent", "billing", "shipping"])
    with pytest.raises(DataError, match=r"row 1 has the label 'a, b'"):
        topic_task(data=[{"text": f"t {number}", "topics": ["a, b"]} for number in range(30)])
    with pytest.raises(DataError, match="begins like a list and is none"):
        topic_task(data=[{"text": f"t {number}", "topics": "[a, b"} for number in range(30)])
    with pytest.raises(DataError, match="no value in column 'topics'"):
        topic_task(data=[{"text": f"t {number}", "topics": None if number == 3 else "a"} for number in range(30)])
    with pytest.raises(DataError, match="no row has a label"):
        topic_task(data=[{"text": f"t {number} x", "topics": []} for number in range(30)])


@pytest.mark.parametrize(
    ("name", "make", "options", "message"),
    [
        ("pairs", ticket_task, {}, "reads two texts, and task 'tickets' has one"),
        ("regression", ticket_task, {}, "needs a task of that kind"),
        ("classification", number_task, {}, "needs a task of classes"),
        ("classification", topic_task, {"class_weights": "balanced"}, "may have several labels"),
        ("regression", number_task, {"class_weights": "balanced"}, "objective regression has no classes of rows"),
    ],
)
def test_an_objective_that_does_not_suit_the_task_is_refused(name: str, make: Any, options: Any, message: str, bert: Path) -> None:
    with pytest.raises(SpecError, match=message):
        nbtune.finetune("lora", task=make(), model=bert, objective=name, max_steps=1, **options).wait()


def test_a_classical_classifier_is_refused_where_a_row_has_several_labels(bert: Path) -> None:
    with pytest.raises(SpecError, match="fits classifiers, and task 'topics' is of kind multi-label"):
        nbtune.finetune("features", task=topic_task(), model=bert, objective="classification").wait()


def test_a_task_of_one_label_that_a_row_has_or_has_not_is_learnt(bert: Path) -> None:
    rows = [{"text": row["text"], "topics": ["late"] if row["team"] == "shipping" else []} for row in ticket_rows(60)]
    run = nbtune.finetune(
        "full", task=topic_task(data=rows), model=bert, objective="classification", max_steps=40, learning_rate=1e-3
    ).wait()
    losses = run.history["loss"].dropna()
    assert losses.iloc[-8:].mean() < losses.iloc[:8].mean()
    assert set(run.predict([row["text"] for row in rows[:6]])) <= {"late", "none"}


@pytest.mark.parametrize(("kind", "of"), [("regression", "number"), ("multi-label", "labels"), ("", "tokens")])
def test_how_far_a_merged_model_is_from_its_run_is_told_of_what_its_outputs_mean(kind: str, of: str) -> None:
    wanted, said = torch.randn(2, 4, {"number": 1}.get(of, 5), generator=torch.Generator().manual_seed(0))
    spread = {"number": lambda x: Normal(x, 1.0), "labels": lambda x: Bernoulli(logits=x), "tokens": lambda x: Categorical(logits=x)}[of]
    nats = kl_divergence(spread(wanted), spread(said))
    assert _away(wanted, said, kind) == pytest.approx(float(nats.sum() / 4), rel=1e-4)
    assert _away(wanted, wanted, kind) == pytest.approx(0, abs=1e-6)
