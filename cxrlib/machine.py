"""What a result was computed on: Python, Keras, its backend, the device, versions."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import subprocess
import sys
import warnings
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from cxrlib import __version__

PACKAGES = (  # those that shape a result
    *("numpy", "pandas", "scipy", "scikit-learn", "statsmodels", "matplotlib"),
    *("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    *("tensorflow", "tensorflow-cpu", "jax", "torch", "openvino", "papermill"),
)
# How Keras computes in the course, whatever keras.json, the shell or a start-up file say
KERAS = {"floatx": "float32", "dtype_policy": "float32", "epsilon": 1e-7}
KERAS |= {"image_data_format": "channels_last", "max_epochs": None, "max_steps_per_epoch": None}
# TensorFlow leaves oneDNN off on processors without AVX-512 VNNI, which it spares a third and more
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
engines_used: set[tuple[str, str]] = set()  # engine, and what it multiplied in, so far


def environment() -> dict:
    """Facts on the machine; on Keras if it is imported, on engines if they computed features."""
    keras = sys.modules.get("keras")
    backend = keras.config.backend() if keras else None
    versions = {"cxrlib": __version__}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "keras": keras.version() if keras else None,
        "backend": backend,
        "backend_version": getattr(sys.modules.get(backend), "__version__", None),
        "device": device(),
        "training_precision": training_precision() if keras else None,
        "training_multiplies_in": multiplies_in(training_precision()) if keras else None,
        "keras_settings": keras_settings(keras) if keras else None,
        "engine": ", ".join(sorted({name for name, _ in engines_used})) or None,
        "precision": ", ".join(sorted({precision for _, precision in engines_used})) or None,
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count())),  # `cxr run --jobs`
        "versions": versions,
    }


def keras_settings(keras) -> dict:
    """Those of KERAS that this version of Keras knows, as they are now."""
    there = {name: getattr(keras.config, name)() for name in KERAS if hasattr(keras.config, name)}
    return there | {"dtype_policy": there["dtype_policy"].name}


@cache
def _set_up(keras) -> None:
    odd = {name: now for name, now in keras_settings(keras).items() if now != KERAS[name]}
    for name in odd:
        getattr(keras.config, f"set_{name}")(KERAS[name])
    if odd:
        warnings.warn(f"Keras was set to {odd} here; the course sets it back.", stacklevel=3)


@contextmanager
def collection_paused():
    """Let Python's garbage collector rest while this thread adds to TensorFlow's graphs.

    A collection in another thread waits for their lock for ever (TensorFlow 2.21, Dask worker).
    """
    working = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if working:
            gc.enable()


@cache
def _glibc():
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def keep_freed_memory(kept: int = 2**29) -> None:
    """Let the C library keep so many bytes that were freed, for the next who asks.

    TensorFlow 2.21 allows it 128 KB as soon as Python feeds a network, so that every step of
    training faults its memory in anew: a third or more of the time. Only glibc knows this.
    """
    if glibc := _glibc():
        trim_threshold, mmap_threshold = -1, -3  # of malloc.h
        glibc.mallopt(trim_threshold, kept)
        glibc.mallopt(mmap_threshold, kept) or glibc.mallopt(mmap_threshold, 2**25)  # before 2.35


def device() -> str:
    """Name what Keras computes on: an accelerator where it uses one, else the processor."""
    kind = accelerator() if "keras" in sys.modules else ""
    if not kind:
        return processor()
    names = ask_system("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return names.partition("\n")[0] or kind.upper()


def start_keras():
    """Import Keras, set it up as the course computes, and wake its backend without a word."""
    if "keras" in sys.modules:
        _set_up(sys.modules["keras"])
        return sys.modules["keras"]
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with collection_paused():  # it looks through all that TensorFlow brings, again and again
            import keras

        _set_up(keras)
        keras.layers.Conv2D(1, 1)(keras.ops.zeros((1, 1, 1, 1)))
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    return keras


def accelerator() -> str:
    """Kind of accelerator that Keras puts its tensors on (gpu, tpu, mps), "" for the processor."""
    where = str(getattr(start_keras().ops.zeros(1), "device", "")).lower()
    kinds = {"gpu": "gpu", "cuda": "gpu", "rocm": "gpu", "tpu": "tpu", "mps": "mps"}
    return next((kind for word, kind in kinds.items() if word in where), "")


def training_precision() -> str:
    """Name Keras's dtype policy for training networks on images: mixed on a GPU.

    ``mixed_bfloat16`` where it computes in it, else ``mixed_float16`` (Keras scales the loss);
    ``float32`` on processors, Apple's GPUs, and where ``CXR_PRECISION=float32`` asks for it. Mixed
    means: weights, their updates, the output layer and the loss are float32, the layers before
    compute in 16 bits (Micikevicius et al. 2018, arXiv:1710.03740).
    """
    kind = accelerator()
    if kind not in ("gpu", "tpu") or os.environ.get("CXR_PRECISION") == "float32":
        return "float32"
    return "mixed_bfloat16" if has_bfloat16(kind) else "mixed_float16"


def multiplies_in(policy: str = "float32") -> str:
    """Name the numbers that the device multiplies under a Keras policy, such as ``tf32``.

    A tensor of float32 does not say: NVIDIA's GPUs since 8.0 round what they multiply to TF32, 10
    bits of fraction in place of 23, where the backend lets them (JAX by default, PyTorch and
    TensorFlow in convolutions at least), and TPUs to bfloat16. The coarsest that may be used is
    named; ``NVIDIA_TF32_OVERRIDE=0`` forbids TF32.
    """
    short = policy.removeprefix("mixed_")
    kind = accelerator() if short == "float32" else ""
    backend = start_keras().config.backend()
    asked = _jax_precision() if kind and backend == "jax" else ""
    if asked in ("highest", "float32", "f32_f32_f32"):
        return short
    if kind == "tpu" or (kind and asked.startswith("bf16_bf16")):
        return "bfloat16"
    if kind != "gpu" or not has_bfloat16(kind) or os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return short  # those that have bfloat16 have TF32
    allowed = {"tensorflow": _tensorflow_allows_tf32, "torch": _torch_allows_tf32}
    return "tf32" if allowed.get(backend, lambda: True)() else short


def _jax_precision() -> str:
    import jax

    return str(jax.config.jax_default_matmul_precision or "").lower()


def _tensorflow_allows_tf32() -> bool:
    import tensorflow as tf

    return tf.config.experimental.tensor_float_32_execution_enabled()


def _torch_allows_tf32() -> bool:
    from torch import backends

    if not hasattr(backends, "fp32_precision"):  # before 2.9
        return backends.cudnn.allow_tf32 or backends.cuda.matmul.allow_tf32
    asked = {one.fp32_precision for one in (backends.cudnn.conv, backends.cuda.matmul)}
    return "tf32" in asked or ("none" in asked and backends.fp32_precision == "tf32")


@contextmanager
def dtype_policy(name: str):
    """Let Keras build networks within a ``with`` block in another precision than float32."""
    keras = start_keras()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def has_bfloat16(kind: str) -> bool:
    """Tell whether a kind of accelerator computes in bfloat16: TPUs, NVIDIA's GPUs since 8.0."""
    if kind != "gpu":
        return kind == "tpu"
    found = ask_system("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
    capabilities = map(float, re.findall(r"^\d+\.\d+", found, re.MULTILINE))
    return min(capabilities, default=0.0) >= 8


@cache
def processor() -> str:
    """Model name of the processor, as the operating system tells it."""
    told = Path("/proc/cpuinfo")
    text = told.read_text(encoding="utf-8") if told.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = found[1] if found else ask_system("sysctl", "-n", "machdep.cpu.brand_string")
    return name or platform.processor() or platform.machine() or "unknown processor"


@cache
def ask_system(*command: str) -> str:
    """Give what a command of the operating system prints; "" if it fails or is not there."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ended.stdout.strip()


def one_thread():
    """Keep small linear algebra on one core in a ``with``: threads wait, up to 30 times longer."""
    import scipy.linalg  # noqa: F401, SciPy's own BLAS can be held only when it is loaded
    import sklearn.linear_model  # noqa: F401, and scikit-learn's OpenMP
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)
