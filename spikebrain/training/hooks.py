"""What is looked at after training: firing rates, energy, pictures."""

import os
from itertools import islice

import torch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger

from spikebrain import energy, plots
from spikebrain import lengths as frames

logger = get_logger(__name__)


@torch.no_grad()
def look(brain, dataset, loader):
    """Listens to the trained encoder over a split, and draws pictures into the run's folder.

    Runs on the main process alone, on the modules inside of wrappers. Something that cannot be counted or
    drawn is logged and left out: a finished training is not lost over a picture.

    Arguments
    ---------
    brain : TaskBrain
        After evaluation, with the weights to look at: ``parts`` and ``history``, ``encoder`` (the module that is listened to),
        ``hear(batch)`` (encodes it; gives feature frames and decoder steps of each utterance) and ``cost(counter)`` (its
        energy report).
    dataset : DynamicItemDataset
        What the brain's batches are made of.
    loader : dict
        Options of its loader.

    Returns
    -------
    dict
        ``firing_rate`` (layer -> summary) and ``energy`` (scope -> report); empty on other processes.
    """
    if not if_main_process():
        return {}
    root = torch.nn.ModuleDict(brain.parts).eval()
    counter = energy.Counter(root)
    batches = islice(make_dataloader(dataset, **loader), brain.debug_batches if brain.debug else None)
    encoder_input = _listen(brain, batches, counter)
    report = {"firing_rate": counter.firing_rate()}
    cost = _attempt("energy", lambda: brain.cost(counter))
    if cost:
        report["energy"] = cost
    draw(brain.hparams.output_folder, _pictures(brain, counter, cost, encoder_input))
    return report


def _listen(brain, batches, counter):
    """Encodes every batch with ``counter`` listening; gives the encoder's input for the first utterance, cut to its length."""
    kept = {}

    def keep(module, args, kwargs):
        """Keeps what the encoder is given."""
        kept.setdefault("src", kwargs.get("src", args[0] if args else None))
        kept.setdefault("lengths", _lengths(args, kwargs))

    handle = brain.encoder.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        for batch in batches:
            with counter.listen():
                heard = brain.hear(batch.to(brain.device))
            counter.add_utterances(*heard)
    finally:
        handle.remove()
    return kept["src"][:1, : int(frames.absolute(kept["lengths"], kept["src"])[0])]


def _lengths(args, kwargs):
    """Relative lengths of an encoder's input: SpeechBrain gives a mask, and ours are given lengths."""
    if "src_key_padding_mask" in kwargs:
        return frames.from_padding_mask(kwargs["src_key_padding_mask"])
    return kwargs.get("lengths", args[1] if len(args) > 1 else None)


def draw(folder, pictures):
    """Writes pictures into ``folder``, on the main process; one that cannot be drawn is logged and left out.

    Arguments
    ---------
    folder : str
    pictures : dict
        Name of the file without its ending -> callable that gives the figure, or None where there is nothing to draw.
    """
    for name, make in pictures.items() if if_main_process() else ():
        figure = _attempt(f"{name}.png", make)
        if figure is not None:
            _attempt(f"{name}.png", lambda: plots.save(figure, os.path.join(folder, f"{name}.png")))  # noqa: B023


def _pictures(brain, counter, cost, encoder_input):
    rows = brain.history.rows
    return {
        "curves": lambda: plots.curves(rows),
        "firing_by_epoch": lambda: plots.firing_by_epoch(rows) if any(row.get("firing") for row in rows) else None,
        "firing_rates": lambda: plots.firing_rates(counter.rates()) if counter.spikes else None,
        "energy": lambda: plots.energy(cost) if cost else None,
        "attention": lambda: _attention(brain.encoder, encoder_input),
    }


def _attention(encoder, encoder_input):
    """The encoder's attention on one utterance, for encoders that can say it."""
    for module in encoder.modules():
        if callable(getattr(module, "attention_maps", None)):
            maps = module.attention_maps(encoder_input)
            return plots.attention_maps([scores[0].float().cpu().numpy() for scores in maps])
    return None


def _attempt(what, function):
    try:
        return function()
    except Exception as error:  # whatever it is: what was trained is worth more than what is drawn of it
        logger.warning(f"{what} is left out: {type(error).__name__}: {error}")
        return None
