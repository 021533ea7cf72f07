"""One micro-step of a model on shapes alone: the most bytes alive at once, and the work.

All blocks of a decoder are alike, so two that take part in the backward are run, and one of the frozen ones below them; the rest
is the same again: each further block adds what one adds, to the forward what it keeps, to the backward of the lowest block its gradients.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nbtune.data.batches import Batch, PackedRows, paths_of
from nbtune.estimate.trace import Ledger, Pool, Work, tracing
from nbtune.models.attention import attending
from nbtune.models.families import blocks, embeddings, head, is_seq2seq

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nbtune.models.base import Base

__all__ = ["LARGE", "Micro", "Shape", "micro_step"]

_RUN: Final = 2
LARGE: Final = 1 << 25
"""From 32 MiB on glibc gives an allocation its own mapping, whatever it has learnt (mallopt(3), M_MMAP_THRESHOLD)."""


@dataclass(frozen=True)
class Shape:
    """A micro-batch: its rows' lengths, packed end to end or padded; `trained` logits are computed.

    Where an encoder reads the prompts, `lengths` are theirs, and a decoder's rows are of `written` tokens.
    Packed, each row begins with as many tokens of the row before as `begins` says, which are there once; (): with none.
    Where it is `held` to what the base expects, that is there as well: log-probabilities beside the logits.
    """

    lengths: tuple[int, ...]
    trained: int
    packed: bool
    begins: tuple[int, ...] = ()
    written: int = 0
    held: bool = False

    @property
    def rows(self) -> int:
        """Sequences of the batch; one where packed."""
        return 1 if self.packed else len(self.lengths)

    @property
    def width(self) -> int:
        """Tokens of a sequence, and of what a decoder writes to it."""
        return sum(self.lengths) - sum(self.begins) if self.packed else max(self.lengths) + self.written


@dataclass(frozen=True)
class Micro:
    """Bytes above the weights at the highest point (gradients included) in all storages and by size, and the work of a micro-step.

    Of what is in small storages, `gradients` are those, and `kept` is the most at once before the backward. `accumulating`: the gradients
    of an earlier micro-step were there already.
    """

    peak: int
    small: int
    big: int
    gradients: int
    kept: int
    work: Work
    accumulating: bool


def micro_step(
    base: Base,
    adapter: str,
    shape: Shape,
    *,
    dtype: torch.dtype,
    device: torch.device,
    quantization: str | None,
    checkpointing: bool,
    accumulating: bool,
) -> Micro:
    """Runs forward, loss and backward of `base`, a model on the meta device with its method attached; shortens that model for good.

    Args:
        base: a model on the meta device, the method attached under the name `adapter`.
        adapter: see `base`.
        shape: of the micro-batch.
        dtype: of frozen weights; trained ones are float32.
        device: where it would run; it has to be there for CUDA's own attention to be chosen.
        quantization: of the frozen linear layers.
        checkpointing: whether blocks keep nothing but their input.
        accumulating: whether gradients of an earlier micro-step are there already.

    Raises:
        Exception: whatever the model's own code raises where it cannot run without numbers (a mixture of experts that counts tokens).
    """
    more, frozen = _shorten(base)
    with tracing(LARGE) as ledger:
        _to_fake(base.model, dtype, device, quantization)
        base.dtype = dtype
        pools = (ledger.every, ledger.small, ledger.big)
        own = [pool.live for pool in pools]
        last = {id(parameter) for parameter in list(blocks(base.model))[-1].parameters()}
        trained = base.trained(adapter).values()
        sizes = [parameter.numel() * 4 * (1 + more * (id(parameter) in last)) for parameter in trained if parameter.numel() * 4 < LARGE]
        if accumulating:
            for parameter in trained:
                before = [pool.live for pool in pools]
                parameter.grad = _zeros_like(parameter)
                if id(parameter) in last:  # the blocks that are not run have gradients too
                    own = [below - more * (pool.live - was) for below, pool, was in zip(own, pools, before, strict=True)]
        _run(base, adapter, shape, ledger, checkpointing=checkpointing)
        peaks = [_peak(pool, below, more) for pool, below in zip(pools, own, strict=True)]
        kept = _forward(ledger.small, more) - own[1]
        return Micro(peaks[0], peaks[1], peaks[2], sum(sizes), kept, _work(ledger, more, frozen), accumulating)


def _run(base: Base, adapter: str, shape: Shape, ledger: Ledger, *, checkpointing: bool) -> None:
    import torch
    from torch.nn import functional

    row, place, target = (torch.zeros(shape.trained, dtype=torch.long, device=base.device) for _ in range(3))
    batch = _batch(shape, target).to(base.device)
    ledger.enter("forward")
    with base.lease(adapter if base.has_adapter(adapter) else None, training=True, checkpointing=checkpointing) as model:
        _mark(base.model, ledger)
        hook = head(base.model).register_forward_pre_hook(lambda _, args: (args[0][row, place], *args[1:]), prepend=True)
        logits = model(input_ids=batch.input_ids, **attending(base.model, batch)).logits
        loss = functional.cross_entropy(logits.float(), target, reduction="sum")
        if shape.held:
            logits = logits.float()
            loss = loss + functional.kl_div(logits.log_softmax(-1), torch.zeros_like(logits), log_target=True, reduction="sum")
        del logits
        ledger.enter("head")
        loss.backward()
        ledger.enter("end")
        hook.remove()


def _batch(shape: Shape, target: torch.Tensor) -> Batch:
    import torch

    ids = torch.zeros(shape.rows, shape.width - shape.written, dtype=torch.long)
    return Batch(
        input_ids=ids,
        position_ids=ids,
        predicts=ids.bool(),
        targets=target,
        owner=target,
        num_tokens=sum(shape.lengths),
        num_places=shape.rows * shape.width,
        num_rows=shape.rows,
        padding=None if shape.packed else ids,
        packed=PackedRows.of(paths_of(shape.lengths, shape.begins or [0] * len(shape.lengths))) if shape.packed else None,
        decoder_ids=torch.zeros(shape.rows, shape.written, dtype=torch.long) if shape.written else None,
    )


def _mark(model: Any, ledger: Ledger) -> None:
    """Tells the ledger when a block's forward ends and when its backward begins."""

    def follow(block: nn.Module, number: int) -> None:
        def ended(_module: nn.Module, _args: Any, out: Any) -> None:
            hidden = out[0] if isinstance(out, tuple) else out
            ledger.enter(f"after {number}")
            if hidden.requires_grad:
                hidden.register_hook(lambda _: ledger.enter(f"backward {number}"))

        block.register_forward_hook(ended)

    for number, block in enumerate(blocks(model)):
        follow(block, number)


def _peak(pool: Pool, own: int, more: int) -> int:
    """The pool's peak above `own` in the whole model, which has `more` blocks like the last one that was run."""
    keeps = _keeps(pool) if more else 0
    started = _started(pool.levels)
    frees = keeps + (pool.levels[f"backward {started[-1]}"] - pool.levels[f"backward {started[0]}"] if more else 0)
    upper = max((pool.peaks[f"backward {number}"] for number in started[:-1]), default=0)
    lowest = max(pool.peaks[f"backward {started[-1]}"], pool.peaks["end"]) if started else 0
    return max(_forward(pool, more), upper + keeps * more, lowest + frees * more) - own


def _forward(pool: Pool, more: int) -> int:
    forward = max(peak for name, peak in pool.peaks.items() if name in {"forward", "head"} or name.startswith("after"))
    return forward + (_keeps(pool) * more if more else 0)


def _keeps(pool: Pool) -> int:
    """What the forward of the last block leaves behind."""
    last = sum(name.startswith("after") for name in pool.levels) - 1
    return pool.levels[f"after {last}"] - pool.levels[f"after {last - 1}"]


def _work(ledger: Ledger, more: int, below: int) -> Work:
    """The work of the whole model, which has `more` blocks like the last one that was run, and `below` like the first."""
    last = sum(name.startswith("after") for name in ledger.began) - 1
    work = ledger.work + Work()
    if more:
        started = _started(ledger.began)
        work += _between(ledger, f"after {last - 1}", f"after {last}") * more
        work += _between(ledger, f"backward {started[0]}", f"backward {started[-1]}") * more
    if below:
        work += _between(ledger, "forward", "after 0") * below
    return work


def _started(phases: Iterable[str]) -> list[int]:
    """Numbers of the blocks whose backward ran, the uppermost first."""
    return sorted((int(name.split()[1]) for name in phases if name.startswith("backward")), reverse=True)


def _between(ledger: Ledger, start: str, end: str) -> Work:
    return ledger.began[end] - ledger.began[start]


def _shorten(base: Base) -> tuple[int, int]:
    """Takes blocks out that are like others; how many (with a part in the backward, frozen below all that is trained).

    Of an encoder and a decoder all are run: a decoder's blocks hold on to the encoder, whose states all of them read.
    """
    if is_seq2seq(base.config):
        return 0, 0
    layers = blocks(base.model)
    signs = [_sign(block) for block in layers]
    trained_below = any(p.requires_grad for p in embeddings(base.model).parameters())
    lowest = 0 if trained_below else next((number for number, sign in enumerate(signs) if sign[1]), len(signs))
    frozen, live = layers[:lowest], layers[lowest:]
    alike = len(set(signs[lowest:])) <= 1 and len({sign[0] for sign in signs[:lowest]}) <= 1
    kept = [*frozen[:1], *live[:_RUN]] if alike else list(layers)
    more, below = (max(0, len(live) - _RUN), max(0, len(frozen) - 1)) if alike else (0, 0)
    del layers[len(kept) :]
    for place, block in enumerate(kept):
        layers[place] = block
    return more, below


def _sign(block: nn.Module) -> tuple[int, int]:
    """What tells blocks apart here: their parameters, and how many of them are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in block.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def _to_fake(model: nn.Module, dtype: torch.dtype, device: torch.device, quantization: str | None) -> None:
    """Gives the model fake parameters on `device` in place of its meta ones; a tied pair stays tied."""
    import torch

    from nbtune.estimate.quantized import quantize

    made: dict[int, Any] = {}
    if quantization is not None:
        quantize(model, quantization)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):  # noqa: SLF001  no public way sets a parameter of another device
            if parameter is None:
                continue
            if id(parameter) not in made:
                kind = torch.float32 if parameter.requires_grad else dtype
                data = torch.empty(parameter.shape, dtype=kind, device=device)
                made[id(parameter)] = torch.nn.Parameter(data, requires_grad=parameter.requires_grad)
            module._parameters[name] = made[id(parameter)]  # noqa: SLF001  as above
        for name, buffer in list(module._buffers.items()):  # noqa: SLF001  as above
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)  # noqa: SLF001  as above


def _zeros_like(parameter: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.zeros(parameter.shape, dtype=parameter.dtype, device=parameter.device)
