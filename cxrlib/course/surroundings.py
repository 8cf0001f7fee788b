"""What a command takes for granted, and a daemon, a container or an old terminal lacks."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path

import click


class Prepared(click.Group):
    """A group whose commands can print every letter, draw, and have a home."""

    def main(self, *args, **kwargs):
        """Run the command."""
        for name in ("stdin", "stdout", "stderr"):
            if getattr(sys, name) is None:  # closed: the next file opened would get its number
                setattr(sys, name, Path(os.devnull).open("r+"))  # noqa: SIM115
        for stream in (sys.stdout, sys.stderr):  # few encodings have letters for every label
            getattr(stream, "reconfigure", dict)(errors="backslashreplace")
        os.environ.pop("MPLBACKEND", None)  # of a notebook, or of a program that is not here
        if "error" in os.environ.get("PYTHONWARNINGS", ""):  # a note of a library is none
            warnings.filters[:] = [one for one in warnings.filters if one[0] != "error"]
        try:
            Path.cwd()
        except OSError:
            sys.exit("Error: the folder that you are in is gone: go to another (cd).")
        with ExitStack() as stack:
            if not _has_home():
                own = tempfile.TemporaryDirectory(prefix="cxr-home-", ignore_cleanup_errors=True)
                os.environ["HOME"] = stack.enter_context(own)
                told = (
                    "there is no home folder to write to: set HOME, or CXR_CACHE to keep a cache."
                )
                click.echo(f"Note: {told}", err=True)
            return super().main(*args, **kwargs)


def _has_home() -> bool:
    """Tell whether what libraries keep has a place: at home, or where the user says."""
    try:
        home = Path.home()
    except RuntimeError:  # a user without a name
        return False
    if os.environ.get("CXR_CACHE") or os.access(home, os.W_OK):
        return True
    if (home / ".keras").is_dir():  # weights that a container's image brings
        os.environ.setdefault("KERAS_HOME", str(home / ".keras"))
    return False
