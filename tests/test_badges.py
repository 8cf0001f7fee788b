"""The repository's address in badges, set-up cells and links, and the command that writes it."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from cxrlib import badges
from cxrlib.cli import main

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
EXERCISES = sorted((ROOT / "notebooks" / "exercises").glob("*/*/*.ipynb"))
APPS = sorted((ROOT / "notebooks" / "apps").glob("*.ipynb"))
LINK = re.compile(r"\]\((https?://[^\s)]+)\)")


def first_cell(path) -> str:
    return "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])


def addresses(text) -> tuple[list[str], list[str]]:
    """Colab's and Binder's addresses in links of a text."""
    found = [link for link in LINK.findall(text) if not link.endswith(".svg")]
    hosts = ("colab.research.google.com", "mybinder.org")
    return tuple([link for link in found if urlsplit(link).netloc == host] for host in hosts)


def opened(colab_link, binder_link) -> tuple:
    """Repository, branch and file of each of two addresses, read without the module's help."""
    _, _, owner, name, blob, branch, *path = urlsplit(colab_link).path.split("/")
    assert blob == "blob"
    parts = urlsplit(binder_link)
    _, v2, gh, owner2, name2, branch2 = parts.path.split("/")
    assert (v2, gh) == ("v2", "gh")
    place = parse_qs(parts.query)["urlpath"][0]
    place = re.sub(r"^(lab/tree|voila/render)/", "", place)
    return (f"{owner}/{name}", branch, "/".join(path)), (f"{owner2}/{name2}", branch2, place)


def wanted(path) -> tuple:
    own = path.relative_to(ROOT).as_posix().replace("/exercises/source/", "/exercises/release/")
    return badges.read_repository(ROOT), badges.read_branch(ROOT), own


@pytest.mark.parametrize("path", LESSONS + EXERCISES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_notebook_has_badges_that_open_itself(path):
    colab, binder = addresses(first_cell(path))
    assert len(colab) == len(binder) == 1, "one Colab and one Binder badge in the first cell"
    assert opened(colab[0], binder[0]) == (wanted(path), wanted(path))
    assert (ROOT / wanted(path)[2]).exists()


@pytest.mark.parametrize("path", APPS, ids=lambda p: p.stem)
def test_an_app_that_has_badges_has_its_own(path):
    for link in addresses(first_cell(path))[1]:
        assert opened("https://x/github/a/b/blob/main/c", link)[1] == wanted(path)


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_the_readme_opens_every_lesson_with_one_click(path):
    row = next(
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and f"(notebooks/{path.name})" in line
    )
    colab, binder = addresses(row)
    assert opened(colab[0], binder[0]) == (wanted(path), wanted(path))


def test_the_readmes_binder_badge_opens_the_start_page():
    links = addresses((ROOT / "README.md").read_text(encoding="utf-8"))[1]
    assert any(link.endswith(f"?urlpath=lab/tree/{badges.START}") for link in links)
    for link in links:
        assert (ROOT / opened("https://x/github/a/b/blob/main/c", link)[1][2]).exists(), link


def test_set_up_cells_are_the_same_and_install_this_repository_and_nothing_else():
    found = set()
    for path in LESSONS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        mine = [c for c in cells if "setup" in c["metadata"].get("tags", [])]
        found.add("".join(mine[0]["source"]))
    (source,) = found
    repository, branch, _ = wanted(LESSONS[0])
    command = f'%pip install -q --no-deps "git+https://github.com/{repository}@{branch}"'
    assert [line.strip() for line in source.splitlines() if "pip" in line] == [command]


def test_nothing_is_left_to_rewrite():
    left = badges.plan(ROOT, badges.read_repository(ROOT), badges.read_branch(ROOT))
    assert not left, f"run cxr badges: {[path.name for path in left]}"


# The command, in a small checkout


def notebook(colab, binder, setup) -> str:
    cells = [
        {"cell_type": "markdown", "id": "title", "metadata": {}, "source": [
            "# One\n", f"[![Open in Colab](https://c/b.svg)]({colab})\n",
            f"[![Open in Binder](https://b/b.svg)]({binder})\n", "See *é*, OWNER/REPOSITORY."]},
        {"cell_type": "code", "id": "setup", "metadata": {"tags": ["setup"]}, "source": [setup],
         "outputs": [], "execution_count": None},
    ]  # fmt: skip
    return json.dumps({"cells": cells, "nbformat": 4}, indent=1, ensure_ascii=False) + "\n"


LESSON = "notebooks/01_one.ipynb"
RELEASE = "notebooks/exercises/release/01_one/01_one.ipynb"
SOURCE = RELEASE.replace("release", "source")
COLAB = "https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/"
BINDER = "https://mybinder.org/v2/gh/OWNER/REPOSITORY/main?urlpath="
INSTALL = '%pip install -q --no-deps "git+https://github.com/OWNER/REPOSITORY"'


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with a lesson, an exercise, an app, a README and links to other projects."""
    if not shutil.which("git"):
        pytest.skip("no git")
    files = {
        "pyproject.toml": '[project]\nname = "cxrlib"\n[project.urls]\n'
        'Repository = "https://github.com/OWNER/REPOSITORY"\n[tool.x]\na = 1\n',
        "README.md": f"[lab]({BINDER}lab/tree/notebooks/START.md) [c]({COLAB}{LESSON})\r\n"
        "[us](https://github.com/OWNER/REPOSITORY/issues) "
        "[them](https://github.com/OWNER/REPOSITORY-other) [you](https://github.com/a/b)\r\n",
        LESSON: notebook(COLAB + LESSON, f"{BINDER}lab/tree/{LESSON}", INSTALL),
        SOURCE: notebook(COLAB + RELEASE, f"{BINDER}lab/tree/{RELEASE}", INSTALL),
        RELEASE: notebook(COLAB + "wrong.ipynb", f"{BINDER}lab/tree/{LESSON}", INSTALL),
        "notebooks/apps/a.ipynb": notebook(
            "https://x", f"{BINDER}voila/render/notebooks/apps/b.ipynb", "%pip install git+https://github.com/a/b"
        ),
        "notebooks/.ipynb_checkpoints/x.ipynb": notebook(COLAB + "x", f"{BINDER}lab/tree/x", ""),
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text.encode("utf-8"))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def cxr(*words):
    return CliRunner().invoke(main, ["badges", *words])


def origin(root, address):
    subprocess.run(["git", "-C", root, "remote", "add", "origin", address], check=True)


def contents(root) -> dict:
    files = [p for p in root.rglob("*") if p.is_file() and ".git" not in p.parts]
    return {p.relative_to(root).as_posix(): p.read_bytes().decode() for p in files}


def test_all_addresses_change_and_nothing_else(checkout):
    before = contents(checkout)
    assert cxr("--repository", "ada/x-ray.course").exit_code == 0
    after = contents(checkout)
    own, other = "ada/x-ray.course", "https://github.com/OWNER/REPOSITORY-other"
    assert after["pyproject.toml"] == before["pyproject.toml"].replace("OWNER/REPOSITORY", own)
    readme = before["README.md"].replace("OWNER/REPOSITORY", own)
    assert after["README.md"] == readme.replace(f"https://github.com/{own}-other", other)
    told = (
        before[LESSON]
        .replace("OWNER/REPOSITORY", own)
        .replace(f"é*, {own}", "é*, OWNER/REPOSITORY")
    )
    assert after[LESSON] == told.replace(f'github.com/{own}\\"', f'github.com/{own}@main\\"')
    hidden = "notebooks/.ipynb_checkpoints/x.ipynb"
    assert after[hidden] == before[hidden]  # fmt: skip


def test_badges_open_their_own_notebook_a_masters_the_release_an_apps_the_app(checkout):
    assert cxr("--repository", "ada/course", "--branch", "term-2").exit_code == 0
    after = contents(checkout)
    for name, own in ((LESSON, LESSON), (RELEASE, RELEASE), (SOURCE, RELEASE)):
        assert f"/github/ada/course/blob/term-2/{own})" in after[name]
        assert f"/gh/ada/course/term-2?urlpath=lab/tree/{own})" in after[name]
        assert '\\"git+https://github.com/ada/course@term-2\\"' in after[name]
    app = after["notebooks/apps/a.ipynb"]
    assert "ada/course/term-2?urlpath=voila/render/notebooks/apps/a.ipynb)" in app
    assert "%pip install git+https://github.com/a/b" in app


def test_a_second_time_changes_nothing_and_check_agrees(checkout):
    assert cxr("--check").exit_code == 1  # badges of the release open something else
    assert contents(checkout)["pyproject.toml"].count("OWNER") == 1, "--check changes nothing"
    assert "changed: README.md" in cxr("--repository", "ada/course", "--branch", "t2").output
    after = contents(checkout)
    assert "All badges" in cxr("--repository", "ada/course", "--branch", "t2").output
    assert contents(checkout) == after
    assert cxr("--check").exit_code == 0, "the branch is remembered in pyproject.toml"
    different = cxr("--check", "--repository", "bob/course")
    assert different.exit_code == 1 and f"differs: {LESSON}" in different.output
    assert "cxr badges --repository bob/course --branch t2" in different.output
    assert cxr("--repository", "ada/course", "--branch", "main").exit_code == 0
    assert cxr("--check").exit_code == 0 and badges.read_branch(checkout) == "main"


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/ada/course",
        "https://github.com/ada/course.git",
        "https://token@github.com/ada/course/",
        "git@github.com:ada/course.git",
        "ssh://git@github.com/ada/course.git",
    ],
)
def test_the_remote_says_where_the_course_lives(checkout, address):
    origin(checkout, address)
    said = cxr()
    assert said.exit_code == 0 and "token" not in said.output
    assert badges.read_repository(checkout) == "ada/course"


@pytest.mark.parametrize("address", [None, "/some/where", "https://gitlab.com/ada/course.git"])
def test_without_a_github_remote_the_message_says_what_to_do(checkout, address):
    before = contents(checkout)
    if address:
        origin(checkout, address)
    said = cxr()
    assert said.exit_code == 1 and "cxr badges --repository OWNER/NAME" in said.output
    assert contents(checkout) == before and (address or "no git remote") in said.output


@pytest.mark.parametrize(
    "words",
    [
        ["a b"], ["x"], [""], ["/x"], ["a/"], ["a/b/c"], ["a/.."], ["-a/b"], ["a/b.git"], ["é/b"],
        ["https://github.com/a/b"], ['a/b"'], ["a/b\n"], ["a/b", "--branch", "x/y"],
        ["a/b", "--branch", "a b"], ["a/b", "--branch", "--x"],
    ],
)  # fmt: skip
def test_nonsense_is_refused(checkout, words):
    before = contents(checkout)
    said = cxr("--repository", *words)
    assert said.exit_code == 1 and contents(checkout) == before
    assert "Write " in said.output or "cannot be a branch" in said.output


def test_outside_a_checkout_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = cxr("--repository", "a/b")
    assert said.exit_code == 1 and "no checkout" in said.output
