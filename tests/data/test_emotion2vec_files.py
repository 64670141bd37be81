"""Features that were extracted elsewhere: found by name, and refused where the three files or the corpus do not fit."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from spikebrain.data.emotion2vec_files import Emotion2VecFiles
from spikebrain.data.feature_cache import Filled
from spikebrain.data.manifest import DataError, Utterance

NAMES = ("Ses01F_impro01_F000", "Ses01F_impro01_M003", "Ses02M_script02_2_F011", "Ses05M_impro08_M026")
FRAMES = (49, 99, 3, 374)
LABELS = ("neu", "hap", "sad", "ang")
SECONDS = (1.0, 2.0, 0.075, 7.5)
TOTAL = sum(FRAMES)


def rows(count=TOTAL, channels=8, kind=np.float32):
    return np.random.default_rng(0).standard_normal((count, channels)).astype(kind)


def lines(*columns):
    return "".join("\t".join(map(str, row)) + "\n" for row in zip(*columns, strict=True))


@pytest.fixture
def prefix(tmp_path):
    """The path of sound files, without their endings."""
    np.save(tmp_path / "train.npy", rows())
    (tmp_path / "train.lengths").write_text(lines(FRAMES))
    (tmp_path / "train.emo").write_text(lines(NAMES, LABELS))
    return str(tmp_path / "train")


@pytest.fixture
def utterances():
    """The corpus as a manifest has it; its audio is nowhere."""
    return [Utterance(n, f"/nowhere/{n}.wav", s, label=label) for n, s, label in zip(NAMES, SECONDS, LABELS, strict=True)]


def test_features_are_the_rows_of_the_utterance(prefix, utterances):
    files, whole, first = Emotion2VecFiles(prefix), torch.from_numpy(rows()), 0
    for utterance, frames in zip(utterances, FRAMES, strict=True):
        features = files.get(utterance.wav, utterance.start, utterance.duration)
        assert torch.equal(features, whole[first : first + frames])
        first += frames
    assert (files.channels, files.frames_per_second, files.labels) == (8, 50, dict(zip(NAMES, LABELS, strict=True)))
    assert files.fill(utterances) == Filled(made=0, kept=4, remade={}, cropped=0, skipped=())


def test_half_precision_is_widened_and_what_comes_back_may_be_changed(prefix):
    np.save(f"{prefix}.npy", rows(kind=np.float16))
    files = Emotion2VecFiles(prefix)
    features = files.get(NAMES[1])
    assert features.dtype == torch.float32 and torch.equal(features, torch.from_numpy(rows(kind=np.float16)).float()[49:148])
    assert torch.equal(files.get(NAMES[1]), features.zero_() + files.get(NAMES[1])) and files.get(NAMES[1]).any()


def test_long_utterances_are_cropped(prefix, utterances, caplog):
    files = Emotion2VecFiles(prefix, max_seconds=2.0)
    assert [len(files.get(u.wav, 0, u.duration)) for u in utterances] == [49, 99, 3, 99]
    assert files.fill(utterances).cropped == 1 and "1 of 4 utterances are cropped to 99 frames" in caplog.text


def test_the_fingerprint_is_of_the_content(prefix, tmp_path):
    prints = [Emotion2VecFiles(prefix).fingerprint]
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for ending in ("npy", "lengths", "emo"):
        (moved / f"other.{ending}").write_bytes(Path(f"{prefix}.{ending}").read_bytes())
    assert Emotion2VecFiles(moved / "other").fingerprint == prints[0]
    np.save(f"{prefix}.npy", rows() * 2)
    prints.append(Emotion2VecFiles(prefix).fingerprint)
    Path(f"{prefix}.emo").write_text(lines(NAMES, LABELS[::-1]))
    prints.append(Emotion2VecFiles(prefix).fingerprint)
    Path(f"{prefix}.lengths").write_text(lines((99, 49, 3, 374)))
    assert len({*prints, Emotion2VecFiles(prefix).fingerprint}) == 4


def test_a_worker_gets_no_copy_of_the_rows(prefix):
    files = Emotion2VecFiles(prefix)
    packed = pickle.dumps(files)
    assert len(packed) < 2000 < rows().nbytes and torch.equal(pickle.loads(packed).get(NAMES[3]), files.get(NAMES[3]))


def refused(action, said):
    with pytest.raises(DataError, match=re.escape(said)) as error:
        action()
    assert "\n" not in str(error.value)


def test_an_utterance_without_features(prefix, utterances, caplog):
    files, other = Emotion2VecFiles(prefix), Utterance("x", "/nowhere/Ses03F_impro01_F000.wav", 1.0)
    refused(lambda: files.get(other.wav), f"train.emo has no line for Ses03F_impro01_F000; it holds 4 utterances, the first is {NAMES[0]}")
    refused(lambda: files.fill([other, *utterances]), "Ses03F_impro01_F000.wav: ")
    done = files.fill([other, *utterances], skip_bad_audio=True)
    assert done.kept == 4 and [item.id for item in done.skipped] == ["x"] and f"left out {other.wav}: " in caplog.text


def test_frames_that_are_not_those_of_the_audio(prefix):
    files = Emotion2VecFiles(prefix)
    for seconds in (0.97, 1.0, 1.04):  # 47, 49 and 51 frames
        assert len(files.get(NAMES[0], 0, seconds)) == 49
    refused(lambda: files.get(NAMES[0], 0, 1.06), "train.lengths says 49 frames, 1.060 s give 52: the features are of another recording")
    refused(lambda: files.get(NAMES[0], 0, 0.94), "train.lengths says 49 frames, 0.940 s give 46")
    refused(lambda: files.get(NAMES[0], 16000), f"{NAMES[0]}: begins at sample 16000, but")


def test_labels_that_contradict_the_manifest(prefix, utterances):
    files = Emotion2VecFiles(prefix)
    Path(f"{prefix}.emo").write_text(lines(NAMES, ("neu", "hap", "ang", "sad")))
    refused(lambda: Emotion2VecFiles(prefix).fill(utterances), "train.emo calls it 'ang', the manifest 'sad' (2 such utterances)")
    words = [Utterance(u.id, u.wav, u.duration, label="angry") for u in utterances]
    assert files.fill(words).kept == 4  # labels in other words cannot be compared


def test_an_utterance_of_no_frames(prefix, utterances):
    Path(f"{prefix}.lengths").write_text(lines((49, 99, 0, 377)))
    files = Emotion2VecFiles(prefix)
    refused(lambda: files.get(utterances[2].wav, 0, 0.02), "train.lengths gives it 0 frames")


def test_features_that_are_not_finite(prefix):
    spoiled = rows()
    spoiled[49, :3] = np.inf
    np.save(f"{prefix}.npy", spoiled)
    files = Emotion2VecFiles(prefix)
    assert files.get(NAMES[0]).isfinite().all()
    refused(lambda: files.get(NAMES[1]), f"train.npy: 3 of 792 features of {NAMES[1]} are NaN or infinite")


@pytest.mark.parametrize("ending", ["npy", "lengths", "emo"])
def test_a_file_is_missing(prefix, ending):
    Path(f"{prefix}.{ending}").unlink()
    refused(lambda: Emotion2VecFiles(prefix), f"train.{ending}: there is no such file")


@pytest.mark.parametrize(
    ("ending", "content", "said"),
    [
        ("npy", b"", "train.npy: cannot be read ("),
        ("npy", b"no array", "8 bytes): fetch the file again"),
        ("lengths", b"49\n99\nthree\n374\n", "train.lengths:3: 'three' is no number of frames"),
        ("lengths", b"49\n99\n3\n", "do not belong together: 3 lengths, 4 labels"),
        ("lengths", b"49\n99\n3\n375\n", "the lengths sum to 526, there are 525 frames"),
        ("lengths", b"\xff\xfe4", "train.lengths: cannot be read ("),
        ("emo", b"Ses01F_impro01_F000\n", "train.emo:1: 'Ses01F_impro01_F000' is not an utterance and its label"),
        ("emo", b"a\tneu\nb\tneu\na\tsad\nc\tang\n", "train.emo:3: a is there twice"),
    ],
)
def test_files_that_do_not_fit(prefix, ending, content, said):
    Path(f"{prefix}.{ending}").write_bytes(content)
    refused(lambda: Emotion2VecFiles(prefix), said)


def test_arrays_that_do_not_fit(prefix):
    path = Path(f"{prefix}.npy")
    path.write_bytes(path.read_bytes()[:-8])
    refused(lambda: Emotion2VecFiles(prefix), "train.npy: cannot be read (mmap length is greater than file size")
    np.save(path, np.arange(10))
    refused(lambda: Emotion2VecFiles(prefix), "train.npy: holds int64 of shape (10,), expected floats (frames, channels)")
    np.save(path, rows(0))
    refused(lambda: Emotion2VecFiles(prefix), "holds float32 of shape (0, 8)")
