"""Tell whether a person sits in front of this kernel.

Explorers and questions are for people. A headless run shows a figure and asks nothing.
"""

from __future__ import annotations

import os
from importlib.util import find_spec


def is_live() -> bool:
    """Tell whether somebody can see this cell's widgets and move them.

    A front end says with each cell that it asks to be run whether the cell may ask back
    (``allow_stdin`` in Jupyter's messages). JupyterLab, the classic notebook, VS Code and Colab
    say yes, as a person is there to answer; nbclient says no, and with it papermill, nbgrader,
    nbconvert and Sphinx. Voila runs cells with nbclient too, then serves them to people, and
    leaves its name in the kernel's environment.

    Call it while the cell runs: later, in a widget's callback, nobody asked for a cell.

    Returns
    -------
    bool
        True in JupyterLab, Colab and Voila; False without a person, in plain Python and in a
        terminal, which shows no widgets.
    """
    if find_spec("IPython") is None:
        return False
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)  # there is none in a terminal
    if kernel is None:
        return False
    if os.environ.get("SERVER_SOFTWARE", "").startswith("voila/"):
        return True
    request = kernel.get_parent() or {}
    return bool(request.get("content", {}).get("allow_stdin", False))


def is_movable() -> bool:
    """Tell whether to make widgets: somebody is there, and ipywidgets is installed."""
    return is_live() and find_spec("ipywidgets") is not None
