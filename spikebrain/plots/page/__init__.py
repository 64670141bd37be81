"""One run as a page: a file that a browser opens without a network, light or dark as the reader's system is.

    text = page.page(report, drawn, [report, other_report])

``report`` is what ``tools/energy.py`` writes as ``energy.json``. Everything is in the file: style, script, numbers and spikes.
"""

from html import escape

from spikebrain.plots.page import sections
from spikebrain.plots.page.figures import energies, quality, title, verdicts
from spikebrain.plots.page.script import SCRIPT
from spikebrain.plots.page.style import STYLE
from spikebrain.plots.page.trains import packed

__all__ = ["energies", "page", "quality", "title", "verdicts"]


def page(report, drawn, beside=()):
    """The page of a run, as HTML.

    Arguments
    ---------
    report : dict
        Of the run: as ``tools/energy.py`` makes it; ``audit_converted`` and ``proof`` only of networks with neurons.
    drawn : dict
        Of the utterance in ``report``: ``features``, Tensor (L, F), and ``trains``, layer -> Tensor (L', C), uint8 levels, which may be
        empty.
    beside : sequence of dict
        Reports of runs to compare, this one included; fewer than two are not drawn.

    Returns
    -------
    str
    """
    parts = [
        sections.head(report),
        sections.runs(beside) if len(beside) > 1 else "",
        sections.scopes(report),
        sections.layers(report),
        sections.rasters(report, drawn),
        sections.audit(report),
        sections.proof(report),
        sections.lines(report),
        sections.counting(report),
    ]
    body = "\n".join(part for part in parts if part)
    data = f'<script type="application/json" id="trains">{packed(report, drawn)}</script>\n<script>{SCRIPT}</script>'
    meta = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">'
    start = f'<!doctype html>\n<html lang="en">\n<head>\n{meta}\n<title>{escape(title(report))}</title>\n<style>{STYLE}</style>\n</head>'
    return f"{start}\n<body>\n<main>\n{body}\n</main>\n{data}\n</body>\n</html>\n"
