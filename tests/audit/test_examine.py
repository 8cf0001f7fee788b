"""The audit as a whole, and what each finding is worth, from what the experiments found."""

import hashlib
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from cxrlib import phantom, shortcuts
from cxrlib.audit import examine as audit
from cxrlib.audit import lights as judge
from cxrlib.audit import page as auditpage
from cxrlib.cohort import Cohort
from cxrlib.shortcuts import duplicates
from helpers import tiny_cohort
from servers import ROOT

CLASSES = ("healthy", "covid")


def phantoms(confounding, seed=11, patients=40, size=64):
    return phantom.make_cohort(
        patients, labels=CLASSES, confounding=confounding, size=size, seed=seed
    )


def change(cohort, **columns):
    return Cohort(cohort.table.assign(**columns), cohort.images, cohort.name)


def light_of(found, name):
    return next(finding.light for finding in found.findings if finding.name == name)


def border(cohort):
    """Judge the border alone, without the other probes."""
    table = shortcuts.shortcuts(cohort, seen=("border",))
    (found,) = judge.views_without_lungs(cohort, cohort.labels, table)
    assert found.name == "Border alone"
    return found


@pytest.fixture(scope="module")
def told():
    """What is said of the progress of the honest audit."""
    return []


@pytest.fixture(scope="module")
def honest(told):
    return audit.run(phantoms(0), progress=lambda *step: told.append(step))


@pytest.fixture(scope="module")
def confounded():
    return audit.run(phantoms(0.9), by="scanner")


def test_phantoms_without_confounding_raise_no_red_light(honest):
    assert honest.light != "red", [f.headline for f in honest.findings if f.light == "red"]
    assert light_of(honest, "Your split") == light_of(honest, "Source and label") == "grey"
    assert light_of(honest, "Image-level split") == "amber"  # patients have several images
    assert honest.synthetic


def test_a_telling_scanner_raises_red_lights(confounded):
    red = {finding.name for finding in confounded.findings if finding.light == "red"}
    assert red >= {"Lungs covered", "Border alone", "Corners alone", "File alone"}
    assert "Source and label" in red
    assert confounded.findings[0].light == "red" == confounded.light


def test_red_lights_show_the_films_that_say_so(honest, confounded):
    """Six patients of each class, and where in the film it lies, in words and as a figure."""
    views = {"Lungs covered", "Border alone", "Corners alone", "File alone"}
    for finding in confounded.findings:
        loud = [given for given in finding.figures.values() if given[0] == "loudest_plot"]
        assert bool(loud) == (finding.name in {*views, "Source and label"}), finding.name
        if loud:
            found = loud[0][2]
            assert found.said in finding.meaning
            assert set(found.films.groupby("class").size()) == {6}
            assert any(table is found.films for table in finding.tables.values())
    for finding in honest.findings:
        assert "loudest_plot" not in [name for name, *_ in finding.figures.values()]


def test_every_finding_says_what_it_means_and_what_to_do(honest, confounded):
    for found in (*honest.findings, *confounded.findings):
        assert found.light in audit.LIGHTS
        assert found.headline.endswith(".") and found.meaning and found.advice
        assert "nan" not in found.headline
    assert len({finding.name for finding in honest.findings}) == len(honest.findings) == 15


def test_the_page_draws_what_the_findings_want_drawn(confounded, tmp_path):
    page = auditpage.write(confounded, tmp_path / "page.html").read_text(encoding="utf-8")
    wanted = [caption for finding in confounded.findings for caption in finding.figures]
    assert len(wanted) == 8 and page.count("<img src=") == 8
    numbered = [f"<figcaption>Figure {number}. {one}<" for number, one in enumerate(wanted, 1)]
    assert all(caption in page for caption in numbered)
    described = re.findall(r'alt="([^"]+)"', page)
    assert len(set(described)) == 8 and not set(described) & set(wanted), "words of their own"


def test_a_reader_can_tell_what_was_audited_and_by_what(confounded):
    cohort, facts = phantoms(0.9), confounded.facts
    films = hashlib.sha256(np.stack([*cohort.images]).tobytes()).hexdigest()
    rows = cohort.table.to_csv(index=False, lineterminator="\n").encode()
    assert f"SHA-256 {films} " in facts["Checksum of the images"]
    assert f"SHA-256 {hashlib.sha256(rows).hexdigest()} " in facts["Checksum of the table"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert facts["Cite as"] == (
        f"{cited['authors'][0]['name']}. {cited['title']}. cxrlib {cited['version']}, cxr audit."
    )


def test_progress_is_told_step_by_step(honest, told):
    assert told == [(number, len(audit.STEPS), name) for number, name in enumerate(audit.STEPS)]


@pytest.mark.parametrize(
    ("cohort", "options", "message"),
    [
        (lambda: tiny_cohort(labels=("covid",)), {}, "two classes"),
        (lambda: tiny_cohort(16), {}, "only 8 patients"),
        (lambda: tiny_cohort(20), {"by": "hospital"}, "no column 'hospital'"),
        (lambda: change(tiny_cohort(20), patient=None), {}, "names no patient"),
    ],
)
def test_what_cannot_be_audited_is_named(cohort, options, message):
    with pytest.raises(audit.AuditError, match=message):
        audit.run(cohort(), **options)


def test_copies_that_leave_too_few_patients_make_probes_grey_not_the_audit_fail():
    cohort = phantoms(0, patients=24)
    images = np.array(cohort.images[:])
    is_ill = (cohort.table["label"] == "covid").to_numpy()
    images[is_ill] = images[np.flatnonzero(is_ill)[0]]
    found = audit.run(Cohort(cohort.table, images, "copies"))
    assert light_of(found, "Duplicates") == "red"
    for name in ("Border alone", "Thumbnail alone", "Who they are", "Image-level split"):
        assert light_of(found, name) == "grey", name


def test_a_copy_under_another_name_is_red():
    cohort = phantoms(0, patients=20)
    images = np.array(cohort.images[:])
    other = int(np.flatnonzero(cohort.table["label"] != cohort.table["label"][0])[0])
    images[other] = images[0]
    planted = Cohort(cohort.table, images, "planted")
    found = judge.copies(planted, duplicates.near_duplicates(planted))
    assert found.light == "red" and "1 pair under two labels" in found.headline


@pytest.mark.parametrize(
    ("patient", "label", "similarity", "light"),
    [
        (True, False, 1.0, "red"),
        (False, True, 0.97, "red"),
        (False, False, 0.969, "amber"),  # other patients' films may look so
        (True, True, 1.0, "green"),
    ],
)
def test_pairs_are_red_where_they_are_surely_one_film(patient, label, similarity, light):
    facts = {"similarity": similarity, "same patient": patient, "same label": label}
    pairs = pd.DataFrame({"image": ["a"], "other": ["b"]}).assign(**facts)
    assert judge.copies(None, pairs).light == light


def by_view(**rows):
    """Make a table as shortcuts() does: AUC and p by view."""
    table = pd.DataFrame(rows.values(), columns=["auc", "p"])
    names = [name.replace("_", " ") for name in rows]
    return table.assign(view=names, low=table["auc"] - 0.1, high=table["auc"] + 0.05, told="covid")


def test_views_that_are_probed_together_share_their_chance():
    views = ("lungs_covered", "border", "corners", "file")
    three = tiny_cohort(labels=("healthy", "pneumonia", "covid"))
    together = by_view(**{view: (0.8, 0.015 + n / 100) for n, view in enumerate(views)})
    found = judge.views_without_lungs(three, CLASSES, together)
    assert {one.light for one in found} == {"green"}  # 4 x 0.015 is above 0.05
    alone = together.assign(p=[0.002, 0.5, np.nan, 0.012])
    found = judge.views_without_lungs(three, CLASSES, alone)
    assert [one.light for one in found] == ["red", "green", "grey", "amber"]
    (table,) = found[0].tables.values()  # Holm: three times the least, twice the next
    np.testing.assert_allclose(table["corrected p"], [0.006, 0.5, np.nan, 0.024])
    *_, (_, shown) = found[0].figures.values()
    assert shown.labels == ["healthy", "covid"]  # with the class of the headlines


@pytest.mark.parametrize(
    ("whole", "thumbnail", "p", "light"),
    [
        (0.95, 0.91, 0.001, "amber"),
        (0.95, 0.90, 0.001, "green"),  # 0.40 of 0.45: below nine tenths
        (0.95, 0.91, 0.02, "green"),
        (0.62, 0.59, 0.001, "green"),
    ],
)
def test_a_thumbnail_counts_if_it_does_nearly_as_well(whole, thumbnail, p, light):
    table = by_view(whole_image=(whole, 0.001), thumbnail=(thumbnail, p), histogram=(0.5, 0.9))
    first, second = judge.coarse_views(table)
    assert (first.light, second.light) == (light, "green")


def test_a_split_that_divides_patients_is_red_and_one_that_does_not_is_green():
    cohort = tiny_cohort(20, 3)
    pairs = duplicates.near_duplicates(cohort)[:0]
    number = np.arange(len(cohort))
    for column, light in (
        (np.where(number % 2, "train", "test"), "red"),
        (np.where(number // 3 % 2, "train", "test"), "green"),
        ("train", "grey"),
    ):
        assert judge.split(change(cohort, split=column), pairs).light == light


def test_a_shortcut_is_found_in_three_classes_and_in_one_of_four():
    three = phantom.make_cohort(45, (1, 1), confounding=1.0, size=64, seed=2)
    assert border(three).light == "red"
    cohort = phantom.make_cohort(60, (1, 1), ("healthy",), size=64, seed=6)
    images, label = np.array(cohort.images[:]), np.array(list("abcd"))[np.arange(60) % 4]
    images[label == "c", :3] = 255
    found = border(Cohort(cohort.table.assign(label=label), images, "four"))
    assert found.light == "red" and "'c'" in found.headline


def test_a_shortcut_is_red_where_every_patient_is_in_both_classes():
    cohort = phantom.make_cohort(30, (2, 2), ("healthy",), size=64, seed=5)
    images = np.array(cohort.images[:])
    ill = np.arange(len(images)) % 2 == 1
    images[ill, :3] = 255
    both = Cohort(cohort.table.assign(label=np.where(ill, "covid", "healthy")), images, "follow-up")
    assert border(both).light == "red"
    found = judge.two_classes(both)
    assert found.light == "amber" and "30 of 30 patients" in found.headline
    assert judge.two_classes(cohort).light == "green"


def test_a_source_that_is_not_known_or_as_good_as_a_name_is_grey():
    cohort = tiny_cohort(40, 1)
    one_class = np.where(cohort.table["label"] == "covid", None, "north")
    assert judge.source_and_label(change(cohort, source=one_class), "source").light == "grey"
    assert judge.source_and_label(cohort, "patient").light == "grey"
    told = judge.source_and_label(change(cohort, source=cohort.table["label"]), "source")
    assert told.light == "red" and "they coincide" in told.headline


@pytest.mark.parametrize(
    ("rows", "confounded", "light"),
    [
        # One label's small p and another's large area make no red light together
        ([("a", 0.75, 0.30), ("b", 0.57, 0.001)], True, "amber"),
        ([("a", 0.75, 0.001), ("b", 0.57, 0.3)], True, "red"),
        ([("a", 0.75, 0.001), ("b", 0.57, 0.3)], False, "amber"),
        ([("a", 0.75, 0.006), ("b", 0.57, 0.3)], True, "amber"),  # two tests: p counts double
        ([], True, "grey"),
    ],
)
def test_the_light_of_a_source_needs_its_own_p_and_its_own_size(rows, confounded, light):
    table = pd.DataFrame(rows, columns=["label", "auc", "p"]).assign(low=0.5, high=0.8, told="x")
    assert judge.source_within_class(table, confounded).light == light


@pytest.mark.parametrize(
    ("p", "large", "light"),
    [(0.01, True, "red"), (0.01, False, "amber"), (0.05, True, "amber"), (0.06, True, "green"),
     (np.nan, True, "grey")],
)  # fmt: skip
def test_a_light_needs_both_a_small_p_and_a_large_effect(p, large, light):
    assert judge.light_of(p, large) == light


def by_fact(**rows):
    """Make a table as who_they_are() does: AUC and p by fact."""
    table = pd.DataFrame(rows.values(), columns=["auc", "p"]).assign(classes="healthy, covid")
    ends = {"low": table["auc"] - 0.1, "high": table["auc"] + 0.05, "patients": 40, "told": "covid"}
    return table.assign(fact=[name.replace("_", ", ") for name in rows], **ends)


@pytest.mark.parametrize(
    ("rows", "light"),
    [
        ({"age": (0.8, 0.003), "sex": (0.5, 0.5), "age_sex": (0.7, 0.2)}, "red"),
        ({"age": (0.8, 0.004), "sex": (0.5, 0.5), "age_sex": (0.7, 0.2)}, "amber"),  # p counts 3
        ({"age": (0.8, 0.02), "sex": (0.5, 0.5), "age_sex": (0.7, 0.2)}, "green"),
        ({"age": (0.59, 0.001)}, "amber"),  # sure, and small
        ({"view": (0.5, 0.5)}, "grey"),  # who they are, nobody knows
        ({"view": (0.8, 0.001)}, "red"),
        ({}, "grey"),
    ],
)
def test_the_facts_of_patients_share_their_chance(rows, light):
    cohort = change(tiny_cohort(40), age=50.0, sex="F")
    found = judge.who_they_are(cohort, by_fact(**rows))
    assert found.light == light and found.advice and "nan" not in found.headline
    assert ("Nobody's age or sex" in found.headline) == (not {"age", "sex"} & set(rows))
    assert ("Ages by label" in found.figures) == ("age" in rows)


def test_older_ill_raise_a_red_light_and_equally_old_ones_none():
    """The films know nothing: all are noise of one kind, whatever the patient's age."""
    cohort = phantoms(0, patients=60)
    number, ill = pd.factorize(cohort.table["patient"])[0], cohort.table["label"] == "covid"
    age = np.random.default_rng(0).normal(45, 12, 60)[number]
    same = audit.run(change(cohort, age=age))
    older = audit.run(change(cohort, age=(age + 25 * ill).astype(str)))  # as a text, too
    assert light_of(same, "Who they are") == "green" and light_of(older, "Who they are") == "red"
    (found,) = (one for one in older.findings if one.name == "Who they are")
    assert "From age" in found.headline and "ages" in [name for name, *_ in found.figures.values()]
    ages = found.tables["Who the patients are, by label"]["mean age"]
    assert ages["covid"] - ages["healthy"] == pytest.approx(25, abs=8)
    assert "Match or weigh" in found.advice
    for name in ("Border alone", "Corners alone", "File alone"):
        assert light_of(same, name) == light_of(older, name)


def odd_of(labels, odd):
    """Judge a cohort whose films at the places `odd` are said to be inverted."""
    cohort = tiny_cohort(40, per_patient=1, side=32, labels=labels)
    rows = cohort.table.iloc[odd][["image", "label", "source"]]
    return judge.odd_films(cohort, rows.assign(reason="inverted", score=9.0))


def test_no_odd_film_is_green_a_few_are_amber_and_a_label_of_them_is_red():
    assert odd_of(CLASSES, []).light == "green"
    few = odd_of(CLASSES, [0, 1])  # one of each label
    assert few.light == "amber" and "inverted: 2" in few.headline
    many = odd_of(CLASSES, range(1, 21, 2))  # ten of the twenty ill ones
    assert many.light == "red" and "50 % of the patients labelled 'covid'" in many.headline
    assert list(many.tables) == ["Odd films", "By label"]


def test_an_inverted_class_is_red_and_shown():
    cohort = phantoms(0, patients=40)
    images = np.array(cohort.images[:])
    ill = np.flatnonzero(cohort.table["label"] == "covid")[:20]
    images[ill] = 255 - images[ill]
    cohort = Cohort(cohort.table, images, "spoiled")
    found = judge.odd_films(cohort, shortcuts.odd_films(cohort))
    assert found.light == "red" and "inverted: 20" in found.headline
    assert "odd_plot" in next(iter(found.figures.values()))


def test_of_few_films_nothing_is_said():
    cohort = tiny_cohort(20, per_patient=1, side=32)
    assert judge.odd_films(cohort, shortcuts.odd_films(cohort)).light == "grey"


@pytest.mark.parametrize("most", [50, 9])
def test_classifiers_see_whole_patients_of_each_class_where_films_are_many(monkeypatch, most):
    """Where so few films hold too few patients, all are seen."""
    cohort, parts = phantoms(0), []
    monkeypatch.setattr(audit, "PROBED", most)

    def look(part, *args, **options):
        parts.append(part)
        raise InterruptedError

    monkeypatch.setattr(shortcuts, "shortcuts", look)
    with pytest.raises(InterruptedError):
        audit.run(cohort)
    sizes = cohort.table["patient"].value_counts()
    drawn = parts[0].table.drop_duplicates("patient")
    assert len(parts[0]) == sizes[drawn["patient"]].sum()
    assert drawn["label"].value_counts().max() - drawn["label"].value_counts().min() <= 1
    assert most - 3 < len(parts[0]) <= most if most == 50 else len(parts[0]) == len(cohort)
