"""Tokenizers: ids as in stock recipes, deterministic, reused or refused, and errors with both numbers."""

import io
import json
import pickle

import pytest
import sentencepiece
from fake_librispeech import WORDS

from spikebrain.data import manifest, tokens
from spikebrain.data.manifest import DataError, Utterance
from spikebrain.data.tokens import TokenizerSettings


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "train.csv"
    manifest.write(path, [Utterance(f"u{i}", f"u{i}.flac", 1.0, "s", text) for i, text in enumerate(WORDS)])
    return [str(path)]


@pytest.mark.parametrize(("model_type", "size"), [("unigram", 24), ("bpe", 30), ("char", 100)])
def test_ids_and_round_trip(corpus, tmp_path, model_type, size):
    tokenizer = tokens.train(corpus, str(tmp_path / "t.model"), TokenizerSettings(size, model_type))
    assert (tokenizer.unk_id(), tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()) == (0, 1, 2, -1)
    assert len(tokenizer) == (size if model_type != "char" else 3 + len(set("".join(WORDS).replace(" ", "▁"))))
    for text in WORDS:
        ids = tokenizer.encode(text)
        assert min(ids) > 2 and tokenizer.decode(ids) == text


# Full-width and half-width letters, which a normalisation would make one, and a character of four bytes.
MANDARIN = ("打开厨房的灯", "关上空调", "明天七点叫醒我", "给妈妈打电话", "在ＫTV唱歌", "\U00020bb7野家")


@pytest.fixture
def mandarin(tmp_path):
    path = tmp_path / "mandarin.csv"
    manifest.write(path, [Utterance(f"u{i}", f"u{i}.wav", 1.0, "s", text) for i, text in enumerate(MANDARIN)])
    return [str(path)]


def test_text_without_spaces_has_one_piece_a_character(mandarin, tmp_path):
    tokenizer = tokens.train(mandarin, str(tmp_path / "t.model"), TokenizerSettings(4233, "char"))
    characters = set("".join(MANDARIN))
    assert len(tokenizer) == len(characters) + 3
    assert {tokenizer.id_to_piece(i) for i in range(3, len(tokenizer))} == characters
    for text in MANDARIN:
        ids = tokenizer.encode(text)
        assert len(ids) == len(text) and min(ids) > 2 and tokenizer.decode(ids) == text
    assert tokenizer.encode("打龙灯")[1] == tokens.BLANK and len(tokenizer.encode("打龙灯")) == 3


def test_text_without_spaces_fits_or_not(mandarin, tmp_path):
    needed = len(set("".join(MANDARIN))) + 3
    with pytest.raises(DataError, match=rf"vocab_size: {needed - 1} is less than the {needed} pieces that the characters of 6 sentences"):
        tokens.train(mandarin, str(tmp_path / "t.model"), TokenizerSettings(needed - 1, "char"))
    assert len(tokens.train(mandarin, str(tmp_path / "t.model"), TokenizerSettings(needed, "char"))) == needed


def test_text_with_spaces_keeps_its_space(corpus, tmp_path):
    tokenizer = tokens.train(corpus, str(tmp_path / "t.model"), TokenizerSettings(100, "char"))
    assert tokenizer.encode("ONE TWO", out_type=str) == list("▁ONE▁TWO")


def test_same_text_same_bytes(corpus, tmp_path):
    for name in ("a", "b"):
        tokens.train(corpus, str(tmp_path / f"{name}.model"), TokenizerSettings(24))
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()


def test_soft_limit_takes_what_the_text_allows(corpus, tmp_path):
    with pytest.raises(DataError) as error:
        tokens.train(corpus, str(tmp_path / "t.model"), TokenizerSettings(5000))
    tokenizer = tokens.train(corpus, str(tmp_path / "t.model"), TokenizerSettings(5000, hard_vocab_limit=False))
    assert f"vocab_size: 5000 is more than the {len(tokenizer)} unigram pieces that 6 sentences allow" in str(error.value)
    assert f"set vocab_size: {len(tokenizer)} or hard_vocab_limit: False" in str(error.value)


@pytest.mark.parametrize("model_type", tokens.MODEL_TYPES)
def test_too_small(corpus, tmp_path, model_type):
    with pytest.raises(DataError, match=r"vocab_size: 10 is less than the 19 pieces that the characters of 6 sentences need"):
        tokens.train(corpus, str(tmp_path / "t.model"), TokenizerSettings(10, model_type))
    with pytest.raises(DataError, match=r"vocab_size: 3 leaves no piece beside the 3 special ones"):
        tokens.train(corpus, str(tmp_path / "t.model"), TokenizerSettings(3, model_type))
    assert not list(tmp_path.glob("t.model*"))


def test_unknown_type():
    with pytest.raises(DataError, match="model_type: 'word' is none of unigram, bpe, char"):
        TokenizerSettings(30, "word")


def test_reused_or_refused(corpus, tmp_path):
    file = tmp_path / "t.model"
    tokens.train(corpus, str(file), TokenizerSettings(24))
    made = file.stat().st_mtime_ns
    tokens.train(corpus, str(file), TokenizerSettings(24))
    assert file.stat().st_mtime_ns == made
    with pytest.raises(DataError, match=r"t\.model: was trained on other text or settings \(vocab_size: 24 there, 23 now\)"):
        tokens.train(corpus, str(file), TokenizerSettings(23))
    manifest.write(corpus[0], manifest.read(corpus[0])[1:])
    with pytest.raises(DataError, match=r"sentences: 6 there, 5 now; text_hash: "):
        tokens.train(corpus, str(file), TokenizerSettings(24))
    assert json.loads((tmp_path / "t.model.json").read_text())["vocab_size"] == 24


def test_given_model_is_taken_as_it_is(corpus, tmp_path):
    tokens.train(corpus, str(tmp_path / "t.model"), TokenizerSettings(24))
    (tmp_path / "t.model").rename(tmp_path / "given.ckpt")
    assert len(tokens.train(corpus, str(tmp_path / "given.ckpt"), TokenizerSettings(30))) == 24


def test_missing_or_damaged_file(tmp_path):
    with pytest.raises(DataError, match=r"t\.model: there is no such tokenizer"):
        tokens.load(tmp_path / "t.model")
    (tmp_path / "t.model").write_bytes(b"no model")
    with pytest.raises(DataError, match=r"t\.model: is no SentencePiece model \(8 bytes"):
        tokens.load(tmp_path / "t.model")


def test_fits_the_output_layer(corpus, tmp_path):
    tokenizer = tokens.train(corpus, str(tmp_path / "t.model"), TokenizerSettings(24))
    for neurons in (24, 5000):
        tokens.check_tokenizer(tokenizer, neurons)
    with pytest.raises(DataError, match="tokenizer has 24 pieces, output layer 23: set output_neurons: 24"):
        tokens.check_tokenizer(tokenizer, 23)


def test_other_special_ids_are_refused(tmp_path):
    model, options = io.BytesIO(), {"vocab_size": 22, "minloglevel": 2, "bos_id": -1, "eos_id": -1}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(WORDS), model_writer=model, **options)
    with pytest.raises(DataError, match=r"has unk, bos, eos ids \(0, -1, -1\), expected \(0, 1, 2\)"):
        tokens.check_tokenizer(sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()), 100)


def test_goes_to_workers(corpus, tmp_path):
    tokenizer = tokens.train(corpus, str(tmp_path / "t.model"), TokenizerSettings(24))
    assert pickle.loads(pickle.dumps(tokenizer)).encode("ONE TWO") == tokenizer.encode("ONE TWO")
