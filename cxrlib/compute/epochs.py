"""Train a network on images that lie on the device: an epoch is a few compiled calls.

Keras starts every step from Python and copies its batch to the device; beside a small network a
GPU waits most of that time. Here the images are copied once, as bytes, and one compiled loop takes
all whole batches of an epoch, another the shorter one at its end. What a step does is Keras's
own (`model.train_step`), so the history is that of ``model.fit``.
"""

from __future__ import annotations

import warnings

import numpy as np

from cxrlib.compute.engine import setting
from cxrlib.machine import accelerator

MOST = 2 << 30  # bytes of images that are put on the device; Colab's GPUs have 12 to 15 GiB


def fit_here(*images) -> bool:
    """Tell whether to train so: on an accelerator, if the images, as bytes, take no more than MOST.

    ``CXR_STEPS`` overrules the first: ``compiled`` is this way anywhere, ``keras`` Keras's own.
    """
    asked = setting("CXR_STEPS", ("compiled", "keras"))
    wanted = asked == "compiled" or (asked is None and accelerator() != "")
    return wanted and sum(len(part.order) * part.side**2 for part in images) <= MOST


def fit(model, train, held, epochs: int) -> dict[str, list[float]]:
    """Train a compiled Keras model, as ``model.fit(train, validation_data=held)`` does.

    `train` and `held` are what :func:`cxrlib.training.batches` makes, with targets; their order
    and batches stay. Gives what Keras's history holds. An interruption leaves the model with the
    weights of the last call that ended.
    """
    from keras import backend, ops

    if backend.backend() != "tensorflow":  # Keras begins an epoch there, to look at a batch
        train.on_epoch_begin()
    model._symbolic_build(data_batch=train[0])
    parts = [(part, *map(ops.convert_to_tensor, (part.read(), part.targets)))
             for part in (train, held)]  # fmt: skip
    ways = [_loop(model, True), _loop(model, False)]
    history = {}
    for _ in range(epochs):
        found = {}
        for name, (part, x, y), run in zip(("", "val_"), parts, ways, strict=True):
            model.reset_metrics()
            part.on_epoch_begin()
            for rows in _batches(part.order, part.batch_size):
                run(x, y, rows)
            found |= {name + key: float(value) for key, value in model.get_metrics_result().items()}
        for key in sorted(found):
            history.setdefault(key, []).append(found[key])
    return history


def _batches(order: np.ndarray, size: int) -> list:
    """Divide rows into whole batches, (n, size), and what is left over, (1, fewer)."""
    from keras import ops

    whole = len(order) // size * size
    parts = order[:whole].reshape(-1, size), order[None, whole:]
    return [ops.convert_to_tensor(rows.astype(np.int32)) for rows in parts if rows.size]


def _loop(model, training: bool):
    """Make a function of images (n, side, side) uint8, targets, rows (batches, size): all steps."""
    from keras import backend, ops

    step = model.train_step if training else model.test_step

    def take(images, targets, some):  # a batch, as `training.batches` would give it
        x = ops.take(images, some, axis=0)
        return ops.cast(x, "float32")[..., None], ops.take(targets, some, axis=0)

    return {"jax": _on_jax, "tensorflow": _on_tensorflow, "torch": _on_torch}[backend.backend()](
        model, step, take, training
    )


def _on_jax(model, step, take, training):
    import jax

    groups = [model.trainable_variables, model.non_trainable_variables]
    groups += [model.optimizer.variables] if training else []
    groups += [model.metrics_variables]

    @jax.jit
    def steps(state, x, y, rows):
        def one(state, some):
            return tuple(map(list, step(state, take(x, y, some))[1])), None

        return jax.lax.scan(one, state, rows)[0]

    def run(x, y, rows):
        # The variables keep their values until all new ones are there, so nothing is donated
        state = tuple([variable.value for variable in group] for group in groups)
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

    ways = [step]
    if torch.cuda.is_available():  # its steps as CUDA graphs; the last way needs no compiler
        ways.insert(0, torch.compile(step, mode="reduce-overhead", dynamic=False))
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]

    def all_steps(way, x, y, rows):
        with torch.set_grad_enabled(training):
            for some in rows:
                way(take(x, y, some))

    def run(x, y, rows):
        model.train(training)
        if len(ways) > 1:
            kept = [variable.value.detach().clone() for variable in variables]
            try:
                return all_steps(ways[0], x, y, rows)
            except Exception as error:  # compilers raise many kinds
                told = f"PyTorch cannot compile the steps ({str(error)[:200]})"
                warnings.warn(f"{told}: they are taken one by one, slower.", stacklevel=4)
                del ways[0]
                for variable, value in zip(variables, kept, strict=True):
                    variable.assign(value)
        all_steps(step, x, y, rows)

    return run
