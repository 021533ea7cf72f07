"""Vectors are the mean of a model's last states over its own tokens, whatever is batched, kept or cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nbtune
from nbtune.inference.embedding import Embedder
from nbtune.models.catalogue import folder_of
from tests.tiny import tiny_encoder, tiny_llama

TEXTS = ["a tent", "where is my parcel, it was to come on monday", "", "billing", "Überweisung № 7 → zurück", "x " * 30]


def by_hand(folder: Path, texts: list[str], most: int | None = None) -> np.ndarray:
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", truncation=most is not None, max_length=most)
        with torch.no_grad():
            mean = model(input_ids=ids["input_ids"]).last_hidden_state[0].mean(0)
        found.append((mean / mean.norm()).numpy())
    return np.stack(found)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_an_encoders_vectors_equal_mean_pooling_by_plain_transformers(tmp_path: Path, family: str) -> None:
    folder = tiny_encoder(family, tmp_path / family)
    found = Embedder.of(str(folder)).embed(TEXTS)
    assert found.dtype == np.float32
    assert found == pytest.approx(by_hand(folder, TEXTS), abs=1e-5)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)


def test_a_decoder_serves_as_well(tmp_path: Path) -> None:
    folder, texts = tiny_llama(tmp_path / "decoder"), [text for text in TEXTS if text]
    assert Embedder.of(str(folder)).embed(texts) == pytest.approx(by_hand(folder, texts), abs=1e-5)


@pytest.mark.real_model
def test_minilm_equals_mean_pooling_by_plain_transformers_and_knows_what_is_alike() -> None:
    embedder = Embedder.of()
    found = embedder.embed(TEXTS)
    assert found == pytest.approx(by_hand(folder_of("minilm"), TEXTS), abs=1e-5)
    question, alike, other = embedder.embed(["I forgot my password", "I cannot log in", "the parcel is late"])
    assert question @ alike > question @ other + 0.1


def test_a_long_text_counts_as_far_as_the_model_reads(tmp_path: Path) -> None:
    folder = tiny_encoder("bert", tmp_path / "bert")
    text = "the parcel never came " * 200
    assert Embedder.of(str(folder)).embed([text]) == pytest.approx(by_hand(folder, [text], 140), abs=1e-5)


def test_batches_and_order_change_nothing_and_what_was_embedded_is_not_embedded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder.of(str(tiny_encoder("bert", tmp_path / "bert")))
    texts = [f"{'word ' * (number % 9)}{number}" for number in range(70)]
    read: list[str] = []
    plain = Embedder._vectors

    def vectors(self: Embedder, some: Any) -> Any:
        read.extend(some)
        return plain(self, some)

    monkeypatch.setattr(Embedder, "_vectors", vectors)
    together = embedder.embed(texts)
    assert sorted(read) == sorted(texts)
    assert (embedder.embed(texts[::-1])[::-1] == together).all()
    assert embedder.embed([texts[3], "new", "new"]).shape == (3, embedder.size)
    assert len(read) == len(texts) + 1
    alone = np.concatenate([plain(embedder, [text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-5)
    assert embedder.embed([]).shape == (0, embedder.size)


def test_whoever_asks_for_the_same_model_shares_it_and_unloading_lets_go_of_it(tmp_path: Path) -> None:
    import gc
    import weakref

    folder = str(tiny_encoder("bert", tmp_path / "bert"))
    first = Embedder.of(folder)
    assert Embedder.of(folder).base is first.base
    first.embed(["a tent"])
    held = weakref.ref(first.base)
    del first
    nbtune.models.unload()
    gc.collect()
    assert held() is None
