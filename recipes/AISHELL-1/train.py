"""Speech recognition on AISHELL-1, or on its synthetic twin.

    python train.py hparams/iml_spikeformer.yaml --data_folder=/path/to/data_aishell
    python train.py hparams/iml_spikeformer_mini.yaml --data_folder=synthetic

The pipeline is in ``spikebrain/training/asr.py``, the preparer in ``spikebrain/data/corpora/aishell.py``.
"""

from spikebrain.data.corpora import aishell
from spikebrain.training import asr
from spikebrain.training.run import run

if __name__ == "__main__":
    run(__file__, corpus=aishell, task=asr)
