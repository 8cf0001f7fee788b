"""Running the course: its lessons as files, their execution, run folders, the report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["folder", "lessons", "report"],
    submod_attrs={
        "runs": ["run"],
        "command": ["run_command", "report_command"],
        "surroundings": ["Prepared"],
    },
)
