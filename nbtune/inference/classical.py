"""Classical classifiers over a frozen model's states: fitted by scikit-learn, kept as the states they were fitted on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nbtune.data.batches import collate
from nbtune.errors import RunError
from nbtune.inference.classifying import Classifier
from nbtune.models.families import can_pack

if TYPE_CHECKING:
    import numpy as np
    import torch

    from nbtune.data.encoded import Labelled
    from nbtune.inference.progress import Counting
    from nbtune.models.base import Base

__all__ = ["Classical", "FeaturesEngine", "settings_for", "states_of"]

_STATES: Final = "features.safetensors"
_SAID: Final = "classifier.json"
_LEAST: Final = 1e-12
"""The probability of a class that a classifier was never shown."""
_ROWS: Final = 64


def states_of(base: Base, rows: Sequence[Labelled], progress: Counting) -> torch.Tensor:
    """The states [n, hidden] of texts, float32 on the CPU, where their classes would be read."""
    import torch

    from nbtune.objectives.classification import pooled_states

    order = sorted(range(len(rows)), key=lambda number: (len(rows[number].ids), number))
    found: list[Any] = [None] * len(rows)
    for start in range(0, len(order), _ROWS):
        chunk = order[start : start + _ROWS]
        batch = collate([rows[number] for number in chunk], packed=can_pack(base.config), pad_id=int(base.tokenizer.pad_token_id or 0))
        with base.lease() as model:
            states = pooled_states(model, batch.to(base.device)).cpu()
        for number, state in zip(chunk, states, strict=True):
            found[number] = state
        progress(min(start + _ROWS, len(order)), len(order))
    return torch.stack(found)


def settings_for(kind: str, num_rows: int) -> Iterator[dict[str, Any]]:
    """The settings of a classifier that are tried, the plainest first."""
    if kind == "logistic":
        yield from ({"C": value} for value in (0.01, 0.001, 0.1, 1.0))
    elif kind == "svm":
        yield from ({"kernel": "linear", "C": value} for value in (0.01, 0.001, 0.1))
        yield from ({"kernel": "rbf", "C": value} for value in (1.0, 10.0))
    elif kind == "random-forest":
        yield from ({"n_estimators": 300, "min_samples_leaf": leaf} for leaf in (1, 3))
    elif kind == "gradient-boosting":
        yield from ({"learning_rate": rate, "max_iter": 60, "max_leaf_nodes": 15, "max_features": 0.2} for rate in (0.1, 0.3))
    else:
        yield from ({"n_neighbors": count} for count in (5, 1, 3, 9, 15, 25) if count <= num_rows)


@dataclass(frozen=True)
class Classical:
    """A fitted classifier, and all that it takes to fit it again: the states [n, hidden], their classes [n], and its settings.

    `weights` [n] are what rows weigh where they differ.
    """

    kind: str
    settings: dict[str, Any]
    seed: int
    num_classes: int
    states: np.ndarray
    classes: np.ndarray
    model: Any
    weights: np.ndarray | None = None

    @classmethod
    def fitted(
        cls,
        kind: str,
        settings: dict[str, Any],
        states: np.ndarray,
        classes: np.ndarray,
        *,
        seed: int,
        num_classes: int,
        weights: np.ndarray | None = None,
    ) -> Classical:
        """Fitted to these states, each by its weight."""
        model = _unfitted(kind, settings, seed)
        last = f"{model.steps[-1][0]}__" if hasattr(model, "steps") else ""
        model.fit(states, classes, **({} if weights is None else {f"{last}sample_weight": weights}))
        return cls(kind, settings, seed, num_classes, states, classes, model, weights)

    @classmethod
    def open(cls, folder: Path) -> Classical:
        """The one that `write` kept, fitted again: nothing is unpickled.

        Raises:
            RunError: the folder holds none.
        """
        from safetensors.numpy import load_file

        try:
            said, kept = json.loads((folder / _SAID).read_text()), load_file(folder / _STATES)
            more = {"seed": said["seed"], "num_classes": said["num_classes"], "weights": kept.get("weights")}
            return cls.fitted(said["kind"], said["settings"], kept["states"], kept["classes"], **more)
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{folder} holds no classifier: {error}", hint="train it again") from error

    def write(self, folder: Path) -> None:
        """Writes features.safetensors and classifier.json."""
        from safetensors.numpy import save_file

        weights = {} if self.weights is None else {"weights": self.weights}
        save_file({"states": self.states, "classes": self.classes, **weights}, folder / _STATES)
        said = {"kind": self.kind, "settings": self.settings, "seed": self.seed, "num_classes": self.num_classes}
        (folder / _SAID).write_text(json.dumps(said, indent=1))

    def log_probabilities(self, states: np.ndarray) -> np.ndarray:
        """Of each class [n, classes]; where a classifier has distances alone (svm), their softmax."""
        import numpy as np
        from scipy.special import log_softmax

        if hasattr(self.model, "predict_proba"):
            known = np.log(np.maximum(self.model.predict_proba(states), _LEAST))
        else:
            distances = self.model.decision_function(states)
            known = log_softmax(np.stack([-distances, distances], 1) / 2 if distances.ndim == 1 else distances, axis=1)
        found = np.full((len(states), self.num_classes), np.log(_LEAST))
        found[:, self.model.classes_] = known
        return found

    @property
    def num_fitted(self) -> int:
        """Numbers that were fitted: coefficients, support vectors, nodes of trees, or the states that neighbours are looked for among."""
        last = self.model[-1] if hasattr(self.model, "steps") else self.model
        if hasattr(last, "support_vectors_"):
            return int(last.support_vectors_.size + last.dual_coef_.size + last.intercept_.size)
        if hasattr(last, "coef_"):
            return int(last.coef_.size + last.intercept_.size)
        if hasattr(last, "estimators_"):
            return int(sum(tree.tree_.node_count for tree in last.estimators_))
        if hasattr(last, "_predictors"):
            return int(sum(len(tree.nodes) for trees in last._predictors for tree in trees))  # noqa: SLF001  it tells nowhere else
        return int(self.states.size)


def _unfitted(kind: str, settings: dict[str, Any], seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if kind == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, **settings))
    if kind == "svm":
        return make_pipeline(StandardScaler(), SVC(random_state=seed, **settings))
    if kind == "random-forest":
        return RandomForestClassifier(random_state=seed, **settings)
    if kind == "gradient-boosting":
        return HistGradientBoostingClassifier(random_state=seed, early_stopping=False, **settings)
    return KNeighborsClassifier(metric="cosine", weights="distance", **settings)


@dataclass(frozen=True, kw_only=True)
class FeaturesEngine(Classifier):
    """Answers by a classical classifier over the frozen model's states."""

    classical: Classical

    def _logits(self, rows: Sequence[Labelled]) -> torch.Tensor:
        import torch

        states = states_of(self.base, rows, lambda _done, _total: None)
        return torch.from_numpy(self.classical.log_probabilities(states.numpy())).float()
