"""cxr check: runs found, claims judged, and what got worse than recorded."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from cxrlib import cli, results
from cxrlib.cohort import Cohort
from cxrlib.files import shipped
from cxrlib.metrics import wilson
from cxrlib.paper import check, claims, verdicts
from cxrlib.paper.check import CheckError
from helpers import tiny_cohort

BINARY, THREE = ("healthy", "covid"), ("healthy", "pneumonia", "covid")
LESSONS = pd.DataFrame({"lesson": ["leaks pay", "labels matter"], "held": [True, False]})


def record(folder, monkeypatch, model=3, seed=0, source="sirm", wrong=0, kind="imagenet", **more):
    """One result with real-looking data: `wrong` images of each class are called the next one."""
    monkeypatch.setenv("CXR_RUN", str(folder))
    classes = THREE if model == 4 else BINARY
    cohort = tiny_cohort(90, 1, classes, side=8)
    cohort = Cohort(cohort.table.assign(source=source), cohort.images, "ours")
    truth = cohort.targets(classes)
    called = truth.copy()
    for number in range(len(classes)):
        rows = np.flatnonzero(truth == number)[:wrong]
        called[rows] = (number + 1) % len(classes)
    sure = np.eye(len(classes))[called]
    backbone = results.BACKBONES.get(model)
    results.record(
        f"0{model + 2}_model",
        model=model,
        profile=more.pop("profile", "paper"),
        parameters={"seed": seed},
        cohort=cohort,
        weights={backbone: {"backbone": backbone, "kind": kind}} if backbone else None,
        predictions=pd.concat(
            results.predictions(cohort, sure, classes, name) for name in results.PROTOCOLS
        ),
        **more,
    )


def five(folder, monkeypatch, **more):
    for seed in range(5):
        record(folder / f"seed{seed}", monkeypatch, seed=seed, **more)
    return folder


def cxr(*words):
    return CliRunner().invoke(cli.main, ["check", *map(str, words)])


def test_runs_are_found_alone_together_and_not_at_all(tmp_path, monkeypatch):
    five(tmp_path / "paper", monkeypatch)
    seeds = [tmp_path / "paper" / f"seed{seed}" for seed in range(5)]
    assert check.find_runs([tmp_path / "paper"]) == seeds
    assert check.find_runs([seeds[3], tmp_path / "paper"]) == [seeds[3], *seeds[:3], seeds[4]]
    for nothing in (tmp_path, tmp_path / "lost"):
        with pytest.raises(CheckError, match=r"holds no run\. Make one: cxr run --out"):
            check.find_runs([nothing])


def test_claims_are_judged_under_both_protocols(tmp_path, monkeypatch):
    five(tmp_path, monkeypatch, wrong=6)  # 39 of 45 right in each class
    five(tmp_path, monkeypatch, model=4, wrong=15)  # 15 of 30
    found = check.check([tmp_path])
    assert list(found.verdicts) == ["paper", "clean"]
    for judged in found.verdicts.values():
        expected = {f"table1.model{model}.{m}" for model in (3, 4) for m in check.MEASURES}
        expected |= {f"table2.{a}.{b}" for a in THREE for b in THREE}
        assert set(judged) == expected
        order = list(claims.load()["id"])
        assert list(judged) == sorted(judged, key=order.index)
        three = judged["table1.model3.accuracy"]
        assert three.measured == pytest.approx(39 / 45) and three.seeds == 5
        assert three.interval == pytest.approx(wilson(78, 90))
        said = judged["table1.model4.accuracy"]  # .5 against .834 of nobody knows how many
        assert said.verdict == verdicts.UNDECIDABLE and "does not tell" in said.reason
        cell = judged["table2.covid.healthy"]  # all that went wrong of covid went there
        assert cell.measured == 0.5 and judged["table2.covid.pneumonia"].measured == 0
    # No error where the paper has a quarter: fewer errors are better.
    assert judged["table2.covid.pneumonia"].verdict != verdicts.FAILED


def test_phantoms_random_weights_and_one_seed_decide_nothing(tmp_path, monkeypatch):
    record(tmp_path / "phantoms", monkeypatch, source="phantom")
    record(tmp_path / "random", monkeypatch, kind="random")
    record(tmp_path / "one", monkeypatch)
    for folder, expected in (
        ("phantoms", verdicts.INCOMPARABLE),
        ("random", verdicts.INCOMPARABLE),
        ("one", verdicts.UNDECIDABLE),
    ):
        found = check.check([tmp_path / folder], ["clean"])
        assert {one.verdict for one in found.verdicts["clean"].values()} == {expected}
        assert list(found.verdicts) == ["clean"]


def test_model_1s_training_is_judged_by_its_last_epoch(tmp_path, monkeypatch):
    history = pd.DataFrame({"epoch": [1, 2], "accuracy": [0.6, 0.74], "val_accuracy": [0.5, 0.68]})
    five(tmp_path, monkeypatch, model=1, histories={"clean": history})
    found = check.check([tmp_path]).verdicts
    assert found["clean"]["model1.train_accuracy"].measured == pytest.approx(0.74)
    said = found["clean"]["model1.validation_accuracy"]
    assert said.measured == pytest.approx(0.68) and "does not tell" in said.reason
    assert "model1.train_accuracy" not in found["paper"]


def test_figure_2_is_compared_cell_by_cell(tmp_path, monkeypatch):
    counts = claims.figure2()[["positive", "uncertain", "negative"]]
    counts.iloc[2, 1] += 1
    record(tmp_path, monkeypatch, tables={"Fig. 2": counts})
    judged = check.check([tmp_path]).verdicts["data"]
    wrong = [name for name, one in judged.items() if one.verdict == verdicts.FAILED]
    assert len(judged) == 42 and wrong == ["fig2.cardiomegaly.uncertain"]
    output = cxr(tmp_path, "--write", tmp_path / "v.json").output
    assert "fig2.cardiomegaly.uncertain" in output and "fig2.edema" not in output
    assert "of 42 claims, 41 reproduced, 1 not reproduced" in output


def test_runs_that_do_not_belong_together_are_refused(tmp_path, monkeypatch):
    record(tmp_path / "a", monkeypatch, seed=1)
    for name, more, message in (
        ("seed", {"seed": 1}, "Two runs of 05_model have the seed 1"),
        ("profile", {"seed": 2, "profile": "quick"}, "profile is paper in one and quick"),
        ("weights", {"seed": 2, "kind": "random"}, "weights is"),
    ):
        record(tmp_path / name, monkeypatch, **more)
        with pytest.raises(CheckError, match=message):
            check.check([tmp_path / "a", tmp_path / name])


def test_lessons_hold_only_if_they_hold_in_every_run(tmp_path, monkeypatch):
    record(tmp_path / "a", monkeypatch, seed=1, tables={"lessons held": LESSONS})
    both = LESSONS.assign(held=[True, True])
    record(tmp_path / "b", monkeypatch, seed=2, tables={"lessons held": both})
    found = check.check([tmp_path])
    assert found.held == {"05_model: leaks pay": True, "05_model: labels matter": False}
    record(tmp_path / "a", monkeypatch, seed=1, tables={"lessons held": LESSONS[["held"]]})
    with pytest.raises(CheckError, match="05_model: its table 'lessons held' lacks"):
        check.check([tmp_path])


E_, R, U, F, N = verdicts.VERDICTS


def checked(clean, held=()):
    words = {
        name: verdicts.Verdict(name, "", dict.fromkeys(verdicts.LEVELS, word), "")
        for name, word in clean.items()
    }
    return check.Check([], {"paper": {}, "clean": words}, dict(held))


@pytest.mark.parametrize(
    ("before", "worse_ones"),
    [(E_, {U, F, N}), (R, {U, F, N}), (U, {F, N}), (F, {N}), (N, set())],
)
def test_what_is_worse(before, worse_ones):
    reference = {"verdicts": {"clean": {"table1.x": before}}, "lessons held": {}}
    for after in verdicts.VERDICTS:
        told = check.worse(reference, checked({"table1.x": after}))
        assert told == (
            [f"table1.x (clean protocol): {after}, was {before}"] if after in worse_ones else []
        )


def test_what_is_missing_is_worse_unless_only_what_is_present_counts():
    reference = {
        "verdicts": {"paper": {"table1.x": F}, "clean": {"table1.x": N}},
        "lessons held": {"09: leaks pay": True, "09: never held": False},
    }
    now = checked({})
    assert check.worse(reference, now) == [
        "table1.x (paper protocol): missing, was not reproduced",
        "table1.x (clean protocol): missing, was not comparable",
        "09: leaks pay: missing, was held",
    ]
    assert check.worse(reference, now, only_present=True) == []
    del now.verdicts["clean"]  # not asked for
    assert len(check.worse(reference, now)) == 2
    counts = {"verdicts": {"data": {"fig2.x": R}}, "lessons held": {}}
    assert check.worse(counts, now) == ["fig2.x (data protocol): missing, was reproduced"]
    broken = checked({}, {"09: leaks pay": False})
    assert check.worse(reference, broken, True) == ["09: leaks pay: not held, was held"]


def test_the_command_records_compares_and_exits(tmp_path, monkeypatch):
    good, bad = tmp_path / "good", tmp_path / "bad"
    five(good, monkeypatch, wrong=6, tables={"lessons held": LESSONS})
    five(bad, monkeypatch, wrong=40)
    reference = tmp_path / "reference"
    found = cxr(good, "--write", reference / "verdicts.json")
    assert found.exit_code == 0, found.output
    content = json.loads((reference / "verdicts.json").read_text())
    assert set(content["verdicts"]["clean"]) == {f"table1.model3.{m}" for m in check.MEASURES}
    assert content["lessons held"]["05_model: leaks pay"] is True

    found = cxr(good, "--reference", reference, "--json", tmp_path / "all.json")
    assert found.exit_code == 0 and "No verdict is worse" in found.output
    assert "0.8229" in found.output and "0.867" in found.output and "leaky" in found.output
    for said in ("not for clinical use", "5 runs", "Lesson not held: 05_model: labels matter"):
        assert said in found.output
    everything = json.loads((tmp_path / "all.json").read_text())
    one = everything["verdicts"]["clean"]["table1.model3.accuracy"]
    assert one["verdicts"].keys() == {"90", "95", "99"} and one["seeds"] == 5
    assert one["intervals"]["95"] == pytest.approx(wilson(78, 90))
    assert "The paper's own 24 patients allow" in one["second"] and one["second"] in found.output
    assert everything["margin"] == content["margin"] == one["margin"] == 0.1
    # Eight verdicts, four figures under two protocols: 4 times 5 % each, by Boole.
    assert found.output.count("of 4 verdicts at 95 %, some is wrong with a prob") == 2
    assert "up to 20%; of the 4 figures of one model, at 99 %, 4%" in found.output

    # 39 of 45 is .044 above .8229, and the paper's 24 patients allow both.
    for margin, expected in ((0.2, verdicts.REPRODUCED), (0.05, verdicts.UNDECIDABLE)):
        cxr(good, "--margin", margin, "--json", tmp_path / "m.json")
        recorded = json.loads((tmp_path / "m.json").read_text())
        one = recorded["verdicts"]["clean"]["table1.model3.accuracy"]
        assert recorded["margin"] == margin and set(one["verdicts"].values()) == {expected}
    assert cxr(good, "--margin", 1).exit_code == 2

    found = cxr(bad, "--reference", reference)
    assert found.exit_code == 1
    assert "Worse than recorded: table1.model3.recall (clean protocol): not repro" in found.output
    assert "Worse than recorded: 05_model: leaks pay: missing, was held" in found.output
    found = cxr(bad, "--reference", reference, "--only-present", "--protocol", "paper")
    assert found.exit_code == 1 and "leaks pay" not in found.output
    assert "clean protocol" not in found.output.lower()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no verdicts.json. Record them: cxr check RUN --write"),
        ("{", "is damaged"),
        ('{"schema": 1}', "is damaged"),
        ('{"schema": 1, "verdicts": {"clean": 3}, "lessons held": {}}', "is damaged"),
        ('{"schema": 9, "verdicts": {}, "lessons held": {}}', "not from this version"),
        ('{"schema": 1, "verdicts": {"clean": {"a": "good"}}, "lessons held": {}}', "not from"),
        ('{"schema": 1, "verdicts": {}, "lessons held": []}', "not from this version"),
    ],
)
def test_a_bad_reference_is_bad_usage(tmp_path, monkeypatch, text, message):
    record(tmp_path / "run", monkeypatch)
    if text:
        (tmp_path / "verdicts.json").write_text(text)
    found = cxr(tmp_path / "run", "--reference", tmp_path)
    assert found.exit_code == 2 and message in found.output.replace("\n", " ")


def test_no_run_and_damaged_results_are_told_apart(tmp_path, monkeypatch):
    found = cxr(tmp_path / "nothing")
    assert found.exit_code == 2 and "holds no run" in found.output
    record(tmp_path / "run", monkeypatch)
    (tmp_path / "run" / "results" / "06_x.json").write_text("{")
    found = cxr(tmp_path / "run")
    assert found.exit_code == 1 and "06_x.json is damaged" in found.output
    assert "Traceback" not in found.output


def test_the_courses_reference_holds_its_own_results():
    """The verdicts beside the reference results are those that the command gives for them."""
    folder = shipped("data") / "reference"
    recorded = check.read_reference()
    found = check.check([folder])
    # Lessons 7 to 9 are no part of the reference results; a smoke run is held to what they showed.
    assert check.worse(recorded, found, only_present=True) == []
    assert {name[:2] for name in recorded[check.HELD]} == {f"0{lesson}" for lesson in range(10)}
    assert len(recorded[check.HELD]) >= 20 and all(recorded[check.HELD].values())
    assert {"paper", "clean"} <= set(recorded["verdicts"]) == set(found.verdicts)
    for protocol, judged in found.verdicts.items():
        assert recorded["verdicts"][protocol] == {name: v.verdict for name, v in judged.items()}
