"""The fast ways, a door each: an engine, heads, epochs, arrays on disk, threads, a cluster.

Where an engine or a cluster is not at hand, Keras, NumPy and this machine do the same.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["cluster", "disk", "engine", "epochs"],
    submod_attrs={
        "cache": ["RowCache"],
        "engine": ["settings"],
        "heads": [
            "Head",
            "TrainingError",
            "check_targets",
            "fit_folds",
            "fit_heads",
            "moments",
        ],
        "threads": ["ahead", "cores", "share"],
    },
)
