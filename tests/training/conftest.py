"""One tiny model for all tests of training, and its rows."""

from pathlib import Path

import pytest

from nbtune.data.encoded import Encoded
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.models.loading import source_of
from tests.examples import ticket_task
from tests.tiny import tiny_llama


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def rows(folder: Path) -> list[Encoded]:
    return encode_rows(Encoder(source_of(folder).tokenizer), ticket_task().train, max_length=256)[0]
