"""What is installed without a checkout, as in Colab: every room, every template, the lessons."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the wheel, and unpack it as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    (wheel,) = folder.glob("cxrlib-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_every_room_and_template(installed):
    package = ROOT / "cxrlib"
    wanted = {
        path.relative_to(package)
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    there = {path.relative_to(installed / "cxrlib") for path in (installed / "cxrlib").rglob("*")}
    assert wanted - there == set()
    assert Path("notebooks/profiles/smoke.yaml") in there and Path("data/claims.yml") in there


@pytest.mark.slow
def test_a_lesson_runs_from_the_wheel(installed, tmp_path):
    around = os.environ | {"PYTHONPATH": str(installed), "CXR_CACHE": str(tmp_path / "cache")}

    def python(*words):
        command = [sys.executable, *words]
        ended = subprocess.run(command, cwd=tmp_path, env=around, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
        return ended.stdout

    where = python("-c", "import cxrlib; print(cxrlib.__file__)")
    assert where.startswith(str(installed))
    python("-m", "cxrlib.cli", "run", "--profile", "smoke", "--only", "08", "--out", "run")
    assert (tmp_path / "run" / "results" / "08_paper_audit.json").exists()
    assert (tmp_path / "run" / "report.html").exists()
