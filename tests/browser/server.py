"""A Jupyter server of our own: temporary settings, no token, JupyterLab and Notebook 7 on one port of this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["JupyterServer", "serve"]

START_SECONDS: Final = 60
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
}


@dataclass(frozen=True)
class JupyterServer:
    """Where it answers, and the folder whose notebooks it shows."""

    base: str
    folder: Path

    def request(self, method: str, path: str) -> Any:
        """The JSON that the server's API answers, or None where it answers nothing."""
        request = urllib.request.Request(f"{self.base}{path}", method=method)  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            body = answer.read()
        return json.loads(body) if body else None

    def end_sessions(self) -> None:
        """Shut down every kernel."""
        for session in self.request("GET", "/api/sessions"):
            self.request("DELETE", f"/api/sessions/{session['id']}")


@contextmanager
def serve(place: Path) -> Iterator[JupyterServer]:
    """Start a server whose settings and notebooks live under `place`; it ends with the context.

    Raises:
        RuntimeError: it does not answer; its log is quoted.
    """
    notebooks = place / "notebooks"
    notebooks.mkdir(parents=True)
    for name, values in SETTINGS.items():
        file = place / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    server = JupyterServer(f"http://127.0.0.1:{free_port()}", notebooks)
    log = place / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(command(server), cwd=notebooks, env=environment(place), stdout=output, stderr=output)
    try:
        wait_until_up(server, process, log)
        yield server
        server.end_sessions()
    finally:
        process.terminate()
        process.wait(timeout=30)


def command(server: JupyterServer) -> list[str]:
    """What starts it. The apps are exposed so that a test can give them commands instead of clicking through menus."""
    return [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={server.base.rpartition(':')[2]}",
        f"--ServerApp.root_dir={server.folder}",
        "--IdentityProvider.token=",
        "--ServerApp.password=",
        "--ServerApp.disable_check_xsrf=True",
        "--LabApp.expose_app_in_browser=True",
        "--JupyterNotebookApp.expose_app_in_browser=True",
    ]


def environment(place: Path) -> dict[str, str]:
    """The tests' environment, but runs are kept beside the notebook, as they are for a user."""
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    kept = {name: value for name, value in os.environ.items() if name != "NBTUNE_HOME"}
    return kept | {name: str(place / folder) for name, folder in folders.items()}


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(server: JupyterServer, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when it answers."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            server.request("GET", "/api/status")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            return
    message = f"the Jupyter server does not answer:\n{log.read_text()[-3000:]}"
    raise RuntimeError(message)
