"""From manifests to batches for classification, at one resolution or at two.

Each utterance provides ``id``, ``sig`` and ``label_encoded`` (int64, its place in the list of labels). What ``sig`` is depends on what
the front end reads (its ``domain``):

- ``audio``: samples (S,), float32. Resolution is the front end's business, so one ``sig`` serves a student and its teacher.
- ``events``: counts of spikes (L, C), float32, at the front end's resolution. A teacher of another resolution finds its
  view of the same recording in ``teacher_sig``.

Everything is made of module-level classes, so that loaders with workers can pickle it.
"""

import os
from dataclasses import dataclass

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes

from spikebrain.data import manifest
from spikebrain.data.events import ReadEvents
from spikebrain.data.manifest import CLASS_COLUMNS, DataError
from spikebrain.data.pipelines import ReadAudio

DOMAINS = ("audio", "events")


@dataclass(frozen=True)
class ClassDataOptions:
    """How batches are made.

    sample_rate : Hz, of audio
    seconds : length that audio is cut to (None: as it is)
    pad : audio shorter than ``seconds`` is padded to it with silence, which counts as signal, as in the published recipes for
        Speech Commands. False: it keeps its length
    cache_audio : keep decoded training recordings in memory
    batch_size, eval_batch_size : utterances of a training batch, and of any other
    num_workers : processes that read; 0 reads in the training process
    seed : of workers
    """

    sample_rate: int = 16000
    seconds: float | None = None
    pad: bool = True
    cache_audio: bool = False
    batch_size: int = 32
    eval_batch_size: int = 128
    num_workers: int = 0
    seed: int = 1234

    def __post_init__(self):
        if self.seconds is not None and not self.seconds > 0:
            raise DataError(f"seconds: {self.seconds} is no length: give more than 0, or null to leave recordings as they are")
        for name in ("batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise DataError(f"{name}: {getattr(self, name)} utterances make no batch: give 1 or more")


@dataclass(frozen=True)
class ClassData:
    """What a classifying Brain needs.

    train, valid : datasets (None where no manifest was given)
    tests : name -> dataset
    train_loader, eval_loader : keyword arguments for SpeechBrain's loaders (``eval_loader`` for validation and test)
    generator : draws the seeds of the training loader's workers; a recoverable (in ``SaveableGenerator``) of a run that may resume
    """

    train: DynamicItemDataset | None
    valid: DynamicItemDataset | None
    tests: dict
    train_loader: dict
    eval_loader: dict
    generator: torch.Generator


class ReadClip:
    """(path, first sample, seconds) -> samples of the clip: Tensor (S,), float32, of the length that the options ask for."""

    def __init__(self, options):
        self.read, self.rate, self.pad = ReadAudio(options.sample_rate), options.sample_rate, options.pad
        self.limit = None if options.seconds is None else round(options.seconds * options.sample_rate)

    def __call__(self, path, start, seconds):
        wav = self.read(path)
        wav = wav[start : start + round(seconds * self.rate)][: self.limit]
        if self.limit is None or not self.pad:
            return wav
        return torch.nn.functional.pad(wav, (0, self.limit - len(wav)))

    def preload(self, paths):
        """Reads the recordings at ``paths`` into memory."""
        self.read.preload(list(dict.fromkeys(paths)))


class ReadFrames:
    """Name of a recording of spikes -> its frames, Tensor (L, C), float32; from memory the second time, where it was preloaded."""

    def __init__(self, step_ms, channels):
        self.read, self.cache = ReadEvents(step_ms, channels), {}

    def __call__(self, name):
        frames = self.cache.get(name)
        return self.read(name) if frames is None else frames.float()

    def preload(self, names):
        """Reads the recordings ``names`` into memory, counts below 256 as bytes."""
        for name in names:
            frames = self.read(name)
            self.cache[name] = frames.to(torch.uint8) if frames.max() < 256 else frames


class View:
    """Name of a recording of spikes -> what is trained on: the frames, augmented where there is an augmentation.

    With a ``teacher``, both resolutions of the recording: (frames, teacher's frames). The teacher's are clean, or with
    ``share`` masked alike: see :func:`augment_alike`.
    """

    def __init__(self, student, teacher=None, augment=None, share=False):
        self.student, self.teacher, self.augment, self.share = student, teacher, augment, share

    def __call__(self, name):
        frames = self.student(name)
        if self.teacher is None:
            return self._augmented(frames)
        clean = self.teacher(name)
        if not self.share or self.augment is None:
            return self._augmented(frames), clean
        return augment_alike(self.augment, frames, clean)

    def _augmented(self, frames):
        return frames if self.augment is None else self.augment(frames)


def augment_alike(augment, x, teacher_x, *more):
    """One masking of two views of the same utterances, at the same relative times and in the same channels.

    Arguments
    ---------
    augment : callable
        Called with ``x`` and ``more``. It masks: what it makes of ones is 1 where it leaves a cell, and elsewhere what it puts there.
    x, teacher_x : Tensors (..., L, C) and (..., L', C)

    Returns
    -------
    (x, teacher_x) masked. torch's generators go on as if ``x`` alone had been.
    """
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        mask = augment(torch.ones_like(x), *more)
    # The frame of x in which the middle of each of the teacher's frames lies.
    length, teacher_length = x.shape[-2], teacher_x.shape[-2]
    middles = (2 * torch.arange(teacher_length, device=x.device) + 1) * length // (2 * teacher_length)
    mask = mask.index_select(-2, middles)
    return augment(x, *more), torch.where(mask == 1, teacher_x, mask)


class EncodeLabel:
    """Label -> Tensor (1,), int64, its place in ``labels``."""

    def __init__(self, labels):
        self.numbers = {label: number for number, label in enumerate(labels)}

    def __call__(self, label):
        return torch.tensor([self.numbers[label]])


class Recordings:
    """The utterances of a classification task, which may be looked at at any resolution.

    Arguments
    ---------
    train, valid : list of str
        Paths of manifests, joined; empty where there is none.
    tests : dict
        Name -> path of its manifest.
    data_folder : str
        What ``$data_root`` of the manifests stands for.
    labels : sequence of str or None
        The classes in the order of their numbers; None sorts those of the training manifests.
    options : ClassDataOptions or None

    Attributes
    ----------
    labels : tuple of str

    Raises
    ------
    DataError
        A manifest that cannot be read, ids that are in two joined manifests, a label that is no class, fewer than 2 classes.
    """

    def __init__(self, train, valid, tests, data_folder, labels=None, options=None):
        self.options, self.folder = options or ClassDataOptions(), data_folder
        self.train, self.valid = _joined(train), _joined(valid)
        self.tests = {name: _joined([path]) for name, path in tests.items()}
        self.labels = tuple(labels or sorted({utterance.label for utterance in self.train}))
        self._check_labels()
        self._readers = {}

    def view(self, student, teacher=None, augment=None, share=False):
        """Datasets and loader options for a front end, and for its teacher's.

        Arguments
        ---------
        student, teacher : module or None
            Front ends: ``domain`` says what they read ("audio" or "events"), and for events ``step_ms`` and ``channels``.
        augment : callable or None
            Of a training utterance's event frames (L, C); audio is augmented in batches, by the Brain.
        share : bool
            The teacher sees the same augmentation.

        Returns
        -------
        ClassData
            Recordings are read once for all views, where they are kept in memory.

        Raises
        ------
        DataError
            A front end of another domain, or student and teacher of two domains.
        """
        domain = _domain(student, teacher)
        generator = torch.Generator().manual_seed(self.options.seed)
        plain = self._reading(domain, student)
        training = self._reading(domain, student, teacher, augment, share)
        tests = {name: self._dataset(_shortest_first(utterances), plain) for name, utterances in self.tests.items()}
        workers = {"num_workers": self.options.num_workers}
        return ClassData(
            train=self._dataset(self.train, training) if self.train else None,
            valid=self._dataset(_shortest_first(self.valid), plain) if self.valid else None,
            tests=tests,
            train_loader={"batch_size": self.options.batch_size, "shuffle": True, "generator": generator, **workers},
            # A generator of its own: looking at other splits draws nothing that training would have drawn.
            eval_loader={"batch_size": self.options.eval_batch_size, "generator": torch.Generator(), **workers},
            generator=generator,
        )

    def _check_labels(self):
        if len(self.labels) < 2:
            raise DataError(f"the training manifests hold {len(self.labels)} class: {', '.join(self.labels)}: a task needs 2 or more")
        known, splits = set(self.labels), {"train": self.train, "valid": self.valid, **self.tests}
        for split, utterances in splits.items():
            strange = [utterance for utterance in utterances if utterance.label not in known]
            if strange:
                what = f"{split}: {strange[0].id} has the label {strange[0].label!r}, which is none of the {len(known)} classes"
                more = f" ({len(strange)} such utterances)" if len(strange) > 1 else ""
                raise DataError(f"{what}{more}: prepare all splits with the same classes")

    def _reading(self, domain, student, teacher=None, augment=None, share=False):
        """The dynamic item that provides ``sig``, and with a teacher of events ``teacher_sig``."""
        if domain == "audio":
            return provides("sig")(takes("wav", "start", "duration")(self._reader(domain, student)))
        readers = [self._reader(domain, front_end) for front_end in (student, teacher) if front_end is not None]
        names = ("sig", "teacher_sig")[: len(readers)]
        return provides(*names)(takes("wav")(View(*readers, augment=augment, share=share)))

    def _reader(self, domain, front_end):
        """What reads for a front end: made, and where asked preloaded, once for each resolution."""
        key = (domain,) if domain == "audio" else (domain, front_end.step_ms, front_end.channels)
        if key not in self._readers:
            self._readers[key] = ReadClip(self.options) if domain == "audio" else ReadFrames(*key[1:])
            if self.options.cache_audio:
                self._readers[key].preload([os.path.join(self.folder, utterance.wav) for utterance in self.train])
        return self._readers[key]

    def _dataset(self, utterances, reading):
        data = {
            u.id: {"wav": os.path.join(self.folder, u.wav), "start": u.start, "duration": u.duration, "spk_id": u.speaker, "label": u.label}
            for u in utterances
        }
        encode = provides("label_encoded")(takes("label")(EncodeLabel(self.labels)))
        provided = ["id", *(key for key in ("sig", "teacher_sig") if key in reading.provides), "label_encoded"]
        return DynamicItemDataset(data, [reading, encode], provided)


def _joined(paths):
    utterances = [utterance for path in paths for utterance in manifest.read(path, CLASS_COLUMNS)]
    if len(paths) > 1:
        manifest.validate(utterances, " + ".join(map(str, paths)), CLASS_COLUMNS)
    return utterances


def _shortest_first(utterances):
    return sorted(utterances, key=lambda u: u.duration)


def _domain(student, teacher):
    domains = {getattr(front_end, "domain", None) for front_end in (student, teacher) if front_end is not None}
    if not domains <= set(DOMAINS) or len(domains) > 1:
        found = ", ".join(sorted(map(str, domains)))
        raise DataError(f"features: front ends read {found}, but all read the same, {' or '.join(DOMAINS)}: see spikebrain.lobes.features")
    return domains.pop()
