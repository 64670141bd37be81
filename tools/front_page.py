"""The table of results in the README, made by tools/results.py from kept runs: which of them stand there is chosen here, no number is."""

import re
import statistics
from dataclasses import dataclass

from tables import markdown, spread

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
    Line("the same, distilled to 20 frames a second", "accuracy", "GSC", "digits", "spikescr_mini_kdcl", ("metrics", "test", "accuracy")),
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
    own = _of(line, line.model, runs)
    if not own:
        return None
    others = _of(line, line.beside, runs)
    beside = f"{spread(_numbers(others, line.path), '{:.2f}')} ({line.beside})" if others else "-"
    costs = [run["energy"]["encoder_blocks"] for run in own if "encoder_blocks" in (run.get("energy") or {})]
    cost = "{:.3g} ({:.3g})".format(*(statistics.fmean(one[key] for one in costs) for key in ("mJ", "twin_mJ"))) if costs else "-"
    name = f"[{line.task}](recipes/{line.corpus}/README.md)"
    return [name, line.measure, f"{spread(_numbers(own, line.path), '{:.2f}')} ({line.model})", str(len(own)), beside, cost]


def _of(line, model, runs):
    wanted = (line.corpus, line.protocol, model)
    return [run for run in runs if (run["corpus"], run["protocol"], run["model"]) == wanted]


def _numbers(runs, path):
    found = []
    for node in runs:
        for key in path:
            node = node[key]
        found.append(node)
    return found


def placed(text, runs):
    """``text`` of a README with the table between BEGIN and END; as it is where it has no such place."""
    return _BLOCK.sub(lambda _: f"{BEGIN}\n\n{table(runs)}\n\n{END}", text)
