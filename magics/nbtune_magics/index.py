"""`%%index NAME`: documents made searchable; `%index NAME "query"`: what is found in them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from nbtune.errors import NbtuneError, Problem
from nbtune.options import option
from nbtune.retrieval.spec import IndexSpec, SearchBy
from nbtune_magics.magic import AS, Call, Magic
from nbtune_magics.notice import with_progress
from nbtune_magics.output import bind, check_name, say
from nbtune_magics.said import said
from nbtune_magics.suggestions import index_names
from nbtune_magics.warmup import warmed

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbtune import Index
    from nbtune.retrieval import Passages
    from nbtune_magics.notice import Report
    from nbtune_magics.said import Said
    from nbtune_magics.steps import Steps

__all__ = ["INDEX", "IndexCallSpec"]


class IndexCallSpec(IndexSpec):
    """What makes an index, and how it is searched."""

    what: ClassVar[str] = "index key"

    k: int = option(5, "most passages that a query finds", ge=1, group="search")
    by: SearchBy = option("hybrid", "vector: by meaning; text: by words (BM25); hybrid: both, by reciprocal rank", group="search")
    threshold: float | None = option(None, "least cosine of query and passage", ge=-1, le=1, group="search")


_SEARCH = ("k", "by", "threshold")
_SOURCES = ("paths", "texts", "data")


def _run(call: Call) -> Steps[Any]:
    if not call.words and not call.values and not call.items:
        return _all(call)
    query = " ".join(call.words[1:])
    chosen = said(_named(call), IndexCallSpec)
    result: Index | Passages
    if query:
        result, notice = yield from with_progress(_searching(chosen, query), f"{chosen.spec.name}: searching")
        from nbtune_widgets.retrieved import passages_html, passages_text

        notice.replace(passages_html(result), passages_text(result))
    else:
        result, notice = yield from with_progress(_making(chosen), f"{chosen.spec.name}: reading")
        from nbtune_widgets.retrieved import index_html, index_text

        notice.replace(index_html(result), index_text(result))
        bind(call.shell, result.name, result, "index")
    call.shown.mark(result)
    return result


def _all(call: Call) -> list[Index]:
    """Names what there is."""
    import nbtune

    found = nbtune.indexes()
    say("\n".join(map(repr, found)) if found else "there is no index yet: %%index NAME, and the files below it")
    call.shown.mark(found)
    return found


def _named(call: Call) -> Call:
    """The call with its first word as the name, and a list of its body as paths."""
    name = call.words[0] if call.words else call.own.get("as") or call.values.get("name")
    problems = list(call.problems)
    values = dict(call.values)
    lines = dict(call.lines)
    if name is None:
        problems.append(Problem("the index has no name", "write it behind the magic: %%index NAME", 1))
    else:
        try:
            check_name(name)
        except NbtuneError as error:
            problems.append(Problem(error.message, error.hint, 1))
        values["name"] = str(name)
    if call.items is not None:
        values["paths"], lines["paths"] = call.items, min(call.lines.values(), default=2)
    sources = [key for key in _SOURCES if values.get(key) is not None]
    if call.words[1:] and sources:
        hint = "make it in one cell, and search it in another"
        problems.append(Problem(f"{' '.join(call.words[1:])!r:.60} would be searched for, and {sources[0]} makes the index", hint, 1))
    if not call.words[1:] and not sources and (stray := next((key for key in values if key != "name"), None)) is not None:
        problems.append(Problem(f"{stray} is said, and no documents or query", "paths: [docs], one file or folder each", lines.get(stray)))
    return replace(call, values=values, own={}, lines=lines, problems=tuple(problems))


def _making(chosen: Said) -> Callable[[Report], Index]:
    def work(report: Report) -> Index:
        import nbtune

        report("importing torch")
        warmed()
        given = {key: value for key, value in chosen.given.items() if key not in (*_SEARCH, "name")}
        return nbtune.index(chosen.spec.name, report=report, **given)

    return work


def _searching(chosen: Said, query: str) -> Callable[[Report], Passages]:
    def work(report: Report) -> Passages:
        import nbtune

        found = nbtune.index(chosen.spec.name, device=chosen.spec.device)
        report("importing torch")
        warmed()
        report(f"{found.name}: searching")
        return found.search(query, chosen.spec.k, by=chosen.spec.by, threshold=chosen.spec.threshold)

    return work


def _describe(name: str) -> str:
    import nbtune

    return repr(nbtune.index(name)).partition(", ")[2].removesuffix(")")


def _spec(_words: tuple[str, ...]) -> type[IndexCallSpec]:
    return IndexCallSpec


INDEX = Magic(
    name="index",
    usage='%%index NAME [--key value ...]    or    %index NAME "query" [--k NUMBER]',
    about="Makes documents searchable by meaning and by words: reads them, cuts them at headings and paragraphs, embeds the chunks and "
    "keeps them in the project's folder. Run again it embeds only what has changed. Then: - retrieval: {index: NAME} in %%compare.",
    body="files and folders, one `- path` a line; or `paths:`, `texts:`, `data:` and the options, one `key: value` a line",
    run=_run,
    spec=_spec,
    own=(AS,),
    names=index_names,
    choice="indexes",
    describe=_describe,
    waits=True,
)
