"""Frozen states under a classical classifier: whose numbers they equal, that a run of them is a run, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from transformers import AutoModel, AutoTokenizer

import nbtune
from nbtune.errors import ModelError, NbtuneError, RunError, SpecError
from nbtune.events import Note
from nbtune.inference.classical import Classical, settings_for
from tests.examples import ticket_rows, ticket_task
from tests.tiny import tiny_encoder, tiny_llama

KINDS = ("logistic", "svm", "random-forest", "gradient-boosting", "knn")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder("bert", tmp_path_factory.mktemp("encoder"))


def _run(folder: Path, **options: Any) -> nbtune.Run:
    return nbtune.finetune("features", task=ticket_task(), model=folder, dtype="float32", **options).wait()


def test_states_and_logistic_regression_equal_transformers_and_scikit_learn_by_hand(bert: Path) -> None:
    task, run = ticket_task(), _run(bert)
    tokenizer = AutoTokenizer.from_pretrained(bert)
    model = AutoModel.from_pretrained(bert, dtype=torch.float32).eval()

    def states(prompts: list[str]) -> np.ndarray:
        with torch.no_grad():
            return np.stack([model(**tokenizer(prompt, return_tensors="pt")).last_hidden_state[0].mean(0).numpy() for prompt in prompts])

    classical = Classical.open(run.folder / "checkpoints" / "step-000001")
    train = states([item.prompt for item in task.train])
    np.testing.assert_allclose(classical.states, train, rtol=1e-3, atol=1e-4)
    by_hand = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=run.summary["classifier"]["C"]))
    by_hand.fit(train, [task.labels.index(str(item.label)) for item in task.train])
    wanted = by_hand.predict_log_proba(states([item.prompt for item in task.test]))
    found = np.array([[value for value, _ in row] for row in run.engine().score([item.prompt for item in task.test], task.labels)])
    np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=1e-2)
    assert run.summary["trainable_parameters"] == (64 + 1) * 3


@pytest.mark.parametrize("kind", KINDS)
def test_each_classifier_learns_stands_in_a_grid_and_opens_again_without_a_pickle(bert: Path, kind: str) -> None:
    task, run = ticket_task(), _run(bert, classifier=kind)
    assert run.status == "finished"
    assert list(run.history.index) == [1]
    assert run.history["loss"].iloc[0] < np.log(3)
    prompts = [item.prompt for item in task.test]
    before = run.engine().score(prompts, task.labels)
    assert all(sum(np.exp(value) for value, _ in row) == pytest.approx(1.0, abs=1e-4) for row in before)
    comparison = nbtune.compare([run], task=task)
    assert comparison.warnings == []
    assert any("no weight of" in check for check in comparison.checks)
    files = sorted(path.name for path in (run.folder / "checkpoints" / "step-000001").iterdir())
    assert files == ["classifier.json", "features.safetensors", "optimizer.safetensors", "state.json"]
    nbtune.models.unload()
    assert nbtune.open(run.id).engine().score(prompts, task.labels) == before
    assert run.predict([item.row for item in task.test]) == [task.labels[int(np.argmax([value for value, _ in row]))] for row in before]


@pytest.mark.parametrize("kind", ["logistic", "svm", "random-forest", "gradient-boosting"])
def test_balanced_classes_weigh_alike_and_still_do_when_it_is_opened_again(bert: Path, kind: str) -> None:
    rows = [row for number, row in enumerate(ticket_rows(120)) if row["team"] != "shipping" or number % 3 == 0]
    task = ticket_task(data=rows)
    plain, run = (
        nbtune.finetune("features", task=task, model=bert, dtype="float32", classifier=kind, class_weights=weights).wait()
        for weights in ("none", "balanced")
    )
    classical, other = (Classical.open(each.folder / "checkpoints" / "step-000001") for each in (run, plain))
    assert classical.weights is not None
    assert other.weights is None
    assert classical.weights == pytest.approx(compute_sample_weight("balanced", classical.classes), rel=1e-6)
    if kind == "logistic":
        by_hand = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=classical.settings["C"], class_weight="balanced"))
        by_hand.fit(classical.states, classical.classes)
        wanted = by_hand.predict_log_proba(classical.states)
        np.testing.assert_allclose(classical.log_probabilities(classical.states), wanted, rtol=1e-3, atol=1e-3)
        nats = -wanted[range(len(wanted)), classical.classes]
        assert run.history["loss"].iloc[0] == pytest.approx(float((nats * classical.weights).mean()), rel=1e-3)
    more = {"seed": 0, "num_classes": classical.num_classes}
    plainest = kind, next(settings_for(kind, 99)), classical.states, classical.classes
    alike, weighed = Classical.fitted(*plainest, **more), Classical.fitted(*plainest, **more, weights=classical.weights)
    states = np.random.default_rng(0).normal(classical.states.mean(0), classical.states.std(0), classical.states.shape)
    assert not np.allclose(alike.log_probabilities(states), weighed.log_probabilities(states))


def test_the_best_setting_on_dev_is_taken_and_all_that_was_tried_is_told(bert: Path) -> None:
    run = _run(bert)
    told = next(event.text for event in run.events() if isinstance(event, Note) and event.text.startswith("logistic"))
    scores = [float(part.split()[-1]) for part in told.split("rows: ")[1].split(";")[0].split(", ")]
    assert len(scores) == len(list(settings_for("logistic", 99)))
    assert run.summary["scores"]["eval_accuracy"] == pytest.approx(max(scores), abs=5e-4)


def test_a_decoder_s_states_are_read_at_its_last_token(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "llama")
    run, tokenizer = _run(folder), AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        prompts = [item.prompt for item in ticket_task().train[:5]]
        wanted = [model(**tokenizer(prompt, return_tensors="pt")).last_hidden_state[0, -1].numpy() for prompt in prompts]
    found = Classical.open(run.folder / "checkpoints" / "step-000001").states[:5]
    np.testing.assert_allclose(found, np.stack(wanted), rtol=1e-3, atol=1e-4)


def test_it_is_stopped_while_the_states_are_computed(bert: Path) -> None:
    run = nbtune.finetune("features", task=ticket_task(), model=bert, dtype="float32")
    run.listen(lambda event: run.stop() if event.type == "started" else None)
    run.wait()
    assert run.status == "stopped"
    with pytest.raises(RunError, match="no checkpoint yet"):
        run.engine()


def test_with_its_adapter_off_an_engine_of_features_is_the_same_engine(bert: Path) -> None:
    engine = _run(bert).engine()
    prompt = ticket_task().test[0].prompt
    assert torch.equal(engine.off().logits(prompt), engine.logits(prompt))


def test_a_classifier_is_saved_as_it_is_and_what_it_has_not_is_refused(bert: Path, tmp_path: Path) -> None:
    run = _run(bert)
    saved = run.save(tmp_path / "saved")
    assert Classical.open(saved).kind == "logistic"
    with pytest.raises(RunError, match="cannot be merged"):
        run.save(tmp_path / "merged", merge=True)
    with pytest.raises(RunError, match="trained nothing of its model"):
        _ = run.model
    with pytest.raises(RunError, match="holds no classifier"):
        Classical.open(tmp_path)
    with pytest.raises(ModelError, match="writes no text"):
        run.generate(["Ticket"])
    cases: list[tuple[type[NbtuneError], str, dict[str, Any]]] = [
        (SpecError, "the objective is sft", {"objective": "sft"}),
        (SpecError, "classifier", {"classifier": "perceptron"}),
        (SpecError, "classifier knn takes no weights of rows", {"classifier": "knn", "class_weights": "balanced"}),
    ]
    for kind, match, options in cases:
        with pytest.raises(kind, match=match) as refused:
            nbtune.finetune("features", task=ticket_task(), model=tiny_llama(tmp_path / "llama"), **options).wait()
        assert refused.value.hint
