"""The paper as data: its claims, the verdicts on them, the integers behind its scores."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["check", "claims", "reconstruct", "tables", "verdicts"],
    submod_attrs={"command": ["check_command"]},
)
