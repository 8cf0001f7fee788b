"""Frozen features: images a second, ours and others; bfloat16 and what it changes.

python benchmarks/features.py [--rounds 3] [--write]

Random weights, unless CXR_WEIGHTS names a folder with ImageNet's. A table for each backbone, of
one or two minutes, and one on bfloat16; each is printed as soon as it is there.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from gpu import flops
from rounds import machine, options, race, sgemm_ceiling, table, versions, write

SIZE, BATCH, SEED = 224, 32, 0
BACKBONES, IMAGES = ("ResNet50", "DenseNet121", "VGG16"), 32
PEERS = ("Keras, predict_on_batch", "ONNX Runtime")
OURS, SHORT = "ours, float32", "ours, bfloat16"


def build(name):
    """Make the network in Keras: ImageNet's weights where CXR_WEIGHTS has them, else random."""
    from cxrlib import backbone

    weights = backbone.find_weights(name, "auto" if os.environ.get("CXR_WEIGHTS") else "random")
    return backbone.load(name, SIZE, weights, pooling="avg")


def convert(name, folder):
    """Write the network and its images for all: preprocessed, float32 (n, 224, 224, 3)."""
    from cxrlib import backbone

    def once():
        model, problem = build(name), ""
        films = np.load(folder / "films.npy")
        np.save(folder / f"{name}.npy", backbone.prepare(films, name, SIZE))
        try:
            model(np.zeros((1, SIZE, SIZE, 3), np.float32))  # else Keras calls it "never called"
            model.export(str(folder / f"{name}.onnx"), format="onnx", verbose=False)
        except ImportError as error:
            problem = f"not installed ({error.name})"
        return flops(model), problem

    return once


def draw_films(folder):
    """Draw the films."""
    from cxrlib import phantom

    def once():
        films = phantom.make_cohort(IMAGES, (1, 1), size=SIZE, seed=SEED).images[:IMAGES]
        np.save(folder / "films.npy", films)

    return once


def batches(name, folder):
    """Give the prepared images in batches."""
    ready = np.load(folder / f"{name}.npy")
    return [ready[start : start + BATCH] for start in range(0, len(ready), BATCH)]


def on_keras(name, folder):
    """Ask Keras."""
    model, parts = build(name), batches(name, folder)
    return lambda: np.concatenate([np.asarray(model.predict_on_batch(part)) for part in parts])


def on_onnx(name, folder):
    """Ask ONNX Runtime as its first page shows it."""
    import onnxruntime

    path = folder / f"{name}.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    parts, given = batches(name, folder), session.get_inputs()[0].name
    return lambda: np.concatenate([session.run(None, {given: part})[0] for part in parts])


def on_ours(name, folder, precision):
    """Compute as `backbone.features` does; networks go to the benchmark's own cache."""
    from cxrlib import backbone
    from cxrlib.compute import engine

    os.environ["CXR_CACHE"] = str(folder / "cache")
    weights = backbone.find_weights(name, "auto" if os.environ.get("CXR_WEIGHTS") else "random")
    films, chosen = np.load(folder / "films.npy"), engine.Engine("openvino", precision)
    return lambda: backbone.compute_features(films, name, SIZE, weights, chosen, BATCH)


def rates(name, folder, rounds, short) -> str:
    """Race on one backbone: a table, and a sentence below it."""
    (made,) = race({"convert": partial(convert, name, folder)}, 1, 0)
    if made.problem:
        raise SystemExit(f"{name}: {made.problem}")
    work, problem = made.said
    ways = {
        PEERS[0]: partial(on_keras, name, folder),
        PEERS[1]: partial(on_onnx, name, folder),
        OURS: partial(on_ours, name, folder, "float32"),
    }
    if problem:
        ways.pop(PEERS[1])
    if short:
        ways[SHORT] = partial(on_ours, name, folder, "bfloat16")
    rows = race(ways, rounds)
    speed = {row.name: IMAGES / row.median for row in rows if row.seconds}
    best, truth = max(speed[peer] for peer in PEERS if peer in speed), rows[0].said
    lines, apart = [], {}
    for row in rows:
        if row.problem:
            lines.append([row.name, row.problem, "", "", ""])
            continue
        apart[row.name] = np.abs(row.said - truth).max() / np.abs(truth).max()
        cells = [f"{speed[row.name]:.1f}", f"{speed[row.name] / best:.2f}"]
        lines.append([row.name, *cells, f"{apart[row.name]:.0e}", f"{row.peak:.0f}"])
    same = "reached" if apart[OURS] <= 1e-4 else "**missed**"
    ceiling = sgemm_ceiling() * 1e9 / work
    return f"""{table([name, "images/s", "x best peer", "apart from Keras", "peak MB"], lines)}

{work / 1e9:.1f} GFLOP an image: NumPy's matrix products would allow {ceiling:.1f} images/s here.
Equal to 1e-4 of the largest feature, the promise: {same}.
{f"ONNX Runtime: {problem}." if problem else ""}"""


def effect(folder):
    """Compare features and a head's scores in both precisions; two table rows."""
    from cxrlib import backbone, metrics, phantom, split, training
    from cxrlib.compute import engine

    os.environ["CXR_CACHE"] = str(folder / "cache")
    name, classes = "ResNet50", ("healthy", "covid")
    weights = backbone.find_weights(name, "auto" if os.environ.get("CXR_WEIGHTS") else "random")

    def once():
        films = phantom.make_cohort(100, (1, 2), classes, size=SIZE, seed=SEED)
        parts = split.by_patient(films, 0.4, 0.1, SEED)
        y, found, said = [part.targets(classes) for part in parts], {}, {}
        for precision in ("float32", "bfloat16"):
            given = name, SIZE, weights, engine.Engine("openvino", precision), BATCH
            x = [backbone.compute_features(part.images[:], *given) for part in parts]
            head = training.dense_head(x[0], seed=SEED)
            training.fit(head, (x[0], y[0]), (x[1], y[1]), epochs=20, seed=SEED)
            said[precision], found[precision] = training.predict(head, x[2])[:, 1], np.vstack(x)
        exact, short = found.values()
        largest = np.abs(short - exact).max() / np.abs(exact).max()
        moved = np.abs(said["bfloat16"] - said["float32"]).max()
        rows = []
        for precision, probability in said.items():
            scores = metrics.binary_scores(y[2], probability)["value"]
            row = [f"{name}, {weights.kind} weights, {precision}"]
            row += [f"{scores[key]:.4f}" for key in ("accuracy", "auc", "f1")]
            rows.append([*row, *(["", ""] if precision == "float32" else
                                 [f"{largest:.1e}", f"{moved:.3f}"])])  # fmt: skip
        return rows

    return once


def main() -> None:
    """Measure and print table by table, and write if asked."""
    from cxrlib.compute import engine

    given = options(__doc__).parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    short = engine.computes_bfloat16("openvino", "")
    there = versions("keras", "tensorflow-cpu", "tensorflow", "openvino", "onnxruntime", "numpy")
    said = [
        f"""`python benchmarks/features.py`, {machine()}; {there}. {IMAGES} synthetic films (seed
{SEED}) of {SIZE} x {SIZE}, batches of {BATCH}, medians of {given.rounds} rounds in turn. The
others get them preprocessed (float32, three channels), ours does that itself, from grey pixels.
Ours is OpenVINO with the network that Keras exports, asked for a few images at a time on each core
({", ".join(f"{count} in {precision}" for precision, count in engine.CHUNKS.items())})."""
    ]
    print(said[0], flush=True)
    with tempfile.TemporaryDirectory(prefix="cxr-features-") as place:
        folder = Path(place)
        race({"films": partial(draw_films, folder)}, 1, 0)
        for name in BACKBONES:
            said.append(rates(name, folder, given.rounds, short))
            print(said[-1], flush=True)
        head = ["", "accuracy", "AUC", "F1", "features apart", "largest move of a probability"]
        rows = race({"effect": partial(effect, folder)}, 1, 0)[0].said if short else None
        said.append(f"""What bfloat16 changes. Synthetic films of 100 patients, divided by patient;
the same head, trained from the same start on features of either precision, and scored on the test
part. "Features apart" is the largest difference as a share of the largest feature.

{table(head, rows) if rows else "This processor has no bfloat16."}

Off by default; `CXR_PRECISION=bfloat16` turns it on, and the results then say so.""")
        print(said[-1])
    if given.write:
        write("features", "\n\n".join(said))


if __name__ == "__main__":
    main()
