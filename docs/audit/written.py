"""What the scripts of this folder share: shares with intervals, and where a table is written."""

from pathlib import Path

from cxrlib import metrics
from cxrlib.files import whole_file

PAGE = Path(__file__).with_name("README.md")


def share(hits, digits: int = 0) -> str:
    """Say how many of a Series of truths are true, with Wilson's 95 % interval: sets, not films."""
    low, high = metrics.wilson(int(hits.sum()), len(hits))
    return f"{hits.sum()} of {len(hits)} [{low:.{digits}%}, {high:.{digits}%}]"


def write(mark: str, lines: list[str]) -> None:
    """Put lines between the two places of the page that hold `mark`."""
    before, _, after = PAGE.read_text(encoding="utf-8").split(mark)
    text = "\n".join([mark, "", *lines, "", mark])
    with whole_file(PAGE) as partial:
        partial.write_text(f"{before}{text}{after}", encoding="utf-8")
