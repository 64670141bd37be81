"""Attention maps, heads beside heads and blocks below blocks (as figure 4 of the IML-Spikeformer paper, arXiv 2507.07396)."""

import numpy as np

from spikebrain.plots.canvas import INK, figure, plain

NEAR = 3


def attention_numbers(weights):
    """How local one head attends.

    The map is made of weights first: absolute values, each row divided by its sum (a row of zeros stays zero).

    Arguments
    ---------
    weights : array (L, L)
        Row i: how much frame i takes from each frame j. Signed for linear attention.

    Returns
    -------
    dict
        ``distance``: mean of ``|i-j|`` in frames; ``entropy``: mean entropy of a row in nats, log(L) where all frames
        weigh the same; ``diagonal``: mass on ``|i-j| <= 3``.
    """
    weights = _normalised(weights)
    frames = np.arange(weights.shape[0])
    gap = np.abs(frames[:, None] - frames[None])
    logs = np.log(np.where(weights > 0, weights, 1))
    rows = len(frames)
    return {
        "distance": float((weights * gap).sum() / rows),
        "entropy": float(-(weights * logs).sum() / rows),
        "diagonal": float(weights[gap <= NEAR].sum() / rows),
    }


def attention_maps(maps, blocks=None, title="Attention"):
    """Draws heads (columns) of blocks (rows) of one utterance.

    Arguments
    ---------
    maps : sequence of array (H, L, L)
        One map a block, of one utterance cut to its own frames.
    blocks : sequence of int, optional
        Which blocks, counted from 1; by default the first, the middle and the last.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Under each map mean distance (frames), row entropy (nats) and diagonal mass, see :func:`attention_numbers`.

    Raises
    ------
    ValueError
        For a map that is not (H, L, L), or a block that is not there.
    """
    arrays = [_checked(number, values) for number, values in enumerate(maps, 1)]
    blocks = _default_blocks(len(arrays)) if blocks is None else list(blocks)
    missing = [block for block in blocks if not 1 <= block <= len(arrays)]
    if missing or not blocks:
        raise ValueError(f"attention_maps has {len(arrays)} maps, blocks {missing or 'none'} asked for: blocks count from 1")
    heads = max(arrays[block - 1].shape[0] for block in blocks)
    canvas = figure(1.4 + 2.1 * heads, 0.9 + 2.5 * len(blocks))
    legend = f"d: mean distance (frames), H: row entropy (nats), diag: mass on |i-j| ≤ {NEAR}"
    canvas.suptitle(f"{title}\n{legend}", x=0.01, ha="left", fontsize=9, color=INK)
    weights = [[_normalised(head) for head in arrays[block - 1]] for block in blocks]
    # At least four times uniform attention, so that an even map looks pale and not saturated.
    top = max(max(np.quantile(head, 0.995), 4 / len(head)) for row in weights for head in row)
    panels = canvas.subplots(len(blocks), heads, squeeze=False, sharex=True, sharey=True)
    for row, block in enumerate(blocks):
        for column, axes in enumerate(panels[row]):
            image = _panel(axes, weights[row][column], top, (block, column + 1))
    for axes in panels[-1]:
        axes.set_xlabel(axes.get_xlabel() + "\nkey frame", fontsize=8)
    bar = canvas.colorbar(image, ax=panels, fraction=0.03, aspect=30, extend="max")
    bar.set_label("attention weight (square-root scale)", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    return canvas


def _panel(axes, weights, top, place):
    from matplotlib.colors import PowerNorm

    # A square root keeps uniform attention (1/L) and a sharp diagonal (near 1) visible on one scale.
    image = axes.imshow(weights, cmap="Blues", norm=PowerNorm(0.5, 0, top), interpolation="nearest", aspect="equal")
    numbers = attention_numbers(weights)
    label = f"d {numbers['distance']:.1f}  H {numbers['entropy']:.2f}  diag {numbers['diagonal']:.2f}"
    plain(axes, f"block {place[0]}, head {place[1]}", label, "query frame" if place[1] == 1 else "")
    axes.xaxis.label.set_fontsize(7.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return image


def _normalised(weights):
    weights = np.abs(np.asarray(weights, dtype=float))
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
        raise ValueError(f"an attention map has shape {weights.shape}: pass one head of one utterance, (L, L)")
    return weights / np.maximum(weights.sum(1, keepdims=True), np.finfo(float).tiny)


def _checked(number, values):
    values = np.asarray(values, dtype=float)
    if values.ndim != 3 or values.shape[1] != values.shape[2]:
        raise ValueError(f"the map of block {number} has shape {values.shape}: pass one utterance, (heads, L, L)")
    return values


def _default_blocks(number):
    return sorted({1, (number + 1) // 2, number}) if number else []
