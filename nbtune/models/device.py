"""Which device and which number format: what is there, and what it does well."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nbtune.errors import ModelError

if TYPE_CHECKING:
    import torch

__all__ = [
    "available_bytes",
    "best_device",
    "best_dtype",
    "device_of",
    "dtype_of",
    "give_back",
    "is_out_of_memory",
    "name_at_once",
    "num_threads",
    "rest_threads",
]


def best_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def device_of(name: str | None) -> torch.device:
    """The device called `name`, or the best there is.

    Raises:
        ModelError: torch does not know the name, or the device is not there.
    """
    import torch

    if name is None:
        return best_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        message = f"device {name!r} cannot be used: {str(error).splitlines()[0]}"
        raise ModelError(message, hint=f"leave it out to use {best_device()}") from None
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def name_at_once(name: str | None) -> str | None:
    """What torch calls that device (None: the best), so that the same one has one name; None where that would have to wait for torch.

    A name that torch does not know is given back as it is: whoever uses it gets the error.
    """
    torch = sys.modules.get("torch")
    if torch is None or getattr(torch.__spec__, "_initializing", False):
        return name if name is not None and (name == "cpu" or ":" in name) else None
    try:
        return str(device_of(name))
    except ModelError:
        return name


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware (CUDA from Ampere on, CPUs with AMX or AVX512-bf16), else float32."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
        return torch.bfloat16 if fast else torch.float32
    return torch.float32


def dtype_of(name: str | None, device: torch.device) -> torch.dtype:
    """The torch dtype called `name` ("float32", "bfloat16", "float16"), or the one that suits the device."""
    import torch

    return best_dtype(device) if name is None else getattr(torch, name)


def available_bytes(device: torch.device) -> int:
    """Memory that can still be had on the device: on CUDA also what torch holds and does not use, on the CPU within a container's limit."""
    if device.type == "cuda":
        import torch

        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = _container_bytes(Path("/sys/fs/cgroup"))
    return free if limit is None else min(free, limit)


def _container_bytes(group: Path) -> int | None:
    """What a container's limit leaves (cgroup v2), files that the kernel may drop counted as free; None: there is no limit."""
    try:
        limit, used = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no cgroup v2 here, or "max"
        return None
    return max(0, limit - used + int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0)))


def give_back() -> None:
    """Hands free pages of the heap back to the system, where glibc is what keeps them; nothing happens elsewhere.

    The threads that read and quantize weights each have a heap of their own, which keeps hundreds of megabytes that nobody uses again.
    """
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def num_threads() -> int:
    """How many threads torch computes with."""
    import torch

    return torch.get_num_threads()


def rest_threads() -> None:
    """Ends the workers that OpenMP keeps for the calling thread, which is going to wait; its next operation makes new ones.

    GNU's OpenMP counts the workers of all threads. Where there are more of them than cores it puts every one to sleep after each
    operation, those of a thread that trains too: on two cores its steps took 1.6 times as long. Nothing happens with another OpenMP.
    """
    if sys.platform != "linux" or "torch" not in sys.modules:
        return
    import ctypes

    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    if pause is not None:
        pause(1)  # omp_pause_soft: what was set stays


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine had no memory left; torch says so in three ways."""
    return type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError) or "can't allocate memory" in str(error)
