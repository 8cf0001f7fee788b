"""What a command takes for granted: streams, a home, a folder; each is taken away here."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cxrlib.course import Prepared, surroundings
from faults import ROOT

SCRIPT = """
import os, sys, warnings
import click
from cxrlib.course import Prepared

@click.group(cls=Prepared)
def main(): pass

@main.command()
@click.argument("proof")
def tell(proof):
    warnings.warn("a library's note")
    print("健康", file=sys.stderr)
    click.echo("健康")
    with open(proof, "w") as file:
        file.write("healthy" if file.fileno() > 2 else "it writes where others print")

main()
"""


def tell(proof, redirections="", **variables):
    """Run a command that prints Chinese, in a process of its own; what it printed."""
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-c", SCRIPT]
    around = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    ended = subprocess.run([*command, "tell", str(proof)], capture_output=True, env=around)
    assert ended.returncode == 0, ended.stderr
    assert proof.read_text() == "healthy"
    return ended


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_labels_in_any_script_are_printed_in_any_encoding(tmp_path, encoding):
    """Labels in Chinese, printed in an encoding that has no letters for them"""
    found = tell(tmp_path / "a", PYTHONIOENCODING=encoding, PYTHONWARNINGS="error")
    wanted = {"健康".encode(), b"\\u5065\\u5eb7"}
    assert found.stdout.strip() in wanted and found.stderr.strip().splitlines()[-1] in wanted


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_fail_nothing_and_no_file_takes_their_place(tmp_path, closed):
    """Standard streams that are closed, as for a daemon"""
    tell(tmp_path / "a", closed)


@click.group(cls=Prepared)
def odd():
    """Show where home is."""


@odd.command()
def home():
    """Say so, and try it."""
    (Path.home() / "kept").write_text("x")
    click.echo(f"home {Path.home()}")
    click.echo(f"keras {os.environ.get('KERAS_HOME')}")


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A home folder with weights; what the command changes is put back."""
    (tmp_path / ".keras").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MPLBACKEND", "KERAS_HOME", "CXR_CACHE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


def nameless():
    raise RuntimeError("Could not determine home directory.")


def test_a_home_is_left_alone(at_home):
    assert CliRunner().invoke(odd, ["home"]).output == f"home {at_home}\nkeras None\n"


@pytest.mark.parametrize("lacks", ["a name", "the right to write"])
def test_without_a_home_there_is_one_for_the_time_being(at_home, monkeypatch, lacks):
    """A user without a name or a home, as in a container"""
    if lacks == "a name":  # and HOME is not set
        real = Path.home
        monkeypatch.setattr(surroundings.Path, "home", lambda: given() or real())
        given = lambda: None if "cxr-home-" in os.environ["HOME"] else nameless()  # noqa: E731
    else:
        monkeypatch.setattr(surroundings.os, "access", lambda *_: False)
    found = CliRunner().invoke(odd, ["home"])
    assert found.exit_code == 0, found.output
    assert "no home folder" in found.output and "CXR_CACHE" in found.output
    place = Path(found.output.split("home ")[-1].split("\n")[0])
    assert place.name.startswith("cxr-home-") and not place.exists()
    assert f"keras {None if lacks == 'a name' else at_home / '.keras'}" in found.output


def test_a_cache_elsewhere_needs_no_home(at_home, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(at_home))
    monkeypatch.setattr(surroundings.os, "access", lambda *_: False)
    assert CliRunner().invoke(odd, ["home"]).output.startswith(f"home {at_home}\n")


def test_a_folder_that_was_removed_is_named(at_home, monkeypatch):
    monkeypatch.setattr(surroundings.Path, "cwd", lambda: (at_home / "gone").stat())
    found = CliRunner().invoke(odd, ["home"])
    assert found.exit_code == 1 and "is gone" in found.output and "cd" in found.output
