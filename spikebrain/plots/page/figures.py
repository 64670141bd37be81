"""What a run's numbers are called, and how they are written, on the page and in the table of several runs."""


def title(report):
    """A run in a few words."""
    fold = f", {report['fold']}" if report.get("fold") else ""
    return f"{report['model']} on {report['corpus']} ({report['protocol']}{fold}, seed {report['seed']})"


def millijoules(value):
    """An energy with its unit: µJ below 0.1 mJ, nJ below 0.1 µJ."""
    if value is None:
        return "–"
    for unit, factor in (("mJ", 1), ("µJ", 1e3), ("nJ", 1e6)):
        if value * factor >= 0.1 or not value:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} pJ"


def times(more, less):
    """How many times ``less`` goes into ``more``, as text."""
    return f"{more / less:.2f}x" if more and less else "–"


def quality(report):
    """The first metric of a report, in percent."""
    return " ".join(f"{name} {value:.2f} %" for name, value in list(report["metrics"].items())[:1])


def energies(scope):
    """Cells of a scope: spiking, twin, how many times less; the same under a table of integers beside a quantised twin; further, in mJ."""
    known = {key: "–" if scope.get(key) is None else f"{scope[key]:.4g}" for key in ("integer_mJ", "quantised_mJ", "further_mJ")}
    return (
        f"{scope['mJ']:.4g}",
        f"{scope['twin_mJ']:.4g}",
        times(scope["twin_mJ"], scope["mJ"]),
        known["integer_mJ"],
        known["quantised_mJ"],
        times(scope.get("quantised_mJ"), scope.get("integer_mJ")),
        known["further_mJ"],
    )


def count(number):
    """A number of operations, with a letter for thousands."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def verdicts(report):
    """What was found, a sentence each."""
    audit, proof = report["audit"], report.get("proof")
    real = [f"{one['layer']}.{one['part']}" for one in _products(audit) if not one["accumulate_only"]]
    yield f"{len(real)} of {len(_products(audit))} products multiply real numbers" if real else "every product is a matter of additions"
    if report.get("audit_converted"):
        left = [one for one in _products(report["audit_converted"]) if not one["accumulate_only"]]
        what = f"{len(left)} products that multiply real numbers" if left else "nothing but additions in its products"
        yield f"{report['simulated']}, converted, has {what}"
    if proof:
        spikes, flipped = sum(proof["spikes"].values()), sum(proof["differ_float32"].values())
        same = "the same spikes and the same number of additions" if proof["equal"] else "OTHER spikes or another number of additions"
        yield f"run on events, one utterance gives {same} in {len(proof['spikes'])} layers ({spikes} spikes) in float64"
        yield f"in float32 {flipped} spikes differ ({100 * proof['flipped_float32']:.3g} %); it took {proof['seconds']:.2f} s"


def _products(audit):
    return [finding for finding in audit["findings"] if finding["sort"] == "product"]
