"""Keywords as spikes: Spiking Speech Commands, or its synthetic twin.

    python train.py hparams/spikescr.yaml --data_folder=/path/to/SSC
    python train.py hparams/spikescr_mini_kdcl.yaml --data_folder=synthetic

The YAML's key ``task`` chooses between training at one number of frames (``spikebrain/training/classify.py``) and a curriculum
with distillation (``spikebrain/training/distil.py``). The preparer is in ``spikebrain/data/corpora/ssc.py``.
"""

from spikebrain.data.corpora import ssc
from spikebrain.training import classify, distil
from spikebrain.training.run import run

if __name__ == "__main__":
    run(__file__, corpus=ssc, task=(classify, distil))
