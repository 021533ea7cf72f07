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
