"""One smoke run of the whole course, shared by all tests that read an executed notebook."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(command, folder, **more) -> str:
    """Run a command in the repository with a cache in `folder`; what it printed."""
    environment = {**os.environ, "CXR_CACHE": str(folder / "cache"), **more}
    ended = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


def smoke_run(folder) -> tuple[Path, str]:
    """The run folder and what `cxr run` printed."""
    out = folder / "run"
    command = [sys.executable, "-m", "cxrlib.cli", "run", "--profile", "smoke", "--out", out]
    return out, run(command, folder)


def smoke_run_once(base) -> tuple[Path, str]:
    """:func:`smoke_run` for all workers of pytest-xdist: one makes it, the others wait for it.

    `base` is the temporary folder that they share.
    """
    from filelock import FileLock

    folder = base / "smoke"
    said = folder / "said.txt"
    with FileLock(base / "smoke.lock"):
        if not said.exists():
            folder.mkdir(exist_ok=True)
            said.write_text(smoke_run(folder)[1], encoding="utf-8")
    return folder / "run", said.read_text(encoding="utf-8")
