"""The parts of the page, each a function from a run's report to HTML; an empty text where there is nothing to say."""

import math
from html import escape

from spikebrain.convert import Audit
from spikebrain.plots.layers import ADDS, point_of, products
from spikebrain.plots.page.figures import count, energies, millijoules, times, title, verdicts

SCOPES = {"encoder_blocks": "encoder blocks", "encoder+frontend": "encoder and front end", "full": "whole network"}


def head(report):
    """Which run this is, and its first numbers."""
    asked = report["utterances"]
    looked = f"{asked['looked_at']} of {asked['of']} utterances" if asked["looked_at"] < asked["of"] else f"all {asked['of']} utterances"
    commit = f", commit {report['commit'][:10]}" if report.get("commit") else ""
    said = f"{looked} of {report['split']}; {report['parameters']['total']:,} parameters{commit}"
    blocks, full = (report["energy"][scope] for scope in ("encoder_blocks", "full"))
    tiles = [(f"{value:.2f} %", f"{name}, {_as_before(report, name, value)}") for name, value in report["metrics"].items()]
    for entry, name in ((blocks, "encoder blocks"), (full, "whole network")):
        less = f"; without spikes {millijoules(entry['twin_mJ'])}, {times(entry['twin_mJ'], entry['mJ'])} as much"
        tiles.append((millijoules(entry["mJ"]), f"an utterance, {name}{less}"))
    shown = "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in tiles)
    return f'<h1>{escape(title(report))}</h1>\n<p class="soft">{escape(said)}</p>\n<div class="tiles">{shown}</div>'


def runs(reports):
    """Several runs beside each other: a table, and quality over energy."""
    rows = []
    for report in reports:
        first = [title(report), ", ".join(f"{name} {value:.2f} %" for name, value in list(report["metrics"].items())[:1])]
        for scope, name in SCOPES.items():
            rows.append([*first, name, *energies(report["energy"][scope])])
            first = ["", ""]
    return _section("Runs beside each other", _points(reports) + _table(["run", "quality", "scope", *_ENERGIES], rows, 3, _IN_MJ))


def scopes(report):
    """Energy of each scope: with the operands' prices, and under one table of integers beside a network of equal levels."""
    energy, bars, rows = report["energy"], [], []
    for scope, name in SCOPES.items():
        entry = energy[scope]
        bars += [(name, entry["mJ"], ""), ("without spikes", entry["twin_mJ"], "twin")]
        rows.append([name, *energies(entry)])
    parts = [_key({"": "this network", "twin": "its twin without spikes"}), _bars(bars), _table(["scope", *_ENERGIES], rows, 1, _IN_MJ)]
    if "quantised_mJ" in energy["full"]:
        how = energy["counting"].get("quantised", {})
        fair = []
        for scope, name in SCOPES.items():
            fair += [(name, energy[scope]["integer_mJ"], ""), ("quantised", energy[scope]["quantised_mJ"], "quantised")]
        levels = f"{how['levels'] + 1} levels ({how['bits']} bit{'s' if how['bits'] > 1 else ''})"
        said = f"The same layers with activations of {levels} multiply integers. Both at the prices of {_prices(how['prices'])}."
        parts.append(f"<h3>Beside a quantised network</h3><p>{escape(said)}</p>")
        parts += [_key({"": "this network", "quantised": "quantised to as many levels"}), _bars(fair)]
    parts.append(_orders(energy))
    return _section("Energy of one utterance", "".join(parts))


def layers(report):
    """Energy of every product, and firing of every layer."""
    lines, firing = products(report["energy"]), report["firing_rate"]
    prefix = f"{report['simulated']}." if firing else ""
    energy = _bars([(line["line"].removeprefix(prefix), line["mJ"], "" if line["operation"] == ADDS else "mac") for line in lines], "fine")
    key = _key({"": "additions: a spike is an operand", "mac": "multiply-accumulates"})
    parts = [f"<div><h3>Energy by layer</h3>{key}{energy}</div>"]
    if firing:
        top = max(layer["mean"] for layer in firing.values()) or 1
        bars = [(name.removeprefix(prefix), layer["mean"] / top, "", f"{100 * layer['mean']:.1f} %") for name, layer in firing.items()]
        what = '<p class="key">spikes per frame, neuron and level</p>'
        parts.append(f"<div><h3>Firing rate by layer</h3>{what}{_bars(bars, 'fine')}</div>")
    lead = f"<p class=soft>Names begin with <code>{escape(prefix)}</code> where nothing else is said.</p>" if prefix else ""
    return _section("Layer by layer", f'{lead}<div class="two">{"".join(parts)}</div>')


def audit(report):
    """What the network computes that is no addition."""
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in verdicts(report))
    parts = [f"<ul>{said}</ul>", _findings("The trained network, with its front end and what follows the encoder", report["audit"])]
    if report.get("audit_converted"):
        what = "After conversion: batch norms folded, and where there is softmax attention one matrix a head"
        parts.append(f"<details><summary>{what}</summary>{_findings('', report['audit_converted'])}</details>")
    return _section("What is an addition, and what is not", "".join(parts))


def proof(report):
    """The run on events beside the trained network, layer by layer."""
    found = report.get("proof")
    if not found:
        return ""
    rows = [
        [name, str(spikes), str(found["differ"][name]), str(found["differ_float32"][name])] for name, spikes in found["spikes"].items()
    ]
    sums = [[name, *map(str, both), _yes(both[0] == both[1])] for name, both in found["additions"].items()]
    sums += [[f"{name} (real numbers)", *map(str, both), _yes(both[0] == both[1])] for name, both in found["macs"].items()]
    verdict = "The run on events is the trained network" if found["equal"] else "The run on events differs from the trained network"
    id_ = report["utterance"]["id"]
    lead = f"<p>{_yes(found['equal'], verdict)}: utterance {escape(id_)}, every spike and every addition, in float64.</p>"
    spikes = _table(["layer", "spikes", "differ, float64", "differ, float32"], rows, 1)
    added = _table(["product", "made", "counted", "equal"], sums, 1)
    return _section("Run on events", f"{lead}<details><summary>Layer by layer</summary>{spikes}{added}</details>")


def rasters(report, drawn):
    """Where the script draws features and spikes of the utterance."""
    about = report["utterance"]
    which = f"Utterance {about['id']}, {about['seconds']:.2f} s"
    lead = f"<p>{escape(which)}: its features above, one layer's spikes below, time to the right.</p>"
    names = "".join(f"<option>{escape(name.removeprefix(report['simulated'] + '.'))}</option>" for name in drawn["trains"])
    choose = f"""<label>layer <select id="layer">{names}</select></label>
<button id="before" type="button">previous</button><button id="after" type="button">next</button>"""
    zoom = '<label>zoom <input id="zoom" type="range" min="0" max="5" step="0.1" value="0"></label>'
    train = '<canvas id="train"></canvas><div class="bottom"><canvas id="share"></canvas></div>' if names else ""
    sheet = f"""<div class="scroll" id="scroll" tabindex="0" role="group" aria-label="features and spikes over time">
<div class="sheet" id="sheet"><div id="cross"></div>
<div class="top"><canvas id="features"></canvas><canvas id="axis"></canvas></div>{train}</div></div>"""
    below = '<p class="soft" id="what"></p><p class="soft" id="said" aria-live="off"></p><noscript>Drawn by a script.</noscript>'
    if any("#" in name for name in drawn["trains"]):
        lead += "<p>With #2 behind its name, a layer fires once more in the same pass: on prompts, for instance, which lie at no time.</p>"
    return _section("Spikes of one utterance", f'{lead}<div class="controls">{choose if names else ""}{zoom}</div>{sheet}{below}')


def lines(report):
    """Every line of the counts, to look up."""
    energy = report["energy"]
    parts = []
    for scope, name in SCOPES.items():
        entry = energy[scope]
        rows = [[line["line"], _OPERATIONS[line["operation"]], _count(line), millijoules(line["mJ"])] for line in entry["lines"]]
        inside = _table(["line", "operation", "count", "energy"], rows, 2)
        if entry.get("further"):
            more = [[line["line"], line["kind"], _operations(line), millijoules(line["mJ"])] for line in entry["further"]]
            total = f"Beside the products, {millijoules(entry.get('further_mJ'))} in all that has a price; never part of the totals above"
            inside += f"<h3>{total}</h3>" + _table(["layer", "kind", "operations", "energy"], more, 3)
        parts.append(f"<details><summary>{escape(name)}, {millijoules(entry['mJ'])}</summary>{inside}</details>")
    return _section("Every line", "".join(parts))


def counting(report):
    """How it was counted, at which prices, and what is left out."""
    how = report["energy"]["counting"]
    left_out = "".join(f"<li>{escape(what)}</li>" for what in how["not_counted"])
    further = "".join(f"<li>{escape(what)}</li>" for what in how.get("further", ()))
    means = f"Means of {how['utterances']} utterances of {how['encoder_frames']:.1f} frames each."
    parts = [f"<p>{escape(means)} {escape(_priced(how['prices']))}.</p>"]
    if "quantised" in how:
        parts.append(f"<p>Integers: {escape(_priced(how['quantised']['prices']))}.</p>")
    parts += [f"<h3>Lines beside the products</h3><ul>{further}</ul>" if further else "", f"<h3>Not counted</h3><ul>{left_out}</ul>"]
    command = f"<p class=soft>Trained by: <code>{escape(report['command'])}</code></p>" if report.get("command") else ""
    return _section("How it was counted", "".join(parts) + command)


_ENERGIES = ("spiking", "twin", "ratio", "spiking, int", "quantised", "ratio", "further")
_IN_MJ = "mJ an utterance; ratios are those of the network without spikes to the spiking one, the second under one table of integers"
_OPERATIONS = {"mac": "multiply-accumulate", "ac": "addition", "int_mac": "integer multiply-accumulate", "scope": "all of it"}


def _section(name, inside):
    return f"<section>\n<h2>{escape(name)}</h2>\n{inside}\n</section>"


def _table(names, rows, words, caption=""):
    """A table; the first ``words`` columns are words, the others numbers. Cells may hold what :func:`_yes` makes."""
    looks = [_LOOKS.get(name, "") if place < words else 'class="number"' for place, name in enumerate(names)]
    top = "".join(f'<th scope="col" {look}>{escape(name)}</th>' for name, look in zip(names, looks))
    body = "".join(f"<tr>{''.join(map(_cell, row, looks))}</tr>" for row in rows)
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


# Columns of names in the network, and columns whose words stay on one line.
_LOOKS = {**dict.fromkeys(("layer", "line", "product"), 'class="code"'), **dict.fromkeys(("scope", "quality"), 'class="whole"')}


def _cell(cell, look):
    return f"<td {look}>{cell if isinstance(cell, _Html) else escape(str(cell))}</td>"


class _Html(str):
    """Text that is HTML already."""


def _yes(true, text=None):
    return _Html(f'<span class="{"yes" if true else "no"}">{escape(text or ("yes" if true else "no"))}</span>')


def _bars(rows, look=""):
    """Horizontal bars of (name, value, class) or (name, value, class, what stands beside); without the latter values are mJ."""
    top = max((row[1] for row in rows), default=0) or 1
    made = []
    for name, value, kind, *beside in rows:
        wide = f'<i class="{kind}" style="width:{100 * value / top:.3f}%"></i>'
        said = escape(beside[0] if beside else millijoules(value))
        made.append(f'<span>{escape(name)}</span><span class="bar">{wide}<b>{said}</b></span>')
    return f'<div class="bars {look}">{"".join(made)}</div>'


def _key(names):
    return '<div class="key">' + "".join(f'<span><i class="{kind}"></i>{escape(name)}</span>' for kind, name in names.items()) + "</div>"


def _as_before(report, name, value):
    before = report["results"].get(name)
    if before is None or report["utterances"]["looked_at"] < report["utterances"]["of"]:
        return report["split"]
    same = math.isclose(before, value, abs_tol=1e-6)
    return f"{report['split']}, as when it was trained" if same else f"{before:.2f} % when it was trained"


def _prices(table):
    return f"{table['name']} ({table['bits']} bits, {table['number']}, {table['node_nm']} nm; {table['source']})"


def _priced(table):
    return f"{table['mac_pJ']} pJ a multiply-accumulate, {table['ac_pJ']} pJ an addition: {_prices(table)}"


def _orders(energy):
    """RepSSA's scores as they are trained, and with one matrix a head."""
    rows = []
    for scope, name in SCOPES.items():
        orders = energy[scope].get("orders")
        if orders:
            rows.append([name, *(millijoules(orders[order]["mJ"]) for order in ("unfused", "reparameterised"))])
    said = "As trained, and re-parameterised to one matrix a head, which leaves additions only."
    what = f"<h3>Attention scores in both orders</h3><p>{said}</p>"
    return what + _table(["scope", "as trained", "re-parameterised"], rows, 1) if rows else ""


def _findings(caption, found):
    rows = []
    for one in Audit(found["network"], found["findings"]).summary():
        kinds = f"{one['left']} × {one['right']}" if one["left"] else one["sort"]
        rows.append([one["layer"] or "(all)", one["part"], str(one["times"]), kinds, _yes(one["accumulate_only"]), one["why"]])
    rows.sort(key=lambda row: "yes" in row[4])  # what is no addition first; otherwise in the order of the network
    title_ = f"<h3>{escape(caption)}</h3>" if caption else ""
    return title_ + _table(["layer", "part", "times", "operands", "additions only", "why"], rows, 6)


def _count(line):
    return "" if line["count"] is None else count(line["count"])


def _operations(line):
    unpriced = line["unpriced"]
    return ", ".join(f"{count(number)} {name}{' (no price)' if name in unpriced else ''}" for name, number in line["operations"].items())


def _points(reports):
    """Quality over energy, a point a run, as SVG; energy on a scale of ratios."""
    points = [(report, point) for report in reports if (point := point_of(report)) is not None]
    if len({point["metric"] for _, point in points}) != 1:
        return ""
    xs, ys = [math.log10(max(point["mJ"], 1e-12)) for _, point in points], [point["value"] for _, point in points]
    (x0, x1), (y0, y1) = _room(xs, 0.15), _room(ys, 1.0)
    parts = []
    for (report, point), x, y in zip(points, xs, ys):
        left, top = 70 + 560 * (x - x0) / (x1 - x0), 20 + 220 * (y1 - y) / (y1 - y0)
        label = f"{point['model']}, seed {report['seed']}: {y:.2f} %, {millijoules(point['mJ'])}"
        side = f'x="{left + 9:.1f}"' if left < 380 else f'x="{left - 9:.1f}" text-anchor="end"'
        parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="5"/><text {side} y="{top + 4:.1f}">{escape(label)}</text>')
    return _framed("".join(parts), points[0][1]["metric"], (x0, x1), (y0, y1))


def _framed(inside, metric, xs, ys):
    """The picture around what :func:`_points` draws."""
    frame = '<line x1="70" y1="20" x2="70" y2="250"/><line x1="70" y1="250" x2="640" y2="250"/>'
    ends = [f'<text class="soft" x="{x}" y="268" text-anchor="{a}">{millijoules(10**v)}</text>' for x, v, a in zip((70, 640), xs, _ENDS)]
    ends += [f'<text class="soft" x="62" y="{y}" text-anchor="end">{v:.1f} %</text>' for y, v in zip((250, 28), ys)]
    names = '<text class="soft" x="355" y="286" text-anchor="middle">energy of an utterance, whole network</text>'
    names += f'<text class="soft" x="78" y="16">{escape(metric)}</text>'
    start = '<svg viewBox="0 0 700 292" width="700" role="img" aria-label="quality over energy">'
    return f'<div class="wide">{start}{frame}{"".join(ends)}{names}{inside}</svg></div>'


_ENDS = ("start", "end")


def _room(values, least):
    low, high = min(values), max(values)
    more = max(0.15 * (high - low), least)
    return low - more, high + more
