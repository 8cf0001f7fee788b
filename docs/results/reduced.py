"""List a folder of reduced copies of films as a CSV that `folder` sources read.

python docs/results/reduced.py FOLDER films.csv [FACTS.csv COHORT]

FOLDER holds <cohort>/<label>/<name>.<ending>, as whoever reduced them may have kept them; label,
patient, source and view come from the manifest of the source `open`, or from a table FACTS.csv of
the same columns, of which one cohort is taken. Films that are not listed are left out, and counted.
"""

import sys
from pathlib import Path

import pandas as pd

from cxrlib import sources

ORIGIN = {"origin": "source"}  # as tables of facts from elsewhere may call it


def table_of(folder: Path, manifest: pd.DataFrame) -> pd.DataFrame:
    """List the films that the manifest knows: image (absolute path), label, patient and so on."""
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
    folder, target, *other = sys.argv[1:]
    manifest = sources.manifest("open")
    if other:
        manifest = pd.read_csv(other[0]).query("cohort == @other[1]").rename(columns=ORIGIN)
    folder = Path(folder)
    found = table_of(folder, manifest)
    found.to_csv(target, index=False)
    counts = found.groupby("label").agg(images=("image", "size"), patients=("patient", "nunique"))
    left_out = len(list(folder.rglob("*.jpg"))) - len(found)
    print(f"{counts}\n{left_out} films are not in the manifest and were left out")
