"""Soft prompts that begin with what is learnt: at the task's labels, or as rows with their answers that may move a little."""

from pathlib import Path
from typing import Any

import pytest
import torch

import nbtune
from nbtune.data.encoded import Encoded
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.data.instructions import Instruction
from nbtune.errors import SpecError
from nbtune.methods import attach, begin, first_ids, get
from nbtune.methods.cpt import context_of
from nbtune.models.base import Base
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from tests.examples import echo_task, ticket_rows, ticket_task
from tests.tiny import tiny, tiny_encoder
from tests.training.runs import bytes_of, figures, start

CPT: dict[str, Any] = {"num_virtual_tokens": 120, "opt_projection_epsilon": 2.0, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny("llama", tmp_path_factory.mktemp("tiny"))


def _begun(method: str, folder: Path, **options: Any) -> tuple[Base, Any, list[Encoded]]:
    """A base with the method begun on the tickets, its spec, and their rows."""
    base, spec = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu"), get(method).spec.build(options)
    task = ticket_task()
    rows, _ = encode_rows(Encoder(base.tokenizer, first=first_ids(get(method), spec, base.config)), task.train, max_length=256)
    attach(get(method), base, spec, "it")
    begin(get(method), base, spec, "it", task=task, rows=rows)
    return base, spec, rows


def _vectors(base: Base, *, training: bool = False) -> torch.Tensor:
    layer: Any = base.model.get_input_embeddings()
    with base.lease("it", training=training):
        return layer(
            torch.arange(layer.virtual_config["it"].vocabulary, layer.virtual_config["it"].vocabulary + len(layer.virtual_tokens["it"]))
        )  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning"])
def test_from_the_labels_each_first_vector_is_the_mean_of_one_label_s_tokens_and_the_rest_random_words(folder: Path, method: str) -> None:
    base, _, _ = _begun(method, folder, prompt_tuning_init="labels", num_virtual_tokens=5)
    other, _, _ = _begun(method, folder, num_virtual_tokens=5)
    table: Any = base.model.get_input_embeddings()
    found, words = table.virtual_tokens["it"], other.model.get_input_embeddings().virtual_tokens["it"]  # type: ignore[union-attr]
    task = ticket_task()
    assert len(task.labels) == 3
    for place, label in enumerate(task.labels):
        ids = base.tokenizer(f" {label}")["input_ids"]
        torch.testing.assert_close(found[place], table.base_layer.weight[ids].mean(0))
    assert torch.equal(found[3:], words[3:])
    assert not torch.equal(found[:3], words[:3])


def test_a_head_over_classes_takes_the_labels_too(tmp_path: Path) -> None:
    options = {"objective": "classification", "prompt_tuning_init": "labels", "num_virtual_tokens": 4, "max_steps": 2}
    run = nbtune.finetune("prompt-tuning", task=ticket_task(), model=tiny_encoder("bert", tmp_path / "bert"), **options)
    assert run.wait().status == "finished"


@pytest.mark.parametrize(("task", "match"), [(echo_task(), "is generation, which has none"), (ticket_task(), "3 labels do not go into 2")])
def test_labels_that_are_not_there_or_too_many_are_refused_at_once(folder: Path, task: nbtune.Task, match: str) -> None:
    options = {"prompt_tuning_init": "labels", "num_virtual_tokens": 2}
    for ask in (nbtune.estimate, nbtune.finetune):
        with pytest.raises(SpecError, match=match) as refused:
            ask("prompt-tuning", task=task, model=folder, **options)
        assert refused.value.hint
    assert nbtune.runs() == []


def test_cpt_begins_as_the_end_of_training_rows_with_their_answers(folder: Path) -> None:
    base, spec, rows = _begun("cpt", folder, **CPT)
    text = base.tokenizer.decode(context_of(rows, spec, None, base.tokenizer("\n\n")["input_ids"])[0])
    task = ticket_task()
    shots = text.removesuffix("<|end|>\n\n").split("<|end|>\n\n")
    assert shots[-1] in {item.prompt + item.completion for item in task.train}
    ids, moves = context_of(rows, spec, None, base.tokenizer("\n\n")["input_ids"])
    assert len(ids) == len(moves) == 120
    answers = base.tokenizer.decode([token for token, moved in zip(ids, moves, strict=True) if not moved]).replace("<|end|>", " ")
    assert answers.split()[-1] == shots[-1].rsplit(" ", 1)[-1]
    assert set(answers.split()) <= set(task.labels)
    assert torch.equal(_vectors(base), base.model.get_input_embeddings().base_layer.weight[ids])  # type: ignore[union-attr, index]


def test_a_context_is_asked_as_the_same_text_would_be(folder: Path) -> None:
    base, spec, rows = _begun("cpt", folder, **CPT)
    ids, _ = context_of(rows, spec, None, base.tokenizer("\n\n")["input_ids"])
    first = first_ids(get("cpt"), spec, base.config)
    with base.lease("it") as model:
        found = model(input_ids=torch.tensor([[*first, *range(20, 32)]])).logits
    with base.lease() as model:
        assert torch.equal(found, model(input_ids=torch.tensor([[*ids, *range(20, 32)]])).logits)


def test_each_embedding_stays_within_its_distance_and_those_of_answers_where_they_are(folder: Path) -> None:
    base, spec, rows = _begun("cpt", folder, **CPT)
    _, moves = context_of(rows, spec, None, base.tokenizer("\n\n")["input_ids"])
    before = _vectors(base)
    limit = 2.0 * (64 / 2048) ** 0.5
    optimizer = torch.optim.AdamW(base.trained("it").values(), lr=0.1)
    for step in range(8):
        with base.lease("it", training=True) as model:
            ids = torch.tensor([rows[step].ids])
            model(input_ids=ids, labels=torch.where(ids >= len(base.tokenizer), -100, ids)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    away = (_vectors(base) - before).norm(dim=1)
    moved = torch.tensor(moves)
    assert away[~moved].max() == 0
    assert away[moved].max() <= limit * (1 + 1e-6)
    assert (away[moved] > 0.99 * limit).any()  # so far that the bound was needed
    torch.testing.assert_close(_vectors(base, training=True), _vectors(base))


def test_cpt_stopped_and_resumed_ends_with_the_same_bytes_and_opens_with_its_context(folder: Path) -> None:
    whole = start(folder, "cpt", **CPT).wait()
    run = start(folder, "cpt", **CPT)
    run.listen(lambda event: run.stop() if event.type == "step" and event.step == 4 else None)
    run.wait()
    run.resume().wait()
    assert bytes_of(run) == bytes_of(whole)
    assert figures(run) == figures(whole)
    prompt = run.task.test[0].prompt
    wanted = run.engine().logits(prompt)
    nbtune.models.unload()
    assert torch.equal(nbtune.open(run.id).engine().logits(prompt), wanted)


def test_rows_fill_the_context_from_its_end_and_what_begins_a_text_is_left_out() -> None:
    rows = [Encoded((7, 8, 9, 5, 2), 3).behind((600, 601, 602, 603, 604))]  # 7 begins a text, 5 is the answer, 2 the end of sequence
    spec = get("cpt").spec.build({"num_virtual_tokens": 5})
    assert context_of(rows, spec, 7, [1]) == ([8, 9, 5, 2, 1], [True, True, False, False, True])
    assert context_of(rows, spec, None, [1]) == ([8, 9, 5, 2, 1], [True, True, False, False, True])
    assert context_of(rows, spec, None, []) == ([7, 8, 9, 5, 2], [True, True, True, False, False])


def test_cpt_is_refused_where_no_answer_is_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="objective classification writes none") as refused:
        nbtune.estimate("cpt", model=tiny_encoder("bert", tmp_path / "bert"), task=ticket_task(), objective="classification")
    assert refused.value.hint


def _three_sets() -> nbtune.Task:
    """Two sets that are trained and one that is not."""
    rows = [{"text": row["text"].upper(), "money": "yes" if row["team"] == "billing" else "no"} for row in ticket_rows(60)]
    money = nbtune.Task(name="money", data=rows, prompt="{{ text }}\nMoney:", completion=" {{ money }}", kind="classification")
    return nbtune.instructions({"tickets": ticket_task(), "words": echo_task(), "money": money}, hold_out=["money"], inverted=0.0)


MULTITASK: dict[str, Any] = {"num_virtual_tokens": 6, "learning_rate": 0.05, "dtype": "float32", "num_samples": 0}


def test_of_several_tasks_each_has_the_shared_prompt_times_its_own_matrix_of_rank_one_and_others_the_mean(folder: Path) -> None:
    base = own_base(source_of(folder), dtype="float32", quantization=None, device="cpu")
    attach(
        get("multitask-prompt-tuning"), base, get("multitask-prompt-tuning").spec.build({"sets": ["a", "b"], "num_virtual_tokens": 5}), "it"
    )
    layer: Any = base.model.get_input_embeddings()
    shared = layer.virtual_tokens["it"]
    begin_ids = layer.virtual_config["it"].vocabulary + torch.arange(15)
    with base.lease("it"):
        assert torch.equal(layer(begin_ids), shared.repeat(3, 1))  # at first all are the shared one
    with torch.no_grad():
        for part in (layer.virtual_places["it"], layer.virtual_features["it"]):
            part.copy_(torch.randn(part.shape, generator=torch.Generator().manual_seed(len(part.shape) + part.shape[1])))
    each = [shared * torch.outer(layer.virtual_places["it"][task], layer.virtual_features["it"][task]) for task in range(2)]
    with base.lease("it"):
        torch.testing.assert_close(layer(begin_ids), torch.cat([(each[0] + each[1]) / 2, *each]))


def test_rows_of_a_set_stand_behind_their_own_prompt_and_those_of_a_set_held_out_behind_the_mean(folder: Path) -> None:
    task = _three_sets()
    run = nbtune.finetune("multitask-prompt-tuning", task=task, model=folder, max_steps=12, **MULTITASK).wait()
    assert tuple(run.spec["sets"]) == ("tickets", "words")
    encoder = run.engine().encoder
    begins = {}
    for item in (*task.train, *task.test):
        begins.setdefault(item.row["set"], set()).add(encoder.prompt_ids(item.prompt)[0] - encoder.first[0])
    assert begins == {"money": {0}, "tickets": {6}, "words": {12}}
    assert encoder.prompt_ids("any text")[:6] == list(encoder.first)
    layer: Any = run.engine().base.model.get_input_embeddings()
    places = layer.virtual_places[run.id]
    assert not torch.equal(places[0], places[1])  # each has learnt of its own rows
    assert run.summary["trainable_parameters"] == 6 * 64 + 2 * (6 + 64)
    assert nbtune.estimate("multitask-prompt-tuning", task=task, model=folder, **MULTITASK).trainable_parameters == 6 * 64 + 2 * (6 + 64)


def test_it_is_opened_again_with_the_prompts_of_all_its_sets(folder: Path) -> None:
    task = _three_sets()
    run = nbtune.finetune("multitask-prompt-tuning", task=task, model=folder, num_train_epochs=2, **MULTITASK).wait()
    prompts = [next(item for item in task.test if item.row["set"] == name) for name in ("tickets", "words", "money")]
    before = [run.engine().logits(item.prompt) for item in prompts]
    said = run.predict([dict(item.row) for item in prompts])
    nbtune.models.unload()
    again = nbtune.open(run.id)
    for item, logits in zip(prompts, before, strict=True):
        assert torch.equal(again.engine().logits(item.prompt), logits)
        assert torch.equal(again.engine().logits(again.task.render(dict(item.row))), logits)
    assert again.predict([dict(item.row) for item in prompts]) == said
    assert not torch.equal(before[0], again.engine().logits(str(prompts[0].prompt)))  # a text alone says nothing of its set


def test_a_grid_of_one_of_the_mixed_tasks_asks_with_that_set_s_own_prompt_and_says_where_there_is_none(folder: Path) -> None:
    mixed, tickets = _three_sets(), ticket_task()
    run = nbtune.finetune("multitask-prompt-tuning", task=mixed, model=folder, num_train_epochs=3, **MULTITASK).wait()
    own = run.engine().encoder
    grid = nbtune.compare([run], task=tickets)
    item = tickets.test[0]
    of_set = Instruction.of(str(item.prompt), "tickets")
    answers = [f" {label}" for label in tickets.labels]
    expected = [total for total, _ in run.engine().score([of_set], answers)[0]]
    assert [grid.outputs.iloc[0]["log_probabilities"][label] for label in tickets.labels] == pytest.approx(expected, abs=1e-4)
    assert own.asking("tickets").prompt_ids(str(item.prompt)) == own.prompt_ids(of_set)
    assert [total for total, _ in run.engine().score([str(item.prompt)], answers)[0]] != pytest.approx(expected, abs=1e-4)
    assert not any("their mean" in each for each in grid.warnings)
    other = nbtune.compare([run], task=ticket_task(name="another"))
    assert any("task 'another' is none of these, and is asked with their mean" in each for each in other.warnings)


def test_one_task_alone_and_a_set_that_is_not_trained_are_refused_at_once(folder: Path) -> None:
    asked = [
        (ticket_task(), {}, "learns several tasks at once, and 'tickets' is one"),
        (_three_sets(), {"sets": ["money"]}, "sets names 'money'"),
    ]
    for task, options, match in asked:
        for ask in (nbtune.estimate, nbtune.finetune):
            with pytest.raises(SpecError, match=match) as refused:
                ask("multitask-prompt-tuning", task=task, model=folder, **options)
            assert refused.value.hint
    assert nbtune.runs() == []
