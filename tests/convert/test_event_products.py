"""Products of spikes, event by event, against dense products of torch, and additions against plain loops over spikes."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.attention.spike_attention import merge_heads, split_heads
from spikebrain.convert import events

COUNTS = torch.tensor([6, 4, 1])
HEADS = 2
CASES = list(itertools.product((1, 3), ("ones", "channel", "utterance")))


@pytest.fixture(params=CASES, ids=lambda case: f"levels={case[0]}-{case[1]}")
def case(request):
    return request.param


@pytest.fixture(params=[3, events.CHUNK], autouse=True)
def chunk(request, monkeypatch):
    """All events at once, and so few that a train takes many chunks."""
    monkeypatch.setattr(events, "CHUNK", request.param)


def train(case, channels=8, seed=0):
    """A ragged train (3, 6, channels) of spikes."""
    levels, worth = case
    torch.manual_seed(seed)
    level = frames.zero_past(torch.randint(-levels, levels + 1, (3, 6, channels)).clamp(min=0), COUNTS)
    if levels > 1:  # bit 7 says something to the backward pass, and nothing here
        level = level + 128 * torch.randint(0, 2, level.shape)
    shape = {"ones": (channels,), "channel": (channels,), "utterance": (3, 1, channels)}[worth]
    gain = torch.ones(shape, dtype=torch.float64) if worth == "ones" else torch.rand(shape, dtype=torch.float64) + 0.5
    code = level.to(torch.uint8)
    return operands.Spikes((code & 127) * gain, code, gain, levels, COUNTS)


def real(*shape, seed=9):
    torch.manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64)


def number(spikes):
    return int(spikes.level.sum())


def met(spikes):
    """Spikes, each as often as its utterance has frames."""
    return int((spikes.level.flatten(1).sum(1).long() * COUNTS).sum())


def test_bursts_are_prefixes_that_add_up_to_the_level(case):
    spikes, total = train(case), torch.zeros(3, 6, 8, dtype=torch.long)
    steps = []
    for found in events.bursts(spikes):
        step = torch.zeros_like(total)
        step[found.unbind(1)] = 1
        steps.append(step)
        total += step
    assert torch.equal(total, spikes.level.long()) and len(steps) == spikes.levels
    assert all(bool((later <= earlier).all()) for earlier, later in itertools.pairwise(steps))


@pytest.mark.parametrize("biased", [False, True])
def test_project(case, biased):
    spikes, weight, bias = train(case), real(5, 8), real(5, seed=8) if biased else None
    out, added = events.project(spikes, weight, bias)
    assert torch.allclose(out, F.linear(spikes.value, weight, bias), atol=1e-12)
    assert added == number(spikes) * 5


@pytest.mark.parametrize("kernel", [1, 3, 7, 13])
@pytest.mark.parametrize("groups", [1, 8])
def test_convolve(case, kernel, groups):
    spikes, weight, bias = train(case), real(8, 8 // groups, kernel), real(8, seed=8)
    out, added = events.convolve(spikes, weight, bias)
    dense = F.conv1d(spikes.value.transpose(1, 2), weight, bias, padding=kernel // 2, groups=groups).transpose(1, 2)
    assert torch.allclose(out, dense, atol=1e-12)
    assert added == number(spikes) * kernel * (8 // groups if groups > 1 else 8)


def test_convolve_of_one_channel_into_several(case):
    spikes, weight = train(case, channels=1), real(4, 1, 3)
    out, added = events.convolve(spikes, weight)
    dense = F.conv1d(spikes.value.transpose(1, 2), weight, padding=1).transpose(1, 2)
    assert torch.allclose(out, dense, atol=1e-12) and added == number(spikes) * 3 * 4


def test_attend(case):
    spikes, weights = train(case), real(3, HEADS, 6, 6)
    out, added = events.attend(weights, spikes, HEADS)
    assert torch.allclose(out, merge_heads(weights @ split_heads(spikes.value, HEADS)), atol=1e-12)
    assert added == met(spikes)


def test_score_each_head_its_own_channels(case):
    spikes, known = train(case), real(3, HEADS, 6, 4)
    out, added = events.score(known, spikes)
    assert torch.allclose(out, known @ split_heads(spikes.value, HEADS).transpose(-2, -1), atol=1e-12)
    assert added == met(spikes)


def test_score_all_heads_hear_every_channel(case):
    spikes, known = train(case), real(3, HEADS, 6, 8)
    out, added = events.score(known, spikes, HEADS)
    assert torch.allclose(out, known @ spikes.value.unsqueeze(1).transpose(-2, -1), atol=1e-12)
    assert added == met(spikes) * HEADS


def test_meet(case):
    keys, values = train(case), train(case, seed=1)
    out, added = events.meet(keys, values, HEADS)
    k, v = (split_heads(one.value, HEADS) for one in (keys, values))
    assert torch.allclose(out, k.transpose(-2, -1) @ v, atol=1e-12)
    pairs = 0
    for b, t, h in itertools.product(range(3), range(6), range(HEADS)):
        own = slice(4 * h, 4 * h + 4)
        pairs += int(keys.level[b, t, own].sum()) * int(values.level[b, t, own].sum())
    assert added == pairs


def test_gather(case):
    keys, values = train(case), train(case, seed=1)
    out, added = events.gather(keys, values, HEADS)
    k, v = (split_heads(one.value, HEADS) for one in (keys, values))
    assert torch.allclose(out, k.transpose(-2, -1) @ v, atol=1e-12)
    assert added == number(values) * 4


def test_read(case):
    queries, state = train(case), real(3, HEADS, 4, 4)
    out, added = events.read(queries, state)
    assert torch.allclose(out, merge_heads(split_heads(queries.value, HEADS) @ state), atol=1e-12)
    assert added == number(queries) * 4


def test_passed():
    gate, content = train((1, "ones")), real(3, 6, 8)
    out, added = events.passed(content, gate)
    assert torch.equal(out, content * gate.value) and added == number(gate)


def test_silence_costs_nothing_and_a_level_of_three_costs_three():
    weight = real(5, 8)
    silent = train((3, "ones"))._replace(code=torch.zeros(3, 6, 8, dtype=torch.uint8))
    out, added = events.project(silent, weight, real(5, seed=8))
    assert added == 0 and torch.equal(out, real(5, seed=8).expand(3, 6, 5))
    code = torch.zeros(3, 6, 8, dtype=torch.uint8)
    code[0, 0, 2] = 3
    out, added = events.project(silent._replace(code=code), weight)
    assert added == 3 * 5 and torch.allclose(out[0, 0], 3 * weight[:, 2])


def test_trimmed_forgets_what_lies_past_an_utterances_end():
    spikes = train((3, "ones"))
    whole = spikes._replace(code=torch.full_like(spikes.code, 3))
    assert torch.equal(events.trimmed(whole).level.sum((1, 2)), COUNTS * 8 * 3)
    assert events.project(events.trimmed(whole), real(5, 8))[1] == int(COUNTS.sum()) * 8 * 3 * 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_in_float32(dtype):
    spikes = train((3, "channel"))
    spikes = spikes._replace(value=spikes.value.to(dtype), gain=spikes.gain.to(dtype))
    weight, taps, state, known = (real(*shape).to(dtype) for shape in ((5, 8), (8, 1, 3), (3, HEADS, 4, 4), (3, HEADS, 6, 4)))
    sums = {
        "project": (events.project(spikes, weight), events.project(_wide(spikes), weight.float())),
        "convolve": (events.convolve(spikes, taps), events.convolve(_wide(spikes), taps.float())),
        "read": (events.read(spikes, state), events.read(_wide(spikes), state.float())),
        "score": (events.score(known, spikes), events.score(known.float(), _wide(spikes))),
        "gather": (events.gather(spikes, spikes, HEADS), events.gather(_wide(spikes), _wide(spikes), HEADS)),
    }
    for name, ((half, added), (whole, as_many)) in sums.items():
        assert half.dtype == torch.float32 and torch.allclose(half, whole, rtol=1e-5) and added == as_many, name


def _wide(spikes):
    return spikes._replace(value=spikes.value.float(), gain=spikes.gain.float())
