"""Frozen features: images a second, ours and others; bfloat16 and what it changes.

python benchmarks/features.py [--rounds 5] [--write]

Random weights, unless CXR_WEIGHTS names a folder with ImageNet's. About 12 minutes on two cores.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from gpu import flops
from rounds import machine, options, race, sgemm_ceiling, table, versions, write

SIZE, BATCH, SEED = 224, 32, 0
BACKBONES, IMAGES = ("ResNet50", "DenseNet121", "VGG16"), 64
ORIGINALS, COPIES = 96, 3  # of the race while augmenting: 384 films, as heads.py has
MORE_ROUNDS = 9  # in that race
PEERS = {"Keras, predict", "Keras, predict_on_batch", "ONNX Runtime", "OpenVINO, as it comes"}
OURS, SHORT = "ours, float32", "ours, bfloat16"


def weights_of(name):
    """Give ImageNet's weights where CXR_WEIGHTS has them, else random ones."""
    from cxrlib.weights import find_weights, local_file

    folder = os.environ.get("CXR_WEIGHTS")
    there = folder and local_file(name, Path(folder).expanduser())
    return find_weights(name, "imagenet" if there else "random", SEED)


def build(name):
    """Make the network in Keras."""
    from cxrlib import backbone

    return backbone.load(name, SIZE, weights_of(name), SEED, pooling="avg")


def convert(name, folder, pipe):
    """Write the network for the peers, in a process of its own; sends FLOPs, weights, problem."""
    model, problem = build(name), ""
    model.export(str(folder / f"{name}.xml"), format="openvino", verbose=False)
    try:
        model(np.zeros((1, SIZE, SIZE, 3), np.float32))  # else Keras calls it "never called"
        model.export(str(folder / f"{name}.onnx"), format="onnx", verbose=False)
    except ImportError as error:
        problem = f"not installed ({error.name})"
    pipe.send((flops(model), weights_of(name).kind, problem))


def grey_images(folder):
    """Give what ours begins with: uint8 (n, 224, 224)."""
    return np.load(folder / "films.npy")


def ready_images(name, folder):
    """Prepare the same images for the others: float32 (n, 224, 224, 3)."""
    from cxrlib import backbone

    return backbone.prepare(grey_images(folder), name, SIZE)


def on_keras(name, folder, how):
    """Keras's own ways."""
    model, ready = build(name), ready_images(name, folder)
    if how == "predict":
        return lambda: np.asarray(model.predict(ready, batch_size=BATCH, verbose=0))
    parts = [ready[start : start + BATCH] for start in range(0, len(ready), BATCH)]
    return lambda: np.concatenate([np.asarray(model.predict_on_batch(part)) for part in parts])


def on_onnx(name, folder):
    """ONNX Runtime as its first page shows it."""
    import onnxruntime

    if not (folder / f"{name}.onnx").exists():
        raise ImportError("tf2onnx", name="tf2onnx")
    session = onnxruntime.InferenceSession(
        folder / f"{name}.onnx", providers=["CPUExecutionProvider"]
    )
    ready, given = ready_images(name, folder), session.get_inputs()[0].name
    parts = [ready[start : start + BATCH] for start in range(0, len(ready), BATCH)]
    return lambda: np.concatenate([session.run(None, {given: part})[0] for part in parts])


def on_openvino(name, folder, precision):
    """OpenVINO as its first page shows it: compiled with its defaults, asked in turn."""
    import openvino

    hint = {"INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.compile_model(folder / f"{name}.xml", "CPU", hint)
    ready = ready_images(name, folder)
    parts = [ready[start : start + BATCH] for start in range(0, len(ready), BATCH)]
    return lambda: np.concatenate([compiled(part)[0].copy() for part in parts])


def computer(name, folder, precision, weights=None):
    """Give what `backbone.features` asks; networks go to the benchmark's own cache."""
    from cxrlib import backbone, engine

    os.environ["CXR_CACHE"] = str(folder / "cache")
    chosen = engine.Engine("openvino", precision)
    return backbone._extractor(name, SIZE, weights or weights_of(name), chosen)


def on_ours(name, folder, precision):
    """Compute as `backbone.features` does."""
    compute, grey = computer(name, folder, precision), grey_images(folder)
    return lambda: compute(grey)


def augmenting(folder, precision, how):
    """Compute alone on images that are ready, or augment meanwhile, or before."""
    from cxrlib import augment, backbone, phantom

    films = phantom.make_cohort(ORIGINALS, (1, 1), seed=SEED)
    copies = augment.expand(films, COPIES, SEED).images
    compute = computer("ResNet50", folder, precision)
    if how == "alone":
        ready = backbone.resize(copies[:], SIZE)
        return lambda: len(compute(ready))
    if how == "in turn":
        return lambda: len(compute(backbone.resize(copies[:], SIZE)))
    os.environ |= {"CXR_ENGINE": "openvino", "CXR_PRECISION": precision}
    number = iter(range(1000))

    def once():
        # An empty cache each time; the network stays in memory
        os.environ["CXR_CACHE"] = str(folder / f"{precision}-{next(number)}")
        weights = weights_of("ResNet50")
        return len(backbone.features(copies, "ResNet50", SIZE, weights, BATCH, False))

    return once


def effect(name, weights, folder) -> list[list]:
    """Compare features and a head's scores in both precisions; two rows."""
    from cxrlib import backbone, metrics, phantom, split, training

    films = phantom.make_cohort(100, (1, 3), ("healthy", "covid"), size=SIZE, seed=SEED)
    parts = split.by_patient(films, 0.4, 0.1, SEED)
    found, said = {}, {}
    for precision in ("float32", "bfloat16"):
        compute = computer(name, folder, precision, weights)
        x = [compute(backbone.resize(part.images[:], SIZE)) for part in parts]
        y = [part.targets(("healthy", "covid")) for part in parts]
        head = training.dense_head(x[0], seed=SEED)
        training.fit(head, (x[0], y[0]), (x[1], y[1]), epochs=20, seed=SEED)
        said[precision] = training.predict(head, x[2])[:, 1]
        found[precision] = np.vstack(x)
        del compute
        backbone._last.clear()
        gc.collect()
    exact, short = found.values()
    largest = np.abs(short - exact).max() / np.abs(exact).max()
    moved = np.abs(said["bfloat16"] - said["float32"])
    flipped = ((said["bfloat16"] >= 0.5) != (said["float32"] >= 0.5)).sum()
    rows = []
    for precision, probability in said.items():
        scores = metrics.binary_scores(y[2], probability, resamples=10)["value"]
        row = [f"{name}, {weights.kind} weights, {precision}", f"{scores['accuracy']:.4f}"]
        row += [f"{scores['auc']:.4f}", f"{scores['f1']:.4f}"]
        same = precision == "float32"
        row += ["", "", ""] if same else [f"{largest:.1e}", f"{moved.max():.3f}", str(flipped)]
        rows.append(row)
    return rows


def effects(folder, pipe):
    """Send rows of all comparisons: random weights, and ImageNet's where they are at hand."""
    from cxrlib import backbone

    rows = effect("ResNet50", backbone.find_weights("ResNet50", "random", SEED), folder)
    if weights_of("VGG16").kind != "random":
        rows += effect("VGG16", weights_of("VGG16"), folder)
    pipe.send(rows)


def apart(function, *given):
    """Call a function in a new process, whose memory ends with it; gives what it sends."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=function, args=(*given, theirs))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    return found


def rates(name, folder, rounds, ceiling, can_short):
    """Race on one backbone: table rows, and sentences on the goals."""
    work, kind, _ = apart(convert, name, folder)
    competitors = {
        "Keras, predict": partial(on_keras, name, folder, "predict"),
        "Keras, predict_on_batch": partial(on_keras, name, folder, "predict_on_batch"),
        "ONNX Runtime": partial(on_onnx, name, folder),
        "OpenVINO, as it comes": partial(on_openvino, name, folder, "f32"),
        OURS: partial(on_ours, name, folder, "float32"),
    }
    if can_short:
        competitors["OpenVINO, as it comes, bfloat16"] = partial(on_openvino, name, folder, "bf16")
        competitors[SHORT] = partial(on_ours, name, folder, "bfloat16")
    rows = race(competitors, rounds)
    truth = rows[0].said
    speed = {row.name: IMAGES / row.median for row in rows if row.seconds}
    best = max(value for key, value in speed.items() if key in PEERS)
    lines = []
    for row in rows:
        if row.problem:
            lines.append([name, row.name, row.problem, "", "", ""])
            continue
        error = np.abs(row.said - truth).max() / np.abs(truth).max()
        cells = [f"{speed[row.name]:.1f}", f"{speed[row.name] / best:.2f}", f"{error:.0e}"]
        lines.append([name, row.name, *cells, f"{row.peak:.0f}"])
    lines.append([name, "(float32 matrix products)", f"{ceiling * 1e9 / work:.1f}", "", "", ""])
    error = np.abs(next(row.said for row in rows if row.name == OURS) - truth).max()
    equal = error / np.abs(truth).max()
    said = f"{name} ({kind} weights, {work / 1e9:.1f} GFLOP an image): float32 "
    said += f"{speed[OURS] / best:.2f} of the best peer ({goal(speed[OURS] >= best)}), equal to "
    said += f"{equal:.0e} of the largest feature ({goal(equal <= 1e-4)})"
    if SHORT in speed:
        said += f"; bfloat16 {speed[SHORT] / best:.2f} ({goal(speed[SHORT] >= 2 * best)})"
    return lines, f"- {said}."


def goal(reached: bool) -> str:
    """Say whether a goal is reached."""
    return "reached" if reached else "**missed**"


def report(folder: Path, rounds: int) -> str:
    """Measure all and put it into words."""
    from cxrlib import engine, phantom

    np.save(
        folder / "films.npy",
        phantom.make_cohort(IMAGES, (1, 1), size=SIZE, seed=SEED).images[:IMAGES],
    )
    can_short = "BF16" in engine._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    ceiling = sgemm_ceiling()
    lines, said = [], []
    for name in BACKBONES:
        more, sentence = rates(name, folder, rounds, ceiling, can_short)
        lines, said = lines + more, [*said, sentence]
    precisions = ["float32", "bfloat16"][: 1 + can_short]
    ways = {
        "alone": "backbone alone, images ready",
        "ahead": "ours: `features`, copies made when read",
        "in turn": "all copies first, then the backbone",
    }
    competitors = {
        (p, how): partial(augmenting, folder, p, how) for p in precisions for how in ways
    }
    found = {row.name: row for row in race(competitors, max(rounds, MORE_ROUNDS))}
    overlap = []
    for (precision, how), row in found.items():
        rivals = zip(row.seconds, found[precision, "alone"].seconds, strict=True)
        ratio = np.median([ours / alone for ours, alone in rivals])
        overlap.append([ways[how], precision, f"{row.median:.2f}", f"{ratio:.3f}"])
        if how == "ahead":
            what = f"- Augmenting meanwhile, {precision}: {ratio:.3f} times the backbone alone"
            said.append(f"{what} ({goal(ratio <= 1.05)}; 1.05 was the goal).")
    compared = apart(effects, folder) if can_short else []
    header = ["backbone", "way", "images/s", "x best peer", "apart from Keras", "peak MB"]
    there = versions("keras", "tensorflow-cpu", "tensorflow", "openvino", "onnxruntime", "numpy")
    chunks = ", ".join(f"{count} in {precision}" for precision, count in engine.CHUNKS.items())
    changed = ["", "accuracy", "AUC", "F1", "features apart", "largest move of a probability"]
    return f"""
`python benchmarks/features.py`, {machine()}; {there}. {SIZE} x {SIZE}, batches of {BATCH},
{rounds} rounds in turn, medians; synthetic films (seed {SEED}). All work on the same images;
the others get them preprocessed (float32, three channels), ours does that itself, from grey
pixels. Peers are Keras on TensorFlow, ONNX Runtime and OpenVINO with their defaults, in float32;
ours runs OpenVINO too, on each core by itself, a few images at a time ({chunks}),
and VGG16 with Winograd's convolution (`cxrlib.winograd`).
Matrix products run here at {ceiling:.0f} GFLOP/s (NumPy's), which would allow the rate in brackets;
oneDNN, which OpenVINO contains, gets more out of this processor than NumPy's library.

{table(header, lines)}

{chr(10).join(said)}

`features` of {ORIGINALS * (COPIES + 1)} films of 300 x 300, three of four augmented, resized to
{SIZE}, nothing in the cache, ResNet50; medians of {max(rounds, MORE_ROUNDS)} rounds in turn, of
the seconds and of each round's ratio:

{table(["way", "precision", "s", "x backbone alone"], overlap)}

What bfloat16 changes. Two hundred synthetic films, divided by patient; the same head, trained
from the same start on features of either precision, and scored on the test part. "Features apart"
is the largest difference as a share of the largest feature.

{table([*changed, "films called otherwise"], compared) if compared else "This processor has none."}

Off by default; `CXR_PRECISION=bfloat16` turns it on, and the results then say so.
"""


def main() -> None:
    """Measure, print, and write if asked."""
    given = options(__doc__).parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory(prefix="cxr-features-") as folder:
        text = report(Path(folder), given.rounds)
    print(text)
    if given.write:
        write("features", text)


if __name__ == "__main__":
    main()
