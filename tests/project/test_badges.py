"""The repository's address in badges, set-up cells and links, and the script that writes it."""

import importlib.util
import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("badges", ROOT / ".ci" / "badges.py")
badges = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(badges)
REPOSITORY, BRANCH = badges.settings(ROOT)

LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
EXERCISES = sorted((ROOT / "notebooks" / "exercises").glob("*/*/*.ipynb"))
APPS = sorted((ROOT / "notebooks" / "apps").glob("*.ipynb"))


def opened(text) -> tuple[list, list]:
    """Repository, branch and file of Colab's and of Binder's addresses in links of a text."""
    colab, binder = [], []
    for link in re.findall(r"\]\((https?://[^\s)]+)\)", text):
        parts = urlsplit(link)
        path = parts.path.split("/")
        if parts.netloc == "colab.research.google.com" and path[1] == "github":
            colab.append(("/".join(path[2:4]), path[5], "/".join(path[6:])))
        if parts.netloc == "mybinder.org" and path[1] == "v2":
            place = re.sub(r"^(lab/tree|voila/render)/", "", parse_qs(parts.query)["urlpath"][0])
            binder.append(("/".join(path[3:5]), path[5], place))
    return colab, binder


def cells(path) -> list:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def wanted(path) -> tuple:
    own = path.relative_to(ROOT).as_posix().replace("/exercises/source/", "/exercises/release/")
    assert (ROOT / own).exists()
    return REPOSITORY, BRANCH, own


@pytest.mark.parametrize("path", LESSONS + EXERCISES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_notebook_has_badges_that_open_itself(path):
    first = "".join(cells(path)[0]["source"])
    assert opened(first) == ([wanted(path)], [wanted(path)])


def test_an_app_that_has_badges_has_its_own():
    for path in APPS:
        assert all(one == wanted(path) for one in opened("".join(cells(path)[0]["source"]))[1])


def test_the_readme_opens_every_lesson_and_the_start_page_with_one_click():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in LESSONS:
        row = next(line for line in text.splitlines() if f"(notebooks/{path.name})" in line)
        assert opened(row) == ([wanted(path)], [wanted(path)])
    assert wanted(ROOT / "notebooks" / "START.md") in opened(text)[1]
    assert all((ROOT / place).exists() for _, _, place in opened(text)[1])


def test_set_up_cells_are_the_same_and_install_this_repository_and_nothing_else():
    found = {
        "".join(cell["source"])
        for path in LESSONS
        for cell in cells(path)
        if "setup" in cell["metadata"].get("tags", [])
    }
    (source,) = found
    command = f'%pip install -q --no-deps "git+https://github.com/{REPOSITORY}@{BRANCH}"'
    assert [line.strip() for line in source.splitlines() if "pip" in line] == [command]


def test_nothing_is_left_to_rewrite():
    left = badges.revised(ROOT, REPOSITORY, BRANCH)
    assert not left, f"run make badges: {[path.name for path in left]}"


# The script, in a small checkout

LESSON = "notebooks/01_one.ipynb"
RELEASE = "notebooks/exercises/release/01_one/01_one.ipynb"
SOURCE = RELEASE.replace("release", "source")
COLAB = "https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/"
BINDER = "https://mybinder.org/v2/gh/OWNER/REPOSITORY/main?urlpath="


def notebook(colab, binder, setup) -> str:
    title = f"# One\n[![Colab](https://c/b.svg)]({colab})\n[![Binder](https://b/b.svg)]({binder})\n"
    first = {"cell_type": "markdown", "source": [title, "See *é*, OWNER/REPOSITORY."]}
    content = {"cells": [first, {"cell_type": "code", "source": [setup]}], "nbformat": 4}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a lesson, an exercise, an app, a README and links to other projects."""
    install = '%pip install -q --no-deps "git+https://github.com/OWNER/REPOSITORY"'
    files = {
        "pyproject.toml": '[project]\nname = "cxrlib"\n[project.urls]\n'
        'Repository = "https://github.com/OWNER/REPOSITORY"\n[tool.x]\na = 1\n',
        "README.md": f"[lab]({BINDER}lab/tree/notebooks/START.md) [c]({COLAB}{LESSON})\r\n"
        "[us](https://github.com/OWNER/REPOSITORY/issues) "
        "[them](https://github.com/OWNER/REPOSITORY-other) [you](https://github.com/a/b)\r\n",
        LESSON: notebook(COLAB + LESSON, f"{BINDER}lab/tree/{LESSON}", install),
        SOURCE: notebook(COLAB + RELEASE, f"{BINDER}lab/tree/{RELEASE}", install),
        RELEASE: notebook(COLAB + "wrong.ipynb", f"{BINDER}lab/tree/{LESSON}", install),
        "notebooks/apps/a.ipynb": notebook(
            "https://x", f"{BINDER}voila/render/notebooks/apps/b.ipynb", "%pip install git+https://github.com/a/b"
        ),
        "notebooks/.ipynb_checkpoints/x.ipynb": notebook(COLAB + "x", f"{BINDER}lab/tree/x", ""),
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text.encode("utf-8"))
    return tmp_path


def contents(root) -> dict:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes().decode() for path in files}


def test_all_addresses_change_and_nothing_else(checkout):
    before = contents(checkout)
    badges.main("ada/x-ray.course", root=checkout)
    after = contents(checkout)
    own, other = "ada/x-ray.course", "https://github.com/OWNER/REPOSITORY-other"
    assert after["pyproject.toml"] == before["pyproject.toml"].replace("OWNER/REPOSITORY", own)
    readme = before["README.md"].replace("OWNER/REPOSITORY", own)
    assert after["README.md"] == readme.replace(f"https://github.com/{own}-other", other)
    lesson = before[LESSON].replace("OWNER/REPOSITORY", own)
    lesson = lesson.replace(f"é*, {own}", "é*, OWNER/REPOSITORY")
    assert after[LESSON] == lesson.replace(f'github.com/{own}\\"', f'github.com/{own}@main\\"')
    hidden = "notebooks/.ipynb_checkpoints/x.ipynb"
    assert after[hidden] == before[hidden]


def test_badges_open_their_own_notebook_a_masters_the_release_an_apps_the_app(checkout):
    assert f"changed: {RELEASE}" in badges.main("ada/course", "term-2", root=checkout)
    after = contents(checkout)
    for name, own in ((LESSON, LESSON), (RELEASE, RELEASE), (SOURCE, RELEASE)):
        assert f"/github/ada/course/blob/term-2/{own})" in after[name]
        assert f"/gh/ada/course/term-2?urlpath=lab/tree/{own})" in after[name]
        assert '\\"git+https://github.com/ada/course@term-2\\"' in after[name]
    app = after["notebooks/apps/a.ipynb"]
    assert "ada/course/term-2?urlpath=voila/render/notebooks/apps/a.ipynb)" in app
    assert "%pip install git+https://github.com/a/b" in app
    # A second time changes nothing, and the branch is remembered.
    assert "changed" not in badges.main(root=checkout) and contents(checkout) == after
    badges.main("bob/course", "main", root=checkout)
    assert badges.settings(checkout) == ("bob/course", "main")


def test_without_an_address_badges_and_set_up_cells_say_so_and_with_one_no_longer(checkout):
    (checkout / "README.md").write_text(
        "[Read](https://OWNER.github.io/REPOSITORY/), [them](https://b.github.io/REPOSITORY/)\n"
        f"[![Binder](https://b/b.svg)]({BINDER}lab/tree/notebooks/START.md)\n"
    )
    setup = f"except ImportError:  # in Colab{badges.ADDS}"
    place = checkout / "notebooks" / "02_two.ipynb"
    place.write_text(notebook(COLAB + "x", f"{BINDER}lab/tree/x", setup))
    before = {path: (checkout / path).read_text() for path in ("README.md", LESSON)}
    badges.main(root=checkout)
    notes = [(checkout / path).read_text().count("lead nowhere") for path in before]
    assert notes == [1, 1]
    assert cells(place)[1]["source"][0].endswith("has given an address")
    once = contents(checkout)
    badges.main(root=checkout)
    assert contents(checkout) == once
    badges.main("ada/course", root=checkout)
    assert "lead nowhere" not in "".join(contents(checkout).values())
    assert "".join(cells(place)[1]["source"]) == setup
    readme = (checkout / "README.md").read_text()
    assert readme == before["README.md"].replace("OWNER/REPOSITORY", "ada/course").replace(
        "OWNER.github.io/REPOSITORY", "ada.github.io/course"
    )
    badges.main("ada/Ada.github.io", root=checkout)
    assert "[Read](https://ada.github.io/)" in (checkout / "README.md").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["a b"], ["x"], ["/x"], ["a/"], ["a/b/c"], ["a/.."], ["a/b.git"], ["é/b"],
        ["https://github.com/a/b"], ['a/b"'], ["a/b\n"], ["a/b", "x/y"], ["a/b", "--x"],
    ],
)  # fmt: skip
def test_nonsense_is_refused(checkout, words):
    before = contents(checkout)
    with pytest.raises(SystemExit, match=r"OWNER/NAME|cannot be a branch"):
        badges.main(*words, root=checkout)
    assert contents(checkout) == before
