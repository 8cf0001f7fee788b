"""The claims file against what the paper prints, typed here once more by hand."""

import math

import numpy as np
import pytest
import yaml
from scipy import stats

from cxrlib import metrics
from cxrlib.paper import claims, reconstruct
from cxrlib.paper.claims import PaperError

TABLE_1 = {
    "Model 1 (Custom CNN)": (0.68, 0.67, 0.63, 0.65),
    "Model 2 (ResNet50+)": (0.9063, 0.90, 0.9167, 0.9072),
    "Model 3 (VGG16+)": (0.8229, 0.8039, 0.8541, 0.8282),
    "Model 4 (DenseNet121+)": (0.834, 0.89, 0.67, 0.7619),
}
TABLE_2 = {
    "healthy": (12, 41.7, 33.3, 25),
    "pneumonia": (24, 33.3, 45.8, 20.8),
    "covid": (12, 33.3, 25, 41.7),
}
ANSWERS = ["positive", "uncertain", "negative"]
FIGURE_2 = """
No Finding        16627  8.86      0   0.0 171014 91.14
Enlarged Cardiom.  9020  4.81  10148  5.41 168473 89.78
Cardiomegaly      23002 12.26   6597  3.52 158042 84.23
Lung Lesion        6856  3.65   1071  0.57 179714 95.78
Lung Opacity      92669 49.39   4341  2.31  90631 48.3
Edema             48905 26.06  11571  6.17 127165 67.77
Consolidation     12730  6.78  23976 12.78 150935 80.44
Pneumonia          4576  2.44  15658  8.34 167407 89.22
Atelectasis       29333 15.63  29377 15.66 128931 68.71
Pneumothorax      17313  9.23   2663  1.42 167665 89.35
Pleural Effusion  75696 40.34   9419  5.02 102526 54.64
Pleural Other      2441  1.3    1771  0.94 183429 97.76
Fracture           7270  3.87    484  0.26 179887 95.87
Support Devices  105831 56.4     898  0.48  80912 43.12
"""


def test_table_1_is_as_printed():
    table = claims.table1()
    assert list(table.columns) == ["accuracy", "precision", "recall", "f1"]
    assert {name: tuple(row) for name, row in table.iterrows()} == TABLE_1


def test_table_2_is_as_printed_and_its_rows_add_up():
    table = claims.table2()
    assert {name: tuple(row) for name, row in table.iterrows()} == TABLE_2
    assert list(table.columns) == ["number of images", "healthy", "pneumonia", "covid"]
    np.testing.assert_allclose(table[list(TABLE_2)].sum(axis=1), 100, atol=0.15)


def test_counts_of_table_2_are_the_only_ones_that_print_so():
    counts = claims.table2(counts=True)
    assert counts.to_numpy().tolist() == [[5, 4, 3], [8, 11, 5], [4, 3, 5]]
    for name, (images, *percentages) in TABLE_2.items():
        for count, percentage in zip(counts.loc[name], percentages, strict=True):
            fits = [k for k in range(images + 1) if round(100 * k / images, 1) == percentage]
            assert fits == [count]
    assert stats.chi2_contingency(counts).pvalue == pytest.approx(0.65, abs=0.005)
    np.testing.assert_allclose(metrics.row_percent(counts).round(1), claims.table2())


def test_figure_2_is_as_printed_and_its_rows_add_up_to_the_percentages():
    rows = [line.rsplit(maxsplit=6) for line in FIGURE_2.strip().splitlines()]
    table = claims.figure2()
    assert list(table.index) == [row[0].strip() for row in rows]
    for name, *numbers in rows:
        found = table.loc[name.strip()]
        assert found[ANSWERS].tolist() == list(map(int, numbers[::2]))
        assert found[[f"{a} %" for a in ANSWERS]].tolist() == list(map(float, numbers[1::2]))
    assert (table[ANSWERS].sum(axis=1) == 187641).all()  # studies
    expected = (100 * table[ANSWERS] / 187641).round(2).to_numpy()
    np.testing.assert_allclose(table.filter(like="%"), expected, atol=1e-9)


def test_what_the_paper_does_not_tell_is_not_known():
    table = claims.load().set_index("id")
    for model in (1, 4):
        rows = table.filter(like=f"table1.model{model}", axis=0)
        assert len(rows) == 4 and rows[["count", "n", "patients"]].isna().all(axis=None)
    rows = table.query("place == 'Table II' and n.notna()")
    assert len(rows) == 9 and (4 * rows["patients"] == rows["n"]).all()  # four copies of each
    assert rows["how"].str.contains("patients are at least so many").all()


def test_no_image_is_taken_for_a_person():
    table = claims.load().query("n.notna() and place != 'Section III.A'")
    assert len(table) == 8 + 9 + 42 and (table["patients"] < table["n"]).all()


@pytest.mark.parametrize(
    ("model", "sizes", "least"),
    [  # TP, FP, FN, TN that print as the row does: by hand from lesson 8
        (1, [(10, 5, 6, 13)], (10, 5, 6, 13)),
        (2, [(88, 10, 8, 86)], (44, 5, 4, 43)),
        (3, [(82, 20, 14, 76), (1545, 377, 264, 1433)], (41, 10, 7, 38)),
        (4, [(40, 5, 20, 86)], (40, 5, 20, 86)),
    ],
)
def test_other_sizes_are_those_that_print_so_and_the_images_loaded(model, sizes, least):
    rows = claims.load().query(f"id.str.startswith('table1.model{model}')").set_index("metric")
    for counts in sizes:
        exact = [f"table1.model{model}", *counts]
        found = reconstruct.matrices(rows["printed"].to_dict(), sum(counts), "any")
        assert list(counts) in found[["tp", "fp", "fn", "tn"]].to_numpy().tolist(), exact
    parts = [
        (tp + fp + fn + tn, tp + fp, tp + fn, tp + fp + fn)
        for tp, fp, fn, tn in [*sizes, [6000 * one / sum(least) for one in least]]
    ]
    expected = [[round(part[column]) for part in parts] for column in range(4)]
    assert rows.loc[["accuracy", "precision", "recall", "f1"], "other_n"].tolist() == expected


def test_patients_of_models_2_and_3_are_the_fewest_with_four_images_each():
    table = claims.load().set_index("id")
    for model, (tp, fp, fn, tn) in ((2, (44, 5, 4, 43)), (3, (41, 10, 7, 38))):
        patients = table.filter(like=f"table1.model{model}", axis=0)["patients"]
        accuracy, precision, recall, f1 = [
            math.ceil(ill / 4) + math.ceil(others / 4)
            for ill, others in ((tp + fn, fp + tn), (tp, fp), (tp + fn, 0), (tp + fn, fp))
        ]
        assert patients.tolist() == [accuracy, precision, recall, f1]
        assert (accuracy, recall) == (24, 12)


def test_nothing_that_the_text_counts_is_left_out():
    """Every number of the running text and the tables, typed off page by page."""
    said = " ".join(claims.load()["printed"])
    for words in (
        *("90%", "99%", "98%", "70", "58", "24 GB", "110 GB", "6000", "27000", "Tesla K80"),
        *("80%", "20%", "300x300", "150x150", "74%", "68%", "over 100", "50", "(1, 2, 3, 4)"),
        *("(8, 16, 32, 64, 128)", "0.0005", "3x3 and 1x1", "2x2", "stride 2", "five layers"),
        *("16 trainable", "19", "0.0003", "kernel 1x1", "kernel 2x2", "121", "around", "training"),
    ):
        assert words in said, words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("data.cases", 70),
        ("data.selected", 58),
        ("data.train", 27000),
        ("data.test", 6000),
        ("data.side_stored", 300),
        ("data.side_model1", 150),
        ("data.share_test", 0.2),
        ("data.share_train", 0.8),
        ("data.share_validation", 0.2),
        ("model1.train_accuracy", 0.74),
        ("model1.validation_accuracy", 0.68),
        ("model2.learning_rate", 5e-4),
        ("model3.learning_rate", 3e-4),
        ("model4.learning_rate", 5e-4),
        ("model2.grid_layers", [1, 2, 3, 4]),
        ("model2.grid_neurons", [8, 16, 32, 64, 128]),
        ("model4.loss", "categorical cross entropy"),
        ("abstract.accuracy", 0.9),
    ],
)
def test_values_are_those_of_the_text(name, expected):
    assert claims.value(name) == expected


def test_an_unknown_claim_is_named():
    assert claims.printed("table1.model2.precision") == "0.90"  # with its last zero
    with pytest.raises(PaperError, match=r"'table9'.*abstract\.accuracy"):
        claims.value("table9")


SOUND = {"id": "a", "place": "Table I", "metric": "recall", "printed": "0.90", "value": 0.9}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 0.91}, r"Claim a: value 0.91 is not what is printed, '0.90'"),
        ({"printed": 0.9}, "Claim a: printed must be text"),
        ({"metric": None}, "Claim a: it lacks metric"),
        ({"patiens": 3}, "Claim a: unknown field 'patiens'"),
        ({"n": 10}, "Claim a: how must say"),
        ({"n": 9.5, "how": "printed"}, "Claim a: n must be a whole number"),
        ({"n": 10, "count": 8, "how": "printed"}, "Claim a: 8 of 10 does not print as '0.90'"),
        ({"n": 10, "count": 11, "how": "printed"}, "Claim a: count 11 of n 10"),
        ({"value": "ninety"}, "Claim a: value 'ninety'"),
        ({"value": []}, "Claim a: value must be a number"),
        ({"value": float("nan")}, "Claim a: value must be a number"),
        ({"value": True, "printed": "1"}, "Claim a: value must be a number"),
        ({"n": True, "how": "printed"}, "Claim a: n must be a whole number"),
        ({"n": 10, "patients": 11, "how": "printed"}, "Claim a: 11 patients of n 10 images"),
        ({"patients": 5, "how": "printed"}, "Claim a: 5 patients of n None"),
        ({"n": 9, "count": 3, "value": "a", "printed": "a", "how": "printed"}, "must be a number"),
        ({"n": 9, "count": 3, "printed": "3 (", "how": "printed"}, "is not what is printed"),
        ({"n": 9, "count": 3, "printed": "3 (33.33)", "how": "printed"}, "is not what is printed"),
        ({"n": 10, "how": "trust me"}, "how must say if its numbers are printed"),
        ({"n": 10, "how": ""}, "Claim a: how must be text"),
        ({"place": 2}, "Claim a: place must be text"),
        ({"model": "Model 5"}, "Claim a: there is no model 'Model 5'"),
        ({"id": "table1.model2.x", "model": "Model 3 (VGG16+)"}, "speaks of model 2"),
        ({"id": "table1.model2.x"}, "speaks of model 2, its model is None"),
    ],
)
def test_a_bad_claim_is_named_with_its_fault(tmp_path, change, message):
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump([SOUND | change]))
    with pytest.raises(PaperError, match=message):
        claims.load(path)


def test_a_bad_file_is_named(tmp_path):
    path = tmp_path / "claims.yml"
    twice = yaml.safe_dump([SOUND, SOUND])
    for text, message in (("a: 1", "list"), ("- [", "cannot be read"), (twice, "id stands twice")):
        path.write_text(text)
        with pytest.raises(PaperError, match=message):
            claims.load(path)
    with pytest.raises(PaperError, match="cannot be read"):
        claims.load(tmp_path / "none.yml")
