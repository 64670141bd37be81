"""Published models at work: alone as in a list, as the training Brain decodes, windows, long and silent recordings, what is refused."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speechbrain import Stage
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.dataio.preprocess import AudioNormalizer

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import tiny_bundles  # noqa: E402
from fake_librispeech import tone  # noqa: E402

import spikebrain  # noqa: E402
from spikebrain.publishing import recordings, use  # noqa: E402
from spikebrain.publishing.recordings import UseError  # noqa: E402
from spikebrain.training import asr, looking  # noqa: E402

RATE = tiny_bundles.RATE
VERBS = {"attention": use.transcribe, "ctc": use.transcribe, "words": use.classify, "speakers": use.classify, "verify": use.embed}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(name of KINDS) -> a Model in float64, where its spikes do not hang on the order of sums; the host's decoder knows float32 only."""
    made = {}

    def load(kind, **decoding):
        key = (kind, *decoding.items())
        if key not in made:
            made[key] = spikebrain.load(tiny_bundles.write(tmp_path_factory.mktemp(kind), kind, **decoding))
            if kind != "attention":
                made[key].network.double()
        return made[key]

    return load


@pytest.fixture(scope="module")
def sounds():
    """Five recordings that differ in length and in what is heard, each a Tensor."""
    seconds = (0.5, 1.3, 0.9, 2.0, 1.31)
    pitches = [np.linspace(200 + 300 * n, 3500 - 500 * n, int(s * RATE)) for n, s in enumerate(seconds)]
    chirps = [np.sin(2 * np.pi * np.cumsum(pitch) / RATE) for pitch in pitches]
    return [torch.from_numpy(0.2 * chirp).float() + 0.01 * torch.from_numpy(tone(s, 90, RATE)) for chirp, s in zip(chirps, seconds)]


@pytest.fixture
def file_of(tmp_path):
    """(samples, name, rate, ...) -> the path of a file that holds them."""

    def write(wav, name="a.wav", rate=RATE, **options):
        soundfile.write(tmp_path / name, np.asarray(wav), rate, **options)
        return tmp_path / name

    return write


def numbers(answer):
    """What of an answer can be compared: its text, or its scores."""
    if isinstance(answer, use.Named):
        return torch.tensor([*answer.scores.values(), answer.start_s, answer.end_s], dtype=torch.float64)
    return answer


def same(a, b):
    return a == b if isinstance(a, str) else torch.allclose(numbers(a), numbers(b), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", VERBS)
def test_alone_as_in_a_list(tiny, sounds, kind):
    model, verb = tiny(kind), VERBS[kind]
    together, alone = verb(model, sounds), [verb(model, wav) for wav in sounds]
    assert all(map(same, together, alone))
    backwards = verb(model, sounds[::-1])
    assert all(map(same, backwards[::-1], alone))
    assert not any(same(alone[0], other) for other in alone[1:3]), "recordings that all give the same would show nothing"


def test_the_search_hangs_on_its_batch_and_is_therefore_of_one(tiny, sounds):
    """SpeechBrain's searcher, given the same batch at once, ends elsewhere: the reason for searching each alone."""
    model, clips = tiny("attention", ctc_weight_decode=0.0), [use.Clip(wav, "", 0, 1, False) for wav in sounds]
    model.network["seq_lin"].w.bias.data[use.tokens.EOS] -= 5  # it does not end by itself
    counts = torch.tensor([len(wav) for wav in sounds])
    wavs = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    out = model.outputs(wavs, counts / counts.max())
    search = asr.beam_search({**model.decoding, "lm_folder": None, "lm_weight": 0.0, "modules": model.network})
    assert [model.text(ids) for ids in search(out["encoded"], out["lengths"])[0]] != use._texts(model)(out, clips)
    assert use._texts(model)(out, clips) == use.transcribe(model, sounds)


def brain_answers(brain, dataset):
    """(paths of the recordings, what a Brain says of each, asked for one at a time)."""
    paths, answers = [], []
    loader = dict(brain.data.eval_loader)
    loader.pop("batch_sampler", None)
    brain.modules.eval()
    for batch in make_dataloader(dataset, **{**loader, "batch_size": 1}):
        with torch.no_grad():
            out = brain.compute_forward(batch, Stage.TEST)
            if hasattr(brain, "search"):
                (ids,) = brain.search(out)
                out = brain.text(ids)
            elif "classifier" in brain.parts and "embedding_model" in brain.parts:
                out = brain.named(out)[0]
        paths.append(dataset.data[batch.id[0]]["wav"])
        answers.append(out if isinstance(out, str) else out.flatten())
    return paths, answers


def answered(model, paths):
    """What a bundle says of recordings, to compare with a Brain's."""
    if model.task == "asr":
        return model.transcribe(paths)
    if model.task == "verify":
        return use.embed(model, paths)
    scores = [torch.tensor(list(one.scores.values())) for one in model.classify(paths)]
    return scores


@pytest.mark.parametrize("name", ["attention", "ctc", "keywords", "identify", "verify"])
def test_what_the_training_brain_says(name, run_of, model_of, results_of):
    brain = looking.reopened(run_of(name), results_of(name), looking.TASKS)
    dataset = list(brain.data.tests.values())[-1]
    paths, said = brain_answers(brain, dataset)
    found = answered(model_of(name), paths)
    assert len(found) == len(said) > 1
    for ours, theirs in zip(found, said, strict=True):
        if not isinstance(theirs, str):
            theirs = theirs / theirs.sum() if name == "keywords" else theirs
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
        else:
            assert ours == theirs


@pytest.mark.parametrize("name, options", [("a.flac", {}), ("a.wav", {}), ("a.wav", {"subtype": "FLOAT"}), ("a.ogg", {"format": "FLAC"})])
def test_formats(tiny, sounds, file_of, name, options):
    wav = torch.round(sounds[1] * 2**15) / 2**15
    path = file_of(wav, name, **options)
    model = tiny("words")
    expected = use.classify(model, wav)
    with open(path, "rb") as file:
        for given in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), file):
            assert same(use.classify(model, given), expected)


@pytest.mark.parametrize("rate", [16000, 44100, 11025])
def test_other_rates_and_channels_as_speechbrain_converts_them(tiny, file_of, rate):
    wav = np.stack([tone(1.2, 300, rate), 0.5 * tone(1.2, 700, rate)], 1)
    path, model = file_of(wav, rate=rate, subtype="FLOAT"), tiny("words")
    expected = AudioNormalizer(RATE)(torch.from_numpy(wav), rate)
    found = use.classify(model, path)
    assert list(found.scores.values()) == list(use.classify(model, expected).scores.values()) and found.end_s == pytest.approx(1.2)


def test_a_stream_whose_header_promises_too_much_is_read_to_its_end(tiny, sounds, file_of):
    data = bytearray(file_of(sounds[0], subtype="PCM_16").read_bytes())
    place = data.index(b"data")
    data[4:8] = data[place + 4 : place + 8] = struct.pack("<I", 0xFFFFFFFF)
    assert same(use.classify(tiny("words"), bytes(data)), use.classify(tiny("words"), torch.round(sounds[0] * 2**15) / 2**15))


def test_every_window_is_heard_as_a_recording_of_its_own(tiny, sounds):
    model, stream = tiny("words"), torch.cat(sounds)
    found = model.classify(stream, window_s=1.0, hop_s=0.25)
    starts = [one.start_s for one in found]
    assert starts[:3] == [0, 0.25, 0.5] and found[-1].end_s == len(stream) / RATE and {one.end_s - one.start_s for one in found} == {1.0}
    assert max(b - a for a, b in zip(starts, starts[1:])) <= 0.25
    for one in found[::5]:
        alone = use.classify(model, stream[round(one.start_s * RATE) : round(one.end_s * RATE)])
        assert torch.allclose(numbers(one)[:3], numbers(alone)[:3], rtol=0, atol=1e-10)
    assert len({one.score for one in found}) > 5


@pytest.mark.parametrize("seconds", [0.4, 1.0, 1.25, 1.3, 6.01])
@pytest.mark.parametrize("block", [80, 4001])
def test_a_stream_gives_the_windows_of_its_recording(tiny, sounds, seconds, block):
    model, wav = tiny("words"), torch.cat(sounds)[: round(seconds * RATE)]
    streamed = list(model.listen(iter(wav.split(block)), window_s=1.0, hop_s=0.25))
    recorded = model.classify(wav, window_s=1.0, hop_s=0.25)
    assert [one.label for one in streamed] == [one.label for one in recorded]
    assert all(same(a, b) for a, b in zip(streamed, recorded, strict=True))


def test_a_window_is_named_when_it_is_over_and_no_more_is_kept(tiny, sounds):
    model, wav, given = tiny("words"), torch.cat(sounds), []

    def microphone():
        """Blocks of 50 ms, for ever."""
        while True:
            place = 400 * len(given) % (len(wav) - 400)
            given.append(place)
            yield wav[place : place + 400]

    named = model.listen(microphone(), window_s=1.0, hop_s=0.5)
    for number in range(5):
        assert next(named).end_s == 1 + 0.5 * number
        assert len(given) == 20 + 10 * number  # 1 s of blocks, and then 0.5 s each
    (follow,) = [one for one in named.gi_frame.f_locals.values() if hasattr(one, "gi_frame")]
    assert len(follow.gi_frame.f_locals["held"]) <= 1.5 * RATE


def test_streams_that_cannot_be_heard(tiny):
    model = tiny("words")
    with pytest.raises(UseError, match="window: 99 s"):
        model.listen([], window_s=99)  # at once, not when the first window is asked for
    with pytest.raises(UseError, match="samples: 0 samples at"):
        list(model.listen([], window_s=1.0))
    with pytest.raises(UseError, match=r"samples: \(2, 8\) of torch.float32, expected"):
        list(model.listen([torch.zeros(2, 8)], window_s=1.0))
    with pytest.raises(UseError, match="listen: this is a bundle of the task verify"):
        tiny("verify").listen([], window_s=1.0)


def test_windows_of_files_at_another_rate(tiny, file_of):
    wav = np.concatenate([tone(0.7, 300, 16000), tone(0.8, 900, 16000)])
    path, model = file_of(wav, rate=16000, subtype="FLOAT"), tiny("words")
    first, last = model.classify(path, window_s=1.0)[0], model.classify(path, window_s=1.0)[-1]
    for one in (first, last):
        part = wav[round(one.start_s * 16000) : round(one.end_s * 16000)]
        assert list(one.scores.values()) == list(use.classify(model, file_of(part, "b.wav", 16000, subtype="FLOAT")).scores.values())
    (short,) = model.classify(path, window_s=1.6)
    assert (short.start_s, short.end_s) == (0, 1.5)


def test_clips_are_cut_and_padded_as_in_training(tiny, sounds, caplog):
    plain, cut, padded = tiny("words"), tiny("words", seconds=1.0), tiny("words", seconds=1.0, pad=True)
    long, short = sounds[1], sounds[0]
    assert numbers(cut.classify(long))[:3].tolist() == numbers(plain.classify(long[:RATE]))[:3].tolist()
    assert "its first 1 s are heard of 1.30 s" in caplog.text
    assert same(cut.classify(short), plain.classify(short))
    filled = torch.nn.functional.pad(short, (0, RATE - len(short)))
    assert numbers(padded.classify(short))[:3].tolist() == numbers(plain.classify(filled))[:3].tolist()
    assert not same(padded.classify(short), cut.classify(short))
    with pytest.raises(UseError, match="window: 1.5 s, but this model hears 0.1 to 1 s at once"):
        cut.classify(long, window_s=1.5)


def test_the_published_front_end_hears_other_lengths_one_by_one(tmp_path, sounds, monkeypatch):
    task, network, labels, decoding = tiny_bundles.KINDS["words"]
    paper = {"part": "FrameRateMel", "arguments": {"frames": 40, "sample_rate": RATE, "preset": "paper", "n_mels": 8}}
    monkeypatch.setitem(tiny_bundles.KINDS, "paper", (task, {**network, "features": paper}, labels, decoding))
    model = spikebrain.load(tiny_bundles.write(tmp_path, "paper"))
    model.network.double()
    assert all(map(same, model.classify(sounds), [model.classify(wav) for wav in sounds]))


def speech_and_pauses(pauses, seconds, rate=RATE):
    """A buzz of so many ``seconds`` with silence of 0.4 s around each of ``pauses`` (seconds)."""
    wav = tone(seconds, 150, rate)
    for place in pauses:
        wav[int((place - 0.2) * rate) : int((place + 0.2) * rate)] = 0
    return wav


def test_long_recordings_are_cut_in_pauses(tiny, file_of, monkeypatch):
    monkeypatch.setitem(use.LIMITS_S, "asr", 2.0)
    pauses, model = (1.4, 2.8, 4.5, 5.6), tiny("ctc")
    path = file_of(speech_and_pauses(pauses, 7.0), subtype="FLOAT")
    whole = recordings.Recording(str(path), "a", RATE)
    pieces = list(recordings.stretches(whole, 2.0))
    ends = np.cumsum([count for _, count in pieces]).tolist()
    assert [start for start, _ in pieces] == [0, *ends[:-1]] and ends[-1] == whole.samples
    cuts = [start / RATE for start, _ in pieces[1:]]
    assert len(cuts) == 4 and all(min(abs(cut - pause) for pause in pauses) < 0.15 for cut in cuts)
    wav = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    texts = [use.transcribe(model, wav[start : start + count]) for start, count in pieces]
    assert model.transcribe(path) == " ".join(one for one in texts if one) and len(set(texts)) > 1


def test_an_hour_is_cut_without_being_held(file_of):
    path = file_of(np.tile(speech_and_pauses([9.5], 10, 2000).astype("float32"), 360), rate=2000, subtype="PCM_16")
    hour, read = recordings.Recording(str(path), "hour", 2000), []
    inner, hour.read = hour.read, lambda start, count: read.append(count) or inner(start, count)
    pieces = list(recordings.stretches(hour, 40.0))
    assert hour.seconds == 3600 and sum(count for _, count in pieces) == hour.samples and max(read) <= 20 * 2000
    assert all(0.1 < count / 2000 <= 40 for _, count in pieces) and 89 < len(pieces) < 110
    assert all(abs(start / 2000 % 10 - 9.5) < 0.15 for start, _ in pieces[1:])


@pytest.mark.full
def test_an_hour_is_transcribed_and_spotted(tiny, file_of):
    path = file_of(np.tile(speech_and_pauses([9.5], 10).astype("float32"), 360), subtype="PCM_16")
    assert len(tiny("ctc").transcribe(path)) > 1000
    assert len(tiny("words").classify(path, window_s=1.0, hop_s=0.5)) == 7199


@pytest.mark.parametrize("rate", [8000, 11025, 44100])
def test_no_piece_is_too_short_to_be_heard(rate):
    wav = torch.ones(2 * rate + 1)
    wav[-rate // 2 :] = 0  # the quietest place is the last one, and 1 sample is left behind it
    counts = [count for _, count in recordings.stretches(recordings.Samples(wav, rate), 2.0)]
    assert len(counts) == 2 and 0.1 * rate <= counts[1] < 0.13 * rate
    for place in (0.35, 0.7):
        quiet = torch.ones(rate, 2)
        quiet[int((place - 0.1) * rate) : int((place + 0.1) * rate)] = 0.01
        assert abs(recordings.quietest(quiet, rate) / rate - place) < 0.03


def test_silence_is_not_asked_about(tiny, sounds):
    silent = torch.full((RATE,), 2.0**-15)
    assert tiny("ctc").transcribe([silent, sounds[0]]) == ["", tiny("ctc").transcribe(sounds[0])]
    for kind in ("words", "speakers"):
        assert tiny(kind).classify(silent) == use.Named(None, 0.0, 0.0, 1.0, {})
    with pytest.raises(UseError, match="samples: is silent, no sample lies above 3e-05"):
        tiny("verify").verify(silent, sounds[0])
    stream = torch.cat([sounds[2], silent, sounds[2]])
    assert [one.label is None for one in tiny("words").classify(stream, window_s=0.9, hop_s=0.9)] == [False, True, False, False]


def test_a_model_with_a_class_for_silence_is_asked(tiny, monkeypatch):
    model = tiny("words")
    monkeypatch.setattr(model, "labels", ("no", "_silence_", "yes"))
    assert model.classify(torch.zeros(RATE)).label in model.labels


def test_speakers_are_compared_by_the_cosine_of_centred_embeddings(tiny, sounds, monkeypatch):
    model = tiny("verify")
    a, b = use.embed(model, sounds[:2])
    assert model.verify(*sounds[:2]).score == pytest.approx(float(torch.nn.functional.cosine_similarity(a, b, dim=0)), abs=1e-12)
    assert model.verify(sounds[0], sounds[0]).score == pytest.approx(1) and model.verify(*sounds[:2]).same is None
    monkeypatch.setattr(model, "centre", torch.arange(len(a)) / 10.0)
    centred = [one - model.centre.double() for one in (a, b)]
    expected = float(torch.nn.functional.cosine_similarity(*centred, dim=0))
    scores = model.verify([(sounds[0], sounds[1]), (sounds[1], sounds[0]), (sounds[2], sounds[0])])
    assert [one.score for one in scores[:2]] == pytest.approx([expected, expected], abs=1e-12) and scores[2].score != scores[0].score
    score = scores[0].score
    assert [model.verify(*sounds[:2], threshold=limit).same for limit in (score - 1e-3, score + 1e-3)] == [True, False]


def test_the_threshold_of_the_bundle(tiny, sounds):
    assert tiny("verify", threshold=-1.0).verify(*sounds[:2]).same and not tiny("verify", threshold=1.0).verify(*sounds[:2]).same


def test_who_is_compared_with_many_is_heard_once(tiny, sounds, file_of, monkeypatch):
    model, heard = tiny("verify"), []
    paths = [file_of(wav, f"{n}.wav") for n, wav in enumerate(sounds[:3])]
    outputs = model.outputs
    monkeypatch.setattr(model, "outputs", lambda wavs, lengths: heard.append(len(wavs)) or outputs(wavs, lengths))
    model.verify([(str(paths[0]), paths[1]), (paths[0], paths[2])])
    assert sum(heard) == 3


def broken(kind, folder):
    """A file that cannot be heard."""
    path, sound = folder / f"{kind}.wav", tone(1.0, 200, RATE)
    if kind == "text":
        path.write_text("It says that it is audio.\n")
    elif kind == "nothing":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "nan":
        soundfile.write(path, np.where(np.arange(RATE) % 100, sound, np.nan), RATE, subtype="FLOAT")
    elif kind == "cut":
        soundfile.write(path, sound, RATE, subtype="PCM_16")
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == "cut_flac":
        path = path.with_suffix(".flac")
        soundfile.write(path, sound, RATE, subtype="PCM_16")
        path.write_bytes(path.read_bytes()[:3000])
    elif kind != "missing":
        wav, rate = {
            "no_samples": (sound[:0], RATE), "short": (sound[: RATE // 20], RATE), "odd_rate": (sound, 8009),
            "channels": (np.zeros((RATE, 40)), RATE), "long": (np.tile(sound, 41), RATE),
        }[kind]  # fmt: skip
        soundfile.write(path, wav, rate, subtype="PCM_16")
    return path


REFUSED = [
    ("missing", "there is no such file"),
    ("folder", "is a folder: name files"),
    ("nothing", "is empty (0 bytes): restore the file"),
    ("text", "is no audio that can be read (26 bytes): give WAV or FLAC"),
    ("no_samples", "holds 0 samples"),
    ("short", "400 samples at 8000 Hz are 0.050 s: give 0.1 s or more"),
    ("nan", "80 of 8000 samples are NaN or infinite: restore the file"),
    ("cut", "is truncated or damaged"),
    ("cut_flac", "is truncated or damaged"),
    ("odd_rate", "has a sample rate of 8009 Hz, and 8009 to 8000 Hz takes 8000 filters, at most 1000 are made: resample it to 8000 Hz"),
    ("channels", "has 40 channels, at most 32 are mixed down"),
    ("long", "is 41.0 s long, at most 40 s are heard at once: cut it, or set a window"),
]


@pytest.mark.parametrize("kind, said", REFUSED)
def test_what_cannot_be_heard_is_one_message(tiny, tmp_path, kind, said):
    path = broken(kind, tmp_path)
    with pytest.raises(UseError) as error:
        tiny("words").classify(path)
    assert str(error.value).startswith(f"{path}: ") and said in str(error.value) and "\n" not in str(error.value)


def test_the_rest_of_a_list_is_heard_where_errors_are_returned(tiny, tmp_path, file_of, sounds):
    good, model = [file_of(wav, f"{n}.wav", subtype="FLOAT") for n, wav in enumerate(sounds)], tiny("ctc")
    bad = [broken(kind, tmp_path) for kind in ("text", "nan", "short")]
    mixed = [good[0], bad[0], good[1], good[2], bad[1], bad[2], good[3], good[4]]
    found = use.transcribe(model, mixed, errors="return")
    assert [isinstance(one, UseError) for one in found] == [path in bad for path in mixed]
    assert [one for one in found if isinstance(one, str)] == use.transcribe(model, good)
    assert [str(one).split(":")[0] for one in found if isinstance(one, UseError)] == [str(path) for path in bad]
    with pytest.raises(UseError, match="text.wav"):
        use.transcribe(model, mixed)


@pytest.mark.parametrize(
    "kind, call, said",
    [
        ("words", lambda m, w: m.transcribe(w), "transcribe: this is a bundle of the task classify, expected asr: use classify"),
        ("ctc", lambda m, w: m.classify(w), "of the task asr, expected classify or identify: use transcribe"),
        ("speakers", lambda m, w: m.verify(w, w), "of the task identify, expected verify: use classify"),
        ("words", lambda m, w: m.classify(w, window_s=0.01), "window: 0.01 s, but this model hears 0.1 to 40 s at once"),
        ("words", lambda m, w: m.classify(w, window_s=1.0, hop_s=1.5), "hop: 1.5 s, expected 0.01 to 1, the window"),
        ("words", lambda m, w: m.classify(w, window_s=1.0, hop_s=0.0), "hop: 0 s, expected 0.01 to 1"),
        ("words", lambda m, w: m.classify(w, hop_s=0.5), "hop: 0.5 s, but there is no window"),
        ("words", lambda m, w: m.classify(w, errors="ignore"), "errors: 'ignore' is none of raise, return"),
        ("words", lambda m, w: m.classify(w.unsqueeze(0)), "samples: (1, 10400) of torch.float32, expected (S,)"),
        ("words", lambda m, w: m.classify(w * float("nan")), "10400 of 10400 samples are NaN or infinite"),
        ("words", lambda m, w: m.classify(w[:10]), "samples: 10 samples at 8000 Hz are 0.001 s"),
        ("verify", lambda m, w: m.verify([(w, w), (w,)]), "verify: got a recording alone, and 2 are compared"),
        ("verify", lambda m, w: m.verify("a.wav"), "verify: got a recording alone, and 2 are compared"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny, sounds, kind, call, said):
    with pytest.raises(UseError) as error:
        call(tiny(kind), sounds[1])
    assert said in str(error.value)


def test_recognisers_hear_one_recording_after_the_other(tiny, sounds, monkeypatch):
    model, heard = tiny("ctc"), []
    outputs = type(model).outputs
    monkeypatch.setattr(type(model), "outputs", lambda self, wavs, lengths: heard.append(len(wavs)) or outputs(self, wavs, lengths))
    model.transcribe(sounds)
    tiny("words").classify(sounds)
    assert heard == [1] * len(sounds) + [len(sounds)]


def test_batches_are_sorted_and_bounded():
    seconds = torch.rand(500, generator=torch.Generator().manual_seed(1)).mul(30).tolist() + [100.0, 0.1, 0.1]
    made = use.batches(seconds, 64)
    assert sorted(row for batch in made for row in batch) == list(range(len(seconds)))
    assert max(map(len, made)) <= 64
    assert all(len(batch) == 1 or len(batch) * max(seconds[row] for row in batch) <= use.BATCH_S for batch in made)
    assert [seconds[row] for batch in made for row in batch] == sorted(seconds) and use.batches([], 64) == []
    assert len(use.batches([1.0] * 200, 64)) == 4 and len(use.batches([1.0] * 200, 1)) == 200
