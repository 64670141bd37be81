"""Emotions of IEMOCAP, or of its synthetic twin.

    python train.py hparams/pts_snn_mini.yaml --data_folder=/path/to/IEMOCAP
    python train.py hparams/pts_snn_mini.yaml --data_folder=synthetic --fold=[session-1]

One command trains all folds (``spikebrain/training/emotion.py``, ``emotion_regression.py``). The preparer is in
``spikebrain/data/corpora/iemocap.py``.
"""

from spikebrain.data.corpora import iemocap
from spikebrain.training import emotion, emotion_regression
from spikebrain.training.run import run

if __name__ == "__main__":
    run(__file__, corpus=iemocap, task=(emotion, emotion_regression))
