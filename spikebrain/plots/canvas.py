"""What all figures share: a figure without global state, one look, and writing it to disk."""

import io
from pathlib import Path

from spikebrain.data.manifest import write_atomic

INK, FAINT = "#1f2933", "#d5dbe1"
SPIKING, TWIN, ALERT = "#0b6e99", "#a9b2bd", "#d1495b"
# For lines that have no colour of their own; told apart by colour-blind readers too (M. Okabe, K. Ito, "Color Universal Design", 2008).
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", "-.", ":")


def figure(width, height):
    """An empty figure of ``width`` x ``height`` inches on a white ground; needs no display.

    Raises
    ------
    ImportError
        Without matplotlib; the message names the extra to install.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install spikebrain[plots]") from error
    empty = Figure(figsize=(width, height), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(empty)
    return empty


def plain(axes, title="", x="", y=""):
    """Gives ``axes`` the house's look: a left-set title, labels with units, no box, hairline spines."""
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
    return axes


def gridded(axes):
    """Gives ``axes`` hairlines behind what is drawn, to read heights by."""
    axes.grid(axis="y", color="#eceff2", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def energy_unit(largest):
    """(name, how many of it are a mJ) of the unit in which energies up to ``largest`` mJ are drawn."""
    return ("mJ", 1) if largest >= 0.1 or not largest else ("µJ", 1000)


def save(figure, path):
    """Writes ``figure`` as PNG to ``path``, whole or not at all: a reader never finds half a picture.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    ValueError
        When ``path`` does not end in ``.png``.
    DataError
        When it cannot be written; an older picture stays.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"{path.name}: pictures are written as PNG: name the file {path.stem}.png")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(path, picture.getvalue())
    return path
