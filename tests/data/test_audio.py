"""Checks of samples as they are read, and of files before training."""

import numpy as np
import pytest
import soundfile
import torch
from fake_librispeech import tone
from preparing import truncate

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


@pytest.fixture(params=["flac", "wav"])
def file(request, tmp_path):
    """A sound recording of half a second."""
    soundfile.write(tmp_path / f"a.{request.param}", tone(0.5), 16000, subtype="PCM_16")
    return tmp_path / f"a.{request.param}"


def probe(path, decode=True):
    return audio.probe(str(path), 16000, decode)


FAULTS = {
    "empty": (lambda path: truncate(path, 0), "is empty (0 bytes): restore the file"),
    "no audio": (lambda path: path.write_text("<html>404</html>"), "cannot be read ("),
    "no samples": (lambda path: soundfile.write(path, np.zeros(0), 16000, format="WAV"), "holds 0 samples: restore the file"),
    "wrong rate": (
        lambda path: soundfile.write(path, tone(0.5, rate=8000), 8000),
        "has a sample rate of 8000 Hz, expected 16000 Hz: resample",
    ),
    "stereo": (lambda path: soundfile.write(path, np.stack([tone(0.5)] * 2, 1), 16000), "has 2 channels, expected 1: mix it down"),
}


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_probe_names_a_fault(file, fault, decode):
    assert probe(file, decode) == (8000, None)
    plant, message = FAULTS[fault]
    plant(file)
    samples, problem = probe(file, decode)
    assert samples == 0 and problem.startswith(message), problem


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("keep", [0.0025, 0.02, 0.3, 0.6, 0.9, 0.9999])
def test_a_file_cut_short_is_found(file, keep, decode):
    truncate(file, keep)
    samples, problem = probe(file, decode)
    told = ("is truncated or damaged: its header promises ", "cannot be read (")
    assert samples == 0 and problem.startswith(told) and problem.endswith(": restore the file"), problem


def test_a_cut_is_told_in_numbers(tmp_path):
    for name in ("a.flac", "a.wav"):
        soundfile.write(tmp_path / name, tone(0.25), 16000, subtype="PCM_16")
        truncate(tmp_path / name, 0.6)
    promise = "is truncated or damaged: its header promises "
    assert probe(tmp_path / "a.wav")[1] == f"{promise}8000 bytes of audio, 4782 are there (2391 samples, 0.15 s): restore the file"
    size = (tmp_path / "a.flac").stat().st_size
    assert probe(tmp_path / "a.flac")[1].startswith(f"{promise}4000 samples (0.25 s), its {size} bytes give ")


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "MS_ADPCM"])
def test_every_coding_of_wav(tmp_path, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.5)[:-1], 16000, subtype=subtype)
    samples, problem = probe(path)
    assert problem is None and samples == soundfile.info(path).frames
    truncate(path, 0.6)
    assert "bytes of audio" in probe(path)[1]


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000])
def test_a_stream_with_an_open_length_is_whole(tmp_path, length):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.25), 16000, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[40:44] = length.to_bytes(4, "little")
    path.write_bytes(content)
    assert probe(path) == (4000, None)


def test_a_list_behind_the_audio_is_no_fault(tmp_path):
    path = tmp_path / "a.wav"
    with soundfile.SoundFile(path, "w", 16000, 1, "PCM_16") as out:
        out.write(tone(0.25))
        out.comment = "recorded at noon"
    assert path.stat().st_size > 8044 and probe(path) == (4000, None)
    path.write_bytes(path.read_bytes()[:8044])
    assert probe(path) == (4000, None)  # all of its audio is there


def test_what_decoding_finds(tmp_path):
    wav = tone(1.0)
    wav[5:9] = np.nan
    soundfile.write(tmp_path / "nan.wav", wav, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "damaged.flac", tone(1.0), 16000, subtype="PCM_16")
    content = bytearray((tmp_path / "damaged.flac").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    (tmp_path / "damaged.flac").write_bytes(content)
    assert probe(tmp_path / "nan.wav") == (0, "holds 4 NaN or infinite samples of 16000: restore the file")
    assert probe(tmp_path / "damaged.flac")[1].startswith("is truncated or damaged: its header promises 16000 samples (1.00 s)")
    assert probe(tmp_path / "nan.wav", False) == probe(tmp_path / "damaged.flac", False) == (16000, None)
