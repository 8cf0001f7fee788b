"""Markdown of what lessons 7 and 9 and `cxr check` found on real films; used by draw.py."""

import json

import pandas as pd

from cxrlib import plots, sources

# From an analysis by hand that came before this course, with simple models on larger samples of the
# same collections. None of these numbers is a result of this repository.
BY_HAND = {  # what: value by hand, and why ours may differ
    "VGG16 features, whole image, AUC": (0.988, "more films then; another classifier now"),
    "VGG16 features, lungs covered, AUC": (0.980, "the same; how much was covered may differ too"),
    "8 x 8 thumbnail, AUC": (0.995, "probably the films: another collection's COVID-19 then"),
    "'1024 x 1024 pixels means a control', accuracy": (
        1.000,
        "some SIRM films of the manifest are 1024 x 1024 themselves",
    ),
    "SIRM or Hannover, among COVID-19 films, AUC": (0.99, "other collections and features then"),
    "inside, AUC": (0.980, "other COVID-19 films inside, and fewer"),
    "at another hospital, AUC": (0.770, "fewer films, other ones; both intervals are wide"),
    "at another hospital, sensitivity": (
        0.49,
        "reversed: here the threshold, set inside for 95 %, calls most films ill outside, and "
        "the specificity falls instead",
    ),
    "augment, then split: true labels": (0.971, "a histogram's neighbour now"),
    "split images, then augment: true labels": (0.893, "a histogram's neighbour now"),
    "augment, then split: permuted labels": (0.853, "a histogram knows a copy better"),
    "split images, then augment: permuted labels": (0.491, "chance, or patients with two films"),
}


def markdown(table: pd.DataFrame, digits: int = 3) -> list[str]:
    """Write a table as Markdown; what is missing is a dash."""
    shown = table.map(lambda x: f"{x:.{digits}f}" if isinstance(x, float) and x == x else x)
    shown = shown.astype(object).where(table.notna(), "–")
    lines = ["| " + " | ".join(map(str, shown.columns)) + " |", "| --- " * len(shown.columns) + "|"]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in shown.to_numpy()]


def interval(row, name="value") -> str:
    """Word one value with its interval."""
    return f"{row[name]:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def headline_lines(lesson7, here) -> list[str]:
    """Draw the four scores of one model, and write them as a table."""
    scores = lesson7.tables["headline"]
    backbone = lesson7.parameters["probe_backbone"]
    note = (
        "Real films: SIRM and NIH ('open'); another hospital: Hannover, healthy films NIH's again. "
        f"{backbone}, ImageNet weights, logistic regression; intervals by patient; seed 0."
    )
    figure = plots.headline_plot(scores, "One model, four scores", note)
    figure.savefig(here / "headline.png", bbox_inches="tight", dpi=130)
    text = scores.assign(said=[interval(row) for _, row in scores.iterrows()])
    wide = text.pivot(index=["condition", "images", "patients"], columns="metric", values="said")
    wide = wide.loc[scores["condition"].unique(), ["accuracy", "auc", "sensitivity", "specificity"]]
    return markdown(wide.reset_index())


def audit_lines(lesson9) -> list[str]:
    """Write what lesson 9 found on one set of films."""
    tables = lesson9.tables
    views = tables["shortcuts"].assign(
        AUC=[interval(r, "auc") for _, r in tables["shortcuts"].iterrows()]
    )
    lines = ["", "What tells COVID-19 from healthy:", ""]
    lines += markdown(views[["view", "AUC", "p", "images", "patients"]])
    leaks = tables["leakage"].query("set == 'inside'")
    leaks = leaks.groupby(["protocol", "labels"], sort=False)["balanced accuracy"].agg(
        ["mean", "std"]
    )
    lines += ["", "One nearest neighbour, balanced accuracy over the repeats:", ""]
    lines += markdown(leaks.reset_index())
    if "external drop" not in tables:
        return lines
    lines += ["", "Trained inside, tested at another hospital:", ""]
    drop = tables["external drop"].rename_axis("metric").reset_index()
    lines += markdown(drop.rename(columns={"low": "drop, low", "high": "drop, high"}))
    lines += ["", "At the threshold chosen inside for a sensitivity of 95 %:", ""]
    lines += markdown(tables["at the threshold"])
    lines += ["", "Calibration:", "", *markdown(tables["calibration"])]
    kept = ["remedy", "inside auc", "outside auc", "gain", "gain low", "gain high", "note"]
    told = (
        "What gains outside, over the model as it is (99 % interval; the healthy films share "
        "their source with those inside, so a gain may polish that shortcut):"
    )
    lines += ["", told, ""]
    return lines + markdown(tables["remedies"][kept])


def fold_lines(runs) -> list[str]:
    """Put each seed's scores over all folds in a row, and what the paper's protocol adds."""
    rows = []
    for one in runs:
        apart = one.tables["protocol_difference"]
        scores = {name: one.scores[name].loc["accuracy"] for name in ("clean", "paper")}
        row = {"seed": one.seed, "images": one.data["images"], "patients": one.data["patients"]}
        row |= {f"accuracy, {name}": interval(each) for name, each in scores.items()}
        row |= {f"paper minus clean, {name}": interval(apart.loc[name])
                for name in ("accuracy", "f1", "auc")}  # fmt: skip
        rows.append(row)
    return markdown(pd.DataFrame(rows))


def verdict_lines(path) -> list[str]:
    """List the verdicts on Model 3, the one whose backbone's weights were at hand."""
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for protocol, claims in found["verdicts"].items():
        for name, one in claims.items():
            if "not comparable" in one["verdicts"].values():
                continue
            low, high = one["intervals"]["95"]
            ours = f"{one['measured']:.3f} [{low:.3f}, {high:.3f}]"
            said = " / ".join(one["verdicts"][level] for level in ("90", "95", "99"))
            why = f"{one['reason'].capitalize()}. {one.get('second', '')}".strip()
            rows.append([name, one["printed"], protocol, ours, said, why])
    names = [
        "claim",
        "printed",
        "protocol",
        f"ours, {len(found['runs'])} seeds",
        "verdict at 90 / 95 / 99 %",
        "at 95 %",
    ]
    return markdown(pd.DataFrame(rows, columns=names))


def size_rule() -> float:
    """Score the rule 'a film of 1024 x 1024 pixels is a control' by the manifest: accuracy."""
    films = sources.manifest("open").dropna(subset=["height", "width"])
    says_control = (films["height"] == 1024) & (films["width"] == 1024)
    return float((says_control == (films["label"] != "covid")).mean())


def comparison_lines(lesson9) -> list[str]:
    """Put ours beside the analysis by hand, and say why they differ."""
    views = lesson9.tables["shortcuts"].set_index("view")["auc"]
    leaks = lesson9.tables["leakage"].query("set == 'inside'")
    leaks = leaks.groupby(["protocol", "labels"])["balanced accuracy"].mean()
    drop = lesson9.tables["external drop"].loc["auc"]
    first, then = "augment, then split images", "split images, then augment"
    at = lesson9.tables["at the threshold"].set_index(["part", "metric"])["value"]
    within = lesson9.tables["sources within a class"].set_index("set")["auc"]
    ours = {
        "VGG16 features, whole image, AUC": views["whole image"],
        "VGG16 features, lungs covered, AUC": views["lungs covered"],
        "8 x 8 thumbnail, AUC": views["thumbnail"],
        "'1024 x 1024 pixels means a control', accuracy": size_rule(),
        "SIRM or Hannover, among COVID-19 films, AUC": within["inside and outside"],
        "inside, AUC": drop["inside"],
        "at another hospital, AUC": drop["outside"],
        "at another hospital, sensitivity": at["outside", "sensitivity"],
        "augment, then split: true labels": leaks[first, "true"],
        "split images, then augment: true labels": leaks[then, "true"],
        "augment, then split: permuted labels": leaks[first, "permuted"],
        "split images, then augment: permuted labels": leaks[then, "permuted"],
    }
    rows = [[name, BY_HAND[name][0], value, BY_HAND[name][1]] for name, value in ours.items()]
    return markdown(pd.DataFrame(rows, columns=["what", "by hand", "here", "why they may differ"]))
