"""Explorers of the phantoms: one body with its truth, and the knob that gives a label away."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cxrlib.explorer import MOVE_IT, beside, explorer, is_movable, options, picture, table, words
from cxrlib.findings import LABELS
from cxrlib.phantom import make_cohort, render
from cxrlib.scanner import SCANNERS

FILM, SMALL_FILM = 256, 80  # pixels: the one film, and each on the sheet
KNOB_LABELS = ("healthy", "covid")
KNOB_SCANNERS = ("digital", "computed", "film")
ACROSS = 10  # films of a label on the sheet
LUNGS, LESIONS = (86, 180, 233), (230, 159, 0)  # sky blue and orange, as red, green, blue
SYNTHETIC = "Synthetic films (phantoms), not real patients."


def phantoms():
    """Show both explorers of the phantoms, one above the other.

    Returns
    -------
    ipywidgets.VBox, or a matplotlib figure where nobody can move it
        ``anatomy`` and ``knob`` are its two parts.
    """
    if not is_movable():
        return knob()
    import ipywidgets

    body, dial = anatomy(), knob()
    box = ipywidgets.VBox([_heading("One body"), body, _heading("The knob"), dial])
    box.anatomy, box.knob = body, dial
    return box


def _heading(text):
    import ipywidgets

    return ipywidgets.HTML(f'<h3 style="margin:12px 0 0">{text}</h3>')


def anatomy():
    """Choose a phantom's finding, its severity, machine, patient and image.

    Returns
    -------
    ipywidgets.VBox, or a matplotlib figure where nobody can move it
        Its controls are label, severity, scanner, patient, image and outlines.
    """
    if not is_movable():
        from cxrlib import plots

        films = [render(label, size=FILM).image for label in LABELS]
        return plots.image_grid(films, list(LABELS), columns=3, note=f"{SYNTHETIC} {MOVE_IT}")
    import ipywidgets as widgets

    controls = {
        "label": widgets.Dropdown(options=LABELS, value="covid", **options("finding")),
        "severity": widgets.FloatSlider(0.7, min=0.05, max=1, step=0.05, **options("severity")),
        "scanner": widgets.Dropdown(options=list(SCANNERS), **options("machine")),
        "patient": widgets.IntSlider(0, min=0, max=50, **options("patient")),
        "image": widgets.IntSlider(0, min=0, max=5, **options("image")),
        "outlines": widgets.Checkbox(False, **options("outline the truth")),
    }
    return explorer(controls, _show_body)


@lru_cache(maxsize=64)
def _render(label, scanner, patient, severity, image):
    return render(label, scanner, patient, FILM, severity, image)


def _show_body(label, severity, scanner, patient, image, outlines) -> str:
    made = _render(label, scanner, patient, severity, image)
    shown = outlined(made) if outlines else made.image
    ill = made.lesions.sum() / max(1, made.lungs.sum())
    lesions = f"Lesions cover {ill:.0%} of the lungs." if label != "healthy" else "No lesion."
    severely = f", severity {severity:.2f}" if label != "healthy" else ""
    alt = (
        f"Synthetic film of patient {patient}, image {image}: {label}{severely}, machine "
        f"{scanner}, view {made.view}. {lesions}"
    )
    if outlines:
        alt += " The lungs are outlined in blue, the lesions in orange."
    side = table(["measure", "cm"], _measures(made.anatomy), "Some measures of this body")
    told = words(lesions, "Another finding or machine leaves the body as it is.")
    return beside(picture(shown, alt, SYNTHETIC, 340), side + told)


def _measures(a: dict) -> list[tuple[str, str]]:
    return [
        ("width of the lungs", f"{2 * a['cage']:.1f}"),
        ("chest, front to back", f"{a['thick']:.1f}"),
        ("soft tissue outside the ribs", f"{a['fat']:.1f}"),
        ("diaphragm, lower by", f"{a['breath']:.1f}"),
    ]


def outlined(made) -> np.ndarray:
    """Draw the edges of a phantom's lungs and lesions: (size, size, 3) uint8."""
    import cv2

    colour = np.repeat(made.image[..., None], 3, axis=2)
    for mask, paint in ((made.lungs, LUNGS), (made.lesions, LESIONS)):
        edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(colour, edges, -1, paint, 1)
    return colour


def knob():
    """Turn the confounding from 0 to 1 and watch the machine begin to give the label away.

    Returns
    -------
    ipywidgets.VBox, or a matplotlib figure where nobody can move it
        Its controls are confounding and seed.
    """
    if not is_movable():
        return _static_knob()
    import ipywidgets

    controls = {
        "confounding": ipywidgets.FloatSlider(
            0, min=0, max=1, step=0.05, **options("knob (confounding)")
        ),
        "seed": ipywidgets.IntSlider(0, min=0, max=20, **options("other patients")),
    }
    return explorer(controls, _show_knob)


def _static_knob():
    from cxrlib.style import finish, subplots

    figure, axes = subplots(2, 1, height=3.9)
    for setting, axis in zip((0.0, 1.0), axes, strict=True):
        cohort = _cohort(setting, 0)
        axis.imshow(sheet(cohort), cmap="gray", vmin=0, vmax=255)
        axis.axis("off")
        axis.set_title(f"knob at {setting:g}: {_guessed(by_machine(cohort))}", fontsize=10)
    note = f"Upper row of each: healthy, lower row: covid. {SYNTHETIC} {MOVE_IT}"
    return finish(figure, "", note)


def _guessed(counts) -> str:
    """Say how often the machine alone gives the label: each machine's more frequent one."""
    return f"the machine alone gives {counts.max().sum()} of {counts.to_numpy().sum()} labels"


@lru_cache(maxsize=64)
def _cohort(confounding, seed):
    patients = ACROSS * len(KNOB_LABELS)
    return make_cohort(patients, (1, 1), KNOB_LABELS, confounding, KNOB_SCANNERS, SMALL_FILM, seed)


def sheet(cohort) -> np.ndarray:
    """Lay the films of a cohort out, one row a label, as one image (uint8)."""
    gap = 4
    rows = []
    for label in KNOB_LABELS:
        films = cohort.where(label=label).images[:]
        films = np.pad(films, ((0, 0), (0, gap), (0, gap)), constant_values=255)
        rows.append(np.concatenate(list(films), axis=1))
    return np.concatenate(rows)[:-gap, :-gap]


def _show_knob(confounding, seed) -> str:
    cohort = _cohort(round(confounding, 4), seed)
    counts = by_machine(cohort)
    rows = [
        (label, *(f"{count} ({count / row.sum():.0%})" for count in row))
        for label, row in counts.iterrows()
    ]
    told = "; ".join(
        f"{label}: " + ", ".join(f"{count} {name}" for name, count in row.items() if count)
        for label, row in counts.iterrows()
    )
    alt = (
        f"{len(cohort)} synthetic films with the knob at {confounding:.2f}, upper row healthy, "
        f"lower row covid. Machines: {told}."
    )
    return (
        picture(sheet(cohort), alt, f"Upper row: healthy. Lower row: covid. {SYNTHETIC}", 836)
        + table(["label", *counts.columns], rows, "Machine of these films")
        + words(
            f"Call each film what most films of its machine are, and {_guessed(counts)}.",
            "Half would be chance; on so few films, luck gives a little more.",
        )
    )


def by_machine(cohort):
    """Count the films on the sheet: one row a label, one column a machine (DataFrame of int)."""
    import pandas as pd

    counts = pd.crosstab(cohort.table["label"], cohort.table["scanner"])
    return counts.reindex(index=KNOB_LABELS, columns=KNOB_SCANNERS, fill_value=0)
