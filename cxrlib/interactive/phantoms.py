"""Explorers of the phantoms: one body with its truth, and the knob that gives a label away."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib import plots
from cxrlib.interactive.explorer import MOVE_IT, beside, explorer, options, picture, table, words
from cxrlib.interactive.frontend import is_movable
from cxrlib.phantom import LABELS, SCANNERS, make_cohort, render
from cxrlib.plots import finish, subplots

FILM, SMALL_FILM = 256, 80  # pixels: the one film, and each on the sheet
KNOB_LABELS = ("healthy", "covid")
KNOB_SCANNERS = ("digital", "computed", "film")
ACROSS = 10  # films of a label on the sheet
LUNGS, LESIONS = (86, 180, 233), (230, 159, 0)  # sky blue and orange, as red, green, blue
SYNTHETIC = "Synthetic films (phantoms), not real patients."


def phantoms():
    """Show both explorers of the phantoms, ``anatomy`` above ``knob``."""
    if not is_movable():
        return knob()
    from ipywidgets import HTML, VBox

    heading = '<h2 style="font-size:1.2em;margin:12px 0 0">{}</h2>'
    parts = {"One body": anatomy(), "The knob": knob()}
    return VBox([one for name, part in parts.items() for one in (HTML(heading.format(name)), part)])


def anatomy():
    """Choose a phantom by the controls label, severity, scanner, patient, image and outlines."""
    if not is_movable():
        films = [render(label, size=FILM).image for label in LABELS]
        return plots.image_grid(films, list(LABELS), columns=3, note=f"{SYNTHETIC} {MOVE_IT}")
    from ipywidgets import Checkbox, Dropdown, FloatSlider, IntSlider

    controls = {
        "label": Dropdown(options=LABELS, value="covid", **options("finding")),
        "severity": FloatSlider(0.7, min=0.05, max=1, step=0.05, **options("severity")),
        "scanner": Dropdown(options=list(SCANNERS), **options("machine")),
        "patient": IntSlider(0, max=50, **options("patient")),
        "image": IntSlider(0, max=5, **options("image")),
        "outlines": Checkbox(False, **options("outline the truth")),
    }
    return explorer(controls, _show_body)


def _show_body(label, severity, scanner, patient, image, outlines) -> str:
    made = render(label, scanner, patient, FILM, severity, image)
    is_ill = label != "healthy"
    share = made.lesions.sum() / made.lungs.sum()
    lesions = f"Lesions cover {share:.0%} of the lungs." if is_ill else "No lesion."
    severely = f", severity {severity:.2f}" if is_ill else ""
    alt = (
        f"Synthetic film of patient {patient}, image {image}: {label}{severely}, machine "
        f"{scanner}, view {made.view}. {lesions}"
    )
    if outlines:
        alt += " The lungs are outlined in blue, the lesions in orange."
    body = made.anatomy
    measures = [
        ("width of the lungs", f"{2 * body['cage']:.1f}"),
        ("chest, front to back", f"{body['thick']:.1f}"),
        ("soft tissue outside the ribs", f"{body['fat']:.1f}"),
        ("diaphragm, lower by", f"{body['breath']:.1f}"),
    ]
    side = table(["measure", "cm"], measures, "Some measures of this body")
    told = words(lesions, "Another finding or machine leaves the body as it is.")
    shown = outlined(made) if outlines else made.image
    return beside(picture(shown, alt, SYNTHETIC, 340), side + told)


def outlined(made) -> np.ndarray:
    """Draw the edges of a phantom's lungs and lesions: (size, size, 3) uint8."""
    import cv2

    colour = np.repeat(made.image[..., None], 3, axis=2)
    for mask, paint in ((made.lungs, LUNGS), (made.lesions, LESIONS)):
        edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(colour, edges, -1, paint, 1)
    return colour


def knob():
    """Turn the knob and watch the machine begin to give the label away: confounding, seed."""
    if not is_movable():
        figure, axes = subplots(2, 1, height=3.9)
        for setting, axis in enumerate(axes):
            sheet, counts = _films(setting, 0)
            axis.imshow(sheet, cmap="gray", vmin=0, vmax=255)
            axis.axis("off")
            axis.set_title(f"knob at {setting}: {_guessed(counts)}", fontsize=10)
        note = f"Upper row of each: healthy, lower row: covid. {SYNTHETIC} {MOVE_IT}"
        return finish(figure, "", note)
    from ipywidgets import FloatSlider, IntSlider

    controls = {
        "confounding": FloatSlider(0, min=0, max=1, step=0.05, **options("knob (confounding)")),
        "seed": IntSlider(0, max=20, **options("other patients")),
    }
    return explorer(controls, _show_knob, room=50)


def _films(confounding, seed):
    """Make the films of a setting: one image (uint8), and how many each label has of a machine."""
    patients, gap = ACROSS * len(KNOB_LABELS), 4
    made = make_cohort(patients, (1, 1), KNOB_LABELS, confounding, KNOB_SCANNERS, SMALL_FILM, seed)
    films = np.concatenate([made.where(label=label).images[:] for label in KNOB_LABELS])
    films = np.pad(films, ((0, 0), (0, gap), (0, gap)), constant_values=255)
    rows = np.hstack(films[:ACROSS]), np.hstack(films[ACROSS:])
    counts = pd.crosstab(made.table["label"], made.table["scanner"])
    counts = counts.reindex(index=KNOB_LABELS, columns=KNOB_SCANNERS, fill_value=0)
    return np.vstack(rows)[:-gap, :-gap], counts


def _guessed(counts) -> str:
    """Say how often the machine alone gives the label: its more frequent one."""
    return f"the machine alone gives {counts.max().sum()} of {counts.to_numpy().sum()} labels"


def _show_knob(confounding, seed) -> str:
    sheet, counts = _films(confounding, seed)
    told, rows = [], []
    for label, row in counts.iterrows():
        rows.append((label, *(f"{n} ({n / ACROSS:.0%})" for n in row)))
        told.append(f"{label}: " + ", ".join(f"{n} {name}" for name, n in row.items() if n))
    alt = (
        f"{counts.to_numpy().sum()} synthetic films with the knob at {confounding:.2f}, upper row "
        f"healthy, lower row covid. Machines: {'; '.join(told)}."
    )
    return (
        picture(sheet, alt, f"Upper row: healthy. Lower row: covid. {SYNTHETIC}", 836)
        + table(["label", *counts.columns], rows, "Machine of these films")
        + words(
            f"Call each film what most films of its machine are, and {_guessed(counts)}.",
            "Half would be chance; on so few films, luck gives a little more.",
        )
    )
