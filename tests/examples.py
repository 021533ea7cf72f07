"""Small tasks that tests train and compare on: real text, few rows."""

from __future__ import annotations

from typing import Any

import nbtune

WORDS = ("parcel", "invoice", "password", "saddle", "courier", "login", "refund", "tent", "bank", "screen")
TEAMS = {"parcel": "shipping", "courier": "shipping", "invoice": "billing", "refund": "billing", "bank": "billing"}


def ticket_rows(count: int = 60) -> list[dict[str, Any]]:
    """Short texts whose team follows from a word."""
    rows = []
    for number in range(count):
        word = WORDS[number % len(WORDS)]
        text = f"case {number * 37 % 101}: about the {word} of last {('monday', 'week', 'spring')[number % 3]}, {'please' * (number % 2)} help {number}"
        rows.append({"text": text, "team": TEAMS.get(word, "technical")})
    return rows


def ticket_task(count: int = 60, **changes: Any) -> nbtune.Task:
    """A classification of three labels."""
    said = {"name": "tickets", "kind": "classification", "data": ticket_rows(count), "prompt": "Ticket: {{ text }}\nTeam:"}
    return nbtune.Task(**{**said, "completion": " {{ team }}", **changes})


def echo_task(count: int = 40, **changes: Any) -> nbtune.Task:
    """A generation task: the word after `about the`."""
    rows = [{"text": row["text"], "word": WORDS[number % len(WORDS)]} for number, row in enumerate(ticket_rows(count))]
    said = {"name": "words", "kind": "generation", "data": rows, "prompt": "Ticket: {{ text }}\nWord:", "completion": " {{ word }}"}
    return nbtune.Task(**{**said, **changes})


def text_task(count: int = 40, **changes: Any) -> nbtune.Task:
    """Whole texts of a few sentences."""
    rows = [
        {"text": f"{row['text'].capitalize()}. The {row['team']} team has seen it. It wrote: {row['text']}, which was done."}
        for row in ticket_rows(count)
    ]
    return nbtune.Task(**{"name": "texts", "kind": "text", "data": rows, "prompt": "{{ text }}", **changes})


def tag_rows(count: int = 60) -> list[dict[str, Any]]:
    """Words with the tags of who did what where: spans of one word and of two."""
    rows = []
    for number in range(count):
        name = ("Ada Byron", "Grace", "Alan Turing", "Emmy")[number % 4].split()
        town = ("Paris", "New York", "Turin", "Los Angeles")[number // 3 % 4].split()
        words = [*name, ("flew", "went", "wrote")[number % 3], "to", *town, "on", f"day{number}"]
        spans = [f"{'BI'[place > 0]}-PER" for place in range(len(name))], [f"{'BI'[place > 0]}-LOC" for place in range(len(town))]
        rows.append({"tokens": words, "tags": [*spans[0], "O", "O", *spans[1], "O", "O"]})
    return rows


def tag_task(count: int = 60, **changes: Any) -> nbtune.Task:
    """Persons and places in short sentences."""
    said = {"name": "spans", "kind": "tagging", "data": tag_rows(count), "prompt": "{{ tokens }}", "completion": "{{ tags }}"}
    return nbtune.Task(**{**said, **changes})


def pair_rows(count: int = 60) -> list[dict[str, Any]]:
    """Two short texts: whether the second is of the first one's team, and how much they have in common, from 0 to 5."""
    rows = []
    for number, row in enumerate(ticket_rows(count)):
        same = number % 2 == 0
        word = next(name for name in WORDS if (TEAMS.get(name, "technical") == row["team"]) == same)
        rows.append(
            {
                "premise": row["text"],
                "hypothesis": f"it is about a {word}",
                "follows": "yes" if same else "no",
                "alike": 4.5 if same else 0.5,
            }
        )
    return rows


def pair_task(count: int = 60, **changes: Any) -> nbtune.Task:
    """Whether one text follows from another."""
    said = {"name": "pairs", "kind": "pairs", "data": pair_rows(count), "prompt": "{{ premise }}", "text_pair": "{{ hypothesis }}"}
    return nbtune.Task(**{**said, "completion": "{{ follows }}", **changes})


def topic_rows(count: int = 60) -> list[dict[str, Any]]:
    """Texts of which each has none, one or two topics."""
    rows = []
    for number, row in enumerate(ticket_rows(count)):
        topics = [topic for topic, there in (("urgent", number % 2 == 1), (row["team"], number % 5 != 0)) if there]
        rows.append({"text": row["text"] if topics else f"nothing to say, {number * 7}", "topics": topics})
    return rows


def topic_task(count: int = 60, **changes: Any) -> nbtune.Task:
    """Any number of labels for each text."""
    said = {"name": "topics", "kind": "multi-label", "data": topic_rows(count), "prompt": "{{ text }}", "completion": "{{ topics }}"}
    return nbtune.Task(**{**said, **changes})


def number_task(count: int = 60, **changes: Any) -> nbtune.Task:
    """A number for two texts."""
    return pair_task(count, **{"name": "alike", "kind": "regression", "completion": "{{ alike }}", **changes})
