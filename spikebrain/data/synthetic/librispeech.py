"""A synthetic twin of LibriSpeech: spoken commands in LibriSpeech's on-disk layout, made here in seconds.

``<split>/<speaker>/<chapter>/<utterance>.flac`` (16 kHz, 16 bit, mono), ``.trans.txt``
and ``SPEAKERS.TXT`` are as in the corpus, so that its preparer runs on it unchanged.

Sentences come from a small grammar of 3 to 7 words and voices from eSpeak NG's
variants. Dev and test sentences, and dev and test voices, do not occur in training; the
"other" splits are faster and noisier. The same seed gives the same bytes.
"""

from collections import defaultdict
from importlib.metadata import version

from spikebrain.data.synthetic import reading
from spikebrain.data.synthetic.folder import choose_utterances, make_folder
from spikebrain.data.synthetic.reading import RATE, Script, Split

VERSION = 1
CHAPTER = 50  # utterances in a chapter's folder

UTTERANCES = {"train-clean-100": 1500, "dev-clean": 100, "dev-other": 60, "test-clean": 150, "test-other": 100}

_ROOM = "KITCHEN BEDROOM GARDEN OFFICE".split()
_DEVICE = "LIGHT HEATER RADIO FAN".split()
_CITY = "LONDON PARIS BERLIN".split()
_DAY = "TODAY TOMORROW MONDAY FRIDAY".split()
_DIGIT = "ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE".split()

# One slot a column: each sentence takes one of its choices. No two words sound alike (no FOR beside FOUR).
GRAMMAR = (
    (["TURN"], ["ON", "OFF"], ["THE"], _ROOM, _DEVICE, ["", "NOW", *_DAY]),
    (["STOP THE"], [*_DEVICE, "MUSIC", "TIMER"], ["", *(f"IN THE {room}" for room in _ROOM)], ["", "NOW", *_DAY]),
    (["WAKE ME"], ["", *_DAY], ["AT"], _DIGIT),
    (["WILL IT"], ["RAIN", "SNOW", "BE COLD", "BE WARM"], ["IN"], _CITY, ["", *_DAY]),
    (["THE NUMBER IS"], _DIGIT, _DIGIT, ["", *_DIGIT]),
    (["PLAY SOME"], ["MUSIC", "JAZZ"], ["IN THE"], _ROOM, ["", "NOW", *_DAY]),
    (["CALL MY"], ["MOTHER", "DOCTOR"], ["", *(f"AT {digit}" for digit in _DIGIT)], _DAY),
    (["HOW"], ["COLD", "WARM"], ["IS IT IN"], _CITY, ["", *_DAY]),
)

# Variants of eSpeak NG; those of training are reading.TRAIN.
_TEST_CLEAN = "m3 f2 Michael linda robert aunty m8 belinda adam Alex".split()
_TEST_OTHER = "klatt4 grandma Diogo pablo f5 Lee Storm grandpa".split()
_DEV_CLEAN = "m6 f3 david Annie max quincy".split()
_DEV_OTHER = "klatt5 shelby john boris".split()

_EASY, _HARD = dict(rate=(125, 180), snr=(20, 40)), dict(rate=(165, 210), snr=(10, 18))
SPLITS = {
    "train-clean-100": Split(1000, reading.TRAIN, (120, 205), (10, 40), (0.0, 0.7)),
    "train-clean-360": Split(2000, reading.TRAIN, (120, 205), (10, 40), (0.0, 0.7)),
    "train-other-500": Split(3000, reading.TRAIN, (120, 220), (8, 25), (0.0, 0.7)),
    "dev-clean": Split(4000, tuple(_DEV_CLEAN), share=(0.7, 0.8), **_EASY),
    "dev-other": Split(5000, tuple(_DEV_OTHER), share=(0.7, 0.8), **_HARD),
    "test-clean": Split(6000, tuple(_TEST_CLEAN), share=(0.8, 1.0), **_EASY),
    "test-other": Split(7000, tuple(_TEST_OTHER), share=(0.8, 1.0), **_HARD),
}


def _name(split, speaker, turn):
    return f"{speaker}-{speaker}{turn // CHAPTER}-{turn % CHAPTER:04d}"


SCRIPT = Script(GRAMMAR, ("en-us", "en"), SPLITS, _name)


def make(out, seed=1234, utterances=None):
    """Writes the twin into the folder ``out``: see :mod:`spikebrain.data.synthetic`. ``utterances``: split -> number of utterances."""
    utterances = choose_utterances(utterances, UTTERANCES, "LibriSpeech", splits=SPLITS)
    settings = {"corpus": "librispeech", "version": VERSION, "seed": seed, "utterances": utterances, "espeak": version("espeakng-loader")}
    return make_folder(out, settings, lambda folder: _fill(folder, seed, utterances))


def _fill(folder, seed, utterances):
    minutes = defaultdict(float)
    for split, number in utterances.items():
        said = SCRIPT.lines(seed, split, number)
        lengths = reading.write_all(said, lambda line, split=split: _place(folder / split, line) / f"{line.id}.flac")
        for line, samples in zip(said, lengths, strict=True):
            minutes[split, reading.variant(line), line.id.split("-")[0]] += samples / RATE / 60
        _write_transcripts(folder / split, said)
    (folder / "SPEAKERS.TXT").write_text(_speakers_table(minutes), encoding="utf-8")


def _place(folder, line):
    speaker, chapter, _ = line.id.split("-")
    return folder / speaker / chapter


def _write_transcripts(folder, said):
    chapters = defaultdict(list)
    for line in said:
        chapters[_place(folder, line)].append(f"{line.id} {line.text}\n")
    for place, texts in chapters.items():
        (place / f"{place.parent.name}-{place.name}.trans.txt").write_text("".join(texts), encoding="utf-8")


def _speakers_table(minutes):
    head = f";ID  |SEX| {'SUBSET':<16} |MINUTES| NAME\n"
    rows = [
        f"{speaker} | {reading.sex(variant)} | {split:<16} | {spoken:5.2f} | eSpeak NG {variant}\n"
        for (split, variant, speaker), spoken in sorted(minutes.items(), key=lambda item: item[0][2])
    ]
    return head + "".join(rows)
