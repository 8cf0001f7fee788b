"""Where films come from: the cohorts you load by name, pinned downloads, folders, CheXpert.

>>> from cxrlib import sources
>>> cohort = sources.load("phantom", patients=30)  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["chexpert", "folders", "pinned", "tables"],
    submod_attrs={
        "catalogue": ["SOURCES", "fetch", "load", "manifest", "verify"],
        "chexpert": ["chexpert_counts"],
        "command": ["data_command", "table_options"],
    },
)
__all__ = [*__all__, "SourceError"]


class SourceError(ValueError):
    """Films that cannot be had; the message names source, folder or file, and the remedy."""
