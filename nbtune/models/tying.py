"""Heads that share the embeddings' matrix, and how one gets a matrix of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbtune.models.families import head, is_seq2seq

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["say_untied", "untie_head"]


def untie_head(model: PreTrainedModel) -> None:
    """Gives a head that shares the embeddings' matrix a copy of its own, so that it can be trained alone.

    The configuration still says that they share one: some families compute otherwise where it does not. `say_untied` is for who writes it.
    """
    from torch import nn

    words: Any = model.get_input_embeddings()
    layer: Any = head(model)
    if getattr(layer, "weight", None) is getattr(words, "weight", None):
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=layer.weight.requires_grad)


def say_untied(model: PreTrainedModel) -> None:
    """Has the configuration of a model that is to be written say what `untie_head` did; it computes the same afterwards.

    Beside an encoder it stays as it is: it speaks of both embeddings too, which still are one, and in UMT5 and its kin of how the head's
    input is scaled. transformers opens two matrices that differ as two, whatever it says.
    """
    words: Any = model.get_input_embeddings()
    layer: Any = head(model)
    own, shared = getattr(layer, "weight", None), getattr(words, "weight", None)
    apart = own is not None and shared is not None and own is not shared and own.shape == shared.shape
    if apart and not is_seq2seq(model.config):
        model.config.tie_word_embeddings = False
