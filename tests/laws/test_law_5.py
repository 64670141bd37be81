"""Law 5: what runs on binary events gives the trained network's spikes, one for one, and adds as often as was worked out."""

import sys

import pytest
import torch
from speechbrain.dataio import audio_io
from test_laws import batch, build, calibrate, lengths_of
from torch.nn.utils.rnn import pad_sequence

from spikebrain import convert, registry
from spikebrain.convert import events, unroll
from spikebrain.convert.reparameterise import fuse
from spikebrain.lobes.utterance_features import Fbank

SPIKING = registry.entries("neuron") + registry.entries("encoder")


def heard(network, x, lengths):
    """(out, layer -> spikes, (layer, part) -> accumulates, (layer, part) -> macs of products without a spike) of a plain run."""
    run = convert.told(network, x, lengths)
    return run.out, run.spikes, run.accumulates, run.macs


def check_equal(network, driven, x, lengths):
    out, spikes, accumulates, macs = heard(network, x, lengths)
    run = convert.simulate(driven, x, lengths)
    assert sum(float(counts.sum()) for counts in spikes.values()) > 0
    assert set(run.spikes) == set(spikes)
    for name, counts in spikes.items():
        assert torch.equal(run.spikes[name], counts), name
    assert torch.allclose(run.out, out, atol=1e-10)
    return run, accumulates, macs


@pytest.mark.parametrize("entry", SPIKING, ids=lambda e: e.name)
def test_law_5_events_give_the_same_spikes_and_count_the_same(entry):
    network, x = build(entry), batch(entry)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    lengths = lengths_of(x, x.shape[1])
    run, accumulates, macs = check_equal(network, convert.convert(network), x, lengths)
    assert run.accumulates == accumulates and run.macs == macs
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.full
@pytest.mark.parametrize("entry", registry.entries("size"), ids=lambda e: e.name)
def test_law_5_in_published_widths(entry):
    torch.manual_seed(0)
    network = entry.constructor(num_layers=1)
    channels = getattr(network, "input_size", network.config.d_model)
    x = [1.5 * torch.randn(3, 13, channels, dtype=torch.float64) for _ in range(4)]
    calibrate(network, x[1:], 2)
    run, accumulates, macs = check_equal(network, convert.convert(network), x[0], torch.tensor([1.0, 7 / 13, 10 / 13]))
    assert run.accumulates == accumulates and run.macs == macs


@pytest.mark.parametrize("entry", [e for e in SPIKING if "iml" in e.name and "sdsa3" not in e.name], ids=lambda e: e.name)
@pytest.mark.parametrize("biases", [False, True])
def test_law_5_with_one_matrix_a_head(entry, biases):
    network = build(entry, qk_bias=biases)
    x = batch(entry)
    lengths = lengths_of(x, x.shape[1])
    fused = convert.reparameterise(network)
    out, spikes, *_ = heard(network, x, lengths)
    fused_out, fused_spikes, accumulates, macs = heard(fused, x, lengths)
    assert torch.allclose(out, fused_out, atol=1e-10) and not macs
    assert all(torch.equal(fused_spikes[name], counts) for name, counts in spikes.items())
    run, *_ = check_equal(network, convert.unroll_levels(fused), x, lengths)
    assert run.accumulates == accumulates and not run.macs


# Each of these is a mistake that is easily made; the law has to notice it.


IML = registry.entry("iml_spikeformer")


def assert_caught(network, driven, x):
    with pytest.raises(AssertionError):
        check_equal(network, driven, x, lengths_of(x, x.shape[1]))


def test_law_5_catches_a_bias_in_every_micro_step(monkeypatch):
    network, x, project = build(IML), batch(IML), events.project

    def often(spikes, weight, bias=None):
        out, added = project(spikes, weight)
        return (out if bias is None else out + spikes.levels * bias), added

    monkeypatch.setattr(events, "project", often)
    assert_caught(network, convert.convert(network), x)


def test_law_5_catches_one_matrix_for_all_heads(monkeypatch):
    network, x = build(IML), batch(IML)

    def joined(qk, heads):
        return fuse(qk, 1).expand(heads, -1, -1).clone()

    monkeypatch.setattr(sys.modules[convert.FusedRepSSA.__module__], "fuse", joined)
    assert_caught(network, convert.convert(convert.reparameterise(network)), x)


def test_law_5_catches_scores_of_single_micro_steps(monkeypatch):
    network, x = build(IML), batch(IML)

    def scores(self, spikes):
        total = 0
        for step in range(1, spikes.levels + 1):
            s = (spikes.level >= step).to(spikes.value.dtype).unsqueeze(1) * spikes.gain
            total = total + torch.matmul(torch.matmul(s, self.fused), s.transpose(-2, -1))
        return total

    monkeypatch.setattr(unroll.DrivenFusedRepSSA, "scores", scores)
    assert_caught(network, convert.convert(convert.reparameterise(network)), x)


def test_law_5_catches_neurons_that_fire_while_they_integrate(monkeypatch):
    network, x, fire = build(IML), batch(IML), unroll.IntegrateThenFire._spikes

    def early(self, x, *rest, **more):
        spikes = fire(self, x, *rest, **more)
        level = fire(self, x / 2, *rest, **more).level + fire(self, x - x / 2, *rest, **more).level  # half the input at a time
        return spikes._replace(value=level * spikes.gain, code=level.to(torch.uint8))

    monkeypatch.setattr(unroll.IntegrateThenFire, "_spikes", early)
    assert_caught(network, convert.convert(network), x)


# On real speech: features of recordings of different lengths, statistics from other recordings.


@pytest.fixture(scope="module")
def speech(real_data):
    """(batches to train statistics on, a ragged batch): log-mel features of real digits, (B, L, 16) and lengths (B,), float64."""
    files = sorted((real_data / "digits" / "recordings").glob("*"))
    chosen = [files[place] for place in range(0, len(files), len(files) // 24)][:24]
    features, extract = [], Fbank(n_mels=16, sample_rate=8000, n_fft=256)
    for file in chosen:
        samples, rate = audio_io.load(str(file))
        assert rate == 8000
        features.append(extract(samples[0]).double())
    frames = torch.cat(features)
    features = [1.5 * (x - frames.mean(0)) / frames.std(0) for x in features]
    counts = [len(x) for x in features[:3]]
    assert len(set(counts)) == 3
    padded = pad_sequence(features[:3], batch_first=True)
    return [pad_sequence(features[at : at + 7], batch_first=True) for at in (3, 10, 17)], padded, torch.tensor(counts) / max(counts)


def folded(entry, x):
    """The iterative neuron wants its micro-steps folded into the batch."""
    return x.repeat(6, *[1] * (x.dim() - 1)) if entry.name == "lif_multistep" else x


@pytest.mark.parametrize("entry", SPIKING, ids=lambda e: e.name)
def test_law_5_on_real_speech(entry, speech, capsys):
    batches, x, lengths = speech
    network, x, lengths = build(entry, [folded(entry, one) for one in batches]), folded(entry, x), folded(entry, lengths)
    run, accumulates, macs = check_equal(network, convert.convert(network), x, lengths)
    assert run.accumulates == accumulates and run.macs == macs
    single = network.float()
    _, spikes, *_ = heard(single, x.float(), lengths)
    driven = convert.simulate(convert.convert(single), x.float(), lengths)
    flipped = sum(float((driven.spikes[name] - counts).abs().sum()) for name, counts in spikes.items())
    with capsys.disabled():
        print(f"\n{entry.name}: {flipped:.0f} of {sum(float(counts.sum()) for counts in spikes.values()):.0f} spikes differ in float32")


@pytest.mark.full
@pytest.mark.parametrize("entry", registry.entries("size"), ids=lambda e: e.name)
def test_law_5_on_real_speech_in_published_widths(entry, speech):
    batches, x, lengths = speech
    torch.manual_seed(0)
    network = entry.constructor(num_layers=1)
    channels = getattr(network, "input_size", network.config.d_model)
    widen = torch.randn(16, channels, dtype=torch.float64) / 4  # as many channels as it hears, mixed from those of the recordings
    calibrate(network, [one @ widen for one in batches], 2)
    run, accumulates, macs = check_equal(network, convert.convert(network), x @ widen, lengths)
    assert run.accumulates == accumulates and run.macs == macs
