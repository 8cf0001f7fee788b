"""Films and patients that occur more than once."""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort
from cxrlib.machine import one_thread
from cxrlib.parallel import cluster, share
from cxrlib.shortcuts import likeness

CLOSE, VERY = 0.65, 0.85  # correlation of aligned thumbnails from which two films are compared
PAIRS = 64  # that one task compares
ENOUGH = 1000  # films, or little more, that tell what all films share


def near_duplicates(cohort, threshold: float = likeness.ALIKE) -> pd.DataFrame:
    """Find images that are the same film, though people or programs have changed the copy.

    Found are copies that are recompressed, resized, framed, inverted, mirrored, stamped on,
    brighter, of another contrast (also locally: CLAHE), a little noisy, or cropped to no less
    than about 85 % of the side; docs/audit/README.md tells how many of each. Turned films,
    stronger crops and strong noise are not.

    Films are searched by their thumbnails, the most similar ones are aligned at 64 x 64 pixels,
    and the best of these compared at 128 x 128 (``likeness``).

    Parameters
    ----------
    cohort : Cohort
    threshold : float
        Similarity from which two images count as one film: 1 less the distance of their detail,
        scaled so that strangers among the phantoms, whose bones and vessels have one shape,
        stay under 0.92; those among real films that we have seen stay under 0.85.

    Returns
    -------
    DataFrame
        A row a pair, most similar first: ``image``, ``other``, ``similarity`` (1 where exact),
        ``same patient``, ``same label`` (NA where unknown), ``exact`` (identical pixels),
        ``how`` ('', 'mirrored', 'inverted' or both). Of several identical images each is paired
        with the first of them only.
    """
    small, boxes, first = _reduce(cohort)
    unique = np.flatnonzero(first == np.arange(len(first)))
    pairs = likeness.candidates(small, boxes, unique)
    moves = likeness.starts(pairs)
    done = _each(likeness.align_all, pairs, moves, lambda films: (small[films], boxes[films]))
    alike = np.concatenate([[], *(found for found, _ in done)])
    moves = np.concatenate([moves[:0], *(found for _, found in done)])
    patient = pd.factorize(cohort.table["patient"])[0]
    closest = _closest(pairs, alike, patient[pairs["one"]] == patient[pairs["other"]])
    pairs, moves = pairs.iloc[closest].copy(), moves[closest]
    moves[:, :, 2] *= likeness.FINE / likeness.COARSE
    shared = likeness.shared_by_all(small[unique[:: len(unique) // ENOUGH or 1]])
    compare = partial(likeness.compare_all, shared=shared)
    alike = np.concatenate([[], *_each(compare, pairs, moves, partial(_fine, cohort.images))])
    turned = np.array(["", "mirrored", "inverted", "mirrored, inverted"])
    pairs["how"] = turned[pairs["mirrored"] + 2 * pairs["inverted"]]
    pairs[["one", "other"]] = np.sort(pairs[["one", "other"]], axis=1)
    found = pairs.assign(similarity=alike, exact=False)[alike >= threshold]
    copies = np.setdiff1d(np.arange(len(first)), unique)
    exact = {"one": first[copies], "other": copies, "similarity": 1.0, "exact": True, "how": ""}
    found = pd.concat([pd.DataFrame(exact), found])[["one", "other", "similarity", "exact", "how"]]
    found = found.sort_values(["similarity", "one", "other"], ascending=[False, True, True])
    one, other = (cohort.table.iloc[found.pop(side)] for side in ("one", "other"))
    one, other, found = (each.reset_index(drop=True) for each in (one, other, found))
    found.insert(0, "image", one["image"])
    found.insert(1, "other", other["image"])
    for place, column in ((3, "patient"), (4, "label")):
        same = (one[column] == other[column]).astype("boolean")
        found.insert(place, f"same {column}", same.mask(one[column].isna() | other[column].isna()))
    return found


def patients_in_two_classes(cohort) -> pd.DataFrame:
    """List patients whose images have several labels: ``patient``, ``labels``, ``images``.

    It can be true (a disease comes and goes) or a mistake; a split by patient keeps either safe.
    """
    known = cohort.table.dropna(subset=["patient", "label"])
    grouped = known.groupby("patient", sort=True)["label"]
    table = grouped.agg(labels=lambda found: ", ".join(sorted(set(found))), images="size")
    return table[grouped.nunique() > 1].reset_index()


def split_overlap(cohort, pairs: pd.DataFrame) -> pd.DataFrame:
    """Find what stands on two sides of the split that the table's column ``split`` names.

    `pairs` are what :func:`near_duplicates` found. The columns are ``kind`` ('patient', 'origin'
    or 'near-duplicate'), ``name``, ``sides``, ``images``.
    """
    side = cohort.table.set_index("image")["split"]
    groups = [
        (kind, name, found)
        for kind in ("patient", "origin")
        for name, found in cohort.table.groupby(kind)["split"]
    ]
    for one, other in zip(pairs["image"], pairs["other"], strict=True):
        groups.append(("near-duplicate", f"{one} ~ {other}", side[[one, other]]))
    rows = [
        (kind, name, ", ".join(sorted(map(str, set(found.dropna())))), len(found))
        for kind, name, found in groups
        if found.nunique() > 1
    ]
    return pd.DataFrame(rows, columns=["kind", "name", "sides", "images"])


def together(cohort, pairs: pd.DataFrame):
    """Give images that are copies of each other one patient, so that no fold divides them.

    `pairs` are what :func:`near_duplicates` found. In the new cohort only patients' names differ.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    patients, names = pd.factorize(cohort.table["patient"])
    of_image = dict(zip(cohort.table["image"], patients, strict=True))
    first = pairs["image"].map(of_image).to_numpy(dtype=int)
    second = pairs["other"].map(of_image).to_numpy(dtype=int)
    links = coo_matrix((np.ones(len(pairs)), (first, second)), shape=(len(names), len(names)))
    _, group = connected_components(links, directed=False)
    leader = names[pd.Series(group).drop_duplicates().index]
    table = cohort.table.assign(patient=leader[group[patients]])
    return Cohort(table, cohort.images, cohort.name, cohort.masks)


def _reduce(cohort) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """See the images at 64 x 64, and number for each the first one with the same pixels."""
    side = likeness.COARSE
    small = np.empty((len(cohort), side, side), dtype=np.uint8)
    boxes, pixels = np.empty((len(cohort), 4), dtype=int), [b""] * len(cohort)

    def read(number):
        image = np.ascontiguousarray(cohort.images[number])
        small[number], boxes[number] = likeness.see(image, side)
        pixels[number] = hashlib.sha256(image).digest()

    share(read, len(cohort))
    seen: dict[bytes, int] = {}
    return small, boxes, np.array([seen.setdefault(each, n) for n, each in enumerate(pixels)])


def _closest(pairs, alike, same_patient) -> np.ndarray:
    """Choose the rows of pairs of which neither film has a closer one; if VERY close, either.

    A patient's own films are alike, so they are ranked for themselves.
    """
    order = np.argsort(-alike, kind="stable")
    order = order[alike[order] >= CLOSE]
    ends = pairs[["one", "other"]].to_numpy()[order]
    groups = [ends.ravel(), np.repeat(same_patient[order], 2)]
    first = pd.Series(ends.ravel()).groupby(groups).cumcount().to_numpy().reshape(-1, 2) == 0
    very = first.any(axis=1) & (alike[order] >= VERY)
    return np.sort(order[first.all(axis=1) | very])


def _fine(images, numbers) -> tuple[np.ndarray, np.ndarray]:
    """See the images of these numbers at 128 x 128."""
    films = np.empty((len(numbers), likeness.FINE, likeness.FINE), dtype=np.uint8)
    boxes = np.empty((len(numbers), 4), dtype=int)

    def read(place):
        image = np.ascontiguousarray(images[numbers[place]])
        films[place], boxes[place] = likeness.see(image, likeness.FINE)

    share(read, len(numbers))
    return films, boxes


def _each(function, pairs, moves, look) -> list:
    """Hand pairs of films, the second one turned like the first, to a function, some at a time.

    ``look(numbers)`` gives films and boxes; so few are made at once that no memory grows with the
    number of pairs.
    """
    mirrored, inverted = pairs["mirrored"].to_numpy(), pairs["inverted"].to_numpy()
    in_place, ends = pairs["window"].to_numpy() < 0, pairs[["one", "other"]].to_numpy()

    def task(start):
        some = slice(start, start + PAIRS)
        numbers, place = np.unique(ends[some], return_inverse=True)
        films, boxes = look(numbers)
        one, other = place.reshape(-1, 2).T
        others, other_boxes = films[other], boxes[other]
        turned = mirrored[some]
        others[turned], other_boxes[turned] = likeness.mirror(others[turned], other_boxes[turned])
        others[inverted[some]] ^= 255
        return films[one], boxes[one], others, other_boxes, moves[some], in_place[some]

    tasks = map(task, range(0, len(pairs), PAIRS))
    with one_thread():
        return cluster.collect(function, tasks, "near-duplicates", progress=False)
