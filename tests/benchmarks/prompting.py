"""Prompts: what the shared prefix saves, what a grid costs beside its slowest column and asked again, and what a race of wordings takes.

    make bench B=prompting                            # about 40 minutes on two quiet cores; each part is kept in results.md
    make bench B=prompting ARGS="--only prefix --rounds 1"

Labels are scored in float32, where scores can be compared, grids as they come. Who is compared is asked in turn in one run, and the ratios are
those of pairs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the tests' tasks
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from engine_parts.machine import Figure, finish, keep, ratios, table

import nbtune
from nbtune.approaches import approach_of
from nbtune.approaches.base import Asked, Asking, Setting
from nbtune.inference import Engine
from nbtune.inference.prefix import Prefix
from nbtune.inference.scoring import Question, score_chunk
from nbtune.spec import DecodingSpec

MODEL = "smollm2-135m"
ROWS, SHOTS, LABELS = 100, 16, 8
BATCH = 8


def tickets() -> nbtune.Task:
    """The quickstart's."""
    prompt = "Which team handles this ticket?\nTicket: {{ text }}\nTeam:"
    return nbtune.Task(name="tickets", data="demo:tickets", prompt=prompt, completion=" {{ team }}")


def dates() -> nbtune.Task:
    """The date that a text names, in numbers."""
    prompt = "Text: {{ text }}\nThe date in numbers, year-month-day:"
    return nbtune.Task(name="dates", data="demo:dates", prompt=prompt, completion=" {{ date }}", metric="chrf")


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, what it gave)."""
    finish()
    began = time.perf_counter()
    found = work()
    finish()
    return time.perf_counter() - began, found


def plain(engine: Engine, prompts: Sequence[str], labels: Sequence[str]) -> list[list[float]]:
    """Each prompt with each label as a sequence of its own, padded, eight at a time, by transformers alone; every logit is computed."""
    import torch

    base, scores = engine.base, list[float]()
    each = [(engine.encoder.prompt_ids(text), engine.encoder.answer_ids(text, label)) for text in prompts for label in labels]
    for start in range(0, len(each), BATCH):
        part = each[start : start + BATCH]
        width = max(len(before) + len(after) for before, after in part)
        ids, mask = torch.zeros(len(part), width, dtype=torch.long), torch.zeros(len(part), width, dtype=torch.long)
        for row, (before, after) in enumerate(part):
            ids[row, : len(before) + len(after)] = torch.tensor([*before, *after])
            mask[row, : len(before) + len(after)] = 1
        with torch.inference_mode():
            logp = torch.log_softmax(
                base.model(input_ids=ids.to(base.device), attention_mask=mask.to(base.device)).logits.float(), -1
            ).cpu()
        for row, (before, after) in enumerate(part):
            scores.append(float(sum(logp[row, len(before) - 1 + place, token] for place, token in enumerate(after))))
    return [scores[start : start + len(labels)] for start in range(0, len(scores), len(labels))]


def without_prefix(engine: Engine, prompts: Sequence[str], labels: Sequence[str]) -> list[list[float]]:
    """As nbtune scores, all labels behind each prompt at once and no logit too many, but each prompt read whole."""
    answers = [
        (tuple(engine.encoder.prompt_ids(text)), tuple(tuple(engine.encoder.answer_ids(text, label)) for label in labels))
        for text in prompts
    ]
    found = []
    for prompt, endings in answers:
        with engine.base.lease(engine.adapter):
            found += score_chunk(engine.base, [Question(prompt, endings)], Prefix())
    return [[value for value, _ in row] for row in found]


def prefix(rounds: int) -> list[Figure]:
    """Labels of 100 rows scored behind 16 examples, with the examples read once and without.

    Each round scores all rows, and has the rivals score one part of them, as they read each row from its beginning anyway: over all
    rounds they score every row once. What is compared are seconds a row.
    """
    task = tickets()
    approach = approach_of({"few-shot": {"k": SHOTS}}, task, Setting(MODEL, "float32"))
    engine, asked = approach.engines[0], next(part for part in approach.parts if isinstance(part, Asked))
    rows = [item.question for item in (*task.test, *task.dev)][:ROWS]
    prompts = list(map(str, asked.texts(rows, Asking.of(task, [engine], "sum", DecodingSpec()))))
    labels = [f" {label}" for label in [*task.labels, "hardware", "legal", "sales", "press"][:LABELS]]
    rivals = {"transformers": plain, "without": without_prefix}
    took: dict[str, list[float]] = {name: [] for name in ("ours", *rivals)}
    apart = 0.0
    for turn in range(rounds):
        seconds, scores = seconds_of(lambda: engine.score(prompts, labels))
        took["ours"].append(seconds / len(prompts))
        part = range(turn, len(prompts), rounds)
        for name, rival in rivals.items():
            seconds, other = seconds_of(lambda rival=rival, part=part: rival(engine, [prompts[row] for row in part], labels))
            took[name].append(seconds / len(part))
            gaps = [abs(one[0] - two) for row, found in zip(part, other, strict=True) for one, two in zip(scores[row], found, strict=True)]
            apart = max(apart, *gaps)
    tokens = statistics.fmean(engine.prompt_tokens(prompts))
    what = f"{len(rows)} rows, {len(labels)} labels, {SHOTS} examples ({tokens:.0f} tokens a prompt)"
    batched, spread = ratios(took["ours"], took["transformers"])
    single, single_spread = ratios(took["ours"], took["without"])
    against = f"seconds a row, against transformers in batches of {BATCH} without a cache ({statistics.median(took['transformers']):.2f} s)"
    return [
        Figure(f"scoring labels: {what}", f"{batched:.1f}x", ">= 7x", spread, against),
        Figure("the same", f"{single:.1f}x", "", single_spread, "against our own tree of labels without the shared prefix"),
        Figure("largest difference of a score", f"{apart:.1e}", "<= 1e-4", "", "nats, float32, all rows"),
    ]


def grids(rounds: int) -> list[Figure]:
    """A grid of four columns on one base, two of them adapters, beside its slowest column alone; and the same grid again."""
    task = tickets()
    runs = [
        nbtune.finetune(method, task=task, model=MODEL, max_steps=5, max_eval_rows=8, num_samples=0, eval_steps=1000).wait()
        for method in ("lora", "adapter")
    ]
    entries: list[Any] = ["zero-shot", {"few-shot": {"k": 8, "select": "similar"}}, *runs]
    kept = Path(os.environ["NBTUNE_HOME"]) / "cache" / "answers.sqlite"

    def asked(some: Sequence[Any]) -> float:
        return seconds_of(lambda: nbtune.compare(some, task=task, model=MODEL, floor=False))[0]

    def anew(some: Sequence[Any]) -> float:
        kept.unlink(missing_ok=True)
        return asked(some)

    anew(entries)  # loads what has to be loaded
    alone = {str(number): anew([entry]) for number, entry in enumerate(entries)}
    slowest = entries[int(max(alone, key=lambda number: alone[number]))]
    single, whole, again = [], [], []
    for _ in range(rounds):
        single.append(anew([slowest]))
        whole.append(anew(entries))
        again.append(asked(entries))
    ratio, spread = ratios(single, whole)
    seconds = f"{min(again):.2f} to {max(again):.2f}"
    return [
        Figure(
            f"four columns, {len(task.test)} rows",
            f"{ratio:.2f}x",
            "<= 1.5x",
            spread,
            "zero-shot, 8 similar examples, LoRA, adapter; against the examples alone",
        ),
        Figure(
            "the same grid asked again",
            f"{statistics.median(again):.2f} s",
            "<= 2 s",
            seconds,
            f"the first time {statistics.median(whole):.1f} s",
        ),
    ]


SEARCHED = {
    "tickets": (
        tickets,
        [
            "Ticket: {{ text }}\nTeam:",
            "Route the ticket to one of billing, shipping, returns, technical, account, product.\nTicket: {{ text }}\nTeam:",
            "{{ text }}\nThe team that has to act is",
            "A customer of an outdoor shop writes: {{ text }}\nThis is for the team called",
            "Q: Who should answer this mail? billing, shipping, returns, technical, account or product\nMail: {{ text }}\nA:",
        ],
    ),
    "dates": (
        dates,
        [
            "{{ text }}\nDate:",
            "{{ text }}",
            "When did it happen? {{ text }}\n",
            "Sentence: {{ text }}\nISO date (YYYY-MM-DD): ",
            "Extract the date.\n{{ text }}\n=>",
            "Rewrite the date of the text as YYYY-MM-DD.\nText: {{ text }}\nDate:",
            "Q: {{ text }} Which date is named?\nA:",
        ],
    ),
}
"""The tasks that come along, and the wordings that are given beside the task's own."""


def search(_rounds: int) -> list[Figure]:
    """Wordings raced on dev rows, against all of them asked on all of those; and the winner's score on test rows, apart."""
    figures = []
    for name, (make, templates) in SEARCHED.items():
        task = make()
        raced = nbtune.prompt("prompt-search", task=task, model=MODEL, templates=templates)
        whole = nbtune.prompt("prompt-search", task=task, model=MODEL, templates=templates, halve=False, level=1e-30)
        score = whole.table.set_index("template")[task.metric.name]
        if whole.table["dropped_after"].notna().any():
            raise SystemExit("not all templates were asked all rows")
        given = score[templates].median()
        test = nbtune.compare([raced_entry(templates)], task=task, model=MODEL, floor=False).table.iloc[0]
        share = raced.found.scoring_calls / raced.found.full_calls
        won = f"{score[raced.template]:.3f} against {given:.3f}"
        more = f"best of all {score.max():.3f}; on {len(task.test)} test rows {test[task.metric.name]:.3f} ({test['ci_low']:.3f} to {test['ci_high']:.3f})"
        figures += [
            Figure(
                f"{name}: calls of the race, of those of all rows of {len(score)} templates",
                f"{share:.0%}",
                "<= 50 %",
                "",
                raced.found.rows,
            ),
            Figure(f"{name}: dev {task.metric.name} of the winner, against the median of those given", won, "above", "", more),
        ]
    return figures


def raced_entry(templates: list[str]) -> dict[str, Any]:
    """The search as a column, which takes up what was found."""
    return {"prompt-search": {"templates": templates}}


DEFAULT_ROUNDS = 3
PARTS = {"prefix": prefix, "grids": grids, "search": search}


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(PARTS), action="append", help="this part alone; may be given again")
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS)
    args = parser.parse_args()
    for name in args.only or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["NBTUNE_HOME"] = folder
            text = table(PARTS[name](args.rounds))
        print(text, flush=True)
        if args.rounds == DEFAULT_ROUNDS:
            keep(f"prompting: {name}", text, f'make bench B=prompting ARGS="--only {name}"')


if __name__ == "__main__":
    main()
