"""Conversations: turns of a system, a user, an assistant; what the assistant says is learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from nbtune.data.examples import Filled
from nbtune.data.rows import Row, plain_value
from nbtune.errors import DataError, did_you_mean

__all__ = ["Conversation", "alpaca_turns", "asked", "fill_conversations", "needs_turns", "with_shots"]

_ROLES: Final = {
    **{name: name for name in ("system", "user", "assistant", "tool")},
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "model", "bot", "ai"), "assistant"),
    **dict.fromkeys(("function", "observation"), "tool"),
    "developer": "system",
}
"""How roles are called where, by OpenAI's names for them and ShareGPT's, Vicuna's and OpenAssistant's."""


class Conversation(str):
    """A conversation up to an answer, as text to read and compare; `turns` are its {role, content} for a chat template.

    Turns with `learnt` False are not trained, whoever speaks.
    """

    __slots__ = ("learnt", "turns")
    turns: tuple[dict[str, str], ...]
    learnt: tuple[bool, ...]

    @classmethod
    def of(cls, turns: Sequence[Mapping[str, Any]]) -> Self:
        """The conversation of turns that `_turns` has read."""
        made = cls("\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns))
        made.turns = tuple({"role": str(turn["role"]), "content": str(turn["content"])} for turn in turns)
        made.learnt = tuple(turn["role"] == "assistant" and turn.get("weight", 1) != 0 for turn in turns)
        return made


def fill_conversations(rows: Sequence[Row], column: str, part: str = "") -> tuple[list[Filled], int]:
    """The rows, each asked with all that stands before its last answer; and of how many the end was dropped because nobody answers it.

    A conversation may begin with the assistant, as many of ShareGPT's do. A text in the column `system` stands in front of one that
    begins with no such turn.

    Raises:
        DataError: a conversation that is none, or in which the assistant says nothing.
    """
    found, dropped = [], 0
    for number, row in enumerate(rows, start=1):
        where = f"{part} row {number}" if part else f"row {number}"
        turns = _after_system(row, _turns(row[column], where), where)
        last = max((place for place, turn in enumerate(turns) if turn["role"] == "assistant"), default=0)
        if last == 0:
            said = "answers before anybody asks" if turns[0]["role"] == "assistant" else "says nothing"
            raise DataError(f"{where}: the assistant {said}", hint="give each conversation a user's turn and an assistant's after it")
        dropped += last < len(turns) - 1
        if turns[last].get("weight", 1) == 0:
            raise DataError(f"{where}: the last answer has weight 0", hint="what ends a conversation is what is learnt: drop the turn")
        kept = {name: value for name, value in row.items() if name != column}
        row_now = {**kept, "messages": turns[: last + 1]}
        found.append(Filled(row_now, Conversation.of(turns[:last]), str(turns[last]["content"])))
    return found, dropped


def asked(row: Mapping[str, Any], where: str = "a row") -> Conversation:
    """The conversation of a row up to the answer that is wanted: without the one at its end, where it has one.

    Raises:
        DataError: it is no conversation, or nobody asks.
    """
    value = next((row[name] for name in ("messages", "conversations") if name in row), None)
    if value is None and "instruction" in row:
        value = alpaca_turns(row, where)
    if value is None:
        raise DataError(f"{where} has no messages", hint='give {"messages": [{"role": "user", "content": "..."}]}, or a text')
    turns = _after_system(row, _turns(value, where), where)
    if turns[-1]["role"] == "assistant":
        turns.pop()
    if not turns:
        raise DataError(f"{where}: nobody asks", hint="end it with the user's turn that wants an answer")
    return Conversation.of(turns)


def needs_turns(row: Mapping[str, Any]) -> bool:
    """Whether a row of Alpaca's columns says what no single prompt can: a system text, or what was asked and answered before."""
    return bool(row.get("history")) or bool(str(row.get("system") or "").strip())


def alpaca_turns(row: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The turns that Alpaca's columns say: those of `history`, the instruction with its input, the output (where there is one).

    Raises:
        DataError: a history that is no list of question and answer.
    """
    history = row.get("history") or []
    if not isinstance(history, list) or any(not isinstance(pair, list | tuple) or len(pair) != 2 for pair in history):  # noqa: PLR2004
        raise DataError(f"{where}: the history is {history!r:.60}", hint='write it as [["question", "answer"], ...]')
    said = [str(row[name]) for name in ("instruction", "input", "context") if row.get(name)]
    output = row.get("output")
    pairs = [*history, ("\n\n".join(said) or None, None if output is None else str(output))]
    turns = [{"role": role, "content": text} for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    return turns if turns[-1]["content"] is not None else turns[:-1]


def with_shots(shots: Sequence[tuple[Conversation, str]], prompt: Conversation) -> Conversation:
    """The conversation behind others with their answers, as if all of it had been said; only its own system turn is kept."""
    head = [turn for turn in prompt.turns if turn["role"] == "system"]
    body = [turn for turn in prompt.turns if turn["role"] != "system"]
    before = [
        turn
        for shot, answer in shots
        for turn in (*(said for said in shot.turns if said["role"] != "system"), {"role": "assistant", "content": answer})
    ]
    return Conversation.of([*head, *before, *body])


def _after_system(row: Mapping[str, Any], turns: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """The turns, behind the text of the row's column `system` where they begin with no such turn."""
    text = plain_value(row.get("system"))
    if not isinstance(text, str | None):
        raise DataError(f"{where}: system is {text!r:.60}", hint="give a text, or null where there is none")
    return [{"role": "system", "content": text}, *turns] if text and text.strip() and turns[0]["role"] != "system" else turns


def _turns(value: Any, where: str) -> list[dict[str, Any]]:
    """The turns of a list of {role, content} or of {from, value}."""
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: a conversation is a list of turns, not {value!r:.60}", hint='[{"role": "user", "content": "..."}, ...]')
    found: list[dict[str, Any]] = []
    for number, turn in enumerate(value, start=1):
        place = f"{where}, turn {number}"
        if not isinstance(turn, Mapping):
            raise DataError(f"{place} is {turn!r:.60}", hint='write it as {"role": "user", "content": "..."}')
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if role not in _ROLES:
            raise DataError(f"{place} is said by {role!r:.40}", hint=did_you_mean(str(role), _ROLES))
        if isinstance(content, list):
            content = "".join(str(part.get("text")) for part in content if isinstance(part, Mapping) and part.get("type") == "text") or None
        if not isinstance(content, str):
            raise DataError(f"{place} has no text: {turn.get('content', turn.get('value'))!r:.60}", hint="only texts can be learnt here")
        if _ROLES[role] == "assistant" and not content.strip():
            raise DataError(f"{place}: the assistant's answer is empty", hint="drop the turn, or the conversation")
        weight = {"weight": 0} if turn.get("weight") == 0 else {}
        found.append({"role": _ROLES[role], "content": content, **weight})
    return found
