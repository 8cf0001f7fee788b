"""Make ``open.csv`` and ``external.csv`` from tables of facts about public images.

    python data/make_manifests.py SOURCES.csv PEOPLE.csv [--mirror FOLDER]

SOURCES.csv has one row an image: cohort, label, patient, view, repo, commit, path, bytes,
git_sha1, sha256, height, width, origin, origin_url, licence. PEOPLE.csv has cohort, path, sex and
age in years as each film's source tells them (`TOLD_BY`), blank where it does not. With
``--mirror`` every file that lies in FOLDER/repo/commit/path is compared with its row. No image
becomes part of the course.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from cxrlib.sources import pinned

COLUMNS = [
    *("image", "label", "patient", "source", "view", "sex", "age", "licence", "cohort"),
    *("repo", "commit", "path", "bytes", "git_sha1", "sha256", "height", "width", "origin_url"),
]
TOLD_BY = {  # where sex and age of a cohort's patients are written
    "sirm": "ieee8023/covid-chestxray-dataset, metadata.csv at commit 6a424234",
    "hannover": "ml-workgroup/covid-19-image-repository, data.csv (no age)",
    "talo": "NIH ChestX-ray14, Data_Entry_2017_v2020.csv, by the file's name",
    "nih-sample": "NIH ChestX-ray14, Data_Entry_2017_v2020.csv, by the file's name",
}
FORMS = {  # what each column has to look like, or the row is refused
    "cohort": r"[a-z-]+",
    "label": r"healthy|pneumonia|covid",
    "patient": r"[\w-]+",
    "repo": r"[\w.-]+/[\w.-]+",
    "commit": r"[0-9a-f]{40}",
    "path": r"(?!/)(?!.*\.\.)[\w ./-]+\.(png|jpg|jpeg)",
    "bytes": r"([1-9]\d*)?",
    "git_sha1": r"[0-9a-f]{40}",
    "sha256": r"([0-9a-f]{64})?",
    "height": r"([1-9]\d*)?",
    "width": r"([1-9]\d*)?",
    "sex": r"[FM]?",
    "age": r"(\d|[1-9]\d|1[01]\d)?",
}


def read_facts(path: Path, people: Path) -> pd.DataFrame:
    """Read the facts as text; what is not known is an empty string, and nothing is guessed."""
    facts = pd.read_csv(path, dtype=str, keep_default_na=False)
    told = pd.read_csv(people, dtype=str, keep_default_na=False)[["cohort", "path", "sex", "age"]]
    facts = facts.merge(told, how="left", validate="one_to_one").fillna({"sex": "", "age": ""})
    facts["bytes"] = facts["bytes"].where(facts["bytes"].str.fullmatch(r"\d+"), "")
    facts["view"] = facts["view"].replace({"ap": "AP", "pa": "PA"})
    for column, form in FORMS.items():
        wrong = facts[~facts[column].str.fullmatch(form)]
        if len(wrong):
            row = wrong.iloc[0]
            raise SystemExit(f"{path}: {column} of {row['path']!r} is {row[column]!r}.")
    facts["source"] = facts["origin"]
    name = facts["path"].str.rsplit("/", n=1).str[-1].str.rsplit(".", n=1).str[0]
    facts["image"] = facts["cohort"] + "/" + name
    return facts


def choose(facts: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Choose the images of the two cohorts; ``data/README.md`` says why these."""
    controls = (facts["cohort"] == "talo") & (facts["label"] != "covid")
    known = set(facts.loc[controls, "patient"])
    others = (facts["cohort"] == "nih-sample") & ~facts["patient"].isin(known)
    chosen = {
        "open": facts[(facts["cohort"] == "sirm") | controls],
        "external": facts[(facts["cohort"] == "hannover") | others],
    }
    for name, table in chosen.items():
        for column in ("image", "path", "git_sha1"):
            if table[column].duplicated().any():
                raise SystemExit(f"{name}: two rows have the same {column}.")
    return {name: table[COLUMNS] for name, table in chosen.items()}


def check_files(table: pd.DataFrame, mirror: Path) -> dict[str, int]:
    """Compare the files of a mirror with the table."""
    states = []
    for row in table.itertuples():
        size = int(row.bytes) if row.bytes else None
        path = f"{row.repo}/{row.commit}/{row.path}"
        for hashes in ({"sha256": row.sha256}, {"git_sha1": row.git_sha1}):
            if any(hashes.values()):
                states.append(pinned.state(mirror, pinned.Pinned(path, size, **hashes)))
    return pd.Series(states).value_counts().to_dict()


def main() -> None:
    """Write the manifests beside this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("facts", type=Path)
    parser.add_argument("people", type=Path)
    parser.add_argument("--mirror", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    arguments = parser.parse_args()
    for name, table in choose(read_facts(arguments.facts, arguments.people)).items():
        table.to_csv(arguments.out / f"{name}.csv", index=False, lineterminator="\n")
        print(table.groupby(["label", "source"])["patient"].agg(images="size", patients="nunique"))
        if arguments.mirror:
            found = check_files(table, arguments.mirror)
            print(f"{name}: hashes compared with the mirror: {found}")
            if found.get("damaged"):
                raise SystemExit(f"{name}: the mirror holds other content than the table says.")


if __name__ == "__main__":
    main()
