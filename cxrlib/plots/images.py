"""Figures that show images: side by side, augmented, and with heat maps over them."""

from __future__ import annotations

import textwrap

import numpy as np

from cxrlib.plots.style import SMALL, WIDTH, finish, need, plain, subplots


def image_grid(images, titles=None, columns=6, suptitle="", note=""):
    """Show images side by side, all on the same grey scale.

    Parameters
    ----------
    images : sequence of ndarray, shape (height, width)
        uint8 0 to 255, bool, or float (0 to 1, or any other range, then stretched).
    titles : sequence of str, optional
        One an image.
    columns : int
        Images in a row, at most.
    """
    figure, axes = _grid(images, columns, titles, WIDTH, 0.4)
    for number, axis in zip(range(len(images)), axes.flat, strict=False):
        _show(axis, images[number])
    return finish(figure, suptitle, note)


def contact_sheet(cohort, per_label=6, seed=0, note=""):
    """Show at most `per_label` images of every label, drawn at random, one row a label."""
    need(cohort.labels, f"{cohort.name}: labels")
    rng = np.random.default_rng(seed)
    height = len(cohort.labels) * (WIDTH / per_label + 0.25) + 0.5
    figure, axes = subplots(len(cohort.labels), per_label, height, squeeze=False)
    for row, label in zip(axes, cohort.labels, strict=True):
        places = np.flatnonzero(cohort.table["label"] == label)
        drawn = rng.permutation(places)[:per_label]
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, place in zip(row, drawn, strict=False):
            _show(axis, cohort.images[int(place)])
            if cohort.table["source"].nunique() > 1:
                source = cohort.table["source"].iloc[place]
                axis.set_title(_wrap(source, WIDTH / per_label), fontsize=SMALL)
        row[0].set_ylabel(f"{label}\n({len(places)} images)", fontsize=10)
    return finish(figure, cohort.name, note)


def sample_pair(cohort, labels=("covid", "healthy"), seed=0, note=""):
    """Show an image of each of two labels, as Fig. 1 of the paper: COVID-19 left, healthy right."""
    rng = np.random.default_rng(seed)
    images = []
    for label in labels:
        places = np.flatnonzero(cohort.table["label"] == label)
        need(places, f"{cohort.name}: images with the label {label!r}")
        images.append(cohort.images[int(rng.choice(places))])
    return image_grid(images, labels, 2, f"{cohort.name} (as Fig. 1)", note)


def augmentations(original, generated, columns=4, note=""):
    """Show an image beside what was made from it, as Fig. 3: original left, generated right.

    `generated` is a dict: the name of the operation, and its result.
    """
    need(generated, "generated")
    images, titles = [original, *generated.values()], ["original", *generated]
    return image_grid(images, titles, columns, "Augmentation (as Fig. 3)", note)


def heat_map(image, heat, title="", note=""):
    """Show an image, and over it where a model found its evidence.

    `heat` is float, 0 to 1, as Grad-CAM gives it; of any size, it is stretched over the image.
    """
    figure, (left, right) = subplots(1, 2, 3.7)
    _show(left, image)
    left.set_title("image", fontsize=10)
    shown = _overlay(right, image, heat)
    right.set_title("image and heat map", fontsize=10)
    figure.colorbar(shown, ax=right, label="evidence (0 to 1)", shrink=0.85)
    return finish(figure, title, note, predictions=True)


def heat_map_grid(images, heats, titles=None, columns=4, suptitle="", note=""):
    """Show heat maps over many images, as :func:`heat_map` does over one."""
    if len(heats) != len(images):
        raise ValueError(f"{len(heats)} heat maps for {len(images)} images: give one an image.")
    figure, axes = _grid(images, columns, titles, WIDTH - 0.8, 0.6)
    for number, axis in zip(range(len(images)), axes.flat, strict=False):
        shown = _overlay(axis, images[number], heats[number])
    figure.colorbar(shown, ax=axes, label="evidence (0 to 1)", shrink=min(1, 1.4 / len(axes)))
    return finish(figure, suptitle, note, predictions=True)


def grad_cam_steps(image, maps, weights, title="", note=""):
    """Show how Grad-CAM comes about: maps, their weighted sum, what is above 0, over the film.

    `maps` (height, width, channels) are the feature maps of `image`, `weights` (channels,) the
    means of their gradients; the maps that weigh most are drawn, four at most.
    """
    if np.shape(maps)[-1:] != np.shape(weights):
        raise ValueError(f"{np.shape(weights)} weights for maps of the shape {np.shape(maps)}.")
    most = np.argsort(-np.abs(weights))[:4]
    titles = [f"map {number}, weight {weights[number]:+.2g}" for number in most]
    titles += [""] * (4 - len(most))
    titles += ["the film", "all maps, weighted, added", "what is above 0", "over the film"]
    figure, axes = _grid([image] * 8, 4, titles, WIDTH, 0.5)
    for axis, number in zip(axes[0], most, strict=False):
        axis.imshow(maps[..., number], cmap="gray")
    film, added, above, over = axes[1]
    summed = maps @ weights
    heat, end = np.maximum(summed, 0), max(np.abs(summed).max(), 1e-12)
    _show(film, image)
    added.imshow(summed, cmap="PuOr_r", vmin=-end, vmax=end)
    above.imshow(heat, cmap="inferno", vmin=0)
    _overlay(over, image, heat / max(heat.max(), 1e-12))
    return finish(figure, title, note, predictions=True)


def _show(axis, image):
    image = np.asarray(image)
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"An image must be height x width grey values, not {image.shape}.")
    limits = (0, 255) if image.dtype == np.uint8 else (0, 1)
    if image.dtype.kind == "f" and (image.min() < 0 or image.max() > 1):
        limits = (image.min(), image.max())
    axis.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1])
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _overlay(axis, image, heat):
    heat = np.asarray(heat, dtype=float)
    if heat.ndim != 2 or not (heat.min() >= 0 and heat.max() <= 1):
        raise ValueError(f"A heat map must be two-dimensional, 0 to 1; its shape is {heat.shape}.")
    _show(axis, image)
    height, width = np.shape(image)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    return axis.imshow(
        heat, cmap="inferno", vmin=0, vmax=1, alpha=0.5, extent=extent, interpolation="bilinear"
    )


def _grid(images, columns, titles, width, more):
    """Start a figure for square images, titled or not; `more` inches are for its title and foot."""
    need(images, "images")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images: give one an image.")
    columns = min(columns, len(images))
    rows, side = -(-len(images) // columns), width / columns
    titles = [_wrap(title, side) for title in ([] if titles is None else titles)]
    height = side + 0.2 * max((title.count("\n") + 1 for title in titles), default=0)
    figure, axes = subplots(rows, columns, rows * height + more, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, title in zip(axes.flat, titles, strict=False):
        axis.set_title(title, fontsize=SMALL)
    return figure, axes


def _wrap(title, inches):
    return textwrap.fill(plain(title), max(8, int(inches * 12)))
