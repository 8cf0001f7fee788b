"""Work shared by cores and machines, and kept on disk as it is done.

Where no cluster is at hand, this machine's cores do the same; what a killed run did is not lost.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["cluster", "disk"],
    submod_attrs={"cache": ["RowCache"], "threads": ["ahead", "cores", "share"]},
)
