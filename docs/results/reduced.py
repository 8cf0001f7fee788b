"""List a folder of reduced copies of the course's films as a CSV that `folder` sources read.

python docs/results/reduced.py FOLDER films.csv

FOLDER holds <cohort>/<label>/<name>.<ending>, as whoever reduced them may have kept them; label,
patient, source and view come from the manifest of the source `open`. Films that the manifest does
not list are left out, and counted.
"""

import sys
from pathlib import Path

import pandas as pd

from cxrlib import sources


def table_of(folder: Path) -> pd.DataFrame:
    """List the films that the manifest knows: image (absolute path), label, patient and so on."""
    manifest = sources.manifest("open")
    stems = manifest["path"].map(lambda path: Path(path).stem)
    known = manifest.set_index([manifest["cohort"], manifest["label"], stems])
    rows = []
    for file in sorted(folder.rglob("*.jpg")):
        key = (*file.relative_to(folder).parts[:2], file.stem)
        if key in known.index:
            row = known.loc[[key]].iloc[0]
            rows.append([file.resolve(), *row[["label", "patient", "source", "view"]]])
    return pd.DataFrame(rows, columns=["image", "label", "patient", "source", "view"])


if __name__ == "__main__":
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    found = table_of(folder)
    found.to_csv(target, index=False)
    counts = found.groupby("label").agg(images=("image", "size"), patients=("patient", "nunique"))
    left_out = len(list(folder.rglob("*.jpg"))) - len(found)
    print(f"{counts}\n{left_out} films are not in the manifest of 'open' and were left out")
