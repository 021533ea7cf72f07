"""What every method promises on every base that it takes: one promise a function, which asserts it.

The tests hold the promises on some models, `make bench B=methods` on the whole product of methods, families and quantizations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

import nbtune
from nbtune.data.batches import collate
from nbtune.data.encoded import Answered
from nbtune.data.encoding import encode_rows
from nbtune.methods import attach, first_ids, get, merges, tier
from nbtune.models.families import can_pack
from nbtune.models.fingerprint import fingerprint
from nbtune.models.shared import own_base
from nbtune.objectives import encoder_for, source_for
from nbtune.objectives import get as objective_of
from tests.examples import ticket_task

if TYPE_CHECKING:
    from nbtune.data.encoded import Encoded
    from nbtune.estimate import Estimate
    from nbtune.models.base import Base
    from nbtune.models.loading import Source

__all__ = [
    "DRAWN",
    "Cell",
    "check_beginning",
    "check_caching",
    "check_count",
    "check_gradients",
    "check_learning",
    "check_merging",
    "check_off",
    "check_opening",
    "check_splitting",
    "stir",
]

NAME: Final = "it"
"""What the adapter is called."""
ROWS: Final = 5


@dataclass(frozen=True)
class Cell:
    """A method on the tiny model of a folder: one that writes, or with `objective` classification one under a head over classes."""

    method: str
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    objective: str = "sft"
    quantization: str | None = None
    dtype: str = "float32"

    @property
    def source(self) -> Source:
        """The model, not loaded."""
        return source_for(self.objective, self.folder, ticket_task())

    def spec(self, seed: int = 0) -> Any:
        """The method's options."""
        return get(self.method).spec.build({**self.options, "objective": self.objective, "seed": seed})

    def estimate(self) -> Estimate:
        """What is counted from the config alone.

        Raises:
            NbtuneError: the method refuses the model or the quantization.
        """
        task = {} if self.objective == "sft" else {"task": ticket_task(), "objective": self.objective}
        held = {"quantization": self.quantization, "dtype": self.dtype}
        return nbtune.estimate(self.method, model=self.folder, **held, **task, **self.options)

    def attached(self, name: str = NAME, seed: int = 0) -> Base:
        """A base of its own with the method on."""
        base = own_base(self.source, dtype=self.dtype, quantization=self.quantization, device="cpu")
        attach(get(self.method), base, self.spec(seed), name)
        return base

    def rows(self, base: Base, count: int = ROWS) -> list[Encoded]:
        """Training rows as the method's model reads them."""
        spec, task = self.spec(), ticket_task()
        encoder = encoder_for(task, spec, base.tokenizer, base.config, first_ids(get(self.method), spec, base.config))
        return encode_rows(encoder, task.train[:count], max_length=128)[0]

    def gradients(self, base: Base, *, packed: bool = False, checkpointing: bool = False, size: int = ROWS) -> float:
        """The rows' mean loss, `size` rows at a time; its gradients are left in the parameters."""
        rows, total = self.rows(base), 0.0
        weight = sum(row.num_trained for row in rows)
        with base.lease(_adapter(base), training=True, checkpointing=checkpointing) as model:
            model.zero_grad(set_to_none=True)
            for start in range(0, len(rows), size):
                batch = collate(rows[start : start + size], packed=packed, pad_id=0)
                loss = objective_of(self.objective).loss(model, batch)[0] / weight
                loss.backward()
                total += float(loss.detach())
        return total


def _adapter(base: Base, name: str = NAME) -> str | None:
    return name if base.has_adapter(name) else None


def _logits(base: Base, name: str | None, row: Encoded) -> torch.Tensor:
    """Logits [1, tokens, any] of a row."""
    with base.lease(name) as model:
        logits: torch.Tensor = model(**_asked_with(row)).logits
    return logits


def _states(base: Base, name: str | None, row: Encoded) -> torch.Tensor:
    """What the last block of a model gives for a row [1, tokens, hidden]: before a head, of which each adapter brings its own."""
    with base.lease(name) as model:
        states: torch.Tensor = model(**_asked_with(row), output_hidden_states=True).hidden_states[-1]
    return states


def _asked_with(row: Encoded) -> dict[str, torch.Tensor]:
    """What a model is given of a row: its tokens, or its prompt and what the decoder writes."""
    if isinstance(row, Answered):
        return {"input_ids": torch.tensor([row.ids[: row.start]]), "decoder_input_ids": torch.tensor([row.written])}
    return {"input_ids": torch.tensor([row.ids])}


def stir(base: Base) -> None:
    """Moves what is trained away from where it starts, where some methods change nothing yet."""
    chance = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in base.trained(NAME).values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=chance).to(parameter.dtype))


def check_count(cell: Cell, base: Base) -> None:
    """What was counted from the config is what is trained, and what there is."""
    expected = cell.estimate()
    trained = sum(parameter.numel() for parameter in base.trained(NAME).values())
    assert trained == expected.trainable_parameters, f"{trained} parameters are trained, {expected.trainable_parameters} were counted"
    assert trained > 0, "nothing is trained"
    if cell.quantization is None:  # 4 bits lie in pairs, two to a number
        total = sum(parameter.numel() for parameter in base.model.parameters())
        assert total == expected.total_parameters, f"there are {total} parameters, {expected.total_parameters} were counted"


DRAWN: Final = frozenset({"prompt-tuning", "p-tuning", "prefix-tuning", "cpt", "multitask-prompt-tuning", "c3a", "unilora", "vblora"})
"""What a model says from the first with one of these on is not what its base says: soft prompts, and updates that are drawn."""


def check_beginning(cell: Cell, base: Base) -> None:
    """A fresh method leaves what the model says as it was, but for rounding; of those of `DRAWN` nothing is held.

    On int8 what is trained may be multiplied with the weights in full precision, which the base's own product is not; and 16 bits round.
    """
    if cell.method in DRAWN or not base.has_adapter(NAME):
        return
    row = cell.rows(base)[0]
    said, wanted = (_states(base, name, row) if base.labels else _logits(base, name, row) for name in (NAME, None))
    away = float((said - wanted).abs().max() / wanted.std())
    most = 0.25 if cell.quantization == "int8" else 1e-4 if cell.dtype == "float32" else 0.1
    assert away < most, f"before its first step, logits are {away:.2g} of their spread away from the base's"


def check_gradients(cell: Cell, base: Base) -> None:
    """What is trained has gradients, nothing else has any, and of a head over classes they are not zero."""
    cell.gradients(base)
    trained = base.trained(NAME)
    reached = {name for name, parameter in base.model.named_parameters() if parameter.grad is not None}
    assert reached == set(trained), f"with a gradient but not trained, or the other way round: {sorted(reached ^ set(trained))[:4]}"
    grads = {name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None}
    assert any(bool(grad.abs().sum() > 0) for grad in grads.values()), "all gradients are zero"
    if base.labels:
        heads = [name for name in trained if name.startswith("classifier.")]
        assert len(heads) == 2, f"the head is trained as {heads}"
        assert all(bool(grads[name].abs().sum() > 0) for name in heads), "the head's gradients are zero"


def check_learning(cell: Cell, base: Base, *, least: float = 0.0) -> None:
    """Five steps at the method's learning rate lower the loss, by more than `least` nats."""
    optimizer = torch.optim.AdamW(base.trained(NAME).values(), lr=cell.spec().learning_rate)
    losses = []
    for _ in range(5):
        losses.append(cell.gradients(base))
        optimizer.step()
    losses.append(cell.gradients(base))
    assert losses[-1] < losses[0] - least, f"the loss went from {losses[0]:.4f} to {losses[-1]:.4f}"


def check_off(cell: Cell, base: Base) -> None:
    """Switched off, a stirred adapter gives the base's logits exactly; switched on it does not. Parts of a base cannot be switched off."""
    assert base.drift() == 0, f"with the adapter off, logits differ by {base.drift():.2g} from the base's"
    if base.has_adapter(NAME):
        row = cell.rows(base)[0]
        plain = row.without(len(first_ids(get(cell.method), cell.spec(), base.config)))
        moved = float((_logits(base, NAME, row)[0, -1] - _logits(base, None, plain)[0, -1]).abs().max())
        assert moved > 0, "with the adapter on, logits are the base's"


def check_splitting(cell: Cell, base: Base) -> None:
    """Rows packed (where the family can), accumulated, and with checkpointing give the loss and the gradients of one padded batch."""
    found = {}
    ways: dict[str, dict[str, Any]] = {"padded": {}, "accumulated": {"size": 2}, "checkpointed": {"checkpointing": True}}
    if can_pack(base.config):
        ways["packed"] = {"packed": True}
    for way, options in ways.items():
        loss = cell.gradients(base, **options)
        found[way] = loss, torch.cat([parameter.grad.flatten() for parameter in base.trained(NAME).values()])  # type: ignore[union-attr]
    loss, grads = found.pop("padded")
    for way, (other, others) in found.items():
        assert abs(other - loss) < 1e-5, f"{way}, the loss is {other:.6f} in place of {loss:.6f}"
        away = float((others - grads).norm() / grads.norm())
        assert away < 1e-3, f"{way}, the gradient is {away:.2g} of its length away"


def check_caching(cell: Cell, base: Base) -> None:
    """Generation with a cache gives the tokens of generation without; nothing to see where nothing is written.

    On int8 two tokens that are as likely but for its rounding, which depends on what is read together, may stand for each other.
    """
    if base.labels:
        return
    row = cell.rows(base)[0]
    writes = isinstance(row, Answered)
    ids = torch.tensor([row.ids[: row.start] if writes else row.ids])
    told: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "do_sample": False}
    told |= {"return_dict_in_generate": True, "output_logits": True}
    with base.lease(_adapter(base)) as model:
        cached, plain = (model.generate(**told, use_cache=cache) for cache in (True, False))  # type: ignore[operator]
    said, wanted = (made.sequences[0, -len(made.logits) :].tolist() for made in (cached, plain))
    place = next((place for place, (one, other) in enumerate(zip(said, wanted, strict=False)) if one != other), None)
    if place is None:
        assert said == wanted
        return
    logits = plain.logits[place][0]
    gap = float(logits[wanted[place]] - logits[said[place]])
    assert cell.quantization == "int8", f"with a cache {said} is generated, without {wanted}"
    assert gap < 0.1 * float(logits.std()), f"with a cache {said} is generated, without {wanted}, {gap:.2g} likelier"


def check_opening(cell: Cell, base: Base, folder: Path) -> None:
    """What is written to `folder` opens on a fresh base, known for the same with a method on, under another name and seed: equal logits."""
    row = cell.rows(base)[0]
    wanted = _logits(base, _adapter(base), row)
    base.state(NAME).write(folder)
    torch.manual_seed(99)
    bare = own_base(cell.source, dtype=cell.dtype, quantization=cell.quantization, device="cpu")
    fresh = cell.attached("other", seed=77)
    for held in (base, fresh) if base.has_adapter(NAME) else (fresh,):
        assert fingerprint(held) == fingerprint(bare), "with the method on, the base is not known again"
    fresh.restore("other", folder)
    away = float((_logits(fresh, _adapter(fresh, "other"), row) - wanted).abs().max())
    assert away == 0, f"opened again, logits differ by {away:.2g}"


def check_merging(cell: Cell, base: Base, folder: Path) -> None:
    """What `check_opening` wrote is opened by peft alone, and merges into an unquantized base within 1e-4, or says that it cannot.

    Of a second-tier method that is said not to merge, nothing is held of what peft would do. Where peft's format has no place for a new head
    (trainable-tokens), nbtune itself opens what it has written.
    """
    from peft import PeftModel

    if base.peft is None:
        return
    row = cell.rows(base)[0]
    told = _asked_with(row)
    if base.labels and "modules_to_save" not in {item.name for item in fields(base.peft.peft_config[NAME])}:
        unquantized = replace(cell, quantization=None).attached("other", seed=77)
        unquantized.restore("other", folder)
        opened: Any = unquantized.peft
    else:
        plain = own_base(cell.source, dtype="float32", quantization=None, device="cpu").model  # what a file lacks is drawn alike there
        opened = PeftModel.from_pretrained(plain, folder)
    with torch.no_grad():
        wanted = opened(**told).logits
        if cell.quantization is None:
            torch.testing.assert_close(wanted, _logits(base, NAME, row), rtol=1e-5, atol=1e-5)
        if merges(get(cell.method), cell.spec()):
            torch.testing.assert_close(opened.merge_and_unload()(**told).logits, wanted, rtol=1e-4, atol=1e-4)  # type: ignore[operator]
            return
    if tier(get(cell.method)) > 1:
        return  # peft would merge some of them, less exactly than is wanted here
    refused = ""
    try:
        opened.merge_and_unload()  # type: ignore[operator]
    except ValueError as error:
        refused = str(error)
    assert "merged" in refused, f"{cell.method} is said not to merge, and peft said of it: {refused or 'nothing'}"
