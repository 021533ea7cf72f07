"""Head only: the output layer is trained, everything below it is a fixed feature extractor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from nbtune.spec import FinetuneSpec, peak

if TYPE_CHECKING:
    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "Head", "HeadSpec"]


class HeadSpec(FinetuneSpec):
    """No options of its own."""

    learning_rate: float = peak(1e-2)


class Head:
    """A head that shares the embeddings' matrix gets a copy of its own first."""

    name: ClassVar[str] = "head"
    summary: ClassVar[str] = "the output layer only; the blocks below stay as they are"
    paper: ClassVar[str] = "https://arxiv.org/abs/1411.1792"
    spec: ClassVar[type[FinetuneSpec]] = HeadSpec
    writes_base: ClassVar[bool] = True
    kind: ClassVar[str | None] = None
    merges: ClassVar[bool] = True

    def requires(self, facts: Facts, spec: FinetuneSpec) -> None:
        """Works wherever there is a head; bitsandbytes leaves it unquantized."""

    def attach(self, base: Base, spec: FinetuneSpec, name: str) -> None:
        """Sets the head free."""
        from nbtune.models.families import head
        from nbtune.models.tying import untie_head

        untie_head(base.model)
        base.train_only([head(base.model)])


METHOD: Final = Head()
