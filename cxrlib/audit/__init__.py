"""Any image set judged: what gives its labels away, a light for each probe, and the page."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["lights", "subject"],
    submod_attrs={
        "examine": ["MOST", "Audit", "AuditError", "run"],
        "lights": ["LIGHTS", "Finding", "who_they_are"],
        "command": ["audit_command"],
    },
)
