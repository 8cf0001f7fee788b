"""Figures draw the numbers they are given, say what they must, and end in one picture."""

import io

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import rgb_to_hsv, to_rgb
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from cxrlib import NOT_CLINICAL, metrics, plots, split
from cxrlib.cohort import Cohort
from cxrlib.paper import claims
from cxrlib.plots import style
from cxrlib.split import Fold
from helpers import contrast_on_white, tiny_cohort

NOTE = "synthetic data, random weights"
HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "loss": [0.7, 0.5, 0.3], "accuracy": [0.5, 0.7, 0.9]})
HISTORY = HISTORY.assign(val_loss=[0.7, 0.6, 0.65], val_accuracy=[0.5, 0.6, 0.65])
GRID = pd.DataFrame({"layers": [1, 1, 1, 2, 2, 2], "neurons": [8, 16, 32] * 2})
GRID["val_accuracy"] = 0.5 + 0.01 * GRID["layers"] + 0.001 * GRID["neurons"]
SCORES = pd.DataFrame(
    {"model": list("AABB"), "protocol": ["paper", "clean"] * 2, "value": [0.9, 0.7, 0.6, 0.65]}
).assign(metric="accuracy", printed=0.8)
SCORES = SCORES.assign(low=SCORES["value"] - 0.1, high=SCORES["value"] + 0.05)
COPIES = pd.DataFrame({"likeness": [0, 1], "effective": [48, 12], "coverage": [0.95, 0.4]})
# Patient a has films a and e, b has c, each followed by a copy; folds by hand
TABLE = {"patient": list("aabbaa"), "copy": [0, 1] * 3, "image": list("abcdef"), "label": "covid"}
TABLE = pd.DataFrame(TABLE).assign(source="phantom", view="PA", licence="")
FOLDS = {
    "paper": [Fold([1, 2], [5], [0, 4]), Fold([0, 1, 4], [3], [2])],
    "clean": [Fold([2, 3], [], [0, 4]), Fold([0, 1, 4], [], [2])],
}
WIDTHS = pd.DataFrame({"patients": [20, 80], "half width": [0.2, 0.1]})
CURVES = pd.DataFrame({"backbone": "a", "patients": [10, 50], "metric": "accuracy", "value": 0.7})
CURVES = CURVES.assign(low=0.6, high=0.8)
LAYERS = [
    {"name": f"l{n}", "kind": kind, "shape": (4, 4, n + 1), "parameters": 10 * n, "frozen": n < 2}
    for n, kind in enumerate(["Input", "Conv2D", "MaxPooling2D", "Dense"])
]


MAPS = np.random.default_rng(2).random((4, 4, 3))  # feature maps of an image


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort()


@pytest.fixture(scope="module")
def answers():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 80)
    return truth, np.clip(0.5 + 0.3 * (truth - 0.5) + rng.normal(0, 0.2, 80), 0, 1)


@pytest.fixture(scope="module")
def figures(cohort, answers):
    """One figure of each kind, all with the note."""
    images = [cohort.images[number] for number in range(5)]
    heat = np.linspace(0, 1, 16).reshape(4, 4)
    two = {"paper": answers, "clean": answers}
    features = np.random.default_rng(0).normal(size=(len(cohort), 2))
    return {
        "image_grid": plots.image_grid(images, list("abcde"), 3, "s", NOTE),
        "contact_sheet": plots.contact_sheet(cohort, 3, note=NOTE),
        "sample_pair": plots.sample_pair(cohort, note=NOTE),
        "images_per_patient": plots.images_per_patient(cohort, NOTE),
        "grey_histograms": plots.grey_histograms(cohort, note=NOTE),
        "ages": plots.ages(cohort.table.assign(age=np.arange(len(cohort)) * 2.0), note=NOTE),
        "figure2": plots.figure2(claims.figure2(), NOTE),
        "augmentations": plots.augmentations(images[0], {"flip": images[0][:, ::-1]}, note=NOTE),
        "splits": plots.splits(split.by_patient(cohort), NOTE),
        "folds": plots.folds(Cohort(TABLE, np.zeros((6, 8, 8), np.uint8), "two"), FOLDS, note=NOTE),
        "learning_curves": plots.learning_curves(HISTORY, "t", note=NOTE),
        "grid_accuracy": plots.grid_accuracy(GRID, note=NOTE),
        "confusion_matrix": plots.confusion_matrix(claims.table2(counts=True), "t", NOTE),
        "roc_curves": plots.roc_curves(two, note=NOTE),
        "precision_recall_curves": plots.precision_recall_curves(two, note=NOTE),
        "reliability_diagram": plots.reliability_diagram(
            {"paper": metrics.calibration(*answers)}, note=NOTE
        ),
        "decision_curve": plots.decision_curve(
            {"clean": metrics.net_benefit(*answers, [0.1, 0.5, 0.9])}, "t", NOTE
        ),
        "probability_histograms": plots.probability_histograms(two, "t", NOTE),
        "threshold_curves": plots.threshold_curves(*answers, threshold=0.4, note=NOTE),
        "score_comparison": plots.score_comparison(SCORES, "t", NOTE),
        "protocol_comparison": plots.protocol_comparison(SCORES, note=NOTE),
        "width_by_patients": plots.width_by_patients(WIDTHS, -0.05, {"of a study": 24}, "t", NOTE),
        "patient_curves": plots.patient_curves(CURVES, CURVES, "accuracy", "t", NOTE),
        "heat_map": plots.heat_map(images[0], heat, "t", NOTE),
        "heat_map_grid": plots.heat_map_grid(images[:2], [heat] * 2, ["a", "b"], note=NOTE),
        "grad_cam_steps": plots.grad_cam_steps(images[0], MAPS, np.array([1, -3, 2.0]), "t", NOTE),
        "feature_map": plots.feature_map(features, cohort.table["label"], note=NOTE),
        "architecture": plots.architecture(LAYERS, "t", NOTE),
        "dense_block": plots.dense_block(note=NOTE),
        "residual_block": plots.residual_block(NOTE),
        "fits_by_size": plots.fits_by_size({"none": pd.Series([0, 0], [1, 2])}, "t", NOTE),
        "interval_widths": plots.interval_widths({"s": 0.9}, [12, 48], {"p": 12}, "t", NOTE),
        "copies_and_evidence": plots.copies_and_evidence(COPIES, 48, 12, "t", NOTE),
        "power_curves": plots.power_curves({"a": [0.1, 0.5]}, [10, 90], 96, "t", NOTE),
    }


OTHERS = [f"cxrlib.plots.{name}" for name in ("classroom", "shortcuts", "knob", "style")]
NAMES = [  # of what has no test of its own
    name
    for name in plots.__all__
    if callable(found := getattr(plots, name)) and found.__module__ not in OTHERS
]
PREDICTIONS = [
    "confusion_matrix",
    "roc_curves",
    "precision_recall_curves",
    "reliability_diagram",
    "decision_curve",
    "probability_histograms",
    "threshold_curves",
    "score_comparison",
    "protocol_comparison",
    "width_by_patients",
    "patient_curves",
    "heat_map",
    "heat_map_grid",
    "grad_cam_steps",
]


def words(figure):
    """All text of a figure, line breaks as spaces."""
    found = [t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text"))]
    return [" ".join(text.split()) for text in found if text]


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_one_picture_with_its_note_labels_and_readable_text(figures, name):
    from IPython.core.formatters import DisplayFormatter
    from matplotlib import pyplot

    figure = figures[name]
    data, about = DisplayFormatter().format(figure)
    assert data["image/png"][:4] == b"\x89PNG"
    alt = about["image/png"]["alt"]
    assert NOTE in alt and all(axis.get_xlabel() in alt for axis in figure.axes[:9])
    assert not pyplot.get_fignums(), "pyplot knows the figure and would show it once more"
    said = words(figure)
    assert any(NOTE in text for text in said)
    assert any(NOT_CLINICAL in text for text in said) == (name in PREDICTIONS)
    for axis in figure.axes:
        if axis.get_label() == "<colorbar>":
            assert axis.get_ylabel()
        elif axis.axison and not axis.images:
            below = axis.get_shared_x_axes().get_siblings(axis)
            beside = axis.get_shared_y_axes().get_siblings(axis)
            assert any(other.get_xlabel() for other in below)
            assert any(other.get_ylabel() for other in beside)
    texts = figure.findobj(lambda a: hasattr(a, "get_fontsize") and a.get_text().strip())
    shown = [text for text in texts if text.get_visible()]
    assert min(text.get_fontsize() for text in shown) >= style.SMALL
    assert min(contrast_on_white(text.get_color()) for text in shown) >= 4.5


def test_learning_curves_draw_the_history_and_its_gap(figures):
    loss, accuracy = figures["learning_curves"].axes
    for axis, column in ((loss, "loss"), (accuracy, "accuracy")):
        training, held = axis.lines[:2]
        assert training.get_xdata().tolist() == [1, 2, 3]
        assert training.get_ydata().tolist() == HISTORY[column].tolist()
        assert held.get_ydata().tolist() == HISTORY[f"val_{column}"].tolist()
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", column)
    assert accuracy.get_title() == "training minus validation: +0.250"
    history = {name: list(HISTORY[name]) for name in HISTORY if name != "epoch"}  # as Keras'
    line = plots.learning_curves(history).axes[0].lines[0]
    assert line.get_xdata().tolist() == [1, 2, 3]


def test_grid_shows_each_head_in_both_panels(figures):
    heat, lines = figures["grid_accuracy"].axes
    last = GRID["val_accuracy"]
    assert [t.get_text() for t in heat.texts] == [f"{value:.3f}" for value in last]
    drawn = np.concatenate([line.get_ydata() for line in lines.lines])
    np.testing.assert_allclose(drawn, last)
    assert [t.get_text() for t in lines.get_xticklabels()] == ["8", "16", "32"]


def test_a_grid_is_coloured_over_an_interval_and_never_beyond_a_score():
    heat, lines = plots.grid_accuracy(GRID, within=(0.3, 1.2)).axes
    assert heat.collections[0].get_clim() == pytest.approx((0.3, 1))
    assert lines.get_ylim() == pytest.approx((0.28, 1.02))
    heat, _ = plots.grid_accuracy(GRID, within=(0.53, 0.535)).axes
    assert heat.collections[0].get_clim() == pytest.approx((0.518, 0.552))  # all values show


def test_confusion_matrix_shows_table_2(figures):
    texts = [t.get_text() for t in figures["confusion_matrix"].axes[0].texts]
    assert texts[:3] == ["5\n41.7 %", "4\n33.3 %", "3\n25.0 %"]
    assert texts[4] == "11\n45.8 %"


def test_figure_2_shows_what_the_paper_prints(figures):
    texts = [t.get_text().replace(",", "") for t in figures["figure2"].axes[0].texts]
    printed = claims.load().query("place == 'Fig. 2'")["printed"]
    assert len(texts) == 42
    for drawn, original in zip(texts, printed, strict=True):
        count, percent = original.rstrip(")").split(" (")
        assert drawn == f"{count} ({float(percent):.2f})"


def test_curves_equal_scikit_learn(figures, answers):
    axis = figures["roc_curves"].axes[0]
    x, y, _ = roc_curve(*answers, drop_intermediate=False)
    assert axis.lines[0].get_xdata().tolist() == x.tolist()
    assert axis.lines[0].get_ydata().tolist() == y.tolist()
    assert axis.lines[0].get_label() == f"paper: AUC {roc_auc_score(*answers):.3f}"
    label = figures["precision_recall_curves"].axes[0].lines[0].get_label()
    assert label == f"paper: average precision {average_precision_score(*answers):.3f}"


def test_the_area_of_several_models_is_that_within_their_folds(answers):
    truth, p = answers
    fold = np.arange(len(p)) % 2
    scaled = np.where(fold == 1, p / 10, p)  # another scale, in the same order
    axis = plots.roc_curves({"clean": (truth, scaled, fold)}).axes[0]
    pairs = [(truth[fold == k], p[fold == k]) for k in (0, 1)]
    weights = [t.sum() * (1 - t).sum() for t, _ in pairs]
    expected = np.average([roc_auc_score(*pair) for pair in pairs], weights=weights)
    assert axis.lines[0].get_label() == f"clean: AUC {expected:.3f}"
    assert axis.get_legend().get_title().get_text() == "AUC within folds"


def test_grad_cam_steps_draw_the_sum_and_what_is_above_0(figures):
    top, below = np.split(np.array(figures["grad_cam_steps"].axes[:8]), 2)
    assert [axis.get_title()[:5] for axis in top] == ["map 1", "map 2", "map 0", ""]
    drawn = [axis.images[-1].get_array() for axis in below]
    summed = MAPS[..., 0] - 3 * MAPS[..., 1] + 2 * MAPS[..., 2]
    np.testing.assert_allclose(drawn[1], summed)
    np.testing.assert_allclose(drawn[2], summed.clip(0))
    np.testing.assert_allclose(drawn[3], summed.clip(0) / summed.max())


def test_threshold_curves_agree_with_the_scores(figures, answers):
    scores = metrics.binary_scores(*answers, threshold=0.4)["value"]
    lines = {line.get_label(): line for line in figures["threshold_curves"].axes[0].lines}
    for name, score in (("sensitivity", "recall"), ("specificity",) * 2, ("precision",) * 2):
        x, y = lines[name].get_data()
        assert y[np.argmin(np.abs(x - 0.4))] == pytest.approx(scores[score])
    assert lines["threshold 0.400"].get_xdata() == [0.4, 0.4]


def test_reliability_diagram_draws_the_table(figures, answers):
    table = metrics.calibration(*answers)
    above, below = figures["reliability_diagram"].axes
    points = next(line for line in above.lines if line.get_marker() == "o")
    assert points.get_xdata().tolist() == table["mean_probability"].tolist()
    assert points.get_ydata().tolist() == table["fraction_positive"].tolist()
    assert [bar.get_height() for bar in below.patches] == table["n"].tolist()


def test_decision_curve_and_histograms_draw_what_was_counted(figures, answers):
    truth, p = answers
    lines = {line.get_label(): line for line in figures["decision_curve"].axes[0].lines}
    found = metrics.net_benefit(truth, p, [0.1, 0.5, 0.9])
    names = {"clean": "model", "act on everybody": "everybody", "act on nobody": "nobody"}
    assert {name: list(lines[name].get_ydata()) for name in names} == {
        name: found[column].tolist() for name, column in names.items()
    }
    healthy, covid = figures["probability_histograms"].axes[0].containers
    for bars, outcome, side in ((healthy, 0, -1), (covid, 1, 1)):
        heights = [side * bar.get_height() for bar in bars]
        assert sum(heights) == pytest.approx(1)
        last = ((p >= 0.95) & (truth == outcome)).sum() / (truth == outcome).sum()
        assert heights[-1] == pytest.approx(last)


def test_score_comparison_draws_values_intervals_and_the_papers_figures(figures):
    axis = figures["score_comparison"].axes[0]
    paper, clean = (line.get_xdata().tolist() for line in axis.lines[:2])
    assert (paper, clean) == ([0.9, 0.6], [0.7, 0.65])
    ends = [segment[:, 0].tolist() for segment in axis.collections[0].get_segments()]
    np.testing.assert_allclose(ends, [[0.8, 0.95], [0.5, 0.65]])
    printed = next(c for c in axis.collections if isinstance(c, PathCollection))
    assert printed.get_offsets()[:, 0].tolist() == [0.8, 0.8]


def test_protocol_comparison_tells_the_change(figures):
    texts = words(figures["protocol_comparison"])
    assert {"+0.200", "-0.050", "paper minus clean"} <= set(texts)


def test_width_by_patients_meets_the_difference_at_four_times_the_patients(figures):
    """Half the width of 80 patients is that of 320; beyond, the interval leaves 0 out."""
    axis = figures["width_by_patients"].axes[0]
    found, beyond, across, mark = (line.get_xydata() for line in axis.lines)
    assert found.tolist() == [[20, 0.2], [80, 0.1]] and beyond[0] == pytest.approx([80, 0.1])
    assert beyond[:, 1] == pytest.approx(0.1 * np.sqrt(80 / beyond[:, 0]))
    assert np.interp(320, *beyond.T) == pytest.approx(0.05, abs=1e-4) and beyond[-1, 0] > 320
    assert (across[:, 1] == 0.05).all() and (mark[:, 0] == 24).all()
    assert "24 of a study" in words(axis.figure) and axis.get_xscale() == "log"
    assert plots.width_by_patients(WIDTHS, 0.0, {}).axes[0].lines[1].get_xdata()[-1] == 80 * 50


def test_bars_count_images_and_patients(figures, cohort):
    heights = [bar.get_height() for bar in figures["images_per_patient"].axes[0].patches]
    assert heights == [10, 10]  # patients with two images, by label
    parts = split.by_patient(cohort)
    totals = [text.get_text() for text in figures["splits"].axes[0].texts]
    assert {str(len(part)) for part in parts} <= set(totals)


def test_splits_count_people_on_the_scale_of_images(figures):
    ends = {axis.get_ylim() for axis in figures["splits"].axes}
    assert len(ends) == 1 and ends.pop()[1] > 20, "the images of the largest part"


def test_folds_show_each_image_where_it_stands_and_who_is_on_two_sides(figures):
    """A patient's images stand together: columns a, a, a, a, b, b; 1 training, 3 test."""
    paper, clean = figures["folds"].axes
    shown = [axis.collections[0].get_array().reshape(2, 6).tolist() for axis in (paper, clean)]
    assert shown[0] == [[3, 1, 3, 2, 1, 0], [1, 1, 1, 0, 3, 2]]
    assert shown[1] == [[3, 0, 3, 0, 1, 1], [1, 1, 1, 0, 3, 0]]
    assert paper.get_title() == "paper: 1 of 2 patients test a model that learned from them"
    assert clean.get_title().startswith("clean: 0 of 2")
    assert paper.lines[0].get_xdata().tolist() == [0.5, 2.5, 4.5], "over the films, not the copies"


def test_grey_histogram_holds_all_pixels(figures):
    for steps in figures["grey_histograms"].axes[0].patches:
        assert steps.get_data().values.sum() == pytest.approx(100)


def test_ages_are_shares_of_the_patients(figures):
    """Patient n of 20 has films at 4 n and 4 n + 2 years: 4 n + 1, every second one is ill."""
    axis = figures["ages"].axes[0]
    said = [text.get_text() for text in figures["ages"].legends[0].get_texts()]
    assert said == ["covid (10, mean 41)", "healthy (10, mean 37)"]
    for steps, ages in zip(axis.patches, (range(5, 80, 8), range(1, 80, 8)), strict=True):
        expected = [10 * sum(low <= age < low + 10 for age in ages) for low in range(0, 120, 10)]
        assert steps.get_data().values.tolist() == expected


def test_images_are_drawn_unstretched_and_in_order(figures, cohort):
    first, second = (axis.images[0] for axis in figures["image_grid"].axes[:2])
    assert np.array_equal(first.get_array(), cohort.images[0])
    assert np.array_equal(second.get_array(), cohort.images[1])
    assert first.get_clim() == (0, 255)
    left, right = (axis.get_title() for axis in figures["sample_pair"].axes)
    assert (left, right) == ("covid", "healthy")
    assert figures["augmentations"].axes[0].get_title() == "original"


def test_heat_map_lies_over_the_whole_image(figures):
    axis = figures["heat_map"].axes[1]
    image, heat = axis.images
    assert tuple(image.get_extent()) == tuple(heat.get_extent())
    assert heat.get_clim() == (0, 1)


def test_architecture_names_layers_shapes_parameters_and_what_is_frozen(figures):
    texts = words(figures["architecture"])
    assert {"l1", "Conv2D, frozen", "4 x 4 x 2, 10 parameters", "4 x 4 x 4, 30 parameters"} <= set(
        texts
    )
    assert any("60 parameters: 50 trainable, 10 frozen" in text for text in texts)


def test_architecture_joins_a_long_frozen_base():
    base = [dict(LAYERS[1], name=f"base_{n}") for n in range(170)]
    texts = words(plots.architecture([*base, LAYERS[3]]))
    assert {"base_0 to base_169", "170 layers, frozen", "l3"} <= set(texts)
    with pytest.raises(ValueError, match="170 layers cannot be drawn"):
        plots.architecture([dict(layer, frozen=False) for layer in base])


def test_architecture_of_a_keras_model_counts_as_keras_does():
    import keras

    inner = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3)], name="base")
    inner.trainable = False
    model = keras.Sequential([keras.Input((8, 8, 1)), inner, keras.layers.Dense(3)])
    texts = words(plots.architecture(model))
    assert {"base", "6 x 6 x 2, 20 parameters", "6 x 6 x 3, 9 parameters"} <= set(texts)
    assert any("29 parameters: 9 trainable, 20 frozen" in text for text in texts)


def test_text_in_a_colour_of_the_palette_reads_on_white_and_keeps_its_hue():
    assert contrast_on_white("white") == 1 and contrast_on_white("black") == 21
    assert contrast_on_white("#767676") == pytest.approx(4.54, abs=0.005)  # W3C's own example
    for colour in {*style.OTHERS, *style.FIXED.values()}:
        hue, depth, _ = rgb_to_hsv(to_rgb(style.ink(colour)))
        assert contrast_on_white(style.ink(colour)) >= 4.5
        assert [hue, depth] == pytest.approx(rgb_to_hsv(to_rgb(colour))[:2], abs=0.02)
    assert style.ink(style.BLUE) == style.BLUE.lower(), "what reads stays as it is"


def test_classes_and_protocols_keep_their_colours():
    assert style.colours(["covid", "x", "healthy"])[::2] == [style.VERMILLION, style.GREEN]
    assert len(set(style.colours(["covid", "a", "b", "healthy", "pneumonia"]))) == 5


BAD = {
    "images is empty": lambda c: plots.image_grid([]),
    "1 titles for 2 images": lambda c: plots.image_grid(c.images[:2], ["a"]),
    r"not \(64, 64, 3\)": lambda c: plots.image_grid(np.zeros((1, 64, 64, 3))),
    "label 'pneumonia' is empty": lambda c: plots.sample_pair(c, ("pneumonia", "healthy")),
    "tiny lacks scanner": lambda c: plots.grey_histograms(c, by="scanner"),
    "table: ages is empty": lambda c: plots.ages(c.table.assign(age=np.nan)),
    "generated is empty": lambda c: plots.augmentations(c.images[0], {}),
    "history lacks val_loss": lambda c: plots.learning_curves({"loss": [1], "accuracy": [1]}),
    "table has several rows": lambda c: plots.grid_accuracy(pd.concat([GRID, GRID])),
    "table is empty": lambda c: plots.score_comparison(SCORES[:0]),
    "counts lacks uncertain": lambda c: plots.figure2(
        pd.DataFrame({"positive": [1], "negative": [1]})
    ),
    "metric 'f1' is empty": lambda c: plots.protocol_comparison(SCORES, "f1"),
    "clean: only one class": lambda c: plots.roc_curves({"clean": ([1, 1], [0.1, 0.2])}),
    "predictions is empty": lambda c: plots.roc_curves({}),
    "two-dimensional, 0 to 1": lambda c: plots.heat_map(c.images[0], np.full((4, 4), 2.0)),
    "weights for maps of the shape": lambda c: plots.grad_cam_steps(c.images[0], MAPS, [1, 2]),
    "do not fit": lambda c: plots.feature_map(np.zeros((3, 3)), list("abc")),
    "model: layers is empty": lambda c: plots.architecture([]),
    "layer l lacks frozen": lambda c: plots.architecture(
        [{"name": "l", "kind": "Dense", "shape": (1,), "parameters": 1}]
    ),
    "shares is empty": lambda c: plots.interval_widths({}, [1], {}),
    "table lacks half width": lambda c: plots.width_by_patients(WIDTHS[["patients"]], 0.1, {}),
    "curves is empty": lambda c: plots.power_curves({}, [1], 96),
    "lacks coverage": lambda c: plots.copies_and_evidence(COPIES[["likeness", "effective"]], 2, 1),
    "layers=9": lambda c: plots.dense_block(9),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(cohort, message):
    with pytest.raises(ValueError, match=message):
        BAD[message](cohort)


@pytest.mark.slow
def test_a_notebook_shows_a_figure_once():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    backends = ["", "%matplotlib inline\n", "import matplotlib; matplotlib.use('agg')\n"]
    sources = [f"{one}from cxrlib import plots\nplots.residual_block()" for one in backends]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)))
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    for cell in notebook.cells:
        (output,) = cell.outputs
        assert "image/png" in output.data


def test_dollar_signs_in_names_are_no_formula_and_powers_of_ten_are():
    image = np.zeros((40, 40), np.uint8)
    plots.heat_map(image, image / 255, r"film$\frac$.png $x$").savefig(io.BytesIO())
    plots.image_grid([image], [r"a$\frac$b"], suptitle=r"$\frac$").savefig(io.BytesIO())
    assert matplotlib.rcParams["text.parse_math"]


def test_names_that_no_font_can_draw_are_escaped(monkeypatch, recwarn):
    monkeypatch.setattr(style, "FONTS", ())
    style._fonts.cache_clear()
    figure, axis = style.subplots()
    axis.set_yticks([0, 1], ["gesund\udcff\x1b", "健康 é"])
    axis.plot([0, 1], [0, 1], label="新冠")
    axis.legend()
    axis.set_title("−1, healthy\nand more")
    picture, about = figure._repr_png_()
    style._fonts.cache_clear()
    assert picture.startswith(b"\x89PNG") and not recwarn.list
    ticks = [text.get_text() for text in axis.get_yticklabels()]
    assert ticks == [r"gesund\udcff\x1b", r"\u5065\u5eb7 é"]
    assert axis.get_legend().get_texts()[0].get_text() == r"\u65b0\u51a0"
    assert axis.get_title() == "−1, healthy\nand more"
    assert "新冠" in about["alt"]  # those who hear the page have fonts of their own


def test_a_font_of_the_machine_draws_what_the_own_one_lacks(monkeypatch, recwarn):
    (sign,) = "\N{MATHEMATICAL SCRIPT SMALL A}"  # in STIX, which Matplotlib brings
    monkeypatch.setattr(style, "FONTS", ())
    style._fonts.cache_clear()
    assert style.legible(sign) == r"\U0001d4b6"
    monkeypatch.setattr(style, "FONTS", ("No such font", "STIXGeneral"))
    style._fonts.cache_clear()
    figure, axis = style.subplots()
    axis.set_title(sign)
    figure._repr_png_()
    style._fonts.cache_clear()
    assert axis.get_title() == sign and not recwarn.list
