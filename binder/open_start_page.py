"""Let JupyterLab of this Python's environment open the course on its start page.

python binder/open_start_page.py

Writes two files of settings into the environment (PREFIX/etc/jupyter): where ``jupyter lab``
begins if it is started in the course's folder, and that Markdown is shown as a page, not as its
source. Binder runs it, and `make` for the environment that it makes. What somebody else has put
into these files stays.
"""

import json
import sys
from pathlib import Path

BEGIN = "# Open the course on its start page (binder/open_start_page.py)\n"
START = f"""{BEGIN}import sys
from pathlib import Path

if Path("notebooks/START.md").exists():
    # `jupyter lab notebooks` serves that folder alone
    alone = "notebooks" in [word.rstrip("/") for word in sys.argv[1:]]
    c.LabApp.default_url = "/lab/tree/START.md" if alone else "/lab/tree/notebooks/START.md"
"""
SETTINGS = {
    "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
    # a course should not begin with a question about news
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}


def main(prefix: Path) -> list[Path]:
    """Write the settings below `prefix`; returns the files."""
    folder = prefix / "etc" / "jupyter"
    begin, settings = folder / "jupyter_lab_config.py", folder / "labconfig"
    settings.mkdir(parents=True, exist_ok=True)
    text = begin.read_text(encoding="utf-8") if begin.exists() else ""
    begin.write_text(text.split(BEGIN)[0] + START, encoding="utf-8")
    overrides = settings / "default_setting_overrides.json"
    there = json.loads(overrides.read_text(encoding="utf-8")) if overrides.exists() else {}
    for name, values in SETTINGS.items():
        there[name] = {**there.get(name, {}), **values}
    overrides.write_text(json.dumps(there, indent=1) + "\n", encoding="utf-8")
    return [begin, overrides]


if __name__ == "__main__":
    for path in main(Path(sys.argv[1] if len(sys.argv) > 1 else sys.prefix)):
        print(f"written: {path}")
