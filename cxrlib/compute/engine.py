"""What computes frozen features: Keras itself, or OpenVINO on the same network, but faster.

OpenVINO (``pip install 'cxrlib[fast]'``) gives the same features (within 1e-4 of the largest). It
is used where it is installed, Keras computes on a processor, and the images have 128 pixels or
more; ``CXR_ENGINE`` (``keras`` or ``openvino``) overrules that. ``CXR_PRECISION=bfloat16`` halves
the time again where there is that type; its 8 significant bits change features a little.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
import zipfile
from functools import cache, partial
from hashlib import sha256
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxrlib.files import cache_folder, whole_file
from cxrlib.machine import accelerator, collection_paused, has_bfloat16, start_keras
from cxrlib.parallel import cluster

SMALLEST = 128  # pixels; below, converting takes longer than it saves on a lesson's images
CHUNKS = {"float32": 2, "bfloat16": 4}  # images in a request; more do not stay in its caches
SHAPING = (  # variables of the shell that change how numbers are computed
    *("CXR_ENGINE", "CXR_PRECISION", "CXR_STEPS", "CXR_HEADS", "JAX_ENABLE_X64"),
    *("JAX_DEFAULT_MATMUL_PRECISION", "NVIDIA_TF32_OVERRIDE"),
    *("TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS"),
)
failures: list[str] = []  # why this process has given up converting


class EngineError(ValueError):
    """An engine or a precision that does not exist, or that this machine lacks."""


class ConversionError(RuntimeError):
    """A network that OpenVINO cannot take over from Keras."""


class Engine(NamedTuple):
    """What computes, and how precisely."""

    name: str = "keras"
    precision: str = "float32"


def choose(size: int) -> Engine:
    """Decide what computes the features of images of `size` x `size` pixels.

    The choice never depends on how many images there are: a run that was interrupted goes on
    with the engine that it began with. An EngineError says what is misspelt or not there.
    """
    name = setting("CXR_ENGINE", ("keras", "openvino"))
    precision = setting("CXR_PRECISION", ("float32", "bfloat16")) or "float32"
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
    if precision == "bfloat16" and not computes_bfloat16(name, kind):
        why = f"this {kind or 'processor'} does not compute in it"
        if name == "keras" and not kind:
            why = "on a processor that needs OpenVINO (pip install 'cxrlib[fast]')"
        raise EngineError(f"CXR_PRECISION is bfloat16, but {why}: set it to float32, or unset it.")
    return Engine(name, precision)


def settings() -> dict[str, str]:
    """Which of SHAPING are set: recorded with results, and part of what a lesson hangs on."""
    return {name: os.environ[name] for name in SHAPING if os.environ.get(name)}


def mark(chosen: Engine) -> str:
    """Name what computes: backend, engine, precision, and a hash of versions, device and settings.

    Each of them moves the last digits of features. A choice between candidates that score alike
    can hang on those, and with it the third digit of a result.
    """
    keras = start_keras()
    backend = keras.backend.backend()
    facts = [keras.version(), sys.modules[backend].__version__, accelerator()]
    facts += [metadata.version("openvino")] if chosen.name == "openvino" else []
    facts += sorted(item for item in settings().items() if not item[0].startswith("CXR_"))
    known = sha256(json.dumps(facts).encode()).hexdigest()[:8]
    return "-".join([backend, *chosen, known])


def setting(variable: str, known) -> str | None:
    """Read a variable of the shell, None where it is unset; an EngineError if it is misspelt."""
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
    return failures[0] if failures else ""


def give_up(reason: str) -> None:
    """Remember, and say, that networks cannot be converted here."""
    failures.append(reason)
    warnings.warn(f"Keras computes the features itself: {reason}", stacklevel=3)


def computes_bfloat16(name: str, kind: str) -> bool:
    """Tell whether an engine computes in bfloat16 here; `kind` is that of the accelerator."""
    if name == "keras":
        return has_bfloat16(kind)
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core():
    import openvino

    return openvino.Core()


def on_keras(model, batch_size: int):
    """Let Keras compute: a function from grey images, uint8 (n, size, size), to float32 (n, c)."""
    from keras import ops

    ask, whole = _asker(model), accelerator() != ""

    def compute(grey: np.ndarray) -> np.ndarray:
        found = []
        with collection_paused():
            for start in range(0, len(grey), batch_size):
                part = grey[start : start + batch_size]
                if whole and len(part) < batch_size:  # compiling for another size takes longer
                    part = np.resize(part, (batch_size, *part.shape[1:]))
                found.append(ask(part))
        # Only now, so that the next batch is copied while the device is at work
        rows = np.concatenate([ops.convert_to_numpy(one) for one in found])
        return rows[: len(grey)].astype(np.float32)

    return compute


def _asker(model):
    """Make a function of a batch that gives Keras's answer on the device, maybe before it is there.

    `predict_on_batch` waits for each answer, and `predict` takes long to begin.
    """
    from keras import backend

    if backend.backend() != "jax":
        model.make_predict_function()
        return lambda batch: model.predict_function([(batch,)])
    import jax

    state = [variable.value for variable in model.non_trainable_variables]  # it is frozen
    return partial(jax.jit(lambda state, x: model.stateless_call([], state, x)[0]), state)


def on_openvino(build, label: str, size: int, precision: str):
    """Let OpenVINO compute: a function from float32 (n, size, size, 3) to float32 (n, channels).

    `build` makes the Keras model, if the cache has no converted one by this `label`, which says
    backbone, size and weights. A ConversionError where Keras or OpenVINO cannot convert it.
    """
    import keras
    import openvino

    backend, version = keras.backend.backend(), openvino.__version__.split("-")[0]
    name = f"{label}-{backend}-keras{keras.version()}-openvino{version}.zip"
    path = cache_folder("engines") / name
    network = _read(path)
    model = build() if network is None else None
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": hint}
    if cluster.on_worker():  # others work on this machine too, and all would take its first core
        settings |= {"INFERENCE_NUM_THREADS": cluster.threads(), "ENABLE_CPU_PINNING": False}
    try:
        if model is not None:
            _convert(model, path)
            network = _read(path)
        network.reshape([CHUNKS[precision], size, size, 3])
        compiled = _core().compile_model(network, "CPU", settings)
    except Exception as error:  # Keras, its backend and OpenVINO raise many kinds here
        last = next(iter(str(error).splitlines()[-1:]), "")[:150]
        why = f"OpenVINO cannot take over {label} ({type(error).__name__}: {last})."
        raise ConversionError(why) from error
    return _by_chunks(compiled)


def _convert(model, path: Path) -> None:
    """Write a Keras model as OpenVINO's two files, in one that knows its own checksums."""
    with tempfile.TemporaryDirectory(prefix="cxr-engine-") as folder:
        plain = Path(folder) / "network.xml"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.export(str(plain), format="openvino", verbose=False)
        with whole_file(path) as partial, zipfile.ZipFile(partial, "w") as both:
            for ending in (".xml", ".bin"):
                both.write(plain.with_suffix(ending), plain.with_suffix(ending).name)


def _read(path: Path):
    """Read a converted network; None if there is none, or only a damaged one."""
    try:
        with zipfile.ZipFile(path) as both:
            return _core().read_model(both.read("network.xml"), both.read("network.bin"))
    except Exception:  # there is none, or a damaged one: forget it, convert again
        path.unlink(missing_ok=True)
        return None


def _by_chunks(compiled):
    """Ask a compiled network from all cores: each computes a few images by itself."""
    import openvino

    waiting = openvino.AsyncInferQueue(compiled)  # as many requests as suit the processor
    chunk, channels = compiled.output(0).shape

    def compute(ready: np.ndarray) -> np.ndarray:
        found = np.empty((len(ready), channels), np.float32)

        def keep(request, start):
            rows = found[start : start + chunk]
            rows[:] = request.get_output_tensor(0).data[: len(rows)]

        waiting.set_callback(keep)
        for start in range(0, len(ready), chunk):
            part = ready[start : start + chunk]
            # The last one may be short: its images are repeated, the shape never changes
            whole = part if len(part) == chunk else np.resize(part, (chunk, *part.shape[1:]))
            waiting.start_async({0: whole}, start)
        waiting.wait_all()
        return found

    return compute
