"""Texts as vectors of one length: the mean of a model's last states, so that texts of like meaning lie near each other.

Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084. The catalogue's encoder was trained for this; any other model serves, worse.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from nbtune.inference.progress import Counting, silent
from nbtune.models.catalogue import DEFAULT_ENCODER
from nbtune.models.families import context_of, is_encoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nbtune.models.base import Base

__all__ = ["Embedder"]

_ROWS: Final = 32
_MOST_KEPT: Final = 50_000
_ONE: Final = ("text",)
"""An encoder is loaded under a head, of which nothing is used here."""


@dataclass(frozen=True)
class Embedder:
    """Embeds with `base`; a text that was embedded before is not embedded again, for as long as the base is in memory."""

    base: Base

    @classmethod
    def of(cls, model: Any = None, *, device: str | None = None) -> Embedder:
        """Of a model as in `finetune`, left out: the catalogue's encoder; held in float32, one for all who ask for it.

        Raises:
            ModelError: it cannot be loaded.
        """
        from nbtune.models.loading import source_of
        from nbtune.models.shared import shared_base

        source = source_of(DEFAULT_ENCODER if model is None else model)
        source = source.over(_ONE) if is_encoder(source.config) else source
        base = shared_base(source, dtype="float32", quantization=None, device=device)
        return cls(base)

    @property
    def size(self) -> int:
        """Features of a vector."""
        return int(self.base.config.hidden_size)

    def embed(self, texts: Sequence[str], *, progress: Counting = silent) -> NDArray[np.float32]:
        """Vectors [texts, features] of length 1, so that a product is a cosine; what a model does not read of a long text is left out."""
        import numpy as np

        kept = _kept.setdefault(self.base, OrderedDict())
        new = list(dict.fromkeys(text for text in texts if text not in kept))
        order = sorted(new, key=len)
        found: dict[str, tuple[NDArray[np.float32], float]] = {}
        for start in range(0, len(order), _ROWS):
            chunk = order[start : start + _ROWS]
            began = time.perf_counter()
            vectors = self._vectors(chunk)
            each = (time.perf_counter() - began) / len(chunk)
            found.update({text: (vector, each) for text, vector in zip(chunk, vectors, strict=True)})
            progress(start + len(chunk), len(order))
        rows = [(found[text] if text in found else kept[text])[0] for text in texts]
        kept.update(found)
        while len(kept) > _MOST_KEPT:
            kept.popitem(last=False)
        return np.stack(rows) if rows else np.zeros((0, self.size), np.float32)

    def saved(self, texts: Sequence[str]) -> float:
        """The seconds that it need not take to embed these now, because it did before."""
        kept = _kept.setdefault(self.base, OrderedDict())
        return sum(kept[text][1] for text in dict.fromkeys(texts) if text in kept)

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch
        from torch.nn import functional

        tokenizer, most = self.base.tokenizer, context_of(self.base.config)
        if tokenizer.pad_token is None:
            ids = [tokenizer(text, truncation=most is not None, max_length=most)["input_ids"] for text in texts]
            width = max(1, *(len(row) for row in ids))
            read = {
                "input_ids": torch.tensor([[*row, *[0] * (width - len(row))] for row in ids]),
                "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
            }
        else:
            said = tokenizer(
                list(texts), padding=True, padding_side="right", truncation=most is not None, max_length=most, return_tensors="pt"
            )
            read = {name: said[name] for name in ("input_ids", "attention_mask")}
        read = {name: value.to(self.base.device) for name, value in read.items()}
        with self.base.lease() as model:
            states: torch.Tensor = model.base_model(**read).last_hidden_state.float()  # type: ignore[operator]
        mask = read["attention_mask"][..., None].float()
        means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        return functional.normalize(means, dim=-1).cpu().numpy()


_kept: WeakKeyDictionary[Base, OrderedDict[str, tuple[NDArray[np.float32], float]]] = WeakKeyDictionary()
"""Vectors with the seconds that each has taken."""
