"""Emotions of EMOVO, or of its synthetic twin.

    python train.py hparams/pts_snn_mini.yaml --data_folder=/path/to/EMOVO
    python train.py hparams/pts_snn_mini.yaml --data_folder=synthetic --fold_protocol=speaker

One command trains all folds (``spikebrain/training/emotion.py``, ``emotion_regression.py``). The preparer is in
``spikebrain/data/corpora/emovo.py``.
"""

from spikebrain.data.corpora import emovo
from spikebrain.training import emotion, emotion_regression
from spikebrain.training.run import run

if __name__ == "__main__":
    run(__file__, corpus=emovo, task=(emotion, emotion_regression))
