"""From manifests to batches: names, tokens, order, speed, memory, workers, and utterances that are too short."""

import collections
import pickle
from dataclasses import replace

import pytest
import torch
from fake_librispeech import WORDS, make_tree
from speechbrain.dataio.dataloader import make_dataloader

from spikebrain.data import manifest, pipelines, tokens
from spikebrain.data.corpora import librispeech
from spikebrain.data.manifest import DataError, Utterance
from spikebrain.data.pipelines import AsrDataOptions
from spikebrain.data.tokens import TokenizerSettings


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Folder, manifests and tokenizer of a fake tree with 40 training utterances."""
    folder = tmp_path_factory.mktemp("corpus")
    tree = make_tree(folder / "LibriSpeech", ("train-clean-100", "dev-clean", "test-clean", "test-other"), 4, 10)
    made = librispeech.prepare(str(tree), str(folder / "save")).manifests
    return str(tree), made, tokens.train([made["train-clean-100"]], str(folder / "t.model"), TokenizerSettings(24))


def data(corpus, **options):
    tree, made, tokenizer = corpus
    tests = {name: made[name] for name in ("test-clean", "test-other")}
    return pipelines.asr_data([made["train-clean-100"]], [made["dev-clean"]], tests, tree, tokenizer, AsrDataOptions(**options))


def batches(dataset, loader):
    return list(make_dataloader(dataset, **loader))


def signals(dataset, loader):
    """id -> samples without padding."""
    out = {}
    for batch in batches(dataset, loader):
        wavs, lengths = batch.sig
        counts = (lengths * wavs.shape[1]).round().long()
        out.update({name: wav[:count] for name, wav, count in zip(batch.id, wavs, counts, strict=True)})
    return out


def test_a_batch_has_the_names_of_stock_recipes(corpus):
    made = data(corpus)
    batch = batches(made.valid, made.eval_loader)[0]
    tree, manifests, tokenizer = corpus
    utterances = {u.id: u for u in manifest.read(manifests["dev-clean"])}
    for i, name in enumerate(batch.id):
        ids = tokenizer.encode(utterances[name].text)
        assert batch.wrd[i] == utterances[name].text
        assert batch.tokens.data[i, : len(ids)].tolist() == ids
        assert batch.tokens_bos.data[i, : len(ids) + 1].tolist() == [1, *ids]
        assert batch.tokens_eos.data[i, : len(ids) + 1].tolist() == [*ids, 2]
    assert batch.sig.data.dtype == torch.float32
    assert made.valid.data_ids and list(made.tests) == ["test-clean", "test-other"]


def test_samples_are_those_of_the_file(corpus):
    made = data(corpus)
    tree, manifests, _ = corpus
    expected = {u.id: pipelines.audio.load(f"{tree}/{u.wav}", 16000) for u in manifest.read(manifests["train-clean-100"])}
    for loader in (made.train_loader, {**made.train_loader, "num_workers": 2}):
        found = signals(made.train, loader)
        assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in found)


def test_evaluation_begins_with_the_shortest(corpus):
    made = data(corpus, eval_batch_size=1)
    samples = [batch.sig.data.shape[1] for batch in batches(made.valid, made.eval_loader)]
    assert samples == sorted(samples) and samples[0] < samples[-1]


@pytest.mark.parametrize("sorting", pipelines.SORTINGS)
def test_sorting(corpus, sorting):
    made = data(corpus, sorting=sorting, batch_size=1)
    order = [made.train.data[batch.id[0]]["duration"] for batch in batches(made.train, {k: v for k, v in made.train_loader.items()})]
    assert len(order) == 40
    assert {"ascending": order == sorted(order), "descending": order == sorted(order)[::-1], "random": order != sorted(order)}[sorting]


@pytest.mark.parametrize("limit", [4.0, 8.0, 1000.0])
@pytest.mark.parametrize("buckets", [1, 3, 50])
def test_dynamic_batches_cover_every_utterance_once(corpus, limit, buckets):
    made = data(corpus, max_batch_length=limit, num_buckets=buckets)
    duration = {name: item["duration"] for name, item in made.train.data.items()}
    seen = collections.Counter()
    for batch in made.train_sampler:
        names = [made.train.data_ids[i] for i in batch]
        seen.update(names)
        assert max(duration[n] for n in names) * len(names) <= limit or len(names) == 1
    assert seen == collections.Counter(list(duration))


def test_dynamic_batches_waste_little(corpus):
    def padded(buckets):
        made = data(corpus, max_batch_length=8.0, num_buckets=buckets)
        lengths = [[made.train.data[made.train.data_ids[i]]["duration"] for i in batch] for batch in made.train_sampler]
        return sum(max(batch) * len(batch) for batch in lengths) / sum(map(sum, lengths))

    assert padded(10) < 1.1 < padded(1)


def test_dynamic_batches_differ_by_epoch_and_repeat_by_seed(corpus):
    def epochs(seed):
        sampler = data(corpus, max_batch_length=6.0, num_buckets=3, seed=seed).train_sampler
        out = []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            out.append([list(batch) for batch in sampler])
        return out

    first = epochs(1)
    assert first == epochs(1) and first != epochs(2)
    assert first[0] != first[1] != first[2]


def test_dynamic_batches_are_bounded_in_number(corpus):
    made = data(corpus, max_batch_length=1000.0, num_buckets=1, max_batch_ex=7)
    assert [len(batch) for batch in batches(made.train, made.train_loader)].count(7) == 5


def test_speed_changes_length_not_words(corpus):
    plain, fast = data(corpus), data(corpus, speeds=(90, 100, 110))
    torch.manual_seed(0)
    a, b = signals(plain.train, plain.train_loader), signals(fast.train, fast.train_loader)
    ratios = {name: len(b[name]) / len(a[name]) for name in a}
    near = collections.Counter(min((1 / 0.9, 1.0, 1 / 1.1), key=lambda r: abs(r - ratio)) for ratio in ratios.values())
    assert set(near) == {1 / 0.9, 1.0, 1 / 1.1}
    assert all(min(abs(ratio - r) for r in near) < 1e-3 for ratio in ratios.values())
    a, b = signals(plain.valid, plain.eval_loader), signals(fast.valid, fast.eval_loader)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("workers", [0, 2])
def test_speed_is_repeatable(corpus, workers):
    def run(seed):
        made = data(corpus, speeds=(90, 100, 110), sorting="ascending", num_workers=workers, seed=seed)
        torch.manual_seed(seed)
        return [{name: len(wav) for name, wav in signals(made.train, made.train_loader).items()} for _ in range(2)]

    first = run(3)
    assert first == run(3) and first != run(4)
    assert first[0] != first[1]


def test_cache_changes_nothing_and_reads_no_file(corpus, monkeypatch):
    plain, cached = data(corpus), data(corpus, cache_audio=True)
    expected = signals(plain.train, plain.train_loader)
    monkeypatch.setattr(pipelines.audio, "load", lambda *_: pytest.fail("read a file"))
    found = signals(cached.train, cached.train_loader)
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in found)


def test_cache_keeps_what_int16_cannot():
    wav = torch.tensor([0.1, -0.25, 1.0])
    assert pipelines._encode(wav) is wav
    exact = torch.tensor([-1.0, 0.5, 32767 / 32768])
    assert pipelines._encode(exact).dtype == torch.int16 and torch.equal(pipelines._decode(pipelines._encode(exact)), exact)


def test_datasets_can_be_pickled(corpus):
    made = data(corpus, speeds=(90, 110))
    again = pickle.loads(pickle.dumps(made.train))
    torch.manual_seed(1)
    first = made.train[3]["sig"]
    torch.manual_seed(1)
    assert torch.equal(again[3]["sig"], first)


def test_bad_audio_stops_reading(corpus, tmp_path):
    tree = make_tree(tmp_path / "LibriSpeech", ("train-clean-100",), 1, 2)
    made = librispeech.prepare(str(tree), str(tmp_path / "save")).manifests["train-clean-100"]
    found = pipelines.asr_data([made], [], {}, str(tree), corpus[2])
    (tree / "train-clean-100/100/7/100-7-0001.flac").write_bytes(b"")
    with pytest.raises(DataError, match=r"100-7-0001\.flac: cannot be read"):
        batches(found.train, found.train_loader)
    assert found.valid is None and found.tests == {}


def test_ctc_needs():
    assert pipelines.ctc_frames_needed([]) == 0
    assert pipelines.ctc_frames_needed([4, 5, 4]) == 3
    assert pipelines.ctc_frames_needed([4, 4, 4, 5, 5]) == 8


@pytest.mark.parametrize(("factor", "frames"), [(4, 24), (6, 15)])
def test_encoder_frames(factor, frames):
    # 1 s: 101 feature frames -> 50 -> 24 (4x: 3/2, 3/2); 50 -> (50 - 5) // 3 + 1 = 16 (6x: 3/2, 5/3)
    assert pipelines.encoder_frames(16000, 160, 4) == 24
    assert pipelines.encoder_frames(16000, 160, 6) == 16
    assert pipelines.encoder_frames(100, 160, factor) == 0


def test_ctc_loss_is_finite_exactly_at_the_limit():
    ids = [4, 4, 5]
    needed = pipelines.ctc_frames_needed(ids)
    for frames, finite in ((needed, True), (needed - 1, False)):
        loss = torch.nn.functional.ctc_loss(torch.zeros(frames, 1, 8).log_softmax(-1), torch.tensor([ids]), [frames], [len(ids)])
        assert bool(torch.isfinite(loss)) is finite


def shortened(corpus, tmp_path, split, seconds):
    """The manifests, with the last utterance of ``split`` claimed to last ``seconds``."""
    tree, made, tokenizer = corpus
    utterances = manifest.read(made[split])
    utterances[-1] = replace(utterances[-1], duration=seconds, text="SEVEN EIGHT NINE SEVEN")
    path = str(tmp_path / f"{split}.csv")
    manifest.write(path, utterances)
    return {**made, split: path}, utterances[-1]


def test_too_short_for_its_tokens(corpus, tmp_path):
    tree, _, tokenizer = corpus
    made, last = shortened(corpus, tmp_path, "train-clean-100", 0.2)
    needed = pipelines.ctc_frames_needed(tokenizer.encode(last.text))
    with pytest.raises(DataError) as error:
        pipelines.asr_data([made["train-clean-100"]], [], {}, tree, tokenizer)
    assert f"{last.id}: 0.200 s give 4 frames after 4x subsampling, its tokens need {needed}" in str(error.value)
    assert "leave such utterances out with --skip_bad_audio=True" in str(error.value)
    found = pipelines.asr_data([made["train-clean-100"]], [], {}, tree, tokenizer, AsrDataOptions(skip_short=True))
    assert [item.id for item in found.dropped] == [last.id] and len(found.train) == 39 and last.id not in found.train.data_ids


def test_too_short_behind_pooling(corpus):
    """0.21 s are 22 feature frames, of which 4 are left by convolutions and 6 by pooling."""
    utterance, tokenizer = Utterance("u", "u.flac", 0.21, "s", "SEVEN EIGHT NINE SEVEN"), corpus[2]
    for kind, said in ((4, "4 frames after 4x subsampling"), ("vgg", "6 frames after vgg subsampling")):
        _, (short,) = pipelines.check_ctc_lengths([utterance], tokenizer, AsrDataOptions(subsampling=kind, skip_short=True))
        assert said in short.reason


def test_too_short_at_the_fastest_speed(corpus, tmp_path):
    tree, _, tokenizer = corpus
    options = AsrDataOptions()
    text = "SEVEN EIGHT NINE SEVEN"
    needed = pipelines.ctc_frames_needed(tokenizer.encode(text))
    seconds = next(n / 100 for n in range(1, 300) if pipelines.encoder_frames(n * 160) >= needed)
    utterance = [Utterance("u", "u.flac", seconds, "s", text)]
    assert pipelines.check_ctc_lengths(utterance, tokenizer, options) == (utterance, [])
    with pytest.raises(DataError, match=r"subsampling at speed 110 %, its tokens need"):
        pipelines.check_ctc_lengths(utterance, tokenizer, options, speed=110)


def test_too_short_for_validation(corpus, tmp_path):
    tree, _, tokenizer = corpus
    made, last = shortened(corpus, tmp_path, "dev-clean", 0.2)
    with pytest.raises(DataError, match=f"{last.id}: 0.200 s give 4 frames"):
        pipelines.asr_data([made["train-clean-100"]], [made["dev-clean"]], {}, tree, tokenizer)
    found = pipelines.asr_data([], [made["dev-clean"]], {}, tree, tokenizer, AsrDataOptions(skip_short=True))
    assert len(found.valid) == 40 and found.train is None


def test_max_duration(corpus):
    made = data(corpus, max_duration=1.45)
    assert len(made.train) == 20 == len(made.dropped)
    assert {item.reason for item in made.dropped} == {f"lasts 1.{n}00 s, max_duration is 1.45 s" for n in range(5, 10)}
    with pytest.raises(DataError, match="all 40 training utterances were left out as too long or too short: raise max_duration: 0.5"):
        data(corpus, max_duration=0.5)


def test_unknown_characters_are_told(corpus, tmp_path, caplog):
    tree, made, tokenizer = corpus
    utterances = manifest.read(made["train-clean-100"])
    utterances[2] = replace(utterances[2], text="QUARTZ")
    manifest.write(tmp_path / "train.csv", utterances)
    pipelines.asr_data([str(tmp_path / "train.csv")], [], {}, tree, tokenizer)
    assert f"1 training transcripts hold characters that the tokenizer does not know, the first is {utterances[2].id}" in caplog.text


def test_unknown_characters_of_tests_are_counted(corpus, tmp_path, caplog):
    tree, made, tokenizer = corpus
    utterances = manifest.read(made["test-clean"])
    utterances[2], utterances[5] = replace(utterances[2], text="QUARTZ ONE"), replace(utterances[5], text="DAY TWO DAY")
    manifest.write(tmp_path / "test.csv", utterances)
    made_of = pipelines.asr_data([], [made["dev-clean"]], {"test-clean": tmp_path / "test.csv"}, tree, tokenizer)
    known = set("".join(WORDS))
    unknown = [c for u in sorted(utterances, key=lambda u: u.duration) for c in u.text if c not in known | {" "}]
    told = [r.getMessage() for r in caplog.records if "does not know" in r.getMessage()]
    assert len(told) == 1 and len(made_of.tests["test-clean"]) == len(utterances)
    different = list(dict.fromkeys(unknown))
    expected = f"test-clean: 2 of {len(utterances)} transcripts hold {len(unknown)} characters that the tokenizer does not know "
    assert told[0].startswith(expected + f"({len(different)} different: {' '.join(different)})")


def test_unknown_characters_of_validation_are_told_once(corpus, tmp_path, caplog):
    tree, made, tokenizer = corpus
    utterances = [replace(u, text="DAY") for u in manifest.read(made["dev-clean"])]
    manifest.write(tmp_path / "dev.csv", utterances)
    path = str(tmp_path / "dev.csv")
    pipelines.asr_data([], [path], {}, tree, tokenizer)
    assert caplog.text.count("validation: 40 of 40 transcripts hold 120 characters") == 1
    caplog.clear()
    pipelines.asr_data([], [path], {"dev-clean": path}, tree, tokenizer)
    assert "validation" not in caplog.text and caplog.text.count("dev-clean: 40 of 40 transcripts") == 1


def test_joined_manifests_share_no_id(corpus):
    tree, made, tokenizer = corpus
    joined = pipelines.asr_data([made["train-clean-100"], made["test-other"]], [], {}, tree, tokenizer)
    assert len(joined.train) == 80
    with pytest.raises(DataError, match="appears more than once as an id.*40 such utterances"):
        pipelines.asr_data([made["train-clean-100"]] * 2, [], {}, tree, tokenizer)


def test_unknown_words():
    with pytest.raises(DataError, match="sorting: 'upwards' is none of"):
        AsrDataOptions(sorting="upwards")
