"""Bodies: organs stand where they should, and two patients or two images are never the same."""

import numpy as np

from cxrlib.phantom import render


def test_anatomy_stands_where_it_should():
    for seed in range(12):
        phantom = render(seed=seed, scanner="digital")
        image, lungs = phantom.image.astype(float), phantom.lungs
        assert 0.12 < lungs.mean() < 0.4
        middle = image[100:200, 145:155].mean()
        assert middle > image[lungs].mean() + 40  # mediastinum against lungs
        right, left = lungs[:, :150].sum(), lungs[:, 150:].sum()
        assert right > left  # the heart takes its room from the patient's left lung


def test_another_image_or_seed_is_another_picture():
    first, second = (render("covid", seed=4, image=image).image for image in (0, 1))
    assert np.mean(first != second) > 0.3
    assert np.mean(render(seed=1).image != render(seed=2).image) > 0.5
