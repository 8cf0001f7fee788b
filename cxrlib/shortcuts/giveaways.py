"""Shortcuts: what tells the classes apart without the lungs (Geirhos et al. 2020).

doi:10.1038/s42256-020-00257-z. Each function works on any cohort.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib.parallel import cluster
from cxrlib.shortcuts import probes, views

FEWEST = 10  # patients that a class or a source needs to be probed


def shortcuts(cohort, classes=None, seen=tuple(views.VIEWS), extract=None, **options):
    """Probe each view of the images for the classes.

    Parameters
    ----------
    cohort : Cohort
    classes : sequence of str, optional
        The labels to tell apart; all that occur by default. The second of two is the one to find.
    seen : sequence of str
        Keys of :data:`cxrlib.shortcuts.views.VIEWS`.
    extract : callable, optional
        A frozen backbone, as in :func:`cxrlib.shortcuts.views.features`.
    **options
        Of :func:`cxrlib.shortcuts.probes.probe`: folds, permutations, seed.

    Returns
    -------
    DataFrame
        A row a view: ``view``, ``auc``, ``low``, ``high`` (0 to 1; 0.5 is chance), ``p``,
        ``images``, ``patients``, and ``told``, the class that is told from the rest (of more than
        two, the one told best). Files that the table does not know are left out.
    """
    classes = list(classes or cohort.labels)
    targets, patients = cohort.targets(classes), cohort.table["patient"].to_numpy()

    def tasks():
        for view in seen:
            if view == "file" and not set(views.FACTS) <= set(cohort.table):
                continue
            described = views.features(cohort, view, extract)
            yield described, targets, patients, options, classes, {"view": view}

    found = dict(cluster.spread(probed, tasks(), "views"))
    return pd.DataFrame([found[number] for number in sorted(found)])


def sources_within_class(cohort, by: str = "source", extract=None, **options):
    """Probe for where an image comes from, among images of one label.

    Whatever tells the sources apart there is a shortcut for a model whose classes come from
    different sources. `by` is the column that names the source, hospital or scanner; `extract`
    and `options` are as in :func:`shortcuts`.

    Returns
    -------
    DataFrame
        A row a label with two or more sources of :data:`FEWEST` patients each: ``label``,
        ``sources``, and the columns of :func:`shortcuts` but the view.
    """
    rows = []
    for label in cohort.labels:
        part = cohort.where(label=label)
        patients = part.table.groupby(by)["patient"].nunique()
        sources = sorted(patients.index[patients >= FEWEST])
        if len(sources) < 2:
            continue
        part = part.where(**{by: sources})
        targets = pd.Categorical(part.table[by], categories=sources).codes.astype(np.int64)
        described = views.features(part, extract=extract)
        first = {"label": label, "sources": ", ".join(map(str, sources))}
        rows.append(probed(described, targets, part.table["patient"], options, sources, first))
    columns = ["label", "sources", "auc", "low", "high", "p", "images", "patients", "told"]
    return pd.DataFrame(rows, columns=columns)


def association(cohort, by: str = "source") -> tuple[pd.DataFrame, float]:
    """Count patients by source (rows) and label, and measure how far one gives the other away.

    The measure is Cramer's V: 0 where the source says nothing about the label, 1 where one decides
    the other; NaN with one source or one label.
    """
    from scipy.stats.contingency import association as measure

    patients = cohort.table.drop_duplicates(["patient", "label", by])
    table = pd.crosstab(patients[by], patients["label"])
    table = table.reindex(columns=cohort.labels, fill_value=0)  # a label may name no source
    seen = table.loc[:, table.any(axis=0)]
    if min(seen.shape) < 2:
        return table, float("nan")
    return table, float(measure(seen.to_numpy(), method="cramer"))


def probed(described, targets, patients, options, classes, first) -> dict:
    """Make a table's row of a probe: what `first` says, the scores, and the class told best."""
    found = probes.probe(described, targets, patients, **options)
    names = ("auc", "low", "high", "p", "images", "patients")
    told = {"told": str(classes[found.best])}
    return first | {name: getattr(found, name) for name in names} | told
