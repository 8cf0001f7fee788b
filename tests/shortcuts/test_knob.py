"""The knob: what it must show, what it must leave alone, and where a collapse is."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrlib import explain, plots, training
from cxrlib.phantom import make_cohort
from cxrlib.shortcuts import knob as k
from cxrlib.shortcuts.views import ShortcutError

TINY = {"patients": 40, "test_patients": 40, "size": 48, "epochs": 4}


@pytest.fixture(scope="module")
def turned():
    """The knob at both ends, and the cohorts that it was turned on, with their confounding."""
    seen = []

    def spy(*given):
        cohort = make_cohort(*given)
        seen.append((cohort, given[3]))
        return cohort

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(k, "make_cohort", spy)
        return k.knob(levels=(0, 1), **TINY), seen


@pytest.fixture(scope="module")
def table(turned):
    return turned[0]


def row(table, level):
    return table.set_index("level").loc[level]


# What the experiment must show


def test_at_1_the_network_reads_the_scanner_and_no_longer_the_finding(table):
    at_0, at_1 = row(table, 0), row(table, 1)
    assert at_1["auc_inside"] > 0.95
    assert at_1["drop_low"] > 0 and at_1["auc_new_high"] < at_1["auc_inside_low"]
    assert at_1["finding"] < min(at_0["finding"], 0.2)
    assert at_1["covered"] < min(at_0["covered"], 0.5)


@pytest.mark.parametrize(("level", "lowest", "highest"), [(0, 0.3, 0.7), (1, 1, 1)])
def test_the_scanner_alone_says_nothing_at_0_and_all_at_1(level, lowest, highest):
    """Who calls the films of the second scanner ill is right by chance at 0, always at 1."""
    cohort = make_cohort(100, (1, 1), k.LABELS, level, k.INSIDE, 32, 1)
    right = (cohort.table["scanner"] == k.INSIDE[1]) == cohort.targets(k.LABELS)
    assert lowest <= right.mean() <= highest


# What must not matter


def test_a_level_is_the_same_alone_and_after_another(table):
    seen = []
    alone = k.knob(levels=(1,), **TINY, look=lambda *both: seen.append(both))
    ((model, inside),) = seen  # whoever looks sees the network that was scored, and its films
    auc = roc_auc_score(inside.targets(k.LABELS), training.predict(model, inside.images)[:, 1])
    assert auc == pytest.approx(alone["auc_inside"][0])
    pd.testing.assert_series_equal(
        alone.iloc[0], table.iloc[1], check_names=False, rtol=1e-3, atol=1e-4
    )


def test_both_tests_see_the_same_patients_whom_the_training_never_saw(turned):
    (new, confounding), *levels = turned[1]
    assert confounding == 0
    assert [level for _, level in levels] == [0, 0, 1, 1]
    for train, inside in ((levels[0][0], levels[1][0]), (levels[2][0], levels[3][0])):
        assert list(new.table["patient"]) == list(inside.table["patient"])
        assert list(new.table["label"]) == list(inside.table["label"])
        assert not set(train.table["patient"]) & set(new.table["patient"])
        assert not set(inside.table["scanner"]) & set(new.table["scanner"])


# The measures, against what is known by hand


def test_heat_is_grad_cams_and_hirescam_divides_the_logit_among_places():
    cohort = make_cohort(6, (1, 1), k.LABELS, size=32)
    model = k.build_cnn(32, seed=3)
    base, tail = explain.split_at_last_convolution(model)
    maps = base.predict(training.batches(cohort.images, 32), verbose=0)
    heat = explain.enlarge(explain.weigh(maps, explain.gradients(tail, maps, 1)), 32)
    expected = np.nanmean(explain.mass_inside(heat, cohort.masks["lungs"][:]))
    assert k.heat_inside_lungs(model, cohort)["heat"] == pytest.approx(expected, rel=1e-4)
    logits = (explain.gradients(tail, maps, 1) * maps).sum(axis=(1, 2, 3))
    logits += tail[-1].get_weights()[1][0]
    said = training.predict(model, cohort.images)[:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), said, rtol=1e-3, atol=1e-5)


@pytest.fixture
def known(monkeypatch):
    """Models whose logit is known: a function of the images' grey values."""

    def predict(logit, images, _):
        probability = 1 / (1 + np.exp(-logit(np.asarray(images, dtype=float))))
        return np.stack([1 - probability, probability], axis=1)

    monkeypatch.setattr(k.training, "predict", predict)


def test_occlusion_finds_which_part_is_read(known):
    cohort = make_cohort(8, (1, 1), k.LABELS, size=32)
    lungs = cohort.masks["lungs"][:].all(axis=0)  # lung in every image
    never = ~cohort.masks["lungs"][:].any(axis=0)
    assert k.covered_share(lambda images: images[:, lungs].mean(axis=1) / 50, cohort) == 1
    assert k.covered_share(lambda images: images[:, never].mean(axis=1) / 50, cohort) == 0


def test_twins_share_by_hand(known):
    """The finding adds 2 to the logit and the scanner 6: the finding's share is 2 / 8."""
    twins = np.zeros((2, 2, 5, 4, 4))
    twins[1] += 2
    twins[:, 1] += 6
    found = k.finding_share(lambda images: images.mean(axis=(1, 2)) - 4, twins)
    assert found == pytest.approx(2 / 8)
    assert k.finding_share(lambda images: 4 - images.mean(axis=(1, 2)), twins) == 0
    assert np.isnan(k.finding_share(lambda images: np.zeros(len(images)), twins))


def test_drop_is_the_difference_of_scikit_learns_aucs():
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 2
    inside, new = (0.4 * rng.random(60) + 0.3 * truth * weight for weight in (1, 0.2))
    found = k.both_scores(truth, inside, new)
    expected = roc_auc_score(truth, inside) - roc_auc_score(truth, new)
    assert found["drop"] == pytest.approx(expected)
    assert found["drop_low"] < expected < found["drop_high"]
    same = k.both_scores(truth, inside, inside)
    width = found["auc_inside_high"] - found["auc_inside_low"]
    assert same["drop_low"] < same["drop"] == 0 < same["drop_high"]
    assert same["drop_high"] - same["drop_low"] < width  # paired by patient


# Where the collapse is


START, HALF, END = (0, 0.95, 0.97, -0.02, 0.04), (0.5, 0.96, 0.98, 0.05, 0.1), (1, 1, 1, 0.4, 0.5)


def hand_made(*levels, seed=0):
    """Rows of level, auc_inside, auc_inside_high, drop_low, drop_high."""
    names = ["level", "auc_inside", "auc_inside_high", "drop_low", "drop_high"]
    return pd.DataFrame(levels, columns=names).assign(seed=seed)


UNSURE = (0.5, 0.96, 0.98, 0.03, 0.1)  # overlaps the drop at 0
WORSE = (0.5, 0.9, 0.94, 0.05, 0.1)  # internal validation would have warned
BELOW = (0, 0.95, 0.97, -0.2, -0.1)  # new scanners were easier at first


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((START, HALF, END), 0.5),
        ((END, START, HALF), 0.5),
        ((START, UNSURE, END), 1),
        ((START, WORSE, END), 1),
        ((START, UNSURE), None),
        ((BELOW, (1, 1, 1, -0.05, 0.1)), None),
    ],
)
def test_collapse_is_the_lowest_level_with_a_larger_drop_and_no_worse_inside(levels, expected):
    assert k.collapse(hand_made(*levels)) == expected


def test_collapse_goes_by_the_means_over_seeds():
    harder = (0, 0.95, 0.97, 0.02, 0.07)  # with 0.04 this makes 0.055, above 0.05
    for first, expected in ((START, 0.5), (harder, 1)):
        two = [hand_made(START, HALF, END), hand_made(first, HALF, END, seed=1)]
        assert k.collapse(pd.concat(two)) == expected


def test_collapse_needs_something_to_compare_with():
    for table in (hand_made(START), pd.concat([hand_made(START, END), hand_made(END, seed=1)])):
        with pytest.raises(ShortcutError, match="comparison"):
            k.collapse(table)


# What cannot be done says why


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"levels": (0, 1.2)}, "from 0 to 1"),
        ({"levels": (-0.1,)}, "from 0 to 1"),
        ({"levels": ()}, "from 0 to 1"),
        ({"levels": (0, float("nan"))}, "from 0 to 1"),
        ({"levels": (0, 0)}, "once"),
        ({"seeds": ()}, "once"),
    ],
)
def test_what_makes_no_experiment_says_why(wrong, said):
    with pytest.raises(ShortcutError, match=said):
        k.knob(**TINY | wrong)


# The figure


def test_the_figure_shows_every_seed_the_collapse_and_what_it_is(table):
    clear = table.assign(drop_low=[-0.1, 0.3], drop_high=[0.1, 0.5])
    two = pd.concat([clear, clear.assign(seed=1)])
    figure = plots.knob_curves(two, "Quick settings.")
    above, below = figure.axes
    assert [text.get_text() for text in above.texts] == [f"collapse: {k.collapse(two):g}"]
    assert "Synthetic" in figure._supxlabel.get_text() and "2 seeds" in figure._supxlabel.get_text()
    assert len(above.collections) == 4  # intervals of two seeds in two places
    chance = next(line for line in below.lines if line.get_label() == "lungs' share of the image")
    np.testing.assert_allclose(chance.get_ydata(), table["area_inside"])
    with pytest.raises(ValueError, match="auc_new"):
        plots.knob_curves(table.drop(columns="auc_new"))
