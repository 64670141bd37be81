"""Runs a table, every row with every seed, and prints it beside the paper's numbers.

    python tools/table.py recipes/shared/tables/pts_snn_ablations.yaml --recipe URDU --yaml hparams/pts_snn_mini.yaml
        --seeds 1 2 3 --output_folder=OUT --data_folder=/path/to/URDU [--rows no_prompts ...] [--split test] [overrides of every run]

A table file is plain YAML. All but ``rows`` may be left out, and of a row all but its name:

    title: what the table shows
    source: whose the numbers under paper are, and of what
    yaml: hparams/pts_snn.yaml        # of the rows that name none, beside the recipe's train.py; --yaml exchanges it
    model: "{yaml}_{row}"             # what runs are filed under, {yaml} without its ending; by default the row's name
    overrides: {encoder_kwargs: {d_k: 64}}         # of every row
    split: test                       # whose metrics are shown, where --split names none
    rows:
      no_prompts: {yaml: ..., overrides: {encoder: pts_snn_no_prompts}, paper: {WA: 71.76, UA: 71.90}, note: how ours is not the paper's}

Overrides of a row lie over those of the command line, and these over those of the table; mappings among them, such as encoder_kwargs, are
merged, by the recipes too. What a row sets cannot be set on the command line.

Runs come one after the other, each a process of its own, into OUT/<row>/<protocol>/<seed>. One that has ended is not run again, one
that was stopped goes on as its recipe does, and one that fails is said while the others go on; the exit status is then 1. A folder whose
run was asked otherwise is refused. What is compared is the command: who edits a YAML removes the folders of its runs.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import hyperpyyaml
import ruamel.yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tables import markdown, spread

from spikebrain.data.manifest import DataError, write_atomic
from spikebrain.spelling import did_you_mean
from spikebrain.training import keys
from spikebrain.training.results import FILE, command, known_folders

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
ASKED, LOG = "asked.txt", "output.txt"  # beside a run's results: its command, and what it printed
OF_TABLE, OF_ROW = ("title", "source", "yaml", "model", "overrides", "split", "rows"), ("yaml", "overrides", "paper", "note")
OURS = {"model": "rows are filed under their names", "seed": "use --seeds"}
# Options that change where and how a run is computed, not what.
ASIDE = ("output_folder", "save_folder", "cache_folder", "synthetic_folder", "jobs", "noprogressbar")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+]*")
_PLAIN = re.compile(r"[\w./$][\w./$+-]*")  # what needs no quotes where it is no number or truth value


class TableError(ValueError):
    """A table cannot be run; the message names the file or the option, and the repair."""


@dataclass(frozen=True)
class Row:
    """One row: its name, recipe file, what its runs are filed under, option -> text for all of them, metric -> the paper's number, and why
    the two are not to be compared, where they are not."""

    name: str
    yaml: str
    model: str
    options: dict
    paper: dict
    note: str | None = None


@dataclass(frozen=True)
class Run:
    """A row with a seed: where it goes, the words of its process, and its command as ``results.json`` writes it."""

    row: Row
    protocol: str
    seed: int
    folder: Path
    words: list
    command: str

    def __str__(self):
        return f"{self.row.name}, {self.protocol}, seed {self.seed}"


def main(argv=None):
    """Does what the arguments say; returns the exit status."""
    arguments, others = _parser().parse_known_args(argv)
    try:
        table = read(arguments.table)
        recipe = find_recipe(arguments.recipe)
        rows = choose(table, recipe, arguments.rows, arguments.yaml, parse_options(others))
        runs = plan(rows, recipe, arguments.seeds, arguments.output_folder)
        done = go(runs)
        print(show(table, rows, done, arguments.split or table.get("split", "test")))
    except (TableError, keys.RecipeError, DataError, OSError) as error:
        print(f"table.py: {error}", file=sys.stderr)
        return 1
    return int(len(done) < len(runs))


# What is asked.


def read(path):
    """The dict of a table file; a TableError for what is none."""
    try:
        table = ruamel.yaml.YAML(typ="safe").load(path)
    except (FileNotFoundError, IsADirectoryError):
        there = ", ".join(sorted(file.name for file in path.parent.glob("*.yaml"))) or "none"
        raise TableError(f"{path}: no such file; tables beside it: {there}") from None
    except ruamel.yaml.error.YAMLError as error:
        raise TableError(f"{path}: is no plain YAML: {error}") from error
    _known(table, OF_TABLE, str(path))
    rows = table.get("rows")
    if not isinstance(rows, Mapping) or not rows:
        raise TableError(f"{path}: has no rows: write rows: {{NAME: {{overrides: {{...}}}}}}")
    table["rows"] = {name: row or {} for name, row in rows.items()}
    for name, row in table["rows"].items():
        if not _NAME.fullmatch(str(name)):
            raise TableError(f"{path}: rows: {name!r}: use letters, digits, _ . and + (a folder is named after it)")
        _known(row, OF_ROW, f"{path}: rows: {name}")
    return table


def find_recipe(name):
    """The ``train.py`` of a recipe: a name in ``recipes/``, or a folder."""
    for folder in (RECIPES / name, Path(name)):
        if (folder / "train.py").is_file():
            return (folder / "train.py").resolve()
    there = sorted(file.parent.name for file in RECIPES.glob("*/train.py"))
    hint = did_you_mean(name, there)
    raise TableError(f"--recipe: there is no {name}{hint}; there are {', '.join(there)}; or name a folder that has a train.py")


def parse_options(words):
    """Option -> text of words such as ``--lr=0.1``, ``--device cpu`` or ``--noprogressbar`` (None), which every run is given."""
    given, last = {}, None
    for word in words:
        if not word.startswith("--"):
            if last is None or given[last] is not None:
                raise TableError(f"{word}: belongs to no option: write --NAME={word}")
            given[last] = word
            continue
        last, equals, text = word[2:].partition("=")
        if last in given:
            raise TableError(f"--{last}: is given twice")
        if last in OURS:
            raise TableError(f"--{last}: is the table's to set: {OURS[last]}")
        given[last] = text if equals else None
    return given


def choose(table, recipe, names, yaml, given):
    """The Rows ``names`` of a table (None: all), in its order.

    Arguments
    ---------
    table : dict
        As :func:`read` gives it.
    recipe : Path
        Its ``train.py``.
    names : list of str or None
    yaml : str or None
        Takes the place of the table's ``yaml``.
    given : dict
        Option -> text, for every row.

    Raises
    ------
    TableError, RecipeError
        An unknown row, a row without a recipe file or with one that is not there, or an option that a row sets itself.
    """
    rows = {str(name): row for name, row in table["rows"].items()}
    for name in names or ():
        if name not in rows:
            raise TableError(f"--rows: there is no {name}{did_you_mean(name, rows)}; there are {', '.join(rows)}")
    if yaml and all("yaml" in row for row in rows.values()):
        raise TableError(f"--yaml: {yaml} would be nobody's: every row of the table names its own")
    table = {**table, **({"yaml": yaml} if yaml else {})}
    return [_row(table, recipe, name, row, given) for name, row in rows.items() if not names or name in names]


def _row(table, recipe, name, row, given):
    yaml = row.get("yaml", table.get("yaml"))
    if not yaml:
        raise TableError(f"rows: {name}: names no yaml, and neither does the table: pass --yaml=hparams/...")
    model = str(table.get("model", "{row}")).format(yaml=Path(yaml).stem, row=name)
    options = merge_options(name, table.get("overrides") or {}, given, row.get("overrides") or {})
    # Beside the recipe, whatever lies in the folder that this is called from.
    return Row(name, keys.find(str(recipe), str(recipe.parent / yaml)), model, options, row.get("paper") or {}, row.get("note"))


def merge_options(name, common, given, own):
    """Option -> text for the row ``name``, of the overrides of the table, the options of the command line, and the overrides of the row."""
    parsed = {option: _value(option, text) for option, text in given.items() if option in common or option in own}
    for clash in filter(None, (_clash(option, value, own[option]) for option, value in parsed.items() if option in own)):
        raise TableError(f"--{clash}: is what the row {name} sets: leave it out, or leave the row out with --rows")
    values = _merged(_merged(common, parsed), own)
    return {option: _text(value) for option, value in values.items()} | {o: text for o, text in given.items() if o not in parsed}


def _merged(base, changes):
    """``changes`` over ``base``, mappings merged as HyperPyYAML merges overrides."""
    both = dict(base)
    for name, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(base.get(name), Mapping)
        both[name] = _merged(base[name], value) if nested else value
    return both


def _clash(name, value, own):
    """The first dotted name that both ``value`` and ``own`` set, or None."""
    if not (isinstance(value, Mapping) and isinstance(own, Mapping)):
        return name
    return next(filter(None, (_clash(f"{name}.{key}", value[key], own[key]) for key in value if key in own)), None)


def _value(option, text):
    """What a recipe reads ``--option=text`` as."""
    return True if text is None else keys.parse_overrides(f"{option}: {text}")[option]


def _text(value):
    """A value as one word of a command line, which a recipe reads as that value."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and _value("x", value) == value:
        return value
    return json.dumps(value, separators=(",", ":"))


def _known(node, known, where):
    if not isinstance(node, Mapping):
        raise TableError(f"{where}: is a {type(node).__name__}, expected keys among {', '.join(known)}")
    for name in node:
        if name not in known:
            raise TableError(f"{where}: nothing reads the key {name}{did_you_mean(name, known)}; known keys: {', '.join(known)}")


# What is run.


def plan(rows, recipe, seeds, out):
    """The Runs of rows x seeds, in that order; TableError for a folder that holds what was asked otherwise."""
    runs = [_run(row, recipe, seed, out) for row in rows for seed in dict.fromkeys(seeds)]
    for run in runs:
        ended(run)
    return runs


def ended(run):
    """The results of a run that has ended; None where it has not.

    Raises
    ------
    TableError
        Its folder holds a run, ended or begun, that was asked otherwise.
    """
    file, begun = run.folder / FILE, run.folder / ASKED
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    before = begun.read_text(encoding="utf-8").strip() if begun.is_file() else run.command
    other = sorted(_asked(found["command"] if found else before) ^ _asked(run.command))
    wanted = {"model": run.row.model, "protocol": run.protocol, "seed": run.seed}
    other += [f"{key} {found[key]}, not {value}" for key, value in wanted.items() if found and found[key] != value]
    if other:
        what = f"holds a run that was asked otherwise, in {', '.join(other)}"
        raise TableError(f"{run.folder}: {what}: remove it, or name another --output_folder, or --protocol")
    return found


def go(runs):
    """Runs what has not ended, one after the other; (Run, its results) of those that have ended in the end."""
    done = []
    for run in runs:
        found = ended(run)
        _say(f"{run}: {'has ended before' if found else 'runs'}")
        found = found or _start(run)
        if found:
            done.append((run, found))
    return done


def _run(row, recipe, seed, out):
    protocol = _protocol(row)
    folder = out / row.name / protocol / str(seed)
    options = {"model": row.model, "seed": str(seed), "output_folder": str(folder), **row.options}
    words = [str(recipe), row.yaml, *(f"--{name}" if text is None else f"--{name}={text}" for name, text in options.items())]
    return Run(row, protocol, seed, folder, words, command(words, known_folders(str(recipe))))


def _protocol(row):
    """What the runs of a row are filed under, by its options or by its recipe file."""
    given = {name: _value(name, text) for name, text in row.options.items()}
    missing = [name for name, node in keys.read(row.yaml).items() if keys.is_placeholder(node) and name not in given]
    if missing:
        raise TableError(f"{row.yaml}: {missing[0]} has no value: pass --{missing[0]}=...")
    with open(row.yaml, encoding="utf-8") as file:
        tree = ruamel.yaml.YAML().load(hyperpyyaml.resolve_references(file, given))
    return str(tree.get("protocol", "default"))


def _asked(line):
    """The options of a command, without those that do not change its results; paths of recipe and YAML are the first of them."""
    words = re.split(r" (?=--)", line)
    return {word for word in words if word.removeprefix("--").partition("=")[0] not in ASIDE}


def _start(run):
    """Runs it in a process; its results, or None where it failed, which is said."""
    began = time.monotonic()
    write_atomic(run.folder / ASKED, run.command + "\n")
    with open(run.folder / LOG, "w", encoding="utf-8") as log:
        status = subprocess.run([sys.executable, *run.words], stdout=log, stderr=subprocess.STDOUT).returncode
    found = None if status else ended(run)
    if found:
        _say(f"{run}: ended after {time.monotonic() - began:.0f} s")
    else:
        last = (run.folder / LOG).read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        _say(f"{run}: failed with status {status}{'' if status else f', without {FILE}'}, {run.folder / LOG} says why: {last}")
    return found


def _say(line):
    print(line, file=sys.stderr, flush=True)


# What is shown.


def show(table, rows, done, split):
    """The table as Markdown: mean and standard deviation over seeds of every metric of ``split``, and the paper's number beside it.

    Arguments
    ---------
    table : dict
        For its ``title`` and ``source``.
    rows : list of Row
    done : list of (Run, dict)
        Runs that have ended, and their results.
    split : str

    Raises
    ------
    TableError
        No run was tested on ``split``.
    """
    splits = list(dict.fromkeys(name for _, found in done for name in found["metrics"]))
    if done and split not in splits:
        raise TableError(f"--split: no run has {split}{did_you_mean(split, splits)}; there are {', '.join(splits)}")
    scores = {row.name: [found["metrics"].get(split, {}) for run, found in done if run.row is row] for row in rows}
    metrics = list(dict.fromkeys(name for row in rows for own in (*scores[row.name], row.paper) for name in own))
    published = [name for name in metrics if any(name in row.paper for row in rows)]
    header = ["row", "n", *(title for name in metrics for title in ([name, f"{name}, paper"] if name in published else [name]))]
    lines = [_line(row, scores[row.name], metrics, published) for row in rows]
    about = [f"{table.get('title', 'Results')}: {_of(done, split)}.", markdown(header, lines)]
    notes = [f"\\* {row.name}: {row.note}" for row in rows if row.note]
    return "\n\n".join(about + ([f"Paper: {table['source']}"] if published and "source" in table else []) + notes)


def _line(row, scores, metrics, published):
    cells = []
    for name in metrics:
        cells.append(spread([own[name] for own in scores if name in own], "{:.2f}"))
        if name in published:
            cells.append(f"{row.paper[name]:.2f}" + (" \\*" if row.note else "") if name in row.paper else "-")
    return [row.name, str(len(scores)), *cells]


def _of(done, split):
    """What the numbers are of."""
    if not done:
        return "no run has ended"
    corpora, protocols = (sorted({str(found[key]) for _, found in done}) for key in ("corpus", "protocol"))
    return f"{', '.join(corpora)}, protocol {', '.join(protocols)}, {split}, in percent, mean ± standard deviation over n seeds"


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("table", type=Path, metavar="TABLE", help="a table file")
    parser.add_argument("--recipe", required=True, help="a name in recipes/, or a folder with a train.py")
    parser.add_argument("--output_folder", type=Path, required=True, metavar="OUT", help="where the runs go")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, metavar="SEED")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="these rows alone")
    parser.add_argument("--yaml", metavar="FILE", help="takes the place of the table's yaml, beside the recipe's train.py")
    parser.add_argument("--split", help="of whose metrics the table is (default: what the table file says, or test)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
