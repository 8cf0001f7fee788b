"""Every figure of the course. Each function returns a figure; the notebook shows it.

Every function takes a ``note``, written at the figure's foot, for what its reader must know
("synthetic data"), and raises ValueError where there is nothing to draw or a table lacks a column.
"""

from __future__ import annotations

from cxrlib.auditplots import (
    calibration_plot,
    drop_plot,
    headline_plot,
    leakage_plot,
    pairs_plot,
    remedy_plot,
    shortcut_plot,
    views_plot,
)
from cxrlib.claimplots import copies_and_evidence, fits_by_size, interval_widths, power_curves
from cxrlib.cohortplots import (
    feature_map,
    figure2,
    grey_histograms,
    images_per_patient,
    splits,
)
from cxrlib.drawings import architecture, dense_block, residual_block
from cxrlib.imageplots import (
    augmentations,
    contact_sheet,
    heat_map,
    heat_map_grid,
    image_grid,
    sample_pair,
)
from cxrlib.knobplots import knob_curves
from cxrlib.scoreplots import (
    confusion_matrix,
    precision_recall_curves,
    protocol_comparison,
    reliability_diagram,
    roc_curves,
    score_comparison,
    threshold_curves,
)
from cxrlib.style import finish, provenance, subplots
from cxrlib.trainingplots import grid_accuracy, learning_curves

__all__ = [
    "architecture",
    "augmentations",
    "calibration_plot",
    "confusion_matrix",
    "contact_sheet",
    "copies_and_evidence",
    "dense_block",
    "drop_plot",
    "feature_map",
    "figure2",
    "finish",
    "fits_by_size",
    "grey_histograms",
    "grid_accuracy",
    "headline_plot",
    "heat_map",
    "heat_map_grid",
    "image_grid",
    "images_per_patient",
    "interval_widths",
    "knob_curves",
    "leakage_plot",
    "learning_curves",
    "pairs_plot",
    "power_curves",
    "precision_recall_curves",
    "protocol_comparison",
    "provenance",
    "reliability_diagram",
    "remedy_plot",
    "residual_block",
    "roc_curves",
    "sample_pair",
    "score_comparison",
    "shortcut_plot",
    "splits",
    "subplots",
    "threshold_curves",
    "views_plot",
]
