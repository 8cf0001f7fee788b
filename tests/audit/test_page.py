"""The page on an audit: complete, self-contained, readable by all, and safe with any text."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cxrlib.audit import page as auditpage
from cxrlib.audit.examine import LIGHTS, Audit, Finding
from cxrlib.results import unpack

EVIL = """<script>alert("x")</script> 'a' & b.png"""
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, addresses, ids, headings and the text of a page; complains about bad nesting."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.addresses, self.ids, self.headings = [], [], [], []
        self.open, self.text, self.attributes = [], "", []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, self.open
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.attributes.append((tag, attrs))
        self.addresses += [attrs[key] for key in ("src", "href", "data", "action") if key in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += " " + data


AREAS = pd.DataFrame({"view": ["border"], "auc": [0.93], "low": [0.88], "high": [0.97]})


def make_audit(synthetic=True, lights=LIGHTS, label="covid"):
    tables = {"Patients by source and label": pd.crosstab(["a", "b"], [label, "healthy"])}
    long = pd.DataFrame({"image": [EVIL] + ["film"] * 99, "patient": range(100)})
    words = {
        "red": ("Border alone", "From the outer 4 %, AUC 0.93 [0.88, 0.97] (p below 0.001)."),
        "amber": ("Patients in two classes", f"3 of 80 patients have images of {label} too."),
        "green": ("Duplicates", "0 pairs of images are the same or nearly so."),
        "grey": ("Your split", "The table has no column 'split'."),
    }
    findings = [
        Finding(*words[light][:1], light, words[light][1], "Why it matters.", "Crop it off.")
        for light in lights
    ]
    if findings:
        findings[0].tables.update(tables)
        findings[0].tables["Files"] = long
        findings[0].figures["AUC of the border"] = ("shortcut_plot", AREAS)
    counts = pd.DataFrame(
        {"images": [120, 80], "patients": [50, 30]},
        index=pd.MultiIndex.from_tuples([(label, EVIL), ("healthy", np.nan)]),
    ).rename_axis(["label", "source"])
    facts = {"Data": f"films: 200 images of {label}", "Seed": "0", "Versions": "Python 3.11"}
    return Audit(f"films {label}", counts, findings, facts, synthetic)


@pytest.fixture
def write(tmp_path):
    return lambda audit, **more: Page(auditpage.write(audit, tmp_path / "audit.html", **more))


def test_the_page_says_what_was_found_and_what_it_cannot_know(write):
    page = write(make_audit(), notes=["12 images name no patient."])
    for words in (
        "Audit of films covid",
        "SYNTHETIC DATA",
        "1 red light:",
        "Not tested: 1 of 4 points.",
        "not for clinical use",
        "12 images name no patient.",
        "AUC 0.93 [0.88, 0.97]",
        "Why it matters.",
        "What to do",
        "A probe that finds nothing proves nothing",
        "A neural network may find",
        "It does not say that your model uses it",
        "Labels are not checked",
        "Patients are taken as given",
        "Holm",
        "docs/audit/README.md",
        "and of the facts about the patients, is larger: it is corrected for their number",
        "thumbnail and histogram, are not",
        "Python 3.11",
        "first 60 of 100 rows",
    ):
        assert words in page.text, words
    assert "SYNTHETIC" not in write(make_audit(synthetic=False)).text


def test_a_light_is_a_colour_and_a_word_and_a_shape(write):
    text, shapes = write(make_audit()).text, set()
    for name in LIGHTS:
        # In the table of lights, the legend, and above the probe's section
        shape, *others = re.findall(rf"([■▲●○]) {name}", text)
        assert set(others) == {shape} and len(others) >= 2
        shapes.add(shape)
    assert len(shapes) == len(LIGHTS)


@pytest.mark.parametrize(
    ("lights", "words"),
    [
        (("red", "red", "green"), "2 red lights: something other than the disease"),
        (("amber", "grey"), "1 amber light: nothing is sure"),
        (("green", "green"), "That proves nothing"),
        (("grey",), "Nothing could be tested"),
        ((), "Nothing could be tested"),
    ],
)
def test_the_conclusion_follows_the_worst_light(write, lights, words):
    audit = make_audit(lights=lights)
    assert words in auditpage.conclusion(audit) and words in write(audit).text
    assert ("Not tested" in auditpage.conclusion(audit)) == (lights == ("amber", "grey"))


def test_the_page_needs_nothing_but_itself(write, tmp_path):
    page = write(make_audit())
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    for address in page.addresses:
        assert address.startswith("data:image/png;base64,") or address[1:] in page.ids, address
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(|\bon\w+=", html)
    assert not [path for path in tmp_path.iterdir() if path.name != "audit.html"]


@pytest.mark.parametrize(
    "label", [EVIL, '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "a\udce9"]
)
def test_text_from_the_users_files_stays_text(write, label):
    page = write(make_audit(label=label), notes=[label])
    assert "script" not in page.tags and page.tags.count("img") == 1
    assert not [attrs for _, attrs in page.attributes if any(key[:2] == "on" for key in attrs)]
    said = label.replace("\udce9", "?")
    for place in (f"Audit of films {said}", f"images of {said}", f"have images of {said}"):
        assert place in page.text, place  # title, facts, headline


def test_the_page_is_made_for_all_readers(write):
    page = write(make_audit())
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert max(np.diff(page.headings)) == 1  # no level is skipped
    attributes = page.attributes
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in attributes if tag == "th")
    (described,) = [attrs["alt"] for tag, attrs in attributes if tag == "img"]
    assert "area under the ROC curve" in described and "Figure 1. AUC of the border" in page.text
    assert page.tags.count("caption") == page.tags.count("table") == 4
    numbers = [int(one) for one in re.findall(r"Table (\d+)\. ", page.text)]
    assert list(dict.fromkeys(numbers)) == [1, 2, 3, 4]  # a folded one says its number twice
    assert ("html", {"lang": "en"}) in attributes
    assert len(page.ids) == len(set(page.ids))


def luminance(colour: str) -> float:
    """Relative luminance as the WCAG 2.2 define it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_contrast_on_light_and_dark_and_paper(write, tmp_path):
    write(make_audit())
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    palettes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", block))
        for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    ]
    assert len(palettes) == 3
    for palette in palettes:
        palette = {key: c if len(c) == 7 else "#" + c[1:] + c[1:] for key, c in palette.items()}
        for name in ("ink", "soft", "accent", "red", "amber", "green", "grey"):
            for below in ("paper", "shade"):
                lower, upper = sorted(luminance(palette[key]) for key in (name, below))
                assert (upper + 0.05) / (lower + 0.05) >= 4.5, (name, below, palette)


def test_cells_read_well(write, tmp_path):
    """Digits as they are worth reading, and a word or a dash for what is no number."""
    values = {
        "0.935": 0.93456,
        "1.000": 1.0,
        "0.000": 0.0,
        "250": np.float64(250.0),
        "1": np.int64(1),
        "1e-05": 0.00001,
        "1.23e+05": 123456.7,
        "inf": np.inf,
        "yes": True,
        "no": np.bool_(False),
        "False": "False",
        "–": None,
    }
    missing = [np.nan, pd.NaT]
    audit = make_audit(lights=("green",))
    table = pd.DataFrame({"value": pd.Series([*values.values(), *missing], dtype=object)})
    audit.findings[0].tables["Files"] = table
    write(audit)
    html = (tmp_path / "audit.html").read_text(encoding="utf-8").split("Table 4. Files")[-1]
    cells = re.findall(r'<th scope="row"[^>]*>(.*?)</th>', html)
    assert cells[: len(table)] == [*values, "–", "–"]


def test_findings_as_data():
    audit = make_audit()
    found = json.loads(json.dumps(auditpage.as_data(audit, ["note"]), allow_nan=False))
    assert found["light"] == "red" and found["synthetic"] is True and found["notes"] == ["note"]
    assert [one["light"] for one in found["findings"]] == list(LIGHTS)
    assert found["conclusion"] == auditpage.conclusion(audit)
    table = unpack(found["findings"][0]["tables"]["Files"])
    assert list(table["image"]) == [EVIL] + ["film"] * 99  # every row, not the first 60
    assert found["counts"]["data"] == [[120, 50], [80, 30]]
    assert "figures" not in found["findings"][0]
