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


def attention_maps(maps, blocks=None, title="Attention", signed=False):
    """Draws heads (columns) of blocks (rows) of one utterance.

    Arguments
    ---------
    maps : sequence of array (H, L, L)
        One map a block, of one utterance cut to its own frames.
    blocks : sequence of int, optional
        Which blocks, counted from 1; by default the first, the middle and the last.
    title : str
    signed : bool
        The maps as they are, positive and negative, instead of the weights that are made of them.

    Returns
    -------
    matplotlib.figure.Figure
        Under each map mean distance (frames), row entropy (nats) and diagonal mass, see :func:`attention_numbers`; with ``signed`` the
        magnitude at which its colours end, for raw scores of different heads have different scales.

    Raises
    ------
    ValueError
        For a map that is not (H, L, L), or a block that is not there.
    """
    return attention_of_runs({"": maps}, blocks, title, signed)


def attention_of_runs(runs, blocks=None, title="Attention", signed=False):
    """Draws the maps of several runs beside each other, as :func:`attention_maps` draws one; weights are on one scale.

    Arguments
    ---------
    runs : mapping of str to sequence of array (H, L, L)
        Name of a run -> its maps. Runs may differ in heads, blocks and frames.
    blocks, title, signed
        As :func:`attention_maps`; by default each run's own first, middle and last.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Without a run; and as :func:`attention_maps`, the message names the run.
    """
    chosen = {label: _chosen(label, maps, blocks) for label, maps in runs.items()}
    if not chosen:
        raise ValueError("no run to draw: give name -> maps, one a block")
    rows, heads = max(map(len, chosen.values())), [max(map(len, maps.values())) for maps in chosen.values()]
    named = any(chosen)
    canvas = figure(1.1 + sum(0.3 + 2.1 * number for number in heads), 0.9 + 0.3 * named + 2.5 * rows)
    canvas.suptitle(f"{title}\n{_LEGENDS[signed]}", x=0.01, ha="left", fontsize=9, color=INK)
    *parts, scale = canvas.subfigures(1, len(chosen) + 1, width_ratios=[*heads, 0.45])
    weights = [_normalised(head) for maps in chosen.values() for values in maps.values() for head in values]
    # At least four times uniform attention, so that an even map looks pale and not saturated.
    top = max(max(np.quantile(head, 0.995), 4 / len(head)) for head in weights)
    for part, number, (label, maps) in zip(parts, heads, chosen.items(), strict=True):
        panels = part.subplots(rows, number, squeeze=False, sharex=True, sharey=True)
        if named:
            part.suptitle(label, x=0.02, ha="left", fontsize=10, color=INK)
        image = _fill(panels, maps, None if signed else top)
    bar = canvas.colorbar(image, cax=scale.subplots(), extend="both" if signed else "max")
    bar.set_label("raw score / where its colours end" if signed else "attention weight (square-root scale)", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    return canvas


_LEGENDS = {
    False: f"d: mean distance (frames), H: row entropy (nats), diag: mass on |i-j| ≤ {NEAR}",
    True: "raw scores, positive and negative; colours end at the magnitude under each map",
}


def _chosen(label, maps, blocks):
    """block -> its map (H, L, L)."""
    arrays = [_checked(number, values) for number, values in enumerate(maps, 1)]
    blocks = _default_blocks(len(arrays)) if blocks is None else list(blocks)
    missing = [block for block in blocks if not 1 <= block <= len(arrays)]
    if missing or not blocks:
        of = f" of {label}" if label else ""
        raise ValueError(f"attention_maps{of} has {len(arrays)} maps, blocks {missing or 'none'} asked for: blocks count from 1")
    return {block: arrays[block - 1] for block in blocks}


def _fill(panels, maps, top):
    """Draws the maps of one run; gives an image that colours can be read from."""
    for axes in panels.flat:
        axes.set_visible(False)
    for row, (block, values) in zip(panels, maps.items(), strict=False):
        for number, (axes, head) in enumerate(zip(row, values, strict=False), 1):
            axes.set_visible(True)
            image = _signed(axes, head) if top is None else _weights(axes, head, top)
            plain(axes, f"block {block}, head {number}", axes.get_xlabel(), "query frame" if number == 1 else "")
            axes.xaxis.label.set_fontsize(7.5)
            for axis in (axes.xaxis, axes.yaxis):
                axis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    for axes in panels[len(maps) - 1]:
        axes.set_xlabel(axes.get_xlabel() + "\nkey frame", fontsize=8)
    return image


def _weights(axes, values, top):
    from matplotlib.colors import PowerNorm

    numbers = attention_numbers(values)
    axes.set_xlabel(f"d {numbers['distance']:.1f}  H {numbers['entropy']:.2f}  diag {numbers['diagonal']:.2f}")
    # A square root keeps uniform attention (1/L) and a sharp diagonal (near 1) visible on one scale.
    return axes.imshow(_normalised(values), cmap="Blues", norm=PowerNorm(0.5, 0, top), interpolation="nearest", aspect="equal")


def _signed(axes, values):
    end = float(np.quantile(np.abs(values), 0.995)) or 1.0  # a map of zeros is white at any scale
    axes.set_xlabel(f"± {end:.3g}")
    return axes.imshow(values / end, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest", aspect="equal")


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
