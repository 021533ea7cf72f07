"""Near-duplicates are found, and what only looks alike is not."""

from __future__ import annotations

import itertools
import random
import time

from nbtune.data import near_duplicate_groups
from nbtune.data.duplicates import fold

VOCABULARY = ["".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz", k=3 + seed % 7)) for seed in range(800)]


def texts(count, words=20, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(VOCABULARY, k=words)) for _ in range(count)]


def shingles(text):
    text = fold(text)
    return {text[i : i + 5] for i in range(max(1, len(text) - 4))}


def jaccard(a, b):
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


def test_case_and_spacing_make_no_difference():
    assert near_duplicate_groups(["My  Printer\nis on fire", "other", "my printer is on FIRE ", "Other"]) == [0, 1, 0, 1]


def test_near_duplicates_share_a_group_and_others_do_not():
    base = texts(200)
    typos = [text[:40] + "q" + text[41:] for text in base]
    groups = near_duplicate_groups(base + typos)
    assert groups[:200] == list(range(200))
    assert groups[200:] == groups[:200]


def test_groups_are_exactly_the_components_of_true_similarity():
    rng = random.Random(1)
    several = texts(40)
    for text in list(several):
        words = text.split()
        for _ in range(rng.randint(1, 3)):
            words[rng.randrange(len(words))] = rng.choice(VOCABULARY)
            several.append(" ".join(words))
    groups = near_duplicate_groups(several)
    parents = list(range(len(several)))

    def root(node):
        while parents[node] != node:
            node = parents[node]
        return node

    pairs = [(a, b) for a, b in itertools.combinations(range(len(several)), 2) if jaccard(several[a], several[b]) >= 0.8]
    for a, b in pairs:
        parents[root(b)] = root(a)
    expected = [root(node) for node in range(len(several))]
    assert len(pairs) > 10
    same = {(a, b) for a, b in itertools.combinations(range(len(several)), 2) if groups[a] == groups[b]}
    assert same == {(a, b) for a, b in itertools.combinations(range(len(several)), 2) if expected[a] == expected[b]}


def test_order_does_not_change_the_partition():
    several = texts(50) + [text + " x" for text in texts(20)]
    order = random.Random(3).sample(range(len(several)), len(several))
    straight = near_duplicate_groups(several)
    shuffled = near_duplicate_groups([several[number] for number in order])
    pairs = {frozenset((order[a], order[b])) for a, b in itertools.combinations(range(len(order)), 2) if shuffled[a] == shuffled[b]}
    assert pairs == {frozenset((a, b)) for a, b in itertools.combinations(range(len(several)), 2) if straight[a] == straight[b]}


def test_short_texts_empty_ones_and_other_scripts():
    assert near_duplicate_groups(["", " ", "a", "b", "1+1", "1+2", "东京在哪里", "大阪在哪里"]) == [0, 0, 1, 2, 3, 4, 5, 6]
    assert near_duplicate_groups([]) == []
    assert near_duplicate_groups(["one"]) == [0]


def test_a_typo_joins_long_texts_but_not_short_ones():
    short, long = (
        "the screen flickers after the update today",
        "the screen flickers after the update today, and the login page is quite slow",
    )
    assert jaccard(short, short.replace("after", "aftxr")) < 0.8 < jaccard(long, long.replace("after", "aftxr"))
    assert near_duplicate_groups([short, short.replace("after", "aftxr")]) == [0, 1]
    assert near_duplicate_groups([long, long.replace("after", "aftxr")]) == [0, 0]


def test_a_lower_threshold_joins_more():
    pair = ["the red printer on the second floor is jammed again", "the red printer on the third floor is jammed again"]
    assert 0.5 < jaccard(*pair) < 0.8
    assert near_duplicate_groups(pair) == [0, 1]
    assert near_duplicate_groups(pair, threshold=0.5) == [0, 0]


def test_three_thousand_rows_take_seconds():
    several = texts(3000, words=30)
    start = time.perf_counter()
    assert len(set(near_duplicate_groups(several))) == 3000
    assert time.perf_counter() - start < 20
