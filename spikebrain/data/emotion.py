"""What the preparers of emotion corpora share: labels, names of recordings, published counts, and audio of more than one rate.

None of these corpora has official splits: each has the one split ``all``, which :mod:`spikebrain.data.folds` cuts. Labels are the same
words in every corpus (angry, happy, neutral, sad, ...), so that a model of one can be tested on another.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import soundfile

from spikebrain.data import audio, preparation
from spikebrain.data.folds import SPLIT, Protocol
from spikebrain.data.manifest import CLASS_COLUMNS, DataError, Utterance
from spikebrain.data.preparation import Corpus, Published, Skipped
from spikebrain.spelling import did_you_mean

logger = logging.getLogger(__name__)

RATE = 16000  # Hz of what is trained on
AUDIO = (".wav", ".flac")
COLUMNS = {**CLASS_COLUMNS, "session": "session", "sentence": "sentence"}
OPTIONS = {"emotions": None}  # what a recipe's YAML may set
SHOWN = 3  # counts that one line gives

# Random folds of a corpus; five are what a first look takes.
RANDOM = Protocol("id", 5)


@dataclass(frozen=True)
class Names:
    """A corpus whose recordings say in their paths what they are.

    folders : what may lie in the data folder; one of them is enough
    pattern : regular expression of a recording's path without its ending, with the groups ``speaker`` and ``emotion``, and where there
        is one ``sentence``; ``id`` is the id, where it is not the whole path
    expected : the same for a reader
    """

    folders: tuple
    pattern: str
    expected: str

    def there(self, data_folder):
        """Whether ``data_folder`` has one of the folders."""
        return any(os.path.isdir(os.path.join(data_folder, name)) for name in self.folders)

    def files(self, data_folder):
        """Every file below the folders of ``data_folder``, known or not, as File."""
        folders = sorted(e.name for e in os.scandir(data_folder) if e.is_dir() and not e.name.startswith("."))
        return [file for name in folders for file in preparation.list_files(data_folder, name)]

    def find(self, data_folder, files):
        """(where it is told, Utterance that has the corpus's own word for its emotion as label) of each, and a list of Skipped."""
        named, bad = recordings(files)
        matches = {stem: re.fullmatch(self.pattern, stem) for stem in named}
        good = [(named[stem], self._utterance(named[stem], stem, match.groupdict())) for stem, match in matches.items() if match]
        return good, bad + [self._misnamed(stem, named[stem]) for stem, match in matches.items() if not match]

    def _utterance(self, path, stem, parts):
        name = parts.get("id") or stem.replace("/", "_")
        return Utterance(name, path, 0.0, parts["speaker"], label=parts["emotion"], sentence=parts.get("sentence") or "")

    def _misnamed(self, stem, path):
        return Skipped(stem.replace("/", "_"), path, f"is named {path!r}, expected {self.expected}: rename, move or remove it")


@dataclass(frozen=True)
class EmotionCorpus:
    """What a preparer knows of an emotion corpus.

    name, layout : as for every Corpus
    codes : the corpus's word for an emotion -> label; None for what is known and not used
    numbers : published numbers of utterances: (label,), or (session or speaker, label) -> number
    group : "session" or "speaker", of which ``groups`` names every one
    speakers, hours : of the released files
    source : with ``there``, ``files`` and ``find``, such as Names
    protocols : name -> Protocol
    rates : Hz of its recordings, as released and as others pass it on
    remark : what its papers and pages say of it that its files do not
    """

    name: str
    layout: str
    codes: Mapping
    numbers: Mapping
    group: str
    groups: tuple
    speakers: int
    hours: float
    source: object
    protocols: Mapping
    rates: tuple = (RATE,)
    remark: str = ""

    @property
    def labels(self):
        """All labels, sorted, a tuple of str."""
        return tuple(sorted({label for label in self.codes.values() if label}))

    def choose(self, emotions=None):
        """The labels of a task, sorted: those of ``emotions``, or all.

        Raises
        ------
        DataError
            ``emotions`` is no list of two or more labels of the corpus, each once.
        """
        if emotions is None:
            return self.labels
        if not isinstance(emotions, list | tuple) or len(emotions) < 2:
            raise DataError(f"emotions: {emotions!r} is no choice of 2 or more: write for example {list(self.labels[:2])}")
        for label in emotions:
            if label not in self.labels or list(emotions).count(label) > 1:
                hint = did_you_mean(label, set(self.labels) - {label})
                raise DataError(f"emotions: {label!r} of {list(emotions)} is not one of {', '.join(self.labels)}, each once{hint}")
        return tuple(sorted(emotions))

    def corpus(self, emotions=None):
        """The Corpus of all emotions, or of a list of labels; what is published of the whole corpus is not compared with a part."""
        chosen = self.choose(emotions)
        whole = chosen == self.labels
        total = sum(number for key, number in self.numbers.items() if key[-1] in chosen)
        return Corpus(
            name=self.name,
            published={SPLIT: Published(total, self.hours if whole else None, self.speakers if whole else None)},
            layout=self.layout,
            sample_rate=RATE,
            find=lambda data_folder, split, files: self._find(data_folder, files, chosen),
            columns=COLUMNS,
            there=lambda data_folder: [SPLIT] if self.source.there(data_folder) else [],
            files=lambda data_folder, split: self.source.files(data_folder),
            probe=lambda data_folder, utterance, whole: probe(os.path.join(data_folder, utterance.wav), self.rates, whole),
            settings={"classes": list(chosen), "folds": {name: asdict(protocol) for name, protocol in self.protocols.items()}},
            compare=lambda data_folder, utterances: self._remarked(list(self._compare(utterances[SPLIT], chosen))),
        )

    def _find(self, data_folder, files, chosen):
        found, bad = self.source.find(data_folder, files)
        bad = [*bad, *(self._unknown(where, utterance) for where, utterance in found if utterance.label not in self.codes)]
        labelled = [replace(u, label=self.codes[u.label]) for _, u in found if u.label in self.codes]
        good = sorted((u for u in labelled if u.label in chosen), key=lambda u: u.id)
        if len(good) < len(labelled):
            others = len(labelled) - len(good)
            logger.info("%s: left out %d of %d utterances, which are none of %s", self.name, others, len(labelled), ", ".join(chosen))
        return good, bad

    def _unknown(self, where, utterance):
        what = f"has the emotion {utterance.label!r}, which is none of the {len(self.codes)} of {self.name}: {', '.join(self.codes)}"
        return Skipped(utterance.id, where, f"{what}{did_you_mean(utterance.label, self.codes)}: mend or remove it")

    def _remarked(self, differences):
        """``differences``, with the remark in the first of them; it is logged where there are none."""
        if not self.remark:
            return differences
        if not differences:
            logger.info("%s is as published; %s", self.name, self.remark)
        return [f"{line} ({self.remark})" if not place else line for place, line in enumerate(differences)]

    def _compare(self, utterances, chosen):
        """What is not as published, line by line."""
        published = self.corpus(chosen).published[SPLIT]
        yield from filter(None, [preparation.difference(SPLIT, preparation.count(utterances), published)])
        if published.speakers is not None:
            yield from self._compare_groups({getattr(utterance, self.group) for utterance in utterances})
        yield from self._compare_numbers(utterances, chosen)

    def _compare_groups(self, there):
        missing, strange = [name for name in self.groups if name not in there], sorted(there - set(self.groups))
        if missing:
            yield f"{SPLIT} has no utterance of {len(missing)} of {len(self.groups)} {self.group}s: {', '.join(missing)}"
        if strange:
            yield f"{SPLIT} has {self.group}s that {self.name} does not have: {', '.join(strange)}"

    def _compare_numbers(self, utterances, chosen):
        counted = Counter(key for u in utterances for key in ((u.label,), (getattr(u, self.group), u.label)))
        wanted = {key: number for key, number in self.numbers.items() if key[-1] in chosen}
        wrong = [f"{self._told(key)} {counted[key]} (published: {number})" for key, number in wanted.items() if counted[key] != number]
        if wrong:
            more = f", {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
            yield f"{SPLIT} differs in {len(wrong)} of {len(wanted)} counts: {', '.join(wrong[:SHOWN])}{more}"

    def _told(self, key):
        return " ".join(key if len(key) == 1 else (self.group, *key))


def recordings(files):
    """Path without its ending -> path of the recordings among ``files``, and a list of Skipped: those that are there twice."""
    named, bad = {}, []
    for file in files:
        stem, ending = os.path.splitext(file.path)
        if ending.lower() not in AUDIO:
            continue
        if stem in named:
            bad.append(Skipped(stem.replace("/", "_"), file.path, f"is there as {named[stem]} too: remove one of the 2 files"))
        named.setdefault(stem, file.path)
    return named, bad


def probe(path, rates, decode):
    """Looks at a recording of one of several rates, of one or more channels: (seconds, None or what is wrong with it).

    Whatever reads it resamples it and averages its channels (:class:`spikebrain.data.feature_cache.FeatureCache` does).
    """
    rate = _rate(path, rates)
    if rate not in rates:
        known = " or ".join(map(str, rates))
        return 0.0, f"has a sample rate of {rate} Hz, expected {known} Hz: restore the file, or resample it to {RATE} Hz"
    samples, problem = audio.probe(path, rate, decode, mono=False)
    return (0.0 if problem else samples / rate), problem


def _rate(path, rates):
    try:
        return soundfile.info(path).samplerate
    except (soundfile.LibsndfileError, RuntimeError):
        return rates[0]  # audio.probe says what is wrong with it
