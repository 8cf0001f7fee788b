import numpy as np
import pytest
from PIL import Image

from cxrlib import sources
from cxrlib.folders import FolderError, make_table


def save(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((50, 40), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        save(tmp_path / f"covid/c{number}.png", 10 + number)
        save(tmp_path / f"healthy/ward 2/h{number}.JPG", 100)
    (tmp_path / "covid/.DS_Store").write_text("x")
    (tmp_path / "covid/notes.txt").write_text("x")
    return tmp_path


def csv(folder, text):
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return folder / "list.csv"


def test_one_folder_a_label(folder):
    cohort = sources.load("folder", folder=folder, progress=False)
    assert cohort.table["label"].value_counts().to_dict() == {"covid": 3, "healthy": 3}
    assert cohort.table["patient"].to_list() == [
        *("covid/c0", "covid/c1", "covid/c2"),
        *("healthy/ward 2/h0", "healthy/ward 2/h1", "healthy/ward 2/h2"),
    ]
    assert cohort.table["image"].iloc[3] == "healthy/ward 2/h0.JPG"
    assert cohort.images[:3][:, 9, 9].tolist() == [10, 11, 12]
    assert cohort.table["format"].to_list() == ["PNG"] * 3 + ["JPEG"] * 3
    assert cohort.table["licence"].isna().all()
    row = cohort.table.iloc[0]
    assert (row["height"], row["width"]) == (50, 40)
    assert row["bytes"] == (folder / "covid/c0.png").stat().st_size


def test_csv_with_extras(folder):
    path = csv(
        folder,
        "image,label,patient,view,age\ncovid/c1.png,covid,7,PA,50\ncovid/c0.png,,7,,\n"
        "healthy/ward 2/h0.JPG, Unknown ,8,AP,3\ncovid/c2.png,healthy,,AP,1\n",
    )
    table = sources.load("folder", folder=path, progress=False).table
    assert table["label"].isna().tolist() == [False, True, True, False]
    assert table["patient"].to_list() == ["7", "7", "8", "covid/c2"]
    assert table["view"].isna().tolist() == [False, True, False, False]
    assert "age" in table


def test_unknown_label_is_no_class(folder):
    path = csv(folder, "image,label\ncovid/c1.png,covid\ncovid/c0.png,unknown\n")
    cohort = sources.load("folder", folder=path, progress=False)
    assert cohort.labels == ["covid"]
    with pytest.raises(ValueError, match="nan"):
        cohort.targets(["covid", "healthy"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,diagnosis\na.png,covid\n", "column 'label' is missing.*image, diagnosis"),
        ("image,label\n,covid\n", "line 2.*'image' is empty"),
        ("image,label\na.png,covid\na.png,covid\n", "listed more than once"),
        ("image,label\n", "lists no image"),
        ("", "no CSV file"),
    ],
)
def test_bad_csv(folder, text, message):
    with pytest.raises(FolderError, match=message):
        make_table(csv(folder, text))


def test_no_csv_at_all(folder):
    (folder / "list.csv").write_bytes(b"\xff\xfe\x00\x01\n\xff")
    with pytest.raises(FolderError, match=r"list\.csv"):
        make_table(folder / "list.csv")


def test_class_with_no_image(folder):
    (folder / "pneumonia").mkdir()
    with pytest.raises(FolderError, match="class 'pneumonia' has no image"):
        make_table(folder)


def test_no_folder_and_no_label(tmp_path):
    with pytest.raises(FolderError, match="no such folder"):
        make_table(tmp_path / "nowhere")
    with pytest.raises(FolderError, match="one folder a label"):
        make_table(tmp_path)


def test_bad_images_are_all_named(folder):
    (folder / "covid/c0.png").write_bytes(b"")
    frames = [Image.fromarray(np.full((40, 40), value, np.uint8)) for value in (0, 200)]
    frames[0].save(folder / "covid/moving.gif", save_all=True, append_images=frames[1:])
    path = csv(folder, "image,label\ncovid/c1.png,covid\ncovid/gone.png,covid\n")
    with pytest.raises(sources.SourceError, match=r"gone\.png: there is no such file"):
        sources.load("folder", folder=path, progress=False)
    with pytest.raises(sources.SourceError) as error:
        sources.load("folder", folder=folder, progress=False)
    for part in ("2 of 7", "c0.png: the file is empty", "moving.gif: it is animated"):
        assert part in str(error.value)
    with pytest.warns(UserWarning, match="2 of 7"):
        cohort = sources.load("folder", folder=folder, progress=False, allow_missing=True)
    assert cohort.images[:2][:, 9, 9].tolist() == [11, 12]
    assert (cohort.table["height"] > 0).all()


def test_nothing_left(folder):
    path = csv(folder, "image,label\ngone.png,covid\n")
    with pytest.raises(sources.SourceError, match="1 of 1"):
        sources.load("folder", folder=path, progress=False, allow_missing=True)


def test_limit_is_a_label_and_by_seed(folder):
    def names(seed):
        cohort = sources.load("folder", folder=folder, limit=1, seed=seed, progress=False)
        assert cohort.table["label"].to_list() == ["covid", "healthy"]
        return tuple(cohort.table["image"])

    assert names(0) == names(0)
    assert len({names(seed) for seed in range(10)}) > 1
    with pytest.raises(sources.SourceError, match="limit=0"):
        sources.load("folder", folder=folder, limit=0)
