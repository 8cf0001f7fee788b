"""Scores, each with an interval that counts patients, calibration, and tests of differences."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checks": ["MetricsError", "check_binary", "patient_numbers"],
        "comparisons": ["independence", "mcnemar", "patients_to_decide"],
        "intervals": [
            "Estimate",
            "area",
            "combine",
            "f1",
            "independent_images",
            "share",
            "t_interval",
            "wilson",
        ],
        "probabilities": [
            "brier",
            "calibration",
            "calibration_fit",
            "decision_scores",
            "expected_calibration_error",
            "net_benefit",
        ],
        "scores": [
            "auc",
            "binary_differences",
            "binary_scores",
            "class_differences",
            "class_scores",
            "confusion",
            "row_percent",
            "threshold_for",
        ],
    },
)
