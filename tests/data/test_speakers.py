"""Batches for speaker recognition: random crops, whole utterances, noise and rooms from folders, and draws that repeat themselves."""

import sys
from pathlib import Path

import pytest
import soundfile
import torch
from speechbrain.dataio.dataloader import make_dataloader

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import fake_voxceleb  # noqa: E402

from spikebrain.data.corpora import voxceleb  # noqa: E402
from spikebrain.data.manifest import DataError  # noqa: E402
from spikebrain.data.speakers import Corrupt, SpeakerDataOptions, SpeakerRecordings, sounds  # noqa: E402

RATE = fake_voxceleb.RATE


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(tree, Preparation) of the fake tree's verification."""
    tree = fake_voxceleb.make_tree(tmp_path_factory.mktemp("speakers") / "VoxCeleb")
    return tree, voxceleb.prepare(str(tree), str(tree.parent / "save"), ["vox1-dev", "vox1-valid", "vox1-o"], valid_share=0.4)


@pytest.fixture
def recordings(prepared):
    """Recordings of the tree with any options."""

    def make(**options):
        tree, done = prepared
        paths = done.manifests
        options = SpeakerDataOptions(**{"seconds": 0.1, "batch_size": 4, **options})
        return SpeakerRecordings([paths["vox1-dev"]], [paths["vox1-valid"]], {}, {"vox1-o": paths["vox1-o"]}, str(tree), options)

    return make


@pytest.fixture
def folder(tmp_path):
    """Two noises in a folder in a folder, one of them shorter than an utterance."""
    torch.manual_seed(1)
    place = tmp_path / "noises" / "deeper"
    place.mkdir(parents=True)
    soundfile.write(place / "long.wav", (0.1 * torch.randn(RATE)).numpy(), RATE)
    soundfile.write(place / "short.flac", (0.1 * torch.randn(300)).numpy(), RATE)
    (place / "README").write_text("no sound")
    return tmp_path / "noises"


def test_training_hears_random_crops_and_everything_else_whole_utterances(recordings):
    data = recordings().data()
    torch.manual_seed(0)
    seen = [data.train[0]["sig"] for _ in range(20)]
    assert {len(wav) for wav in seen} == {1600} and len({tuple(wav[:5].tolist()) for wav in seen}) > 15
    assert {len(data.valid[i]["sig"]) for i in range(len(data.valid))} == {fake_voxceleb.SAMPLES}
    assert set(data.tests) == {"vox1-o"} and set(data.tests["vox1-o"][0]) == {"id", "sig"}
    assert data.train[0]["label_encoded"].tolist() == [0]
    long = recordings(seconds=0.4).data().train[0]["sig"]
    assert len(long) == 6400 and torch.equal(long[:2400], long[4000:])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_seed_draws_the_same_batches(recordings, workers):
    """In this process draws are of torch's generator; those of workers follow from the loader's generator, which recipes save too."""
    epochs = []
    for seed in (0, 0, 1):
        data = recordings(num_workers=workers, gaussian_snr=(10, 25), seed=seed).data()
        torch.manual_seed(seed)
        epochs.append([batch.sig.data for batch in make_dataloader(data.train, **data.train_loader)])
    assert all(torch.equal(a, b) for a, b in zip(epochs[0], epochs[1], strict=True))
    assert not torch.equal(epochs[0][0], epochs[2][0])


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_and_every_worker_draws_anew(recordings, workers):
    options = {"num_workers": workers, "gaussian_snr": (0, 0), "corruption": 1.0, "seconds": fake_voxceleb.SAMPLES / RATE}
    data = recordings(**options).data()  # crops as long as the utterances: only the noise is drawn
    loader = make_dataloader(data.train, **{**data.train_loader, "shuffle": False})
    epochs = [torch.cat([batch.sig.data for batch in loader]) for _ in range(2)]
    clean = torch.stack([recordings().reader(item["wav"], 0, 1.0) for item in data.train.data.values()])
    first, second = (torch.nn.functional.normalize(epoch - clean, dim=1) for epoch in epochs)
    assert (first * second).sum(1).abs().max() < 0.1, "an epoch draws what another drew"
    others = (first @ first.T - torch.eye(len(first))).abs()
    assert others.max() < 0.1, "an utterance gets the noise of another, as where two workers draw alike"


def test_recordings_may_be_kept_in_memory(prepared, recordings, monkeypatch):
    data = recordings(cache_audio=True).data()
    monkeypatch.setattr("spikebrain.data.pipelines.audio.load", lambda *those: pytest.fail("was read again"))
    assert len(data.train[3]["sig"]) == 1600


def test_noise_rooms_and_volume_change_a_training_utterance(folder, recordings):
    quiet = recordings().data()
    torch.manual_seed(0)
    clean = quiet.train[0]["sig"]
    alone = {
        "noise_folder": {"noise_folder": str(folder)}, "rir_folder": {"rir_folder": str(folder)},
        "gaussian_snr": {"gaussian_snr": (10, 10)}, "volume_db": {"volume_db": (-20, -20)},
    }  # fmt: skip
    for name, options in alone.items():
        corrupt = Corrupt(SpeakerDataOptions(corruption=1.0, **options))
        changed = corrupt(clean)
        assert changed.shape == clean.shape and not torch.allclose(changed, clean, atol=1e-4), name
        assert torch.equal(Corrupt(SpeakerDataOptions(corruption=0.0, **options))(clean), clean)
        assert torch.isfinite(changed).all()
    assert torch.allclose(Corrupt(SpeakerDataOptions(corruption=1.0, volume_db=(-20, -20)))(clean), 0.1 * clean)
    noisy = Corrupt(SpeakerDataOptions(corruption=1.0, noise_folder=str(folder)))
    snr = [float(10 * (clean.square().mean() / (noisy(clean) - clean).square().mean()).log10()) for _ in range(20)]
    assert min(snr) >= 15 - 1e-2 and max(snr) <= 25 + 1e-2 and max(snr) - min(snr) > 3
    torch.manual_seed(0)
    assert torch.equal(recordings(noise_folder=str(folder), corruption=0.0).data().valid[0]["sig"], quiet.valid[0]["sig"])


def test_nothing_is_drawn_for_changes_that_nobody_asked_for(recordings):
    corrupt, before = Corrupt(SpeakerDataOptions(corruption=1.0)), torch.get_rng_state()
    wav = torch.randn(10, generator=torch.Generator())
    assert corrupt(wav) is wav and torch.equal(torch.get_rng_state(), before)


def test_a_loud_noise_of_more_channels_gives_its_first(tmp_path):
    both = torch.stack([torch.ones(50), torch.zeros(50)], 1)
    soundfile.write(tmp_path / "two.wav", (0.5 * both).numpy(), RATE)
    corrupt = Corrupt(SpeakerDataOptions(noise_folder=str(tmp_path), noise_snr=(0, 0), corruption=1.0))
    assert torch.allclose(corrupt(0.25 * torch.ones(30)), 0.5 * torch.ones(30), atol=1e-3)


def test_a_silent_room_is_named(tmp_path):
    soundfile.write(tmp_path / "silent.wav", torch.zeros(50).numpy(), RATE)
    corrupt = Corrupt(SpeakerDataOptions(rir_folder=str(tmp_path), corruption=1.0))
    with pytest.raises(DataError, match=r"rir_folder: .*silent\.wav: the impulse response is silent: leave the file out"):
        corrupt(torch.ones(30))


def test_folders_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(DataError, match=r"noise_folder: .*nowhere: there is no such folder"):
        sounds(str(tmp_path / "nowhere"), "noise_folder", RATE)
    with pytest.raises(DataError, match=r"rir_folder: .*holds 0 \.wav or \.flac files"):
        sounds(str(tmp_path), "rir_folder", RATE)
    soundfile.write(tmp_path / "slow.wav", torch.zeros(10).numpy(), 8000)
    with pytest.raises(DataError, match=r"noise_folder: .*slow.wav: has 8000 Hz and 10 samples, expected 16000 Hz"):
        sounds(str(tmp_path), "noise_folder", RATE)
    (tmp_path / "slow.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"slow.wav: cannot be read"):
        sounds(str(tmp_path), "noise_folder", RATE)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"seconds": 0}, "seconds: 0 is no length to train on"),
        ({"seconds": None}, "seconds: None"),
        ({"corruption": 1.5}, "corruption: 1.5 is no probability"),
        ({"noise_snr": (25, 15)}, r"noise_snr: \[25, 15\] is no range"),
        ({"volume_db": (1,)}, r"volume_db: \[1\] is no range"),
        ({"gaussian_snr": 15}, r"gaussian_snr: 15 is no range: give the lowest and the highest dB, such as \[15, 25\], or null"),
        ({"gaussian_snr": ("a", "b")}, r"gaussian_snr: \['a', 'b'\] is no range"),
        ({"noise_snr": None}, r"noise_snr: None is no range: give the lowest and the highest dB, such as \[15, 25\]$"),
        ({"batch_size": 0}, "batch_size: 0 utterances make no batch"),
    ],
)
def test_options_that_cannot_be_are_refused(recordings, options, message):
    with pytest.raises(DataError, match=message):
        recordings(**options)


def test_one_speaker_is_no_task(prepared, tmp_path):
    tree, done = prepared
    lines = Path(done.manifests["vox1-dev"]).read_text().splitlines()
    (tmp_path / "one.csv").write_text("\n".join([lines[0], *(line for line in lines[1:] if "id10001" in line)]) + "\n")
    with pytest.raises(DataError, match="hold 1 class: id10001: a task needs 2 or more"):
        SpeakerRecordings([str(tmp_path / "one.csv")], [], {}, {}, str(tree))
