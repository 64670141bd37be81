"""Lists of trials for speaker verification: which two utterances are compared, and whether one person speaks both.

A list is text as VoxCeleb publishes it (``veri_test.txt``, Nagrani et al., "VoxCeleb: a large-scale speaker identification dataset",
Interspeech 2017), one trial a line::

    1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav
    0 id10270/x6uYqmx31kE/00001.wav id10300/ize_eiCFEg0/00003.wav

1 says that the speaker is the same; a path is ``<speaker>/<video>/<utterance>.wav`` below the folder of recordings.
"""

import os
import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from spikebrain.data.manifest import DataError, write_atomic

PARTNERS = 4  # trials of one speaker that an utterance begins in a list made here, and as many of two
FORM = "<1|0> <speaker>/<video>/<utterance>.wav <speaker>/<video>/<utterance>.wav"


@dataclass(frozen=True, slots=True)
class Trial:
    """One comparison.

    same : whether one speaker says both
    enrol, test : the two utterances, paths as the list writes them
    """

    same: bool
    enrol: str
    test: str


def utterance_id(path):
    """The id that a manifest gives the recording at ``path``: ``id10270/x6uYqmx31kE/00001.wav`` -> ``id10270-x6uYqmx31kE-00001``."""
    return path.removesuffix(".wav").replace("/", "-")


def speaker_of(path):
    """The speaker of a path as lists write it: ``id10270/x6uYqmx31kE/00001.wav`` -> ``id10270``."""
    return path.partition("/")[0]


def path_problem(path):
    """What is wrong with a path of a list, or None: it must be ``<speaker>/<video>/<utterance>.wav``, below the folder of recordings."""
    parts = path.split("/")
    if path.startswith(("/", "~")) or ":" in parts[0] or ".." in parts or "\\" in path:
        return f"names {path!r}, which leads out of the folder of recordings: write <speaker>/<video>/<utterance>.wav"
    if len(parts) != 3 or not all(parts) or not path.endswith(".wav"):
        return f"names {path!r}, expected <speaker>/<video>/<utterance>.wav: mend the line"
    return None


def read(path):
    """The trials of a list, in its order.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    list of Trial

    Raises
    ------
    DataError
        There is no such file; a line is no trial (the first one is told, and how many there are); no trial at all; trials of one
        kind only, which leave the equal error rate undefined.
    """
    lines = read_lines(path)
    trials, bad = [], []
    for number, line in lines:
        trial, problem = _parse(line)
        bad += [(number, problem)] if problem else []
        trials += [] if problem else [trial]
    refuse_lines(path, bad)
    check(trials, os.fspath(path))
    return trials


def read_lines(path):
    """(line number, text) of the lines of a list that are not empty; a DataError where there is no such file."""
    if not os.path.isfile(path):
        raise DataError(f"{path}: there is no such file: restore it")
    with open(path, "rb") as file:
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def refuse_lines(path, bad):
    """Raises a DataError for the lines ``bad`` of a list, (number, problem) each: the first one, and how many there are."""
    if bad:
        number, problem = bad[0]
        more = f" ({len(bad)} such lines)" if len(bad) > 1 else ""
        raise DataError(f"{path}:{number}: {problem}{more}")


def _parse(line):
    words = line.split()
    if len(words) != 3:
        return None, f"has {len(words)} words, expected 3, {FORM}: mend the line"
    label, enrol, test = words
    if label not in ("0", "1"):
        return None, f"begins with {label!r}, expected 1 (same speaker) or 0 (two speakers): mend the line"
    problem = path_problem(enrol) or path_problem(test) or _contradiction(label == "1", enrol, test)
    return (None, problem) if problem else (Trial(label == "1", enrol, test), None)


def _contradiction(same, enrol, test):
    if same == (speaker_of(enrol) == speaker_of(test)):
        return None
    said = "1 (same speaker)" if same else "0 (two speakers)"
    return f"says {said} of {speaker_of(enrol)} and {speaker_of(test)}: mend the label or the paths"


def check(trials, name):
    """Refuses trials on which no equal error rate is defined.

    Arguments
    ---------
    trials : list of Trial
    name : str
        Their list, for the message.

    Raises
    ------
    DataError
        No trial, or none of the same speaker, or none of two speakers.
    """
    if not trials:
        raise DataError(f"{name}: holds 0 trials: write lines such as {FORM}")
    same = sum(trial.same for trial in trials)
    if same in (0, len(trials)):
        raise DataError(
            f"{name}: {same} of {len(trials)} trials are of the same speaker, {len(trials) - same} of two: the equal error rate needs "
            f"both, add trials that begin with {'1' if same == 0 else '0'}"
        )


def utterances(trials):
    """The paths that ``trials`` name, each once, in order of appearance."""
    return list(dict.fromkeys(path for trial in trials for path in (trial.enrol, trial.test)))


def numbers(trials):
    """Path -> how many of ``trials`` name it, a Counter."""
    return Counter(path for trial in trials for path in {trial.enrol, trial.test})


def usable(trials, ids, name, skip_bad_audio=False):
    """The trials both of whose utterances are at hand.

    Arguments
    ---------
    trials : list of Trial
    ids : collection of str
        Of the utterances that are there, as :func:`utterance_id` makes them.
    name : str
        The list of the trials, for messages.
    skip_bad_audio : bool
        Leave the other trials out instead of stopping.

    Returns
    -------
    (kept, left_out)
        Two lists of Trial.

    Raises
    ------
    DataError
        Trials name absent utterances and may not be left out (how many trials, how many utterances, the first); or those that are
        kept are of one kind.
    """
    ids = set(ids)
    absent = {path for path in utterances(trials) if utterance_id(path) not in ids}
    kept = [trial for trial in trials if not {trial.enrol, trial.test} & absent]
    left_out = [trial for trial in trials if {trial.enrol, trial.test} & absent]
    if left_out and not skip_bad_audio:
        first = next(path for path in (left_out[0].enrol, left_out[0].test) if path in absent)
        raise DataError(
            f"{name}: {len(left_out)} of {len(trials)} trials name {len(absent)} absent utterances, the first is {first}: "
            f"restore them and prepare again, or pass --skip_bad_audio=True to leave those trials out"
        )
    check(kept, f"{name}, without {len(left_out)} trials of {len(absent)} absent utterances" if left_out else name)
    return kept, left_out


def write(path, trials):
    """Writes a list that :func:`read` reads, whole or not at all.

    Raises
    ------
    DataError
        What :func:`read` would refuse, or the file cannot be written.
    """
    trials = list(trials)
    lines = [f"{int(trial.same)} {trial.enrol} {trial.test}" for trial in trials]
    refuse_lines(path, [(number, problem) for number, line in enumerate(lines, 1) if (problem := _parse(line)[1])])
    check(trials, os.fspath(path))
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def balanced(paths, female=(), seed=1234):
    """Trials of a set of utterances, drawn: as many of the same speaker as of two, in turn.

    Ours; so is no published list made. Each utterance in turn is compared with PARTNERS others of its speaker, from other videos where
    there are any, and with as many of other speakers, half of them of its own sex; a pair comes once.

    Arguments
    ---------
    paths : sequence of str
        ``<speaker>/<video>/<utterance>.wav``.
    female : collection of str
        Those of the speakers who are.
    seed : int

    Returns
    -------
    list of Trial
        Empty where there is no pair of one of the two kinds.
    """
    rng, found = np.random.default_rng([seed, zlib.crc32(b"trials")]), {True: {}, False: {}}
    for path in paths:
        for trial in _beginning(path, paths, female, rng):
            found[trial.same].setdefault(frozenset((trial.enrol, trial.test)), trial)
    kinds = [list(those.values()) for those in found.values()]
    fewest = min(map(len, kinds))
    return [trial for pair in zip(*(_some(those, fewest, rng) for those in kinds)) for trial in pair]


def _beginning(path, paths, female, rng):
    """The trials that ``path`` begins."""
    speaker = speaker_of(path)
    own = [other for other in paths if speaker_of(other) == speaker and other != path]
    own = [other for other in own if os.path.dirname(other) != os.path.dirname(path)] or own
    others = [other for other in paths if speaker_of(other) != speaker]
    alike = [other for other in others if (speaker_of(other) in female) == (speaker in female)] or others
    strangers = _some(alike, PARTNERS // 2, rng) + _some(others, PARTNERS - PARTNERS // 2, rng)
    return [Trial(True, path, other) for other in _some(own, PARTNERS, rng)] + [Trial(False, path, other) for other in strangers]


def _some(those, number, rng):
    return [those[i] for i in rng.permutation(len(those))[:number]]
