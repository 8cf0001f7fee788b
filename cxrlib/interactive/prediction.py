"""An explorer of a trained model: choose or upload a film, see its answer and its heat map."""

from __future__ import annotations

import os
import tempfile
from html import escape
from pathlib import Path

import numpy as np

from cxrlib import NOT_CLINICAL, plots, predictor, results
from cxrlib.images import ImageError, read
from cxrlib.interactive.explorer import MOVE_IT, beside, explorer, message, options, picture, words
from cxrlib.interactive.forms import Line
from cxrlib.interactive.frontend import is_movable
from cxrlib.phantom import make_cohort

FORMATS = ".png,.jpg,.jpeg,.dcm,.dicom,.tif,.tiff,.bmp,.webp,.gif"
MOST_BYTES = 8_000_000  # Jupyter's server takes messages of 10 MB at most
MOST_FILMS = 60  # in the list; more are no choice
LONGEST = 512  # pixels of a shown film's longer side
WARNING = f'<p style="font-weight:bold;margin:0">{NOT_CLINICAL}</p>'


def newest_models() -> Path:
    """Folder of the models of the newest run: ``CXR_RUN``, else the newest under ``runs/``."""
    run = results.run_folder()
    cards = [] if os.environ.get("CXR_RUN") else [*run.parent.glob("*/models/*/predictor.json")]
    if not cards:
        return run / "models"
    return max(cards, key=lambda card: card.stat().st_mtime).parent.parent


def prediction(models, images=None):
    """Ask a trained model about a film of the cohort or an uploaded one.

    Parameters
    ----------
    models : Predictor or path
        A loaded model; the folder of one, or a folder with a folder for each (a run's
        ``models/``). Where there is none, a sentence says what to run.
    images : Cohort, optional
        Films to choose from (at most `MOST_FILMS`, evenly spread). A few phantoms by default.

    Returns
    -------
    ipywidgets.VBox, or a matplotlib figure where nobody can move it
        Its controls are model, film, opacity; ``upload`` and ``message`` stand beside them.
    """
    if isinstance(models, predictor.Predictor):
        found = {models.provenance.get("notebook", "model"): models}
    else:
        folder = Path(models)
        cards = [*folder.glob("predictor.json"), *sorted(folder.glob("*/predictor.json"))]
        found = {card.parent.name: card.parent for card in cards}
    if not found:
        return Line(
            f"{NOT_CLINICAL} There is no trained model in {models}. Run lesson 3 "
            "(03_custom_cnn.ipynb) or the whole course (make course), then this again."
        )
    if images is None:
        images = make_cohort(patients=9, images_per_patient=(1, 1), seed=7)
    asker = _Asker(found, images)
    return _make(asker) if is_movable() else _static(asker)


class _Asker:
    """Models by name, films by name (image, what is known), and the answers, which take seconds."""

    def __init__(self, models: dict, cohort):
        self.models, self.films, self.answers, self.own = models, {}, {}, None
        for row in np.unique(np.linspace(0, len(cohort) - 1, MOST_FILMS).astype(int)):
            facts = cohort.table.iloc[row]
            synthetic = str(facts["source"]).startswith("phantom")
            about = f"Its set calls it {facts['label']}." + " The film is synthetic." * synthetic
            self.films[f"{facts['image']} ({facts['label']})"] = (cohort.images[int(row)], about)

    def answer(self, model: str, film: str):
        if (model, film) not in self.answers:
            if isinstance(self.models[model], Path):
                self.models[model] = predictor.load(self.models[model])
            self.answers[model, film] = self.models[model].predict(self.films[film][0])
        return self.answers[model, film]

    def add(self, name: str, image) -> str:
        """Put an uploaded film in the place of the one before."""
        self.answers.clear()
        self.films.pop(self.own, None)
        self.own = f"your file: {name}"
        self.films[self.own] = (image, "Your file: nobody told what it shows.")
        return self.own


def _make(asker):
    from ipywidgets import HTML, Dropdown, FileUpload, FloatSlider, HBox

    # Its line is kept free: an answer must not jump when a message comes and goes
    told = HTML(layout={"min_height": "44px"})

    def draw(model, film, opacity):
        if (model, film) not in asker.answers:
            asking = f"Asking {model}: this can take seconds. Below stands the answer before."
            told.value = message(asking)
        try:
            shown = _show_answer(asker, model, film, opacity)
        except Exception as error:  # whatever it is, nobody in front of an app reads a traceback
            told.value = message(f"The model gave no answer. {error}", bad=True)
            return ""
        told.value = ""
        return shown

    model = Dropdown(options=list(asker.models), **options("model"))
    film = Dropdown(options=list(asker.films), **options("film"))
    opacity = FloatSlider(0.4, min=0, max=1, step=0.05, **options("opacity of the heat"))
    controls = {"model": model, "film": film, "opacity": opacity}
    upload = FileUpload(accept=FORMATS, description="Upload a film", layout={"width": "15em"})
    hint = HTML(words(f"PNG, JPEG, TIFF, WebP, GIF or DICOM, at most {MOST_BYTES // 10**6} MB."))
    row = HBox([upload, hint], layout={"flex_flow": "row wrap"})
    box = explorer(controls, draw, above=WARNING, more=[row, told])
    box.upload, box.message = upload, told

    def on_upload(change):
        if not change["new"]:  # nothing was chosen
            return
        try:
            key = asker.add(*read_upload(change["new"]))
        except ImageError as error:
            told.value = message(str(error), bad=True)
            return
        film.unobserve(box.redraw, "value")  # a new list selects its first film for a moment
        film.options = list(asker.films)
        film.value = key
        film.observe(box.redraw, "value")
        box.redraw()

    upload.observe(on_upload, "value")
    return box


def read_upload(value) -> tuple[str, np.ndarray]:
    """Read what a FileUpload holds, of ipywidgets 7 (a dict by name) or 8 (a tuple of dicts).

    Gives the name, which is a stranger's, with what is odd about the film, and the image, (height,
    width) uint8. A file that is too large or no usable image is an ImageError that names it.
    """
    seven = isinstance(value, dict)
    name, entry = list(value.items())[-1] if seven else (value[-1]["name"], value[-1])
    content = bytes(entry["content"])
    if len(content) > MOST_BYTES:
        raise ImageError(
            f"{name}: {len(content) / 1e6:.1f} MB is more than {MOST_BYTES // 10**6} MB. "
            "Save it smaller, or as PNG."
        )
    suffix = ".dcm" if Path(name).suffix.lower() in {".dcm", ".dicom"} else ".film"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"film{suffix}"  # never the browser's name
        path.write_bytes(content)
        try:
            grey, *_, notes = read(path)
            return " - ".join([name, *notes]), grey
        except ImageError as error:
            raise ImageError(str(error).replace(str(path), name)) from error


def overlay(image: np.ndarray, heat: np.ndarray, opacity: float) -> np.ndarray:
    """Lay a heat map (0 to 1) over a grey image: (height, width, 3) uint8, red, green, blue.

    The image keeps its proportions, at most `LONGEST` pixels long; the heat is stretched over it.
    """
    import cv2

    factor = min(1, LONGEST / max(image.shape))
    height, width = (max(1, round(side * factor)) for side in image.shape)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    heat = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)
    colour = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.rint(image[..., None] * (1 - opacity) + colour * opacity).astype(np.uint8)


def _show_answer(asker, model, film, opacity) -> str:
    answer = asker.answer(model, film)
    where = _where(answer.heat_map)
    said = ", ".join(f"{name} {p:.0%}" for name, p in answer.probabilities.items())
    alt = f"{film}, with a heat map at {opacity:.0%} opacity: {where}. {model} says: {said}."
    bars = "".join(
        f'<tr><th scope="row" style="text-align:left">{escape(name)}</th><td>{p:.1%}</td>'
        f'<td><meter value="{p:.3f}" aria-hidden="true"></meter></td></tr>'
        for name, p in answer.probabilities.items()
    )
    image, about = asker.films[film]
    told = [about, f"Heat for {answer.label}: {where}.", *answer.warnings]
    if image.shape[0] != image.shape[1]:
        told.insert(1, "The model saw it squeezed to a square, as it was trained.")
    # Named, because another may be chosen already while this answer still stands
    who = f'<caption style="text-align:left">{escape(model)} says</caption>'
    right = f'<table style="line-height:1.6;overflow-wrap:anywhere">{who}{bars}</table>'
    seen = picture(overlay(image, answer.heat_map, opacity), alt, film, 340)
    return beside(seen, right + "".join(map(words, told)))


def _where(heat: np.ndarray) -> str:
    """Say in words where a heat map is hottest."""
    if not heat.any():
        return "no heat anywhere"
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    down = ("upper", "middle", "lower")[min(2, 3 * row // heat.shape[0])]
    across = ("left", "centre", "right")[min(2, 3 * column // heat.shape[1])]
    return f"hottest in the {down} {across} of the picture"


def _static(asker):
    model, film = next(iter(asker.models)), next(iter(asker.films))
    answer = asker.answer(model, film)
    said = ", ".join(f"{name} {p:.2f}" for name, p in answer.probabilities.items())
    note = " ".join([asker.films[film][1], f"Heat for {answer.label}.", *answer.warnings, MOVE_IT])
    return plots.heat_map(asker.films[film][0], answer.heat_map, f"{model} on {film}: {said}", note)
