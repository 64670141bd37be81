"""Emotions of EMODB, or of its synthetic twin.

    python train.py hparams/pts_snn_mini.yaml --data_folder=/path/to/EMODB
    python train.py hparams/pts_snn_mini.yaml --data_folder=synthetic --fold_protocol=speaker

One command trains all folds (``spikebrain/training/emotion.py``, ``emotion_regression.py``). The preparer is in
``spikebrain/data/corpora/emodb.py``.
"""

from spikebrain.data.corpora import emodb
from spikebrain.training import emotion, emotion_regression
from spikebrain.training.run import run

if __name__ == "__main__":
    run(__file__, corpus=emodb, task=(emotion, emotion_regression))
