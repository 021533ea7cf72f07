"""How long a user waits: loading the extension, the first pixels of the panel, the first point of the loss. In a real kernel.

    make bench B=startup

Beside each figure stands what bounds it from below on the same machine in the same run: an empty extension, an empty cell.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

REPEATS = 3
WIDGET = "application/vnd.jupyter.widget-view+json"
TASK = """%%task tickets --data demo:tickets
prompt: |
  Which team handles this ticket?
  Ticket: {{ text }}
  Team:
completion: " {{ team }}"
"""


class Timed:
    """A fresh kernel whose cells are timed from the moment they are sent."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager()
        self.manager.start_kernel(cwd=str(folder), extra_arguments=["--HistoryManager.enabled=False"])
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def cell(self, code: str, marks: dict[str, Any] | None = None) -> dict[str, float]:
        """Seconds to the end of the cell ("end") and to the first message that each of `marks` is true of."""
        began = time.perf_counter()
        sent = self.client.execute(code, allow_stdin=False)
        seconds: dict[str, float] = {}
        while True:
            message = self.client.get_iopub_msg(timeout=300)
            now = time.perf_counter() - began
            for name, is_it in (marks or {}).items():
                if name not in seconds and is_it(message):
                    seconds[name] = now
            if message["msg_type"] == "error":
                raise RuntimeError("\n".join(message["content"]["traceback"]))
            mine = message["parent_header"].get("msg_id") == sent
            if mine and message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return {**seconds, "end": now}

    def close(self) -> None:
        """Ends the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def is_panel(message: dict[str, Any]) -> bool:
    """The panel is displayed."""
    return message["msg_type"] == "display_data" and WIDGET in message["content"]["data"]


def is_loss(message: dict[str, Any]) -> bool:
    """The panel's state holds a first step's loss."""
    if message["msg_type"] != "comm_msg":
        return False
    state = message["content"]["data"].get("state", {}).get("state", {})
    return bool(state.get("step")) and state.get("loss") is not None


def one_round(folder: Path) -> dict[str, float]:
    """A fresh kernel from its start to a second run whose model is loaded."""
    (folder / "empty_extension.py").write_text("def load_ipython_extension(shell):\n    pass\n")
    kernel = Timed(folder)
    try:
        figures = {"an empty extension": kernel.cell("%load_ext empty_extension")["end"]}
        figures["%load_ext nbtune"] = kernel.cell("%load_ext nbtune")["end"]
        kernel.cell(TASK)
        marks = {"panel": is_panel, "loss": is_loss}
        cold = kernel.cell("%finetune lora --task tickets --max_steps 4 --eval_steps 100 --max_eval_rows 1 --num_samples 0", marks)
        warm = kernel.cell("%finetune lora --task tickets --max_steps 4 --eval_steps 100 --max_eval_rows 1 --num_samples 0", marks)
        figures["an empty cell"] = kernel.cell("pass")["end"]
        for name, found in (("cold", cold), ("model loaded", warm)):
            figures[f"first pixels of the panel, {name}"] = found["panel"]
            figures[f"first loss point, {name}"] = found["loss"]
    finally:
        kernel.close()
    return figures


def main() -> None:
    """Prints the median, the least and the most of each figure over fresh kernels."""
    rounds = []
    for number in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["NBTUNE_HOME"] = str(Path(folder) / ".nbtune")
            rounds.append(one_round(Path(folder)))
        print(f"round {number + 1} of {REPEATS}", flush=True)
    print(f"\n{'seconds':44s}{'median':>8s}{'least':>8s}{'most':>8s}")
    for name in rounds[0]:
        values = [figures[name] for figures in rounds]
        print(f"{name:44s}{statistics.median(values):8.3f}{min(values):8.3f}{max(values):8.3f}")


if __name__ == "__main__":
    main()
