"""Training on accelerators: in mixed precision on a GPU, on several devices at once.

Keras does both (``dtype_policy``, ``keras.distribution``). Both must be in force before a network
is built, and a lesson builds its network without knowing the machine. So a twin is built and
trained, and its weights are copied into the lesson's network, which stays in float32.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

from cxrlib.machine import start_keras, training_precision


def sharing(batch_size: int, images: int | None = None) -> list[str]:
    """Names of the devices that share a batch: as many as divide it evenly.

    ``keras.distribution`` works on JAX. On TensorFlow Keras calls it a prototype that must not be
    used, on PyTorch there is none (Keras 3.13 to 3.15): there one device trains.

    Parameters
    ----------
    batch_size : int
    images : int, optional
        Size of the smallest set that is given; there are no more devices than images.
    """
    keras = start_keras()
    if keras.backend.backend() != "jax":
        return []
    there = keras.distribution.list_devices()
    most = min(len(there), batch_size if images is None else images)
    return there[: max((n for n in range(1, most + 1) if batch_size % n == 0), default=1)]


@contextmanager
def twin(model, batch_size: int, images: int | None = None):
    """Give a copy of a network to train; at the end the network gets the copy's weights.

    Where nothing is to be gained (one device, float32) it gives the network itself.

    Parameters
    ----------
    model : keras.Model
    batch_size, images : int
        As in :func:`sharing`.

    Yields
    ------
    model : keras.Model
        Not compiled, if it is a copy.
    devices : int
        How many share a batch; above 1 the batches must be :func:`even`.
    """
    keras = start_keras()
    policy, names = training_precision(), sharing(batch_size, images)
    if policy == "float32" and len(names) < 2:
        yield model, 1
        return
    several = len(names) > 1
    spread = keras.distribution.DataParallel(devices=names).scope() if several else nullcontext()
    with spread, global_policy(policy):
        copy = _rebuilt(model, policy)
        copy.set_weights(model.get_weights())
        try:
            yield copy, max(len(names), 1)
        finally:
            model.set_weights(copy.get_weights())


@contextmanager
def global_policy(name: str):
    """Keras takes it for a model as a whole, and by it scales the loss in float16."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _rebuilt(model, policy: str):
    """Copy a network, its layers in another precision but for the last; weights are new."""
    import keras

    output = model.layers[-1]

    def layer(old):
        settings = old.get_config()
        return old.__class__.from_config(settings | ({} if old is output else {"dtype": policy}))

    return keras.models.clone_model(model, clone_function=layer, recursive=True)


def even(data, images: int, batch_size: int, devices: int):
    """Give the same batches, each cut to a number that devices can share.

    Of the last batch up to ``devices - 1`` images are left out of an epoch: other ones each time
    where the order is shuffled.

    Parameters
    ----------
    data : keras.utils.PyDataset
        Of `images` in batches of `batch_size`, which `devices` divides.
    """
    import keras

    whole, rest = divmod(images, batch_size)

    class EvenBatches(keras.utils.PyDataset):
        def __len__(self):
            return whole + (rest >= devices)

        def on_epoch_begin(self):
            data.on_epoch_begin()

        def __getitem__(self, number):
            return tuple(part[: len(part) // devices * devices] for part in data[number])

    return data if devices == 1 else EvenBatches()
