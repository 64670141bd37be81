"""Keywords of Google Speech Commands, or of its synthetic twin.

    python train.py hparams/spikescr_mini.yaml --data_folder=/path/to/speech_commands_v0.02
    python train.py hparams/spikescr_mini_kdcl.yaml --data_folder=synthetic

The YAML's key ``task`` chooses between training at one number of frames (``spikebrain/training/classify.py``) and a curriculum
with distillation (``spikebrain/training/distil.py``). The preparer is in ``spikebrain/data/corpora/gsc.py``.
"""

from spikebrain.data.corpora import gsc
from spikebrain.training import classify, distil
from spikebrain.training.run import run

if __name__ == "__main__":
    run(__file__, corpus=gsc, task=(classify, distil))
