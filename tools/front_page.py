"""The table of results in the README, made by tools/results.py from kept runs: which of them stand there is chosen here, no number is."""

import re
import statistics
from dataclasses import dataclass

from tables import markdown, number_at, spread

BEGIN, END = "<!-- made by tools/results.py: do not edit -->", "<!-- until here -->"
_BLOCK = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
HEADER = ["task", "measure", "spiking", "n", "compared with", "encoder blocks, mJ (without spikes)"]


@dataclass(frozen=True)
class Line:
    """One row.

    task, measure : in words, and what is measured
    corpus, protocol, model : of the runs
    path : keys in results.json that lead to the number
    beside : a model without spikes under the same protocol, or None
    """

    task: str
    measure: str
    corpus: str
    protocol: str
    model: str
    path: tuple
    beside: str | None = None


LINES = (
    Line("strings of real digits, voices of training", "WER", "LibriSpeech", "connected_digits", "iml_spikeformer_mini",
         ("metrics", "test-clean", "WER"), "transformer_mini"),
    Line("the same, voices nobody heard", "WER", "LibriSpeech", "connected_digits", "iml_spikeformer_mini",
         ("metrics", "test-other", "WER"), "transformer_mini"),
    Line("synthetic Mandarin, unheard voices and sentences", "CER", "AISHELL-1", "synthetic", "iml_spikeformer_mini",
         ("metrics", "test", "CER"), "transformer_mini"),
    Line("ten real words", "accuracy", "GSC", "digits", "spikescr_mini", ("metrics", "test", "accuracy")),
    Line("the same, distilled to 20 frames a second", "accuracy", "GSC", "fsdd", "spikescr_mini_kdcl", ("metrics", "test", "accuracy")),
    Line("which of six real speakers", "accuracy", "VoxCeleb", "digits", "iml_spikeformer_identification_mini",
         ("metrics", "iden-test", "accuracy")),
    Line("whether two synthetic voices, unheard, are one", "EER", "VoxCeleb", "synthetic", "iml_spikeformer_verification_mini",
         ("metrics", "vox1-o", "EER")),
    Line("emotions of real voices that nobody heard", "WA", "URDU", "speaker", "pts_snn_mini", ("pooled", "test", "WA"), "regression"),
)  # fmt: skip


def table(runs):
    """The rows of LINES as Markdown, from ``runs``, a list of results; a line whose runs are not kept has no row."""
    rows = [_row(line, runs) for line in LINES]
    return markdown(HEADER, [row for row in rows if row])


def _row(line, runs):
    own, others = (_of(line, model, runs) for model in (line.model, line.beside))
    if not own:
        return None
    beside = f"{spread(_numbers(others, line.path), '{:.2f}')} ({line.beside})" if others else "-"
    costs = [run["energy"]["encoder_blocks"] for run in own if "encoder_blocks" in (run.get("energy") or {})]
    cost = "{:.3g} ({:.3g})".format(*(statistics.fmean(one[key] for one in costs) for key in ("mJ", "twin_mJ"))) if costs else "-"
    name = f"[{line.task}](recipes/{line.corpus}/README.md)"
    return [name, line.measure, f"{spread(_numbers(own, line.path), '{:.2f}')} ({line.model})", str(len(own)), beside, cost]


def _of(line, model, runs):
    """The runs of a model that have the line's number."""
    wanted = (line.corpus, line.protocol, model)
    found = [run for run in runs if (run["corpus"], run["protocol"], run["model"]) == wanted]
    return [run for run in found if number_at(run, line.path) is not None]


def _numbers(runs, path):
    return [number_at(run, path) for run in runs]


def placed(text, runs):
    """``text`` of a README with the table between BEGIN and END; ValueError where it has no such place."""
    if not _BLOCK.search(text):
        raise ValueError(f"README.md: has no place for the table: write {BEGIN} and {END} where it belongs")
    return _BLOCK.sub(lambda _: f"{BEGIN}\n\n{table(runs)}\n\n{END}", text)
