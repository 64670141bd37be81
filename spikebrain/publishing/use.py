"""What a published model is for: to transcribe, to name a class or a speaker, and to tell whether two recordings are of one speaker.

    model = spikebrain.load("bundle")
    model.transcribe("speech.flac")                          # "THREE SEVEN ONE"
    model.classify(["yes.wav", "no.wav"])                    # [Named(label="yes", ...), Named(label="no", ...)]
    model.classify("stream.wav", window_s=1.0, hop_s=0.5)    # what is said when
    for named in model.listen(microphone, window_s=1.0): ... # the same while it is said
    model.verify("enrol.wav", "test.wav").score              # a cosine

A recording is a path, the bytes of a file, an open binary file such as ``sys.stdin.buffer``, or samples (S,) at the model's rate; see
:mod:`spikebrain.publishing.recordings`.

A recording gives the same in every company. Recordings are sorted by length and go through the network in padded batches, in which a score
may differ in its last digits, as sums of float32 do. Words may hang on such a digit: recognisers hear one recording after the other.

Silence, which is no sample above one step of 16 bits, is not asked about: its text is empty, its label None (unless the model has a class
for it), and it is of no speaker.
"""

import math
import os
from dataclasses import dataclass, field, replace

import torch
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.utils.logger import get_logger

from spikebrain import lengths as frames
from spikebrain.data import tokens
from spikebrain.publishing import outputs
from spikebrain.publishing.recordings import SHORTEST_S, Samples, UseError, kept, opened, stretches
from spikebrain.training import scoring

logger = get_logger(__name__)

# Seconds that go through the network at once; attention needs memory that grows with their square. LibriSpeech has utterances of up to
# 35 s, VoxCeleb of up to 145 s, and these are heard whole, as in an evaluation.
LIMITS_S = {"asr": 40.0, "classify": 40.0, "identify": 150.0, "verify": 150.0}
BATCH_S = 80.0  # seconds of a padded batch, unless one recording is longer
BATCH = {"asr": 1, "classify": 64, "identify": 64, "verify": 64}  # recordings in it
SILENT = 2.0**-15
SILENCE = "_silence_"  # the class of Speech Commands
VERBS = {"asr": "transcribe", "classify": "classify", "identify": "classify", "verify": "verify"}


@dataclass(frozen=True)
class Named:
    """What a recording, or a stretch of it, was named.

    label : a class or a speaker; None for silence
    score : of a class the share of the frames' votes, 0 to 1; of a speaker the network's output, a logit or a cosine
    start_s, end_s : of the stretch, in seconds
    scores : label -> score, of all labels; empty for silence
    """

    label: str | None
    score: float
    start_s: float
    end_s: float
    scores: dict = field(repr=False, hash=False)


@dataclass(frozen=True)
class Compared:
    """Two recordings.

    score : cosine of their embeddings, -1 to 1
    same : whether it lies above the threshold; None where there is none
    """

    score: float
    same: bool | None


@dataclass(frozen=True)
class Clip:
    """What the network hears at once.

    wav : Tensor (S,), at the model's rate
    name : of the recording
    start_s, end_s : of the stretch, in seconds of the recording
    silent : whether there is nothing to hear
    """

    wav: torch.Tensor
    name: str
    start_s: float
    end_s: float
    silent: bool


def transcribe(model, recordings, errors="raise"):
    """What is said.

    A recording of more than 40 s is cut where it is quietest, in the second half of each 40 s, and the pieces are decoded one after the
    other, so that an hour needs the memory of 40 s.

    Arguments
    ---------
    model : Model
        Of the task asr.
    recordings : a recording, or a list of them
    errors : str
        "raise", or "return": a recording that cannot be used has its UseError in the place of its text.

    Returns
    -------
    str, or a list of str for a list.

    Raises
    ------
    UseError
    """
    _check_task(model, "transcribe", "asr")
    return _Listener(model, _texts(model), _transcribe_long, lambda clip: "").hear(recordings, errors)


def classify(model, recordings, window_s=None, hop_s=None, errors="raise"):
    """The class that a recording belongs to, or its speaker.

    Arguments
    ---------
    model : Model
        Of the task classify or identify.
    recordings : a recording, or a list of them
    window_s : float, optional
        Look at stretches of so many seconds, the last of which ends with the recording; each is heard as if it were a recording of its
        own. Without it a recording is one stretch, and where the model learnt from clips of a length, as many seconds from its beginning.
    hop_s : float, optional
        Seconds from one window to the next; by default half a window.
    errors
        As for :func:`transcribe`.

    Returns
    -------
    Named, or with ``window_s`` a list of them; a list of either for a list.

    Raises
    ------
    UseError
    """
    listener = _namer(model, "classify")
    if window_s is None:
        if hop_s is not None:
            raise UseError(f"hop: {hop_s:g} s, but there is no window: give both")
        return listener.hear(recordings, errors)
    window = _Window.checked(window_s, hop_s, listener.most_s)
    listener.apart, listener.at_once_s = window.slide, 0.0
    return listener.hear(recordings, errors)


def listen(model, blocks, window_s, hop_s=None):
    """Names what is said while it is said: the windows that :func:`classify` names in a recording, each as soon as it is over.

    Arguments
    ---------
    model : Model
        Of the task classify or identify.
    blocks : iterable of Tensor (S,)
        Samples from -1 to 1 at the model's rate, of any length, one after the other; it need not end, and no more than two windows of it
        are kept.
    window_s, hop_s
        As for :func:`classify`.

    Returns
    -------
    iterator of Named
        With times from the beginning of the stream. The last window ends with the stream; one that is shorter than a window is one.

    Raises
    ------
    UseError
        For blocks that are no samples too, and for a stream that ends before anything can be heard.
    """
    listener = _namer(model, "listen")
    window = _Window.checked(window_s, hop_s, listener.most_s)
    return (_named_at(listener, start, wav) for start, wav in window.follow(blocks, model.sample_rate))


def _named_at(listener, start, wav):
    """The Named of the samples ``wav`` (S,) of a stream from its sample ``start`` on."""
    rate = listener.model.sample_rate
    (named,) = listener.answers([listener.clip(Samples(wav, rate), 0, len(wav))])
    return replace(named, start_s=start / rate, end_s=(start + len(wav)) / rate)


def _namer(model, verb):
    _check_task(model, verb, "classify", "identify")
    silent = None if SILENCE in (model.labels or ()) else _unasked
    return _Listener(model, lambda out, clips: _named(model, out, clips), _too_long, silent)


def embed(model, recordings, errors="raise"):
    """Embeddings (E,) of speakers: a Tensor for a recording, a list of them for a list; arguments as for :func:`transcribe`.

    Raises
    ------
    UseError
        For silence too.
    """
    _check_task(model, "embed", "verify")
    return _Listener(model, lambda out, clips: list(out["embedding"]), _too_long, _nobody).hear(recordings, errors)


def verify(model, first, second=None, threshold=None):
    """Whether two recordings are of one speaker, by the cosine of their embeddings.

    Arguments
    ---------
    model : Model
        Of the task verify.
    first, second : recordings; or, without ``second``, ``first`` a list of pairs of them
    threshold : float, optional
        Scores above it are of one speaker; by default the bundle's, where it has one.

    Returns
    -------
    Compared, or a list of them for pairs.

    Raises
    ------
    UseError
    """
    _check_task(model, "verify", "verify")
    pairs = [(first, second)] if second is not None else _pairs(first)
    sides = {_key(one): one for pair in pairs for one in pair}  # who is compared with many is heard once
    found = dict(zip(sides, embed(model, list(sides.values())), strict=True))
    compared = [compare(model, found[_key(a)], found[_key(b)], threshold) for a, b in pairs]
    return compared if second is None else compared[0]


def compare(model, enrol, test, threshold=None):
    """Two embeddings (E,) -> Compared; ``threshold`` as for :func:`verify`."""
    threshold = model.decoding.get("threshold") if threshold is None else threshold
    score = float(scoring.cosines(*scoring.unit(torch.stack([enrol, test]), model.centre)))
    return Compared(score, None if threshold is None else score > threshold)


def batches(seconds, most):
    """Places in ``seconds`` in batches, the shortest first: at most ``most`` members, and BATCH_S seconds with padding, unless of one."""
    made = []
    for row in sorted(range(len(seconds)), key=lambda row: seconds[row]):
        if not made or len(made[-1]) == most or (len(made[-1]) + 1) * seconds[row] > BATCH_S:
            made.append([])
        made[-1].append(row)
    return made


class _Listener:
    """Recordings through a model, in batches.

    Arguments
    ---------
    model : Model
    answer : callable
        (what ``model.outputs`` gives, the clips of that batch) -> a list of answers.
    apart : callable
        (listener, recording) -> the answer of what is too long for a batch.
    silent : callable or None
        Clip -> the answer of silence; None: the network's.
    """

    def __init__(self, model, answer, apart, silent):
        if model.sample_rate is None:
            raise UseError("this model hears spikes of a cochlea, not audio: give frames of events to model.outputs")
        self.model, self.answer, self.apart, self.silent = model, answer, apart, silent
        self.clip_s, self.pad = model.decoding.get("seconds"), model.decoding.get("pad", False)
        self.at_once_s = LIMITS_S[model.task]

    @property
    def most_s(self):
        """Seconds that the network hears at once."""
        return min(self.clip_s or math.inf, LIMITS_S[self.model.task])

    def hear(self, recordings, errors):
        """The answers: one for a recording, a list for a list."""
        if errors not in ("raise", "return"):
            raise UseError(f"errors: {errors!r} is none of raise, return")
        many = isinstance(recordings, (list, tuple))
        with opened(recordings if many else [recordings], self.model.sample_rate) as those:
            found = self._each(those)
        wrong = [one for one in found if isinstance(one, UseError)]
        if wrong and errors == "raise":
            raise wrong[0]
        return found if many else found[0]

    def _each(self, opened_ones):
        found = {row: one for row, one in enumerate(opened_ones) if isinstance(one, UseError)}
        rows = [row for row in range(len(opened_ones)) if row not in found]
        together = [row for row in rows if self._asked(opened_ones[row]) <= self.at_once_s]
        for batch in batches([self._asked(opened_ones[row]) for row in together], BATCH[self.model.task]):
            batch = [together[place] for place in batch]
            found |= zip(batch, self.answers([kept(self._beginning, opened_ones[row]) for row in batch]), strict=True)
        found |= {row: kept(self.apart, self, opened_ones[row]) for row in rows if row not in found}
        return [found[row] for row in range(len(opened_ones))]

    def _asked(self, recording):
        return min(recording.seconds, self.clip_s or math.inf)

    def _beginning(self, recording):
        """The clip of a whole recording, or of as much of its beginning as the model learnt from."""
        if self.clip_s is None or recording.seconds <= self.clip_s:
            return self.clip(recording, 0, recording.samples)
        said = f"its first {self.clip_s:g} s are heard of {recording.seconds:.2f} s, as in training"
        logger.warning(f"{recording.name}: {said}: set a window (--window {self.clip_s:g}) for all of it")
        return self.clip(recording, 0, math.ceil(self.clip_s * recording.rate))

    def clip(self, recording, start, count):
        """The Clip of ``count`` samples of a recording from ``start`` on, cut and padded as in training."""
        wav = recording.mono(start, count)
        silent = float(wav.abs().max()) <= SILENT
        if self.clip_s is not None:
            size = round(self.clip_s * self.model.sample_rate)
            wav = outputs.cut(wav[None], torch.tensor([len(wav)]), size, self.pad)[0][0]
        return Clip(wav, recording.name, start / recording.rate, (start + count) / recording.rate, silent)

    def answers(self, clips):
        """Answers of clips, which are heard in one padded batch; a UseError among them answers for itself."""
        asked = [row for row, clip in enumerate(clips) if not isinstance(clip, UseError) and not (self.silent and clip.silent)]
        found = dict(zip(asked, self._heard([clips[row] for row in asked]), strict=True)) if asked else {}
        for row, clip in enumerate(clips):
            if row not in found:
                found[row] = clip if isinstance(clip, UseError) else kept(self.silent, clip)
        return [found[row] for row in range(len(clips))]

    def _heard(self, clips):
        """Answers of clips that are not silent; SpikeSCR's published front end mirrors a signal at its end, and takes no padding."""
        options = getattr(self.model.network["features"], "options", None)
        if getattr(options, "published", False) and len({len(clip.wav) for clip in clips}) > 1:
            return [self._ask([clip])[0] for clip in clips]
        return self._ask(clips)

    @torch.no_grad()
    def _ask(self, clips):
        place = next(self.model.network.parameters())
        counts = torch.tensor([len(clip.wav) for clip in clips])
        wavs = torch.nn.utils.rnn.pad_sequence([clip.wav for clip in clips], batch_first=True).to(place)
        lengths = frames.relative(counts, wavs.shape[1]).to(place.device)
        return self.answer(self.model.outputs(wavs, lengths), clips)


@dataclass(frozen=True)
class _Window:
    """Seconds of a window, and from one to the next."""

    length_s: float
    hop_s: float

    @classmethod
    def checked(cls, length_s, hop_s, most_s):
        """With the default hop; UseError for what leaves gaps, is too short, or longer than ``most_s``, which the model hears at once."""
        hop_s = length_s / 2 if hop_s is None else hop_s
        if not SHORTEST_S <= length_s <= most_s:
            raise UseError(f"window: {length_s:g} s, but this model hears {SHORTEST_S:g} to {most_s:g} s at once: choose among them")
        if not 0.01 <= hop_s <= length_s:
            raise UseError(f"hop: {hop_s:g} s, expected 0.01 to {length_s:g}, the window, so that nothing between is left out")
        return cls(length_s, hop_s)

    def slide(self, listener, recording):
        """Answers of all windows of a recording; one that is shorter is a window of its own."""
        size = min(round(self.length_s * recording.rate), recording.samples)
        last = recording.samples - size
        starts = list(range(0, last, round(self.hop_s * recording.rate))) + [last]
        found = []
        for batch in batches([self.length_s] * len(starts), BATCH[listener.model.task]):
            found += listener.answers([listener.clip(recording, starts[row], size) for row in batch])
        return found

    def follow(self, blocks, rate):
        """(first sample, samples) of every window of a stream, from its blocks; the windows that :meth:`slide` takes of a recording."""
        size, hop = round(self.length_s * rate), round(self.hop_s * rate)
        held, begin, start = torch.zeros(0), 0, 0  # ``held`` begins with sample ``begin``, the next window with ``start``
        for block in blocks:
            held = torch.cat([held, Samples.checked(block)])
            while begin + len(held) >= start + size:
                held, begin = held[start - begin :], start
                yield start, held[:size]
                start += hop
        last = max(begin + len(held) - size, 0)
        if last > begin or start == 0:
            yield last, held[last - begin :]


def _transcribe_long(listener, recording):
    clips = (listener.clip(recording, start, count) for start, count in stretches(recording, listener.at_once_s))
    said = [one for clip in clips for one in listener.answers([clip])]
    space = " " if any("▁" in piece for piece in listener.model.pieces) else ""
    return space.join(one for one in said if one)


def _too_long(listener, recording):
    raise UseError(
        f"{recording.name}: is {recording.seconds:.1f} s long, at most {listener.at_once_s:g} s are heard at once: cut it"
        + ("" if listener.model.task == "verify" else ", or set a window (--window), which names stretches of it")
    )


def _unasked(clip):
    return Named(None, 0.0, clip.start_s, clip.end_s, {})


def _nobody(clip):
    raise UseError(f"{clip.name}: is silent, no sample lies above {SILENT:.1g}: record it again")


def _texts(model):
    """(outputs, clips) -> texts: by beam search where the network has a decoder, else along the best CTC path."""
    search = outputs.search(model.network, model.decoding)

    def texts(out, clips):
        """Texts of a batch."""
        if search is None:
            return [model.text(ids) for ids in ctc_greedy_decode(out["ctc"], out["lengths"], blank_id=tokens.BLANK)]
        return [model.text(ids) for ids in search(out["encoded"], frames.absolute(out["lengths"], out["encoded"]))]

    return texts


def _named(model, out, clips):
    """Named of each clip."""
    scores = out["logits"] if model.task == "identify" else outputs.shares(out["votes"])
    named = []
    for row, clip in zip(scores, clips, strict=True):
        best = int(row.argmax())
        of_all = dict(zip(model.labels, row.tolist(), strict=True))
        named.append(Named(model.labels[best], float(row[best]), clip.start_s, clip.end_s, of_all))
    return named


def _check_task(model, verb, *tasks):
    if model.task not in tasks:
        raise UseError(f"{verb}: this is a bundle of the task {model.task}, expected {' or '.join(tasks)}: use {VERBS[model.task]}")


def _pairs(given):
    pairs = [pair if isinstance(pair, (list, tuple)) else (pair,) for pair in (given if isinstance(given, (list, tuple)) else [given])]
    for pair in pairs:
        if len(pair) != 2:
            what = "a recording alone" if len(pair) == 1 else f"{len(pair)} recordings"
            raise UseError(f"verify: got {what}, and 2 are compared: give two recordings, or a list of pairs")
    return pairs


def _key(recording):
    return os.fspath(recording) if isinstance(recording, (str, os.PathLike)) else id(recording)
