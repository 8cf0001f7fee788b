"""Hold runs of the course to the paper's claims, and to the verdicts that were recorded before.

Both protocols are judged. The paper's is leaky: it augments first and divides images, so copies
of one film, and films of one patient, stand on both sides. The clean one divides patients.

What counts as worse than the recorded verdict, claim by claim:

* From best to worst: reproduced or exceeded, undecidable at this n, not reproduced. A step down is
  worse. Exceeding a claim does not rank above reproducing it: under a leaky protocol it would be
  no merit.
* *Not comparable* says nothing about a claim, so it has no place in that order. From it, any
  verdict is news and not worse; to it, from any other, is worse: what could be told can't be now.
* A claim that was judged and now is not is *missing*, and worse: most often its notebook failed.
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
from cxrlib.paper import claims, verdicts
from cxrlib.paper.verdicts import MARGIN, VERDICTS, Measurement, Verdict, effective_n, f1_of
from cxrlib.results import PROTOCOLS, Result

MEASURES = ("accuracy", "precision", "recall", "f1")
CLASSES = ("healthy", "pneumonia", "covid")  # of Table II
FIGURE2 = "Fig. 2"  # the table in which a notebook records its counts of CheXpert's labels
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


class CheckError(claims.PaperError):
    """Folders that hold no run, runs that don't belong together, or no recorded verdicts."""

    exit_code = 2  # of the command cxr: it was asked for something that does not exist


@dataclass
class Check:
    """What runs say about the paper's claims.

    ``verdicts`` by protocol and claim, those of Fig. 2 under ``data``; ``held`` tells of each
    ``NOTEBOOK: LESSON`` whether it was demonstrated in all runs; ``margin`` is what counts as the
    same figure.
    """

    runs: list[Path] = field(default_factory=list)
    verdicts: dict[str, dict[str, Verdict]] = field(default_factory=dict)
    held: dict[str, bool] = field(default_factory=dict)
    margin: float = MARGIN

    def short(self) -> dict:
        """Give the verdicts at 95 % alone, as they are recorded for reference."""
        return self._with(lambda one: one.verdict)

    def full(self) -> dict:
        """Give all that is known, with intervals, as JSON holds it."""
        runs = {"schema": SCHEMA, "runs": list(map(str, self.runs))}
        return results.to_native(runs | self._with(_plain))

    def _with(self, told) -> dict:
        said = {
            protocol: {name: told(one) for name, one in found.items()}
            for protocol, found in self.verdicts.items()
        }
        return {"schema": SCHEMA, "margin": self.margin, "verdicts": said, HELD: self.held}


def _plain(one: Verdict) -> dict:
    """Turn a verdict into a dict, its words included; levels become '90', '95', '99'."""
    plain = asdict(one) | {"second": one.second}
    for key in ("verdicts", "claim_intervals", "intervals", "differences"):
        plain[key] = {f"{100 * level:.0f}": item for level, item in plain[key].items()}
    return plain


def check(folders, protocols=PROTOCOLS, margin: float = MARGIN) -> Check:
    """Judge the paper's claims by the runs in `folders`, one a seed, or folders of such runs.

    `margin`, a share between 0 and 1, is what counts as the same figure. CheckError if a folder
    holds no run, or two runs of a notebook have the same seed, or differ in profile, data or
    weights.
    """
    found = Check(find_runs(folders), margin=margin)
    by_notebook, judged = {}, {}
    for run in found.runs:
        for name, result in results.load_all(run).items():
            by_notebook.setdefault(name, []).append(result)
    for name, seeds in sorted(by_notebook.items()):
        _check_together(name, seeds)
        for protocol in protocols:
            judged.setdefault(protocol, {}).update(judge(seeds, protocol, margin))
        if counted := judge_figure2(seeds[0]):
            judged["data"] = counted
        found.held.update(_held(name, seeds))
    order = list(claims.load()["id"])
    for protocol, said in judged.items():
        found.verdicts[protocol] = {name: said[name] for name in order if name in said}
    return found


def find_runs(folders) -> list[Path]:
    """Run folders among `folders` and right below them: those that hold results."""
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


def judge(seeds: list[Result], protocol: str, margin: float = MARGIN) -> dict[str, Verdict]:
    """Judge what the paper claims about one of its models, under one protocol: verdicts by claim.

    `seeds` are a notebook's results, one for each seed. Empty where the notebook is about none of
    the models, or has no labelled predictions under this protocol.
    """
    number = seeds[0].model_number
    mine = [_of_protocol(one, protocol) for one in seeds]
    if number is None or any(part is None for part in mine):
        return {}
    why = next((one.why_not_comparable for one in seeds if not one.comparable), "")
    found = {}
    for name, metric, predicted in _claims_on(number):
        errors = predicted is not None and predicted != metric  # the fewer, the better
        measured = measure(mine, metric, predicted)
        found[name] = verdicts.verdict(name, measured, why, errors, margin)
    return found | (_judge_histories(seeds, protocol, why) if number == 1 else {})


def _of_protocol(one: Result, protocol: str) -> pd.DataFrame | None:
    if one.predictions is None:
        return None
    mine = one.predictions[one.predictions["protocol"] == protocol]
    return None if mine["label"].isna().all() else mine


def _claims_on(number: int):
    """Claims on one model's test results: id, and what :func:`measure` wants to know."""
    for metric in MEASURES:
        yield f"table1.model{number}.{metric}", metric, None
    if number == 4:
        for actual in CLASSES:
            for predicted in CLASSES:
                yield f"table2.{actual}.{predicted}", actual, predicted


def _judge_histories(seeds: list[Result], protocol: str, why: str) -> dict[str, Verdict]:
    """Judge Model 1's training and validation accuracy by the last epochs."""
    found = {}
    histories = [one.histories.get(protocol, pd.DataFrame()) for one in seeds]
    for part, column in {"train": "accuracy", "validation": "val_accuracy"}.items():
        name = f"model1.{part}_accuracy"
        if all(column in history and len(history) for history in histories):
            ends = tuple(float(history[column].iloc[-1]) for history in histories)
            found[name] = verdicts.verdict(name, Measurement(ends, n=0), why)
    return found


def judge_figure2(one: Result) -> dict[str, Verdict]:
    """Compare the counts of CheXpert's labels, where a notebook counted them, cell by cell."""
    counts = one.tables.get(FIGURE2)
    printed = claims.load().query("place == 'Fig. 2'")
    answers = ["positive", "uncertain", "negative"]
    if counts is None or not set(answers) <= set(counts) or 3 * len(counts) != len(printed):
        return {}
    cells = counts[answers].to_numpy().ravel()  # in CheXpert's order, which is the paper's
    pairs = zip(printed["id"], cells, strict=True)
    return {name: verdicts.exact(name, int(count)) for name, count in pairs}


def measure(seeds, metric: str, predicted: str | None = None) -> Measurement:
    """Measure one result of a model from its predictions, one table for each seed.

    `metric` is ``accuracy``; ``precision``, ``recall`` or ``f1`` of COVID-19 against the rest; or
    a label, with `predicted`: the share of its images that were called so (Table II).
    """
    shares, patients = [], []
    for predictions in seeds:
        known = predictions[predictions["label"].notna()]
        among, hits = _shares_of(known, metric, predicted)
        shares.append(float(hits[among].mean()))
        patients.append(_patients(known)[among])
    values = map(f1_of, shares) if metric == "f1" else shares
    return Measurement(tuple(values), effective_n(patients))


def _shares_of(known: pd.DataFrame, metric: str, predicted: str | None) -> tuple:
    """Which images a share is of, and which of them count; of an F1, the share is J."""
    ill, called = known["label"] == "covid", known["predicted"] == "covid"
    shares = {
        "accuracy": (ill | ~ill, known["label"] == known["predicted"]),
        "precision": (called, ill),
        "recall": (ill, called),
        "f1": (ill | called, ill & called),
    }
    return shares.get(metric, (known["label"] == metric, known["predicted"] == predicted))


def _patients(known: pd.DataFrame) -> pd.Series:
    return known["patient"].fillna(known["image"])  # of nobody known: a patient of its own


def read_reference(folder: Path | str | None = None) -> dict:
    """Read the verdicts recorded in ``verdicts.json`` of `folder`, by default the course's own."""
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

    `reference` is as :func:`read_reference` gives it; protocols that `now` was not asked for are
    left out, and with `only_present` claims and lessons that its runs don't have.
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
            if many := sum(1 for one in found.values() if one.hangs_on):
                told.append(
                    f"No level is corrected for their number: of {many} verdicts at 95 %, some is "
                    f"wrong with a probability of up to {min(1, 0.05 * many):.0%}; of the "
                    f"{len(MEASURES)} figures of one model, at 99 %, {0.01 * len(MEASURES):.0%}."
                )
    return told


def describe(one: Verdict) -> tuple[str, str, str, str]:
    """Word a verdict: what is printed, ours, our 95 % interval, the verdict (others, if any)."""
    percent = "%" in one.printed

    def word(value):
        if pd.isna(value):
            return "–"
        if not one.intervals:  # a plain count
            return f"{value:.0f}"
        return f"{value:.1%}" if percent else f"{value:.3f}"

    interval = "–" if pd.isna(one.interval[0]) else " to ".join(map(word, one.interval))
    others = {level: said for level, said in one.verdicts.items() if said != one.verdict}
    told = "; ".join(f"{100 * level:.0f} %: {said}" for level, said in others.items())
    verdict = one.verdict + (f" ({told})" if told else "")
    return one.printed, word(one.measured), interval, verdict
