"""Rows of a wanted length in the words of the tickets demo, the same for everyone who trains on them."""

from __future__ import annotations

import random

import nbtune

MODEL = "smollm2-135m"
TEAMS = ("shipping", "billing", "product", "technical", "returns")


def rows(count: int, words: int, seed: int = 0) -> list[dict[str, str]]:
    """`count` different rows of prompt and completion; a prompt has about `words` words (0.5 to 1.5 times as many)."""
    known = nbtune.Task(name="words", kind="classification", data="demo:tickets", prompt="{{ text }}", completion=" {{ team }}")
    vocabulary = sorted({word for item in known.train for word in item.prompt.split()})
    chance = random.Random(seed)
    found = []
    for number in range(count):
        size = max(2, round(words * chance.uniform(0.5, 1.5)))
        text = " ".join(chance.choice(vocabulary) for _ in range(size))
        found.append({"prompt": f"{number}: {text}\nTeam:", "completion": f" {chance.choice(TEAMS)}"})
    return found


def task(train: list[dict[str, str]]) -> nbtune.Task:
    """A task of those rows; the one dev and the one test row, which a task needs, are never looked at."""
    aside = rows(2, 5, seed=1)
    data = {
        "train": train,
        "dev": [aside[0] | {"prompt": "dev " + aside[0]["prompt"]}],
        "test": [aside[1] | {"prompt": "test " + aside[1]["prompt"]}],
    }
    return nbtune.Task(name="bench", kind="generation", data=data, prompt="{{ prompt }}", completion="{{ completion }}")


def tokens(train: list[dict[str, str]]) -> float:
    """Mean tokens of a row, the end of sequence counted."""
    from nbtune.data.encoding import Encoder, encode_rows
    from nbtune.models.loading import source_of

    encoded, _ = encode_rows(Encoder(source_of(MODEL).tokenizer), task(train).train, max_length=1024)
    return sum(len(row.ids) for row in encoded) / len(encoded)
