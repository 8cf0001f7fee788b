"""The films that speak loudest are those that were made to, and the place is where it was put."""

import numpy as np
import pandas as pd
import pytest

from cxrlib import shortcuts
from cxrlib.cohort import Cohort

SIDE = 96


def made(patients=60, mark=None, brighter=0, seed=0):
    """Noise with two films a patient; of 22 of 30 ill patients the films carry a mark."""
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 130, (2 * patients, SIDE, SIDE)).astype(np.uint8)
    if mark:  # films differ in exposure, so that the whole brightness tells little
        images += rng.integers(0, 60, (len(images), 1, 1)).astype(np.uint8)
    names = [f"{patient:02}-{number}" for patient in range(patients) for number in range(2)]
    labels = ["covid" if patient % 2 else "healthy" for patient in range(patients)]
    labels = np.repeat(labels, 2)
    marked = (labels == "covid") & (np.repeat(np.arange(patients), 2) % 8 != 1)
    images[labels == "covid"] += np.uint8(brighter)
    if mark:
        images[(marked, *mark)] += 60
    table = pd.DataFrame({"image": names, "label": labels, "source": "test", "view": "PA"})
    table = table.assign(patient=[name[:2] for name in names], licence="CC0", marked=marked)
    sizes = np.where(marked, 700, 512)
    return Cohort(table.assign(format="PNG", height=sizes, width=512), images, "made")


@pytest.mark.parametrize(
    ("mark", "view", "said"),
    [
        (
            (slice(4, 8), slice(84, 92)),
            "corners",
            "in the top right corner, where films of",
        ),
        ((slice(52, 60), slice(0, 4)), "border", "at the left edge, where films of"),
        (
            (slice(92, 96), slice(40, 60)),
            "lungs covered",
            "at the bottom edge, where films of",
        ),
        ((slice(44, 52), slice(44, 52)), "whole image", "in the middle, where films of"),
    ],
)
def test_the_place_is_where_the_mark_was_put(mark, view, said):
    cohort = made(mark=mark)
    found = shortcuts.loudest(cohort, view)
    assert said in found.said and "brighter" in found.said
    down, across = np.unravel_index(np.nanargmax(found.squares), found.squares.shape)
    assert mark[0].start <= (down + 1) * SIDE / 24 and down * SIDE / 24 < mark[0].stop
    assert mark[1].start <= (across + 1) * SIDE / 24 and across * SIDE / 24 < mark[1].stop
    # Of 30 ill patients 22 carry the mark; all others differ by noise alone
    assert np.nanmax(found.squares) == pytest.approx(0.5 + 0.5 * 22 / 30, abs=0.07)


def test_six_patients_a_class_the_marked_ones_first():
    cohort = made(mark=(slice(4, 8), slice(84, 92)))
    found = shortcuts.loudest(cohort, "corners").films
    assert found["class"].to_list() == ["healthy"] * 6 + ["covid"] * 6
    assert not found.duplicated(["class", "patient"]).any()
    marked = cohort.table.set_index("image")["marked"]
    assert marked[found["image"]].to_list() == [False] * 6 + [True] * 6
    for _, scores in found.groupby("class")["score"]:
        assert scores.is_monotonic_decreasing and (scores > 0).all()


def test_brightness_of_all_is_called_that():
    found = shortcuts.loudest(made(brighter=40), "lungs covered")
    assert "the brightness of all that is seen: films of 'covid' are brighter" in found.said


def test_files_speak_by_their_facts():
    found = shortcuts.loudest(made(mark=(slice(4, 8), slice(84, 92))), "file")
    assert found.squares is None
    assert "healthy: PNG, 512 x 512 pixels in 60 of 60 files" in found.said
    assert "covid: PNG, 512 x 700 pixels in 44 of 60 files" in found.said


def test_any_column_can_name_the_classes():
    cohort = made(mark=(slice(4, 8), slice(84, 92)))
    table = cohort.table.assign(hospital=cohort.table["marked"].map({True: "A", False: "B"}))
    found = shortcuts.loudest(Cohort(table, cohort.images), "corners", ["A", "B"], by="hospital")
    assert set(found.films["class"]) == {"A", "B"}
    assert np.nanmax(found.squares) > 0.99


def test_an_unknown_view_is_named():
    with pytest.raises(shortcuts.ShortcutError, match="no view 'lungs'"):
        shortcuts.loudest(made(10), "lungs")
