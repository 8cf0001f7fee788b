"""An explorer of a trained model: choose or upload a film, see its answer and its heat map."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

import numpy as np

from cxrlib import NOT_CLINICAL
from cxrlib.explorer import MOVE_IT, beside, explorer, is_movable, options, picture, words
from cxrlib.uploads import FORMATS, MOST_BYTES, UploadError, read_upload

MOST_FILMS = 60  # in the list; more are no choice
MOST_ANSWERS = 32  # kept; half a megabyte each
WARNING = f'<p style="font-weight:bold;margin:0">{NOT_CLINICAL}</p>'
OWN = "your file"  # how the names of uploaded films begin


def newest_models() -> Path:
    """Folder of the models of the newest run: ``CXR_RUN``, else the newest under ``runs/``."""
    from cxrlib.results import run_folder

    run = run_folder()
    cards = [] if os.environ.get("CXR_RUN") else [*run.parent.glob("*/models/*/predictor.json")]
    if not cards:
        return run / "models"
    return max(cards, key=lambda card: card.stat().st_mtime).parent.parent


def prediction(models, images=None):
    """Ask a trained model about a film of the cohort or an uploaded one.

    Parameters
    ----------
    models : Predictor or path
        A loaded model; the folder of one, or a folder with a folder for each, as a run
        leaves in ``models/``.
    images : Cohort, optional
        Films to choose from (at most `MOST_FILMS`, evenly spread). A few phantoms by default.

    Returns
    -------
    ipywidgets.VBox, or a matplotlib figure where nobody can move it
        Its controls are model, film, opacity; ``upload`` and ``message`` stand beside them.
        Where there is no model, a sentence that says what to run.
    """
    found = _find(models)
    if not found:
        return _no_model(models)
    films = _films(_phantoms() if images is None else images)
    asker = _Asker(found, films)
    return _make(asker) if is_movable() else _static(asker)


def _find(models) -> dict:
    """Name the models: a loaded one, or the folders of those that were saved."""
    if hasattr(models, "heat_maps"):
        return {models.provenance.get("notebook", "model"): models}
    folder = Path(models)
    cards = [*folder.glob("predictor.json"), *sorted(folder.glob("*/predictor.json"))]
    return {card.parent.name: card.parent for card in cards}


def _no_model(folder):
    told = (
        f"There is no trained model in {folder}. Run lesson 3 (03_custom_cnn.ipynb) or the whole "
        "course (make course), then this again."
    )
    if not is_movable():
        return told
    import ipywidgets

    return ipywidgets.HTML(WARNING + words(told))


def _phantoms():
    from cxrlib.phantom import make_cohort

    return make_cohort(patients=9, images_per_patient=(1, 1), seed=7)


def _films(cohort) -> dict:
    """Name some films of a cohort: name -> (grey image, what its set says about it)."""
    chosen = np.unique(np.linspace(0, len(cohort) - 1, min(MOST_FILMS, len(cohort))).astype(int))
    table, films = cohort.table, {}
    for row in chosen:
        label = str(table["label"].iloc[row])
        synthetic = str(table["source"].iloc[row]).startswith("phantom")
        about = f"Its set calls it {label}." + (" The film is synthetic." if synthetic else "")
        films[f"{table['image'].iloc[row]} ({label})"] = (cohort.images[int(row)], about)
    return films


class _Asker:
    """Loads models when they are first asked, and remembers answers: a heat map takes seconds."""

    def __init__(self, models: dict, films: dict):
        self.models, self.films, self.answers = dict(models), dict(films), {}

    def answer(self, model: str, film: str):
        from cxrlib import predictor

        if (model, film) not in self.answers:
            if isinstance(self.models[model], Path):
                self.models[model] = predictor.load(self.models[model])
            if len(self.answers) >= MOST_ANSWERS:
                del self.answers[next(iter(self.answers))]  # the oldest
            self.answers[model, film] = self.models[model].predict(self.films[film][0])
        return self.answers[model, film]

    def add(self, name: str, image) -> str:
        """Put an uploaded film in the place of the one before."""
        self.films = {key: film for key, film in self.films.items() if not key.startswith(OWN)}
        self.answers = {key: said for key, said in self.answers.items() if key[1] in self.films}
        self.films[f"{OWN}: {name}"] = (image, "Your file: nobody told what it shows.")
        return f"{OWN}: {name}"


def _make(asker):
    """Build the widget."""
    import ipywidgets as widgets

    state = {"busy": False, "html": ""}
    # Its line is kept free: an answer must not jump when a message comes and goes
    message = widgets.HTML(layout={"min_height": "44px"})

    def draw(model, film, opacity):
        if not state["busy"]:
            asking = f"Asking {model}: this can take seconds. Below stands the answer before."
            message.value = "" if (model, film) in asker.answers else _told(asking)
            try:
                answer = asker.answer(model, film)
                about = asker.films[film][1]
                state["html"] = _show_answer(answer, model, film, about, opacity)
                message.value = ""
            except (
                Exception
            ) as error:  # whatever it is, nobody in front of an app reads a traceback
                state["html"] = ""
                message.value = _told(f"The model gave no answer. {error}", bad=True)
        return state["html"]

    upload = widgets.FileUpload(
        accept=FORMATS, multiple=False, description="Upload a film", layout={"width": "15em"}
    )
    controls = {
        "model": widgets.Dropdown(options=list(asker.models), **options("model")),
        "film": widgets.Dropdown(options=list(asker.films), **options("film")),
        "opacity": widgets.FloatSlider(
            0.4, min=0, max=1, step=0.05, **options("opacity of the heat")
        ),
    }
    hint = f"PNG, JPEG or DICOM, at most {MOST_BYTES // 10**6} MB."
    row = widgets.HBox([upload, widgets.HTML(words(hint))], layout={"flex_flow": "row wrap"})
    box = explorer(controls, draw, above=WARNING, more=[row, message])
    box.upload, box.message = upload, message

    def on_upload(change):
        if not change["new"]:
            return
        try:
            name, image = read_upload(change["new"])
        except UploadError as error:
            message.value = _told(str(error), bad=True)
            return
        state["busy"] = True  # a new list selects its first film for a moment
        key = asker.add(name, image)
        controls["film"].options = list(asker.films)
        controls["film"].value = key
        state["busy"] = False
        box.redraw()

    upload.observe(on_upload, "value")
    return box


def overlay(image: np.ndarray, heat: np.ndarray, opacity: float) -> np.ndarray:
    """Lay a heat map (0 to 1) over a grey image: (height, width, 3) uint8, red, green, blue."""
    import cv2

    colour = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.rint(image[..., None] * (1 - opacity) + colour * opacity).astype(np.uint8)


def _show_answer(answer, model, film, about, opacity) -> str:
    where = _where(answer.heat_map)
    said = ", ".join(f"{name} {p:.0%}" for name, p in answer.probabilities.items())
    alt = f"{film}, with a heat map at {opacity:.0%} opacity: {where}. {model} says: {said}."
    bars = "".join(_bar(name, p) for name, p in answer.probabilities.items())
    told = [about, f"Heat for {answer.label}: {where}.", *answer.warnings]
    style = "border-collapse:collapse;line-height:1.6;overflow-wrap:anywhere"
    # Named, because another may be chosen already while this answer still stands
    who = f'<caption style="text-align:left">{escape(model)} says</caption>'
    right = f'<table style="{style}">{who}{bars}</table>' + "".join(words(line) for line in told)
    return beside(
        picture(overlay(answer.image, answer.heat_map, opacity), alt, film, 340),
        right,
    )


def _bar(name: str, p: float) -> str:
    bar = f"display:inline-block;height:1em;background:#0072B2;width:{max(p, 0.004) * 8:.2f}em"
    return (
        f'<tr><th scope="row" style="text-align:left;padding-right:10px">{escape(name)}</th>'
        f'<td style="text-align:right;padding-right:10px">{p:.1%}</td>'
        f'<td style="width:8em"><span style="{bar}"></span></td></tr>'
    )


def _where(heat: np.ndarray) -> str:
    """Say in words where a heat map is hottest."""
    if not heat.any():
        return "no heat anywhere"
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    down = ("upper", "middle", "lower")[min(2, 3 * row // heat.shape[0])]
    across = ("left", "centre", "right")[min(2, 3 * column // heat.shape[1])]
    return f"hottest in the {down} {across} of the picture"


def _told(text: str, bad: bool = False) -> str:
    kind = (
        'role="alert" style="color:#8b0000;background:#fdecea' if bad else 'role="status" style="'
    )
    return f'<p {kind};padding:6px;margin:4px 0;line-height:1.4">{escape(text)}</p>'


def _static(asker):
    from cxrlib import plots

    model, film = next(iter(asker.models)), next(iter(asker.films))
    answer = asker.answer(model, film)
    said = ", ".join(f"{name} {p:.2f}" for name, p in answer.probabilities.items())
    note = " ".join([asker.films[film][1], *answer.warnings, MOVE_IT])
    return plots.heat_map(answer.image, answer.heat_map, f"{model} on {film}: {said}", note)
