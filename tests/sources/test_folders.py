import hashlib
import re
import sys

import numpy as np
import pytest
from PIL import Image

from cxrlib.sources import SourceError
from cxrlib.sources import catalogue as sources
from cxrlib.sources.folders import make_table

REMEDY = "Save it as CSV UTF-8, separated by commas"


def unnamed(table):
    """Whose patient nobody named goes by the file."""
    return table["patient"] == table["path"].str.replace(r"\.\w+$", "", regex=True)


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
    cohort = sources.load("folder", folder=path, progress=False)
    table = cohort.table
    assert cohort.labels == ["healthy", "covid"]
    assert table["label"].isna().tolist() == [False, True, True, False]
    assert table["patient"].to_list() == ["7", "7", "8", "covid/c2"]
    assert table["view"].isna().tolist() == [False, True, False, False]
    assert "age" in table
    with pytest.raises(ValueError, match="nan"):  # an unknown label is no class
        cohort.targets(["covid", "healthy"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,outcome\na.png,covid\n", "column 'label' is missing.*image, outcome"),
        (b"image,label\n,covid\n", "line 2.*'image' is empty"),
        (b'image,label\na.png,covid\n" ",covid\n', "line 3.*'image' is empty"),
        (b"image,label\na.png,covid\na.png,ill\n", "a.png is listed more than.*'covid'.*'ill'"),
        (b"image,label\n", "lists no image"),
        (b"", "the file is empty, no table"),
        (b"\n\n", "no CSV file"),
        (b"version https://git-lfs.github.com/spec/v1\noid a\n", "LFS.*git lfs pull"),
        (b"<html>Sign in</html>", "a web page.*no table.*signed in"),
        (b"\x89PNG\r\n\x1a\n\0", "PNG, no table.*or their folder"),
        (b"\xff\xfe\x00\x01\n\xff", r"list\.csv"),
        (b"PK\3\4 and more", f"no CSV file.*spreadsheet.*{REMEDY}"),
        (b"a,b,b\n1,2,3\n", "the column 'b' stands twice"),
    ],
)
def test_bad_csv(tmp_path, content, message):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        make_table(tmp_path / "list.csv")


def test_no_folder_no_label_and_no_image(folder, tmp_path_factory):
    with pytest.raises(SourceError, match="no such folder"):
        make_table(folder / "nowhere")
    with pytest.raises(SourceError, match="one folder a label"):
        make_table(tmp_path_factory.mktemp("empty"))
    (folder / "pneumonia").mkdir()
    with pytest.raises(SourceError, match="class 'pneumonia' has no image"):
        make_table(folder)


def test_bad_images_are_all_named(folder):
    (folder / "covid/c0.png").write_bytes(b"")
    (folder / "covid/page.gif").write_text("<html>not found</html>")
    path = csv(folder, "image,label\ncovid/c1.png,covid\ncovid/gone.png,covid\n")
    with pytest.raises(SourceError, match=r"gone\.png: there is no such file"):
        sources.load("folder", folder=path, progress=False)
    nothing = csv(folder, "image,label\ngone.png,covid\n")
    with pytest.raises(SourceError, match="1 of 1"):  # and nothing would be left
        sources.load("folder", folder=nothing, progress=False, allow_missing=True)
    with pytest.raises(SourceError) as error:
        sources.load("folder", folder=folder, progress=False)
    assert re.search(r"2 of 7(?s:.)*c0\.png: the file is empty", str(error.value))
    assert re.search(r"page\.gif: a web page", str(error.value))
    with pytest.warns(UserWarning, match="2 of 7"):
        cohort = sources.load("folder", folder=folder, progress=False, allow_missing=True)
    assert cohort.images[:2][:, 9, 9].tolist() == [11, 12]
    assert (cohort.table["height"] > 0).all()


def test_odd_films_are_named_once_a_set_and_again_from_the_cache(folder):
    for number in range(5):
        frames = [Image.fromarray(np.full((40, 40), value, np.uint8)) for value in (0, 200)]
        path = folder / f"covid/odd{number}.tif"
        frames[0].save(path, save_all=True, append_images=frames[1:])
    told = r": 5 films: the first of several .*\(odd0\.tif, odd1\.tif, odd2\.tif and 2 more\)\.$"
    for _ in range(2):
        with pytest.warns(UserWarning, match=told) as said:
            sources.load("folder", folder=folder, progress=False)
        assert sum("first of several" in str(one.message) for one in said) == 1


def test_limit_is_a_label_and_by_seed(folder):
    def names(seed):
        cohort = sources.load("folder", folder=folder, limit=1, seed=seed, progress=False)
        assert cohort.table["label"].to_list() == ["covid", "healthy"]
        return tuple(cohort.table["image"])

    assert names(0) == names(0)
    assert len({names(seed) for seed in range(10)}) > 1
    with pytest.raises(SourceError, match="limit=0"):
        sources.load("folder", folder=folder, limit=0)


def stripped(table, *columns):
    return table[list(columns)].astype(object).where(table[list(columns)].notna(), None)


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "Validation", "Testing")])
def test_folders_of_a_split_are_no_labels(tmp_path, names):
    for number, split in enumerate(names):
        save(tmp_path / split / "healthy/deep" / f"{number}.png")
        if number:
            save(tmp_path / split / "covid" / f"{number}.png")
    table, _ = make_table(tmp_path)
    assert set(table["label"]) == {"covid", "healthy"}
    found = {tuple(row) for row in table[["path", "label", "split"]].to_numpy()}
    assert (f"{names[0]}/healthy/deep/0.png", "healthy", names[0]) in found
    assert (f"{names[1]}/covid/1.png", "covid", names[1]) in found
    assert len(found) == 2 * len(names) - 1
    cohort = sources.load("folder", folder=tmp_path, progress=False)
    assert set(cohort.table["split"]) == set(names)


def test_a_split_needs_labels_below_and_tells_of_loose_files(tmp_path):
    save(tmp_path / "train/a.png")
    save(tmp_path / "test/b.png")
    with pytest.raises(SourceError, match="test, which is no label"):
        make_table(tmp_path)
    save(tmp_path / "train/covid/c.png")
    save(tmp_path / "train/.hidden/d.png")
    with pytest.warns(UserWarning, match="2 images were left out.*beside"):
        table, _ = make_table(tmp_path)
    assert table["path"].to_list() == ["train/covid/c.png"]
    (tmp_path / "test/healthy").mkdir()
    with pytest.raises(SourceError, match="class 'healthy' has no image"), pytest.warns():
        make_table(tmp_path)


def test_a_label_called_test_beside_others_stays_a_label(folder):
    save(folder / "test/t.png")
    table, _ = make_table(folder)
    assert set(table["label"]) == {"covid", "healthy", "test"}
    assert "split" not in table


def test_masks_are_no_films(tmp_path):
    for label in ("covid", "healthy"):
        save(tmp_path / label / "images/a.png")
        save(tmp_path / label / "Masks/a.png")
        save(tmp_path / label / "lung masks/a.png")
    save(tmp_path / "Annotations/a.png")
    with pytest.warns(UserWarning, match=r"5 images in folders of masks.*healthy/Masks"):
        table, _ = make_table(tmp_path)
    assert table["path"].to_list() == ["covid/images/a.png", "healthy/images/a.png"]
    assert table["label"].to_list() == ["covid", "healthy"]


def test_missing_source_is_not_the_name_of_the_folder(folder):
    path = csv(folder, "image,label,source\na.png,covid,\nb.png,healthy,North\nc.png,covid, ?\n")
    assert stripped(make_table(path)[0], "source")["source"].to_list() == [None, "North", None]
    for text in ("image,label,source\na.png,covid,\nb.png,healthy, \n", "image,label\na.png,x\n"):
        assert set(make_table(csv(folder, text))[0]["source"]) == {folder.name}


def test_text_is_stripped_and_placeholders_are_missing(folder):
    path = csv(
        folder,
        "image ,label,patient,view,split,hospital,source\n"
        "n/a.png ,covid ,007 ,PA ,train , Unknown,A \n"
        '"  b.png",healthy,UNKNOWN ,?,N/A,NONE, ?\n'
        "unknown,healthy,7,unknown,test ,North ,A\n",
    )
    table, _ = make_table(path)
    assert table["image"].to_list() == table["path"].to_list() == ["n/a.png", "b.png", "unknown"]
    assert table["label"].to_list() == ["covid", "healthy", "healthy"]
    assert table["patient"].to_list() == ["007", "b", "7"]
    assert unnamed(table).to_list() == [False, True, False]
    rest = stripped(table, "view", "split", "hospital", "source").to_numpy().tolist()
    assert rest == [["PA", "train", None, "A"], [None] * 4, [None, "test", "North", "A"]]


def test_labels_that_differ_in_case_are_told(folder):
    path = csv(folder, "image,label\na.png,covid\nb.png,Covid \nc.png,healthy\n")
    with pytest.warns(UserWarning, match="Covid and covid are 2 labels; write them alike"):
        make_table(path)
    save(folder / "Healthy/x.png")
    if len({each.name.lower() for each in folder.iterdir()}) < len(list(folder.iterdir())):
        with pytest.warns(UserWarning, match="Healthy and healthy"):  # not where case is ignored
            make_table(folder)


@pytest.fixture
def exported(tmp_path):
    """Three DICOM files of two patients, and a PNG."""
    pydicom = pytest.importorskip("pydicom")

    def export(place, number):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        if number is not None:
            dataset.PatientID = number
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)

    export("covid/IM1", "4711-Miller")
    export("covid/IM2.dcm", "0815")
    export("healthy/IM3", "4711-Miller ")
    save(tmp_path / "healthy/x.png")
    return tmp_path, export


def test_dicom_patient_is_a_pseudonym(exported):
    table, _ = make_table(exported[0])
    miller = hashlib.sha256(b"4711-Miller").hexdigest()[:12]
    other = hashlib.sha256(b"0815").hexdigest()[:12]
    assert table["patient"].to_list() == [miller, other, miller, "healthy/x"]
    assert unnamed(table).to_list() == [False, False, False, True]
    assert "4711" not in table.to_csv()
    assert "0815" not in table.to_csv()


@pytest.mark.parametrize("number", [None, "", "Unknown", "ANONYMOUS", "STUDY-1"])
def test_dicom_without_patient_or_with_one_for_all_counts_by_file(exported, number):
    folder, export = exported
    export("healthy/IM4.dcm", number)
    for place in ("covid/IM1", "covid/IM2.dcm", "healthy/IM3") if number == "STUDY-1" else ():
        export(place, number)
    assert unnamed(make_table(folder)[0]).all()


def test_damaged_dicom_or_none_to_read_it_with(exported, monkeypatch):
    folder, _ = exported
    (folder / "healthy/z.dcm").write_bytes(b"x")
    assert unnamed(make_table(folder)[0]).to_list() == [False, False, False, True, True]
    path = csv(folder, "image,label\ncovid/IM1,covid\nhealthy/IM3,healthy\n")
    assert unnamed(make_table(path)[0]).all()  # a CSV file that names none takes none from DICOM
    path.unlink()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert unnamed(make_table(folder)[0]).all()


def test_what_a_header_says_of_view_and_modality_is_known_to_the_audit(tmp_path):
    pytest.importorskip("pydicom")
    from mutants import dicom, film

    folder = tmp_path / "films" / "covid"
    folder.mkdir(parents=True)
    elements = {"plain": {"Modality": "DX", "ViewPosition": "PA"}, "slice": {"Modality": "CT"}}
    for name, more in (elements | {"side": {"ViewPosition": "LL"}}).items():
        (folder / f"{name}.dcm").write_bytes(dicom(film(), **more))
    with pytest.warns(UserWarning, match="modality CT"):
        table = sources.load("folder", folder=folder.parent, progress=False).table
    table = stripped(
        table.assign(image=table["image"].str[6:-4]).set_index("image"), "modality", "view"
    )
    assert table.to_dict("index") == {
        "plain": {"modality": None, "view": None},
        "side": {"modality": None, "view": "lateral"},
        "slice": {"modality": "CT", "view": None},
    }


def test_files_are_told_by_content_and_what_macos_adds_is_left_out(tmp_path):
    for name in ("covid/a.png", "healthy/b.png", "__MACOSX/covid/a.png"):
        save(tmp_path / name)
    (tmp_path / "healthy/b.png").rename(tmp_path / "healthy/IM.0001")
    (tmp_path / "healthy/notes").write_text("no film", encoding="utf-8")
    bare = bytes.fromhex("0800050043530a00") + b"ISO_IR 100"  # DICOM without a preamble
    (tmp_path / "covid/scan").write_bytes(bare)
    table, _ = make_table(tmp_path)
    assert table["path"].to_list() == ["covid/a.png", "covid/scan", "healthy/IM.0001"]
