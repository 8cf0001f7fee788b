"""What people touch: guesses before the answer shows, and explorers with something to move."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["frontend", "guesses", "widgets"],
)
