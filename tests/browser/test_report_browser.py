"""The report in a real browser: read on a phone, by a screen reader, and printed on A4."""

import pandas as pd
import pytest

from browser import assert_clean, page
from cxrlib import results
from cxrlib.cohort import Cohort
from cxrlib.course import report
from helpers import tiny_cohort

pytestmark = pytest.mark.slow
A4 = 680  # pixels between margins of 15 mm, at 96 in an inch


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A report with a wide table, as lesson 9 records it."""
    run = tmp_path_factory.mktemp("run")
    cohort = tiny_cohort(4)
    view = {"view": "lungs covered", "auc": 0.81, "low": 0.71, "high": 0.91, "told": "covid"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_RUN", str(run))
        results.record(
            "09_shortcuts",
            profile="quick",
            parameters={},
            cohort=Cohort(cohort.table.assign(source="phantom"), cohort.images, "ours"),
            tables={
                "shortcuts": pd.DataFrame([view]),
                "wide": pd.DataFrame([range(27)]).add_prefix("column_"),
            },
        )
    return report.write(run).as_uri()


@pytest.mark.parametrize(("width", "colours"), [(1280, "light"), (390, "dark")])
def test_it_can_be_read_by_all(address, width, colours):
    from axe_playwright_python.sync_playwright import Axe

    with page(width, 844, color_scheme=colours) as tab:
        tab.goto(address)
        tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        found = Axe().run(tab).response
        assert any(rule["id"] == "scrollable-region-focusable" for rule in found["passes"])
        bad = {rule["id"] for rule in found["violations"] if rule["impact"] != "minor"}
        assert bad == set()
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        captions = tab.locator(".caption, figcaption")
        assert captions.count() >= 4
        for number in range(captions.count()):
            box = captions.nth(number).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert_clean(tab)


def test_nothing_is_cut_off_on_a4(address):
    with page(A4, 960) as tab:
        tab.goto(address)
        tab.emulate_media(media="print")
        tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert tab.evaluate("document.documentElement.scrollWidth") == A4
        cut = "[...document.querySelectorAll('.scroll')].filter(b => b.scrollWidth > b.clientWidth)"
        assert tab.evaluate(f"{cut}.map(b => b.ariaLabel)") == []
        assert tab.locator("nav").is_hidden()
