"""`%%index`: what is put into an index, and how it is cut."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from nbtune.spec import Spec, option

__all__ = ["IndexSpec", "SearchBy"]

SearchBy = Literal["vector", "text", "hybrid"]


class IndexSpec(Spec):
    """What an index is made of; it holds that and nothing else afterwards."""

    what: ClassVar[str] = "index key"

    name: str = option("", "name of the index", group="index")
    paths: Any = option(None, "files, folders (with all below them) and addresses: txt, md, rst, html, pdf, csv with column", group="index")
    texts: Any = option(None, "list of texts, or {name: text}", group="index")
    data: Any = option(None, "a table whose rows are documents: path, DataFrame or list", group="index")
    column: str | None = option(None, "column of a table that holds the text; left out: text, or the only one", group="index")
    model: str | None = option(
        None, "embedding model: catalogue name, folder or hub id; left out: minilm", aliases=("embed",), group="index"
    )
    chunk_size: int = option(200, "most that a chunk has, in chunk_unit", ge=16, le=8192, scale="log", slider=(32, 1024), group="index")
    chunk_overlap: int = option(40, "what two chunks of a section have in common, about", ge=0, slider=(0, 200), group="index")
    chunk_unit: Literal["tokens", "characters"] = option("tokens", "what chunk_size counts; tokens: of the embedding model", group="index")
    skip_unreadable: bool = option(False, "go without files that cannot be read, and say which", group="index")
    allow_network: bool = option(False, "fetch what addresses name; else nothing is ever fetched", group="index")
    device: str | None = option(None, "cpu, cuda, cuda:1, mps; left out: the best there is", group="index")
