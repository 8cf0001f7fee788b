"""The fast ways, behind one door each: frozen features, many heads at once, threads, a cluster.

Each has a plain path in NumPy or Keras beside it that gives the same numbers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["cluster", "disk", "engine"],
    submod_attrs={
        "heads": [
            "Head",
            "SCORES",
            "TrainingError",
            "check_head",
            "check_targets",
            "fit_heads",
            "glorot",
            "moments",
        ],
        "threads": ["ahead", "cores", "share"],
    },
)
