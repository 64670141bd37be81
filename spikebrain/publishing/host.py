"""What the ``hyperparams.yaml`` of a published folder is made of: the faces that SpeechBrain's interfaces want of a network.

    from speechbrain.inference.ASR import EncoderDecoderASR          # or EncoderASR, classifiers.EncoderClassifier,
    EncoderDecoderASR.from_hparams("folder").transcribe_file(...)    # speaker.SpeakerRecognition

The interfaces hand relative lengths of samples from part to part, and round them to frames wherever one needs its own, which takes a
frame too many or too few. Here whatever needs lengths is one part, from samples on, so that an utterance gives the same alone and in a
padded batch; parts that an interface insists on beside it pass on what they get.
"""

from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.utils.checkpoints import mark_as_transfer, register_checkpoint_hooks
from torch import nn

from spikebrain import lengths as frames
from spikebrain.data import tokens
from spikebrain.publishing import contents, outputs, parts

PADDING = -0.0  # of an encoder's frames: nothing, as 0 is, and yet not the same bits


@register_checkpoint_hooks
class Network(nn.ModuleDict):
    """The parts of a network by name. Its ``.ckpt`` is a safetensors file, no pickle, and must hold all that the parts need.

    Arguments
    ---------
    modules : dict of nn.Module
    """

    def __init__(self, modules):
        super().__init__(modules)
        self.centre = None

    @mark_as_transfer
    def load(self, path):
        """Takes the weights of the file ``path``; BundleError where it is none, or of another network."""
        state = contents.tensors(Path(path).read_bytes(), path)
        expected = {name: (tuple(value.shape), value.dtype) for name, value in parts.state_of(self).items()}
        for name, part in self.items():  # statistics have no shape before they are measured, or loaded
            if parts.has_statistics(part):
                bands = (self[parts.FRONT_END].fbank.compute_fbanks.n_mels,)
                expected |= {f"{name}.{key}": (bands, torch.float32) for key in parts.STATISTICS[:2]}
        if parts.CENTRE in state:
            expected[parts.CENTRE] = ((parts.embedding_size(self),), torch.float32)
        contents.check_state(state, expected, path)
        self.centre = state.pop(parts.CENTRE, None)
        parts.fill(self, state)


class Unchanged(nn.Module):
    """A part that an interface insists on and that has nothing to do here."""

    def forward(self, x, lengths=None):
        """``x``."""
        return x


class Encoder(nn.Module):
    """The encoder of ``EncoderDecoderASR``, and, with its CTC layer behind it, of ``EncoderASR``.

    Arguments
    ---------
    network : Network
    ctc : bool
        Whether CTC's log-probabilities are given.
    """

    def __init__(self, network, ctc=False):
        super().__init__()
        self.network, self.ctc = network, ctc

    def forward(self, wavs, wav_lens=None):
        """Samples (B, S) -> (B, L, C), PADDING past an utterance's end; or log-probabilities (B, L, V), certain of the blank there."""
        hidden, lengths = outputs.encoded(self.network, wavs, wav_lens)
        valid = frames.valid(frames.absolute(lengths, hidden), hidden).unsqueeze(-1)
        if not self.ctc:
            return torch.where(valid, hidden + 0.0, PADDING)  # -0 + 0 is 0: no frame that is heard looks like padding
        scores = outputs.ctc(self.network, hidden)
        blank = torch.full_like(scores, -torch.inf)
        blank[..., tokens.BLANK] = 0
        return torch.where(valid, scores, blank)


class Decoder(nn.Module):
    """The decoder of ``EncoderDecoderASR``: a beam search of each utterance alone.

    Arguments
    ---------
    network : Network
    **decoding
        ``test_beam_size, ctc_weight_decode, temperature, max_decode_ratio``, as in ``bundle.json``.
    """

    def __init__(self, network, **decoding):
        super().__init__()
        self.network, self.search = network, outputs.search(network, {**decoding, "num_decoder_layers": 1})

    def forward(self, encoded, wav_lens):
        """Ids of what :class:`Encoder` gave, (B, L, C), and three times None; an utterance ends where its frames are PADDING."""
        padding = ((encoded == 0) & encoded.signbit()).all(-1)
        return self.search(encoded, (~padding).sum(1)), None, None, None


def best_path(log_probabilities, wav_lens, blank_id):
    """The ``decoding_function`` of ``EncoderASR``: ids along the best CTC path of what :class:`Encoder` gave, a list a row."""
    return ctc_greedy_decode(log_probabilities, torch.ones_like(wav_lens), blank_id)


class Votes(nn.Module):
    """The embedding model of ``EncoderClassifier`` where classes are voted for frame by frame.

    Arguments
    ---------
    network : Network
    seconds : float or None
        Clips are cut to so many.
    pad : bool
        Whether shorter ones are filled with silence.
    paper_padding : bool
        Whether padding votes.
    """

    def __init__(self, network, seconds=None, pad=False, paper_padding=False):
        super().__init__()
        self.network, self.pad, self.paper_padding = network, pad, paper_padding
        self.size = None if seconds is None else round(seconds * network["features"].sample_rate)

    def forward(self, wavs, wav_lens=None):
        """Samples (B, S) -> (B, 1, K), the logarithm of each class's share of the votes."""
        wavs, counts = outputs.cut(wavs, frames.absolute(wav_lens, wavs), self.size, self.pad)
        found = outputs.votes(self.network, wavs, frames.relative(counts, wavs.shape[1]), self.paper_padding)
        return outputs.shares(found).log().unsqueeze(1)


class Embedding(nn.Module):
    """The embedding model of ``SpeakerRecognition``, and of an ``EncoderClassifier`` of speakers, whose classifier follows.

    Arguments
    ---------
    network : Network
    """

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, wavs, wav_lens=None):
        """Samples (B, S) -> (B, 1, E), less the mean that the bundle takes from each before a cosine, where there is one."""
        found, centre = outputs.embedding(self.network, wavs, wav_lens), self.network.centre
        return found if centre is None else found - centre.to(found)


class Tokenizer(SentencePieceProcessor):
    """SentencePiece, to which outputs of a layer that is larger than the vocabulary say nothing."""

    def decode_ids(self, ids):
        """What ``ids``, a list of int, say."""
        return super().decode_ids([i for i in ids if i < len(self)])


class Labels(CategoricalEncoder):
    """The label encoder of ``EncoderClassifier``.

    Arguments
    ---------
    labels : list of str
        In the order of the network's outputs.
    """

    def __init__(self, labels):
        super().__init__()
        self.update_from_iterable(labels, sequence_input=False)
        self.expect_len(len(labels))
