"""SentencePiece tokenizers trained on a corpus's own transcripts, without any download.

Ids follow SpeechBrain's ASR recipes: 0 is the unknown piece and serves as CTC blank and
padding, 1 begins and 2 ends a sentence. The model file is a plain SentencePiece model,
so it can stand for the ``tokenizer.ckpt`` of a stock recipe.

A "char" model of text without any space (Mandarin) has one piece for each character and the three special ones, and nothing else:
4,230 characters of AISHELL-1's training text make 4,233 pieces.
"""

import hashlib
import io
import json
import logging
import os
import re
from dataclasses import asdict, dataclass

import sentencepiece

from spikebrain.data import manifest
from spikebrain.data.manifest import DataError

logger = logging.getLogger(__name__)

BLANK, BOS, EOS = 0, 1, 2
MODEL_TYPES = ("unigram", "bpe", "char")


@dataclass(frozen=True)
class TokenizerSettings:
    """What a tokenizer is trained to be.

    vocab_size : pieces, the three special ones included
    model_type : "unigram", "bpe" or "char"
    hard_vocab_limit : False takes fewer pieces where the text does not allow ``vocab_size``
    character_coverage : share of the text's characters that get a piece
    """

    vocab_size: int = 5000
    model_type: str = "unigram"
    hard_vocab_limit: bool = True
    character_coverage: float = 1.0

    def __post_init__(self):
        if self.model_type not in MODEL_TYPES:
            raise DataError(f"model_type: {self.model_type!r} is none of {', '.join(MODEL_TYPES)}")


def train(manifests, model_file, settings=None):
    """Trains a tokenizer on the transcripts of ``manifests``, or loads the one that is there for the same text and settings.

    The same text and settings give the same bytes. What a model was trained on stands beside
    it in ``<model_file>.json``. Run it in one process (``run_on_main``), then :func:`load`.

    Arguments
    ---------
    manifests : list of str
        Paths of CSV manifests with a transcript column.
    model_file : str
        Where the model is, or will be, e.g. ``<save_folder>/tokenizer.model``.
    settings : TokenizerSettings or None

    Returns
    -------
    sentencepiece.SentencePieceProcessor

    Raises
    ------
    DataError
        The text does not allow the vocabulary (both numbers), or the model that is there was trained on other text or settings.
    """
    settings = settings or TokenizerSettings()
    texts = [u.text for path in manifests for u in manifest.read(path)]
    origin = {**asdict(settings), "sentences": len(texts), "text_hash": hashlib.sha256("\n".join(texts).encode()).hexdigest()}
    if os.path.exists(model_file):
        _same_origin(model_file, origin)
        return load(model_file)
    model = _train(texts, settings)
    manifest.write_atomic(f"{model_file}.json", json.dumps(origin, indent=1))
    manifest.write_atomic(model_file, model)
    tokenizer = load(model_file)
    logger.info("trained a %s tokenizer of %d pieces on %d sentences", settings.model_type, len(tokenizer), len(texts))
    return tokenizer


def _train(texts, settings):
    model = io.BytesIO()
    options = dict(model_type=settings.model_type, character_coverage=settings.character_coverage, vocab_size=settings.vocab_size)
    # One thread: the sums of several would be added in another order at each run.
    options.update(unk_id=BLANK, bos_id=BOS, eos_id=EOS, pad_id=-1, max_sentencepiece_length=10, num_threads=1, minloglevel=2)
    if settings.model_type == "char":
        # Without it a vocab_size below the number of characters drops the rarest ones without a word.
        options["use_all_vocab"] = True
        if not any(re.search(r"\s", text) for text in texts):
            # As in Chinese: no piece for the space that would stand before each sentence, and no character turned into another.
            options.update(add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity")
    else:
        options["hard_vocab_limit"] = settings.hard_vocab_limit
    if settings.vocab_size <= EOS + 1:
        raise DataError(f"vocab_size: {settings.vocab_size} leaves no piece beside the {EOS + 1} special ones: set at least {EOS + 2}")
    try:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=model, **options)
    except RuntimeError as error:
        raise DataError(_explain(str(error), texts, settings)) from error
    pieces = len(sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()))
    if pieces > settings.vocab_size:
        raise DataError(_too_small(pieces, texts, settings))
    return model.getvalue()


def _explain(message, texts, settings):
    if limit := re.search(r"too high \((\d+)\).*<= (\d+)", message):
        return (
            f"vocab_size: {limit[1]} is more than the {limit[2]} {settings.model_type} pieces that {len(texts)} sentences allow: "
            f"set vocab_size: {limit[2]} or hard_vocab_limit: False"
        )
    if needed := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return _too_small(int(needed[1]), texts, settings)
    what = f"{settings.model_type} model on {len(texts)} sentences"
    return f"vocab_size: {settings.vocab_size}: SentencePiece cannot train a {what}: {message}"


def _too_small(needed, texts, settings):
    return (
        f"vocab_size: {settings.vocab_size} is less than the {needed} pieces that the characters of {len(texts)} sentences need: "
        f"set vocab_size: {needed} or more, or lower character_coverage: {settings.character_coverage}"
    )


def _same_origin(model_file, origin):
    """Refuses a model that stands beside notes of another origin; a model without notes was given by the user and is taken."""
    try:
        with open(f"{model_file}.json", encoding="utf-8") as file:
            noted = json.load(file)
    except FileNotFoundError:
        return
    differences = "; ".join(f"{key}: {noted.get(key)} there, {value} now" for key, value in origin.items() if noted.get(key) != value)
    if differences:
        raise DataError(
            f"{model_file}: was trained on other text or settings ({differences}): a model trained with it does not fit another; "
            "set another output_folder, or delete this file and what was trained with it"
        )


def load(model_file):
    """The tokenizer in ``model_file``; a missing or damaged file is a DataError."""
    if not os.path.isfile(model_file):
        raise DataError(f"{model_file}: there is no such tokenizer: train one first or set the path of a SentencePiece model")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=os.fspath(model_file))
    except (RuntimeError, OSError) as error:
        what = f"{model_file}: is no SentencePiece model ({os.path.getsize(model_file)} bytes; {error})"
        raise DataError(f"{what}: restore it, or delete it to train it again") from error


def check_tokenizer(tokenizer, output_neurons, name="tokenizer"):
    """Refuses a tokenizer with more pieces than the output layer has; fewer are fine, the rest stays unused.

    Raises
    ------
    DataError
        Naming both numbers.
    """
    pieces = len(tokenizer)
    if pieces > output_neurons:
        raise DataError(
            f"{name} has {pieces} pieces, output layer {output_neurons}: set output_neurons: {pieces} for a new model, "
            f"or give the tokenizer that the checkpoint was trained with"
        )
    special = (tokenizer.unk_id(), tokenizer.bos_id(), tokenizer.eos_id())
    if special != (BLANK, BOS, EOS):
        raise DataError(f"{name} has unk, bos, eos ids {special}, expected {(BLANK, BOS, EOS)}: train it with bos_id=1 and eos_id=2")
