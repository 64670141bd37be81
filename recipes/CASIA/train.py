"""Emotions of CASIA, or of its synthetic twin.

    python train.py hparams/pts_snn_mini.yaml --data_folder=/path/to/CASIA
    python train.py hparams/pts_snn_mini.yaml --data_folder=synthetic --fold=[speaker-wangzhe]

One command trains all folds (``spikebrain/training/emotion.py``, ``emotion_regression.py``). The preparer is in
``spikebrain/data/corpora/casia.py``.
"""

from spikebrain.data.corpora import casia
from spikebrain.training import emotion, emotion_regression
from spikebrain.training.run import run

if __name__ == "__main__":
    run(__file__, corpus=casia, task=(emotion, emotion_regression))
