"""Publishes a run as a folder that anyone can load, check and trust.

    python tools/publish.py RUN OUT [--licence Apache-2.0] [--statement "Trained on ..."] [--data_folder=/path/to/corpus] [--stage kdcl-20]
        [--seeds RESULTS_OF_2 RESULTS_OF_3] [--speechbrain]
    python -c "import spikebrain; print(spikebrain.load('OUT').transcribe('file.flac'))"

RUN is the output_folder of a recipe's run that has ended: recognition, keywords, identification or verification of speakers, or one
stage of a distillation. With --speechbrain the folder is also one for SpeechBrain's EncoderDecoderASR, EncoderASR, EncoderClassifier and
SpeakerRecognition. OUT is written whole or not at all, after a fresh process has loaded it and found the outputs of the trained network
to the bit; `spikebrain push OUT owner/name` sends it to the Hugging Face hub.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spikebrain.data.manifest import DataError
from spikebrain.publishing import BundleError, bundle
from spikebrain.training.checkpoints import CheckpointError
from spikebrain.training.keys import RecipeError
from spikebrain.training.looking import LookingError


def main(argv=None):
    """Publishes the run that the arguments name; returns the exit status."""
    given = vars(_parser().parse_args(argv))
    try:
        out = bundle.make(given.pop("run"), given.pop("out"), **given)
    except (BundleError, LookingError, RecipeError, DataError, CheckpointError, OSError, ImportError) as error:
        print(f"publish.py: {error}", file=sys.stderr)
        return 1
    files = sorted(out.iterdir())
    print("\n".join(f"{file.stat().st_size:>12,}  {file.name}" for file in files))
    print(f"{out}: {sum(file.stat().st_size for file in files):,} bytes; a fresh process gives the run's outputs to the bit")
    return 0


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="output_folder of a run that has ended")
    parser.add_argument("out", type=Path, metavar="OUT", help="the bundle's folder, which is not there yet")
    parser.add_argument("--licence", default="Apache-2.0", help="of the weights, as Hugging Face names it")
    parser.add_argument("--statement", help="what the network was trained on; by default the corpus and its counts")
    parser.add_argument("--data_folder", help="the corpus, where it is elsewhere than when the run was trained")
    parser.add_argument("--stage", help="of a distillation; by default the one that the run reports")
    parser.add_argument("--seeds", nargs="+", default=(), metavar="RESULTS", help="results.json of the same recipe with other seeds")
    parser.add_argument("--speechbrain", action="store_true", help="add what SpeechBrain's own interfaces load")
    return parser


if __name__ == "__main__":
    sys.exit(main())
