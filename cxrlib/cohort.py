"""What an image set is: one table row an image, and the images, aligned.

Every source of the course (phantoms, open collections, CheXpert, a folder) gives a
:class:`Cohort`, so that every lesson works on all of them.
"""

from __future__ import annotations

import mmap

import numpy as np
import pandas as pd

COLUMNS = ("image", "label", "patient", "source", "view", "licence")
FORGET = getattr(mmap, "MADV_DONTNEED", None)  # not on Windows
LARGE = 2**28  # bytes of a mapped file from which pages that were read are let go
SIDE = 300  # pixels; the paper stores 300 x 300 images (section IV.A)


class CohortError(ValueError):
    """A cohort that contradicts itself, or a selection that cannot be made from it."""


class Rows:
    """Some rows of an image array, by default all, read only when asked for.

    Of an array such as a memory map (n, height, width), indexing reads just the images named.
    """

    def __init__(self, array, rows=None):
        if isinstance(array, Rows):
            rows = array.rows if rows is None else array.rows[rows]
            array = array.array
        self.array = array
        self.rows = np.arange(len(array)) if rows is None else np.asarray(rows, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, height, width."""
        return (len(self.rows), *self.array.shape[1:])

    @property
    def dtype(self):
        """Type of a pixel."""
        return self.array.dtype

    def __getitem__(self, key) -> np.ndarray:
        """Read one image (int) or a stack of images (slice, list, array or mask)."""
        pages = getattr(self.array, "base", None)
        large = isinstance(pages, mmap.mmap) and self.array.nbytes >= LARGE
        if large and self.array.mode == "r" and FORGET is not None:
            pages.madvise(FORGET)  # what was read before, or all of the file counts as memory
        return np.asarray(self.array[self.rows[key]])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


class Cohort:
    """Images and what is known about each of them.

    Invariant: row i of ``table`` describes ``images[i]``, and the same row of every mask. A
    CohortError says if table and images contradict each other, or the table itself.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an image, with the columns ``image`` (a unique name), ``label`` (NaN where it
        is not known, never a made-up class), ``patient``, ``source``, ``view`` and ``licence``;
        more are welcome: ``sex`` (F or M) and ``age`` (years, float) where the source tells
        them, NaN where it does not. ``origin`` (the image that an augmented copy was made from) is
        added where it is missing.
    images : array_like, shape (n, height, width), uint8
        Grey values from 0 (black) to 255 (white): an ndarray, a memory map or :class:`Rows`.
    name : str
        What the cohort is called in tables and figures.
    masks : dict of str to array_like, shape (n, height, width), bool
        Where the truth is known (phantoms): ``lungs`` and ``lesions``.
    """

    def __init__(self, table: pd.DataFrame, images, name: str = "cohort", masks=None):
        missing = [column for column in COLUMNS if column not in table]
        if missing:
            raise CohortError(f"{name}: the table lacks the column(s) {', '.join(missing)}.")
        if len(table) != len(images):
            raise CohortError(f"{name}: {len(table)} table rows for {len(images)} images.")
        if table["image"].duplicated().any():
            twice = table.loc[table["image"].duplicated(), "image"].iloc[0]
            raise CohortError(f"{name}: the image {twice!r} stands in the table more than once.")
        self.table = table.reset_index(drop=True)
        if "origin" not in self.table:
            self.table["origin"] = self.table["image"]
        self.images = Rows(images)
        self.masks = {key: Rows(mask) for key, mask in (masks or {}).items()}
        self.name = name

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        height, width = self.images.shape[1:]
        return (
            f"Cohort {self.name!r}: {len(self)} images ({height} x {width}) "
            f"of {self.table['patient'].nunique()} patients\n{self.counts().to_string()}"
        )

    @property
    def labels(self) -> list[str]:
        """The labels that occur, in the order healthy, pneumonia, covid, then by name."""
        usual = ["healthy", "pneumonia", "covid"]
        found = set(self.table["label"].dropna())
        return [label for label in usual if label in found] + sorted(found - set(usual))

    def counts(self) -> pd.DataFrame:
        """Images and patients by label and source."""
        grouped = self.table.groupby(["label", "source"], dropna=False, observed=True)
        return grouped.agg(images=("image", "size"), patients=("patient", "nunique"))

    def take(self, rows, name: str | None = None) -> Cohort:
        """Select rows by number or by a boolean mask, in the order given; no pixel is read."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        masks = {key: Rows(mask, rows) for key, mask in self.masks.items()}
        images = Rows(self.images, rows)
        return Cohort(self.table.iloc[rows], images, name or self.name, masks)

    def where(self, **conditions) -> Cohort:
        """Select by a column's value or values: ``where(label=["healthy", "covid"], view="PA")``.

        A CohortError says if a column is not there, a value never occurs in it, or nothing is left.
        """
        keep = np.ones(len(self), dtype=bool)
        for column, wanted in conditions.items():
            if column not in self.table:
                raise CohortError(f"{self.name} has no column {column!r}: {list(self.table)}.")
            wanted = [wanted] if np.isscalar(wanted) else list(wanted)
            present = set(self.table[column].dropna())
            unknown = [value for value in wanted if value not in present]
            if unknown:
                raise CohortError(
                    f"{self.name} has no image with {column} {unknown[0]!r}; "
                    f"it has {sorted(map(str, present))}."
                )
            keep &= self.table[column].isin(wanted).to_numpy()
        if not keep.any():
            raise CohortError(f"{self.name} has no image with {conditions}.")
        return self.take(keep)

    def targets(self, classes) -> np.ndarray:
        """Class numbers of the images, shape (n,), int64: a label's place among `classes`.

        For a binary task the second class is the positive one. A CohortError says if an image has
        another label or none, or if a class has no image at all.
        """
        numbers = {label: number for number, label in enumerate(classes)}
        found = self.table["label"].map(numbers)
        if found.isna().any():
            row = self.table.loc[found.isna()].iloc[0]
            raise CohortError(
                f"{self.name}: image {row['image']!r} has the label {row['label']!r}, which is "
                f"none of {list(classes)}. Select with where(label=...) first."
            )
        for label, number in numbers.items():
            if not (found == number).any():
                raise CohortError(
                    f"{self.name}: the class {label!r} has no image. "
                    f"Add some, or leave the class out of {list(classes)}."
                )
        return found.to_numpy(dtype=np.int64)
