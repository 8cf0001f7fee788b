"""The fast ways, behind one door each: frozen features, many heads at once, threads, a cluster.

Each has a plain path in NumPy or Keras beside it that gives the same numbers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["cluster", "disk", "engine", "store"],
    submod_attrs={
        "cache": ["RowCache"],
        "heads": ["Head", "TrainingError", "check_targets", "fit_heads", "moments"],
        "threads": ["ahead", "cores", "share"],
    },
)
