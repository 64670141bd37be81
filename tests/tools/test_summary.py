"""The summary says what results.json holds, and nothing else."""

import json
import subprocess
import sys

import pytest

RESULTS = {
    "model": "spiking",
    "corpus": "Digits",
    "protocol": "default",
    "seed": 7,
    "metrics": {"dev": {"WER": 2.5}, "test": {"WER": 12.34, "CER": 4.0}},
    "parameters": {"total": 1234567, "trainable": 1200000},
    "firing_rate": {"a": {"mean": 0.1, "channels": 30}, "b": {"mean": 0.5, "channels": 10}},
    "energy": {"full": {"mJ": 0.5, "twin_mJ": 2.0}, "counting": {"prices": "x"}},
    "seconds": 90.0,
}


def run(checkout, folder):
    return subprocess.run([sys.executable, checkout / "tools" / "summary.py", folder], capture_output=True, text=True)


def test_every_number_is_told(checkout, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    (tmp_path / "firing_rates.png").write_bytes(b"")
    done = run(checkout, tmp_path)
    assert done.returncode == 0, done.stderr
    told = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    told = {label.strip(): text.strip() for label, text in told.items()}
    assert told["WER"] == "dev 2.50 %   test 12.34 %"
    assert told["CER"] == "test 4.00 %"
    assert told["parameters"] == "1,234,567 (1,200,000 trainable)"
    # 30 channels at 0.1 and 10 at 0.5: (3 + 5) / 40
    assert told["firing rate"].startswith("0.200 ") and "0.100 in a" in told["firing rate"] and "0.500 in b" in told["firing rate"]
    assert told["energy, full"] == "0.5 mJ an utterance, twin without spikes 2 mJ (25 % of it)"
    assert told["time"] == "1.5 minutes"
    assert told["picture"].endswith("firing_rates.png")
    assert "energy, counting" not in told


@pytest.mark.parametrize("absent", ["firing_rate", "energy"])
def test_a_network_without_spikes_is_told_too(checkout, tmp_path, absent):
    (tmp_path / "results.json").write_text(json.dumps({key: value for key, value in RESULTS.items() if key != absent}))
    done = run(checkout, tmp_path)
    assert done.returncode == 0, done.stderr
    assert absent.replace("_", " ") not in done.stdout


def test_no_results_is_an_error_that_names_the_file(checkout, tmp_path):
    done = run(checkout, tmp_path)
    assert done.returncode == 1 and "results.json: no such file" in done.stderr and done.stdout == ""
