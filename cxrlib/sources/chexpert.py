"""CheXpert: the user's own copy of the data set, its labels, and the paper's Fig. 2.

Irvin et al., CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert
Comparison, AAAI 2019, https://arxiv.org/abs/1901.07031. The labels were taken from reports by a
program: 1 is positive, 0 negative, -1 uncertain, and blank means that the report is silent.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.sources import SourceError
from cxrlib.sources.labels import each_value, sex, years
from cxrlib.sources.tables import knowledge

(SET,) = (one for one in knowledge()["sets"] if one["name"] == "CheXpert")
FINDINGS = SET["findings"]  # in the order of the paper's Fig. 2
PATHOLOGIES = FINDINGS[1:-1]  # a pacemaker or a tube is no disease
POLICIES = ("ignore", "zeros", "ones")
WHERE = "https://stanfordmlgroup.github.io/competitions/chexpert/"


def read_labels(train_csv) -> pd.DataFrame:
    """Read CheXpert's ``train.csv``: one row an image, the 14 findings as 1, 0, -1 or NaN.

    A file that is missing, lacks a column or holds another label raises SourceError.
    """
    path = Path(train_csv)
    if not path.is_file():
        raise SourceError(
            f"{path}: there is no such file. Register at {WHERE}, unpack the data set, and name "
            "the folder that holds train.csv."
        )
    needed = ["Path", *FINDINGS]
    text = dict.fromkeys(["Path", "AP/PA", "Sex", "Age"], str)
    wanted = {*needed, *text}.__contains__
    try:
        table = pd.read_csv(path, usecols=wanted, dtype=text, index_col=False, compression=None)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: no CSV file in UTF-8 ({error}). Fetch it again.") from error
    missing = [column for column in needed if column not in table]
    if missing:
        raise SourceError(f"{path}: the column(s) {', '.join(missing)} are missing.")
    if table["Path"].isna().any():
        line = int(np.flatnonzero(table["Path"].isna())[0]) + 2
        raise SourceError(f"{path}, line {line}: Path is blank.")
    odd = ~table[FINDINGS].isin([0, 1, -1, np.nan])
    if odd.any(axis=None):
        column = odd.any().idxmax()
        value = table.loc[odd[column], column].iloc[0]
        raise SourceError(f"{path}: {column} is {value}; it has to be 1, 0, -1 or blank.")
    return table


def chexpert_counts(train_csv) -> pd.DataFrame:
    """Count the labels of CheXpert as the paper's Fig. 2 does.

    One row per patient and study (a study has one report, and up to a few images); blank
    counts as negative, although it means that the report never mentions the finding.

    Returns
    -------
    DataFrame, 14 rows
        Index ``finding`` in the order of Fig. 2; columns ``positive``, ``uncertain``,
        ``negative`` (int64, studies) and ``blank`` (int64, how many of the negatives are blank).
    """
    table = read_labels(train_csv)
    study = table["Path"].str.rsplit("/", n=1).str[0]
    values = table.loc[~study.duplicated(), FINDINGS].rename_axis(columns="finding")
    blank = values.isna()
    counts = {
        "positive": (values == 1).sum(),
        "uncertain": (values == -1).sum(),
        "negative": ((values == 0) | blank).sum(),
        "blank": blank.sum(),
    }
    return pd.DataFrame(counts).astype(np.int64)


def health(labels: pd.DataFrame, uncertain: str = "ignore") -> pd.Series:
    """Give the labels of Model 1's first stage: 'healthy', 'not healthy', or NaN.

    Healthy is No Finding = 1. Not healthy is any of the 12 pathologies = 1 (Support Devices is
    none). The policy says what becomes of images whose only pathologies are uncertain: with
    ``ignore`` they are NaN, with ``zeros`` healthy, with ``ones`` not healthy. Images whose
    report says nothing of either kind are NaN: unknown is no class.
    """
    if uncertain not in POLICIES:
        raise SourceError(f"uncertain={uncertain!r}: choose one of {', '.join(POLICIES)}.")
    pathologies = labels[PATHOLOGIES]
    ill = (pathologies == 1).any(axis=1)
    unsure = ~ill & (pathologies == -1).any(axis=1)
    healthy = (labels["No Finding"] == 1) & ~ill & ~unsure
    if uncertain == "ones":
        ill |= unsure
    elif uncertain == "zeros":
        healthy |= unsure
    return pd.Series(np.select([ill, healthy], ["not healthy", "healthy"], None), labels.index)


def make_table(folder, view: str | None = "frontal", uncertain: str = "ignore") -> pd.DataFrame:
    """Describe the images of a CheXpert folder; no image is opened.

    Parameters
    ----------
    folder : path-like
        The folder that holds ``train.csv`` and ``train/``.
    view : {"frontal", "lateral", None}
        None takes both.
    uncertain : {"ignore", "zeros", "ones"}
        The policy, as in :func:`health`.

    Returns
    -------
    DataFrame
        The columns of a cohort, and ``path`` relative to `folder`. Unknown labels are left out.
    """
    if view not in {"frontal", "lateral", None}:
        raise SourceError(f"view={view!r}: choose 'frontal', 'lateral' or None for both.")
    labels = read_labels(Path(folder) / "train.csv")
    # The paths begin with the name that the folder had at the source.
    path = labels["Path"].str.extract(r"((?:train|valid)/patient\d+/study\d+/[^/\\\0]+)$")[0]
    patient = path.str.extract(r"(patient\d+)/")[0]
    if patient.isna().any():
        odd = labels.loc[patient.isna(), "Path"].iloc[0]
        raise SourceError(f"{odd!r} is not like train/patient00001/study1/view1_frontal.jpg.")
    kind = path.str.extract(r"_(frontal|lateral)\.")[0]
    untold = pd.Series(np.nan, labels.index)
    table = pd.DataFrame(
        {
            "image": "chexpert/" + path.str.rsplit(".", n=1).str[0],
            "label": health(labels, uncertain),
            "patient": "chexpert-" + patient,
            "source": "CheXpert",
            "view": labels.get("AP/PA", kind).fillna(kind),
            "sex": each_value(labels.get("Sex", untold), sex),
            "age": each_value(labels.get("Age", untold), years).astype(float),
            "licence": SET["licence"],
            "path": path,
        }
    )
    wanted = table["label"].notna() & ((kind == view) if view else True)
    return table[wanted].reset_index(drop=True)
