"""What people touch: guesses before the answer shows, quizzes, and explorers to move."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["frontend", "guesses", "quizzes", "widgets"],
    submod_attrs={"quizzes": ["quiz", "recorded"]},
)
