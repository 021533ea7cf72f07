"""Rows of words and their tags: lists of equal length, the tags in BIO where they mark spans (Ramshaw and Marcus 1995)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nbtune.data.examples import Filled
from nbtune.data.lists import list_in
from nbtune.data.rows import Row
from nbtune.data.templates import Template
from nbtune.errors import DataError, did_you_mean

__all__ = ["fill_tagged", "in_bio", "tags_of", "words_of"]


def words_of(row: Mapping[str, Any], template: Template, where: str) -> list[str]:
    """The words of a row: those of the one column that the template names, a list, or a text that spaces divide or that is a list.

    Raises:
        DataError: the template says more than a column; the column is lacking; its value is no list of words.
    """
    name = _column(row, template, "prompt")
    found = _read(row[name])
    return _checked(found if _all_texts(found) else row[name], name, where)


def fill_tagged(rows: Sequence[Row], prompt: Template, completion: Template, part: str = "") -> list[Filled]:
    """The rows with their words and their tags, each joined by spaces.

    Raises:
        DataError: as `words_of`; or there are more or fewer tags than words.
    """
    found = []
    for number, row in enumerate(rows, start=1):
        where = f"{part} row {number}" if part else f"row {number}"
        words, tags = _words_and_tags(row, _column(row, prompt, "prompt"), _column(row, completion, "completion"), where)
        if len(words) != len(tags):
            msg = f"{where} has {len(words)} words and {len(tags)} tags"
            raise DataError(msg, hint="give each word one tag")
        found.append(Filled(row, " ".join(words), " ".join(tags)))
    return found


def _words_and_tags(row: Row, said: str, tagged: str, where: str) -> tuple[list[str], list[str]]:
    """Those of two columns. Texts that are lists are read as such; words that only look like one ("[ 1 ]") are told by their tags."""
    words, tags = _read(row[said]), _read(row[tagged])
    if tags is None:
        _refuse_broken_list(row[tagged], tagged, where)
    elif words is None:
        _refuse_broken_list(row[said], said, where)
    as_many = isinstance(row[tagged], str) and len(words or ()) == len(row[tagged].split())
    is_list = words is not None and (tags is not None or (as_many and _all_texts(words)))
    return _checked(words if is_list else row[said], said, where), _checked(row[tagged] if tags is None else tags, tagged, where)


def _column(row: Mapping[str, Any], template: Template, what: str) -> str:
    """The one column that a template of words or tags names."""
    columns = template.columns(row)
    if len(columns) != 1 or not re.fullmatch(rf"\{{\{{[-+]?\s*{next(iter(columns))}\s*[-+]?\}}\}}", template.source.strip()):
        msg = f"{what}: of kind tagging it names the one column of words or tags, and it is {template.source!r:.60}"
        raise DataError(msg, hint="write {{ tokens }} as the prompt and {{ tags }} as the completion, by the names of your columns")
    return next(iter(columns.values()))


def _checked(value: object, name: str, where: str) -> list[str]:
    """The value's words: of a text those that spaces divide."""
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or not words:
        msg = f"{where}: {name!r} holds no words: {value!r:.60}"
        raise DataError(msg, hint="give a list of words, or a text whose words are divided by spaces")
    wrong = next((place for place, word in enumerate(words) if not isinstance(word, str) or not word.strip() or " " in word), None)
    if wrong is not None:
        msg = f"{where}, {name!r}: word {wrong + 1} is {words[wrong]!r:.40}"
        raise DataError(msg, hint="each is a text that is not empty and holds no space; class numbers want their names")
    return list(words)


def _read(value: object) -> list[Any] | None:
    return list_in(value) if isinstance(value, str) else None


def _all_texts(found: Sequence[object] | None) -> bool:
    return bool(found) and all(isinstance(word, str) for word in found or ())


def _refuse_broken_list(value: object, name: str, where: str) -> None:
    """Refuses a text in brackets, whose first word is not one of its own ("[", "[CLS]")."""
    text = value.strip() if isinstance(value, str) else ""
    if text.startswith("[") and text.endswith("]") and not re.match(r"\[\S*\]\s|\[\s", text):
        msg = f"{where}: {name!r} begins like a list and is none: {text!r:.60}"
        raise DataError(msg, hint='give lists in both columns (["EU", "rejects"]), or in both texts that spaces divide (EU rejects)')


def in_bio(tags: Sequence[str]) -> bool:
    """Whether the tags mark spans: any begins with B- or I-."""
    return any(tag.startswith(("B-", "I-")) for tag in tags)


def tags_of(given: Mapping[str, Sequence[Filled]], listed: Sequence[str] | None) -> tuple[str, ...]:
    """All tags, O first; where they mark spans, B- and I- of each kind.

    Raises:
        DataError: a tag that is not listed or that no training row has, one that is not BIO among those that are, a span that begins with
            I-, or one tag alone.
    """
    learned = [tag for item in given.get("train") or given["all"] for tag in item.completion.split(" ")]
    known = set(listed) if listed else set(learned)
    if in_bio(list(known)):
        odd = next((tag for tag in listed or () if tag != "O" and not (tag.startswith(("B-", "I-")) and tag[2:])), None)
        if odd is not None:
            raise DataError(f"labels lists {odd!r}, which is no BIO tag", hint="O, or B- and I- with the kind of the span: B-PER, I-PER")
        kinds = {tag[2:] for tag in known if len(tag) > 2}  # noqa: PLR2004  behind the mark and its dash
        known = {"O", *(f"{mark}-{kind}" for kind in kinds for mark in "BI")}
        _refuse_broken(given)
    for part, items in given.items():
        for number, item in enumerate(items, start=1):
            stray = next((tag for tag in item.completion.split(" ") if tag not in known), None)
            if stray is not None:
                where = f"{part} row {number}" if part != "all" else f"row {number}"
                if listed:
                    raise DataError(f"{where} has the tag {stray!r}, which labels does not list", hint=did_you_mean(stray, sorted(known)))
                raise DataError(f"{where} has the tag {stray!r}, which no training row has", hint="list all tags in labels: of the task")
    if len(known) < 2:  # noqa: PLR2004
        raise DataError(f"there is only one tag: {next(iter(known))!r}", hint="tagging needs two; check the completion")
    return tuple(sorted(known, key=lambda tag: (tag != "O", tag[2:], tag)))


def _refuse_broken(given: Mapping[str, Sequence[Filled]]) -> None:
    for part, items in given.items():
        for number, item in enumerate(items, start=1):
            before = "O"
            for place, tag in enumerate(item.completion.split(" "), start=1):
                where = f"{part + ' ' if part != 'all' else ''}row {number}, word {place}"
                if (tag != "O" and not tag.startswith(("B-", "I-"))) or tag in ("B-", "I-"):
                    raise DataError(f"{where}: {tag!r} is no BIO tag", hint="O, or B- and I- with the kind of the span: B-PER, I-PER")
                if tag.startswith("I-") and before not in (f"B-{tag[2:]}", tag):
                    msg = f"{where}: {tag!r} follows {before!r}, and in BIO a span begins with {'B-' + tag[2:]!r}"
                    raise DataError(msg, hint="write the first tag of each span with B-; IOB1 and other schemes want converting")
                before = tag
