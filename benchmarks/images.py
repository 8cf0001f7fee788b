"""Race ways of turning image files into augmented batches: the first time, and ever after.

python benchmarks/images.py [--rounds 5] [--images 300] [--write]

All do the same: read grey, 224 x 224, a random window of 85 to 100 %, flipped half the time,
Gaussian noise up to sigma 8, batches of 32 float32; with two threads or processes.
"""

from __future__ import annotations

import os
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
    kinds = [kinds[number % len(kinds)] for number in range(40)]
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
    decode, epoch = _ours(paths, side)

    def once():
        with tempfile.TemporaryDirectory() as folder:
            return epoch(decode(folder))

    return once


def ours_later(paths, folder, side=SIDE):
    """`cxrlib`: augmented batches from the array on disk."""
    decode, epoch = _ours(paths, side)
    found = decode(folder)
    return lambda: epoch(found)


def _ours(paths, side):
    from cxrlib import augment, images, training
    from cxrlib.cohort import Rows

    def decode(folder):
        found = images.decode(paths, folder, side, THREADS, progress=False, keys=map(str, paths))
        if found.failures:
            raise ValueError(found.failures)
        return found.images

    def epoch(array):
        names = [str(number) for number in range(len(array))]
        both = augment.Augmented(Rows(array), names, 1, SEED)
        copies = Rows(both, np.arange(1, len(both), 2))
        data = training.batches(copies, SIDE, batch_size=BATCH)
        return sum(len(data[number][0]) for number in range(len(data)))

    return decode, epoch


def _augment(image, rng):
    """Crop, flip and noise as most would write them; returns float32."""
    side = round(SIDE * rng.uniform(SMALLEST, 1))
    top, left = rng.integers(0, SIDE - side + 1, 2)
    image = cv2.resize(image[top : top + side, left : left + side], (SIDE, SIDE))
    image = cv2.flip(image, 1) if rng.random() < 0.5 else image
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    return image + np.float32(rng.uniform(0, SIGMA)) * grain


def opencv(paths):
    """Go the usual way: OpenCV in a keras.utils.PyDataset, asked by as many threads as the rest."""
    import keras

    class Films(keras.utils.PyDataset):
        def __len__(self):
            return -(-len(paths) // BATCH)

        def __getitem__(self, number):
            rng = np.random.default_rng([SEED, number])
            films = []
            for path in paths[number * BATCH : (number + 1) * BATCH]:
                film = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
                film = cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
                films.append(_augment(film, rng))
            return np.stack(films)[..., None]

    films = Films()

    def once():
        with ThreadPoolExecutor(THREADS) as pool:
            return sum(len(batch) for batch in pool.map(films.__getitem__, range(len(films))))

    return once


def torchvision(paths):
    """Read with torchvision v2 in a DataLoader; crop and resize are one step, as its pages show."""
    import torch
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    class Noise(torch.nn.Module):
        def forward(self, image):
            return image + torch.rand(()) * SIGMA * torch.randn_like(image)

    steps = v2.Compose(
        [
            v2.RandomResizedCrop(SIDE, (SMALLEST**2, 1), (1, 1), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32),
            Noise(),
        ]
    )
    return _loader(paths, lambda path: steps(decode_image(str(path), ImageReadMode.GRAY)))


def albumentations(paths):
    """Read with OpenCV and albumentations in a DataLoader; crop and resize are one step."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A  # noqa: N812

    cv2.setNumThreads(0)  # as its documentation says
    area = cv2.INTER_AREA
    steps = A.Compose(
        [
            A.RandomResizedCrop(
                (SIDE, SIDE), (SMALLEST**2, 1), (1, 1), interpolation=area, area_for_downscale=None
            ),
            A.HorizontalFlip(p=0.5),
            A.GaussNoise((0, SIGMA / 255), p=1),
        ]
    )

    def read(path):
        film = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        return steps(image=film)["image"].astype(np.float32)

    return _loader(paths, read)


def _loader(paths, read):
    from torch.utils.data import DataLoader, Dataset

    class Films(Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, number):
            return read(paths[number])

    loader = DataLoader(
        Films(),
        BATCH,
        num_workers=THREADS,
        persistent_workers=True,
        multiprocessing_context="fork",  # else Films would have to be sent to new processes
    )
    return lambda: sum(len(batch) for batch in loader)


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
    return lambda: sum(len(batch) for batch in data.as_numpy_iterator())


def grain(paths):
    """Grain with threads, OpenCV and, for JPEG, decoding at a quarter of the size."""
    import grain as g

    jpeg = paths[0].suffix == ".jpg"  # of a PNG, OpenCV would drop pixels: that aliases
    flag = cv2.IMREAD_REDUCED_GRAYSCALE_4 if jpeg else cv2.IMREAD_GRAYSCALE

    def read(path, rng):
        film = cv2.imread(str(path), flag)
        film = cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return _augment(film, rng)

    data = g.MapDataset.source(paths).seed(SEED).random_map(read)
    data = data.to_iter_dataset(g.ReadOptions(num_threads=THREADS, prefetch_buffer_size=64))
    data = data.batch(BATCH)
    return lambda: sum(len(batch) for batch in data)


def mapped(paths, folder):
    """Map an array of 224 x 224 into memory, augment with the usual NumPy, in threads."""
    from cxrlib import images

    stored = images.decode(paths, folder, SIDE, progress=False, keys=map(str, paths)).images
    array = np.load(stored.filename, mmap_mode="r")

    def batch(start):
        rng = np.random.default_rng([SEED, start])
        return np.stack([_augment(film, rng) for film in array[start : start + BATCH]])

    def once():
        with ThreadPoolExecutor(THREADS) as pool:
            return sum(len(found) for found in pool.map(batch, range(0, len(array), BATCH)))

    return once


def only_decoding(paths):
    """Ceiling: OpenCV's decoder alone, for JPEG at a quarter of the size, in threads."""
    flag = cv2.IMREAD_REDUCED_GRAYSCALE_4 if paths[0].suffix == ".jpg" else cv2.IMREAD_GRAYSCALE

    def once():
        with ThreadPoolExecutor(THREADS) as pool:
            return len(list(pool.map(lambda path: cv2.imread(str(path), flag).shape, paths)))

    return once


def only_copying(paths, folder):
    """Ceiling: the array's rows made float32, batch by batch, in threads."""
    from cxrlib import images

    array = images.decode(paths, folder, SIDE, progress=False, keys=map(str, paths)).images

    def batch(start):
        return len(array[np.arange(start, min(start + BATCH, len(array)))].astype(np.float32))

    def once():
        with ThreadPoolExecutor(THREADS) as pool:
            return sum(pool.map(batch, range(0, len(array), BATCH)))

    return once


FIRST = {
    "cxrlib, kept at 224 x 224": ours,
    "cxrlib, kept at 300 x 300 (its default)": partial(ours, side=300),
    "OpenCV in a PyDataset (the usual way)": opencv,
    "torchvision v2": torchvision,
    "albumentations": albumentations,
    "tf.data": tf_data,
    "grain, OpenCV": grain,
    "decoding alone (ceiling)": only_decoding,
}
LATER = {
    "cxrlib, kept at 224 x 224": ours_later,
    "cxrlib, kept at 300 x 300 (its default)": partial(ours_later, side=300),
    "a memory-mapped array and NumPy": mapped,
    "copying the array alone (ceiling)": only_copying,
}


def run_first(paths, rounds) -> list:
    """Race all ways from files to batches."""
    return race({name: partial(way, paths) for name, way in FIRST.items()}, rounds)


def run_later(paths, rounds, folder) -> list:
    """Race all ways from what is decoded to batches, several epochs a round."""
    ways = {
        name: partial(way, paths, f"{folder}/{n}") for n, (name, way) in enumerate(LATER.items())
    }
    ways["tf.data, cached in memory"] = partial(tf_data, paths, cached=True)
    return race({name: partial(often, way) for name, way in ways.items()}, rounds)


def often(way):
    """Make a way that goes through its images `EPOCHS` times."""
    once = way()
    return lambda: sum(once() for _ in range(EPOCHS))


def rate(row) -> str:
    """Images a second, or why there are none."""
    return row.problem or f"{row.said / row.median:,.0f}"


def best(rows) -> float:
    """Images a second of the quickest peer."""
    ours_or_ceiling = ("cxrlib", "decoding", "copying")
    return max(
        row.said / row.median
        for row in rows
        if not row.problem and not row.name.startswith(ours_or_ceiling)
    )


def lines(*races) -> list[list]:
    """Make table rows: the rate in each race, its ratio to the best peer, the memory."""
    found = []
    for rows in zip(*races, strict=True):
        line = [rows[0].name]
        for row, all_rows in zip(rows, races, strict=True):
            ratio = "" if row.problem else f"{row.said / row.median / best(all_rows):.2f}"
            line += [rate(row), ratio]
        found.append([*line, f"{max(row.peak for row in rows):,.0f}"])
    return found


def memory(paths) -> list:
    """Peak memory of decoding and one epoch: of 300 and of 1,000 images."""
    many = [paths[number % len(paths)] for number in range(1000)]
    return [
        race({"": partial(ours, many[:count], side=300)}, rounds=1, warm_up=0)[0]
        for count in (300, 1000)
    ]


def main() -> None:
    """Make the files, race, print and perhaps write the text."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=300, help="files of each kind (300)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), given.images)
        kinds = [sorted(Path(folder).glob(f"*.{kind}")) for kind in ("jpg", "png")]
        megabytes = [sum(path.stat().st_size for path in paths) / 1e6 for paths in kinds]
        first = [run_first(paths, given.rounds) for paths in kinds]
        later = run_later(kinds[0], given.rounds, folder)
        few, many = memory(kinds[0])
    text = report(given, megabytes, first, later, few, many)
    print(text)
    if given.write:
        write("images", text)


def report(given, megabytes, first, later, few, many) -> str:
    """Put all that was measured, and what it means, into words and two tables."""
    unit = "images/s"
    head = ["first time, from the files", f"JPEG, {unit}", "to the best peer"]
    head += [f"PNG, {unit}", "to the best peer", "peak MB"]
    head_later = ["every later epoch", unit, "to the best peer", "peak MB"]
    ratios = [rows[0].said / rows[0].median / best(rows) for rows in first]
    reached = later[0].said / later[0].median
    growth = many.peak / few.peak
    goals = [
        ("first time, JPEG, at least the best peer", ratios[0] >= 1, f"{ratios[0]:.2f} of it"),
        ("first time, PNG, at least the best peer", ratios[1] >= 1, f"{ratios[1]:.2f} of it"),
        ("later epochs, 3,400 images/s or more", reached >= 3400, f"{reached:,.0f}"),
        (
            "memory at 1,000 images at most 1.1 times that at 300",
            growth <= 1.1,
            f"{growth:.2f} times ({few.peak:,.0f} and {many.peak:,.0f} MB)",
        ),
    ]
    said = "\n".join(
        f"- {goal}: {'reached' if ok else 'MISSED'}, {what}" for goal, ok, what in goals
    )
    packages = "numpy", "opencv-python-headless", "pillow", "keras", "tensorflow-cpu", "tensorflow"
    packages += "torch", "torchvision", "albumentations", "grain"
    return f"""\
`python benchmarks/images.py --rounds {given.rounds}` on {machine()}; {versions(*packages)}.

{given.images} synthetic radiographs (40 phantoms rendered at 512 x 512, enlarged to 900 to 1,100 \
pixels a side, with noise of their own; seed {SEED}), once as JPEG of quality 90 \
({megabytes[0]:.0f} MB) and once as PNG ({megabytes[1]:.0f} MB), in the page cache. All make \
float32 batches of {BATCH} images of {SIDE} x {SIDE}: read grey, resize, a random window of 85 to \
100 %, flipped half the time, Gaussian noise up to sigma {SIGMA:g}; with {THREADS} threads or \
processes. Medians of {given.rounds} rounds in turn, each way in a process of its own.

{table(head, lines(*first))}

`cxrlib` decodes all files into its array on disk, and then goes through that array once; the \
others go from file to batch. Grain, tf.data and the ceiling decode a JPEG at a quarter of its \
size, the least that is 224 pixels, as `cxrlib` does for 224 (a half for 300).

{table(head_later, lines(later))}

Each round is {EPOCHS} epochs. The memory-mapped array holds 224 x 224 images.

The goals, judged by the row of `cxrlib` that keeps what the others make, 224 x 224; for memory \
by the default, 300 x 300:

{said}
"""


if __name__ == "__main__":
    main()
