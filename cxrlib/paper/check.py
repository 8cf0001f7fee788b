"""Hold runs of the course to the paper's claims, and to the verdicts that were recorded before.

A verdict needs five seeds, each with its own split and initial weights::

    for s in 0 1 2 3 4; do cxr run --profile paper --set seed=$s --out runs/paper/seed$s; done
    cxr check runs/paper

Both protocols are judged. The paper's is leaky: it augments first and divides images, so copies
of one film, and films of one patient, stand on both sides. The clean one divides patients.

What counts as worse than the recorded verdict, claim by claim:

* From best to worst: reproduced or exceeded, undecidable at this n, not reproduced. A step down is
  worse. Exceeding a claim does not rank above reproducing it: under a leaky protocol it would be
  no merit.
* *Not comparable* says nothing about a claim, so it has no place in that order. From it, any
  verdict is news and not worse; to it, from any other, is worse: what could be told can't be now.
* A claim that was judged and now is not is *missing*, and worse: most often its notebook failed.
  Runs of some of the notebooks only are held to what they have with ``only_present``.
* A lesson that was demonstrated and now is not, or is missing, is worse. Notebooks record these in
  a table called "lessons held", with the columns ``lesson`` and ``held``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from cxrlib import results
from cxrlib.files import shipped
from cxrlib.paper import claims, measured, verdicts
from cxrlib.paper.verdicts import VERDICTS, Verdict
from cxrlib.results import PROTOCOLS, Result

SCHEMA = 1
RECORDED = "verdicts.json"
HELD = "lessons held"  # the table in which a notebook records what it demonstrated
PROTOCOL_IS = {
    "paper": "The paper's protocol (leaky: test films' copies and patients are in training too)",
    "clean": "The clean protocol (split by patient: what to expect of new patients)",
    "data": "Counts of the data",
}
RANKS = {
    verdicts.EXCEEDED: 0,
    verdicts.REPRODUCED: 0,
    verdicts.UNDECIDABLE: 1,
    verdicts.FAILED: 2,
    verdicts.INCOMPARABLE: 3,  # last, so that nothing is worse than it, and it worse than others
}
SAME = {  # in all runs of a notebook, which are repeats of each other with other seeds
    "profile": lambda one: one.profile,
    "data": lambda one: one.data["name"],
    "weights": lambda one: sorted((f["backbone"], f["kind"]) for f in one.weights.values()),
}


class CheckError(ValueError):
    """Folders that hold no run, runs that don't belong together, or no recorded verdicts."""

    exit_code = 2  # of the command cxr: it was asked for something that does not exist


@dataclass
class Check:
    """What runs say about the paper's claims.

    Attributes
    ----------
    runs : list of Path
    verdicts : dict of str to dict of str to Verdict
        By protocol and claim; those of Fig. 2, which knows no protocol, under ``data``.
    held : dict of str to bool
        Lessons that the notebooks demonstrated, by ``NOTEBOOK: LESSON``; in all runs, or not.
    """

    runs: list[Path] = field(default_factory=list)
    verdicts: dict[str, dict[str, Verdict]] = field(default_factory=dict)
    held: dict[str, bool] = field(default_factory=dict)

    def short(self) -> dict:
        """Give the verdicts at 95 % alone, as they are recorded for reference."""
        return {"schema": SCHEMA, "verdicts": self._each(lambda one: one.verdict), HELD: self.held}

    def full(self) -> dict:
        """Give all that is known, with intervals, as JSON holds it."""
        runs = [str(run) for run in self.runs]
        content = {"schema": SCHEMA, "runs": runs, "verdicts": self._each(_plain), HELD: self.held}
        return results.to_native(content)

    def _each(self, told) -> dict:
        return {
            protocol: {name: told(one) for name, one in found.items()}
            for protocol, found in self.verdicts.items()
        }


def _plain(one: Verdict) -> dict:
    """Turn a verdict into a dict; levels become '90', '95', '99'."""

    def plain(value):
        if isinstance(value, dict):
            return {f"{100 * level:.0f}": item for level, item in value.items()}
        return value

    return {key: plain(value) for key, value in asdict(one).items()}


def check(folders, protocols=PROTOCOLS) -> Check:
    """Judge the paper's claims by the runs in `folders`.

    Parameters
    ----------
    folders : sequence of path
        Run folders, one a seed; a folder of run folders counts as those.
    protocols : sequence of str

    Raises
    ------
    CheckError
        If a folder holds no run, or two runs of a notebook have the same seed, or differ in
        profile, data or weights.
    cxrlib.results.ResultsError
        If a result is damaged.
    """
    found = Check(find_runs(folders))
    by_notebook: dict[str, list[Result]] = {}
    for run in found.runs:
        for name, result in results.load_all(run).items():
            by_notebook.setdefault(name, []).append(result)
    judged: dict[str, dict[str, Verdict]] = {}
    for name, seeds in sorted(by_notebook.items()):
        _check_together(name, seeds)
        for protocol in protocols:
            judged.setdefault(protocol, {}).update(measured.judge(seeds, protocol))
        counted = measured.judge_figure2(seeds[0])
        if counted:
            judged["data"] = counted
        found.held.update(_held(name, seeds))
    order = list(claims.load()["id"])
    for protocol, said in judged.items():
        found.verdicts[protocol] = {name: said[name] for name in order if name in said}
    return found


def find_runs(folders) -> list[Path]:
    """Run folders among `folders` and right below them: those that hold results.

    Raises
    ------
    CheckError
        If there is none in one of them.
    """
    found = []
    for folder in map(Path, folders):
        places = [folder, *sorted(folder.glob("[!.]*/"))]
        runs = [place for place in places if any(place.glob("results/[!.]*.json"))]
        if not runs:
            raise CheckError(f"{folder} holds no run. Make one: cxr run --out {folder}")
        found += [run for run in runs if run not in found]
    return found


def _check_together(name: str, seeds: list[Result]) -> None:
    """Refuse runs that are no repeats of each other with other seeds."""
    for key, value_of in SAME.items():
        first, *others = map(value_of, seeds)
        other = [value for value in others if value != first]
        if other:
            raise CheckError(
                f"The runs of {name} differ in more than the seed: {key} is {first} in one and "
                f"{other[0]} in another. Check them apart."
            )
    numbers = [one.seed for one in seeds]
    twice = [number for number in numbers if numbers.count(number) > 1]
    if twice:
        raise CheckError(
            f"Two runs of {name} have the seed {twice[0]}, so they are one: give each its own, "
            "with cxr run --set seed=..., or name only one of them."
        )


def _held(notebook: str, seeds: list[Result]) -> dict[str, bool]:
    """Tell which lessons of a notebook held, in every run."""
    found: dict[str, bool] = {}
    for one in seeds:
        table = one.tables.get(HELD, pd.DataFrame(columns=["lesson", "held"]))
        if not {"lesson", "held"} <= set(table):
            raise CheckError(f"{notebook}: its table {HELD!r} lacks the columns lesson and held.")
        for lesson, held in zip(table["lesson"], table["held"], strict=True):
            key = f"{notebook}: {lesson}"
            found[key] = found.get(key, True) and bool(held)
    return found


def read_reference(folder: Path | str | None = None) -> dict:
    """Read the verdicts recorded in ``verdicts.json`` of `folder`, by default the course's own.

    Raises
    ------
    CheckError
        If there are none, or the file is damaged.
    """
    path = Path(folder or shipped("data") / "reference") / RECORDED
    record = f"Record them: cxr check RUN --write {path}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        words = {word for recorded in content["verdicts"].values() for word in recorded.values()}
        sound = content["schema"] == SCHEMA and words <= {*VERDICTS}
        sound = sound and isinstance(content[HELD], dict)
    except FileNotFoundError as error:
        raise CheckError(f"{path.parent} has no {RECORDED}. {record}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckError(f"{path} is damaged ({error!r}). {record}") from error
    if not sound:
        raise CheckError(f"{path} is not from this version of the course. {record}")
    return content


def worse(reference: dict, now: Check, only_present: bool = False) -> list[str]:
    """Say what is worse than recorded, a line each; see the top of this module for the order.

    Parameters
    ----------
    reference : dict
        As :func:`read_reference` gives it.
    now : Check
        Protocols that it was not asked for are left out.
    only_present : bool
        Pass over claims and lessons that the runs don't have.
    """
    told = []
    for protocol, recorded in reference["verdicts"].items():
        found = now.verdicts.get(protocol)
        if found is None and protocol in PROTOCOLS:
            continue
        for name, before in recorded.items():
            after = found[name].verdict if found and name in found else None
            if after is None and not only_present:
                told.append(f"{name} ({protocol} protocol): missing, was {before}")
            elif after is not None and RANKS[after] > RANKS[before]:
                told.append(f"{name} ({protocol} protocol): {after}, was {before}")
    for lesson, before in reference[HELD].items():
        after = now.held.get(lesson)
        if before and not after and not (after is None and only_present):
            told.append(f"{lesson}: {'missing' if after is None else 'not held'}, was held")
    return told


def headlines(now: Check) -> list[str]:
    """Sum the verdicts up, a sentence for each protocol that says what it is worth."""
    told = []
    for protocol, found in now.verdicts.items():
        if found:
            counts = pd.Series([one.verdict for one in found.values()]).value_counts()
            listed = ", ".join(f"{counts[word]} {word}" for word in VERDICTS if word in counts)
            told.append(f"{PROTOCOL_IS[protocol]}: of {len(found)} claims, {listed}.")
    return told


def describe(one: Verdict) -> tuple[str, str, str, str]:
    """Word a verdict: what is printed, ours, our 95 % interval, and the verdict.

    Where it is another at 90 or 99 %, those too.
    """
    percent = "%" in one.printed

    def word(value):
        if pd.isna(value):
            return "–"
        if not one.intervals:  # a plain count
            return f"{value:.0f}"
        return f"{value:.1%}" if percent else f"{value:.3f}"

    interval = "–" if pd.isna(one.interval[0]) else " to ".join(map(word, one.interval))
    others = [
        f"{100 * level:.0f} %: {said}"
        for level, said in one.verdicts.items()
        if said != one.verdict
    ]
    verdict = one.verdict + (f" ({'; '.join(others)})" if others else "")
    return one.printed, word(one.measured), interval, verdict
