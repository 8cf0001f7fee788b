"""What a result was computed on: Python, Keras, its backend, the device, versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from cxrlib import __version__

PACKAGES = (
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "statsmodels",
    "matplotlib",
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python",
    "tensorflow",
    "tensorflow-cpu",
    "jax",
    "torch",
    "papermill",
)


def environment() -> dict:
    """Facts on the machine: Python, platform, Keras, its backend and device, versions.

    Keras is only asked where the notebook imported it: some lessons do without, and
    importing it takes seconds.
    """
    keras = sys.modules.get("keras")
    backend = keras.config.backend() if keras else None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "keras": keras.version() if keras else None,
        "backend": backend,
        "backend_version": getattr(sys.modules.get(backend), "__version__", None),
        "device": device(),
        "cores": os.cpu_count(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that are installed, of those that shape a result."""
    found = {"cxrlib": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device() -> str:
    """Name what Keras computes on: an accelerator where it uses one, else the processor."""
    kind = accelerator() if "keras" in sys.modules else ""
    if not kind:
        return processor()
    return _first_line(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) or kind.upper()


def start_keras():
    """Import Keras and wake its backend, without TensorFlow's log lines in the notebook.

    TensorFlow writes some lines to the error stream before its own log levels are in force.
    """
    if "keras" in sys.modules:
        return sys.modules["keras"]
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import keras

        keras.layers.Conv2D(1, 1)(keras.ops.zeros((1, 1, 1, 1)))
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    return keras


def accelerator() -> str:
    """Kind of accelerator that Keras puts its tensors on, or "" for the processor.

    Asks a tensor where it lies, which works alike on TensorFlow, JAX and PyTorch.
    """
    import keras

    where = str(getattr(keras.ops.zeros(1), "device", "")).lower()
    kinds = {"gpu": "gpu", "cuda": "gpu", "rocm": "gpu", "tpu": "tpu", "mps": "mps"}
    return next((kind for word, kind in kinds.items() if word in where), "")


@cache
def processor() -> str:
    """Model name of the processor, as the operating system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
        name = found[1] if found else ""
    except OSError:
        name = _first_line(["sysctl", "-n", "machdep.cpu.brand_string"])
    return name or platform.processor() or platform.machine() or "unknown processor"


@cache
def _command_output(command: tuple[str, ...]) -> str:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ended.stdout


def _first_line(command: list[str]) -> str:
    return next(iter(_command_output(tuple(command)).splitlines()), "").strip()


def one_thread():
    """Keep linear algebra on one core within a ``with`` block.

    On small problems the threads mostly wait for each other: on two cores that do other work
    too, a logistic regression took 30 times longer with two threads than with one.
    """
    import scipy.linalg  # noqa: F401, SciPy's own BLAS can be held only when it is loaded
    import sklearn.linear_model  # noqa: F401, and scikit-learn's OpenMP
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)
