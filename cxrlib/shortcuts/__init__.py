"""Experiments that doubt a score: whether it comes from the disease, or from something else."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    [
        *("duplicates", "headline", "hospitals", "knob", "leaks", "odd", "people"),
        *("pretraining", "probes", "remedies", "views"),
    ],
    {
        "giveaways": ["FEWEST", "association", "shortcuts", "sources_within_class"],
        "leaks": ["leakage", "leakage_summary", "some_patients"],
        "duplicates": ["near_duplicates", "patients_in_two_classes", "together"],
        "odd": ["odd_by_label", "odd_films"],
        "hospitals": ["external_validation"],
        "loudest": ["loudest"],
        "subgroups": ["subgroups"],
        "people": ["people_by_label", "who_they_are"],
        "views": ["ShortcutError"],
    },
)
