"""From manifests to batches for speech recognition, as SpeechBrain DynamicItem pipelines.

Each utterance provides ``id``, ``sig`` (float32 samples), ``wrd``, ``tokens_list``,
``tokens_bos``, ``tokens_eos`` and ``tokens``, the names that SpeechBrain's ASR recipes
use. Everything is made of module-level classes, so that loaders with workers can pickle it.
"""

import itertools
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.utils.data_pipeline import provides, takes

from spikebrain.blocks.subsampling import VGG, subsampled_frames
from spikebrain.data import audio, manifest, tokens
from spikebrain.data.manifest import DataError
from spikebrain.data.preparation import Skipped
from spikebrain.lengths import stft_frames

logger = logging.getLogger(__name__)

OUTPUTS = ("id", "sig", "wrd", "tokens_bos", "tokens_eos", "tokens")
SORTINGS = ("random", "ascending", "descending")


@dataclass(frozen=True)
class AsrDataOptions:
    """How batches are made; lengths are in seconds, batches of training utterances unless said otherwise.

    sample_rate : Hz
    hop : samples between feature frames, for the check of CTC lengths
    subsampling : the front end, 4, 6 or "vgg", for the same check
    skip_short : leave out training utterances that are too short for their tokens, instead of refusing them
    max_duration : longer training utterances are left out (None: none)
    speeds : percentages, one of which is drawn for each training utterance; empty: no perturbation
    cache_audio : keep decoded training audio in memory, 115 MB an hour
    sorting : order of training utterances: "random", "ascending" or "descending"
    batch_size : utterances of a batch, where max_batch_length is None
    max_batch_length : length of a batch, padding included, with dynamic batching
    num_buckets : groups of like length with dynamic batching
    max_batch_ex : at most so many utterances in a dynamic batch
    eval_batch_size : utterances of a validation or test batch
    num_workers : processes that read; 0 reads in the training process
    seed : of batch order and workers
    """

    sample_rate: int = 16000
    hop: int = 160
    subsampling: int | str = 4
    skip_short: bool = False
    max_duration: float | None = None
    speeds: tuple = ()
    cache_audio: bool = False
    sorting: str = "random"
    batch_size: int = 16
    max_batch_length: float | None = None
    num_buckets: int = 20
    max_batch_ex: int | None = None
    eval_batch_size: int = 16
    num_workers: int = 0
    seed: int = 1234

    def __post_init__(self):
        if self.sorting not in SORTINGS:
            raise DataError(f"sorting: {self.sorting!r} is none of {', '.join(SORTINGS)}")


@dataclass(frozen=True)
class AsrData:
    """What a recognition Brain needs.

    train, valid : datasets (None where no manifest was given)
    tests : name -> dataset; validation and test sets begin with their shortest utterance
    train_loader, eval_loader : keyword arguments for SpeechBrain's loaders (``eval_loader`` for validation and test)
    train_sampler : the dynamic batch sampler or None. Give it to the Brain as ``brain.train_sampler``: the host
        draws new batches each epoch for the sampler of that name only
    generator : draws the seeds of the training loader's workers; a recoverable (in ``SaveableGenerator``) of a run that may resume
    tokenizer : SentencePieceProcessor
    dropped : training utterances that were left out, as Skipped with the reason
    """

    train: DynamicItemDataset | None
    valid: DynamicItemDataset | None
    tests: dict
    train_loader: dict
    eval_loader: dict
    train_sampler: DynamicBatchSampler | None
    generator: torch.Generator
    tokenizer: object
    dropped: tuple = field(default=())


class ReadAudio:
    """Path -> samples: Tensor (S,), float32, checked; optionally at a random speed, and from memory the second time.

    Arguments
    ---------
    sample_rate : int
    speeds : tuple of int
        Percentages to draw from with torch's generator, with pitch, as in "Audio augmentation for speech recognition"
        (Ko et al., Interspeech 2015); empty for none.
    """

    def __init__(self, sample_rate, speeds=()):
        self.sample_rate = sample_rate
        self.perturb = SpeedPerturb(sample_rate, list(speeds)) if speeds else None
        self.cache = {}

    def __call__(self, path):
        wav = self.cache.get(path)
        wav = audio.load(path, self.sample_rate) if wav is None else _decode(wav)
        return wav if self.perturb is None else self.perturb(wav.unsqueeze(0)).squeeze(0)

    def preload(self, paths):
        """Reads ``paths`` into memory."""
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            wavs = pool.map(lambda path: _encode(audio.load(path, self.sample_rate)), paths)
            self.cache.update(zip(paths, wavs, strict=True))


def _encode(wav):
    # 16-bit files, that is nearly all of them, lose nothing as int16 and need half the memory.
    small = (wav * 32768).round().clamp(-32768, 32767).to(torch.int16)
    return small if torch.equal(_decode(small), wav) else wav


def _decode(wav):
    return wav.float() / 32768 if wav.dtype == torch.int16 else wav


class EncodeText:
    """Transcript -> (tokens_list, tokens_bos, tokens_eos, tokens): ids, with the sentence's begin, with its end, and bare; int64."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text):
        ids = self.tokenizer.encode(text)
        with_bos, with_eos = [tokens.BOS, *ids], [*ids, tokens.EOS]
        return ids, torch.LongTensor(with_bos), torch.LongTensor(with_eos), torch.LongTensor(ids)


def asr_data(train, valid, tests, data_folder, tokenizer, options=None):
    """Datasets and loader options for recognition, checked before anything is trained.

    Arguments
    ---------
    train, valid : list of str
        Paths of manifests, joined; empty where there is none.
    tests : dict
        Name -> path of its manifest.
    data_folder : str
        What ``$data_root`` of the manifests stands for.
    tokenizer : SentencePieceProcessor
    options : AsrDataOptions or None

    Returns
    -------
    AsrData

    Raises
    ------
    DataError
        A manifest that cannot be read, ids that are in two joined manifests, or (without ``skip_short``) an utterance
        too short for its tokens.
    """
    options = options or AsrDataOptions()
    reader = ReadAudio(options.sample_rate, tuple(options.speeds))
    training, dropped = _training_utterances(train, tokenizer, options)
    if options.cache_audio:
        reader.preload([os.path.join(data_folder, u.wav) for u in training])
    plain = ReadAudio(options.sample_rate)
    validation = _shortest_first(_joined(valid))
    check_ctc_lengths(validation, tokenizer, options)
    testing = {name: _shortest_first(manifest.read(path)) for name, path in tests.items()}
    told = testing if set(valid) <= set(tests.values()) else {"validation": validation, **testing}
    for name, utterances in told.items():
        _tell_unheard(name, utterances, tokenizer)
    sampler = batch_sampler(training, options) if training and options.max_batch_length else None
    generator = torch.Generator().manual_seed(options.seed)
    return AsrData(
        train=dataset(training, data_folder, tokenizer, reader) if training else None,
        valid=dataset(validation, data_folder, tokenizer, plain) if validation else None,
        tests={name: dataset(utterances, data_folder, tokenizer, plain) for name, utterances in testing.items()},
        train_loader=_train_loader(options, sampler, generator),
        eval_loader={"batch_size": options.eval_batch_size, "num_workers": options.num_workers},
        train_sampler=sampler,
        generator=generator,
        tokenizer=tokenizer,
        dropped=dropped,
    )


def _joined(paths):
    utterances = [utterance for path in paths for utterance in manifest.read(path)]
    if len(paths) > 1:
        manifest.validate(utterances, " + ".join(map(str, paths)))
    return utterances


def _shortest_first(utterances):
    return sorted(utterances, key=lambda u: u.duration)


def _training_utterances(paths, tokenizer, options):
    utterances = _joined(paths)
    kept, dropped = _not_too_long(utterances, options.max_duration)
    kept, short = check_ctc_lengths(kept, tokenizer, options, max(options.speeds, default=100))
    dropped += short
    if utterances and not kept:
        what = f"all {len(utterances)} training utterances were left out as too long or too short"
        raise DataError(f"{what}: raise max_duration: {options.max_duration} or mend them")
    _warn_of_unknown(kept, tokenizer)
    if options.sorting != "random":
        kept = sorted(kept, key=lambda u: u.duration, reverse=options.sorting == "descending")
    if dropped:
        first = f"{dropped[0].id}: {dropped[0].reason}"
        logger.warning("left out %d of %d training utterances, the first is %s", len(dropped), len(utterances), first)
    return kept, tuple(dropped)


def _not_too_long(utterances, limit):
    if limit is None:
        return utterances, []
    dropped = [Skipped(u.id, u.wav, f"lasts {u.duration:.3f} s, max_duration is {limit} s") for u in utterances if u.duration > limit]
    return [u for u in utterances if u.duration <= limit], dropped


def _warn_of_unknown(utterances, tokenizer):
    unknown = [u.id for u in utterances if tokens.BLANK in tokenizer.encode(u.text)]
    if unknown:
        logger.warning(
            "%d training transcripts hold characters that the tokenizer does not know, the first is %s: they become piece 0, "
            "which CTC reads as blank; train the tokenizer on this text",
            len(unknown),
            unknown[0],
        )


def _tell_unheard(name, utterances, tokenizer):
    """Says in one line how much of a validation or test set cannot be recognised, as no piece stands for it; nothing where all can."""
    unheard = [unknown_pieces(u.text, tokenizer) for u in utterances]
    pieces = [piece for found in unheard for piece in found]
    if pieces:
        different = list(dict.fromkeys(pieces))
        logger.warning(
            "%s: %d of %d transcripts hold %d characters that the tokenizer does not know (%d different: %s%s): none of them can be "
            "recognised, they stay in the references and count as errors",
            name,
            sum(map(bool, unheard)),
            len(utterances),
            len(pieces),
            len(different),
            " ".join(different[:10]),
            " ..." if len(different) > 10 else "",
        )


def unknown_pieces(text, tokenizer):
    """The characters of ``text`` that ``tokenizer`` has no piece for, a list in their order; neighbours are told one by one."""
    found = zip(tokenizer.encode(text), tokenizer.encode(text, out_type=str), strict=True)
    return [character for index, piece in found if index == tokens.BLANK for character in piece.replace("\u2581", "")]


def encoder_frames(samples, hop=160, subsampling=4):
    """Encoder frames of an utterance of ``samples`` samples, by formula; 0 where the front end leaves none."""
    return max(0, subsampled_frames(stft_frames(samples, hop), subsampling))


def ctc_frames_needed(ids):
    """Frames that CTC needs for the tokens ``ids``: one each, and a blank between two equal neighbours."""
    return len(ids) + sum(a == b for a, b in itertools.pairwise(ids))


def check_ctc_lengths(utterances, tokenizer, options, speed=100):
    """Which utterances have an encoder frame for each of their tokens, by formula from the manifest's durations.

    A shorter one has no CTC path: its loss is infinite, which ``zero_infinity`` would hide.

    Arguments
    ---------
    utterances : list of Utterance
    tokenizer : SentencePieceProcessor
    options : AsrDataOptions
    speed : int
        Percentage of the fastest speed that an utterance may be played at.

    Returns
    -------
    (long enough, too short) : list of Utterance, and list of Skipped with the numbers

    Raises
    ------
    DataError
        Without ``options.skip_short``: the first such utterance with both numbers, and how many there are.
    """
    good, bad = [], []
    for utterance in utterances:
        samples = int(round(utterance.duration * options.sample_rate) * 100 / speed)
        frames = encoder_frames(samples, options.hop, options.subsampling)
        needed = ctc_frames_needed(tokenizer.encode(utterance.text))
        if frames >= max(needed, 1):
            good.append(utterance)
        else:
            at = f" at speed {speed} %" if speed != 100 else ""
            front = options.subsampling if options.subsampling == VGG else f"{options.subsampling}x"
            what = f"{utterance.duration:.3f} s give {frames} frames after {front} subsampling{at}, its tokens need {needed}"
            bad.append(Skipped(utterance.id, utterance.wav, what))
    if bad and not options.skip_short:
        more = f" ({len(bad)} utterances are too short)" if len(bad) > 1 else ""
        repair = "mend the transcript, use a larger output_neurons, or leave such utterances out with --skip_bad_audio=True"
        raise DataError(f"{bad[0].id}: {bad[0].reason}{more}: {repair}")
    return good, bad


def dataset(utterances, data_folder, tokenizer, reader):
    """A DynamicItemDataset of ``utterances`` (list of Utterance) whose audio lies in ``data_folder``."""
    data = {u.id: {"wav": os.path.join(data_folder, u.wav), "duration": u.duration, "spk_id": u.speaker, "wrd": u.text} for u in utterances}
    read_audio = provides("sig")(takes("wav")(reader))
    encode = provides("tokens_list", "tokens_bos", "tokens_eos", "tokens")(takes("wrd")(EncodeText(tokenizer)))
    return DynamicItemDataset(data, [read_audio, encode], list(OUTPUTS))


def batch_sampler(utterances, options):
    """SpeechBrain's DynamicBatchSampler over buckets that each hold as many utterances.

    The host's own buckets follow a log-normal curve up to ``max_batch_length``; on a corpus of short sentences nearly
    all utterances fall into the first few of them. Quantiles of the corpus fit any corpus.
    """
    durations = [u.duration for u in utterances]
    edges = np.unique(np.quantile(durations, np.arange(1, options.num_buckets + 1) / options.num_buckets))
    return DynamicBatchSampler(
        utterances,
        max_batch_length=options.max_batch_length,
        bucket_boundaries=edges.tolist(),
        lengths_list=durations,
        shuffle=options.sorting == "random",
        batch_ordering=options.sorting,
        max_batch_ex=options.max_batch_ex,
        seed=options.seed,
    )


def _train_loader(options, sampler, generator):
    order = {"batch_size": options.batch_size, "shuffle": options.sorting == "random"} if sampler is None else {"batch_sampler": sampler}
    return {**order, "num_workers": options.num_workers, "generator": generator}
