"""Addresses: fetched only where it is allowed, only by http, and only what can be read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import nbtune
from nbtune.errors import DataError
from tests.retrieval.documents import PAGE

ASKED: list[str] = []


class Site(BaseHTTPRequestHandler):
    """A page, a picture, and nothing else."""

    def do_GET(self) -> None:
        ASKED.append(self.path)
        kinds = {"/menu": "text/html; charset=utf-8", "/picture": "image/png"}
        self.send_response(200 if self.path in kinds else 404)
        self.send_header("Content-Type", kinds.get(self.path, "text/plain"))
        self.end_headers()
        self.wfile.write(PAGE.encode() if self.path == "/menu" else b"none")

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_page_is_fetched_where_it_is_allowed_and_only_there(here: Path, encoder: str, site: str) -> None:
    ASKED.clear()
    with pytest.raises(DataError, match="nothing is fetched unless it is allowed") as raised:
        nbtune.index("menu", f"{site}/menu", model=encoder)
    assert "--allow_network" in raised.value.hint
    assert ASKED == []
    index = nbtune.index("menu", f"{site}/menu", model=encoder, allow_network=True)
    assert ASKED == ["/menu"]
    best = index.search("coffee", 1, by="text")[0]
    assert (best.source, best.heading) == (f"{site}/menu", "Menu")


@pytest.mark.parametrize(
    ("address", "said"),
    [("SITE/picture", "is image/png, which cannot be read"), ("SITE/gone", "cannot be fetched"), ("file:///etc/hosts", "is no http")],
)
def test_what_an_address_cannot_give_is_said(here: Path, encoder: str, site: str, address: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as raised:
        nbtune.index("menu", address.replace("SITE", site), model=encoder, allow_network=True)
    assert raised.value.hint
    assert nbtune.indexes() == []
