"""Tiny runs of every task on tones, trained once a session, and the bundles that they become."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import ruamel.yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import fake_gsc  # noqa: E402
import fake_librispeech  # noqa: E402
import fake_voxceleb  # noqa: E402
from proved import check_here  # noqa: E402

from spikebrain.data.corpora import gsc, librispeech, shd, voxceleb  # noqa: E402
from spikebrain.publishing import bundle, contents, load, proof  # noqa: E402
from spikebrain.training import asr, classify, distil, hooks, identify, verify  # noqa: E402
from spikebrain.training.run import run  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["no", "one", "yes"]
_KEYWORDS = {"classes": WORDS, "train_splits": ["train"], "dev_splits": ["valid"], "test_splits": ["test"], "batch_size": 4}
_SPEAKERS = {"num_layers": 2, "seconds": 0.2, "batch_size": 4}


def make_events(folder):
    """A tree of SHD."""
    pytest.importorskip("h5py", reason="pip install spikebrain[spikes]: SHD's files are HDF5")
    import fake_events

    return fake_events.make_shd(folder)


# name -> corpus, its recipe's tasks, YAML, maker of its tree, what is overridden beside what shrinks every recipe.
RUNS = {
    "attention": (
        librispeech, asr, "iml_spikeformer_mini", fake_librispeech.make_tree,
        {"output_neurons": 40, "avg_checkpoints": 1, "eval_batch_size": 1},  # a search of a batch ends for all of it at once
    ),
    "ctc": (
        librispeech, asr, "iml_spikeformer_mini", fake_librispeech.make_tree,
        {"num_decoder_layers": 0, "ctc_weight": 1.0, "norm_type": "global", "token_type": "char", "output_neurons": 30,
         "frontend_activation": "spike"},
    ),
    "keywords": (gsc, (classify, distil), "spikescr_mini", lambda folder: fake_gsc.make_tree(folder, WORDS), _KEYWORDS),
    "events": (
        shd, (classify, distil), "spikescr_mini", make_events,
        {"train_splits": ["train"], "dev_splits": ["valid"], "test_splits": ["test"], "batch_size": 32},
    ),
    "distilled": (
        gsc, (classify, distil), "spikescr_mini_kdcl", lambda folder: fake_gsc.make_tree(folder, WORDS),
        {**_KEYWORDS, "frames": [40, 20], "kd_epochs": 1, "arms": ["kdcl"]},
    ),
    "identify": (
        voxceleb, (identify, verify), "iml_spikeformer_identification_mini", fake_voxceleb.make_tree,
        {**_SPEAKERS, "train_splits": ["iden-train"], "dev_splits": ["iden-valid"], "test_splits": ["iden-test"]},
    ),
    "verify": (
        voxceleb, (identify, verify), "iml_spikeformer_verification_mini", fake_voxceleb.make_tree,
        {**_SPEAKERS, "train_splits": ["vox1-dev"], "dev_splits": ["vox1-valid"], "test_splits": ["vox1-o"], "valid_share": 0.4,
         "embedding_size": 8},
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def run_of(tmp_path_factory):
    """(name of RUNS) -> folder of that run, trained for an epoch; nothing of it is drawn."""
    made = {}

    def train(name):
        if name not in made:
            corpus, tasks, yaml, make_tree, changes = RUNS[name]
            place = tmp_path_factory.mktemp(name)
            recipe = ROOT / "recipes" / corpus.CORPUS.name
            folders = {"data_folder": make_tree(place / "corpus"), "output_folder": place / "run"}
            words = _words(recipe / "hparams" / f"{yaml}.yaml", **folders, **changes)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(hooks, "draw", lambda *those: None)
                run(str(recipe / "train.py"), corpus, tasks, words)
            made[name] = place / "run"
        return made[name]

    return train


@pytest.fixture(scope="session")
def bundle_of(run_of, tmp_path_factory):
    """(name of RUNS) -> folder of the bundle that the run became.

    A fresh process takes four seconds to import SpeechBrain: here the proof's own main runs in this one, and in test_bundle.py afresh.
    """
    made = {}

    def publish(name):
        if name not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(proof, "check_afresh", check_here)
                made[name] = bundle.make(run_of(name), tmp_path_factory.mktemp("bundles") / name)
        return made[name]

    return publish


@pytest.fixture(scope="session")
def model_of(bundle_of):
    """(name of RUNS) -> the Model of its bundle, loaded once: look, and change nothing."""
    made = {}

    def read(name):
        if name not in made:
            made[name] = load(bundle_of(name))
        return made[name]

    return read


@pytest.fixture(scope="session")
def results_of(run_of):
    """(name of RUNS) -> its results.json."""
    return lambda name: json.loads((run_of(name) / "results.json").read_text(encoding="utf-8"))


def _words(file, **more):
    shrink = ruamel.yaml.YAML(typ="safe").load(ROOT / "tests" / "recipes" / "shrink.yaml")
    keys = ruamel.yaml.YAML().load(file)
    small = {key: value for key, value in shrink.items() if key in keys} | {"number_of_epochs": 1, **more}
    words = {key: json.dumps(value) if isinstance(value, list) else value for key, value in small.items()}
    return [str(file), "--device=cpu", "--noprogressbar", *(f"--{key}={value}" for key, value in words.items())]


@pytest.fixture
def copy_of(bundle_of, tmp_path):
    """(name of RUNS) -> a copy of its bundle that a test may change."""

    def copied(name):
        return Path(shutil.copytree(bundle_of(name), tmp_path / f"copy of {name}"))

    return copied


@pytest.fixture(scope="session")
def reseal():
    """(folder, edit) -> bundle.json edited by edit(dict), sizes and hashes as the files are, sealed: as whoever means harm would do it."""

    def seal(folder, edit=lambda config: None):
        config = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        for name in config["files"]:
            data = (folder / name).read_bytes()
            config["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        edit(config)
        (folder / "bundle.json").write_bytes(contents.seal(config))

    return seal
