"""What every test utterance was taken for, on disk."""

import pytest

from spikebrain.data.manifest import DataError
from spikebrain.training import predictions
from spikebrain.training.predictions import Prediction


def test_what_is_written_is_read(tmp_path):
    rows = [Prediction("1", "a,b", "SM5", "angry", "sad"), Prediction("speaker-03", "c", "", "sad", "sad")]
    predictions.write(tmp_path, rows)
    assert predictions.read(tmp_path) == rows


def test_a_missing_and_a_foreign_file_are_said(tmp_path):
    with pytest.raises(DataError, match=r"predictions.csv: there is no such file"):
        predictions.read(tmp_path)
    (tmp_path / "save").mkdir()
    (tmp_path / "save" / "predictions.csv").write_text("id,predicted\na,b\n")
    with pytest.raises(DataError, match="has the columns id, predicted, expected fold, id"):
        predictions.read(tmp_path)
