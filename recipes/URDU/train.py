"""Emotions of URDU, or of its synthetic twin.

    python train.py hparams/pts_snn_mini.yaml --data_folder=/path/to/URDU
    python train.py hparams/pts_snn_mini.yaml --data_folder=synthetic --fold_protocol=speaker --protocol=speaker

One command trains all folds (``spikebrain/training/emotion.py``, or ``emotion_regression.py``). The preparer is in
``spikebrain/data/corpora/urdu.py``.
"""

from spikebrain.data.corpora import urdu
from spikebrain.training import emotion, emotion_regression
from spikebrain.training.run import run

if __name__ == "__main__":
    run(__file__, corpus=urdu, task=(emotion, emotion_regression))
