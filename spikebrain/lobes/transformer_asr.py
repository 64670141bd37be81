"""``TransformerASR`` with a spiking encoder: the drop-in for SpeechBrain's ASR recipes.

A stock recipe changes by two lines of YAML, the class and the name of its encoder:

    Transformer: !new:spikebrain.lobes.SpikingTransformerASR
        encoder_module: iml_spikeformer

Everything around the encoder (input projection, positions, decoder, masks, beam search) is the stock module's own.
"""

import inspect
import logging

import torch
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from speechbrain.nnet.linear import Linear
from torch import nn

from spikebrain import lengths as frames
from spikebrain import registry
from spikebrain.blocks import subsampling

logger = logging.getLogger(__name__)

STOCK = ("transformer", "conformer", "branchformer")
_POSITIONS = {  # what an encoder needs -> (attention_type, positional_encoding) of the host
    "abs": ("regularMHA", "fixed_abs_sine"),
    "rel": ("RelPosMHAXL", "fixed_abs_sine"),
    "none": ("RoPEMHA", None),
}


class HostEncoder(nn.Module):
    """Gives one of our encoders, ``forward(x, lengths, state)``, the face of SpeechBrain's encoders.

    Arguments
    ---------
    model : nn.Module
        The encoder.
    output_hidden_states : bool
        Whether a third value, the list of layer inputs and outputs, is returned.
    """

    def __init__(self, model, output_hidden_states=False):
        super().__init__()
        self.model, self.output_hidden_states = model, output_hidden_states

    def forward(self, src, src_mask=None, src_key_padding_mask=None, pos_embs=None, dynchunktrain_config=None):
        """Encodes ``src`` (B, L, D).

        ``src_key_padding_mask`` (B, L) is True on padding. ``src_mask`` is the host's causal mask: the encoder was built with
        the same ``causal``. Returns (out, [None] * layers), and the hidden states where they were asked for. Raises
        ValueError for dynamic chunk training, which needs a streaming encoder.
        """
        if dynchunktrain_config is not None:
            raise ValueError(f"{type(self.model).__name__} attends to whole utterances: dynamic chunk training needs a streaming encoder")
        lengths = frames.from_padding_mask(src_key_padding_mask)
        layers = list(getattr(self.model, "layers", ()))
        if not self.output_hidden_states:
            return self.model(src, lengths)[0], [None] * len(layers)
        hidden = [src]
        hooks = [layer.register_forward_hook(lambda module, inputs, out: hidden.append(out)) for layer in layers]
        try:
            out, _ = self.model(src, lengths)
        finally:
            for hook in hooks:
                hook.remove()
        return out, [None] * len(layers), hidden


class SpikingTransformerASR(TransformerASR):
    """SpeechBrain's ``TransformerASR`` with any registered encoder.

    Arguments
    ---------
    tgt_vocab, input_size, ...
        As ``TransformerASR``; all of its keyword arguments are taken. ``causal`` defaults to False.
    encoder_module : str or callable
        A name of :mod:`spikebrain.registry`; "transformer", "conformer" or "branchformer" fall through to SpeechBrain; or a
        callable (``!name:package.Encoder``) that takes ``num_layers, d_model, nhead, d_ffn, dropout, causal``.
    encoder_kwargs : dict, optional
        Further arguments of the encoder, e.g. ``{levels: 4, block_norm: none}``.
    projection : bool
        Whether the host's linear layer brings what it is given to ``d_model``. False: there is none, and the encoder, one that takes
        an ``input_size``, reads it itself (recurrent recognisers).

    Raises
    ------
    ValueError
        For an unknown encoder, for ``encoder_kwargs`` or no projection with a stock one, for no projection before an encoder of one
        width, and for ``layerdrop_prob``, which spiking encoders do not have.

    Notes
    -----
    The encoder says how it wants to learn positions (its attribute ``position``). Where the YAML says otherwise, as the
    relative positions of a Conformer recipe, the encoder wins and the log says so: the two-line swap stays correct.

    Weight matrices of two and more dimensions start from Xavier's normal initialisation, as in every stock encoder; those that an
    encoder begins with 0, such as the bias of PTS-SNN, stay 0.
    """

    def __init__(self, tgt_vocab, input_size, *args, encoder_module="iml_spikeformer", encoder_kwargs=None, projection=True, **stock):
        stock.setdefault("causal", False)
        if encoder_module in STOCK:
            if encoder_kwargs:
                raise ValueError(f"encoder_kwargs {sorted(encoder_kwargs)} have no meaning for SpeechBrain's {encoder_module}: remove them")
            if not projection:
                raise ValueError(f"projection: False, but SpeechBrain's {encoder_module} reads d_model channels: set projection: True")
            super().__init__(tgt_vocab, input_size, *args, encoder_module=encoder_module, **stock)
            return
        constructor = encoder_module if callable(encoder_module) else registry.entry(encoder_module).constructor
        arguments = _named(args, stock)
        if arguments.get("layerdrop_prob"):
            raise ValueError(f"layerdrop_prob is {arguments['layerdrop_prob']}: spiking encoders have no layer drop, set it to 0")
        reads = {} if projection else _reading(encoder_module, constructor, input_size)
        encoder = constructor(**_encoder_arguments(arguments), **reads, **(encoder_kwargs or {}))
        super().__init__(tgt_vocab, input_size, **_host_arguments(arguments, encoder))
        for parameter in encoder.parameters():
            if parameter.dim() > 1 and not parameter.is_meta and parameter.any():
                nn.init.xavier_normal_(parameter)
        self.encoder = HostEncoder(encoder, self.output_hidden_states)
        if not projection:
            self.custom_src_module = nn.Identity()


_ORDER = ("d_model", "nhead", "num_encoder_layers", "num_decoder_layers", "d_ffn", "dropout", "activation", "positional_encoding")
_DEFAULTS = {"d_model": 512, "nhead": 8, "num_encoder_layers": 6, "num_decoder_layers": 6, "d_ffn": 2048, "dropout": 0.1}


def _named(positional, keywords):
    """The host's arguments by name, with the defaults that the encoder needs."""
    if len(positional) > len(_ORDER):
        raise TypeError(f"{len(positional) + 2} positional arguments: name those after {_ORDER[-1]}")
    return {**_DEFAULTS, **dict(zip(_ORDER, positional, strict=False)), **keywords}


def _reading(name, constructor, input_size):
    """The argument with which an encoder reads ``input_size`` channels itself."""
    if "input_size" not in inspect.signature(constructor).parameters:
        raise ValueError(f"projection: False, but {name} reads d_model channels: set projection: True")
    return {"input_size": input_size}


def _encoder_arguments(arguments):
    names = {"num_encoder_layers": "num_layers"}
    wanted = ("num_encoder_layers", "d_model", "nhead", "d_ffn", "dropout", "causal")
    return {names.get(key, key): arguments[key] for key in wanted}


def _host_arguments(arguments, encoder):
    """The host builds no encoder of its own, but insists on one layer at least; positions are the encoder's choice."""
    attention_type, positional_encoding = _POSITIONS[getattr(encoder, "position", "abs")]
    asked = arguments.get("attention_type", "regularMHA"), arguments.get("positional_encoding", "fixed_abs_sine")
    if asked != (attention_type, positional_encoding):
        logger.warning(
            "attention_type %s with positional_encoding %s does not fit %s: using %s with %s",
            *asked, type(encoder).__name__, attention_type, positional_encoding,
        )  # fmt: skip
    placeholder = 0 if arguments["num_decoder_layers"] > 0 else 1
    return {
        **arguments,
        "num_encoder_layers": placeholder,
        "encoder_module": "transformer",
        "attention_type": attention_type,
        "positional_encoding": positional_encoding,
    }


_PUBLISHED = {  # subsampling factor, or the front end by name; vocabulary; decoder of 6 blocks, 80 mel bands
    "iml_spikeformer_aishell_12": (4, 4233),
    "iml_spikeformer_aishell_24": (4, 4233),
    "iml_spikeformer_aishell_36": (4, 4233),
    "iml_spikeformer_librispeech_18": (6, 5000),
    "vgg_bilstm": ("vgg", 4233),
}


def published_asr(name, **encoder_kwargs):
    """The whole published ASR model around the registered size ``name``.

    Returns an nn.ModuleDict with ``frontend``, ``Transformer``, ``ctc_lin`` and ``seq_lin``; ``encoder_kwargs`` go to the
    encoder (``qk_bias=True`` gives the parameter count of the paper's 30.35 M and 99.36 M). Behind the VGG front end the encoder reads
    what comes out of it, without a projection. ValueError for other names.
    """
    if name not in _PUBLISHED:
        raise ValueError(f"{name!r} is no published ASR size: choose one of {', '.join(_PUBLISHED)}")
    factor, vocabulary = _PUBLISHED[name]
    with torch.device("meta"):
        config = registry.build(name).config
    frontend = subsampling.make(factor, config.d_model)
    size = {key: getattr(config, key) for key in ("d_model", "nhead", "d_ffn", "dropout")}
    transformer = SpikingTransformerASR(
        vocabulary, frontend.out_features, num_encoder_layers=config.num_layers, num_decoder_layers=6, normalize_before=True,
        encoder_module=name, encoder_kwargs=encoder_kwargs, projection=factor != subsampling.VGG, **size,
    )  # fmt: skip
    heads = {key: Linear(input_size=config.d_model, n_neurons=vocabulary) for key in ("ctc_lin", "seq_lin")}
    return nn.ModuleDict({"frontend": frontend, "Transformer": transformer, **heads})
