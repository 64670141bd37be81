"""Loss and error rate by epoch."""

from spikebrain.plots.canvas import ALERT, INK, SPIKING, TWIN, figure, gridded, plain

_COLOURS = (SPIKING, ALERT, "#e0a030", "#5b8c5a", TWIN)


def curves(epochs, title="Training"):
    """Draws losses on the left and error rates on the right, over epochs.

    Arguments
    ---------
    epochs : sequence of dict
        One an epoch: ``"epoch"`` (int) and any of ``"<split>_loss"``, ``"<split>_WER"``, ``"<split>_CER"``, ``"<split>_EER"``,
        ``"<split>_error"`` (percent). A number may be missing (None, or no key) where it was not measured; other keys are not drawn.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        When there is no epoch, or no loss in any.
    """
    losses = _series(epochs, ("loss",))
    errors = _series(epochs, ("WER", "CER", "EER", "error"))
    if not losses:
        raise ValueError(f"{len(epochs)} epochs hold no loss: give each a key such as train_loss or valid_loss")
    canvas = figure(10 if errors else 5.5, 3.4)
    canvas.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    panels = canvas.subplots(1, 2 if errors else 1, squeeze=False)[0]
    _lines(plain(panels[0], "loss", "epoch", "loss an utterance (nats)"), losses, "{:.2f}")
    if errors:
        _lines(plain(panels[1], "error rate", "epoch", "error rate (%)"), errors, "{:.1f} %")
        panels[1].set_ylim(bottom=0)
    return canvas


def _series(epochs, endings):
    names = dict.fromkeys(key for epoch in epochs for key in epoch if key.rpartition("_")[2] in endings)
    series = {name: [(epoch["epoch"], epoch[name]) for epoch in epochs if epoch.get(name) is not None] for name in names}
    return {name: points for name, points in series.items() if points}


def _lines(axes, series, number):
    for colour, (name, points) in zip(_COLOURS * len(series), series.items(), strict=False):
        x, y = zip(*points, strict=True)
        label = f"{name.replace('_', ' ')}, last {number.format(y[-1])}"
        axes.plot(x, y, color=colour, linewidth=1.6, marker="o" if len(x) < 30 else None, markersize=3, label=label)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.legend(fontsize=8, frameon=False, labelcolor=INK)
    gridded(axes)
