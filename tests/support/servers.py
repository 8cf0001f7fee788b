"""Jupyter servers for tests: on loopback, a free port each, with nobody's settings."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUIET = {  # no question about news, which would cover the notebook
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def surroundings(folder, **more):
    """Environment in which Jupyter finds this course, and keeps its files in `folder`."""
    settings = folder / "settings"
    for name, value in QUIET.items():
        path = settings / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "RUNTIME")}
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return (
        os.environ
        | own
        | {
            "JUPYTERLAB_SETTINGS_DIR": str(settings),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        | more
    )


@contextmanager
def serve(command, folder, ready, place=None, **environment):
    """Run ``python -m`` a server until the test is over; yield its address.

    Parameters
    ----------
    command : list of str
        With ``{port}`` where the port goes.
    folder : Path
        For its settings and its log.
    ready : str
        Path that answers when it has started.
    place : Path, optional
        Where to start it; in `folder` by default.
    """
    port = free_port()
    arguments = [sys.executable, "-m", *(part.replace("{port}", str(port)) for part in command)]
    address, log = f"http://127.0.0.1:{port}", folder / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            arguments,
            stdout=out,
            stderr=out,
            env=surroundings(folder, **environment),
            cwd=place or folder,
            start_new_session=True,
        )
    try:
        _wait(server, address + ready, log)
        yield address
    finally:
        # the server ends its kernels, which are in groups of their own, when asked politely
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _wait(server, address, log, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, f"the server ended: {log.read_text()[-2000:]}"
        try:
            urllib.request.urlopen(address, timeout=5).read()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"no answer in {seconds} s: {log.read_text()[-2000:]}")


def jupyter_lab(folder, root, **environment):
    """Serve the notebooks in `root` with JupyterLab."""
    command = ["jupyterlab", "--no-browser", "--port={port}", "--ServerApp.ip=127.0.0.1"]
    command += ["--allow-root", "--IdentityProvider.token=", "--ServerApp.port_retries=0"]
    command += [f"--ServerApp.root_dir={root}", "--LabApp.news_url="]
    return serve(command, folder, "/api/status", **environment)


def voila(folder, root, **environment):
    """Serve the notebooks in `root` as apps, as `make app` does: with its voila.json.

    That says which extensions of JupyterLab want parts that Voila has not, and how large a
    message may be: a larger one closes the connection without a word, and with it the app.
    A kernel that runs before anybody asks is told there that it is Voila who will.
    """
    command = ["voila", ".", "--no-browser", "--port={port}"]
    template = {"JUPYTER_PATH": str(root / "share")}
    return serve(command, folder, "/", root, **template, **environment)
