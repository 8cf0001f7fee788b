"""Compute what the explorers of the page `Play` show, and draw their stills.

    python docs/explorers/make.py           all of them, in some minutes
    python docs/explorers/make.py knob      one of: threshold, knob, split

Writes NAME.json and NAME.png beside this file, and the sheets of films of the knob as WebP. Every
film is synthetic; all seeds are 0.
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrlib import explain, phantom, plots, results, training
from cxrlib import split as parts_of
from cxrlib.cohort import Cohort
from cxrlib.machine import one_thread
from cxrlib.plots import style
from cxrlib.shortcuts import knob as experiment
from cxrlib.shortcuts import views

HERE = Path(__file__).resolve().parent
REFERENCE = HERE.parents[1] / "data" / "reference"
LEVELS = [round(0.1 * step, 1) for step in range(11)]
SIDE = 160  # pixels of a film on a sheet


def threshold() -> tuple[dict, object]:
    """Give the recorded answers of Model 2 under the clean protocol, and their curves."""
    one = results.load(REFERENCE, "04_resnet50")
    test = one.predictions.query("protocol == 'clean'")
    ill, p = (test["label"] == "covid").astype(int), test["p_covid"]
    note = f"Not comparable with the paper: {one.why_not_comparable}."
    figure = plots.threshold_curves(ill, p, 0.5, f"{one.model}, clean protocol", note)
    people = test["patient"].factorize()[0].tolist()
    return {"note": note, "ill": ill.tolist(), "p": p.tolist(), "patient": people}, figure


def knob(levels=LEVELS) -> tuple[dict, object]:
    """Train the small network of lesson 9 at each level, and draw a sheet of what speaks to it."""
    seen = []
    found = experiment.knob(levels, look=lambda *both: seen.append(evidence(*both)))
    end = np.quantile(np.abs([speaks for _, speaks, _ in seen]), 0.995)  # one scale for all
    for level, (films, speaks, _) in zip(levels, seen, strict=True):
        write_sheet(HERE / f"knob-{round(100 * level):03}.webp", films, speaks / end)
    told = found[["level", *KEPT]].astype(float).round(4)
    note = (
        f"Synthetic images (phantoms); {found['patients'][0]} patients train each network and "
        f"{found['test_patients'][0]} others test it. One network a setting, seed 0."
    )
    answers = [np.round(said, 3).tolist() for _, _, said in seen]
    data = {"note": note, "answers": answers} | told.to_dict("list")
    return data, plots.knob_curves(found)


KEPT = [
    *(f"auc_{place}{end}" for place in ("inside", "new") for end in ("", "_low", "_high")),
    *("places_inside", "area_inside", "finding"),
]


def evidence(model, cohort, each: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Films of the first patients of both labels, what speaks at each place, what is said.

    Films (6, side, side), uint8; what each place of the last maps (6, h, w) adds to the logit of
    the second label (HiResCAM: with the output's bias, the sum is the logit); probabilities (6,).
    """
    import keras

    truth = cohort.targets(experiment.LABELS)
    first = np.concatenate([np.flatnonzero(truth == label)[:each] for label in (0, 1)])
    films = cohort.images[:][first]
    base, tail = explain.split_at_last_convolution(model)
    maps = keras.ops.convert_to_numpy(base(films[..., None].astype(np.float32)))
    speaks = (maps * explain.gradients(tail, maps, 1)).sum(axis=-1)
    return films, speaks, training.predict(model, films)[:, 1]


def write_sheet(path: Path, films, speaks) -> None:
    """Lay films in two rows, what speaks for COVID-19 in vermillion, against it in blue."""
    tiles, large = [], explain.enlarge(np.clip(speaks, -1, 1), SIDE)
    for film, told in zip(films, large, strict=True):
        grey = cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR).astype(float)
        paint = np.where(told[..., None] > 0, *map(_rgb, (style.VERMILLION, style.BLUE)))
        cover = 0.85 * np.abs(told[..., None])
        tiles.append((1 - cover) * grey[..., None] + cover * paint)
    rows = np.concatenate(np.split(np.stack(tiles), 2), axis=1)  # (3, 2 * side, side, 3)
    sheet = np.concatenate(rows, axis=1).round().astype(np.uint8)
    cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 70])


def _rgb(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def split() -> tuple[dict, object]:
    """Deal films, or patients, into training and test; score what a plain classifier learns."""
    whole = phantom.make_cohort(40, (4, 4), experiment.LABELS, 0.0, size=96, seed=0)
    seen = views.features(whole)
    place = whole.table.groupby("patient").cumcount()
    dealt, scores = {}, {}
    for each, labels, way in product((1, 2, 3, 4), ("true", "shuffled"), WAYS):
        part = whole.take(np.flatnonzero(place < each))
        deals = [one_deal(part, seen[place < each], labels, way, deal) for deal in range(DEALS)]
        name = f"{each} {labels} {way}"
        dealt[name] = ["".join(map(str, tested.astype(int))) for tested, _ in deals]
        scores[name] = [round(score, 4) for _, score in deals]
    people = part.table.drop_duplicates("patient")["label"].eq("covid").astype(int).tolist()
    data = {"note": DEALT, "ill": people, "dealt": dealt, "scores": scores}
    return data, draw_scores(scores)


WAYS = {"films": parts_of.by_image, "patients": parts_of.by_patient}
DEALS = 20
DEALT = (
    "Synthetic images (phantoms) of 40 patients; a logistic regression on brightness and detail of "
    "24 x 24 squares; a fifth for testing; seeds 0 to 19."
)


def one_deal(part, described, labels: str, way: str, deal: int) -> tuple[np.ndarray, float]:
    """Say which films are tested (bool), and the share of them that is called right.

    Labels are the 'true' ones, or 'shuffled' among patients, who keep one on all their films.
    """
    table = part.table.assign(row=np.arange(len(part)))
    if labels == "shuffled":
        first = table.drop_duplicates("patient").set_index("patient")["label"]
        anew = np.random.default_rng([deal, 1]).permutation(first.to_numpy())
        table["label"] = table["patient"].map(dict(zip(first.index, anew, strict=True)))
    test = WAYS[way](Cohort(table, part.images), seed=deal).test.table["row"]
    tested, truth = np.isin(table["row"], test), table["label"].to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with one_thread():
        model.fit(described[~tested], truth[~tested])
        return tested, float(model.score(described[tested], truth[tested]))


def draw_scores(scores):
    """Draw the still: each deal's score, by films a patient, by what was dealt, by labels."""
    figure, axes = style.subplots(1, 2, sharey=True)
    look = {"films": (style.VERMILLION, -0.1), "patients": (style.BLUE, 0.1)}
    for axis, labels in zip(axes, ("true", "shuffled"), strict=True):
        for (way, (colour, aside)), each in product(look.items(), (1, 2, 3, 4)):
            mine, x = scores[f"{each} {labels} {way}"], each + aside
            named = {"label": f"{way} dealt (bar: mean)"} if each == 1 else {}
            axis.plot([x] * DEALS, mine, "o", color=colour, alpha=0.3, markersize=4)
            axis.plot(x, np.mean(mine), "_", color=colour, markersize=18, **named)
        axis.axhline(0.5, linestyle=":", color=style.GREY)
        axis.set(xlabel="films of each patient", ylim=(0, 1.03), xticks=[1, 2, 3, 4])
        axis.set_title(f"{labels} labels", fontsize=10)
    axes[0].set_ylabel("accuracy on the test films")
    return style.finish(figure, "20 deals of films, and of patients", DEALT, True, axes[0])


EXPLORERS = {make.__name__: make for make in (threshold, knob, split)}


def main(names) -> None:
    """Make the explorers of these names, or all."""
    for name in names or EXPLORERS:
        data, figure = EXPLORERS[name]()
        figure.savefig(HERE / f"{name}.png", dpi=110, bbox_inches="tight")
        text = json.dumps(data, separators=(",", ":"))
        (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
