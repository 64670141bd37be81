"""Speech recognition on LibriSpeech, or on its synthetic twin.

    python train.py hparams/iml_spikeformer.yaml --data_folder=/path/to/LibriSpeech
    python train.py hparams/iml_spikeformer_mini.yaml --data_folder=synthetic

The pipeline is in ``spikebrain/training/asr.py``, the preparer in ``spikebrain/data/corpora/librispeech.py``.
"""

from spikebrain.data.corpora import librispeech
from spikebrain.training import asr
from spikebrain.training.run import run

if __name__ == "__main__":
    run(__file__, corpus=librispeech, task=asr)
