"""Makes recipes/README.md, and the table in README.md, from the kept runs, so that no number in them is typed.

    python tools/results.py                                   # writes both
    python tools/results.py --check                           # fails when one is out of date
    python tools/results.py --keep RUN_FOLDER --protocol NAME # keeps a run's results.json, but for histograms of currents
    python tools/results.py --keep-energy RUN_FOLDER          # keeps the energy.json that tools/energy.py wrote there

A kept run lies in ``recipes/<Corpus>/results/<model>-<protocol>-<seed>.json``, and what ``tools/energy.py`` found in one under the same
name in ``recipes/<Corpus>/energy/``. They hold no absolute, user or host path.
"""

import argparse
import getpass
import json
import math
import re
import socket
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bootstrap
import front_page
from tables import markdown, mean, number_at, spread

from spikebrain.data.manifest import write_atomic
from spikebrain.energy import SCOPES, saving
from spikebrain.plots import page
from spikebrain.training import arms

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("task", "corpus", "model", "protocol", "seed", "command", "metrics", "parameters")
PROTOCOLS = ("paper", "random", "speaker")  # of spikebrain.data.folds: what is filed under one of them was cut by it
OVER_FOLDS = ("cut", "folds", "spread", "pooled", "leaks")  # needed too of runs of the task emotion
HEAD = """# Results

Made by `python tools/results.py` from the runs in `recipes/<Corpus>/results/`; not written by hand. Every file there holds the
command, the commit, the versions and the hardware of its run. Comparisons of models, where there are some, lie in
`recipes/<Corpus>/comparisons/`, written by `python tools/bootstrap.py --out`.
"""
LEGEND = """Error rates and accuracies are in percent; minDCF is a detection cost from 0 to 1. Over n runs that differ in their seed only,
mean and standard deviation between runs are given. Energy is that of one utterance in mJ, in brackets that of the twin without
spikes{prices}; each scope holds the one before it. A firing rate is spikes per frame and level, over all neurons.
"""
ARMS_PAGE = "GSC/README.md#the-curriculum"
CURRICULUM = "kdcl"
EQUAL = 0.5  # points of accuracy that count as none
ARMS_LEGEND = f"""A distilled model has a row for the last stage of its first arm, and a table of its arms: accuracy, and energy of the
whole network in mJ, at each number of frames a second. The last column says how far the curriculum (`{CURRICULUM}`) is ahead of each
other arm at the fewest frames: the mean difference in points over seeds that have both arms, with the standard error of that mean.
Before it stand the fewest frames at which an arm's mean accuracy is at most {EQUAL} points below that of the most frames trained.
"""
EMOTION = "emotion"
EMOTION_LEGEND = """Emotions are recognised over folds, in each by a model that is trained for it. WA is the share of test utterances
that are right, UA the mean recall of classes, WF1 the mean F1 of classes, each weighing as much as it has utterances; all are means
over folds. Beside them stand the standard deviation between the folds of a run, as a mean over runs, and the WA of all folds together.
Another partition, such as `+1` behind the protocol, has other folds.
"""
# Column of the table of gains -> where its number lies.
GAINS = {
    "WA": ("WA",),
    "hidden silent": ("hidden", "silent"),
    "hidden saturated": ("hidden", "saturated"),
    "hidden rate": ("hidden", "rate"),
    "output silent": ("output", "silent"),
    "output saturated": ("output", "saturated"),
}
GAINS_LEGEND = """Features multiplied with a gain after they were normalised, in percent, before > after training (which was at gain 1):
WA of all folds together, and of all pairs of utterance and neuron the share that never fires (silent), that fires in 99 % of its frames
or more (saturated), and the firing rate; hidden neurons and those of the classes (output) apart."""
ENERGY_LEGEND = """By `python tools/energy.py`: an utterance of the split whose quality stands beside. mJ is the headline; *integer* is the
spiking network under a table of integer prices, *quantised* a network without spikes whose activations have as many levels, under the
same table; *further* is what no headline counts (neurons, norms, biases and so on). [docs/energy.md](../docs/energy.md) says what is
behind it."""
EMPTY = "No run is kept yet. `python tools/results.py --keep RUN_FOLDER --protocol NAME` keeps one.\n"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+]*")
# A fold's note, by spikebrain.data.folds.
_VOICES = re.compile(r"(?P<heard>\d+) of the (?P<tested>\d+) speakers of test are in train")
# Begins a path that means something on one machine only: /x, ~, C:\x, \\host; not a/b, $X/b, https://x or "and/or".
_ABSOLUTE = re.compile(r"(?<![\w.$}/:])/[\w.]|(?<!\w)~[\w]*/|\b[A-Za-z]:[\\/](?!/)|\\\\\w|file:/")


class ResultsError(ValueError):
    """A run cannot be kept or read; the message names the file and the key."""


def main(argv=None):
    """Does what the arguments say; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.keep:
            print(keep(arguments.keep, arguments.protocol, arguments.root).relative_to(arguments.root))
        if arguments.keep_energy:
            print(keep_energy(arguments.keep_energy, arguments.protocol, arguments.root).relative_to(arguments.root))
        for place, text in pages(arguments.root).items():
            if arguments.check:
                _compare(text, place, arguments.root)
            else:
                write_atomic(place, text)
    except (ValueError, OSError) as error:
        print(f"results.py: {error}", file=sys.stderr)
        return 1
    return 0


def keep(folder, protocol, root=ROOT):
    """Copies the ``results.json`` of the run in ``folder`` to its kept place and returns that.

    Arguments
    ---------
    folder : Path
        A run's output folder.
    protocol : str or None
        What the run is filed under; None leaves what the run says.
    root : Path
        The checkout.

    Raises
    ------
    ResultsError
        Without results, with a key missing, with a path of one machine in it, for a corpus that has no recipe, or where another
        run with this model, protocol and seed is kept, or one with other folds under this protocol.
    """
    run = _lean(_read(Path(folder) / "results.json"))
    if protocol:
        run["protocol"] = protocol
    target = root / "recipes" / str(run.get("corpus")) / "results" / _file_name(run, folder)
    if not target.parent.parent.is_dir():
        raise ResultsError(f"{folder}: corpus {run['corpus']} has no folder recipes/{run['corpus']}: keep runs of recipes only")
    _validate(run, Path(folder) / "results.json")
    if target.exists() and _read(target) != run:
        raise ResultsError(f"{target.relative_to(root)} holds another run: remove it first, or name another --protocol")
    _same_folds([*(other for other in kept(root) if (other["corpus"], other["protocol"]) == (run["corpus"], run["protocol"])), run])
    target.parent.mkdir(exist_ok=True)
    write_atomic(target, json.dumps(run, indent=2) + "\n")
    return target


def keep_energy(folder, protocol, root=ROOT):
    """Copies the ``energy.json`` that tools/energy.py wrote into ``folder`` to its kept place and returns that; as :func:`keep`."""
    report = _read(Path(folder) / "energy.json")
    if protocol:
        report["protocol"] = protocol
    _refuse_private(report, Path(folder) / "energy.json")
    target = root / "recipes" / str(report.get("corpus")) / "energy" / _file_name(report, folder)
    if not target.parent.parent.is_dir():
        raise ResultsError(f"{folder}: corpus {report['corpus']} has no folder recipes/{report['corpus']}: keep runs of recipes only")
    target.parent.mkdir(exist_ok=True)
    write_atomic(target, json.dumps(report) + "\n")
    return target


def _lean(run):
    """A run without what it says of single layers at each gain, which is most of its size and stays in its folder."""
    if "calibration" in run:
        states = run["calibration"].items()
        lean = {s: {g: {k: v for k, v in at.items() if k != "layers"} for g, at in gains.items()} for s, gains in states}
        run = {**run, "calibration": lean}
    return run


def kept(root=ROOT):
    """All kept runs in order of their place: list of results; ResultsError for one that lies in the wrong place."""
    runs = []
    for path in sorted(root.glob("recipes/*/results/*.json")):
        run = _read(path)
        _validate(run, path)
        place = (str(run["corpus"]), _file_name(run, path))
        if place != (path.parent.parent.name, path.name):
            raise ResultsError(f"{path.relative_to(root)} holds a run of {'/'.join(place)}: keep runs with --keep")
        runs.append(run)
    return runs


def pages(root=ROOT):
    """Path -> text of the pages that are made, or hold something that is."""
    front = root / "README.md"
    runs = kept(root)
    texts = {root / "recipes" / "README.md": render(root, runs)}
    return texts | ({front: front_page.placed(front.read_text(encoding="utf-8"), runs)} if front.is_file() else {})


def render(root=ROOT, runs=None):
    """The text of recipes/README.md, of ``runs`` or of all that are kept."""
    runs = kept(root) if runs is None else runs
    if not runs:
        return f"{HEAD}\n{EMPTY}"
    parts = [HEAD, LEGEND.format(prices=_prices(runs)), *([ARMS_LEGEND] if _distilled(runs) else [])]
    parts += [EMOTION_LEGEND] if any(map(_over_folds, runs)) else []
    for place, members in _grouped(runs, lambda run: (run["corpus"], run["protocol"])):
        parts.append(_section(*place, members))
    return "\n".join([*parts, *_comparisons(root), *_energies(root)])


def _energies(root):
    """A section of what tools/energy.py found in kept runs."""
    reports = [_read(path) for path in sorted(root.glob("recipes/*/energy/*.json"))]
    if not reports:
        return
    header = ["run", "quality", "scope", "mJ", "twin mJ", "twin / mJ", "integer mJ", "quantised mJ", "quantised / integer", "further mJ"]
    rows = [
        [page.title(report), page.quality(report), scope, *page.energies(report["energy"][scope])] for report in reports for scope in SCOPES
    ]
    verdicts = "\n".join(f"- {page.title(report)}: {said}" for report in reports for said in page.verdicts(report))
    yield f"## Energy of trained runs\n\n{ENERGY_LEGEND}\n\n{markdown(header, rows)}\n\n{verdicts}\n"


def _comparisons(root):
    """A section for each kept comparison of models."""
    for path in sorted(root.glob("recipes/*/comparisons/*.json")):
        report = _read(path)
        of = [f"{run['model']} ({run['protocol']}, seed {run['seed']})" for run in report["runs"]]
        tables = "\n\n".join(bootstrap.show(found, report) for found in report["found"])
        yield f"## {path.parent.parent.name}, models compared: {path.stem}\n\n{tables}\n\nOf {len(of)} runs: {', '.join(of)}.\n"


def _prices(runs):
    """What an operation costs, as the runs say."""
    counting = [run["energy"].get("counting", {}) for run in runs if run.get("energy")]
    tables = {(p["mac_pJ"], p["ac_pJ"], p["node_nm"]) for p in (one.get("prices") for one in counting) if p}
    cost = _one(tables, lambda p: f"{p[0]} pJ a multiply-accumulate, {p[1]} pJ an accumulation, {p[2]} nm")
    return f" ({cost})" if cost else ""


def _section(corpus, protocol, runs):
    """One corpus under one protocol: its data, a row a model, and the commands."""
    models = _grouped(runs, lambda run: run["model"])
    columns = _scores(runs) + _folds(runs)
    header = ["model", "n", *(title for title, *_ in columns), "parameters", "firing rate", *SCOPES]
    table = markdown(header, [_row(model, members, columns) for model, members in models])
    tables = [table, *(_arms(model, _distilled(members)) for model, members in models if _distilled(members))]
    tables += [_cut(runs)] if any(map(_over_folds, runs)) else []
    looked = [run for run in runs if run.get("calibration")]
    tables += [GAINS_LEGEND, _gains(looked)] if looked else []
    commands = "\n".join(f"- {model}: {command}" for model, members in models for command in _commands(members))
    return "\n\n".join([f"## {corpus}, {protocol}", _data(runs), *tables, commands]) + "\n"


def _distilled(runs):
    """Those that have arms."""
    return [run for run in runs if run.get("stages") and run.get("arms")]


def _arms(model, runs):
    """A row an arm: accuracy and energy at each number of frames, and how far the curriculum is ahead of it at the fewest."""
    frames = sorted({stage["frames"] for run in runs for stage in run["stages"]}, reverse=True)
    splits = _tested(runs)
    scores, costs = {split: arms.over_runs(runs, arms.accuracy(split)) for split in splits}, arms.over_runs(runs, arms.energy)
    header = ["arm", "n", *(f"{split}, {number} frames" for split in splits for number in frames)]
    header += [f"mJ, {number} frames" for number in frames]
    header += [f"frames for {split}, equal" for split in splits]
    header += [f"{CURRICULUM} ahead, {split}, {frames[-1]} frames" for split in splits]
    rows = []
    for arm in dict.fromkeys(arm for run in runs for arm in run["arms"]):
        accuracy = [spread(scores[split].get(arm, {}).get(number), "{:.2f}") for split in splits for number in frames]
        cost = [mean(costs.get(arm, {}).get(number), "{:.3g}") for number in frames]
        ahead = [_ahead(runs, arm, split, frames[-1]) for split in splits]
        fewest = [_fewest(scores[split].get(arm, {}), costs.get(arm, {}), frames[0]) for split in splits]
        rows.append([arm, str(sum(arm in run["arms"] for run in runs)), *accuracy, *cost, *fewest, *ahead])
    return f"Arms of {model} ([what they are]({ARMS_PAGE})):\n\n{markdown(header, rows)}"


def _fewest(scores, costs, most):
    """The fewest frames that are as good as ``most``, and what they save, of frames -> accuracies and frames -> mJ."""
    if most not in scores:
        return "-"
    least = statistics.fmean(scores[most]) - EQUAL
    fewest = min(frames for frames, values in scores.items() if statistics.fmean(values) >= least)
    text = f"{100 * saving(fewest, most):.0f} % fewer"
    if {fewest, most} <= costs.keys():
        text += f", {100 * saving(*(statistics.fmean(costs[frames]) for frames in (fewest, most))):.0f} % less energy"
    return f"{fewest} ({text})"


def _tested(runs):
    """The test splits of the stages; all splits where none is called so."""
    splits = list(dict.fromkeys(split for run in runs for stage in run["stages"] for split in stage["accuracy"]))
    return [split for split in splits if split.startswith("test")] or splits


def _ahead(runs, arm, split, frames):
    """By how many points the curriculum beats an arm: mean over the runs that have both, and its standard error."""
    scores = [arms.by_arm(run, arms.accuracy(split)) for run in runs]
    pairs = [(score.get(CURRICULUM, {}).get(frames), score.get(arm, {}).get(frames)) for score in scores]
    differences = [own - other for own, other in pairs if None not in (own, other)]
    if arm == CURRICULUM or not differences:
        return "-"
    error = f" ± {statistics.stdev(differences) / math.sqrt(len(differences)):.2f}" if len(differences) > 1 else ""
    return f"{statistics.fmean(differences):+.2f}{error} (n {len(differences)})"


def _row(model, runs, columns):
    found = [(write, [value for value in map(number, runs) if value is not None]) for _, number, write in columns]
    cells = [write(values, "{:.2f}") for write, values in found]
    parameters = _one({run["parameters"]["total"] for run in runs}, lambda total: f"{total:,}")
    rates = [_firing_rate(run["firing_rate"]) for run in runs if run.get("firing_rate")]
    return [model, str(len(runs)), *cells, parameters, spread(rates, "{:.3f}"), *(_energy(runs, scope) for scope in SCOPES)]


def _scores(runs):
    """A column a metric: (title, run -> number or None, what writes the numbers of several runs)."""
    names = dict.fromkeys((split, name) for run in runs for split, values in run["metrics"].items() for name in values)
    return [(f"{split} {name}", _reader("metrics", split, name), spread) for split, name in names]


def _folds(runs):
    """Columns, as of :func:`_scores`, that only runs over folds have."""
    names = dict.fromkeys(name for run in runs if _over_folds(run) for name in run["metrics"]["test"])
    between = [(f"{name} between folds", _reader("spread", "test", name), mean) for name in names]
    return between + ([("pooled WA", _reader("pooled", "test", "WA"), spread)] if names else [])


def _reader(*path):
    """Run -> the number that lies there in its results, or None."""

    return lambda run: number_at(run, path)


def _over_folds(run):
    return run["task"] == EMOTION


def _same_folds(runs):
    """Refuses runs that cut their corpus in different ways, where each was cut."""
    first = next(filter(_over_folds, runs), None)
    for run in filter(_over_folds, runs):
        mine, other = ({fold["fold"]: fold["digest"] for fold in one["folds"]} for one in (run, first))
        if mine != other:
            names = f"{run['model']} (seed {run['seed']}) and {first['model']} (seed {first['seed']})"
            what = f"{run['corpus']}, {run['protocol']}: {names} were tested on different folds"
            raise ResultsError(f"{what}: keep one of them with another --protocol, such as {run['protocol']}+1")


def _cut(runs):
    """What must be known of the folds of runs, which are the same for all of them: who and what is in test and in training."""
    _same_folds(runs)
    run = next(filter(_over_folds, runs))
    names = [fold["fold"] for fold in run["folds"]]
    cut = run["cut"]
    head = f"Tested on {len(names)} folds ({', '.join(names)}) of the protocol {cut['protocol']}, partition {cut['partition']}."
    return " ".join([head, *_voices(run), _shared_audio(run, names), *_lacking(run)])


def _voices(run):
    """Whose voices are tested and trained on; and, of folds that are cut by speaker, that nothing is ranked by them."""
    found = [match for fold in run["folds"] for match in map(_VOICES.fullmatch, fold["notes"]) if match]
    if found:
        heard, tested = (sum(int(match[group]) for match in found) for group in ("heard", "tested"))
        where = f"in {len(found)} of {len(run['folds'])} folds"
        yield f"**These folds leak**: of {tested} voices that they test, counted fold by fold, {heard} are heard in training too, {where}."
        yield "Numbers here are of known voices, not of new ones."
    else:
        yield "Nobody who is tested is heard in training."
    if run["cut"]["protocol"] == "speaker":
        yield "Models are reported here, not ranked: what folds are made of hangs on a few voices; other partitions have other folds."


def _shared_audio(run, names):
    pairs = {tuple(pair[:2]) for name in names for pair in run["leaks"].get(name, ())}
    if not pairs:
        return "No two recordings that share audio are in different parts of a fold."
    folds = sum(bool(run["leaks"].get(name)) for name in names)
    what = f"{len(pairs)} pairs of recordings share audio" if len(pairs) > 1 else "1 pair of recordings shares audio"
    return f"{what} of which one is tested and the other trained on, or used to choose a model, in {folds} of {len(names)} folds."


def _lacking(run):
    folds = [fold["fold"] for fold in run["folds"] if any(note.startswith("test has no utterance of") for note in fold["notes"])]
    if folds:
        yield f"Test lacks classes in {len(folds)} of {len(run['folds'])} folds ({', '.join(folds)}); UA is that of the others."


def _gains(runs):
    """What features of another level do to neurons: a row a model and gain, each number before and after training."""
    rows = []
    for model, members in _grouped(runs, lambda run: run["model"]):
        for gain in members[0]["calibration"]["trained"]:
            rows.append([model, gain, *(_before_and_after(members, gain, *path) for path in GAINS.values())])
    return markdown(["model", "gain", *GAINS], rows)


def _before_and_after(runs, gain, *path):
    """Mean over runs, untrained > trained, in percent."""
    values = [[_reader("calibration", state, gain, *path)(run) for run in runs] for state in ("untrained", "trained")]
    scale = 1 if path == ("WA",) else 100
    return " > ".join(mean([scale * value for value in those], "{:.1f}") for those in values)


def _energy(runs, scope):
    costs = [run["energy"][scope] for run in runs if scope in (run.get("energy") or {})]
    if not costs:
        return "-"
    own, twin = (statistics.fmean(cost[key] for cost in costs) for key in ("mJ", "twin_mJ"))
    return f"{own:.3g} ({twin:.3g})"


def _firing_rate(layers):
    """Mean over all neurons of all layers."""
    neurons = sum(layer["channels"] for layer in layers.values())
    return sum(layer["mean"] * layer["channels"] for layer in layers.values()) / neurons


def _commands(runs):
    """The commands of one row, each with its commit, one where runs differ in their seed only; where a run wrote is left out."""
    seeds = {}
    for run in runs:
        line = re.sub(r"--seed[= ]\S+", "--seed=SEED", re.sub(r" --output_folder[= ]\S+", "", run["command"]))
        head, dash, rest = str(run.get("commit") or "").partition("-")  # -dirty: other files than those of the commit
        seeds.setdefault((line, head[:10] + dash + rest), []).append(run["seed"])
    return [_command(line, commit, ", ".join(map(str, sorted(those)))) for (line, commit), those in sorted(seeds.items())]


def _command(line, commit, seeds):
    at = f" at commit {commit}" if commit else ""
    return f"`{line}`, SEED {seeds}{at}" if "SEED" in line else f"`{line}` (seed {seeds}){at}"


def _data(runs):
    """What the runs were trained and tested on."""
    return _one({_data_line(run.get("data") or {}) for run in runs}, str)


def _data_line(data):
    splits = data.get("splits") or {}
    sizes = [f"{split} {count['utterances']:,} utterances ({count['hours']:.2f} h)" for split, count in splits.items()]
    whole = {True: "The whole corpus", False: "Not the published corpus: an excerpt, a twin or other recordings", None: "Data"}
    return f"{whole[data.get('complete')]}{': ' if sizes else ''}{', '.join(sizes)}."


def _one(values, form):
    return " / ".join(form(value) for value in sorted(values))


def _grouped(runs, key):
    groups = {}
    for run in sorted(runs, key=lambda run: (key(run), run["seed"])):
        groups.setdefault(key(run), []).append(run)
    return list(groups.items())


def _file_name(run, source):
    for key in ("model", "protocol"):
        if not _NAME.fullmatch(str(run.get(key))):
            raise ResultsError(f"{source}: {key} is {run.get(key)!r}: use letters, digits, _ . and + (a file is named after it)")
    return f"{run['model']}-{run['protocol']}-{run.get('seed')}.json"


def _read(path):
    if not path.is_file():
        raise ResultsError(f"{path}: no such file: a run writes it when it has ended")
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path}: is no JSON ({error}): run the recipe again") from error
    if not isinstance(run, dict):
        raise ResultsError(f"{path}: holds a {type(run).__name__}, not the results of a run")
    return run


def _validate(run, path):
    needed = NEEDED + (OVER_FOLDS if run.get("task") == EMOTION else ())
    missing = [key for key in needed if key not in run]
    if missing:
        raise ResultsError(f"{path}: lacks the key {missing[0]} (missing in all: {', '.join(missing)})")
    filed, cut = str(run["protocol"]).partition("+")[0], run.get("cut", {}).get("protocol")
    if cut and filed in PROTOCOLS and filed != cut:
        what = f"{path}: is filed under {run['protocol']}, but its folds are those of fold_protocol {cut}"
        raise ResultsError(f"{what}: pass --protocol={cut}, or {cut}+1 for partition 1")
    _refuse_private(run, path)


def _refuse_private(node, path):
    for key, text in _strings("", node):
        found = _private(text)
        if found:
            raise ResultsError(f"{path}: {key} holds {found}, known on one machine only: write $SPIKEBRAIN_DATA/... instead")


def _private(text):
    """The first piece of ``text`` that is an absolute path, or this user's or machine's name within one; None where there is none."""
    absolute = _ABSOLUTE.search(text)
    if absolute:
        return repr(text[absolute.start() :].split()[0])
    words = set(re.split(r"[^\w.-]+", text))
    if socket.gethostname() in words - {"localhost"}:
        return "the name of this machine"
    if "/" in text and getpass.getuser() in words:
        return "the name of this user"
    return None


def _strings(key, node):
    """Every string below ``node``, keys too, with the dotted key that leads to it."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, dict):
        for name, child in node.items():
            yield f"a key of {key or 'the file'}", name
            yield from _strings(f"{key}.{name}" if key else name, child)
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _strings(f"{key}[{number}]", child)


def _compare(text, page, root):
    if not page.is_file() or page.read_text(encoding="utf-8") != text:
        raise ResultsError(f"{page.relative_to(root)} is out of date: run python tools/results.py")


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when recipes/README.md is out of date")
    parser.add_argument("--keep", type=Path, metavar="RUN_FOLDER", help="keep the results.json of this run")
    parser.add_argument("--keep-energy", type=Path, metavar="RUN_FOLDER", help="keep the energy.json that tools/energy.py wrote there")
    parser.add_argument("--protocol", help="what the run is filed under (default: what it says itself)")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: the one of this file)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
