"""What is claimed of the real model: QLoRA learns and comes back, and the grid says what plain transformers and statisticians say."""

import json
import subprocess
import sys

import pytest
import torch

import nbtune
from nbtune.data.readers import read
from nbtune.models.catalogue import folder_of

pytestmark = pytest.mark.real_model

PROMPT = "Which team handles this ticket?\nTicket: {{ text }}\nTeam:"


def some_tickets(train: int, test: int) -> nbtune.Task:
    rows = read("demo:tickets")["all"]
    parts = {"train": rows[:train], "dev": rows[train : train + 8], "test": rows[train + 8 : train + 8 + test]}
    return nbtune.Task(name="tickets", data=parts, prompt=PROMPT, completion=" {{ team }}")


REOPEN = """
import json, sys, nbtune
run = nbtune.open(sys.argv[1])
prompt = run.task.test[0].prompt
print(json.dumps({"logits": run.engine().logits(prompt).tolist(), "generate": run.generate([prompt], 6), "base": run.engine().base.quantization}))
"""


def test_a_lora_on_an_nf4_base_learns_generates_saves_and_opens_in_a_new_process_with_equal_logits() -> None:
    from bitsandbytes.nn import Linear4bit

    task = some_tickets(24, 8)
    options = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 2e-3, "eval_steps": 100, "num_samples": 0}
    run = nbtune.finetune("lora", task=task, quantization="nf4", name="qlora", **options).wait()
    losses = run.history["loss"]
    assert losses.iloc[-5:].mean() < 0.5 * losses.iloc[:3].mean()
    assert sum(isinstance(module, Linear4bit) for module in run.engine().base.model.modules()) == 210
    prompt = task.test[0].prompt
    here = {"logits": run.engine().logits(prompt).tolist(), "generate": run.generate([prompt], 6), "base": "nf4"}
    assert here["generate"][0].strip()
    done = subprocess.run([sys.executable, "-c", REOPEN, "qlora"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == here
    assert done.stderr == ""
    nbtune.models.unload()


def independent_answers(task: nbtune.Task) -> list[str]:
    """Each label's tokens scored after each prompt by a forward of their own, in plain transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = folder_of("smollm2-135m")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = []
    for item in task.test:
        scores = {}
        for label in task.labels:
            before = tokenizer(item.prompt)["input_ids"]
            after = tokenizer(" " + label)["input_ids"]
            with torch.no_grad():
                logp = model(torch.tensor([before + after])).logits[0].log_softmax(-1)
            scores[label] = sum(float(logp[len(before) - 1 + place, token]) for place, token in enumerate(after))
        answers.append(max(scores, key=scores.__getitem__))
    return answers


def test_the_grid_s_zero_shot_answers_and_its_statistics_equal_independent_ones() -> None:
    import numpy as np
    from scipy import stats
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.proportion import proportion_confint

    task = some_tickets(120, 24)
    comparison = nbtune.compare(["zero-shot", {"few-shot": {"k": 6, "select": "balanced"}}], task=task, dtype="float32", floor=False)
    outputs = comparison.outputs.pivot_table(index="row", columns="approach", values="output", aggfunc="first")
    few = next(name for name in outputs.columns if name.startswith("few-shot"))
    assert list(outputs["zero-shot"]) == independent_answers(task)

    expected = np.array([item.label for item in task.test])
    right = {name: np.asarray(outputs[name] == expected) for name in ("zero-shot", few)}
    table = comparison.table.set_index("approach")
    for name, flags in right.items():
        assert table.loc[name, "accuracy"] == pytest.approx(flags.mean())
        low, high = proportion_confint(flags.sum(), len(flags), method="wilson")
        assert (table.loc[name, "ci_low"], table.loc[name, "ci_high"]) == pytest.approx((low, high))
    zero, shots = right["zero-shot"], right[few]
    counts = [[(zero & shots).sum(), (zero & ~shots).sum()], [(~zero & shots).sum(), (~zero & ~shots).sum()]]
    assert table.loc["zero-shot", "p_value"] == pytest.approx(mcnemar(counts, exact=True).pvalue)
    gaps = zero.astype(float) - shots.astype(float)
    reference = stats.bootstrap((gaps,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    row = table.loc["zero-shot"]
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((reference.low, reference.high), abs=0.03)
    nbtune.models.unload()
