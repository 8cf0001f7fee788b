"""What larger collections would take, worked out from what benchmarks/scale.py has measured."""

from __future__ import annotations

import math

from rounds import table

from cxrlib.bulk import SHARD

COLLECTIONS = {"CheXpert": 224_316, "ten million": 10_000_000}
PORT = 1.25e9  # bytes/s: a network port of 10 Gbit/s, an assumption
GIGAFLOP = 7.6  # of ResNet50 at 224 pixels: 3.8 multiply-adds (arXiv:1512.03385, table 1)
CORE_PRICE = 0.05  # dollars an hour for one core: an assumption
ACCELERATORS = {  # dollars an hour: assumptions; peak TFLOP/s (16 bit, dense) of the data sheets
    "NVIDIA T4": (0.40, 65, "https://www.nvidia.com/en-us/data-center/tesla-t4/"),
    "NVIDIA L4": (0.80, 121, "https://www.nvidia.com/en-us/data-center/l4/"),
    "NVIDIA A100": (3.00, 312, "https://www.nvidia.com/en-us/data-center/a100/"),
    "NVIDIA H100 SXM": (5.00, 989, "https://www.nvidia.com/en-us/data-center/h100/"),
}


def plan(m: dict) -> str:
    """Word the plan.

    Parameters
    ----------
    m : dict
        ``file``: bytes of a film's file; ``film``: its side; ``row``, ``note``: bytes of features
        and of notes stored for an image; ``name``: bytes of a name in memory; ``pixels``: bytes of
        a decoded image; ``decoded``, ``large``: images a second on one core, decoding alone and
        with ResNet50; ``engine``: what computes it; ``worker``: its MB; ``tasks``: a second;
        ``ready``: seconds until workers have a network.
    """
    return "\n\n".join([_inputs(m), _volumes(m), _hours(m), _cost(m), _limits(m)])


def _inputs(m) -> str:
    rows = [
        ["F", f"bytes of a film's file (synthetic JPEG, {m['film']} x {m['film']})",
         f"{m['file']:,.0f}"],
        ["P", "bytes of a decoded image (300 x 300, one byte each)", f"{m['pixels']:,}"],
        ["R", "bytes stored of an image's features (ResNet50: 2,048 float32, and checksums)",
         f"{m['row']:,.0f}"],
        ["N", "bytes noted of an image (its name, and its part of the checksums)",
         f"{m['note']:,.0f}"],
        ["B", "bytes of a name in the client's memory (a name of this length)",
         f"{m['name']:,.0f}"],
        ["D", "images decoded in a second by one core", f"{m['decoded']:,.0f}"],
        ["L", f"images in a second on one core, from file to ResNet50's features ({m['engine']})",
         f"{m['large']:,.1f}"],
        ["S", "tasks that the scheduler hands out in a second", f"{m['tasks']:,.0f}"],
        ["W", "peak memory of a process that runs ResNet50, MB", f"{m['worker']:,.0f}"],
        ["T", "seconds until new workers have loaded their network and done two shards",
         f"{m['ready']:,.0f}"],
    ]  # fmt: skip
    return (
        "These follow from the measurements of that run; change one, and the rest follows.\n\n"
        + table(["", "measured", "value"], rows)
    )


def _volumes(m) -> str:
    header = ["", *(f"{name} ({count:,})" for name, count in COLLECTIONS.items())]
    each = list(COLLECTIONS.values())
    shards = [math.ceil(count / SHARD) for count in each]
    rows = [
        [f"shards of {SHARD:,} images: n / {SHARD:,}", *(f"{some:,}" for some in shards)],
        ["objects: 2 a shard, and 3", *(f"{2 * some + 3:,}" for some in shards)],
        ["read over the network: n F", *(_bytes(count * m["file"]) for count in each)],
        ["features written: n R", *(_bytes(count * m["row"]) for count in each)],
        ["notes written: n N", *(_bytes(count * m["note"]) for count in each)],
        ["decoded images, where kept: n P", *(_bytes(count * m["pixels"]) for count in each)],
        ["hours of one core: n / L / 3,600",
         *(f"{count / m['large'] / 3600:,.0f}" for count in each)],
        ["names in the client's memory: n B", *(_bytes(count * m["name"]) for count in each)],
    ]  # fmt: skip
    return "### Shards and volumes (ResNet50 at 224 pixels)\n\n" + table(header, rows)


def _hours(m) -> str:
    shard = SHARD / m["large"]
    rows = []
    for cores in (16, 64, 256, 1024):
        row = [f"{cores:,}"]
        for count in COLLECTIONS.values():
            turns = math.ceil(math.ceil(count / SHARD) / cores)
            hours = (turns * shard + m["ready"]) / 3600
            busy = count / m["large"] / 3600 / (hours * cores)
            row += [_time(hours), f"{busy:.0%}"]
        rows.append([*row, f"{_bytes(cores * m['large'] * m['file'])}/s"])
    header = ["cores"]
    for name in COLLECTIONS:
        header += [name, "of it at work"]
    return (
        f"### How long on processors\n\nA shard takes {SHARD:,} / L = {shard:,.0f} s of one core, "
        "and cores take turns: hours = (shards / cores, rounded up) x that + T. Where there are "
        "hardly more shards than cores, many idle in the last turn: take smaller shards "
        "(`shard=256`) there. The last column is what all cores read: cores x L x F.\n\n"
        + table([*header, "read"], rows)
    )


def _cost(m) -> str:
    rows = [["one processor core", f"{CORE_PRICE:.2f}", f"{m['large']:,.1f} (measured)", "", "",
             *(f"{count / m['large'] / 3600 * CORE_PRICE:,.2f}"
               for count in COLLECTIONS.values())]]  # fmt: skip
    for name, (price, peak, source) in ACCELERATORS.items():
        even, most = m["large"] * price / CORE_PRICE, peak * 1000 / GIGAFLOP
        rows.append([
            f"[{name}]({source})", f"{price:.2f}", "not measured", f"{even:,.0f}",
            f"{most:,.0f}, fed by {most / m['decoded']:,.0f} cores",
            *(f"at least {count / most / 3600 * (price + most / m['decoded'] * CORE_PRICE):,.2f}"
              for count in COLLECTIONS.values()),
        ])  # fmt: skip
    header = ["device", "$ an hour (assumed)", "images/s", "cheaper than cores from, images/s",
              "bound, images/s", *(f"{name}, $" for name in COLLECTIONS)]  # fmt: skip
    return (
        "### Cost by device\n\nCost = n / (images/s) / 3,600 x price. **The prices are "
        "assumptions, not measured: put your own into `benchmarks/scaleplan.py`.** Only the "
        "processor was measured. For an accelerator the table says from which speed on it is "
        "cheaper than cores of this kind (L x its price / a core's price), and a bound that it "
        f"cannot pass: its peak from the maker's page divided by {GIGAFLOP} GFLOP an image "
        "(3.8 multiply-adds, [He et al. 2015](https://arxiv.org/abs/1512.03385), table 1), with "
        "as many cores as decode for that speed (bound / D), which are paid too. The real cost "
        "lies between that least one and whatever speed you measure.\n\n" + table(header, rows)
    )


def _limits(m) -> str:
    shards = math.ceil(COLLECTIONS["CheXpert"] / SHARD)
    by_scheduler, by_port = m["tasks"] * SHARD / m["large"], PORT / m["file"] / m["large"]
    memory = COLLECTIONS["ten million"] * m["name"]
    return "\n".join([
        "### Where it stops scaling",
        "",
        f"1. Number of shards: CheXpert has {shards}, so no more than {shards} cores can work at "
        f"once; with shards of 256 images {math.ceil(COLLECTIONS['CheXpert'] / 256):,}.",
        f"2. Storage: a port of 10 Gbit/s (an assumption) carries 1.25 GB/s / F = "
        f"{PORT / m['file']:,.0f} images/s, enough for {by_port:,.0f} cores (divided by L). Films "
        "in a detector's full size have files that are many times larger, and so many times "
        "fewer cores; storage that many machines read from has to add up its ports.",
        f"3. The scheduler: S x {SHARD:,} images a task = {m['tasks'] * SHARD:,.0f} images/s, "
        f"{by_scheduler:,.0f} cores. "
        + ("Storage comes first." if by_scheduler > by_port else "Take larger shards then."),
        f"4. The client keeps all names: {_bytes(memory)} for ten million (n B). "
        "Above that, make a store for each part of the collection.",
        f"5. Decoding beside an accelerator: one that does r images/s needs r / D cores, such as "
        f"{1000 / m['decoded']:,.1f} for 1,000 images/s.",
    ])  # fmt: skip


def _time(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:,.0f} min"


def _bytes(count: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count / 1e3:,.1f} kB"
