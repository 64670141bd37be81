"""Speech recognition: joint CTC and attention training, or CTC alone.

The loss is ``w CTC + (1 - w) CE`` over one encoder (S. Watanabe, T. Hori, S. Kim,
J. Hershey, T. Hayashi, "Hybrid CTC/Attention Architecture for End-to-End Speech
Recognition", IEEE JSTSP 2017, Eq. 11). Validation decodes the CTC output greedily, which
is cheap; the final evaluation averages the best checkpoints and searches with both.

Errors are counted in words (WER) or in characters (CER), of which a space is none; both are sums over a split, in percent.
"""

import hashlib
import os
from dataclasses import dataclass, fields

import speechbrain as sb
import torch
import torch.nn.functional as F
from speechbrain.decoders import CTCScorer, S2STransformerBeamSearcher, ScorerBuilder, TransformerLMScorer, ctc_greedy_decode
from speechbrain.utils.distributed import if_main_process, run_on_main
from speechbrain.utils.logger import get_logger
from speechbrain.utils.metric_stats import ErrorRateStats

from spikebrain import energy
from spikebrain import lengths as frames
from spikebrain.data import tokens
from spikebrain.data.manifest import write_atomic
from spikebrain.data.pipelines import AsrDataOptions, asr_data
from spikebrain.data.preparation import skipped_csv
from spikebrain.training import brain as shared
from spikebrain.training import checkpoints, keys, splits

logger = get_logger(__name__)

# Every key that this task reads from a recipe's YAML, and what it means.
NEEDED = {
    "modules": "features, normalize, frontend, Transformer, ctc_lin, seq_lin",
    "checkpointer": "a spikebrain.training.checkpoints.Checkpointer with its recoverables, one of them called model",
    "epoch_counter": "an EpochCounter, or one that stops early",
    "opt_class": "an optimizer that lacks only the parameters",
    "schedule": "a learning-rate schedule, called with the optimizer before each update",
    "train_logger": "a logger of SpeechBrain, such as FileTrainLogger",
    "train_splits": "list of splits to train on",
    "output_neurons": "size of the output layers",
    "num_decoder_layers": "0 leaves the attention decoder out",
    "ctc_weight": "weight of CTC in the loss, 0 to 1; 1 is CTC alone",
}
OPTIONAL = {
    **shared.OPTIONAL,
    "tokenizer_file": None,  # a SentencePiece model, instead of one trained on the training text
    "token_type": "unigram",
    "hard_vocab_limit": True,
    "character_coverage": 1.0,
    "error_rate": "WER",  # or CER: what is reported, and what chooses the checkpoints
    "label_smoothing": 0.0,
    "fea_augment": None,
    "avg_checkpoints": 1,
    "test_beam_size": 10,
    "ctc_weight_decode": 0.3,
    "lm_weight": 0.0,
    "lm_folder": None,
    "lm_model": None,
    "temperature": 1.0,
    "max_decode_ratio": 1.0,
}
BATCHING = {field.name: field.default for field in fields(AsrDataOptions) if field.name not in ("hop", "skip_short")}
OPTIONAL |= BATCHING
KEYS = NEEDED.keys() | OPTIONAL.keys()
UNITS = {"WER": str.split, "CER": lambda text: list("".join(text.split()))}  # error rate -> what a text is made of
REOPENED = {"train_splits": (), "cache_audio": False}  # a run that has ended trains no more


@dataclass(frozen=True)
class Output:
    """What the model says about a padded batch.

    ctc : Tensor (B, L, V), log-probabilities of the CTC output
    attention : Tensor (B, U, V) or None, logits of the decoder given the true tokens
    encoded : Tensor (B, L, C), the encoder's output
    lengths : Tensor (B,), relative lengths over L
    """

    ctc: torch.Tensor
    attention: torch.Tensor | None
    encoded: torch.Tensor
    lengths: torch.Tensor


class ASR(shared.TaskBrain):
    """Trains and evaluates; see the module for the loss. Made by :func:`build`, which sets the attributes below.

    tokenizer : SentencePieceProcessor
    searcher : what :func:`beam_search` gives
    averaged : epochs whose weights were averaged for evaluation
    """

    tokenizer = searcher = None
    averaged = ()
    simulated = "Transformer.encoder.model"
    repair = "set {name} (and tokenizer_file) as in that run"

    def compute_forward(self, batch, stage):
        """Padded batch -> Output."""
        batch = batch.to(self.device)
        x, lengths = self.features(*batch.sig, stage)
        x, lengths = self.part("frontend")(x, lengths)
        return self.recognise(x, lengths, batch.tokens_bos[0] if self.joint else None)

    def features(self, wavs, lengths, stage=sb.Stage.TEST):
        """Samples (B, N) -> normalised features (B, L, F) and their relative lengths; augmented while training."""
        training = stage == sb.Stage.TRAIN
        x, lengths = self.part("features")(wavs, lengths)
        x = self.part("normalize")(x, lengths, epoch=self.hparams.epoch_counter.current)
        if training and self.hparams.fea_augment is not None:
            x = self.hparams.fea_augment(x)
        return x, lengths

    def recognise(self, x, lengths, tokens_bos=None):
        """Front-end output (B, L, C) -> Output; without ``tokens_bos`` (B, U) the decoder is not run."""
        encoded, decoded = self.part("Transformer")(x, tokens_bos, lengths, pad_idx=tokens.BLANK)
        attention = None if tokens_bos is None else self.part("seq_lin")(decoded)
        return Output(_at_least_float(self.part("ctc_lin")(encoded)).log_softmax(-1), attention, encoded, lengths)

    def compute_objectives(self, predictions, batch, stage):
        """The loss of a batch, per utterance; keeps hypotheses outside of training."""
        losses = {"ctc": ctc_loss(predictions, batch.tokens)}
        if self.joint:
            smoothing = self.hparams.label_smoothing if stage == sb.Stage.TRAIN else 0.0
            losses["attention"] = attention_loss(predictions.attention, batch.tokens_eos, smoothing)
        if stage != sb.Stage.TRAIN:
            self.score(predictions, batch, stage)
        weight = self.hparams.ctc_weight
        return losses["ctc"] * weight + losses.get("attention", 0.0) * (1 - weight)

    def score(self, output, batch, stage):
        """Decodes a batch and counts its errors."""
        search, units = self.search if stage == sb.Stage.TEST else self.greedy, UNITS[self.hparams.error_rate]
        self.errors.append(batch.id, [units(self.text(ids)) for ids in search(output)], [units(text) for text in batch.wrd])

    def text(self, ids):
        """What token ids say. The output layer may be larger than the vocabulary: its unused outputs say nothing."""
        return self.tokenizer.decode_ids([int(i) for i in ids if i < len(self.tokenizer)])

    def greedy(self, output):
        """Token ids of the best CTC path of each utterance."""
        return ctc_greedy_decode(output.ctc, output.lengths, blank_id=tokens.BLANK)

    def search(self, output):
        """Token ids by beam search over CTC and decoder; greedy where there is no decoder."""
        if self.searcher is None:
            return self.greedy(output)
        return self.searcher(output.encoded, output.lengths)[0]

    @property
    def joint(self):
        """True where there is an attention decoder."""
        return self.hparams.num_decoder_layers > 0

    def on_stage_start(self, stage, epoch=None):
        """Fresh counts."""
        super().on_stage_start(stage, epoch)
        self.errors = ErrorRateStats()

    def validated(self, stage_loss):
        """Loss and error rate."""
        return {"loss": stage_loss, self.hparams.error_rate: self.errors.summarize("error_rate")}

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Loads the mean of the weights of the ``avg_checkpoints`` best checkpoints; all other modules from the best one."""
        self.check_fit()
        best = self.best_checkpoints()
        self.checkpointer.load_modules(best[0], but=["model"])
        self.checkpointer.recoverables["model"].load_state_dict(checkpoints.average(best, "model", self.device))
        self.averaged = [checkpoint.meta["epoch"] for checkpoint in best]

    @property
    def encoder(self):
        """The module that is listened to."""
        return self.parts["Transformer"].encoder

    def hear(self, batch):
        """Encodes a batch: frames before subsampling, and steps of the decoder, of each utterance."""
        x, lengths = self.features(*batch.sig)
        self.parts["Transformer"].encode(*self.parts["frontend"](x, lengths))
        tokens, token_lengths = batch.tokens
        steps = frames.absolute(token_lengths, tokens) + 1 if self.joint else torch.zeros(len(tokens))
        return frames.absolute(lengths, x), steps

    def cost(self, counter):
        """The energy report of what ``counter`` heard."""
        return energy.report(counter, energy.architecture(self.parts))


def train(hparams, run_opts, prepared):
    """Trains, evaluates on every dev and test split, and looks inside: a task's ``train``, see :mod:`spikebrain.training.run`."""
    check(hparams)
    brain = build(hparams, run_opts, make_data(hparams, prepared, make_tokenizer(hparams, prepared)))
    brain.learn()
    metrics = {split: evaluate(brain, split, dataset) for split, dataset in brain.data.tests.items()}
    return {"metrics": metrics, "averaged_epochs": list(brain.averaged), **brain.report()}


def reopen(hparams, run_opts, prepared):
    """The Brain of a run that has ended, with its averaged weights: a task's ``reopen``, see :mod:`spikebrain.training.run`."""
    tokenizer = hparams["tokenizer_file"] or os.path.join(hparams["save_folder"], "tokenizer.model")
    hparams = {**hparams, "tokenizer_file": tokenizer}
    brain = build(hparams, run_opts, make_data(hparams, prepared, make_tokenizer(hparams, prepared)))
    brain.on_evaluate_start()
    return brain


def check(hparams):
    """Refuses combinations in which something would never be trained.

    Raises
    ------
    RecipeError
    """
    weight, layers = hparams["ctc_weight"], hparams["num_decoder_layers"]
    if not 0 <= weight <= 1:
        raise keys.RecipeError(f"ctc_weight: {weight} lies outside of 0 to 1")
    if (weight == 1) != (layers == 0):
        raise keys.RecipeError(
            f"ctc_weight: {weight} and num_decoder_layers: {layers} do not go together: "
            "CTC alone is ctc_weight: 1.0 and num_decoder_layers: 0"
        )
    if hparams["error_rate"] not in UNITS:
        raise keys.RecipeError(f"error_rate: {hparams['error_rate']} is none of {', '.join(UNITS)}")
    splits.check(hparams)


def make_tokenizer(hparams, prepared):
    """The tokenizer of ``tokenizer_file``, or one trained on the text of the training splits; checked against the output layer."""
    file = hparams["tokenizer_file"]
    if file is None:
        file = os.path.join(hparams["save_folder"], "tokenizer.model")
        settings = tokens.TokenizerSettings(
            hparams["output_neurons"], hparams["token_type"], hparams["hard_vocab_limit"], hparams["character_coverage"]
        )
        train, _, _ = splits.manifests(hparams, prepared)
        run_on_main(tokens.train, args=[train, file, settings])
    tokenizer = tokens.load(file)
    tokens.check_tokenizer(tokenizer, hparams["output_neurons"], file)
    return tokenizer


def make_data(hparams, prepared, tokenizer):
    """Datasets and loader options: an AsrData; its ``tests`` are the dev and the test splits."""
    options = {name: hparams[name] for name in BATCHING}
    options["speeds"] = tuple(options["speeds"] or ())
    options = AsrDataOptions(**options, hop=hparams["modules"]["features"].hop, skip_short=hparams["skip_bad_audio"])
    data = asr_data(*splits.manifests(hparams, prepared), hparams["data_folder"], tokenizer, options)
    if data.dropped and if_main_process():
        write_atomic(os.path.join(hparams["save_folder"], "skipped.csv"), skipped_csv([*prepared.skipped, *data.dropped]))
    return data


def build(hparams, run_opts, data):
    """The Brain, ready to fit or evaluate."""
    parts = {name: module for name, module in hparams["modules"].items() if name != "seq_lin" or hparams["num_decoder_layers"]}
    brain = ASR(parts, hparams["opt_class"], hparams, run_opts, hparams["checkpointer"])
    brain.parts = parts
    brain.tokenizer = data.tokenizer
    brain.searcher = beam_search(hparams)
    brain.train_sampler = data.train_sampler
    brain.tracked = (f"valid_{hparams['error_rate']}" if data.valid is not None else "train_loss", "epoch")
    brain.kept = hparams["avg_checkpoints"]
    digest = hashlib.sha256(data.tokenizer.serialized_model_proto()).hexdigest()[:16]
    brain.fits = {"output_neurons": hparams["output_neurons"], "vocabulary": len(data.tokenizer), "tokenizer": digest}
    brain.keep_history(hparams["output_folder"])
    brain.take(data)
    return brain


def evaluate(brain, split, dataset):
    """Decodes a split with the averaged checkpoint, writes ``wer_<split>.txt`` or ``cer_...``: ``{"WER" or "CER": percent}``."""
    brain.evaluate(dataset, test_loader_kwargs=dict(brain.data.eval_loader))
    name = brain.hparams.error_rate
    if if_main_process():
        with open(os.path.join(brain.hparams.output_folder, f"{name.lower()}_{split}.txt"), "w", encoding="utf-8") as file:
            brain.errors.write_stats(file)
    rate = brain.errors.summarize("error_rate")
    logger.info(f"{split}: {name} {rate:.2f} %")
    return {name: rate}


def ctc_loss(output, tokens_and_lengths):
    """CTC loss per utterance (sum over the batch, divided by its size)."""
    targets, lengths = tokens_and_lengths
    loss = F.ctc_loss(
        output.ctc.transpose(0, 1),
        targets,
        frames.absolute(output.lengths, output.ctc),
        frames.absolute(lengths, targets),
        blank=tokens.BLANK,
        reduction="sum",
        zero_infinity=True,
    )
    return loss / len(targets)


def attention_loss(logits, tokens_and_lengths, smoothing):
    """Cross-entropy of the decoder per utterance (sum over the batch's tokens, divided by its size)."""
    targets, lengths = tokens_and_lengths
    targets = targets.masked_fill(~frames.valid_mask(lengths, targets), -100)
    loss = F.cross_entropy(_at_least_float(logits).flatten(0, 1), targets.flatten(), label_smoothing=smoothing, reduction="sum")
    return loss / len(targets)


def beam_search(hparams):
    """The searcher over decoder, CTC and, where ``lm_folder`` is given, a language model; None without a decoder.

    ``lm_folder`` holds ``lm.ckpt``, the state dict of ``lm_model``.
    """
    if not hparams["num_decoder_layers"]:
        return None
    modules = hparams["modules"]
    scorers = {}
    if hparams["ctc_weight_decode"] > 0:
        scorers["ctc"] = CTCScorer(modules["ctc_lin"], tokens.BLANK, tokens.EOS)
    if hparams["lm_folder"]:
        scorers["transformerlm"] = TransformerLMScorer(_language_model(hparams), temperature=hparams["temperature"])
    weights = {"ctc": hparams["ctc_weight_decode"], "transformerlm": hparams["lm_weight"]}
    return S2STransformerBeamSearcher(
        modules=[modules["Transformer"], modules["seq_lin"]],
        bos_index=tokens.BOS,
        eos_index=tokens.EOS,
        min_decode_ratio=0.0,
        max_decode_ratio=hparams["max_decode_ratio"],
        beam_size=hparams["test_beam_size"],
        using_eos_threshold=False,
        length_normalization=True,
        temperature=hparams["temperature"],
        scorer=ScorerBuilder(full_scorers=list(scorers.values()), weights={k: weights[k] for k in scorers}) if scorers else None,
    )


def _language_model(hparams):
    file = os.path.join(hparams["lm_folder"], "lm.ckpt")
    if not os.path.isfile(file):
        raise keys.RecipeError(f"{file}: no such file: lm_folder holds lm.ckpt, the state dict of lm_model")
    model = hparams["lm_model"]()
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return model.eval()


def _at_least_float(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))
