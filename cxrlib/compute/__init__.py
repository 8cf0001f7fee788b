"""The fast ways to compute, a door each: an engine for features, heads, the epochs of a network.

Where an engine or an accelerator is not at hand, Keras and NumPy do the same.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["engine", "epochs"],
    submod_attrs={
        "engine": ["settings"],
        "heads": [
            "Head",
            "TrainingError",
            "check_targets",
            "fit_folds",
            "fit_heads",
            "moments",
        ],
    },
)
