"""What computes frozen features: Keras itself, or OpenVINO on the same network, but faster.

OpenVINO (``pip install 'cxrlib[fast]'``) runs a frozen network on a processor faster than the
Keras backends do, and gives the same features (within 1e-4 of the largest; see
docs/performance.md). It is used where it is installed, Keras computes on a processor, and the
images have 128 pixels or more; ``CXR_ENGINE`` (``keras`` or ``openvino``) overrules that.

``CXR_PRECISION=bfloat16`` halves the time again where the processor or the accelerator has that
type. Its numbers have 8 significant bits, so features change a little: results say so.
"""

from __future__ import annotations

import os
import tempfile
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from cxrlib import cluster, winograd
from cxrlib.files import cache_folder, whole_file
from cxrlib.machine import accelerator, collection_paused, has_bfloat16, start_keras

NAMES = ("keras", "openvino")
PRECISIONS = ("float32", "bfloat16")
SMALLEST = 128  # pixels; below, converting takes longer than it saves on a lesson's images
CHUNKS = {"float32": 2, "bfloat16": 4}  # images in a request; more do not stay in its caches
HINTS = {"float32": "f32", "bfloat16": "bf16"}  # as OpenVINO calls them
_failed: list[str] = []  # why this process has given up converting


class EngineError(ValueError):
    """An engine or a precision that does not exist, or that this machine lacks."""


class ConversionError(RuntimeError):
    """A network that OpenVINO cannot take over from Keras."""


@dataclass(frozen=True)
class Engine:
    """What computes, and how precisely."""

    name: str = "keras"
    precision: str = "float32"

    @property
    def suffix(self) -> str:
        """What the names of its caches end in: features of one engine are never another's."""
        return "" if self == PLAIN else f"-{self.name}-{self.precision}"


PLAIN = Engine()


def choose(size: int) -> Engine:
    """Decide what computes the features of images of `size` x `size` pixels.

    The choice depends on the machine, the environment and `size` only, never on how many
    images there are: a run that was interrupted goes on with the engine that it began with.

    Raises
    ------
    EngineError
        If ``CXR_ENGINE`` or ``CXR_PRECISION`` is misspelt, or asks for what is not there.
    """
    name = _setting("CXR_ENGINE", NAMES)
    precision = _setting("CXR_PRECISION", PRECISIONS) or "float32"
    start_keras()
    kind = accelerator()
    if name is None:
        wanted = not kind and (size >= SMALLEST or precision == "bfloat16")
        name = "openvino" if wanted and not obstacle() else "keras"
    elif name == "openvino" and obstacle():
        if find_spec("openvino") is None:
            raise EngineError(f"CXR_ENGINE is openvino, but {obstacle()}")
        warnings.warn(f"Keras computes the features itself: {obstacle()}", stacklevel=3)
        name = "keras"
    if precision == "bfloat16":
        _check_bfloat16(name, kind)
    return Engine(name, precision)


def _setting(variable: str, known) -> str | None:
    value = os.environ.get(variable) or None
    if value is not None and value not in known:
        raise EngineError(f"{variable} is {value!r}: set it to {' or '.join(known)}, or unset it.")
    return value


def obstacle() -> str:
    """Say why OpenVINO cannot be used here; "" if it can."""
    if find_spec("openvino") is None:
        return "OpenVINO is not installed: pip install 'cxrlib[fast]', or unset CXR_ENGINE."
    backend = start_keras().backend.backend()
    if backend == "jax" and find_spec("tensorflow") is None:
        return "Keras converts networks from JAX with TensorFlow, which is not installed."
    return _failed[0] if _failed else ""


def give_up(reason: str) -> None:
    """Remember, and say once, that networks cannot be converted here."""
    _failed.append(reason)
    warnings.warn(f"Keras computes the features itself: {reason}", stacklevel=3)


def _check_bfloat16(name: str, kind: str) -> None:
    if name == "openvino" and "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return
    if name == "keras" and has_bfloat16(kind):
        return
    why = f"this {kind or 'processor'} does not compute in it"
    if name == "keras" and not kind:
        why = "on a processor that needs OpenVINO (pip install 'cxrlib[fast]')"
    raise EngineError(f"CXR_PRECISION is bfloat16, but {why}: set it to float32, or unset it.")


@cache
def _core():
    import openvino

    return openvino.Core()


def on_keras(model, batch_size: int):
    """Let Keras compute: a function from float32 (n, size, size, 3) to float32 (n, channels)."""
    import keras

    def by_batch(ready):
        parts = (ready[at : at + batch_size] for at in range(0, len(ready), batch_size))
        return np.concatenate([model.predict_on_batch(part) for part in parts])

    def at_once(ready):
        return model.predict(ready, batch_size=batch_size, verbose=0)

    # On TensorFlow each call of `predict` builds a graph: that takes time, and see the pause below
    predict = by_batch if keras.backend.backend() == "tensorflow" else at_once

    def compute(ready: np.ndarray) -> np.ndarray:
        with collection_paused():
            return np.asarray(predict(ready)).astype(np.float32)

    return compute


def policy(precision: str):
    """Keras's dtype policy, for building a network within a ``with`` block."""
    from cxrlib.devices import global_policy

    return global_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")


def on_openvino(build, label: str, size: int, precision: str, preprocessed: np.ndarray):
    """Let OpenVINO compute: a function from uint8 (n, size, size) to float32 (n, channels).

    Parameters
    ----------
    build : callable
        Makes the Keras model; asked only if the cache has no converted one.
    label : str
        What sets the model apart from all others: backbone, size, weights.
    size : int
        Side of its images in pixels.
    precision : {"float32", "bfloat16"}
    preprocessed : ndarray, shape (256, 3), float32
        What the network's preprocessing makes of each grey level; a straight line.

    Raises
    ------
    ConversionError
        If Keras or OpenVINO cannot convert it.
    """
    import keras
    import openvino

    backend, version = keras.backend.backend(), openvino.__version__.split("-")[0]
    name = f"{label}-{backend}-keras{keras.version()}-openvino{version}.zip"
    path = cache_folder("engines") / name
    network = _read(path)
    if network is None:
        _convert(build(), path)
        network = _read(path)
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": HINTS[precision]}
    if cluster.on_worker():  # others work on this machine too, and all would take its first core
        settings |= {"INFERENCE_NUM_THREADS": cluster.threads(), "ENABLE_CPU_PINNING": False}
    try:
        network = _from_grey(network, preprocessed)
        network.reshape([CHUNKS[precision], size, size])
        compiled = _core().compile_model(winograd.rewrite(network), "CPU", settings)
    except Exception as error:  # OpenVINO raises RuntimeError for all that it cannot do
        raise ConversionError(_because(label, error)) from error
    return _requests(compiled)


def _because(what: str, error: Exception) -> str:
    last = next(iter(str(error).splitlines()[-1:]), "")[:150]
    return f"OpenVINO cannot take over {what} ({type(error).__name__}: {last})."


def _convert(model, path: Path) -> None:
    """Write a Keras model as OpenVINO's two files, in one that knows its own checksums."""
    with tempfile.TemporaryDirectory(prefix="cxr-engine-") as folder:
        plain = Path(folder) / "network.xml"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.export(str(plain), format="openvino", verbose=False)
        except Exception as error:  # Keras, its backend and OpenVINO raise many kinds here
            raise ConversionError(_because(model.name, error)) from error
        with whole_file(path) as partial, zipfile.ZipFile(partial, "w") as both:
            for ending in (".xml", ".bin"):
                both.write(plain.with_suffix(ending), plain.with_suffix(ending).name)


def _read(path: Path):
    """Read a converted network; None if there is none, or only a damaged one."""
    try:
        with zipfile.ZipFile(path) as both:
            return _core().read_model(both.read("network.xml"), both.read("network.bin"))
    except FileNotFoundError:
        return None
    except Exception:  # a damaged one is only a cache: forget it, convert again
        path.unlink(missing_ok=True)
        return None


def _from_grey(network, preprocessed: np.ndarray):
    """Let a network begin with grey pixels: it repeats and preprocesses them by itself."""
    import openvino
    from openvino import opset13 as ops

    old, films = network.get_parameters()[0], ops.parameter([-1, -1, -1], np.uint8)
    slope = (preprocessed[255] - preprocessed[0]) / 255
    if not np.allclose(np.arange(256)[:, None] * slope + preprocessed[0], preprocessed, atol=1e-4):
        raise ValueError("its preprocessing is not a straight line")
    grey = ops.unsqueeze(ops.convert(films, "f32"), np.int64(-1))
    ready = ops.add(ops.multiply(grey, slope), preprocessed[0])
    for reader in old.output(0).get_target_inputs():
        reader.replace_source_output(ready.output(0))
    return openvino.Model(network.get_results(), [films])


def _requests(compiled):
    """Ask a compiled network from all cores: each computes a few images by itself.

    Threads may ask at the same time: a core that is done with one's images takes the other's.
    """
    import openvino

    count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    chunk, pool, idle = compiled.input(0).shape[0], ThreadPoolExecutor(count), SimpleQueue()
    for _ in range(count):
        idle.put(compiled.create_infer_request())

    def infer(batch: np.ndarray) -> np.ndarray:
        request = idle.get()
        try:
            request.infer({0: openvino.Tensor(batch, shared_memory=True)})
            return request.get_output_tensor(0).data.copy()
        finally:
            idle.put(request)

    def compute(ready: np.ndarray) -> np.ndarray:
        many, ready = len(ready), np.ascontiguousarray(ready)
        if many < chunk:
            ready = np.resize(ready, (chunk, *ready.shape[1:]))  # repeats them
        whole = len(ready) // chunk * chunk
        waiting = [pool.submit(infer, ready[at : at + chunk]) for at in range(0, whole, chunk)]
        rest = pool.submit(infer, ready[-chunk:]) if whole < len(ready) else None
        found = [future.result() for future in waiting]
        if rest:
            found.append(rest.result()[whole - len(ready) :])
        return np.concatenate(found)[:many]

    return compute
