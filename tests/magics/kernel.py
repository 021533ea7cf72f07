"""A real Jupyter kernel, driven as a front end drives it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager


@dataclass
class Result:
    """What came of one cell; `ename` is empty where it ended well."""

    status: str = "ok"
    ename: str = ""
    traceback: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """Everything that was printed."""
        return "".join(item["content"]["text"] for item in self.messages if item["msg_type"] == "stream")

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The MIME bundles displayed, updates included."""
        return [item["content"]["data"] for item in self.messages if item["msg_type"] in ("display_data", "update_display_data")]

    @property
    def result(self) -> dict[str, Any] | None:
        """The MIME bundle of Out[n]."""
        return next((item["content"]["data"] for item in self.messages if item["msg_type"] == "execute_result"), None)

    @property
    def lines(self) -> list[str]:
        """The error as a reader sees it, without colours."""
        import re

        return [re.sub(r"\x1b\[[0-9;]*m", "", line) for part in self.traceback for line in part.split("\n")]


class Kernel:
    """One kernel; cells are run one after the other."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager()
        self.folder = folder
        self.manager.start_kernel(cwd=str(folder), extra_arguments=["--HistoryManager.enabled=False"])
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str, *, timeout: float = 60, during: Callable[[dict[str, Any]], None] | None = None) -> Result:
        """Runs a cell to its end; `during` is told each message as it comes."""
        started = time.monotonic()
        sent = self.client.execute(code, allow_stdin=False)
        found = Result()
        while True:
            left = started + timeout - time.monotonic()
            if left <= 0:
                message = f"the cell still runs after {timeout} s: {code[:200]}"
                raise TimeoutError(message)
            message = self.client.get_iopub_msg(timeout=left)
            kind = message["msg_type"]
            mine = message["parent_header"].get("msg_id") == sent
            if mine or kind == "update_display_data":
                found.messages.append(message)
            if during is not None:
                during(message)
            if mine and kind == "error":
                found.ename, found.traceback = message["content"]["ename"], message["content"]["traceback"]
            if mine and kind == "status" and message["content"]["execution_state"] == "idle":
                break
        reply = self.client.get_shell_msg(timeout=10)
        while reply["parent_header"].get("msg_id") != sent:  # a kernel slow to start is asked for its info more than once
            reply = self.client.get_shell_msg(timeout=10)
        found.status = reply["content"]["status"]
        if found.status == "error":
            time.sleep(0.1)  # the kernel aborts what comes right behind an error
        found.seconds = time.monotonic() - started
        return found

    def value(self, expression: str) -> str:
        """The printed value of an expression."""
        return self.run(f"print(({expression}))").text.strip()

    def complete(self, code: str, position: int | None = None) -> tuple[list[str], str]:
        """(matches, the text they replace) at a position of a cell (its end)."""
        at = len(code) if position is None else position
        self.client.complete(code, at)
        content = self.client.get_shell_msg(timeout=10)["content"]
        return content["matches"], code[content["cursor_start"] : content["cursor_end"]]

    def interrupt(self) -> None:
        """What the stop button of a notebook does."""
        self.manager.interrupt_kernel()

    def close(self) -> None:
        """Ends the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
