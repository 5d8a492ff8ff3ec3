"""Start what the browser tests and the benchmark look at: Chromium, and a JupyterLab of its own."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LAB_OPTIONS = [
    "--no-browser",
    "--allow-root",
    "--ip=127.0.0.1",
    "--IdentityProvider.token=",
    "--ServerApp.password=",
    "--ServerApp.disable_check_xsrf=True",
    "--LabApp.expose_app_in_browser=True",
    "--JupyterNotebookApp.expose_app_in_browser=True",
    "--LabApp.extension_manager=readonly",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=None",
]
LOCAL = {"127.0.0.1", "localhost", "", None}


@contextlib.contextmanager
def jupyterlab(root: Path, home: Path, application: str = "jupyterlab") -> Iterator[str]:
    """A JupyterLab, or a ``notebook``, on ``root`` that leaves all its own files in ``home``; gives
    its address.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {
        f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "RUNTIME", "DATA")
    }
    folders |= {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    command = [
        sys.executable,
        "-m",
        application,
        f"--port={port}",
        f"--ServerApp.root_dir={root}",
        *LAB_OPTIONS,
    ]
    log = home / "lab.log"
    with log.open("w", encoding="utf-8") as output:
        server = subprocess.Popen(command, env=os.environ | folders, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address + "/api", server, log)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")


class Watch:
    """Keep what a page complains about and what it asks of other machines."""

    def __init__(self, page) -> None:
        self.errors: list[str] = []
        self.abroad: list[str] = []
        page.on(
            "console", lambda message: message.type == "error" and self.errors.append(message.text)
        )
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._request)

    def _request(self, request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "file", "about") and parts.hostname not in LOCAL:
            self.abroad.append(request.url)


def run_all_cells(page, address: str) -> None:
    """Open a notebook and run it.

    The indicator says idle before there is a kernel, so the session itself is asked.
    """
    page.goto(address)
    page.wait_for_function("""() => {
        const notebook = window.jupyterapp?.shell.currentWidget;
        const session = notebook?.context?.sessionContext;
        return session?.isReady && session.session?.kernel?.connectionStatus === 'connected'
            && session.session.kernel.status === 'idle'; }""")
    page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
