"""Synthetic chest radiographs ("phantoms") whose lungs, lesions and scanner are known."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["scanner", "thorax"],
    submod_attrs={
        "findings": ["LABELS"],
        "radiograph": ["PhantomError", "SMALLEST", "make_cohort", "render"],
        "scanner": ["SCANNERS"],
    },
)
