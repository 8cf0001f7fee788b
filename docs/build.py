"""Build the site: run the lessons, gather the pages, and let Sphinx write them.

    python docs/build.py                      # the quick profile into site/
    python docs/build.py --profile smoke      # in some minutes
    python docs/build.py --run runs/real      # lessons that another run executed

What did not change is not done again: `cxr run` skips finished lessons, and Sphinx the pages
whose text and code are the same.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]

from _site import executed, pages, project, tables  # noqa: E402

_NOTEBOOK = re.compile(r'(href=")notebooks/(\w+)\.ipynb(?=")')


class BuildError(Exception):
    """The site cannot be built; the message says why."""


def main(arguments=None) -> int:
    """Build, and say where the start page is; return the exit code."""
    options = read_options(arguments)
    start = time.monotonic()
    try:
        run = options.run or run_lessons(options.profile)
        source = options.work / "source"
        changed = gather(run.resolve(), source)
        print(f"Pages: {changed} changed, in {source}")
        html = write_pages(source, options.work, options.sphinx)
        add_examples(run, options.work, html)
        publish(html, options.out)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Site: {options.out / 'index.html'} ({time.monotonic() - start:.0f} s)")
    if project.repository() == project.PLACEHOLDER:
        print("Its buttons lead nowhere yet: `make badges REPOSITORY=OWNER/NAME` says where to.")
    return 0


def read_options(arguments=None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="quick", help="sizes of the lessons (quick)")
    parser.add_argument("--run", type=Path, help="show this run's notebooks, and execute none")
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="where to (site/)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "site", help="for what is kept (build/site/)"
    )
    parser.add_argument("sphinx", nargs="*", help="after --: more options for sphinx-build")
    options = parser.parse_args(arguments)
    options.out, options.work = options.out.resolve(), options.work.resolve()
    return options


def run_lessons(profile: str) -> Path:
    """Execute the lessons that are not done yet; what fails, `cxr run` explains."""
    out = ROOT / "runs" / profile
    run_command("run", "--profile", profile, "--out", out)
    return out


def run_command(*words, folder: Path = ROOT) -> None:
    """Call `cxr`, of this checkout, in a folder."""
    command = [sys.executable, "-m", "cxrlib.cli", *map(str, words)]
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    around = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run(command, cwd=folder, env=around, check=False)
    if ended.returncode:
        raise BuildError(f"The site was not built: `cxr {words[0]}` failed, see above.")


def gather(run: Path, source: Path) -> int:
    """Bring all pages into one folder, each as the site wants it; return how many changed."""
    places = pages.mapping()
    changed = 0
    for name, place in places.items():
        changed += pages.write(source / place, _content(name, run, places))
    if pages.prune(source, places.values()):
        shutil.rmtree(
            source.parent / "html", ignore_errors=True
        )  # Sphinx keeps pages that are gone
    return changed


def _content(name: str, run: Path, places: dict) -> bytes | str:
    path = ROOT / name

    def rewrite(text):
        return pages.rewrite(text, name, places)

    if path.suffix == ".md":
        return rewrite(tables.fill(path.read_text(encoding="utf-8")))
    if path.suffix != ".ipynb":
        return path.read_bytes()
    if name in pages.lessons():
        path = run / "notebooks" / path.name
        if not path.exists():
            raise BuildError(f"{path} is missing: `cxr run --out {run}` makes it.")
    return executed.page(path.read_text(encoding="utf-8"), rewrite, name)


def write_pages(source: Path, work: Path, more=()) -> Path:
    """Let Sphinx write the pages that changed; every warning is an error."""
    html, doctrees, good = work / "html", work / "doctrees", work / "is-good"
    if not (good.exists() and html.exists()):
        # Sphinx warns of a page only when it reads it: after a failure all must be read again.
        shutil.rmtree(doctrees, ignore_errors=True)
    good.unlink(missing_ok=True)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-n", "-q"]
    command += ["-c", DOCS, "-d", doctrees, *more, source, html]
    ended = subprocess.run([str(part) for part in command], cwd=ROOT, check=False)
    if ended.returncode:
        raise BuildError("The site was not built: Sphinx complains, see above.")
    good.touch()
    return html


def add_examples(run: Path, work: Path, html: Path) -> None:
    """Add the run's report, and the audit of the phantoms with a secret, as ``example/``."""
    report, page = run / "report.html", work / "audit-phantom.html"
    if not report.exists():
        raise BuildError(f"{report} is missing: `cxr report {run}` makes it.")
    code = (path.stat().st_mtime_ns for path in (ROOT / "cxrlib").rglob("*.py"))
    if not page.exists() or page.stat().st_mtime_ns < max(code):
        run_command("audit", "phantom", folder=work)  # its name alone: the page shows the command
    # Beside a run stand its notebooks; the site has them as pages
    text = _NOTEBOOK.sub(r"\1../notebooks/\2.html", report.read_text(encoding="utf-8"))
    pages.write(html / "example" / "report.html", text)
    pages.write(html / "example" / "audit.html", page.read_bytes())


def publish(html: Path, out: Path) -> None:
    """Make `out` the same as what Sphinx wrote, without files of pages that are gone."""
    names = [path.relative_to(html) for path in html.rglob("*") if path.is_file()]
    if out.exists() and any(out.iterdir()) and not (out / "searchindex.js").exists():
        raise BuildError(f"{out} holds something else: name an empty folder with --out.")
    for name in names:
        pages.write(out / name, (html / name).read_bytes())
    pages.prune(out, names)


if __name__ == "__main__":
    sys.exit(main())
