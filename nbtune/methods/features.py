"""Features: the frozen model's states of each text, computed once, and a classical classifier over them.

Peters et al. 2019, "To Tune or Not to Tune?" (https://arxiv.org/abs/1903.05987), where this is feature extraction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Literal

from nbtune.errors import SpecError
from nbtune.spec import FinetuneSpec, option

if TYPE_CHECKING:
    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "Features", "FeaturesSpec"]


class FeaturesSpec(FinetuneSpec):
    """Which classifier; what it is tuned over on the dev rows is a small grid of its own."""

    objective: Literal["sft", "classification"] = option("classification", "what is learnt: features can do classification", group="run")
    classifier: Literal["logistic", "svm", "random-forest", "gradient-boosting", "knn"] = option(
        "logistic", "scikit-learn's classifier over the states, its settings chosen on the dev rows"
    )


class Features:
    """See the module's text."""

    name: ClassVar[str] = "features"
    summary: ClassVar[str] = "frozen embeddings and a classical classifier; seconds, and no weight of the model is trained"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.05987"
    spec: ClassVar[type[FinetuneSpec]] = FeaturesSpec
    writes_base: ClassVar[bool] = False
    kind: ClassVar[str | None] = None
    merges: ClassVar[bool] = False
    estimates: ClassVar[bool] = True

    def requires(self, facts: Facts, spec: FinetuneSpec) -> None:
        """Refuses what a classifier cannot learn.

        Raises:
            SpecError: another objective than classification; classes that weigh otherwise, and neighbours, which all weigh alike.
        """
        if spec.objective != "classification":
            message = f"features puts a classifier over frozen states, and the objective is {spec.objective}"
            raise SpecError(message, hint="leave objective out, or use lora")
        if isinstance(spec, FeaturesSpec) and spec.classifier == "knn" and spec.class_weights != "none":
            message = f"class_weights is {spec.class_weights}, and classifier knn takes no weights of rows"
            raise SpecError(message, hint="leave class_weights out, or use classifier: logistic")

    def attach(self, base: Base, spec: FinetuneSpec, name: str) -> None:
        """Nothing of the model is trained."""


METHOD: Final = Features()
