"""Fixtures of the data room: fake trees, and a small synthetic twin made once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
pytest.register_assert_rewrite("preparing")

import fake_librispeech  # noqa: E402


@pytest.fixture
def tree(tmp_path):
    """A sound LibriSpeech tree: three splits of two speakers with three utterances each."""
    return fake_librispeech.make_tree(tmp_path / "LibriSpeech")


@pytest.fixture(scope="session")
def twin(tmp_path_factory):
    """A small synthetic LibriSpeech with all of the default splits."""
    pytest.importorskip("espeakng_loader", reason="needs the synthetic extra")
    from spikebrain.data.synthetic import librispeech

    numbers = {"train-clean-100": 48, "dev-clean": 8, "dev-other": 8, "test-clean": 16, "test-other": 8}
    return librispeech.make(tmp_path_factory.mktemp("twin") / "LibriSpeech", seed=5, utterances=numbers)
