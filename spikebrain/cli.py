"""The ``spikebrain`` command.

    spikebrain say "three one four" three.wav
    spikebrain transcribe BUNDLE speech.flac
    spikebrain classify BUNDLE stream.wav --window 1.0 --hop 0.5
    spikebrain verify BUNDLE enrol.wav test.wav
    arecord -d 3 -f S16_LE -r 16000 | spikebrain transcribe BUNDLE -
    arecord -t raw -f S16_LE -r 16000 | spikebrain classify BUNDLE - --live --window 1.0 --hop 0.25
    spikebrain evaluate BUNDLE /path/to/corpus
    spikebrain push BUNDLE owner/name --dry-run

Results go to the standard output, a line each; whatever cannot be used is one line on the standard error and exit status 1, and does not
keep other recordings from being heard.
"""

import argparse
import json
import os
import sys
from itertools import islice

from spikebrain import __version__, doctor

BLOCK_S = 0.05  # of a stream, that are read at once
SAID_HZ = 16000
GROUP = 64  # recordings that are heard, and whose results are printed, at once


def main(arguments=None):
    """Runs ``spikebrain COMMAND ...``; what follows the command's name is the command's own. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="spikebrain", description="Spiking speech processing for SpeechBrain")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="options of the command: spikebrain COMMAND --help")
    options = parser.parse_args(arguments)
    try:
        return COMMANDS[options.command](options.rest)
    except KeyboardInterrupt:
        return 130  # as shells say it; a stream that does not end is left so
    except BrokenPipeError:  # whoever read the output has enough; what Python still holds back goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def transcribe(arguments):
    """``spikebrain transcribe BUNDLE FILE...``: what is said in each recording. Returns the exit status."""
    options = _parser("transcribe", "What is said in recordings").parse_args(arguments)
    return _answered("transcribe", options, _texts)


def classify(arguments):
    """``spikebrain classify BUNDLE FILE...``: the class or the speaker of each, or of windows that slide. Returns the exit status."""
    parser = _parser("classify", "The class of recordings, or their speaker")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="name stretches of so many seconds, with their times")
    parser.add_argument("--hop", type=float, metavar="SECONDS", help="from one window to the next; by default half a window")
    parser.add_argument("--live", action="store_true", help="the standard input is samples of 16 bits that need not end: name windows now")
    options = parser.parse_args(arguments)
    if options.live and (options.files != ["-"] or not options.window):
        parser.error("--live: names windows of the standard input alone: spikebrain classify BUNDLE - --live --window 1.0")
    return _answered("classify", options, _live if options.live else _classes)


def evaluate(arguments):
    """``spikebrain evaluate BUNDLE CORPUS``: the bundle's numbers, measured again. Returns the exit status."""
    from spikebrain.data.manifest import DataError
    from spikebrain.publishing import BundleError
    from spikebrain.publishing import evaluate as evaluation

    parser = argparse.ArgumentParser(prog="spikebrain evaluate", description="A bundle's numbers, measured again on the corpus they are of")
    parser.add_argument("bundle", metavar="BUNDLE", help="a folder that tools/publish.py made, or owner/name on the hub")
    parser.add_argument("corpus", metavar="CORPUS", help="the corpus's folder, as its recipe takes it for data_folder")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="these of the splits that the bundle reports; by default all")
    options = parser.parse_args(arguments)
    try:
        print("\n".join(map(str, evaluation.evaluate(options.bundle, options.corpus, options.splits))))
    except (BundleError, DataError) as error:
        print(f"spikebrain evaluate: {error}", file=sys.stderr)
        return 1
    return 0


def push(arguments):
    """``spikebrain push BUNDLE owner/name``: sends a bundle to the Hugging Face hub. Returns the exit status."""
    from spikebrain.publishing import BundleError, hub

    parser = argparse.ArgumentParser(prog="spikebrain push", description="A bundle goes to the Hugging Face hub")
    parser.add_argument("bundle", metavar="BUNDLE", help="a folder that tools/publish.py made")
    parser.add_argument("repo", metavar="OWNER/NAME", help="of the repository, which is made where there is none")
    parser.add_argument("--dry-run", action="store_true", help="say exactly what would go up, and send nothing")
    parser.add_argument("--public", action="store_true", help="of a repository that is made; by default it is private")
    options = parser.parse_args(arguments)
    try:
        print(hub.plan(options.bundle, options.repo))
        print("nothing was sent" if options.dry_run else hub.push(options.bundle, options.repo, private=not options.public))
    except BundleError as error:
        print(f"spikebrain push: {error}", file=sys.stderr)
        return 1
    return 0


def verify(arguments):
    """``spikebrain verify BUNDLE ENROL FILE...``: whether each recording is of the first one's speaker. Returns the exit status."""
    parser = _parser("verify", "Whether recordings are of the speaker of the first one")
    parser.add_argument("--threshold", type=float, help="the score above which they are; by default the bundle's, where it has one")
    options = parser.parse_args(arguments)
    if len(options.files) < 2:
        parser.error("name two recordings or more: the speaker's, and those that are compared with it")
    return _answered("verify", options, _scores)


def say(arguments):
    """``spikebrain say TEXT FILE``: speech made here, for a first try without a microphone. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="spikebrain say", description="Speech by eSpeak NG, for a first try without a microphone")
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("file", metavar="FILE", help="a WAV file of 16 kHz, which is not there yet")
    parser.add_argument("--voice", default="en-us", help="a language of eSpeak NG, with a variant behind a plus: en-us+f2")
    parser.add_argument("--rate", type=int, default=140, help="words a minute")
    options = parser.parse_args(arguments)
    try:
        if not any(letter.isalnum() for letter in options.text):
            raise ValueError(f"{options.text!r} holds nothing that can be said: give words or numbers")
        if os.path.exists(options.file):
            raise ValueError(f"{options.file}: is there: name another file, or remove it")
        with open(options.file, "xb") as file:
            try:
                _speak(options, file)
            except BaseException:
                os.unlink(options.file)  # which was not there before
                raise
    except (ValueError, ImportError, OSError) as error:
        print(f"spikebrain say: {error}", file=sys.stderr)
        return 1
    return 0


def _speak(options, file):
    import soundfile

    from spikebrain.data.synthetic.speech import Voice, speak_at

    soundfile.write(file, speak_at(options.text, SAID_HZ, Voice(options.voice, options.rate)), SAID_HZ, format="WAV", subtype="PCM_16")


COMMANDS = {
    "classify": classify,
    "doctor": doctor.main,
    "evaluate": evaluate,
    "push": push,
    "say": say,
    "transcribe": transcribe,
    "verify": verify,
}


def _parser(name, description):
    parser = argparse.ArgumentParser(prog=f"spikebrain {name}", description=description)
    parser.add_argument("bundle", metavar="BUNDLE", help="a folder that tools/publish.py made, or owner/name on the hub")
    parser.add_argument("files", metavar="FILE", nargs="+", help="WAV, FLAC, or what else soundfile reads; - is the standard input")
    parser.add_argument("--json", action="store_true", help="an object of JSON a line")
    return parser


def _answered(name, options, answers):
    """Prints what ``answers(model, options, recordings)`` yields: (file, [(what JSON says, what text says), ...] or an error)."""
    from spikebrain.publishing.load import BundleError, load

    status = 0
    try:
        if options.files.count("-") > 1:
            raise BundleError("-: the standard input is one recording, name it once")
        recordings = [sys.stdin.buffer if file == "-" else file for file in options.files]
        for file, found in answers(load(options.bundle), options, recordings):
            if isinstance(found, BundleError):
                print(f"spikebrain {name}: {found}", file=sys.stderr)
                status = 1
                continue
            for data, words in found:
                print(_line(file, data, words, options), flush=True)
    except BundleError as error:
        print(f"spikebrain {name}: {error}", file=sys.stderr)
        return 1
    return status


def _line(file, data, words, options):
    if options.json:
        return json.dumps({"file": file, **data}, ensure_ascii=False)
    return "\t".join([file, *words] if len(options.files) > 1 else words)


def _texts(model, options, recordings):
    from spikebrain.publishing import use

    for file, text in _grouped(options.files, recordings, lambda those: use.transcribe(model, those, errors="return")):
        yield file, text if isinstance(text, Exception) else [({"text": text}, [text])]


def _classes(model, options, recordings):
    from spikebrain.publishing import use

    def named(those):
        """What a group of recordings is named."""
        return use.classify(model, those, options.window, options.hop, errors="return")

    for file, found in _grouped(options.files, recordings, named):
        if not isinstance(found, Exception):
            found = [_named(one, options.window) for one in (found if options.window else [found])]
        yield file, found


def _live(model, options, recordings):
    """Windows of samples of 16 bits, little-endian, mono, at the model's rate, while they come in."""
    from spikebrain.publishing import use

    blocks = _samples(recordings[0], round(BLOCK_S * (model.sample_rate or 1)))
    for one in use.listen(model, blocks, options.window, options.hop):
        yield "-", [_named(one, options.window)]


def _samples(stream, size):
    """Tensors (S,) of a binary stream, of up to ``size`` samples; half a sample at its end is left out."""
    import numpy as np
    import torch

    while data := stream.read(2 * size):
        yield torch.from_numpy(np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / 2**15)


def _named(one, window):
    data, label = {"label": one.label, "score": one.score}, "(silence)" if one.label is None else one.label
    if not window:
        return data, [label, f"{one.score:.3f}"]
    times = {"start": one.start_s, "end": one.end_s}
    return {**times, **data}, [f"{one.start_s:.2f}", f"{one.end_s:.2f}", label, f"{one.score:.3f}"]


def _scores(model, options, recordings):
    from spikebrain.publishing import use

    enrol, files = use.embed(model, recordings[0]), options.files[1:]
    for file, test in _grouped(files, recordings[1:], lambda those: use.embed(model, those, errors="return")):
        if not isinstance(test, Exception):
            found = use.compare(model, enrol, test, options.threshold)
            verdict = {None: [], True: ["same speaker"], False: ["another speaker"]}[found.same]
            test = [({"enrol": options.files[0], "score": found.score, "same": found.same}, [f"{found.score:.4f}", *verdict])]
        yield file, test


def _grouped(files, recordings, answer):
    """(file, answer) of each recording; ``answer`` is asked for groups of them."""
    waiting = iter(zip(files, recordings, strict=True))
    while group := list(islice(waiting, GROUP)):
        yield from zip((file for file, _ in group), answer([recording for _, recording in group]), strict=True)


if __name__ == "__main__":
    sys.exit(main())
