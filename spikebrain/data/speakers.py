"""From manifests to batches for speaker recognition: random crops to train on, whole utterances for everything else.

Each utterance provides ``id``, ``sig`` (samples (S,), float32) and, but for those of trials, ``label_encoded`` (int64, the place of its
speaker in the list of speakers). Everything is made of module-level classes, so that loaders with workers can pickle it.
"""

import os
from dataclasses import dataclass

import soundfile
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes

from spikebrain.data import manifest
from spikebrain.data.classification import ClassData, ClassDataOptions, EncodeLabel, ReadClip, Recordings
from spikebrain.data.manifest import CLASS_COLUMNS, DataError
from spikebrain.frontend import room_and_noise

SOUNDS = (".wav", ".flac")
RANGES = ("noise_snr", "gaussian_snr", "volume_db")  # options that are two numbers


@dataclass(frozen=True)
class SpeakerDataOptions:
    """How batches are made.

    sample_rate : Hz
    seconds : length of the crop of an utterance that is trained on; a shorter utterance is repeated up to it
    noise_folder, rir_folder : recordings of noise, and impulse responses of rooms: *.wav and *.flac, in folders as deep as you like
        (None: no such change)
    noise_snr : (lowest, highest) dB of the signal above noise of the folder
    gaussian_snr : the same above white noise (None: no such change)
    volume_db : (lowest, highest) gain (None: no such change)
    corruption : probability of each of these changes of a training utterance, independently
    cache_audio : keep decoded training recordings in memory
    batch_size, eval_batch_size : utterances of a training batch, and of any other
    num_workers : processes that read; 0 reads in the training process
    seed : of workers

    The numbers of decibels are those of MFA-Conformer's code; that changes are drawn independently is ours.
    """

    sample_rate: int = 16000
    seconds: float = 3.0
    noise_folder: str | None = None
    rir_folder: str | None = None
    noise_snr: tuple = (15, 25)
    gaussian_snr: tuple | None = None
    volume_db: tuple | None = None
    corruption: float = 0.5
    cache_audio: bool = False
    batch_size: int = 32
    eval_batch_size: int = 16
    num_workers: int = 0
    seed: int = 1234

    def __post_init__(self):
        if self.seconds is None or not self.seconds > 0:
            raise DataError(f"seconds: {self.seconds} is no length to train on: give more than 0, such as 3.0")
        if not 0 <= self.corruption <= 1:
            raise DataError(f"corruption: {self.corruption} is no probability: give 0 to 1")
        for name in RANGES:
            edges = getattr(self, name)
            if not (_is_range(edges) or edges is None and name != "noise_snr"):
                told = list(edges) if isinstance(edges, tuple) else edges
                or_none = "" if name == "noise_snr" else ", or null"
                raise DataError(f"{name}: {told} is no range: give the lowest and the highest dB, such as [15, 25]{or_none}")

    @property
    def whole(self):
        """The options of recordings as they are."""
        names = ("sample_rate", "cache_audio", "batch_size", "eval_batch_size", "num_workers", "seed")
        return ClassDataOptions(**{name: getattr(self, name) for name in names}, pad=False)


def _is_range(edges):
    numbers = isinstance(edges, tuple | list) and len(edges) == 2 and all(isinstance(edge, int | float) for edge in edges)
    return numbers and edges[0] <= edges[1]


def sounds(folder, key, sample_rate):
    """Paths of the sound files below ``folder``, sorted.

    Arguments
    ---------
    folder : str
    key : str
        The YAML's name of it, for messages.
    sample_rate : int
        Hz, which every file must have.

    Raises
    ------
    DataError
        There is no such folder, it holds no sound, or a file cannot be read, is empty or has another rate.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{key}: {folder}: there is no such folder: name one that holds {' or '.join(SOUNDS)} files, or null")
    places = ((where, name) for where, _, names in os.walk(folder, followlinks=True) for name in names)
    found = sorted(os.path.join(where, name) for where, name in places if name.lower().endswith(SOUNDS))
    if not found:
        raise DataError(f"{key}: {folder}: holds 0 {' or '.join(SOUNDS)} files, here or deeper: name a folder that has some, or null")
    for path in found:
        _check_sound(path, key, sample_rate)
    return found


def _check_sound(path, key, sample_rate):
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise DataError(f"{key}: {path}: cannot be read ({error}): restore or remove the file") from error
    if info.samplerate != sample_rate or info.frames == 0:
        what = f"has {info.samplerate} Hz and {info.frames} samples, expected {sample_rate} Hz and some"
        raise DataError(f"{key}: {path}: {what}: resample or remove the file")


def _sound(path, samples=None):
    """The first channel of a file, (S,); ``samples`` of it from a drawn place on, where it has more."""
    with soundfile.SoundFile(path) as file:
        if samples is not None and file.frames > samples:
            file.seek(int(torch.randint(file.frames - samples + 1, ())))
        return torch.from_numpy(file.read(-1 if samples is None else samples, dtype="float32", always_2d=True)[:, 0].copy())


class Corrupt:
    """Samples of a training utterance (S,) -> the same in a room, in noise, and at another volume, as the options say.

    Raises
    ------
    DataError
        As :func:`sounds` does; when it is called, for a silent impulse response.
    """

    def __init__(self, options):
        self.options = options
        self.noises = sounds(options.noise_folder, "noise_folder", options.sample_rate) if options.noise_folder else []
        self.rooms = sounds(options.rir_folder, "rir_folder", options.sample_rate) if options.rir_folder else []

    def __call__(self, wav):
        for change in self._changes():
            if room_and_noise.happens(self.options.corruption):
                wav = change(wav)
        return wav

    def _changes(self):
        asked = {
            self._room: self.rooms,
            self._noise: self.noises,
            self._gaussian: self.options.gaussian_snr,
            self._volume: self.options.volume_db,
        }
        return [change for change, there in asked.items() if there]

    def _room(self, wav):
        path = _one(self.rooms)
        try:
            return room_and_noise.reverberate(wav, _sound(path))
        except ValueError as error:  # all files are opened before training, and none is listened to
            raise DataError(f"rir_folder: {path}: {error}") from error

    def _noise(self, wav):
        noise = room_and_noise.random_crop(_sound(_one(self.noises), len(wav)), len(wav))
        return room_and_noise.add_noise(wav, noise, room_and_noise.uniform(*self.options.noise_snr))

    def _gaussian(self, wav):
        return room_and_noise.gaussian_noise(wav, room_and_noise.uniform(*self.options.gaussian_snr))

    def _volume(self, wav):
        return room_and_noise.change_volume(wav, room_and_noise.uniform(*self.options.volume_db))


def _one(paths):
    return paths[int(torch.randint(len(paths), ()))]


class ReadCrop:
    """(path, first sample, seconds) -> a random crop of the utterance, Tensor (S,), float32, changed as the options say."""

    def __init__(self, read, options):
        self.read, self.samples, self.corrupt = read, round(options.seconds * options.sample_rate), Corrupt(options)

    def __call__(self, path, start, seconds):
        return self.corrupt(room_and_noise.random_crop(self.read(path, start, seconds), self.samples))


class SpeakerRecordings(Recordings):
    """The utterances of a speaker task: those with a speaker to name, and those of trials, whose speakers nobody has heard of.

    Arguments
    ---------
    train, valid, tests, data_folder
        As for :class:`Recordings`; the speakers are those of the training manifests.
    trials : dict
        Name -> path of the manifest of the utterances that its trials name.
    options : SpeakerDataOptions or None

    Raises
    ------
    DataError
        As :class:`Recordings` does; and as :class:`Corrupt` does.
    """

    def __init__(self, train, valid, tests, trials, data_folder, options=None):
        self.cropping = options or SpeakerDataOptions()
        super().__init__(train, valid, tests, data_folder, None, self.cropping.whole)
        self.trials = {name: manifest.read(path, CLASS_COLUMNS) for name, path in trials.items()}
        self.reader = ReadClip(self.options)
        self.training = ReadCrop(self.reader, self.cropping)

    def data(self):
        """A :class:`ClassData`; its ``tests`` are the named splits, then those of trials, from the shortest utterance on."""
        if self.options.cache_audio:
            self.reader.preload([os.path.join(self.folder, utterance.wav) for utterance in self.train])
        generator = torch.Generator().manual_seed(self.options.seed)
        workers = {"num_workers": self.options.num_workers}
        return ClassData(
            train=self._cropped(self.train) if self.train else None,
            valid=self._whole(self.valid) if self.valid else None,
            tests={name: self._whole(utterances) for name, utterances in self.tests.items()}
            | {name: self._whole(utterances, named=False) for name, utterances in self.trials.items()},
            train_loader={"batch_size": self.options.batch_size, "shuffle": True, "generator": generator, **workers},
            eval_loader={"batch_size": self.options.eval_batch_size, "generator": torch.Generator(), **workers},
            generator=generator,
        )

    def cohort(self):
        """The training utterances as they are, from the shortest on: a dataset."""
        return self._whole(self.train)

    def _cropped(self, utterances):
        return self._made(utterances, self.training)

    def _whole(self, utterances, named=True):
        return self._made(sorted(utterances, key=lambda u: u.duration), self.reader, named)

    def _made(self, utterances, reader, named=True):
        places = {u.id: {"wav": os.path.join(self.folder, u.wav), "start": u.start, "duration": u.duration} for u in utterances}
        items = [provides("sig")(takes("wav", "start", "duration")(reader))]
        if named:
            items.append(provides("label_encoded")(takes("label")(EncodeLabel(self.labels))))
        data = {u.id: {**places[u.id], "label": u.label} for u in utterances}
        return DynamicItemDataset(data, items, ["id", *(name for item in items for name in item.provides)])
