"""Race ways of turning image files into augmented batches: the first time, and ever after.

python benchmarks/images.py [--rounds 3] [--images 192] [--write]

All do the same: read grey, 224 x 224, a random window of 85 to 100 %, flipped half the time,
Gaussian noise up to sigma 8, batches of 32 float32; with two threads.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from rounds import machine, options, race, table, versions, write

SIDE, BATCH, THREADS, SMALLEST, SIGMA, SEED = 224, 32, 2, 0.85, 8.0, 0
EPOCHS = 4  # in a round, where nothing is decoded


def make_files(folder: Path, count: int) -> None:
    """Write synthetic radiographs of about 1000 x 1000 pixels, each as JPEG and as PNG."""
    from cxrlib import phantom

    rng = np.random.default_rng(SEED)
    kinds = [(label, scanner) for label in phantom.LABELS for scanner in phantom.SCANNERS]
    bodies = [phantom.render(*kind, seed=[SEED, n], size=512).image for n, kind in enumerate(kinds)]
    for number in range(count):
        size = [int(side) for side in rng.integers(900, 1101, 2)]
        film = cv2.resize(bodies[number % len(bodies)], size, interpolation=cv2.INTER_CUBIC)
        film = film * np.float32(rng.uniform(0.9, 1))
        film += 2 * rng.standard_normal(film.shape, dtype=np.float32)
        film = np.clip(np.rint(film), 0, 255).astype(np.uint8)
        path = str(folder / f"{number:04}")
        cv2.imwrite(f"{path}.jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(f"{path}.png", film)


def ours(paths, side=SIDE):
    """`cxrlib`: decode into an array on disk, then augmented batches from it."""

    def once():
        with tempfile.TemporaryDirectory() as folder:
            return _epoch(_decode(paths, folder, side))

    return once


def ours_later(paths, folder, side=SIDE):
    """`cxrlib`: augmented batches from the array on disk."""
    array = _decode(paths, folder, side)
    return lambda: sum(_epoch(array) for _ in range(EPOCHS))


def _decode(paths, folder, side):
    from cxrlib import images

    found = images.decode(paths, folder, side, THREADS, progress=False, keys=map(str, paths))
    if found.failures:
        raise ValueError(found.failures)
    return found.images


def _epoch(array):
    from cxrlib import augment, training
    from cxrlib.cohort import Rows

    names = [str(number) for number in range(len(array))]
    both = augment.Augmented(Rows(array), names, 1, SEED)
    copies = Rows(both, np.arange(1, len(both), 2))
    data = training.batches(copies, SIDE, batch_size=BATCH)
    return sum(len(data[number][0]) for number in range(len(data)))


def _augment(image, rng):
    """Crop, flip and noise as most would write them; returns float32."""
    side = round(SIDE * rng.uniform(SMALLEST, 1))
    top, left = rng.integers(0, SIDE - side + 1, 2)
    image = cv2.resize(image[top : top + side, left : left + side], (SIDE, SIDE))
    image = cv2.flip(image, 1) if rng.random() < 0.5 else image
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    return image + np.float32(rng.uniform(0, SIGMA)) * grain


def _in_threads(read, count):
    """Count the images of an epoch of batches, where ``read(number)`` gives one as uint8."""

    def batch(start):
        rng = np.random.default_rng([SEED, start])
        numbers = range(start, min(start + BATCH, count))
        return np.stack([_augment(read(number), rng) for number in numbers])

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(len(found) for found in pool.map(batch, range(0, count, BATCH)))


def opencv(paths):
    """Go the usual way: OpenCV and NumPy, batch by batch, in threads."""

    def read(number):
        film = cv2.imread(str(paths[number]), cv2.IMREAD_GRAYSCALE)
        return cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA)

    return lambda: _in_threads(read, len(paths))


def mapped(paths, folder):
    """Map an array of 224 x 224 into memory, augment with the usual NumPy, in threads."""
    array = _decode(paths, folder, SIDE)
    return lambda: sum(_in_threads(array.__getitem__, len(array)) for _ in range(EPOCHS))


def tf_data(paths, cached=False):
    """tf.data, its own number of threads; `cached` keeps the resized images in memory."""
    import tensorflow as tf

    def read(path):
        content = tf.io.read_file(path)
        if paths[0].suffix == ".png":
            film = tf.io.decode_png(content, channels=1)
        else:
            film = tf.io.decode_jpeg(content, channels=1, ratio=4)  # a quarter of its size
        film = tf.image.resize(film, (SIDE, SIDE), method="area")
        return tf.cast(tf.round(film), tf.uint8)

    def change(film):
        side = tf.cast(tf.round(SIDE * tf.random.uniform((), SMALLEST, 1)), tf.int32)
        film = tf.image.random_crop(film, tf.stack([side, side, 1]))
        film = tf.image.random_flip_left_right(tf.image.resize(film, (SIDE, SIDE)))
        return film + tf.random.uniform((), 0, SIGMA) * tf.random.normal((SIDE, SIDE, 1))

    data = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    data = data.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    data = data.cache() if cached else data
    data = data.map(change, num_parallel_calls=tf.data.AUTOTUNE)
    data = data.batch(BATCH).prefetch(tf.data.AUTOTUNE)
    epochs = EPOCHS if cached else 1
    return lambda: sum(len(b) for _ in range(epochs) for b in data.as_numpy_iterator())


FIRST = {
    "cxrlib, kept at 224 x 224": ours,
    "cxrlib, kept at 300 x 300 (its default)": partial(ours, side=300),
    "OpenCV and NumPy (the usual way)": opencv,
    "tf.data": tf_data,
}


def later(paths, folder) -> dict:
    """Ways from what is decoded to batches."""
    return {
        "cxrlib, kept at 224 x 224": partial(ours_later, paths, f"{folder}/224"),
        "cxrlib, kept at 300 x 300 (its default)": partial(ours_later, paths, f"{folder}/300", 300),
        "a memory-mapped array and NumPy": partial(mapped, paths, f"{folder}/224"),
        "tf.data, cached in memory": partial(tf_data, paths, cached=True),
    }


def lines(*races) -> list[list]:
    """Make table rows: images a second in each race, the ratio to the best peer, the memory."""
    found = []
    for rows in zip(*races, strict=True):
        line = [rows[0].name]
        for row, all_rows in zip(rows, races, strict=True):
            peers = [one for one in all_rows if not one.problem and "cxrlib" not in one.name]
            best = max((one.said / one.median for one in peers), default=float("nan"))
            speed = row.problem or f"{row.said / row.median:,.0f}"
            line += [speed, "" if row.problem else f"{row.said / row.median / best:.2f}"]
        found.append([*line, f"{max(row.peak for row in rows):,.0f}"])
    return found


def main() -> None:
    """Make the files, race, print each table as soon as it is there, and perhaps write both."""
    parser = options(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("--images", type=int, default=192, help="files of each kind (192)")
    given = parser.parse_args()
    unit, ratio = "images/s", "to the best peer"
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), given.images)
        jpeg, png = [sorted(Path(folder).glob(f"*.{kind}")) for kind in ("jpg", "png")]
        first = [
            race({name: partial(way, paths) for name, way in FIRST.items()}, given.rounds)
            for paths in (jpeg, png)
        ]
        head = ["first time, from the files", f"JPEG, {unit}", ratio, f"PNG, {unit}", ratio]
        text = f"""\
`python benchmarks/images.py --rounds {given.rounds}` on {machine()}; \
{versions("numpy", "opencv-python-headless", "pillow", "keras", "tensorflow-cpu", "tensorflow")}.

{given.images} synthetic radiographs of 900 to 1,100 pixels a side (seed {SEED}), once as JPEG of \
quality 90 and once as PNG, in the page cache. All make float32 batches of {BATCH} images of \
{SIDE} x {SIDE}: read grey, resize, a random window of 85 to 100 %, flipped half the time, \
Gaussian noise up to sigma {SIGMA:g}; with {THREADS} threads. Medians of {given.rounds} rounds \
in turn, each way in a process of its own.

{table([*head, "peak MB"], lines(*first))}

`cxrlib` decodes all files into its array on disk, and then goes through that array once; the \
others go from file to batch. tf.data decodes a JPEG at a quarter of its size, the least that is \
224 pixels, as `cxrlib` does for 224 (a half for 300).
"""
        print(text, flush=True)
        rows = lines(race(later(jpeg, folder), given.rounds))
    more = f"{table(['every later epoch', unit, ratio, 'peak MB'], rows)}\n\n"
    more += f"Each round is {EPOCHS} epochs. The memory-mapped array holds 224 x 224 images. Its "
    more += "pages, as those of `cxrlib`, count as memory here; the system takes them back."
    print(more)
    if given.write:
        write("images", f"{text}\n{more}")


if __name__ == "__main__":
    main()
