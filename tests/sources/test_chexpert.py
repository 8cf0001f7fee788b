import os

import numpy as np
import pytest
from PIL import Image

from cxrlib.sources import SourceError
from cxrlib.sources import catalogue as sources
from cxrlib.sources.chexpert import FINDINGS, chexpert_counts, health, read_labels

# What Fig. 2 prints: positive, uncertain, negative.
FIGURE_2 = {
    "No Finding": (16627, 0, 171014),
    "Enlarged Cardiomediastinum": (9020, 10148, 168473),
    "Cardiomegaly": (23002, 6597, 158042),
    "Lung Lesion": (6856, 1071, 179714),
    "Lung Opacity": (92669, 4341, 90631),
    "Edema": (48905, 11571, 127165),
    "Consolidation": (12730, 23976, 150935),
    "Pneumonia": (4576, 15658, 167407),
    "Atelectasis": (29333, 29377, 128931),
    "Pneumothorax": (17313, 2663, 167665),
    "Pleural Effusion": (75696, 9419, 102526),
    "Pleural Other": (2441, 1771, 183429),
    "Fracture": (7270, 484, 179887),
    "Support Devices": (105831, 898, 80912),
}
HEAD = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(FINDINGS)
TRAIN = "CheXpert-v1.0-small/train/"


def row(path, **labels):
    """One line of train.csv; blank where nothing is given."""
    values = [str(labels.get(finding.replace(" ", "_"), "")) for finding in FINDINGS]
    frontal = "Frontal,PA" if "frontal" in path else "Lateral,"
    return f"{TRAIN}{path},Male,50,{frontal}," + ",".join(values)


LINES = [
    row("patient00001/study1/view1_frontal.jpg", No_Finding=1.0, Support_Devices=1.0),
    row("patient00001/study1/view2_lateral.jpg", No_Finding=1.0, Support_Devices=1.0),
    row("patient00001/study2/view1_frontal.jpg", Edema=-1.0, Pneumonia=0.0),
    row("patient00002/study1/view1_frontal.jpg", Edema=1.0, Pneumonia=-1.0),
    row("patient00003/study1/view1_frontal.jpg", Support_Devices=1.0),
]


@pytest.fixture
def copy(tmp_path):
    """Make a CheXpert folder of five images."""
    (tmp_path / "train.csv").write_text("\n".join([HEAD, *LINES]) + "\n")
    for number, line in enumerate(LINES):
        path = tmp_path / line.split(",")[0].removeprefix("CheXpert-v1.0-small/")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((320, 390), 40 * number, np.uint8)).save(path)
    return tmp_path


def test_counts_studies_and_takes_blank_as_negative(copy):
    counts = chexpert_counts(copy / "train.csv")
    assert list(counts.index) == list(FIGURE_2)
    assert counts.loc["Edema"].to_list() == [1, 1, 2, 2]
    assert counts.loc["Pneumonia"].to_list() == [0, 1, 3, 2]
    assert counts.loc["No Finding"].to_list() == [1, 0, 3, 3]
    assert (counts[["positive", "uncertain", "negative"]].sum(axis=1) == 4).all()


@pytest.mark.skipif("CHEXPERT_TRAIN_CSV" not in os.environ, reason="needs CHEXPERT_TRAIN_CSV")
def test_figure_2_comes_out_exactly():
    counts = chexpert_counts(os.environ["CHEXPERT_TRAIN_CSV"])
    counts = counts[["positive", "uncertain", "negative"]]
    assert {name: tuple(values) for name, values in counts.iterrows()} == FIGURE_2
    assert (counts.sum(axis=1) == 187_641).all()


@pytest.mark.parametrize(
    ("uncertain", "expected"),
    [
        ("ignore", ["healthy", None, "not healthy", None]),
        ("zeros", ["healthy", "healthy", "not healthy", None]),
        ("ones", ["healthy", "not healthy", "not healthy", None]),
    ],
)
def test_policies_for_uncertain_labels(copy, uncertain, expected):
    labels = read_labels(copy / "train.csv")
    labels = labels[labels["Path"].str.contains("frontal")]
    found = health(labels, uncertain)
    assert [None if label != label else label for label in found.fillna(np.nan)] == expected


def test_loads_frontal_images_with_patients(copy):
    cohort = sources.load("chexpert", folder=copy, uncertain="ones", progress=False)
    assert cohort.table["label"].to_list() == ["healthy", "not healthy", "not healthy"]
    assert cohort.table["patient"].nunique() == 2
    assert cohort.images[:][:, 150, 150].tolist() == [0, 80, 120]
    assert set(cohort.table["view"]) == {"PA"}
    assert set(cohort.table["sex"]) == {"M"} and set(cohort.table["age"]) == {50.0}
    assert (cohort.table["width"] == 390).all()
    assert cohort.targets(["healthy", "not healthy"]).tolist() == [0, 1, 1]
    for view, count in (("lateral", 1), (None, 3)):
        assert len(sources.load("chexpert", folder=copy, view=view, progress=False)) == count


def test_missing_image_is_named(copy):
    (copy / "train/patient00001/study1/view1_frontal.jpg").unlink()
    with pytest.raises(SourceError, match=r"1 of 2 .*\n.*patient00001.*no such file"):
        sources.load("chexpert", folder=copy, progress=False)
    with pytest.warns(UserWarning, match="1 of 2"):
        cohort = sources.load("chexpert", folder=copy, progress=False, allow_missing=True)
    assert cohort.images[:][:, 150, 150].tolist() == [120]


def test_bad_requests_are_named(copy, tmp_path):
    with pytest.raises(SourceError, match="ignore, zeros, ones"):
        sources.load("chexpert", folder=copy, uncertain="perhaps")
    with pytest.raises(SourceError, match="frontal"):
        sources.load("chexpert", folder=copy, view="top")
    with pytest.raises(SourceError, match=r"no such file.*Register"):
        sources.load("chexpert", folder=tmp_path / "nowhere")
    with pytest.raises(SourceError, match="needs folder=PATH"):
        sources.load("chexpert")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Pneumonia", "Pneumonitis", r"column\(s\) Pneumonia are missing"),
        ("-1.0", "-2.0", "Edema is -2.0"),
        ("patient00002/", "subject2/", "is not like train/patient00001"),
    ],
)
def test_bad_label_files_are_named(copy, old, new, message):
    path = copy / "train.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SourceError, match=message):
        sources.load("chexpert", folder=copy)
