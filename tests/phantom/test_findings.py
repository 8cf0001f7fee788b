"""Diseases: where they put fluid in place of air, and how much."""

import numpy as np

from cxrlib.phantom import render


def test_fluid_in_the_lung_is_brighter_and_air_outside_black():
    well, sick = (render(label, seed=3, severity=1.0) for label in ("healthy", "pneumonia"))
    where = sick.lesions
    difference = sick.image.astype(int) - well.image
    assert difference[where].mean() > 20
    assert abs(difference[~sick.lungs]).mean() < 3
    assert well.image[150, :3].mean() < 40 or well.image[299, :3].mean() < 40


def sides(phantom):
    """Lesion pixels to the left and right of the middle between the lungs."""
    columns = np.flatnonzero(phantom.lungs.any(axis=0))
    middle = (columns[0] + columns[-1]) // 2
    return phantom.lesions[:, :middle].sum(), phantom.lesions[:, middle:].sum()


def test_pneumonia_is_one_sided_and_covid_bilateral_and_low():
    for seed in range(10):
        one, other = sorted(sides(render("pneumonia", seed=seed)))
        assert one == 0 < other
        covid = render("covid", seed=seed)
        assert min(sides(covid)) > 0
        assert np.nonzero(covid.lesions)[0].mean() > np.nonzero(covid.lungs)[0].mean() - 15


def test_covid_lies_further_out_than_pneumonia():
    def offset(label):
        away = []
        for seed in range(25):
            columns = np.nonzero(render(label, seed=seed, size=100).lesions)[1]
            away.append(np.abs(columns - 50).mean())
        return np.mean(away)

    assert offset("covid") > offset("pneumonia") + 3


def test_severity_grows_the_opacity():
    mild, grave = (render("covid", seed=5, severity=value) for value in (0.1, 1.0))
    assert grave.image[grave.lesions].mean() > mild.image[grave.lesions].mean() + 10
