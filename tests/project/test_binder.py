"""Binder's set-up, and the start page that JupyterLab opens on, there and at home."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from browser import page
from servers import serve

ROOT = Path(__file__).resolve().parents[2]
BINDER = ROOT / "binder"
START = ROOT / "notebooks" / "START.md"


@pytest.fixture(scope="module")
def rendered():
    """What repo2docker would build, without docker."""
    if not find_spec("repo2docker"):
        pytest.skip("no repo2docker")
    command = [sys.executable, "-m", "repo2docker", "--debug", "--no-build", str(ROOT)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout + ended.stderr


def test_repo2docker_renders_our_environment_and_post_build(rendered):
    assert "Python version unspecified" not in rendered
    assert "Building conda environment for python=3.13" in rendered
    assert '--file "binder/environment.yml"' in rendered
    assert re.search(r"^FROM .*buildpack-deps", rendered, re.MULTILINE)
    assert "RUN ./binder/postBuild" in rendered
    assert os.access(BINDER / "postBuild", os.X_OK)


def test_binders_environment_is_the_courses_with_one_python_without_gpu_with_voila():
    def packages(path):
        *own, by_pip = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
        return own, by_pip["pip"]

    own, wanted = packages(ROOT / "environment.yml")
    there, found = packages(BINDER / "environment.yml")
    assert [line.split("=")[0].rstrip(">") for line in own] == ["python", "pip"]
    assert there == ["python=3.13", "pip"]
    without_gpu = [line.replace("tensorflow>", "tensorflow-cpu>") for line in wanted]
    voila = [line for line in found if line.startswith("voila")]
    assert len(voila) == 1 and sorted(found) == sorted({*without_gpu, *voila})


def test_post_build_is_shell_that_names_files_that_are_there():
    script = BINDER / "postBuild"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    assert "pip install --no-deps --no-cache-dir --editable ." in text
    for name in re.findall(r"python (binder/\S+)", text):
        assert (ROOT / name).exists()
    assert "open_start_page.py" in text


def test_links_of_the_start_page_lead_somewhere_and_to_all_lessons():
    links = re.findall(r"\]\(([^)\s]+)\)", START.read_text(encoding="utf-8"))
    for link in links:
        assert (START.parent / link).exists(), link
    lessons = {path.name for path in START.parent.glob("[0-9]*.ipynb")}
    assert lessons <= set(links)
    assert {f"exercises/release/{n[:-6]}/{n}" for n in lessons} <= set(links)
    assert "not for clinical use" in START.read_text(encoding="utf-8")


def test_the_start_page_promises_the_minutes_that_the_lessons_state():
    for name, minutes in re.findall(
        r"\]\((\d\d_\w+\.ipynb)\) \|.*\| (\d+) \|", START.read_text(encoding="utf-8")
    ):
        cells = json.loads((START.parent / name).read_text(encoding="utf-8"))["cells"]
        assert f"About {minutes} minutes" in "".join(cells[0]["source"]), name


def write_settings(prefix):
    subprocess.run([sys.executable, BINDER / "open_start_page.py", prefix], check=True)
    return prefix / "etc" / "jupyter"


def test_what_others_have_put_into_the_settings_stays(tmp_path):
    folder = write_settings(tmp_path)
    begin = folder / "jupyter_lab_config.py"
    overrides = folder / "labconfig" / "default_setting_overrides.json"
    begin.write_text("c.LabApp.collaborative = True\n")
    theirs = {"a": {"b": 1}, "@jupyterlab/docmanager-extension:plugin": {"autosave": False}}
    overrides.write_text(json.dumps(theirs))
    write_settings(tmp_path)
    once = begin.read_text()
    write_settings(tmp_path)
    assert begin.read_text() == once and once.startswith("c.LabApp.collaborative = True\n")
    found = json.loads(overrides.read_text())
    assert found["a"] == {"b": 1}
    document = found["@jupyterlab/docmanager-extension:plugin"]
    assert document == {"autosave": False, "defaultViewers": {"markdown": "Markdown Preview"}}


def lab(folder, *words):
    """JupyterLab started in `folder` with our settings and nobody's own; gives its address."""
    config = write_settings(folder / "prefix")
    command = ["jupyterlab", *words, "--no-browser", "--allow-root", "--port={port}"]
    command += [
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
    ]
    return serve(command, folder, "/api/status", JUPYTER_CONFIG_PATH=str(config))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [(), pytest.param(("notebooks",), marks=pytest.mark.sweep)],
    ids=["course", "notebooks"],
)
def test_jupyterlab_opens_the_start_page_and_from_there_a_lesson(tmp_path, words):
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    with lab(tmp_path, *words) as address, page() as tab:
        tab.goto(address)
        heading = tab.locator(".jp-RenderedMarkdown h1")
        heading.wait_for(timeout=180_000)
        assert heading.inner_text() == "Can a network see COVID-19 in a chest X-ray?"
        assert not tab.locator(".jp-Dialog").count(), "nothing to click away"
        tab.get_by_role("link", name="4 ResNet50").click()
        title = tab.locator(".jp-Notebook h1").first
        title.wait_for(timeout=180_000)
        assert title.inner_text().startswith("4 · ResNet50")


@pytest.mark.slow
def test_in_another_folder_jupyterlab_opens_as_always(tmp_path):
    with lab(tmp_path) as address:
        assert urlopen(address).url.endswith("/lab")
