"""The look of static content, and the few HTML pieces that all views share; every text goes through Markup's escaping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from markupsafe import Markup

from nbtune_widgets.formats import shown

__all__ = ["figures", "join", "mark", "messages", "page", "table"]

_STYLE: Final = """
.nbt{--nbt-a:#0072b2;--nbt-b:#d55e00;--nbt-c:#009e73;--nbt-d:#8c6bb1;--nbt-line:color-mix(in srgb,currentColor 18%,transparent);
--nbt-fill:color-mix(in srgb,currentColor 6%,transparent);font:13px/1.45 var(--jp-ui-font-family,var(--vscode-font-family,system-ui,sans-serif));
max-width:1040px;padding:2px 0 6px;color:var(--jp-content-font-color1,var(--vscode-editor-foreground,inherit));forced-color-adjust:auto}
.nbt.nbt p{margin:6px 0}.nbt .nbt-head{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 10px}
.nbt .nbt-name{font-size:15px;font-weight:600}.nbt .nbt-dim{opacity:.72}.nbt .nbt-sep{display:none}
.nbt .nbt-pill{border:1px solid currentColor;border-radius:99px;padding:0 8px;font-size:11px;line-height:17px}
.nbt .nbt-figs{display:flex;flex-wrap:wrap;gap:6px 22px;margin:8px 0}.nbt .nbt-figs small{display:block;font-size:11px;opacity:.72}
.nbt .nbt-figs b{font-weight:600;font-variant-numeric:tabular-nums}
.nbt .nbt-curves{display:flex;flex-wrap:wrap;gap:10px 18px;margin:8px 0}.nbt .nbt-curves>div{flex:1 1 260px;min-width:0;max-width:520px}
.nbt .nbt-curves>div:first-child{flex-grow:2}.nbt svg{display:block;width:100%;height:auto;overflow:visible}.nbt .nbt-key{font-size:12px}
.nbt .nbt-scroll{overflow-x:auto;max-width:100%}
.nbt.nbt table.nbt-t{border-collapse:collapse;margin:6px 0;font-size:12.5px;font-variant-numeric:tabular-nums;border:0;table-layout:auto;color:inherit}
.nbt.nbt table.nbt-t caption{text-align:left;font-weight:600;padding:6px 0 2px;caption-side:top;color:inherit}
.nbt.nbt table.nbt-t tr:nth-child(n){background:none}
.nbt.nbt table.nbt-t tr:nth-child(n) :is(th,td){text-align:left;vertical-align:top;padding:4px 16px 4px 0;border:0;border-bottom:1px solid var(--nbt-line);
background:none;white-space:normal;max-width:34em;overflow-wrap:anywhere}
.nbt.nbt table.nbt-t thead tr:nth-child(n) th{font-weight:500;font-size:11.5px;opacity:.8;vertical-align:bottom}
.nbt.nbt table.nbt-t tr:nth-child(n) :is(th,td).nbt-n{text-align:right;white-space:nowrap}
.nbt.nbt table.nbt-t tbody tr.nbt-best:nth-child(n) :is(th,td){background:var(--nbt-fill)}
.nbt.nbt table.nbt-t tr:nth-child(n) .nbt-x{font-family:var(--jp-code-font-family,var(--vscode-editor-font-family,ui-monospace,monospace));
font-size:12px;white-space:pre-wrap;unicode-bidi:isolate;overflow-wrap:anywhere}
.nbt .nbt-ok{color:var(--nbt-c);font-weight:700}.nbt .nbt-no{color:var(--nbt-b);font-weight:700}.nbt .nbt-none{opacity:.6}
.nbt .nbt-msg{border-left:3px solid var(--nbt-line);padding:1px 0 1px 9px;margin:6px 0;white-space:pre-wrap;overflow-wrap:anywhere}
.nbt .nbt-warning{border-color:#b7791f}.nbt .nbt-error{border-color:var(--nbt-b)}
.nbt details{margin:4px 0}.nbt summary{cursor:pointer;opacity:.85}
"""


def page(label: str, body: Markup) -> str:
    """One self-contained piece of static content: a scoped style and a labelled group."""
    style = Markup("<style>{}</style>").format(Markup(_STYLE.strip().replace("\n", "")))  # noqa: S704  ours, not the user's
    return str(Markup('<div class="nbt" role="group" aria-label="{}">{}{}</div>').format(shown(label, 200), style, body))


def join(parts: Iterable[Markup], between: str = "") -> Markup:
    """Parts one after another."""
    return Markup(between).join(parts)  # noqa: S704  every caller gives a literal


def figures(pairs: Iterable[tuple[str, str]]) -> Markup:
    """A row of named figures; without styles a line of "name value · name value"."""
    items = [Markup("<span><small>{} </small><b>{}</b></span>").format(name, value) for name, value in pairs]
    return Markup('<p class="nbt-figs">{}</p>').format(join(items, '<span class="nbt-sep"> · </span>'))


def mark(right: bool | None, words: tuple[str, str] = ("right", "wrong")) -> Markup:  # noqa: FBT001
    """Right or wrong by sign, colour and word; nothing where it is not known."""
    if right is None:
        return Markup("")
    kind, sign, word = ("ok", "✓", words[0]) if right else ("no", "✗", words[1])
    return Markup('<span class="nbt-{}" role="img" aria-label="{}" title="{}">{}</span>').format(kind, word, word, sign)


def messages(texts: Iterable[str], kind: str, word: str) -> Markup:
    """Paragraphs led by a word, such as "Warning", so that the kind is not told by colour alone."""
    items = [
        Markup('<p class="nbt-msg nbt-{}"><b>{}</b> {}</p>').format(kind, word, shown(text))
        if word
        else Markup('<p class="nbt-msg">{}</p>').format(shown(text))
        for text in texts
    ]
    return join(items)


def table(caption: str, heads: Sequence[str | Markup], rows: Iterable[Sequence[str | Markup]], *, numeric: frozenset[int] = frozenset()) -> Markup:
    """A table with column heads; the columns in `numeric` are set to the right, the first cell of a row is its head."""

    def cell(index: int, text: str | Markup, tag: str) -> Markup:
        scope = Markup(' scope="col"') if tag == "th" else Markup("")
        css = Markup(' class="nbt-n"') if index in numeric else Markup("")
        return Markup("<{0}{1}{2}>{3}</{0}>").format(Markup(tag), scope, css, text)  # noqa: S704  th or td

    head = join(cell(index, text, "th") for index, text in enumerate(heads))
    body = join(Markup("<tr>{}</tr>").format(join(cell(index, text, "td") for index, text in enumerate(row))) for row in rows)
    title = Markup("<caption>{}</caption>").format(caption) if caption else Markup("")
    return Markup('<div class="nbt-scroll"><table class="nbt-t">{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(title, head, body)
