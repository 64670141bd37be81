"""The card of a bundle: ``README.md``, as the Hugging Face hub shows it, made from what a run wrote and nothing else.

    text = card.card(config, results, energy)

Every number in it is read from ``bundle.json``, ``results.json`` and, where ``tools/energy.py`` was run, ``energy.json``.
"""

import json
import statistics

from spikebrain import registry
from spikebrain.plots.page import energies, verdicts
from spikebrain.publishing import interfaces
from spikebrain.publishing.parts import BundleError

METRICS = {"WER": "word error rate", "CER": "character error rate", "accuracy": "accuracy", "EER": "equal error rate"}  # in percent
COSTS = {"minDCF": "lowest detection cost, target share 0.01", "minDCF_0.05": "lowest detection cost, target share 0.05"}  # of 0 to 1
TASKS = {
    "asr": ("speech recognition", "automatic-speech-recognition"),
    "classify": ("classification of short recordings", "audio-classification"),
    "identify": ("identification of speakers", "audio-classification"),
    "verify": ("verification of speakers", None),  # the hub has no such task
}
TAGS = ("spikebrain", "speechbrain", "spiking-neural-network", "safetensors", "pytorch")
LANGUAGES = {"LibriSpeech": "en", "GSC": "en", "AISHELL-1": "zh", "EMODB": "de", "EMOVO": "it", "URDU": "ur", "CASIA": "zh"}
SCOPES = {"encoder_blocks": "encoder blocks", "encoder+frontend": "encoder and front end", "full": "whole network"}
_SLIDE = "spikebrain classify BUNDLE stream.wav --window 1.0 --hop 0.5"
USE = {
    "asr": ('print(model.transcribe("speech.flac"))', "transcribe BUNDLE speech.flac"),
    "classify": ('print(model.classify("word.wav"))', f"classify BUNDLE word.wav\n{_SLIDE}"),
    "identify": ('print(model.classify("speech.wav").label)', "classify BUNDLE speech.wav"),
    "verify": ('print(model.verify("enrol.wav", "test.wav"))', "verify BUNDLE enrol.wav test.wav"),
}
HOST_USE = {
    "EncoderDecoderASR": 'transcribe_file("speech.flac"))',
    "EncoderASR": 'transcribe_file("speech.flac"))',
    "EncoderClassifier": 'classify_file("speech.wav")[3])',
    "SpeakerRecognition": 'verify_files("enrol.wav", "test.wav")[0])  # a cosine; SpeechBrain\'s verdict behind it has another threshold',
}


def card(config, results, energy=None, seeds=(), speechbrain=False):
    """The card, as Markdown with the hub's metadata before it.

    Arguments
    ---------
    config : dict
        ``bundle.json``; its ``files`` are not looked at, since the card is one of them.
    results : dict
        ``results.json`` of the run.
    energy : dict, optional
        ``energy.json``, whose numbers stand then for those of ``results``, and which the audit's findings are taken from.
    seeds : sequence of dict
        ``results.json`` of further runs of the same recipe, other seeds: a second column with mean and standard deviation of all.
    speechbrain : bool
        Whether SpeechBrain's own interfaces load the folder too.

    Returns
    -------
    str

    Raises
    ------
    BundleError
        For results of another model or corpus than ``config`` names, and seeds of another model or protocol than ``results``.
    """
    for name in ("model", "corpus"):
        if results[name] != config[name]:
            raise BundleError(f"results.json is of the {name} {results[name]}, the bundle of {config[name]}: give those of one run")
    _check_seeds(results, seeds)
    parts = [
        metadata(config, results),
        _head(config, results),
        _use(config, speechbrain),
        _results(config, results, seeds),
        _energy(energy or results, energy),
        _firing(energy or results),
        _data(config, results),
        _made(config, results),
        _limits(config, results, energy),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def metadata(config, results):
    """What the hub reads: YAML between two lines of dashes. Strings are quoted as in JSON, which YAML reads alike."""
    task, pipeline = TASKS[config["task"]]
    lines = [f"license: {json.dumps(config['licence'].lower())}", 'library_name: "spikebrain"']
    if pipeline:
        lines.append(f"pipeline_tag: {json.dumps(pipeline)}")
    if config["corpus"] in LANGUAGES and _complete(results):  # what else lies in a corpus's layout may be of another language
        lines.append(f"language: {json.dumps(LANGUAGES[config['corpus']])}")
    lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in TAGS)]
    # JSON is YAML: the whole list of results in one line needs no rule of indentation.
    found = [_index(pipeline or "speaker-verification", results, split, name) for split, name, _ in _metrics(results)]
    lines.append("model-index: " + json.dumps([{"name": config["model"], "results": found}], ensure_ascii=False))
    return "\n".join(["---", *lines, "---"])


def _index(task, results, split, name):
    whole = "" if _complete(results) else ", not the whole published corpus"
    dataset = {"name": f"{results['corpus']}, protocol {results['protocol']}{whole}", "type": results["corpus"].lower(), "split": split}
    metric = {"type": name.lower(), "name": METRICS.get(name, COSTS.get(name, name)), "value": results["metrics"][split][name]}
    return {"task": {"type": task}, "dataset": dataset, "metrics": [metric]}


def _complete(results):
    """Whether the data had the published counts."""
    return results["data"].get("complete", True)


def _metrics(results):
    """(split, metric, value) of every number that a run reports."""
    return [(split, name, value) for split, found in results["metrics"].items() for name, value in found.items()]


def _check_seeds(results, seeds):
    for other in seeds:
        own, theirs = _recipe(results), _recipe(other)
        for name, value in own.items():
            if theirs[name] != value:
                raise BundleError(f"seeds: one is of the {name} {theirs[name]}, the run of {value}: give runs of one recipe")
    numbers = [run["seed"] for run in (results, *seeds)]
    if len(set(numbers)) < len(numbers):
        raise BundleError(f"seeds: {numbers} are not all different: leave out the run itself")


def _recipe(results):
    """What runs of one recipe have in common; ``results`` are of a run or of one stage of it."""
    named = {name: results[name] for name in ("model", "corpus", "protocol")}
    metrics = {split: sorted(found) for split, found in results["metrics"].items()}
    return {**named, "stage": results.get("stage"), "splits and metrics": metrics}


def _head(config, results):
    task, _ = TASKS[config["task"]]
    rate = "events of a cochlea" if config["sample_rate"] is None else f"audio at {config['sample_rate'] / 1000:g} kHz, mono"
    of = config["corpus"] if _complete(results) else f"{results['protocol']}, in the layout of {config['corpus']}"
    lines = [f"# {config['model']} on {of}", ""]
    lines.append(f"A network for {task}, {config['parameters']:,} parameters, trained with SpikeBrain. It hears {rate}; ")
    lines[-1] += "recordings of other rates, and of several channels, are converted." if config["sample_rate"] else "give it frames."
    if config.get("labels"):
        lines += ["", f"{len(config['labels'])} labels: {_few(config['labels'])}."]
    lines += [line for name in _encoders(config) for line in ("", f"Encoder: `{name}`, after {registry.entry(name).paper}.")]
    return "\n".join(lines)


def _encoders(config):
    """Registered names among the arguments of the parts."""
    known = {entry.name for entry in registry.entries()}
    arguments = [part["arguments"] for part in config["network"].values()]
    return [given[key] for given in arguments for key in ("encoder", "encoder_module") if given.get(key) in known]


def _few(words, most=40):
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _use(config, speechbrain):
    if config["sample_rate"] is None:
        return ""
    python, command = USE[config["task"]]
    code = f'import spikebrain\n\nmodel = spikebrain.load("BUNDLE")\n{python}'
    shell = f"spikebrain {command}"
    lead = "`BUNDLE` is this folder, or its name on the hub, `owner/name`. Loading executes nothing that lies in the bundle."
    host = _use_of_host(config) if speechbrain else ""
    return f"## Use\n\n{lead}\n\n```python\n{code}\n```\n\n```shell\n{shell}\n```{host}"


def _use_of_host(config):
    name = interfaces.interface(config)
    code = f'{interfaces.imported(config)}\n\nmodel = {name}.from_hparams("BUNDLE")\nprint(model.{HOST_USE[name]}'
    lead = "SpeechBrain's own interface loads this folder too, where `spikebrain` is installed; it runs what a YAML file names: trust it."
    return f"\n\n{lead}\n\n```python\n{code}\n```"


def _results(config, results, seeds):
    runs = (results, *seeds)
    header = ["split", "measure", f"this model (seed {results['seed']})"]
    header += [f"{len(runs)} seeds, mean ± standard deviation"] if seeds else []
    header.append("utterances")
    rows = []
    for split, name, value in _metrics(results):
        row = [split, METRICS.get(name, COSTS.get(name, name)), _value(name, value)]
        if seeds:
            values = [run["metrics"][split][name] for run in runs]
            row.append(f"{_value(name, statistics.fmean(values))} ± {_value(name, statistics.stdev(values))}")
        rows.append([*row, _utterances(results, split)])
    lead = f"Protocol `{results['protocol']}`."
    lead += "" if seeds else " One training: how much another seed differs is not known from it."
    again = "" if config["sample_rate"] is None else f"\n\nMeasured again: `spikebrain evaluate BUNDLE /path/to/{results['corpus']}`."
    return f"## Results\n\n{lead}\n\n{_table(header, rows)}{again}"


def _value(name, value):
    return f"{value:.2f} %" if name in METRICS else f"{value:.3f}"


def _utterances(results, split):
    number = results["data"]["splits"].get(split, {}).get("utterances", "–")
    trials = results.get("trials", {}).get(split)
    return f"{number} ({trials} trials)" if trials else str(number)


def _energy(report, energy):
    """Energy by scope, with what it means; ``report`` is energy.json or results.json, ``energy`` the former or None."""
    scopes = report.get("energy") or {}
    rows = [[name, *energies(scopes[scope])] for scope, name in SCOPES.items() if scope in scopes]
    if not rows:
        return ""
    how = scopes["counting"]
    header = ["mJ an utterance", "spiking", "without spikes", "ratio", "spiking, integers", "quantised", "ratio", "beside products"]
    prices = how["prices"]
    lead = (
        f"Means of {how['utterances']} utterances of {how['encoder_frames']:.1f} encoder frames. A product with a spike costs additions "
        f"({prices['ac_pJ']:g} pJ), any other a multiply-accumulate ({prices['mac_pJ']:g} pJ; {prices['source']}). Beside it the same "
        "network without spikes, and one quantised to as many levels, with the spiking one at the same prices of integers. The last "
        "column holds neurons, norms and other operations that are no products, as far as they have a price."
    )
    said = verdicts(energy) if energy else ["The audit of products was not run: see `tools/energy.py`"]
    said = [f"- {sentence[0].upper()}{sentence[1:]}." for sentence in said]
    said.append(f"- Not counted: {'; '.join(how['not_counted'])}.")
    return f"## Energy\n\n{lead}\n\n{_table(header, rows)}\n\n" + "\n".join(said)


def _firing(report):
    rates = report.get("firing_rate") or {}
    if not rates:
        return ""
    means = {name: layer["mean"] for name, layer in rates.items()}
    least, most = min(means, key=means.get), max(means, key=means.get)
    never = [layer["below_0.001"] for layer in rates.values()]
    lines = [
        f"Spikes a frame, neuron and level, over {len(rates)} layers of neurons: {statistics.fmean(means.values()):.3f} on average, from "
        f"{means[least]:.3f} (`{least}`) to {means[most]:.3f} (`{most}`). {100 * statistics.fmean(never):.1f} % of the neurons fire in "
        "fewer than one of 1,000 frames."
    ]
    rows = [[f"`{name}`", f"{layer['mean']:.3f}", str(layer["levels"]), str(layer["channels"])] for name, layer in rates.items()]
    table = _table(["layer", "firing rate", "levels", "neurons"], rows)
    return f"## Firing rates\n\n{lines[0]}\n\n<details><summary>Layer by layer</summary>\n\n{table}\n\n</details>"


def _data(config, results):
    data = results["data"]
    rows = []
    for split, found in data["splits"].items():
        rows.append([split, str(found.get("utterances", "–")), f"{found.get('hours', 0):.2f}", str(found.get("speakers", "–"))])
    parts = [f"## Data\n\n{config['data']}", _table(["split", "utterances", "hours", "speakers"], rows)]
    if not _complete(results):
        differs = "\n".join(f"- {one}" for one in data.get("differences", ()))
        parts.append(f"This is not the whole published corpus, or other recordings in its layout:\n\n{differs}".rstrip(":\n"))
    return "\n\n".join(parts)


def _made(config, results):
    machine = results.get("hardware") or {}
    where = f"{machine['device']} ({machine['cpu']}, {machine['threads']} threads)" if machine else "–"
    rows = [["seed", str(results["seed"])], ["commit", f"`{config['commit']}`" if config.get("commit") else "–"], ["machine", where]]
    rows.append(["seconds, all in all", f"{results['seconds']:,.0f}" if "seconds" in results else "–"])
    rows.append(["versions", ", ".join(f"{name} {version}" for name, version in config["versions"].items())])
    command = f"```shell\n{config['command']}\n```" if config.get("command") else "The command is not known."
    return f"## How it was made\n\n{command}\n\n{_table(['', ''], rows)}"


def _limits(config, results, energy):
    said = ["Numbers hold for the data above; for other speakers, rooms, microphones and words they are not known."]
    if not _complete(results):
        said.append(f"They are not to be compared with published ones of {config['corpus']}, which are of all of it.")
    said += {
        "asr": ["It knows no words but by the pieces of its training text. What is longer than 40 s is cut where it is quietest."],
        "classify": ["It names one of its labels whatever it hears; only silence, without a class of its own, is named nothing."],
        "identify": ["It names one of its training speakers, whoever speaks."],
        "verify": [
            _threshold(config["decoding"]),
            "Nothing was done against replayed or synthetic speech: it proves no identity.",
        ],
    }[config["task"]]
    if energy is None or results.get("energy"):
        said.append("Energy is a count of operations times prices of a 45 nm process: no device was measured.")
    return "## Limits\n\n" + "\n".join(f"- {one}" for one in said) + f"\n\nLicence of the weights: {config['licence']}."


def _threshold(decoding):
    if decoding.get("threshold") is None:
        return "No threshold comes with it: choose one on trials of your own."
    trials = decoding.get("threshold_of") or "trials that are not named"
    return f"Its threshold, {decoding['threshold']:.4f}, gives equal error rates on {trials}, and other ones elsewhere."


def _table(header, rows):
    """A table in Markdown; what would end a cell is written as its entity."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "&#124;").replace("\n", " ") for cell in line) + " |" for line in lines)
