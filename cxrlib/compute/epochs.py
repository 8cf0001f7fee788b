"""Train a network on data that lie on the device: an epoch is a few compiled calls.

Keras starts every step from Python and copies its batch to the device; beside a small network a
GPU waits most of that time, and a processor works for Python. Here the data are copied once,
images as bytes, and one compiled loop takes all whole batches of an epoch, another the shorter one
at its end. What a step does is Keras's own (`model.train_step`), so the history is that of
``model.fit``.
"""

from __future__ import annotations

import warnings
from functools import cache
from types import SimpleNamespace

import numpy as np

from cxrlib.compute.engine import setting
from cxrlib.machine import accelerator

MOST = 2 << 30  # bytes of images that are put on the device; Colab's GPUs have 15 GiB


def fit_here(*parts) -> bool:
    """Tell whether to train so: on an accelerator or by TensorFlow, if the data fit into MOST.

    ``CXR_STEPS`` overrules the first: ``compiled`` is this way anywhere (on a processor JAX's loops
    are slow: for tests), ``keras`` Keras's own.
    """
    from keras import backend

    asked = setting("CXR_STEPS", ("compiled", "keras"))
    wanted = asked == "compiled" or (
        asked is None and (accelerator() != "" or backend.backend() == "tensorflow")
    )
    return wanted and sum(part.nbytes for part in parts) <= MOST


class Steps:
    """The steps of a compiled Keras model: made once, for as many trainings as it goes through."""

    def __init__(self, model):
        self.model, self.loops = model, {}

    def fit(self, data, validation_data=None, epochs: int = 1, verbose: int = 0):
        """Train as ``model.fit`` does; silently, whatever `verbose` says.

        Both data are what :func:`cxrlib.training.batches` makes, with targets; their order and
        batches stay (Keras itself shuffles the order of the batches once more). Gives the history
        in the attribute ``history``, as Keras does. An interruption leaves the model with the
        weights of the last call that ended, or on PyTorch and TensorFlow of the last step.
        """
        from keras import backend, ops

        if backend.backend() != "tensorflow":  # Keras begins an epoch there, to look at a batch
            data.on_epoch_begin()
        if not self.loops:
            self.model._symbolic_build(data_batch=data[0])
            self.loops = {name: _loop(self.model, not name) for name in ("", "val_")}
        parts, history = [], {}
        for name, part in {"": data, "val_": validation_data}.items():
            if part is not None:
                there = [ops.convert_to_tensor(array) for array in (part.read(), part.targets)]
                parts.append((name, part, there))
        for _ in range(epochs):
            for name, part, there in parts:
                self._epoch(self.loops[name], part, there)
                for key, value in self.model.get_metrics_result().items():
                    history.setdefault(name + key, []).append(float(value))
        return SimpleNamespace(history=dict(sorted(history.items())))

    def _epoch(self, run, part, there) -> None:
        from keras import ops

        self.model.reset_metrics()
        part.on_epoch_begin()
        whole = len(part.order) // part.batch_size * part.batch_size
        for rows in part.order[:whole].reshape(-1, part.batch_size), part.order[None, whole:]:
            if rows.size:
                run(*there, ops.convert_to_tensor(rows.astype(np.int32)))


def _loop(model, training: bool):
    """Make a function of the data, their targets and rows (batches, size): it takes all steps."""
    from keras import backend, ops

    step = model.train_step if training else model.test_step

    def take(data, targets, some):  # a batch, as `training.batches` gives it
        x = ops.cast(ops.take(data, some, axis=0), "float32")
        return x[..., None] if len(data.shape) == 3 else x, ops.take(targets, some, axis=0)

    ways = {"jax": _on_jax, "tensorflow": _on_tensorflow, "torch": _on_torch}
    return ways[backend.backend()](model, step, take, training)


def _on_jax(model, step, take, training):
    import jax

    trained = [model.optimizer.variables] if training else []
    groups = [model.trainable_variables, model.non_trainable_variables, *trained]
    groups.append(model.metrics_variables)

    @jax.jit
    def steps(state, x, y, rows):
        def one(state, some):
            return list(map(list, step(state, take(x, y, some))[1])), None

        return jax.lax.scan(one, state, rows)[0]

    def run(x, y, rows):
        # The variables keep their values until all new ones are there, so nothing is donated
        state = [[variable.value for variable in group] for group in groups]
        for group, values in zip(groups, steps(state, x, y, rows), strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)

    return run


def _on_tensorflow(model, step, take, training):
    import tensorflow as tf

    @tf.function(autograph=False, jit_compile=model.jit_compile)
    def one(x, y, some):
        step(take(x, y, some))

    @tf.function
    def run(x, y, rows):
        for some in rows:
            one(x, y, some)

    return run


def _on_torch(model, step, take, training):
    import torch

    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    ways = {}  # by the size of a batch: where its rows are written, and what takes the step

    def run(x, y, rows):
        with torch.set_grad_enabled(training):
            if (size := rows.shape[1]) not in ways:
                some = rows[0].clone()
                ways[size] = some, _captured(lambda: step(take(x, y, some)), variables)
            some, once = ways[size]
            for one in rows:
                some.copy_(one)
                once()

    return run


def _captured(once, variables):
    """Make a step one CUDA graph, which starts as a whole; without CUDA it stays as it is."""
    import torch

    if not torch.cuda.is_available():
        return once
    kept, constants = [variable.value.detach().clone() for variable in variables], _constants()
    try:
        aside, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), constants:
            for _ in range(3):  # libraries choose their ways, which they may not in a graph
                once()
        torch.cuda.current_stream().wait_stream(aside)
        with constants, torch.cuda.graph(graph):
            once()
    except Exception as error:  # of many kinds
        told = f"PyTorch cannot make a CUDA graph of a training step ({str(error)[:200]})"
        warnings.warn(f"{told}: every step starts from Python, slower.", stacklevel=5)
        return once
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
    return lambda: (graph.replay(), constants)  # which the graph reads


def _constants():
    """Let numbers in Python become tensors once: copying them waits, which a graph may not."""
    import torch

    class Constants(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.as_tensor and isinstance(args[0], bool | int | float | tuple):
                return self.known(args[0], tuple(kwargs.items()))
            return function(*args, **kwargs or {})

    constants = Constants()
    constants.known = cache(lambda number, settings: torch.as_tensor(number, **dict(settings)))
    return constants
