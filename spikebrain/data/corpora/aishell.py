"""AISHELL-1: Mandarin read by 400 speakers, 16 kHz.

H. Bu, J. Du, X. Na, B. Wu, H. Zheng, "AISHELL-1: An Open-Source Mandarin Speech Corpus and A Speech Recognition Baseline",
O-COCOSDA 2017. The release has a transcript of 141,600 utterances and 325 recordings more: those are in no published count, and
are left out here with a line in the log. Hours are not compared: the paper's are rounded (150, 10, 5).

A text is the characters of its transcript without the spaces between words.
"""

import logging
import os
import re
import shutil
import tarfile
import zlib
from collections import defaultdict

from spikebrain.data import preparation
from spikebrain.data.manifest import DataError, Utterance
from spikebrain.data.preparation import Corpus, File, Options, Published, Skipped

logger = logging.getLogger(__name__)

NAME = "AISHELL-1"
WAV = "wav"
TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"
AUDIO, ARCHIVE = ".wav", ".tar.gz"
OPTIONS = {"unpack": False}  # what a recipe's YAML may set

LAYOUT = f"""\
  {WAV}/train/S0002/BAC009S0002W0122.wav
  {WAV}/dev/S0724/... {WAV}/test/S0764/...
  {TRANSCRIPT}    lines such as: BAC009S0002W0122 而 对 楼市 成交 抑制"""

PUBLISHED = {
    "train": Published(120098, None, 340),
    "dev": Published(14326, None, 40),
    "test": Published(7176, None, 20),
}

_ID = re.compile(r"BAC\d+(?P<speaker>S\d{4})W\d+")
_SPEAKER = re.compile(r"S\d{4}")


def read(data_folder, split):
    """The utterances of one split, sorted by id: see :func:`spikebrain.data.preparation.read`."""
    check_folder(data_folder)
    return preparation.read(CORPUS, data_folder, split)


def prepare(data_folder, save_folder, splits=None, *, unpack=False, **options):
    """Writes ``<save_folder>/<split>.csv`` and returns a Preparation: see :func:`spikebrain.data.preparation.prepare`.

    Arguments
    ---------
    data_folder, save_folder : str
    splits : list of str or None
    unpack : bool
        Unpacks the speakers' archives ``wav/S????.tar.gz`` that are not unpacked yet, beside them: see :func:`unpack_archives`.
    **options
        ``skip_bad_audio``, ``strict_counts`` and ``decode``, as for every corpus.

    Raises
    ------
    DataError
        As :func:`spikebrain.data.preparation.prepare`; archives that are not unpacked; no transcript.
    """
    if unpack and data_folder:
        unpack_archives(data_folder)
    check_folder(data_folder)
    return preparation.prepare(CORPUS, data_folder, save_folder, splits, Options(**options))


def check_folder(data_folder):
    """Refuses a folder beside the right one, archives that are not unpacked, and a folder without its transcript; each as a DataError."""
    if not data_folder or not os.path.isdir(data_folder):
        return  # preparation says so
    if not os.path.isdir(os.path.join(data_folder, WAV)):
        if near := _nearby(os.path.abspath(data_folder)):
            raise DataError(f"data_folder: {data_folder} holds no folder {WAV}. Did you mean {near}?")
        return
    archives, packed = _archives(data_folder)
    if packed:
        # Which split an archive is of stands inside of it only.
        unpacked = sum(len(_speakers(data_folder, split)) for split in there(data_folder))
        raise DataError(
            f"{os.path.join(data_folder, WAV)}: holds {len(archives)} archives S????{ARCHIVE} and {unpacked} unpacked speakers; "
            f"{len(packed)} archives are not unpacked, the first is {packed[0]}{ARCHIVE}: set --unpack=True, or unpack them with: "
            f"cd '{os.path.join(data_folder, WAV)}' && for archive in S*{ARCHIVE}; do tar -xzf \"$archive\" || break; done"
        )
    if there(data_folder) and not os.path.isfile(os.path.join(data_folder, TRANSCRIPT)):
        raise DataError(f"{os.path.join(data_folder, TRANSCRIPT)}: there is no such file: restore it, it transcribes all splits")


def _nearby(data_folder):
    below = [os.path.join(data_folder, name) for name in sorted(os.listdir(data_folder))]
    # Above a folder only where that is wav, or a split's folder in it.
    ends = [f"/{WAV}", *(f"/{WAV}/{split}" for split in PUBLISHED)]
    above = [data_folder.removesuffix(end) for end in ends if data_folder.endswith(end)]
    return next(filter(_holds_speakers, below + above), None)


def _holds_speakers(place):
    return os.path.isdir(os.path.join(place, WAV)) and bool(there(place) or _archives(place)[0])


def _archives(data_folder):
    """(speakers that have an archive, those of them that have no folder), sorted."""
    names = [name.removesuffix(ARCHIVE) for name in os.listdir(os.path.join(data_folder, WAV)) if name.endswith(ARCHIVE)]
    archives = sorted(name for name in names if _SPEAKER.fullmatch(name))
    unpacked = {speaker for split in there(data_folder) for speaker in _speakers(data_folder, split)}
    return archives, [name for name in archives if name not in unpacked]


def _speakers(data_folder, split):
    place = os.path.join(data_folder, WAV, split)
    return sorted(name for name in os.listdir(place) if _SPEAKER.fullmatch(name) and os.path.isdir(os.path.join(place, name)))


def unpack_archives(data_folder):
    """Unpacks every ``wav/S????.tar.gz`` whose speaker has no folder; archives stay, and a speaker's folder is whole or absent.

    Raises
    ------
    DataError
        An archive that is damaged, or holds anything but ``<split>/<speaker>/<name>.wav`` of its own speaker; a folder that cannot be
        written.
    """
    wav = os.path.join(data_folder, WAV)
    packed = _archives(data_folder)[1] if os.path.isdir(wav) else []
    if packed:
        logger.info("unpacking %d archives into %s", len(packed), wav)
    for speaker in packed:
        _unpack(wav, speaker)


def _unpack(wav, speaker):
    archive = os.path.join(wav, f"{speaker}{ARCHIVE}")
    partial = os.path.join(wav, f".{speaker}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        splits = _extract(archive, speaker, partial)
        if len(splits) != 1:
            raise DataError(f"{archive}: holds recordings of {len(splits)} splits, expected 1: download it again")
        split = splits.pop()
        os.makedirs(os.path.join(wav, split), exist_ok=True)
        os.rename(os.path.join(partial, split, speaker), os.path.join(wav, split, speaker))
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: is no whole archive ({os.path.getsize(archive)} bytes; {error}): download it again") from error
    except OSError as error:
        free = shutil.disk_usage(wav).free / 2**20
        raise DataError(f"{archive}: cannot be unpacked into {wav} ({error}; {free:.0f} MiB are free): mend this, or unpack it") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract(archive, speaker, folder):
    """Writes the recordings of ``archive`` into ``folder`` and returns their splits; no path but the expected one is ever written."""
    expected = re.compile(rf"(?:\./)?({'|'.join(PUBLISHED)})/{speaker}/([^/\\]+{re.escape(AUDIO)})")
    splits = set()
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isdir() or os.path.basename(member.name).startswith("."):
                continue
            match = expected.fullmatch(member.name) if member.isfile() else None
            if not match:
                wanted = f"<split>/{speaker}/<name>{AUDIO}"
                raise DataError(f"{archive}: holds {member.name[:100]!r}, expected files {wanted}: this is no archive of {NAME}")
            split, name = match.groups()
            splits.add(split)
            os.makedirs(os.path.join(folder, split, speaker), exist_ok=True)
            with open(os.path.join(folder, split, speaker, name), "wb") as file:
                shutil.copyfileobj(tar.extractfile(member), file)
    return splits


def there(data_folder):
    """The splits that ``data_folder`` holds, in published order."""
    return [split for split in PUBLISHED if os.path.isdir(os.path.join(data_folder, WAV, split))]


def files(data_folder, split):
    """The recordings of a split, and the one transcript of all splits, as File."""
    status = os.stat(os.path.join(data_folder, TRANSCRIPT))
    return [*preparation.list_files(data_folder, f"{WAV}/{split}"), File(TRANSCRIPT, status.st_size, status.st_mtime_ns)]


def find(data_folder, split, files):
    """Pairs the recordings of a split with their lines of the transcript: (utterances without durations, list of Skipped).

    Of the transcript only lines of the split's speakers count. A recording without a line is left out, as the release has
    such; a speaker without any line, and a line without its recording, are faults.
    """
    audio, bad = _recordings(files)
    texts, more = _transcripts(data_folder)
    speakers = set(_speakers(data_folder, split))
    texts = {name: line for name, line in texts.items() if speaker_of(name) in speakers}
    # A faulty line of another split's speaker is that split's; one without an id may be anybody's.
    bad += [item for item in more if not item.id or speaker_of(item.id) in speakers]
    bad += _untold(split, audio, texts) + _in_two_splits(data_folder, split, speakers)
    faulty = {item.id for item in bad}
    for name in sorted(texts.keys() - audio.keys() - faulty):
        reason = f"transcribes {name}, but there is no {name}{AUDIO} in {WAV}/{split}/{speaker_of(name)}: restore the recording"
        bad.append(Skipped(name, texts[name][1], reason))
    _log_untranscribed(split, sorted(name for name in audio.keys() - texts.keys() - faulty if speaker_of(name) not in faulty))
    both = sorted(name for name in texts.keys() & audio.keys() - faulty if speaker_of(name) not in faulty)
    return [Utterance(name, audio[name], 0.0, speaker_of(name), texts[name][0]) for name in both], bad


def speaker_of(name):
    """The speaker in the id of an utterance: ``BAC009S0002W0122`` is S0002's."""
    return _ID.fullmatch(name)["speaker"]


def _recordings(files):
    audio, bad = {}, []
    for file in files:
        if not file.path.endswith(AUDIO):
            continue
        name, folder = os.path.basename(file.path).removesuffix(AUDIO), os.path.basename(os.path.dirname(file.path))
        if not _ID.fullmatch(name):
            bad.append(Skipped("", file.path, "is called otherwise than BAC009S????W????: rename it"))
        elif name in audio:
            bad.append(Skipped(name, file.path, f"has the id of {audio[name]}: ids must be unique, rename or remove one of the 2 files"))
        elif speaker_of(name) != folder:
            bad.append(Skipped(name, file.path, f"lies in the folder {folder}, expected {speaker_of(name)}: move it there"))
        else:
            audio[name] = file.path
    return audio, bad


def _transcripts(data_folder):
    """(id -> (text, where), list of Skipped) of the whole transcript."""
    with open(os.path.join(data_folder, TRANSCRIPT), "rb") as file:
        content = file.read().split(b"\n")
    texts, bad = {}, []
    for number, line in enumerate(content, 1):
        if line.strip():
            _add_line(texts, bad, f"{TRANSCRIPT}:{number}", line)
    return texts, bad


def _add_line(texts, bad, where, line):
    # BAC009S0002W0122 而 对 楼市 成交 抑制 作用 最 大 的 限 购
    name, *words = line.decode("utf-8", errors="surrogateescape").split()
    if not _ID.fullmatch(name):
        shown = name[:40].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        bad.append(Skipped("", where, f"begins with {shown!r}, expected BAC009S????W???? and the words: mend the line"))
    elif name in texts:
        bad.append(Skipped(name, where, f"is the 2nd transcript of {name}, the 1st is {texts[name][1]}: ids must be unique, remove one"))
    elif not words:
        bad.append(Skipped(name, where, f"{name} has an empty transcript (0 words): write its words or remove line and recording"))
    elif (wrong := _not_utf8(line)) is not None:
        bad.append(Skipped(name, where, f"is not UTF-8 text (byte {wrong} of {len(line)}): restore the file, as it is in the release"))
    else:
        texts[name] = ("".join(words), where)


def _not_utf8(line):
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return None


def _untold(split, audio, texts):
    """Speakers with recordings and without any line, each as Skipped: a transcript that is cut short, or not of these recordings."""
    numbers, told = defaultdict(int), {speaker_of(name) for name in texts}
    for name in audio:
        numbers[speaker_of(name)] += 1
    return [
        Skipped(speaker, f"{WAV}/{split}/{speaker}", f"has {number} recordings and none of them a line in {TRANSCRIPT}: restore that file")
        for speaker, number in sorted(numbers.items())
        if speaker not in told
    ]


def _in_two_splits(data_folder, split, speakers):
    return [
        Skipped(speaker, f"{WAV}/{split}/{speaker}", f"is in {WAV}/{other} too: a speaker is of 1 split, remove one of the 2 folders")
        for other in there(data_folder)
        if other != split
        for speaker in sorted(speakers & set(_speakers(data_folder, other)))
    ]


def _log_untranscribed(split, names):
    if names:
        logger.warning("%s %s: left out %d recordings without a transcript, the first is %s", NAME, split, len(names), names[0])


CORPUS = Corpus(NAME, PUBLISHED, LAYOUT, 16000, find, there=there, files=files)
