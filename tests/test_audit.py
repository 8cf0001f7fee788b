import numpy as np
import pandas as pd
import pytest

from cxrlib import audit, phantom
from cxrlib.cohort import Cohort

CLASSES = ("healthy", "covid")


def phantoms(confounding, seed=11, patients=60):
    return phantom.make_cohort(
        patients, labels=CLASSES, confounding=confounding, size=96, seed=seed
    )


def light_of(found, name):
    return next(finding.light for finding in found.findings if finding.name == name)


@pytest.fixture(scope="module")
def honest():
    return audit.run(phantoms(0))


@pytest.fixture(scope="module")
def confounded():
    return audit.run(phantoms(0.9), by="scanner")


def test_phantoms_without_confounding_raise_no_red_light(honest):
    assert honest.light != "red", [f.headline for f in honest.findings if f.light == "red"]
    assert light_of(honest, "Your split") == light_of(honest, "Source and label") == "grey"
    assert honest.synthetic


def test_a_telling_scanner_raises_red_lights(confounded):
    red = {finding.name for finding in confounded.findings if finding.light == "red"}
    assert red >= {"Lungs covered", "Border alone", "Corners alone", "File alone"}
    assert "Source and label" in red
    assert confounded.findings[0].light == "red" == confounded.light


def test_every_finding_says_what_it_means_and_what_to_do(honest, confounded):
    for found in (*honest.findings, *confounded.findings):
        assert found.light in audit.LIGHTS
        assert found.headline.endswith(".") and found.meaning and found.advice
        assert "nan" not in found.headline
    assert len({finding.name for finding in honest.findings}) == len(honest.findings)


def test_the_leak_of_an_image_level_split_is_an_amber_light(honest):
    assert light_of(honest, "Image-level split") == "amber"  # patients have several images


def change(cohort, **columns):
    return Cohort(cohort.table.assign(**columns), cohort.images, cohort.name)


def test_a_copy_under_another_name_is_red_and_shares_a_patient_from_then_on():
    cohort = phantoms(0, patients=40)
    table, images = cohort.table, np.array(cohort.images[:])
    other = int(np.flatnonzero(table["label"] != table["label"][0])[0])
    images[other] = images[0]
    planted = Cohort(table, images, "planted")
    found = audit.run(planted)
    finding = next(f for f in found.findings if f.name == "Duplicates")
    assert finding.light == "red" and "1 pair under two labels" in finding.headline
    pairs = pd.DataFrame({"image": [table["image"][0]], "other": [table["image"][other]]})
    joined = audit.together(planted, pairs).table["patient"]
    assert joined[0] == joined[other]
    assert joined.nunique() == table["patient"].nunique() - 1
    same = [0, other]
    others = table.index[~table["patient"].isin(table["patient"][same])]
    assert (joined[others] == table["patient"][others]).all()


def test_a_split_that_divides_patients_is_red_and_one_that_does_not_is_green():
    cohort = phantoms(0, patients=30)
    by_image = np.where(np.arange(len(cohort)) % 2, "train", "test")
    number = pd.factorize(cohort.table["patient"])[0]
    by_patient = np.where(number % 2, "train", "test")
    assert light_of(audit.run(change(cohort, split=by_image)), "Your split") == "red"
    assert light_of(audit.run(change(cohort, split=by_patient)), "Your split") == "green"


def test_progress_is_told_step_by_step():
    said = []
    audit.run(phantoms(0, patients=24), progress=lambda *told: said.append(told))
    assert [number for number, _, _ in said] == list(range(len(said)))
    assert said[-1][1] == len(said)


@pytest.mark.parametrize(
    ("cohort", "options", "message"),
    [
        (lambda: phantoms(0).where(label="covid"), {}, "two classes"),
        (lambda: phantoms(0, patients=16), {}, "only 8 patients"),
        (lambda: phantoms(0), {"by": "hospital"}, "no column 'hospital'"),
        (lambda: change(phantoms(0), patient=None), {}, "names no patient"),
    ],
)
def test_what_cannot_be_audited_is_named(cohort, options, message):
    with pytest.raises(audit.AuditError, match=message):
        audit.run(cohort(), **options)


def test_three_classes_can_be_audited():
    cohort = phantom.make_cohort(45, confounding=1.0, size=64, seed=2)
    assert light_of(audit.run(cohort), "Border alone") == "red"


def test_a_shortcut_is_red_where_every_patient_is_in_both_classes():
    cohort = phantom.make_cohort(30, (2, 2), ("healthy",), size=64, seed=5)
    images = np.array(cohort.images[:])
    ill = np.arange(len(images)) % 2 == 1
    images[ill, :3] = 255
    table = cohort.table.assign(label=np.where(ill, "covid", "healthy"))
    found = audit.run(Cohort(table, images, "follow-up"))
    assert light_of(found, "Border alone") == "red"
    assert light_of(found, "Patients in two classes") == "amber"


def test_a_shortcut_in_one_class_of_four_is_red_and_names_it():
    cohort = phantom.make_cohort(60, (1, 1), ("healthy",), size=64, seed=6)
    images, label = np.array(cohort.images[:]), np.array(list("abcd"))[np.arange(60) % 4]
    images[label == "c", :3] = 255
    found = audit.run(Cohort(cohort.table.assign(label=label), images, "four"))
    finding = next(one for one in found.findings if one.name == "Border alone")
    assert finding.light == "red" and "'c'" in finding.headline


def test_copies_that_leave_too_few_patients_make_probes_grey_not_the_audit_fail():
    cohort = phantoms(0, patients=24)
    images = np.array(cohort.images[:])
    is_ill = (cohort.table["label"] == "covid").to_numpy()
    images[is_ill] = images[np.flatnonzero(is_ill)[0]]
    found = audit.run(Cohort(cohort.table, images, "copies"))
    assert light_of(found, "Duplicates") == "red"
    assert light_of(found, "Border alone") == light_of(found, "Thumbnail alone") == "grey"


def test_a_source_that_is_not_known_or_as_good_as_a_name_is_grey():
    cohort = phantoms(0, patients=40)
    one_class = np.where(cohort.table["label"] == "covid", None, "north")
    assert light_of(audit.run(change(cohort, source=one_class)), "Source and label") == "grey"
    assert light_of(audit.run(cohort, by="patient"), "Source and label") == "grey"


def test_a_split_with_one_value_is_grey():
    cohort = change(phantoms(0, patients=24), split="train")
    assert light_of(audit.run(cohort), "Your split") == "grey"


def test_the_light_of_a_source_needs_its_own_p_and_its_own_size(monkeypatch):
    """One label's small p and another's large area make no red light together."""
    from types import SimpleNamespace

    from cxrlib import judgeviews

    rows = [("a", 0.75, 0.30), ("b", 0.57, 0.001)]
    table = pd.DataFrame(rows, columns=["label", "auc", "p"]).assign(low=0.5, high=0.8, told="x")
    monkeypatch.setattr(judgeviews.shortcuts, "sources_within_class", lambda *_, **__: table)
    evidence = SimpleNamespace(cohort=None, by="s", extract=None, seed=0, source_light="red")
    (found,) = judgeviews.source_within_class(evidence)
    assert found.light == "amber" and "Among b images" in found.headline
