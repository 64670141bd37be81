"""Checks of samples as they are read."""

import numpy as np
import pytest
import soundfile
import torch
from fake_librispeech import tone

from spikebrain.data import audio
from spikebrain.data.manifest import DataError


def test_good_audio_passes_unchanged():
    wav = torch.randn(100)
    assert audio.check_audio(wav, "x") is wav
    audio.check_audio(torch.tensor([3e38, 3e38]), "x")  # finite, though the sum is not


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_not_finite(bad):
    wav = torch.zeros(100)
    wav[[7, 30]] = bad
    with pytest.raises(DataError, match=r"a\.wav: 2 of 100 samples are NaN or infinite, the first at 7: .*skip_bad_audio"):
        audio.check_audio(wav, "a.wav")


def test_no_samples():
    with pytest.raises(DataError, match=r"a\.wav: holds 0 samples"):
        audio.check_audio(torch.zeros(0), "a.wav")


def test_load_is_what_was_written(tmp_path):
    wav = (tone(0.2) * 32768).round().astype(np.int16)
    soundfile.write(tmp_path / "a.flac", wav, 16000)
    assert torch.equal(audio.load(str(tmp_path / "a.flac"), 16000), torch.from_numpy(wav).float() / 32768)


def test_load_names_file_and_numbers(tmp_path):
    path = str(tmp_path / "a.wav")
    with pytest.raises(DataError, match=r"a\.wav: there is no such file"):
        audio.load(path, 16000)
    soundfile.write(path, tone(0.2), 8000)
    with pytest.raises(DataError, match=r"a\.wav: has a sample rate of 8000 Hz, expected 16000 Hz"):
        audio.load(path, 16000)
    soundfile.write(path, np.stack([tone(0.2)] * 2, 1), 16000)
    with pytest.raises(DataError, match=r"a\.wav: has 2 channels, expected 1"):
        audio.load(path, 16000)
    soundfile.write(path, np.full(10, np.nan, np.float32), 16000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"a\.wav: 10 of 10 samples are NaN"):
        audio.load(path, 16000)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"a\.wav: cannot be read \(.+; 4 bytes\)"):
        audio.load(path, 16000)


@pytest.mark.parametrize("decode", [True, False])
def test_probe_counts_samples(tmp_path, decode):
    soundfile.write(tmp_path / "a.flac", tone(0.5), 16000)
    assert audio.probe(str(tmp_path / "a.flac"), 16000, decode) == (8000, None)
