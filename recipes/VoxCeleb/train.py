"""Speakers of VoxCeleb, or of its synthetic twin: who speaks, or whether two utterances are of one person.

    python train.py hparams/iml_spikeformer_identification_mini.yaml --data_folder=/path/to/VoxCeleb
    python train.py hparams/iml_spikeformer_verification_mini.yaml --data_folder=synthetic

The YAML's key ``task`` chooses between ``spikebrain/training/identify.py`` and ``spikebrain/training/verify.py``. The preparer is in
``spikebrain/data/corpora/voxceleb.py``.
"""

from spikebrain.data.corpora import voxceleb
from spikebrain.training import identify, verify
from spikebrain.training.run import run

if __name__ == "__main__":
    run(__file__, corpus=voxceleb, task=(identify, verify))
