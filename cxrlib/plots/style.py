"""How every figure of the course looks: one place for sizes, colours and the line at the foot."""

from __future__ import annotations

import io
import textwrap
from functools import cache

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.colors import ListedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from cxrlib import NOT_CLINICAL

WIDTH = 7.2  # inches; fits a notebook column and a page
SMALL = 9  # points, the smallest text of any figure

# Okabe and Ito (2008): distinct for colour-blind readers too.
ORANGE, SKY, GREEN, BLUE = "#E69F00", "#56B4E9", "#009E73", "#0072B2"
VERMILLION, PURPLE, BLACK, GREY = "#D55E00", "#CC79A7", "#000000", "#666666"

FIXED = {
    "healthy": GREEN,
    "pneumonia": SKY,
    "covid": VERMILLION,
    "paper": ORANGE,
    "clean": BLUE,
    "printed": BLACK,
    "training": GREY,
    "validation": PURPLE,
}
OTHERS = (BLUE, ORANGE, PURPLE, BLACK, GREEN, VERMILLION, SKY)
MARKERS = "osD^vP*X"
FONTS = (  # after Matplotlib's own: what systems have for names in Chinese, Japanese and Korean
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans GB"),
)


class CourseFigure(Figure):
    """A matplotlib figure that notebooks show exactly once; pyplot's own would appear twice."""

    def draw(self, renderer) -> None:
        r"""Draw; what the fonts of this machine lack in a name is written as ``\u80ba``."""
        for axis in (axis for axes in self.axes for axis in (axes.xaxis, axes.yaxis)):
            names = [text.get_text() for text in axis.get_ticklabels()]
            if names != (shown := [*map(legible, names)]):
                axis.set_ticks(axis.get_ticklocs(), shown)
        for text in self.findobj(lambda one: isinstance(one, Text) and not _plain(one.get_text())):
            text.set(text=legible(text.get_text()), family=list(_fonts()))
        super().draw(renderer)

    def _repr_png_(self) -> tuple[bytes, dict]:
        """Bring the picture, and as its metadata what it shows, for those who cannot see it."""
        said = describe(self)
        with io.BytesIO() as file:
            self.savefig(file, format="png", bbox_inches="tight")
            return file.getvalue(), {"alt": said}


@cache
def _fonts() -> dict[str, set[int]]:
    """Names of the fonts that figures are written in, and the characters that each one has."""
    there = {"DejaVu Sans", *font_manager.get_font_names()}
    paths = {name: font_manager.findfont(name) for name in ("DejaVu Sans", *FONTS) if name in there}
    return {name: set(font_manager.get_font(path).get_charmap()) for name, path in paths.items()}


def _plain(text: str) -> bool:
    return text.isascii() and text.replace("\n", "").isprintable()


def legible(text: str) -> str:
    r"""Write characters that no font here has, and bytes that are no text, as ``\u80ba``."""
    if _plain(text):
        return text
    there = {ord("\n")}.union(*_fonts().values())
    return "".join(
        one if ord(one) in there else one.encode("unicode_escape").decode() for one in text
    )


def describe(figure: Figure) -> str:
    """Say in words, for screen readers, what a figure shows: title, axes, curves, and its foot."""
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes)]
    titles = [figure.get_suptitle(), *(one.get_title().get_text() for one in legends if one)]
    panels = [said for axis in figure.axes if (said := _describe_panel(axis))]
    more = f"and {len(panels) - 12} panels more" if len(panels) > 12 else ""
    named = [text.get_text() for one in legends if one for text in one.get_texts()]
    curves = "Shown: " + ", ".join(dict.fromkeys(named)) if named else ""
    parts = [*titles, *panels[:12], more, curves, figure.get_supxlabel()]
    lines = [" ".join(part.replace(r"\$", "$").split()).rstrip(".") for part in parts]
    return ". ".join(dict.fromkeys(filter(None, lines))) or "A figure without words"


def _describe_panel(axis) -> str:
    across, up = axis.get_xlabel(), axis.get_ylabel()
    axes = f"{up} against {across}" if across and up else across or up
    return ": ".join(filter(None, [axis.get_title() or axis.get_title(loc="left"), axes]))


def colours(names) -> list[str]:
    """Colours of these classes, protocols or curves: the fixed one, or the next free one."""
    names = list(names)
    free = [colour for colour in OTHERS if colour not in {FIXED.get(name) for name in names}]
    others = [name for name in dict.fromkeys(names) if name not in FIXED]
    chosen = {name: free[place % len(free)] for place, name in enumerate(others)}
    return [FIXED.get(name) or chosen[name] for name in names]


def ink(colour) -> str:
    """Darken a colour of a mark until text in it reads on white.

    Its contrast is then 4.5 at least, by relative luminance (WCAG 2.2, success criterion 1.4.3).
    """
    rgb = np.array(to_rgb(colour))
    while True:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        if 1.05 / (linear @ (0.2126, 0.7152, 0.0722) + 0.05) >= 4.55:  # 0.05 for rounding to hex
            return to_hex(rgb)
        rgb *= 0.97


def coloured(named: dict):
    """Go through a dict: name, value and the name's colour."""
    return zip(named, named.values(), colours(named), strict=True)


def subplots(rows: int = 1, columns: int = 1, height: float = 3.6, width: float = WIDTH, **options):
    """Start a figure: ``figure, axes`` as pyplot's subplots, but unknown to pyplot."""
    figure = CourseFigure(figsize=(width, height), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, **options)
    for axis in np.ravel(axes):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=SMALL)
    return figure, axes


def heat_table(axis, values, said, unit: str, low=None, high=None) -> None:
    """Draw a table whose cells are coloured by `values` and read as the texts `said`.

    `unit` names the colour bar; without it there is none.
    """
    import seaborn

    seaborn.heatmap(
        values,
        annot=np.asarray(said, dtype=object),
        fmt="",
        cmap=ListedColormap(colormaps["Blues"](np.linspace(0, 0.6, 256))),  # black text reads
        vmin=low,
        vmax=high,
        linewidths=1,
        ax=axis,
        annot_kws={"fontsize": SMALL, "color": BLACK},
        cbar=bool(unit),
        cbar_kws={"label": unit},
    )
    axis.tick_params(length=0, labelrotation=0)


def score_rows(axis, names, xlabel: str, ylabel: str, least: float = 0) -> None:
    """Lay an axis out for scores up to 1: a row a name from the top, with room for all ends."""
    axis.set_yticks(range(len(names)), names)
    axis.set(xlim=(least, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel=xlabel, ylabel=ylabel)
    axis.grid(axis="x", alpha=0.3)


def interval(axis, y, ends, colour: str, marker: str, label=None, width=2.5, size=None) -> None:
    """Draw scores as marks of `size`, with intervals as lines of `width` (points).

    `ends` is value, low and high: three numbers, or three arrays as long as `y`.
    """
    value, low, high = ends
    axis.hlines(y, low, high, color=colour, linewidth=width)
    axis.plot(value, y, marker, color=colour, markersize=size, label=label)


def legend_above(figure: Figure, axis, title: str = "", columns: int = 4) -> None:
    """Put one legend for all panels, under the title, above them."""
    # matplotlib would write a figure's legend over its title; as the legend's title it has room
    figure.legend(
        *axis.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=columns,
        title=title or None,
        title_fontsize=12,
        frameon=False,
    )


def plain(text) -> str:
    """Escape the dollar signs in a file's or a class's name: they start no formula."""
    return str(text).replace("$", r"\$")


def finish(figure: Figure, title="", note="", predictions=False, legend=None) -> Figure:
    """Write the title, and at the foot what a reader of a copied figure must know.

    Where it shows `predictions` of a model, the foot says 'not for clinical use' too. `legend` is
    the axis whose legend stands above all panels, if there is one.
    """
    characters = int(figure.get_figwidth() * 13.5)
    if legend:
        legend_above(figure, legend, title)
    elif title:
        figure.suptitle(textwrap.fill(plain(title), int(characters * 0.8)), fontsize=12)
    lines = [*note.split("\n"), NOT_CLINICAL if predictions else ""]
    if any(lines):
        text = "\n".join(textwrap.fill(line, characters) for line in lines if line)
        figure.supxlabel(text, fontsize=SMALL, color=GREY, x=0.01, ha="left")
    return figure


def need(items, name: str, *columns: str) -> None:
    """Raise ValueError if a list, dict or table is empty, or lacks one of the columns."""
    missing = [column for column in columns if column not in items]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}; it has {list(items)}.")
    if len(items) == 0:
        raise ValueError(f"{name} is empty: there is nothing to draw.")


def provenance(cohort, weights=None) -> str:
    """Line for a figure's foot: real or synthetic images, and which weights, if any, saw them."""
    sources = sorted(map(str, cohort.table["source"].dropna().unique()))
    synthetic = any(source.startswith("phantom") for source in sources)
    images = "Synthetic images (phantoms)" if synthetic else f"Real images ({', '.join(sources)})"
    kinds = {
        "random": "RANDOM weights, not ImageNet's",
        "imagenet": "ImageNet weights",
        "file": "weights from a file",
    }
    return f"{images}; {kinds[weights.kind]}." if weights else f"{images}."
