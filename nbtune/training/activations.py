"""The frozen part of a model computed once: the states that enter the lowest trained block are kept on disk, and each step starts there.

Inside `ActivationCache.applied` the blocks below do not run: each answers at once with the kept states, and the model's own forward
does the rest. So masks, positions, norm, head and whatever a family does to its embeddings stay the model's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from nbtune.data.batches import PackedRows, collate, like_lengths
from nbtune.errors import ModelError, RunError, SpecError
from nbtune.models.attention import attending, rows_apart
from nbtune.models.device import give_back
from nbtune.models.families import blocks, is_encoder
from nbtune.models.frozen import has_dropout_below, lowest_trained_block
from nbtune.store import RunFolder, home

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nbtune.data.batches import Batch
    from nbtune.data.encoded import Encoded
    from nbtune.models.base import Base
    from nbtune.objectives import Objective

__all__ = ["ActivationCache", "disk_limit", "open_cache", "remove_left"]

FOLDER: Final = "activations"
"""Where the cache lies in a run's folder: states.bin (a row-major [tokens, hidden] matrix) and index.json."""
GROUP_TOKENS: Final = 1024
"""Tokens of a forward while it is filled: more gains nothing on a CPU, and a block mask grows with the square."""
MOST_BYTES: Final = 8 * 2**30
_TOLERANCE: Final = {"torch.float32": 1e-4}
"""Nats a token by which a loss from kept states may differ from the plain one; in half precision 0.02."""

Tell = Callable[[int, int], None]
"""Told how many rows of how many are done; what it raises ends the filling, and nothing is left behind."""


def disk_limit(folder: Path) -> int:
    """Bytes that a cache in `folder` may take: 8 GiB, or a fifth of what is free on its disk where that is less."""
    return min(MOST_BYTES, shutil.disk_usage(folder).free // 5)


def remove_left() -> None:
    """Removes the caches of runs that nobody trains any more: killed or stopped, they compute theirs anew if they go on."""
    for name in (FOLDER, f".part-{FOLDER}"):
        for path in (home() / "runs").glob(f"*/{name}"):
            if not RunFolder(path.parent).is_owned():
                shutil.rmtree(path, ignore_errors=True)


def open_cache(
    base: Base,
    adapter: str,
    rows: Sequence[Encoded],
    *,
    objective: Objective,
    packed: bool,
    shared: bool = True,
    folder: Path,
    wanted: Literal["auto", True, False] = "auto",
    epochs: float = 2.0,
    noise: bool = False,
    limit: int | None = None,
    tell: Tell | None = None,
) -> tuple[ActivationCache | None, str]:
    """A filled cache where there is something to save, and what to tell the user of it ("": nothing).

    One of the same rows and model that lies whole in the run's folder is taken up again. `auto` takes one where a quarter of the blocks
    or more is saved, over more than an epoch, no dropout below would be lost, it fits, and a first batch gives the plain loss.

    Args:
        base: with the adapter or the parts already set free; its lease is taken for each forward, so others come in between.
        adapter: the run's id.
        rows: all training rows; `applied` names them by their place here.
        objective: whose loss is compared, once with the frozen blocks and once without.
        packed: how the rows become batches, as in training.
        shared: likewise.
        folder: the run's folder.
        wanted: the option `activation_cache`.
        epochs: passes over the rows in the whole run, so that a run that carries on decides as before: its bits are others without a cache.
        noise: NEFTune noise is put on the embeddings.
        limit: most bytes on disk; left out: `disk_limit`.
        tell: called between forwards; may raise to end it.

    Raises:
        SpecError: `wanted` is True, and nothing is frozen below what is trained, noise would be lost, or it is too large.
        ModelError: `wanted` is True, and the model's family does not allow it.
        RunError: `wanted` is True, and the disk is full.
    """
    if wanted is False:
        return None, ""
    depth = lowest_trained_block(base, adapter)
    reason = "noise on the embeddings is wanted, and would be lost" if noise else "" if depth else "nothing is frozen below what is trained"
    if any(row.by_chance for row in rows):
        reason = "at each step other tokens of a row are hidden"
    if reason and wanted is True:
        raise SpecError(f"activation_cache is true, and {reason}", hint="set activation_cache: auto")
    if reason or depth is None or (wanted == "auto" and not _pays(base, depth, epochs)):
        return None, ""
    cache = ActivationCache(base, adapter, rows, depth=depth, packed=packed, shared=shared, folder=folder)
    try:
        cache.prove(objective)
        reused = cache.fill(disk_limit(folder) if limit is None else limit, tell or (lambda _done, _total: None))
        give_back()  # its forwards are larger than a step's, and the heap would keep their pages
    except (SpecError, ModelError, RunError) as error:
        cache.close()
        if wanted is True:
            raise
        return None, f"activation_cache is off: {error.message}"
    except BaseException:
        cache.close()
        raise
    return cache, cache.text(reused=reused)


class ActivationCache:
    """The states of each row that leave block `depth` - 1, memory-mapped until `close()`; under a head alone trained places only."""

    def __init__(self, base: Base, adapter: str, rows: Sequence[Encoded], *, depth: int, packed: bool, shared: bool, folder: Path) -> None:
        self.base, self.adapter, self.rows, self.depth, self.packed, self.shared = base, adapter, rows, depth, packed, shared
        layers = blocks(base.model)
        self.head_only = depth == len(layers)
        self._below: list[nn.Module] = list(layers[:depth])
        self._folder = folder / FOLDER
        self._part = folder / f".part-{FOLDER}"
        self._pad = int(base.tokenizer.pad_token_id or 0)
        self._in_tuple = False
        self._states: torch.Tensor | None = None
        self._groups = like_lengths([len(row.ids) for row in rows], GROUP_TOKENS, packed=packed)
        self._starts: dict[int, int] = {}
        self._num_states = 0
        for group in self._groups:
            for row in group:
                self._starts[row] = self._num_states
                self._num_states += self._count(row)

    @property
    def num_bytes(self) -> int:
        """What it takes on disk; 0 before it is filled."""
        return 0 if self._states is None else self._states.nbytes

    def text(self, *, reused: bool) -> str:
        """What it does, in words for the user."""
        name = f"the {self.depth} frozen blocks" if self.depth > 1 else "the frozen block"
        what = "trained positions" if self.head_only else "tokens"
        done = "were computed before and are taken up again" if reused else "are computed once"
        return (
            f"activation_cache: {name} below what is trained {done}; their states at {self._num_states:,} {what} take "
            f"{self.num_bytes / 1e6:,.1f} MB in the run's folder until it ends"
        )

    def batch(self, rows: Sequence[int]) -> Batch:
        """What to ask an objective about inside `applied(rows)`; where only the head is trained, the trained positions [1, n] alone."""
        return self._reduced(self._collate(rows))

    @contextmanager
    def applied(self, rows: Sequence[int]) -> Iterator[None]:
        """Inside it and the base's lease, a forward on `batch(rows)` starts at block `depth`; the frozen blocks are in eval mode.

        Raises:
            RunError: the cache is closed, or was not filled.
        """
        import torch

        if self._states is None:
            raise RunError("the cache of activations is closed", hint="open_cache opens one")
        parts = [self._states[self._starts[row] : self._starts[row] + self._count(row)] for row in rows]
        with self._answering(self._arranged(torch.cat(parts), [len(part) for part in parts], self._collate(rows))):
            yield

    def loss(self, model: Any, objective: Objective, rows: Sequence[int]) -> tuple[torch.Tensor, int]:
        """The objective's loss of these rows, as `objective.loss` gives it; `model` is what the base's lease gave."""
        with self.applied(rows):
            return objective.loss(model, self.batch(rows).to(self.base.device))

    def prove(self, objective: Objective) -> None:
        """Compares the loss of a few rows with and without the frozen blocks, in eval mode and on equal states.

        Raises:
            ModelError: they differ: the blocks above take more than the states of the block below, or the family has them in another form.
        """
        rows = self._groups[0][:4]
        whole = self._collate(rows).to(self.base.device)
        kept: list[Any] = []
        try:
            with self.base.lease(self.adapter) as model:
                with self._watching(kept.append):
                    plain, weight = objective.loss(model, whole)
                self._in_tuple = isinstance(kept[0], tuple)
                states = self._taken(kept[0], whole)
                with self._answering(self._arranged(states, [self._count(row) for row in rows], whole)):
                    cached, _ = objective.loss(model, self._reduced(whole))
            gap = float((plain - cached).abs()) / max(1, weight)
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
            raise self._unfit(f"{type(error).__name__}") from error
        if not gap <= _TOLERANCE.get(str(states.dtype), 0.02):
            raise self._unfit(f"the loss of a first batch moves by {gap:.2g} nats a token")

    def fill(self, limit: int, tell: Tell) -> bool:
        """Computes the states of all rows, or takes up those that lie whole in the folder: then True.

        Raises:
            SpecError: they would take more than `limit` bytes.
            RunError: the disk is full or cannot be written.
        """
        first = self._computed(self._groups[0])
        index = self._index(first)
        if self._is_whole(index, first):
            self._map(first)
            return True
        shutil.rmtree(self._folder, ignore_errors=True)
        need = int(index["bytes"])
        if need > limit:
            message = f"the states of {self._num_states:,} tokens would take {need / 1e9:,.3g} GB, and it may take {limit / 1e9:,.3g} GB"
            raise SpecError(message, hint="set activation_cache: auto, use fewer or shorter rows, or free some disk space")
        try:
            self._write(index, first, tell)
        except OSError as error:
            message = f"the states could not be written: {error.strerror or error}"
            raise RunError(message, hint=f"free some disk space under {self._folder.parent}, or set activation_cache: false") from error
        finally:
            shutil.rmtree(self._part, ignore_errors=True)
        self._map(first)
        return False

    def close(self) -> None:
        """Lets go of the file and removes it; nothing happens where that was done."""
        self._states = None
        shutil.rmtree(self._part, ignore_errors=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, index: dict[str, Any], first: torch.Tensor, tell: Tell) -> None:
        """All groups in their order, then the index; the folder appears under its name when it is complete."""
        shutil.rmtree(self._part, ignore_errors=True)
        self._part.mkdir(parents=True)
        done = 0
        with (self._part / "states.bin").open("wb") as file:
            for number, group in enumerate(self._groups):
                file.write(_bytes(self._computed(group) if number else first))
                done += len(group)
                tell(done, len(self.rows))
            file.flush()
            os.fsync(file.fileno())
        with (self._part / "index.json").open("w") as file:
            json.dump(index, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        self._part.rename(self._folder)

    def _index(self, first: torch.Tensor) -> dict[str, Any]:
        """What the file holds, and what it was computed from; `first` are the states of the first group."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(f"{list(row.reads)}:{row.ids}\n".encode())
        return {
            "model": self.base.name,
            "quantization": self.base.quantization,
            "dtype": str(first.dtype),
            "hidden": first.shape[-1],
            "block": self.depth,
            "positions": "trained" if self.head_only else "all",
            "packed": self.packed,
            "shared": self.shared,
            "group_tokens": GROUP_TOKENS,
            "rows": digest.hexdigest(),
            "bytes": self._num_states * first.shape[-1] * first.element_size(),
        }

    def _is_whole(self, index: dict[str, Any], first: torch.Tensor) -> bool:
        """Whether the folder holds just this. Its first group is compared bit by bit: names do not tell that weights have changed."""
        path = self._folder / "states.bin"
        try:
            if json.loads((self._folder / "index.json").read_text()) != index or path.stat().st_size != index["bytes"]:
                return False
            with path.open("rb") as file:
                return file.read(first.nbytes) == _bytes(first)
        except (OSError, ValueError):
            return False

    def _map(self, like: torch.Tensor) -> None:
        import torch

        hidden = like.shape[-1]
        path = str(self._folder / "states.bin")
        self._states = torch.from_file(path, shared=False, size=self._num_states * hidden, dtype=like.dtype).view(-1, hidden)

    def _computed(self, group: Sequence[int]) -> torch.Tensor:
        """The states of these rows, one after the other [n, hidden], on the CPU; no block from `depth` on runs, and no head."""
        batch = self._collate(group).to(self.base.device)
        kept: list[Any] = []

        def stop(output: Any) -> None:
            kept.append(output)
            raise _ReachedError

        with self.base.lease(self.adapter) as model, self._watching(stop), rows_apart(model):
            with suppress(_ReachedError):
                model(input_ids=batch.input_ids, **attending(model, batch))
            return self._taken(kept[0], batch)

    def _taken(self, output: Any, batch: Batch) -> torch.Tensor:
        """Of what a block gave for a batch, the states that are kept, row by row [n, hidden]."""
        states: torch.Tensor = output[0] if isinstance(output, tuple) else output
        if states.shape[:-1] != batch.input_ids.shape:
            raise ValueError(tuple(states.shape))
        if self.head_only:
            return states.flatten(0, 1).index_select(0, batch.predicts).cpu()
        return states[0].index_select(0, batch.places).cpu() if batch.places is not None else states[batch.attention_mask.bool()].cpu()

    def _arranged(self, states: torch.Tensor, counts: Sequence[int], batch: Batch) -> torch.Tensor:
        """Rows' states one after the other [n, hidden] as the batch has them: [1, T, hidden], or padded on the right [B, T, hidden]."""
        import numpy as np
        import torch

        if self.head_only:
            return states[None].to(self.base.device, non_blocking=True)
        if batch.places is not None:  # of a token that rows share, the state that the first of them has
            first = np.unique(batch.places.cpu().numpy(), return_index=True)[1]
            return states.index_select(0, torch.from_numpy(first))[None].to(self.base.device, non_blocking=True)
        padded = states.new_zeros(len(counts), max(counts), states.shape[-1])
        for number, part in enumerate(states.split(list(counts))):
            padded[number, : len(part)] = part
        return padded.to(self.base.device, non_blocking=True)

    def _collate(self, rows: Sequence[int]) -> Batch:
        return collate([self.rows[row] for row in rows], packed=self.packed, pad_id=self._pad, shared=self.shared)

    def _reduced(self, batch: Batch) -> Batch:
        """The batch itself, or where no attention is left its trained positions alone; which row is whose is never asked there."""
        if not self.head_only:
            return batch
        import torch

        ids = batch.input_ids.flatten().index_select(0, batch.predicts)
        places = torch.arange(ids.numel(), device=ids.device)
        # An encoder counts positions itself, and has no more than a text's: each token is a row of its own to it.
        ids = ids[:, None] if is_encoder(self.base.config) else ids[None]
        return replace(batch, input_ids=ids, position_ids=places[None], predicts=places, padding=None, packed=PackedRows(), segments=None)

    def _count(self, row: int) -> int:
        if self.head_only:
            return len(self.rows[row].reads)
        return self.rows[row].reads[-1] + 1 if self.packed and self.shared else len(self.rows[row].ids)

    @contextmanager
    def _watching(self, seen: Callable[[Any], None]) -> Iterator[None]:
        hook = self._below[-1].register_forward_hook(lambda _module, _args, output: seen(output))
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def _answering(self, states: torch.Tensor) -> Iterator[None]:
        """Each block below answers with `states`; they keep their places, because families look blocks up by number."""
        answer = (states,) if self._in_tuple else states
        before = [(layer, layer.__dict__.get("forward"), layer.training) for layer in self._below]
        for layer in self._below:
            layer.forward = lambda *_args, **_kwargs: answer
            layer.training = False
        try:
            yield
        finally:
            for layer, forward, training in before:
                del layer.forward
                if forward is not None:  # accelerate may have put its own there
                    layer.forward = forward
                layer.training = training

    def _unfit(self, why: str) -> ModelError:
        message = f"a {type(self.base.model).__name__} does not train on from kept states: {why}"
        return ModelError(message, hint="set activation_cache: auto or false")


class _ReachedError(Exception):
    """The forward has come as far as it is wanted."""


def _pays(base: Base, depth: int, epochs: float) -> bool:
    """Whether a quarter of the blocks is saved more than once, and no dropout lost."""
    return depth * 4 >= len(blocks(base.model)) and epochs > 1 and not has_dropout_below(base, depth)


def _bytes(states: torch.Tensor) -> bytes:
    import torch

    return states.contiguous().view(torch.uint8).numpy().tobytes()
