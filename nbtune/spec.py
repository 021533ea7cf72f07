"""All that a user can say, as frozen pydantic models: the one source of flags, keys, help, completion and sliders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from nbtune.options import SEED_LIMIT, Option, Sizes, Spec, Words, nested, option, peak, unless

__all__ = [
    "SEED_LIMIT",
    "AskingSpec",
    "CompareSpec",
    "DecodingSpec",
    "FinetuneSpec",
    "Option",
    "Spec",
    "SplitSpec",
    "TaskSpec",
    "Words",
    "option",
    "peak",
]


class SplitSpec(Spec):
    """How rows are divided when the data does not say; the parts are fractions of all rows."""

    what: ClassVar[str] = "split key"

    dev: float = option(0.1, "fraction of the rows held out for tuning", ge=0, lt=1)
    test: float = option(0.2, "fraction of the rows held out for comparing", ge=0, lt=1)
    seed: int = option(0, "seed of the split", ge=0, le=SEED_LIMIT)


def _has_no_answer(said: Mapping[str, Any]) -> bool:
    """Whether a completion may be lacking; where the kind itself is wrong, that is all there is to say."""
    return said.get("kind", "text") == "text" or said.get("prompt") is None


class TaskSpec(Spec):
    """`%%task`: what to learn."""

    what: ClassVar[str] = "task key"

    name: str = option("task", "name of the task")
    kind: Literal["generation", "classification", "multi-label", "regression", "pairs", "tagging", "text"] | None = option(
        None,
        "what the answer is; left out: classification where few distinct answers repeat, else generation; multi-label: any number of "
        "labels; regression: a number; pairs: the class of two texts; tagging: a tag for each word; text: there is none",
    )
    data: Any = option(
        ...,
        "path (csv, jsonl, json, parquet, conll, txt, md, or a folder of texts), a DataFrame, list or Dataset, or {train:, dev:, test:}",
    )
    prompt: str | None = option(
        None, "template of the input, with {{ column }}; of kind text the whole text; left out: by the layout of the rows, see format"
    )
    text_pair: str | None = option(
        None, "template of a second text that is read beside the prompt, with {{ column }}: a hypothesis beside its premise"
    )
    completion: Annotated[str | None, unless(_has_no_answer), Field(validate_default=True)] = option(
        None, "template of the answer to learn, with {{ column }}; most models want it to start with a space; kind text has none"
    )
    format: Literal["auto", "messages", "sharegpt", "prompt-completion", "alpaca", "tagging", "text", "instruction"] = option(
        "auto", "how rows are laid out that no prompt is written for; auto: by their columns"
    )
    labels: Words | None = option(None, "the classes, where the data does not show them all (as completions without outer spaces)")
    metric: Any = option(
        None,
        "accuracy, macro_f1, exact_match, rouge1, rouge2, rougeL, bleu, chrf, squad_f1, squad_exact_match, micro_f1, pearson, spearman, "
        "mae, rmse, span_f1, word_accuracy, perplexity, or a bound function (output, expected) -> number",
    )
    split: Annotated[SplitSpec, nested(SplitSpec)] = option(SplitSpec(), "{dev: 0.1, test: 0.2, seed: 0}")
    chat: Literal["auto", True, False] = option(
        "auto", "use the model's chat template; auto: where system is given, or rows are conversations"
    )
    system: str | None = option(None, "system text of the chat template")


class DecodingSpec(Spec):
    """How answers are generated: greedily; one spec for a whole grid."""

    what: ClassVar[str] = "decoding key"

    max_new_tokens: int | None = option(None, "most tokens of an answer; left out: the longest training answer and a half", ge=1, le=8192)
    stop: Words | None = option(None, "texts that end an answer; left out: a line break, where no training answer holds one")
    choices: Words | None = option(None, "texts of which an answer has to be one")
    json_schema: dict[str, Any] | None = option(None, "JSON schema that an answer has to keep: {type: object, properties: ...}")
    regex: str | None = option(None, "regular expression that a whole answer has to match")


class AskingSpec(Spec):
    """How all approaches of a cell are asked."""

    scoring: Literal["sum", "mean", "byte", "generate"] = option(
        "sum",
        "classification by the log-probability of each label's tokens: their sum, their mean, or by byte of its text; or by generating",
    )
    decoding: Annotated[DecodingSpec, nested(DecodingSpec)] = option(DecodingSpec(), "{max_new_tokens: 20, stop: [...], regex: ...}")


class FinetuneSpec(Spec):
    """What every `%%finetune` understands; a method's own spec adds its options to these.

    Defaults follow transformers' `TrainingArguments` but where a notebook's first run on few rows needs others.
    """

    what: ClassVar[str] = "option"

    task: str = option("", "name of the task", group="run")
    model: str = option("", "catalogue name, folder, hub id, or a bound model", aliases=("model_name_or_path", "base_model"), group="run")
    quantization: Literal["nf4", "fp4", "int8"] | None = option(None, "hold the base in 4 or 8 bits", group="run")
    dtype: Literal["float32", "bfloat16", "float16"] | None = option(
        None, "number format of the base; left out: bfloat16 where the device is fast at it", aliases=("torch_dtype",), group="run"
    )
    device: str | None = option(None, "cpu, cuda, cuda:1, mps; left out: the best there is", group="run")
    name: str | None = option(None, "name of the run", group="run")
    launch: Literal["thread", "process"] = option(
        "thread", "thread: in this kernel, sharing its models; process: on its own, surviving the kernel", group="run"
    )
    objective: Literal["sft", "classification", "pairs", "regression", "tagging", "clm", "mlm", "mlm+nsp", "instruction"] = option(
        "sft",
        "what is learnt: sft writes the completion, instruction those of several tasks, classification, pairs and tagging put a head over "
        "the labels, regression one that gives a number, clm goes on with texts, mlm fills what is hidden of them, mlm+nsp tells which "
        "passage follows, too",
        group="run",
    )
    pooling: Literal["auto", "cls", "mean", "last"] = option(
        "auto", "where a classifier reads a text; auto: all tokens of an encoder on average, a decoder's last", group="objective"
    )
    class_weights: Literal["none", "balanced"] = option(
        "none", "balanced: a row of a rare class weighs more in a classifier's loss, so that all classes weigh alike", group="objective"
    )
    mlm_probability: float = option(
        0.15, "part of a text's tokens that mlm hides and has predicted", gt=0, lt=1, slider=(0.05, 0.5), group="objective"
    )
    whole_word_mask: bool = option(True, "mlm hides all tokens of a word together", group="objective")
    seed: int = option(0, "seed of everything random", ge=0, le=SEED_LIMIT, slider=(0, 20), group="training")

    learning_rate: float = peak(1e-3)
    num_train_epochs: float = option(
        2.0, "passes over the training rows", gt=0, le=1000, slider=(0.5, 10), aliases=("epochs", "num_epochs"), group="training"
    )
    max_steps: int | None = option(None, "optimizer steps in all, whatever the epochs", ge=1, slider=(1, 1000), group="training")
    per_device_train_batch_size: int = option(
        8,
        "rows that go through the model at once",
        ge=1,
        le=4096,
        scale="log",
        slider=(1, 64),
        aliases=("micro_batch_size", "batch_size", "train_batch_size"),
        group="training",
    )
    gradient_accumulation_steps: int = option(
        1, "batches of rows to an optimizer step", ge=1, le=4096, scale="log", slider=(1, 32), aliases=("grad_accum",), group="training"
    )
    max_length: int = option(
        512,
        "most tokens of a row",
        ge=8,
        scale="log",
        slider=(32, 4096),
        aliases=("max_seq_length", "cutoff_len", "max_seq_len"),
        group="training",
    )
    optim: Literal["adamw", "adamw_8bit", "adafactor", "sgd"] = option(
        "adamw", "optimizer; adamw_8bit keeps its moments in 8 bits (CUDA)", aliases=("optimizer",), group="training"
    )
    adam_beta1: float = option(0.9, "AdamW's decay of the mean of gradients", ge=0, lt=1, group="training")
    adam_beta2: float = option(0.999, "AdamW's decay of the mean of squared gradients", ge=0, lt=1, group="training")
    adam_epsilon: float = option(1e-8, "AdamW's smallest divisor", gt=0, le=1, scale="log", slider=(1e-10, 1e-4), group="training")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "warmup_stable_decay"] = option(
        "cosine", "course of the learning rate after the warm-up", aliases=("lr_scheduler", "scheduler"), group="training"
    )
    warmup_ratio: float = option(0.05, "part of the steps in which the learning rate rises", ge=0, le=1, group="training")
    warmup_steps: int | None = option(
        None, "steps in which the learning rate rises, in place of warmup_ratio", ge=0, slider=(0, 500), group="training"
    )
    decay_ratio: float = option(0.2, "part of the steps in which warmup_stable_decay falls, at the end", ge=0, le=1, group="training")
    weight_decay: float = option(
        0.0, "decay of the trained matrices; biases and norms have none", ge=0, le=10, slider=(0, 0.3), group="training"
    )
    neftune_noise_alpha: float | None = option(
        None,
        "strength of noise on the embeddings while training (https://arxiv.org/abs/2310.05914)",
        gt=0,
        slider=(0, 15),
        group="training",
    )
    max_grad_norm: float = option(
        1.0, "gradients longer than this are shortened; 0: never", ge=0, slider=(0, 5), aliases=("gradient_clipping",), group="training"
    )
    gradient_checkpointing: Literal["auto", True, False] = option(
        "auto", "compute activations twice to save memory; auto: where they would not fit otherwise", group="training"
    )
    activation_cache: Literal["auto", True, False] = option(
        "auto", "compute the frozen blocks below all that is trained once, and keep what they give on disk", group="training"
    )
    packing: Literal["auto", True, False] = option("auto", "put the rows of a batch end to end instead of padding them", group="training")
    eval_steps: int | None = option(
        None,
        "steps between looks at the dev rows; left out: four times a run",
        ge=1,
        slider=(1, 200),
        aliases=("eval_every",),
        group="training",
    )
    save_steps: int | None = option(
        None, "steps between checkpoints; left out: with each look at the dev rows", ge=1, slider=(1, 500), group="training"
    )
    save_total_limit: int = option(2, "checkpoints kept", ge=1, le=1000, slider=(1, 10), group="training")
    sample_steps: int | None = option(
        None, "steps between sample answers; left out: with each look at the dev rows", ge=1, slider=(1, 200), group="training"
    )
    early_stopping_patience: int | None = option(
        None,
        "looks at the dev rows without a better one after which the run ends; left out: never",
        ge=1,
        le=1000,
        slider=(1, 10),
        group="training",
    )
    early_stopping_threshold: float = option(0.0, "how much better counts as better", ge=0, slider=(0, 0.1), group="training")
    metric_for_best_model: Literal["loss", "metric"] = option(
        "loss", "what is best: the lowest dev loss, or the highest of the task's metric", group="training"
    )
    load_best_model_at_end: bool = option(
        False, "end with the best checkpoint in place of the last", aliases=("keep_best",), group="training"
    )
    retain: str | None = option(
        None,
        "what the model should not forget: general (a text that comes along), or a text file; its loss is told before and after",
        group="training",
    )
    replay: float | None = option(
        None,
        "part of each step's loss that is the loss of the text to be retained (of what of it is not measured), against forgetting",
        gt=0,
        lt=1,
        slider=(0, 0.5),
        group="training",
    )
    kl_to_base: float | None = option(
        None,
        "weight of how far the model's expectations on the text to be retained are from the base's, against forgetting (adapters)",
        gt=0,
        le=1000,
        slider=(0, 2),
        group="training",
    )
    num_samples: int = option(2, "dev rows answered in full at each look", ge=0, le=20, group="training")
    max_eval_rows: int = option(64, "most dev rows in a look during training", ge=1, scale="log", slider=(8, 1024), group="training")

    @property
    def step_rows(self) -> int:
        """Rows of one optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


class CompareSpec(AskingSpec):
    """`%%compare`: the columns of the grid, and how all of them are asked."""

    what: ClassVar[str] = "comparison key"

    task: str = option("", "name of the task")
    approaches: Any = option((), "list of zero-shot, few-shot: {k: 8}, run: NAME, ensemble: [...], function: NAME")
    model: str | None = option(None, "base of the prompting columns; left out: that of the runs named")
    dtype: Literal["float32", "bfloat16", "float16"] | None = option(None, "number format of the base", aliases=("torch_dtype",))
    device: str | None = option(None, "cpu, cuda, cuda:1, mps; left out: the best there is")
    floor: bool = option(True, "of classes: what has to be beaten beside the rest, the most frequent class and a classifier over words")
    inputs: Any = option(None, "texts (or rows) without answers, compared by eye only")
    train_sizes: Sizes | None = option(None, "a learning curve over so many training rows: 25,50,100; runs are trained again for each")
    name: str | None = option(None, "name of the comparison")
