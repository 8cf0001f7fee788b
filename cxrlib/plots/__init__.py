"""Every figure of the course, in one style. Each function returns a figure; the notebook shows it.

Every function takes a ``title`` and a ``note``, written at the figure's foot, for what its reader
must know ("synthetic data"). It raises ValueError where there is nothing to draw or a table lacks
a column. Tables are as the function that the docstring names gives them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["pages", "style"],
    submod_attrs={
        "claims": ["copies_and_evidence", "fits_by_size", "interval_widths", "power_curves"],
        "classroom": ["class_guesses"],
        "cohorts": [
            "ages",
            "feature_map",
            "figure2",
            "folds",
            "grey_histograms",
            "images_per_patient",
            "splits",
        ],
        "images": [
            "augmentations",
            "contact_sheet",
            "grad_cam_steps",
            "heat_map",
            "heat_map_grid",
            "image_grid",
            "sample_pair",
        ],
        "knob": ["knob_curves"],
        "networks": ["architecture", "dense_block", "residual_block"],
        "scores": [
            "confusion_matrix",
            "decision_curve",
            "precision_recall_curves",
            "probability_histograms",
            "protocol_comparison",
            "reliability_diagram",
            "roc_curves",
            "score_comparison",
            "threshold_curves",
            "width_by_patients",
        ],
        "shortcuts": [
            "calibration_plot",
            "drop_plot",
            "headline_plot",
            "leakage_plot",
            "loudest_plot",
            "odd_plot",
            "pairs_plot",
            "remedy_plot",
            "shortcut_plot",
            "views_plot",
        ],
        "style": ["FIXED", "finish", "heat_table", "legend_above", "provenance", "subplots"],
        "training": ["grid_accuracy", "learning_curves", "patient_curves"],
    },
)
