"""Machines: physics by Beer-Lambert, the files that they would write, what they let through."""

import numpy as np
import pytest

from cxrlib.phantom import make_cohort, render
from cxrlib.phantom.scanner import SCANNERS, transmission


def test_transmission_is_beer_lambert():
    depth = np.linspace(0, 5, 200)
    once = transmission(depth) / 65535
    np.testing.assert_allclose(once, np.exp(-depth), atol=2e-4)
    np.testing.assert_allclose(transmission(2 * depth) / 65535, once * once, atol=5e-4)


def test_the_table_describes_the_file_of_the_scanner():
    cohort = make_cohort(30, (1, 1), size=32, seed=7)
    for row in cohort.table.itertuples():
        machine = SCANNERS[row.scanner]
        assert (row.format, row.height, row.width) == (
            machine.format,
            machine.height,
            machine.width,
        )
        assert row.view == ("AP" if machine.portable else "PA")
    assert set(cohort.table["scanner"]) == set(SCANNERS)
    assert len(SCANNERS) >= 4


@pytest.mark.parametrize("scanner", SCANNERS)
def test_a_disease_changes_the_lungs_and_not_the_border_strip(scanner):
    """The same patient well and ill: what is left outside the lungs is scattered light."""
    for seed in range(8):
        well, sick = (render(label, scanner, seed, severity=1.0) for label in ("healthy", "covid"))
        np.testing.assert_array_equal(well.lungs, sick.lungs)
        difference = np.abs(sick.image.astype(int) - well.image)
        difference[30:-30, 30:-30] = 0
        assert difference.sum() / (300 * 300 - 240 * 240) < 0.1  # grey values
