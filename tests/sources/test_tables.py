"""Tables as people have them: every known set by its header, and any other by its columns."""

import gzip
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrlib import sources
from cxrlib.sources import SourceError, tables
from cxrlib.sources.folders import make_table

CHEXPERT = next(one for one in tables.knowledge()["sets"] if one["name"] == "CheXpert")["findings"]


def chexpert(*found):
    """Write the 14 columns of a row: 1 for these findings, blank for the others."""
    return ",".join("1.0" if one in found else "" for one in CHEXPERT)


def write(folder, name, text, films=(), encoding="utf-8"):
    for number, film in enumerate(films):
        path = folder / film
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"{path}.png", np.full((40, 40), 10 + number, np.uint8))
        (path.parent / f"{path.name}.png").rename(path)
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def read(path, **options):
    """Give label, patient, view and path by image; and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table, _ = make_table(path, **options)
    table = table.astype(object).where(table.notna(), None)
    rows = {row.image: (row.label, row.patient, row.view, row.path) for row in table.itertuples()}
    return rows, " ".join(str(one.message) for one in caught)


P = "p10000032/s50414267"
SETS = {  # the set: its table as the set's authors lay it out, films, classes, what is right
    "NIH ChestX-ray14": (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
        "00000001_000.png,Cardiomegaly|Effusion,0,1,57,M,PA,2682,2749,0.143,0.143,\n"
        "00000002_000.png,No Finding,0,2,80,M,AP,2500,2048,0.171,0.171,\n"
        "00000003_000.png,Hernia,0,3,80,M,AP,2500,2048,0.171,0.171,\n",
        ["images_001/images/00000001_000.png", "images_002/images/00000002_000.png"],
        {"healthy": ["no finding "], "ill": ["Effusion", "Mass"]},
        {"00000001_000.png": ("ill", "1", "PA", "images_001/images/00000001_000.png"),
         "00000002_000.png": ("healthy", "2", "AP", "images_002/images/00000002_000.png")},
    ),
    "CheXpert": (
        f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(CHEXPERT)}\n"
        "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Male,1,Frontal,AP,"
        f"{chexpert('No Finding')}\n"
        "CheXpert-v1.0-small/train/patient00001/study2/view1_frontal.jpg,Male,1,Frontal,AP,"
        f"{chexpert('Pleural Effusion', 'Edema')}\n"
        "CheXpert-v1.0-small/train/patient00002/study1/view1_lateral.jpg,Male,1,Lateral,,"
        f"{chexpert('Pleural Effusion').replace('1.0', '-1.0')}\n"
        "CheXpert-v1.0-small/train/patient00003/study1/view2_lateral.jpg,Male,1,Lateral,,"
        f"{chexpert('Pleural Effusion')}\n",
        [f"train/{one}" for one in ("patient00001/study1/view1_frontal.jpg",
         "patient00001/study2/view1_frontal.jpg", "patient00003/study1/view2_lateral.jpg")],
        {"healthy": ["No Finding"], "ill": ["Pleural Effusion"]},
        {"CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg":
         ("healthy", "patient00001", "AP", "train/patient00001/study1/view1_frontal.jpg"),
         "CheXpert-v1.0-small/train/patient00001/study2/view1_frontal.jpg":
         ("ill", "patient00001", "AP", "train/patient00001/study2/view1_frontal.jpg"),
         "CheXpert-v1.0-small/train/patient00003/study1/view2_lateral.jpg":
         ("ill", "patient00003", "lateral", "train/patient00003/study1/view2_lateral.jpg")},
    ),
    "PadChest": (
        ",ImageID,ImageDir,PatientID,Projection,Labels\n"
        "0,1_a.png,0,p1,PA,['normal']\n"
        "1,1_b.png,36,p1,AP_horizontal,\"['pleural effusion', ' unchanged']\"\n",
        ["1_a.png", "36/1_b.png"],
        {"healthy": ["normal"], "ill": ["Pleural effusion"]},
        {"0/1_a.png": ("healthy", "p1", "PA", "1_a.png"),
         "36/1_b.png": ("ill", "p1", "AP Supine", "36/1_b.png")},
    ),
    "RSNA Pneumonia": (
        "patientId,x,y,width,height,Target\n0004cfab-14,,,,,0\n00436515-87,264,152,213,379,1\n"
        "00436515-87,562,152,256,453,1\n",
        ["stage_2_train_images/0004cfab-14.dcm", "stage_2_train_images/00436515-87.dcm"],
        {"healthy": ["0"], "ill": ["Pneumonia"]},
        {"0004cfab-14": ("healthy", "stage_2_train_images/0004cfab-14", None,
                         "stage_2_train_images/0004cfab-14.dcm"),
         "00436515-87": ("ill", "stage_2_train_images/00436515-87", None,
                         "stage_2_train_images/00436515-87.dcm")},
    ),
    "SIIM-ACR Pneumothorax": (
        "ImageId, EncodedPixels\n1.2.276.81,-1\n1.2.276.82,557 2 1015 8\n1.2.276.82,9 3\n",
        ["a/b/1.2.276.81.dcm", "c/1.2.276.82.dcm"],
        None,
        {"1.2.276.81": ("No Pneumothorax", "a/b/1.2.276.81", None, "a/b/1.2.276.81.dcm"),
         "1.2.276.82": ("Pneumothorax", "c/1.2.276.82", None, "c/1.2.276.82.dcm")},
    ),
    "VinDr-CXR": (
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
        "aa,No finding,14,R1,,,,\naa,No finding,14,R2,,,,\nbb,No finding,14,R1,,,,\n"
        "bb,Nodule/Mass,8,R2,1,1,9,9\nbb,Pleural effusion,10,R3,1,1,9,9\n",
        ["train/aa.dicom", "train/bb.dicom"],
        {"healthy": ["No finding"], "ill": ["Pleural effusion"]},
        {"aa": ("healthy", "train/aa", None, "train/aa.dicom"),
         "bb": ("ill", "train/bb", None, "train/bb.dicom")},
    ),
    "covid-chestxray": (
        "patientid,offset,finding,view,modality,folder,filename,license\n"
        "2,0,Pneumonia/Viral/COVID-19,PA,X-ray,images,a.jpg,CC BY\n"
        "3,0,No Finding,AP Supine,X-ray,images,b.png,CC BY\n"
        "4,0,Pneumonia/Viral/COVID-19,Axial,CT,volumes,c.nii.gz,CC BY\n",
        ["images/a.jpg", "images/b.png"],
        None,
        {"images/a.jpg": ("COVID-19", "2", "PA", "images/a.jpg"),
         "images/b.png": ("No Finding", "3", "AP Supine", "images/b.png")},
    ),
    "COVIDx": (
        "3 a.jpg COVID-19 cohen\n8 b.png normal rsna\n8 c.png pneumonia rsna\n",
        ["train/a.jpg", "train/b.png", "train/c.png"],
        {"healthy": ["normal"], "ill": ["pneumonia", "COVID-19"]},
        {"a.jpg": ("ill", "3", None, "train/a.jpg"), "b.png": ("healthy", "8", None, "train/b.png"),
         "c.png": ("ill", "8", None, "train/c.png")},
    ),
    "MIMIC-CXR-JPG": (
        f"subject_id,study_id,{','.join(CHEXPERT)}\n10000032,50414267,{chexpert('No Finding')}\n",
        [f"files/p10/{P}/d-1.jpg", f"files/p10/{P}/d-2.jpg"],
        None,
        {f"files/p10/{P}/d-1.jpg": ("No Finding", "10000032", "PA", f"files/p10/{P}/d-1.jpg"),
         f"files/p10/{P}/d-2.jpg": ("No Finding", "10000032", "lateral",
                                    f"files/p10/{P}/d-2.jpg")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_a_known_set_is_recognised_by_its_header(tmp_path, name):
    text, films, classes, right = SETS[name]
    path = write(tmp_path, "table.csv", text, films)
    if name == "MIMIC-CXR-JPG":
        with pytest.raises(SourceError, match=r"dicom_id.*beside it: mimic-cxr-2.0.0-metadata"):
            make_table(path)
        ids = "\nd-1,10000032,50414267,{}\nd-2,10000032,50414267,{}\n"
        head = "dicom_id,subject_id,study_id,"
        meta, split = ids.format("PA", "LATERAL"), ids.format("train", "train")
        write(tmp_path, "mimic-cxr-2.0.0-split.csv", f"{head}split{split}")
        with gzip.open(tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz", "wt") as file:
            file.write(f"{head}ViewPosition{meta}")
    rows, told = read(path, classes=classes, allow_missing=True)
    assert rows == right
    table, _ = make_table(path, classes=classes)
    assert set(table["source"].dropna()) == ({"cohen", "rsna"} if name == "COVIDx" else {name})
    assert ("name no patient" in told) == (name in {"RSNA Pneumonia", "SIIM-ACR Pneumothorax",
                                                    "VinDr-CXR"})  # fmt: skip
    if name == "MIMIC-CXR-JPG":
        assert set(table["split"]) == {"train"}


@pytest.mark.parametrize(
    ("text", "films", "right"),
    [
        ("patientId,class\nx,Normal\ny,Lung Opacity\ny,Lung Opacity\n"
         "z,No Lung Opacity / Not Normal",
         ["x.dcm", "y.dcm", "z.dcm"], ["Normal", "Lung Opacity", "No Lung Opacity / Not Normal"]),
        ("image_id,rad_id,Aortic enlargement,Nodule/Mass,Pleural effusion,No finding\n"
         "x,R1,0,0,0,1\nx,R2,0,1,0,0\ny,R1,0,0,0,1\ny,R2,0,0,0,1",
         ["x.dicom", "y.dicom"], ["Nodule/Mass", "No finding"]),
        ("Image Index,Finding Label,Bbox [x,y,w,h]\n00000007_001.png,Mass,1,1,2,2\n"
         "00000007_001.png,Mass,9,9,2,2", ["00000007_001.png"], ["Mass"]),
    ],
)  # fmt: skip
def test_other_tables_of_known_sets(tmp_path, text, films, right):
    rows, _ = read(write(tmp_path, "t.csv", text, films), allow_missing=False)
    assert [row[0] for row in rows.values()] == right
    assert "00000007_001.png" not in rows or rows["00000007_001.png"][1] == "7"


def test_every_known_set_is_tried_and_told():
    page = (Path(__file__).parents[2] / "docs/audit/README.md").read_text(encoding="utf-8")
    known = {one["name"] for one in tables.knowledge()["sets"]}
    assert known == set(SETS)
    for one in tables.knowledge()["sets"]:
        header = ", ".join(f"`{column}`" for column in one.get("header", ())) or "no header"
        assert f"| [{one['name']}]({one['told']}) | {header}" in page and one["licence"] in page


FOUR = "image;label;patient\nimg/a.png;covid;p1\nimg/b.png;gesünd;p2\n"
FILMS = ["img/a.png", "img/b.png"]


@pytest.mark.parametrize(
    ("text", "encoding", "options"),
    [
        (FOUR, "utf-8", {}),
        (f"sep=;\n{FOUR}", "utf-8", {}),
        (FOUR.replace(";", ","), "utf-8-sig", {}),
        (FOUR.replace(";", "\t"), "utf-16", {}),
        (FOUR.replace(";", "\t"), "utf-16-le", {}),
        (FOUR.replace(";", "   "), "latin-1", {}),
        (FOUR.replace("label", " LABEL").replace("image", "Image_Path"), "latin-1", {}),
        (FOUR.replace("label", "x").replace("patient", "who"), "utf-8",
         {"label_column": "X", "patient_column": "who"}),
        (FOUR.replace("image", "what"), "utf-8", {}),  # what it holds says so
        (FOUR.split("\n", 1)[1], "utf-8",
         {"label_column": "column 2", "patient_column": "column3"}),
    ],
)  # fmt: skip
def test_any_mark_encoding_and_name_of_a_column(tmp_path, text, encoding, options):
    rows, told = read(write(tmp_path, "t.csv", text, FILMS, encoding), **options)
    assert rows == {"img/a.png": ("covid", "p1", None, "img/a.png"),
                    "img/b.png": ("gesünd", "p2", None, "img/b.png")} and not told  # fmt: skip


def test_a_packed_table_is_read_and_an_archive_is_not(tmp_path):
    write(tmp_path, "t.csv", FOUR, FILMS)
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.write(tmp_path / "t.csv", "t.csv")
    assert read(tmp_path / "t.csv.zip") == read(tmp_path / "t.csv")
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "a") as archive:
        archive.writestr("u.csv", "x")
    with pytest.raises(SourceError, match="an archive is not read if it is no single table"):
        make_table(tmp_path / "t.csv.zip")


def test_one_column_a_label(tmp_path):
    text = "image,healthy,covid,age\na.png,1,0,30\nb.png,0,1.0,1\nc.png,0,,40\nd.png,yes,1,50\n"
    path = write(tmp_path, "t.csv", text)
    rows, told = read(path)
    assert [row[0] for row in rows.values()] == ["healthy", "covid", None, None]
    assert "no label for 1 row without 1 in healthy, covid: c.png" in told
    assert (
        "d.png (healthy, covid). Say which findings make a class, such as --class healthy" in told
    )
    rows, told = read(path, label_column=["covid", "healthy"], classes={"ill": "COVID"})
    assert [row[0] for row in rows.values()] == ["ill", "ill"]
    with pytest.raises(SourceError, match="line 2: age is '30'; it has to be 1"):
        make_table(path, label_column=["covid", "age"])


@pytest.mark.parametrize(
    ("text", "right"),
    [  # as NIH wrote ages in 2017 and writes them now, CheXpert, covid-chestxray, and anyone
        ("Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position\n"
         "a.png,Mass,1,058Y,M,PA\nb.png,Mass,2,018M,F,PA\nc.png,Mass,3,414Y,F,PA\n",
         [("M", 58), ("F", 1.5), ("F", None)]),
        ("Image Index,Finding Labels,Patient ID,Patient Age,Patient Sex,View Position\n"
         "a.png,Mass,1,58,M,PA\nb.png,Mass,2,7,,PA\n", [("M", 58), (None, 7)]),
        (f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(CHEXPERT)}\n"
         f"train/patient00001/study1/a.jpg,Male,68,Frontal,AP,{chexpert('Edema')}\n"
         f"train/patient00002/study1/a.jpg,Unknown,,Frontal,AP,{chexpert('Edema')}\n",
         [("M", 68), (None, None)]),
        ("patientid,finding,sex,age,view,modality,folder,filename\n"
         "2,Pneumonia,F,65.0,PA,X-ray,images,a.jpg\n", [("F", 65)]),
        ("image,label,PATIENT_AGE, Gender \na.png,x,30,female\nb.png,y,n/a,1\nc.png,y,4 months,m\n",
         [("F", 30), (None, None), ("M", 1 / 3)]),
    ],
)  # fmt: skip
def test_sex_and_age_of_anyones_table(tmp_path, text, right):
    table, _ = make_table(write(tmp_path, "t.csv", text))
    assert table["age"].dtype == float
    found = table[["sex", "age"]].astype(object).where(table[["sex", "age"]].notna(), None)
    assert list(found.itertuples(index=False, name=None)) == right


def test_columns_of_sex_and_age_can_be_named(tmp_path):
    path = write(tmp_path, "t.csv", "image,label,who,old\na.png,x,m,30\nb.png,y,f,\n")
    assert not {"sex", "age"} & set(make_table(path)[0])
    table, _ = make_table(path, sex_column="who", age_column="old")
    assert table["sex"].to_list() == ["M", "F"]
    assert table["age"][0] == 30 and np.isnan(table["age"][1])


def test_rows_of_one_film(tmp_path):
    head = "image,label,patient\na.png,covid,1\nb.png,healthy,2\n"
    rows, told = read(write(tmp_path, "t.csv", f"{head}./a.png,covid,1\na.png,,\n"))
    assert list(rows) == ["a.png", "b.png"] and "counted once: 2 rows of a film" in told
    with pytest.raises(SourceError, match=r"a.png is .*label is 'covid' in line 2 and 'healthy'"):
        make_table(write(tmp_path, "t.csv", f"{head}a.png,healthy,1\n"))
    with pytest.raises(SourceError, match=r"b.png is .*patient is '2' in line 3 and '3' below"):
        make_table(write(tmp_path, "t.csv", f"{head}b.png,healthy,3\n"))


def test_what_is_asked_for_and_not_there(tmp_path):
    path = write(tmp_path, "t.csv", "a,b\nx.txt,1\n")
    with pytest.raises(SourceError, match=r"'image' is missing; it has a, b.*--image-column NAME"):
        make_table(path)
    with pytest.raises(SourceError, match=r"'label' is missing; it has a, b.*label_column=..."):
        make_table(path, image_column="a")
    with pytest.raises(SourceError, match="no column 'c'"):
        make_table(path, image_column="c")
    with pytest.raises(SourceError, match="no such folder of images"):
        make_table(path, image_column="a", label_column="b", images=tmp_path / "films")
    with pytest.raises(SourceError, match="is a folder: images describes a table"):
        make_table(tmp_path, images=tmp_path)


def test_films_that_are_not_there_are_counted(tmp_path):
    path = write(tmp_path, "t.csv", "image,label\na.png,x\nb.png,y\nc.png,y\n", ["in/a.png"])
    with pytest.raises(
        SourceError, match=r"2 of 3 images cannot be used: (?s:.*)b\.png: there is no"
    ):
        sources.load("folder", folder=path, progress=False)
    with pytest.warns(UserWarning, match="2 of 3 images cannot be used: .* left out: b.png, c.png"):
        cohort = sources.load("folder", folder=path, allow_missing=True, progress=False)
    assert cohort.table["label"].to_list() == ["x"]


def test_features_of_a_table(tmp_path):
    from cxrlib import bulk

    text, films, *_ = SETS["NIH ChestX-ray14"]
    path = write(tmp_path, "nih.csv", text, films)
    found = bulk._paths(path, {"classes": {"ill": ["Effusion"]}})
    assert found == [tmp_path / films[0]]
    with pytest.warns(UserWarning):
        assert len(bulk._paths(path, {})) == 3


def test_links_floats_and_letters_of_spreadsheets(tmp_path):
    """A film by its link; patients that a gap made floats; a split in two spellings."""
    text = (
        "Image,Label,Patient_ID,split\n"
        "https://films.example/set/a%20b+1.png?dl=1,covid,12.0,Train\n"
        "https://films.example/set/c.png,healthy,12,TRAIN\n"
        "films/d.png,healthy,1.2.840.0,test\n"
    )
    path = write(tmp_path, "t.csv", text, ["films/a b+1.png", "films/c.png", "films/d.png"])
    table, _ = make_table(path)
    assert table["path"].to_list() == ["films/a b+1.png", "films/c.png", "films/d.png"]
    assert table["patient"].to_list() == ["12", "12", "1.2.840.0"]
    assert table["split"].to_list() == ["train", "train", "test"]
