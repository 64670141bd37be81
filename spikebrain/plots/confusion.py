"""Which class was taken for which."""

from spikebrain.plots.canvas import INK, figure, plain


def confusion(counts, labels, title=""):
    """Draws a confusion matrix: colour is the share of a true class, the text in each cell the number of utterances.

    Arguments
    ---------
    counts : sequence of K sequences of K int
        Rows are true classes, columns named ones.
    labels : sequence of K str
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        When counts are not (K, K) for the K labels.
    """
    rows = [list(row) for row in counts]
    if len(rows) != len(labels) or any(len(row) != len(labels) for row in rows):
        raise ValueError(f"the confusion matrix has {len(rows)} rows, there are {len(labels)} labels: pass one row and one column a label")
    shares = [[100 * n / max(sum(row), 1) for n in row] for row in rows]
    size = 1.6 + 0.62 * len(labels)
    canvas = figure(size + 1.2, size)
    axes = plain(canvas.subplots(), title, "named", "true")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    for i, row in enumerate(rows):
        for j, number in enumerate(row):
            axes.text(j, i, f"{number}", ha="center", va="center", fontsize=8, color="white" if shares[i][j] > 55 else INK)
    bar = canvas.colorbar(image, ax=axes, fraction=0.045)
    bar.set_label("share of the true class in %", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    return canvas
