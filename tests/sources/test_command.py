"""The commands ``cxr data list``, ``fetch`` and ``verify``."""

import pytest
from click.testing import CliRunner

from cxrlib import sources


def data(*words):
    return CliRunner().invoke(sources.data_command, list(words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetch", "opn"], "Did you mean open?"),
        (["verify", "phantom"], "no files to download"),
        (["fetch", "open", "--workers", "0"], "--workers"),
    ],
)
def test_what_cannot_be_fetched_is_refused(words, message):
    found = data(*words)
    assert found.exit_code == 2 and message in found.output


def test_all_sources_are_listed():
    assert all(name in data("list").output for name in sources.SOURCES)


def test_verify_counts_and_names_what_is_wrong(monkeypatch):
    table = sources.manifest("open").head(13).assign(state="missing")
    table.loc[0, "state"] = "present"
    table.loc[1, "state"] = "damaged"
    monkeypatch.setattr(sources, "verify", lambda name: table)
    found = data("verify", "open")
    assert found.exit_code == 1 and "11 missing" in found.output
    assert f"damaged: {table.loc[1, 'path']}" in found.output
    assert "and 2 more" in found.output and "cxr data fetch open" in found.output
    monkeypatch.setattr(sources, "verify", lambda name: table.head(1))
    found = data("verify", "open")
    assert found.exit_code == 0 and found.output.split() == ["1", "present"]


def test_fetch_hands_its_options_on_and_counts(monkeypatch):
    asked = {}

    def fetch(name, allow_missing, workers):
        asked.update(name=name, allow_missing=allow_missing, workers=workers)
        return sources.manifest("open").head(3).assign(state="present")

    monkeypatch.setattr(sources, "fetch", fetch)
    found = data("fetch", "open", "--allow-missing", "--workers", "3")
    assert found.exit_code == 0 and "3 present of 3 files" in found.output
    assert asked == {"name": "open", "allow_missing": True, "workers": 3}
