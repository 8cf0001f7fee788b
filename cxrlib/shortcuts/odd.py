"""Films unlike the rest of their set: inverted, turned, another view, a slice, a photograph."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd

FEWEST = 30  # films: of fewer nobody can say what is usual
SIDE = 16  # of the thumbnails that are compared
FINE = 24  # of those in which mirrored copies are looked for
SEEN = 400  # films, evenly drawn from the set, that each film is compared with
BLOCK = 256  # films compared at once
SURE = 3.5  # robust standard deviations that an honest film hardly ever goes astray
FAR = 5.0  # robust standard deviations from which a film is unlike the rest
NOT_NEAR = 3.0  # from which a body in the dark is more than a framed film
COMMON = 15  # patterns that the films of a set share
FOLDS = 4  # of patients: patterns learned from a patient say nothing of that patient's films
COPY = 0.935  # detail of mirrored films: others reach 0.93 among phantoms, 0.83 among real ones
BLANK = 0.35  # share of a film in uniform rows and columns at its edges
EVEN = 10  # grey levels between the darkest and the brightest pixel of a uniform row
BLACK = 40  # grey level that no part of a nearly black film exceeds
LATERAL = r"L|LL|RL|LAT|.*LATERAL.*"  # of the column `view`
OTHERS = ("CT", "MR", "US", "MG", "NM", "PT")  # of the column `modality`: no radiograph
TURNS = (  # name, quarter turns, whether mirrored first, whether inverted
    ("as it is", 0, False, False),
    ("mirrored", 0, True, False),
    ("inverted", 0, False, True),
    ("turned by 90°", 1, False, False),
    ("turned by 90°", 3, False, False),
    ("upside down", 2, False, False),
)


def odd_films(cohort) -> pd.DataFrame:
    """Find the films that are unlike the rest of their set, and say why.

    Each film, shrunk to 16 x 16 with and without its surroundings subtracted, is correlated with
    the others, as it is and inverted, turned and mirrored. One that fits the set better when it
    is turned back, by more than chance would have it, is named so: what is usual is learned from
    the set itself (compare Golan and El-Yaniv 2018, arXiv:1805.10917). The others are rebuilt
    from the few patterns that most films share; a film far from them, in robust standard
    deviations (Rousseeuw and Hubert 2011, doi:10.1002/widm.2), is unlike the rest. The columns
    ``view`` and ``modality`` count where they are. What more than half of the films have in
    common is not odd. A heart on the right is weak evidence: most mirrored films are found only
    if the set has the original too, and which of the two is the copy is a guess.

    Parameters
    ----------
    cohort : Cohort
        Of fewer than 30 films none is called odd.

    Returns
    -------
    DataFrame
        A row a film, by label and source: ``image``, ``label``, ``source``, ``reason``, and
        ``score``, its distance from what the films share, in robust standard deviations.
    """
    table = cohort.table
    found = table[["image", "label", "source"]].assign(reason="", score=0.0)
    if len(found) >= FEWEST:
        thumbs, fine, facts = _reduce(cohort)
        features = _features(thumbs)
        usual, margins = _fits(features)
        fold = pd.factorize(table["patient"].fillna(table["image"]))[0] % FOLDS
        if np.bincount(fold).max() > len(fold) / 2:  # nearly all films are of one patient
            fold = np.arange(len(fold)) % FOLDS
        first = _distance(features, usual >= np.quantile(usual, 0.4), fold)
        found["score"] = _distance(features, first <= np.quantile(first, 0.9), fold)
        found["reason"] = _reasons(table, facts, margins, found["score"], _mirrored(fine, margins))
        alone = _distance(features, fold >= 0, fold)  # small where a rare machine made several
        unlike = (found["reason"] == "") & (np.minimum(alone, found["score"]) > FAR)
        found.loc[unlike, "reason"] = "unlike the rest"
    found = found[found["reason"] != ""]
    by = ["label", "source", "score"]
    return found.sort_values(by, ascending=[True, True, False], ignore_index=True)


def odd_by_label(cohort, found: pd.DataFrame) -> pd.DataFrame:
    """Compare each label's share of patients with odd films with that of the other labels.

    `found` is what :func:`odd_films` gave. Columns: ``label``, ``patients``, ``odd``, ``share``,
    ``share of others``, ``p`` (Fisher's exact test for more, times the number of labels).
    """
    from scipy.stats import fisher_exact

    is_odd = cohort.table["image"].isin(found["image"])
    by_patient = is_odd.groupby([cohort.table["label"], cohort.table["patient"]]).any()
    rows = []
    for label in cohort.labels:
        own, rest = by_patient[label], by_patient.drop(label, level="label")
        counts = [[part.sum(), (~part).sum()] for part in (own, rest)]
        p = min(1, fisher_exact(counts, "greater").pvalue * len(cohort.labels))
        rows.append((label, len(own), int(own.sum()), own.mean(), rest.mean(), p))
    return pd.DataFrame(rows, columns=["label", "patients", "odd", "share", "share of others", "p"])


def _reasons(table, facts, margins, score, copies) -> pd.Series:
    """Word for each film why it is odd, or nothing; what is surer comes last and stays."""
    reason = pd.Series("", index=table.index)
    for row, other in copies.items():
        reason[row] = f"mirrored copy of {table['image'].iloc[other]}"
    spread = _spread(margins)
    needed = np.maximum(spread, SURE * spread - np.median(margins, axis=0))
    better = np.where(-margins > needed, -margins, 0)
    turned = better.any(axis=1)
    reason[turned] = np.array([name for name, *_ in TURNS[1:]])[better.argmax(axis=1)][turned]
    told_by = (table.get(name, reason).astype("string") for name in ("view", "modality"))
    view, kind = (text.str.strip().str.upper() for text in told_by)
    afloat = facts["afloat"] & (score > NOT_NEAR) & ~turned
    told = {"blank border": facts["blank"] > BLANK}
    told["dark around the body, as a slice or a photo"] = afloat
    told["nearly black"] = facts["brightest"] < BLACK
    told["lateral view"] = view.str.fullmatch(LATERAL)
    told |= {f"modality {name}": kind == name for name in OTHERS}
    for name, has in told.items():
        has = has.fillna(False).to_numpy(dtype=bool)
        if has.mean() <= 0.5:
            reason[has] = name
    return reason


def _reduce(cohort) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Thumbnails (n, 16, 16), the detail of finer ones (n, 24 * 24), and facts of each film."""
    thumbs = np.empty((len(cohort), SIDE, SIDE), dtype=np.float32)
    fine = np.empty((len(cohort), FINE * FINE), dtype=np.float32)
    facts = []
    for number in range(len(cohort)):
        image = np.ascontiguousarray(cohort.images[number])
        thumbs[number] = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        small = cv2.resize(image, (FINE, FINE), interpolation=cv2.INTER_AREA)
        fine[number] = _unit(_detail(small.astype(np.float32), FINE / 16)[None])
        facts.append(_facts(image, thumbs[number]))
    return thumbs, fine, pd.DataFrame(facts)


def _facts(image, thumb) -> dict:
    """Whether the body floats in the dark, the share in blank borders, and the brightest part."""
    uneven = (image.max(axis=axis) - image.min(axis=axis) > EVEN for axis in (1, 0))
    kept = np.prod([np.ptp(np.flatnonzero(one)) + 1 if one.any() else 0 for one in uneven])
    body = thumb > 0.3 * np.quantile(thumb, 0.95)
    ends = body[[0, -1]].mean(axis=1).max()  # an upright body reaches top and bottom
    afloat = ends < (0.2 if body[[0, 0, -1, -1], [0, -1, 0, -1]].any() else 0.8)
    return {"afloat": afloat, "blank": 1 - kept / image.size, "brightest": thumb.max()}


def _detail(image: np.ndarray, sigma: float) -> np.ndarray:
    """Subtract the surroundings and divide their contrast out."""
    image = image - cv2.GaussianBlur(image, (0, 0), sigma)
    contrast = np.sqrt(cv2.GaussianBlur(image * image, (0, 0), sigma))
    return image / (contrast + 0.05 * contrast.mean() + 1e-3)


def _unit(images):
    """Flatten images so that the scalar product of two is their correlation."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-6)


def _features(thumbs: np.ndarray) -> np.ndarray:
    details = np.stack([_detail(thumb, SIDE / 8) for thumb in thumbs])
    return np.hstack([_unit(thumbs), _unit(details)]) / np.sqrt(2, dtype=np.float32)


def _fits(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median correlation of each film with others, (n,); how much less it is by turn, (n, 5)."""
    seen = features[np.linspace(0, len(features) - 1, min(SEEN, len(features))).astype(int)]
    fits = np.empty((len(features), len(TURNS)), dtype=np.float32)
    for start in range(0, len(features), BLOCK):
        part = features[start : start + BLOCK].reshape(-1, 2, SIDE, SIDE)
        for place, (_, quarters, mirrored, inverted) in enumerate(TURNS):
            made = np.rot90(part[..., ::-1] if mirrored else part, quarters, axes=(2, 3))
            alike = made.reshape(len(part), -1) @ seen.T
            fits[start : start + BLOCK, place] = np.median(-alike if inverted else alike, axis=1)
    return fits[:, 0], fits[:, :1] - fits[:, 1:]


def _spread(values: np.ndarray) -> np.ndarray:
    """Robust standard deviation: 1.4826 times the median absolute deviation."""
    return 1.4826 * np.median(np.abs(values - np.median(values, axis=0)), axis=0).clip(1e-6)


def _distance(features, kept, fold) -> np.ndarray:
    """Distance of each film from patterns that the `kept` films of other patients share."""
    from sklearn.decomposition import PCA

    left = np.empty(len(features))
    for number in np.unique(fold):
        learned, here = features[kept & (fold != number)], fold == number
        model = PCA(min(COMMON, 1 + len(learned) // 8), svd_solver="randomized", random_state=0)
        rebuilt = model.fit(learned).inverse_transform(model.transform(features[here]))
        left[here] = np.linalg.norm(features[here] - rebuilt, axis=1)
    return (left - np.median(left)) / _spread(left)


def _mirrored(fine, margins) -> dict[int, int]:
    """Films that mirror another one: of each pair the one whose heart is less on its side."""
    copies, heart = {}, margins[:, 0]
    for start in range(0, len(fine), BLOCK):
        part = fine[start : start + BLOCK].reshape(-1, FINE, FINE)
        alike = part[:, :, ::-1].reshape(len(part), -1) @ fine.T
        np.fill_diagonal(alike[:, start:], 0)  # itself
        for row in np.flatnonzero(alike.max(axis=1) > COPY):
            other = int(alike[row].argmax())
            if heart[start + row] < heart[other]:
                copies[start + int(row)] = other
    return copies
