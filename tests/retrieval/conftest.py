"""A tiny embedding model, and a working folder of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tiny_encoder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_encoder("bert", tmp_path_factory.mktemp("encoder") / "tiny", max_position_embeddings=512))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, so that sources have short names."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
