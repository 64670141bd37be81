"""Any registered encoder as a classifier whose classes are neurons: the one that fires most is named.

    classifier: !name:spikebrain.lobes.RateClassifier      # lacks input_size and classes
        encoder: pts_snn
        logit_scale: 1.0
"""

from torch import nn

from spikebrain.blocks.rate_readout import RateReadout
from spikebrain.lobes.framewise import FrameEncoder


class RateClassifier(nn.Module):
    """An encoder and a :class:`spikebrain.blocks.rate_readout.RateReadout` (PTS-SNN, III-F).

    Arguments
    ---------
    input_size, encoder, encoder_kwargs
        As for :class:`spikebrain.lobes.FrameEncoder`.
    classes : int
        K.
    logit_scale : float
        What a rate of 1 is worth as a logit; the paper's 1 bounds how sure the classifier can be, see the readout.
    readout_kwargs : dict, optional
        Further options of the readout, e.g. ``{neuron: lif}`` for the vanilla network. Behind an encoder whose output are spikes
        there is no first layer of neurons. Options of the encoder's neurons, such as a threshold, are not the readout's: give both.

    Example
    -------
    >>> import torch
    >>> classifier = RateClassifier(80, 4, encoder_kwargs={"d_model": 32})
    >>> classifier(torch.randn(3, 10, 80), torch.tensor([1.0, 0.5, 0.7])).shape
    torch.Size([3, 4])
    """

    def __init__(self, input_size, classes, encoder="pts_snn", encoder_kwargs=None, logit_scale=1.0, readout_kwargs=None):
        super().__init__()
        self.encoder = FrameEncoder(input_size, encoder, encoder_kwargs)
        options = {"input_neuron": not getattr(self.encoder.model, "fires", False), "logit_scale": logit_scale, **(readout_kwargs or {})}
        self.readout = RateReadout(self.encoder.output_size, classes, **options)

    def forward(self, x, lengths=None):
        """Logits (B, K) of features ``x`` (B, L, input_size) and relative lengths (B,)."""
        return self.readout(self.encoder(x, lengths), lengths)
