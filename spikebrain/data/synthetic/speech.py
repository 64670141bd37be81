"""Speech from text with eSpeak NG through its C interface: about 5 ms a sentence, 100 voices, no network, no files.

eSpeak NG keeps phases, noise and flutter in static variables from one utterance to the
next, so the same sentence sounds a little different each time. Here every utterance is
spoken by a library that has just been loaded: its samples depend on text and voice alone.
"""

import _ctypes
import ctypes
import functools
import os
import threading
import warnings
from dataclasses import dataclass

import numpy as np

# speak_lib.h
_RETRIEVAL_IN_CALLER = 2  # AUDIO_OUTPUT_SYNCHRONOUS: the callback runs inside espeak_Synth
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

_lock = threading.Lock()


@dataclass(frozen=True)
class Voice:
    """A speaker of eSpeak NG.

    name : language, and variant behind a "+", e.g. "en-us+f2"; variants() lists them
    rate : words a minute, 80..450
    pitch : 0..100, 50 is the variant's own
    pitch_range : 0..100, how lively; 0 is monotone
    volume : 0..200, 100 is normal
    """

    name: str = "en-us"
    rate: int = 175
    pitch: int = 50
    pitch_range: int = 50
    volume: int = 100


def speak(text, voice=None):
    """Says ``text``.

    Arguments
    ---------
    text : str
    voice : Voice or None

    Returns
    -------
    (samples, rate) : float32 array (S,) in [-1, 1), and samples a second (22,050)

    Raises
    ------
    ImportError
        espeakng_loader is not installed, naming the extra.
    ValueError
        No such voice or variant, or a parameter out of its range.
    """
    voice = voice or Voice()
    _check(voice)
    pieces = []

    def keep(wav, count, events):
        """Takes a piece of speech from the library; 0 has it go on."""
        if wav and count > 0:
            pieces.append(np.ctypeslib.as_array(wav, (count,)).copy())
        return 0

    with _lock:
        rate = _with_fresh_library(text, voice, _CALLBACK(keep))
    return np.concatenate(pieces or [np.zeros(0, np.int16)]).astype(np.float32) / 32768, rate


def speak_at(text, sample_rate, voice=None):
    """As :func:`speak`, resampled to ``sample_rate``: float32 array (S,)."""
    wav, rate = speak(text, voice)
    return resample(wav, rate, sample_rate)


def resample(wav, rate, new_rate):
    """``wav`` (S,) at ``rate`` Hz -> float32 array at ``new_rate`` Hz, band-limited."""
    from scipy.signal import resample_poly

    divisor = np.gcd(rate, new_rate)
    return resample_poly(wav, new_rate // divisor, rate // divisor, window=_low_pass(new_rate // divisor, rate // divisor))


@functools.lru_cache
def _low_pass(up, down):
    # The filter that resample_poly would design at each call.
    from scipy.signal import firwin

    longest = max(up, down)
    return firwin(20 * longest + 1, 1 / longest, window=("kaiser", 5.0)).astype(np.float32)


def variants():
    """Names of the voice variants, sorted."""
    return sorted(os.listdir(os.path.join(_loader().get_data_path(), "voices", "!v")))


@functools.lru_cache
def _loader():
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError("speech synthesis needs espeakng_loader: pip install spikebrain[synthetic]") from error
    return espeakng_loader


@functools.lru_cache
def _known(variant):
    return variant in variants()


def _check(voice):
    _, plus, variant = voice.name.partition("+")
    # eSpeak NG takes the plain voice for an unknown variant without a word.
    if plus and not _known(variant):
        raise ValueError(f"voice {voice.name!r}: no variant {variant!r}; there are {len(variants())}: {', '.join(variants())}")
    limits = {"rate": (80, 450), "pitch": (0, 100), "pitch_range": (0, 100), "volume": (0, 200)}
    for key, (low, high) in limits.items():
        if not low <= getattr(voice, key) <= high:
            raise ValueError(f"voice {voice.name!r}: {key} is {getattr(voice, key)}, must lie in {low}..{high}")


def _with_fresh_library(text, voice, callback):
    library = ctypes.CDLL(_loader().get_library_path())
    try:
        rate = _initialise(library, callback)
        _set_voice(library, voice)
        _synthesise(library, text)
        return rate
    finally:
        library.espeak_Terminate()
        _unload(library)


def _initialise(library, callback):
    if library.espeak_ng_GetSampleRate() != 0:
        warnings.warn("eSpeak NG stays loaded between utterances here: speech depends a little on what was said before", stacklevel=2)
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    rate = library.espeak_Initialize(_RETRIEVAL_IN_CALLER, 0, _loader().get_data_path().encode(), 0)
    if rate <= 0:
        raise RuntimeError(f"eSpeak NG does not start (code {rate}): reinstall espeakng-loader")
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    library.espeak_ng_SetRandSeed(1)  # otherwise the time of day
    if os.name == "posix":
        ctypes.CDLL(None).srand(1)  # a few breathy variants draw their noise from the C library
    library.espeak_SetSynthCallback(callback)
    return rate


def _set_voice(library, voice):
    if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
        raise ValueError(f"voice {voice.name!r}: eSpeak NG has no such language")
    for parameter, value in ((_RATE, voice.rate), (_VOLUME, voice.volume), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
        library.espeak_SetParameter(parameter, value, 0)


def _synthesise(library, text):
    data = text.encode("utf-8") + b"\0"
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    status = library.espeak_Synth(data, len(data), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
    if status != 0:
        raise RuntimeError(f"eSpeak NG cannot say {text!r} (code {status})")


def _unload(library):
    release = getattr(_ctypes, "dlclose", None) or _ctypes.FreeLibrary
    release(library._handle)
