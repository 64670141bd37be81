"""Spikes and features of one utterance, packed for the page's script."""

import base64
import json
import zlib

import torch

MOST = 1024  # neurons of a layer that are drawn; of wider layers evenly many


def packed(report, drawn):
    """JSON: ``seconds``, ``features`` and ``layers``, each with its bytes (frame by frame), deflated, in base 64.

    Arguments
    ---------
    report : dict
        With ``utterance`` and ``firing_rate``, which says how many levels a layer has.
    drawn : dict
        As for :func:`spikebrain.plots.page.page`.

    Returns
    -------
    str
        Fit for a script element: it holds no ``<``.
    """
    rates = report["firing_rate"]
    layers = [_layer(name, train, rates.get(name.partition("#")[0], {})) for name, train in drawn["trains"].items()]
    whole = {"seconds": report["utterance"]["seconds"], "features": _features(drawn["features"]), "layers": layers}
    return json.dumps(whole).replace("<", "\\u003c")


def _features(x):
    """Bytes 0..255 of features (L, F): their 1st to 99.5th percentile, since single loud cells would leave the rest pale."""
    flat = x.float().flatten()
    low, high = (float(flat.kthvalue(max(1, round(share * flat.numel()))).values) for share in (0.01, 0.995))
    scaled = ((x.float() - low) / max(high - low, 1e-9)).clamp(0, 1) * 255
    return {"frames": len(x), "shown": x.shape[1], "bytes": _bytes(scaled.round().to(torch.uint8))}


def _layer(name, train, summary):
    frames, neurons = train.shape
    every = -(-neurons // MOST)
    shown = train[:, ::every].contiguous()
    levels = max(summary.get("levels", 1), int(train.max()) if train.numel() else 1)
    sizes = {"frames": frames, "neurons": neurons, "shown": shown.shape[1], "every": every, "levels": levels}
    return {"name": name, **sizes, "bytes": _bytes(shown)}


def _bytes(values):
    return base64.b64encode(zlib.compress(values.contiguous().numpy().tobytes(), 9)).decode("ascii")
