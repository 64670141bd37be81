"""Multiply-accumulates of a Transformer recogniser, counted from its sizes.

For one utterance of ``N`` encoder frames and ``U`` decoder steps, ``M`` encoder blocks of
width ``D`` and feed-forward width ``F``, and ``V`` outputs:

    convolution                 N' F' k_t k_f C_in C_out       at every output position
    projection                  N D' D
    encoder, weights            M N (4 D^2 + 2 D F)
    encoder, attention          M 2 N^2 D
    CTC                         N D V
    decoder block               U (6 D^2 + 2 D F) + 2 N D^2 + 2 U^2 D + 2 U N D
    decoder output              U D V

Keys and values of the decoder's cross attention are computed once a frame, not once a
step, and one hypothesis is counted. This is the non-spiking twin of a spiking network, and
whatever of the network does not spike. The count reproduces the published energies of the
Transformer rows of the IML-Spikeformer paper (arXiv 2507.07396, Tables I and II).
"""

from dataclasses import dataclass, replace

import torch

from spikebrain.blocks.subsampling import VGGSubsampling, pooled
from spikebrain.encoders.iml_spikeformer import IMLSpikeformerBlock
from spikebrain.energy.count import clean_name, inside
from spikebrain.lengths import conv_frames


@dataclass(frozen=True)
class Conv:
    """An unpadded convolution over (frames, bins); ``kernel`` and ``stride`` are (frames, bins) too."""

    name: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]


@dataclass(frozen=True)
class Architecture:
    """The sizes that decide how many multiply-accumulates a recogniser needs.

    bins : feature bins at the input of ``convs``
    convs : the subsampling convolutions, in order; may be empty
    pools : poolings of frames by 2, of a front end that tells of its own products and so has no ``convs``
    projection : inputs of the linear layer before the encoder, 0 without one
    width : D
    blocks, weights : M, and the elements of one block's weight matrices (4 D^2 + 2 D F); 0 of an encoder that is no stack of
        Transformer blocks, whose twin computes what it tells of densely
    ctc, output : V of the CTC layer and of the decoder's output layer, 0 without one
    decoder_blocks, decoder_ffn : number and feed-forward width of the decoder's blocks
    encoder, frontend, projector : names of these modules in the counted network
    spiking : whether the encoder tells of its own products, as all of ours do
    """

    bins: int
    convs: tuple[Conv, ...]
    projection: int
    width: int
    blocks: int
    weights: int
    pools: int = 0
    ctc: int = 0
    decoder_blocks: int = 0
    decoder_ffn: int = 0
    output: int = 0
    encoder: str = "Transformer.encoder"
    frontend: str = "frontend"
    projector: str = "projection"
    spiking: bool = False

    def encoder_frames(self, feature_frames):
        """Frames after the convolutions, for an int or a tensor of counts."""
        for conv in self.convs:
            feature_frames = conv_frames(feature_frames, conv.kernel[0], conv.stride[0])
        for _ in range(self.pools):
            feature_frames = pooled(feature_frames)
        return feature_frames


def macs(sizes, feature_frames, decoder_steps):
    """Multiply-accumulates of each part of the network, over all given utterances.

    Arguments
    ---------
    sizes : Architecture
    feature_frames, decoder_steps : list (B,) of int
        Per utterance: frames before subsampling, and positions that the decoder computes.

    Returns
    -------
    dict
        scope -> {part: int}, for the scopes ``frontend``, ``encoder`` and ``decoder``, in the order of computation.

    Raises
    ------
    ValueError
        When an utterance is too short to leave one frame after the convolutions.
    """
    frames = torch.as_tensor(feature_frames, dtype=torch.long)
    steps = torch.as_tensor(decoder_steps, dtype=torch.long)
    encoded = sizes.encoder_frames(frames)
    if frames.numel() and int(encoded.min()) < 1:
        short = f"an utterance of {int(frames.min())} feature frames leaves none after {len(sizes.convs)} convolutions"
        raise ValueError(f"{short}: leave it out of the count")
    return {
        "frontend": _frontend(sizes, frames, encoded),
        "encoder": _encoder(sizes, encoded),
        "decoder": _decoder(sizes, encoded, steps),
    }


def architecture(modules, bins=None):
    """Reads the :class:`Architecture` of a recogniser from its modules.

    Arguments
    ---------
    modules : mapping of str to nn.Module
        With ``Transformer`` (a SpeechBrain ``TransformerASR`` or ours) and, where the model has them, ``frontend``
        (convolutions without padding), ``ctc_lin`` and ``seq_lin``.
    bins : int, optional
        Feature bins; by default the front end's ``n_mels``.

    Raises
    ------
    ValueError
        For a part whose products this count does not know; the message names it.
    """
    modules = {name: _unwrapped(module) for name, module in modules.items()}
    model, frontend = _needed(modules, "Transformer"), modules.get("frontend")
    pools = isinstance(frontend, VGGSubsampling)
    projection, width = _projection(model)
    sizes = Architecture(
        bins=_bins(frontend, bins, projection),
        convs=() if pools else _convs(frontend),
        pools=2 if pools else 0,
        projection=projection,
        width=width,
        projector="Transformer.custom_src_module",
        **_encoder_sizes(model.encoder),
    )
    return replace(sizes, ctc=_outputs(modules, "ctc_lin"), **_decoder_sizes(model, modules))


def check_counted(counter, sizes):
    """Raises ValueError for a layer outside of the encoder that holds a weight which no formula here counts; names the first."""
    known = {conv.name for conv in sizes.convs}
    places = [sizes.encoder, *((sizes.projector,) if sizes.projection else ()), "Transformer.custom_tgt_module"]
    places += ["Transformer.decoder.layers", "ctc_lin", "seq_lin"]
    for name in counter.silent():
        if name not in known and not any(inside(name, place) for place in places):
            raise ValueError(f"{name} holds a weight that no formula counts, so its energy is unknown")
    _check_single(counter, (sizes.projector, "ctc_lin", "seq_lin"))
    _check_blocks(counter, sizes)


def _check_single(counter, places):
    for place in places:
        held = counter.silent(place)
        if len(held) > 1:
            raise ValueError(f"{held[1]} is one of {len(held)} layers with a weight in {place}, of which a formula counts one")


def _check_blocks(counter, sizes):
    """The decoder's blocks hold what the formula counts, 8 D^2 + 2 D F weights; a stock encoder none outside of its blocks."""
    expected = 8 * sizes.width**2 + 2 * sizes.width * sizes.decoder_ffn
    for module, name in counter.modules.items():
        if name.rpartition(".")[0] == "Transformer.decoder.layers":
            weights = sum(_elements(part) for part in module.modules())
            if weights != expected:
                raise ValueError(f"{name} holds {weights} weights, the formula counts {expected} (8 D^2 + 2 D F): its energy is unknown")
        elif not sizes.spiking and inside(name, sizes.encoder) and _elements(module) and f"{sizes.encoder}.layers." not in name:
            raise ValueError(f"{name} holds a weight outside of the encoder's blocks, which no formula counts: its energy is unknown")


def _frontend(sizes, frames, encoded):
    parts, bins = {}, sizes.bins
    for conv in sizes.convs:
        frames = conv_frames(frames, conv.kernel[0], conv.stride[0])
        bins = conv_frames(bins, conv.kernel[1], conv.stride[1])
        parts[conv.name] = int(frames.sum()) * bins * conv.kernel[0] * conv.kernel[1] * conv.in_channels * conv.out_channels
    if sizes.projection:
        parts[sizes.projector] = int(encoded.sum()) * sizes.projection * sizes.width
    return parts


def _encoder(sizes, encoded):
    if not sizes.blocks:
        return {}
    attention = 2 * int((encoded**2).sum()) * sizes.width
    return {
        f"{sizes.encoder} weights": sizes.blocks * int(encoded.sum()) * sizes.weights,
        f"{sizes.encoder} attention": sizes.blocks * attention,
    }


def _decoder(sizes, encoded, steps):
    width, total = sizes.width, int(steps.sum())
    weights = total * (6 * width**2 + 2 * width * sizes.decoder_ffn) + 2 * int(encoded.sum()) * width**2
    attention = 2 * width * int((steps**2 + steps * encoded).sum())
    parts = {
        "ctc": int(encoded.sum()) * width * sizes.ctc,
        "decoder weights": sizes.decoder_blocks * weights,
        "decoder attention": sizes.decoder_blocks * attention,
        "decoder output": total * width * sizes.output,
    }
    return {name: count for name, count in parts.items() if count}


def _convs(frontend):
    if frontend is None:
        return ()
    holders = [(clean_name(name), module) for name, module in frontend.named_modules() if _elements(module)]
    return tuple(_conv(f"frontend.{name}", module) for name, module in holders)


def _conv(name, module):
    if module.weight.dim() != 4 or any(module.padding) or module.groups != 1 or any(step != 1 for step in module.dilation):
        raise ValueError(f"{name} ({type(module).__name__}) is no plain unpadded 2-D convolution: no formula counts it")
    return Conv(name, module.in_channels, module.out_channels, tuple(module.kernel_size), tuple(module.stride))


def _bins(frontend, bins, projection):
    if bins is None:
        bins = projection if frontend is None else frontend.n_mels
    return bins


def _projection(model):
    for parameter in model.custom_src_module.parameters():
        if parameter.dim() == 2:
            return parameter.shape[1], parameter.shape[0]
    inner = getattr(model.encoder, "model", None)  # one of ours may read the features itself
    if inner is None:
        raise ValueError("Transformer.custom_src_module has no weight matrix: the projection before the encoder is not counted by formula")
    return 0, inner.config.d_model


def _encoder_sizes(encoder):
    stock, name, blocks = _is_stock(encoder), type(encoder).__name__, _blocks(encoder)
    if not stock and not all(isinstance(block, IMLSpikeformerBlock) for block in blocks):
        return {"blocks": 0, "weights": 0, "spiking": True}
    sizes = {sum(_elements(module) for module in block.modules()) for block in blocks}
    if len(sizes) != 1:
        raise ValueError(f"Transformer.encoder ({name}) has blocks of {sorted(sizes)} weights: the count needs equal blocks")
    return {"blocks": len(blocks), "weights": sizes.pop(), "spiking": not stock}


def _blocks(encoder):
    """The one list of blocks of an encoder, or of the encoder that an adapter holds."""
    inner = encoder
    while True:
        children = list(inner.children())
        lists = [child for child in children if isinstance(child, torch.nn.ModuleList)]
        if len(lists) == 1:
            return lists[0]
        if lists or len(children) != 1:
            raise ValueError(f"Transformer.encoder ({type(encoder).__name__}) has {len(lists)} lists of blocks, the count needs one")
        inner = children[0]


def _is_stock(encoder):
    """True for SpeechBrain's Transformer encoder; its Conformer and Branchformer are refused, anything else counts itself."""
    from speechbrain.lobes.models.transformer.Transformer import TransformerEncoder

    if isinstance(encoder, TransformerEncoder):
        return True
    if type(encoder).__module__.startswith("speechbrain."):
        raise ValueError(f"Transformer.encoder is a {type(encoder).__name__}: the formula is for encoder_module: transformer only")
    return False


def _decoder_sizes(model, modules):
    if "decoder" not in dict(model.named_children()):
        return {}
    layers = model.decoder.layers
    feed_forward = sum(_elements(module) for module in layers[0].pos_ffn.modules())
    width = _projection(model)[1]
    return {"decoder_blocks": len(layers), "decoder_ffn": feed_forward // (2 * width), "output": _outputs(modules, "seq_lin")}


def _outputs(modules, name):
    if modules.get(name) is None:
        return 0
    return next(parameter.shape[0] for parameter in modules[name].parameters() if parameter.dim() == 2)


def _elements(module):
    return sum(parameter.numel() for parameter in module.parameters(recurse=False) if parameter.dim() >= 2)


def _needed(modules, name):
    if name not in modules:
        raise ValueError(f"the model has no module {name} but {sorted(modules)}: its operations are not counted by formula")
    return modules[name]


def _unwrapped(module):
    """The network inside wrappers for parallel training and compilation."""
    while type(module).__name__ in ("DistributedDataParallel", "DataParallel", "OptimizedModule"):
        module = next(module.children())
    return module
