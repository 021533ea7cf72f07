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
