"""The data room on real recordings: LibriSpeech's own files, and connected digits in its layout."""

import torch
from speechbrain.dataio.dataloader import make_dataloader

from spikebrain.data import pipelines, tokens
from spikebrain.data.corpora import librispeech
from spikebrain.data.pipelines import AsrDataOptions
from spikebrain.data.tokens import TokenizerSettings


def test_librispeech_excerpt(real_data, tmp_path):
    folder = str(real_data / "librispeech_excerpt")
    made = librispeech.prepare(folder, str(tmp_path))
    counted = {split: (c["utterances"], c["speakers"], round(c["hours"] * 60, 1)) for split, c in made.counts.items()}
    assert counted == {"train-clean-100": (74, 3, 5.0), "test-other": (85, 10, 8.6)}
    assert not made.complete and len(made.differences) == 2
    train = [made.manifests["train-clean-100"]]
    tokenizer = tokens.train(train, str(tmp_path / "t.model"), TokenizerSettings(5000, hard_vocab_limit=False))
    tokens.check_tokenizer(tokenizer, 5000)
    options = AsrDataOptions(subsampling=6, max_batch_length=30)
    data = pipelines.asr_data(train, [], {"test-other": made.manifests["test-other"]}, folder, tokenizer, options)
    batch = next(iter(make_dataloader(data.train, **data.train_loader)))
    assert torch.isfinite(batch.sig.data).all() and 0.1 < batch.sig.data.abs().max() <= 1


def test_connected_digits(real_data, tmp_path):
    made = librispeech.prepare(str(real_data / "connected_digits"), str(tmp_path))
    counted = {split: (c["utterances"], c["speakers"]) for split, c in made.counts.items()}
    assert counted == {"train-clean-100": (1500, 4), "dev-clean": (150, 4), "test-clean": (150, 4), "test-other": (150, 2)}
    assert abs(made.counts["train-clean-100"]["hours"] * 60 - 62.3) < 0.1
    assert not made.skipped
