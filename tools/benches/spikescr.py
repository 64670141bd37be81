"""A training step of SpikeSCR against the same network built from SpikingJelly's layers.

Forward pass, cross-entropy of summed softmaxes, backward pass; no optimiser. Beside both stand the same two networks without
neurons, which no kernel for neurons can beat.
"""

import contextlib
import re
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from benches import measure, peers
from benches.measure import Disagreement, Step, digits, say, verdict
from spikebrain import operands
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.kernels import batch_norm, native
from spikebrain.learning import losses
from spikebrain.lobes import SpikingClassifier
from spikebrain.neurons import LIF


@dataclass(frozen=True)
class Task:
    """A network and the batch that it is trained on.

    name, encoder, switches : what tables call it, a registry name, and arguments of the encoder
    """

    name: str
    encoder: str
    switches: dict = field(default_factory=dict)
    input_size: int = 140
    classes: int = 35
    batch: int = 32
    frames: int = 100

    def network(self, dropout=0.1):
        """The SpikingClassifier, from a fixed seed."""
        torch.manual_seed(0)
        return SpikingClassifier(self.input_size, self.classes, self.encoder, {"dropout": dropout, **self.switches})

    def peer(self, ours):
        """The same network of SpikingJelly's layers, with the weights of ``ours``."""
        peer = peers.PeerSpikeSCR(ours.encoder.model.config, self.input_size, self.classes)
        with torch.no_grad():
            for theirs, mine, rows, theirs_rows in peers.pairs(peer, ours):
                theirs[theirs_rows].copy_(mine[rows])
        return peer

    def data(self, dtype=torch.float32):
        """Features (B, L, N) and labels (B,)."""
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(self.batch, self.frames, self.input_size, generator=generator, dtype=dtype)
        return x, torch.randint(self.classes, (self.batch,), generator=generator)


TINY = Task("1L-2-32", "spikescr", {"d_model": 32, "nhead": 2, "mlp_ratio": 2}, input_size=20, classes=5, batch=8, frames=20)
ONE = Task("1L-16-256", "spikescr_1l_16_256")
TWO = Task("2L-16-256", "spikescr_2l_16_256")


@dataclass(frozen=True)
class Plan:
    """What a run measures.

    judged : whether bars on time count
    tasks : Tasks whose training step meets its peer's
    rounds : turns of every variant
    """

    judged: bool
    tasks: tuple
    rounds: int


PLANS = {
    "quick": Plan(False, (TINY,), rounds=2),
    "default": Plan(True, (ONE,), rounds=15),
    "full": Plan(True, (ONE, TWO), rounds=15),
}


def bench(plan):
    """Sections and verdicts of ``bench.py spikescr``."""
    sections, verdicts = {"peers": peers.versions()[:1], "equality": [], "step": [], "breakdown": []}, []
    for task in plan.tasks:
        say(f"comparing the network with its peer, {task.name}")
        sections["equality"] += require_equality(task)
    for task in plan.tasks:
        say(f"training steps, {task.name}")
        rows, parts = _steps(task, plan.rounds)
        sections["step"] += rows
        sections["breakdown"] += parts
        verdicts += _verdicts(task.name, rows, parts, plan.judged)
    return sections, verdicts


# The two networks are one.


def require_equality(task):
    """Ours and the peer in float64, without dropout: a row for training mode and one for evaluation.

    Compared are logits, how often each neuron fired, and in training the gradients of all parameters and the running statistics.
    Statistics are replaced by the batch's, so that evaluation fires as training did: an untrained network is silent otherwise.

    Raises
    ------
    Disagreement
        When one differs by more than 1e-9, when a neuron fired more or less often, or when a layer is silent, of which equality
        would say nothing.
    """
    ours = task.network(dropout=0.0).double()
    peer = task.peer(ours).double()
    for norm in [m for net in (ours, peer) for m in net.modules() if isinstance(m, MaskedBatchNorm | nn.BatchNorm1d)]:
        norm.momentum = 1.0
    return [_compared(task, ours.train(mode), peer.train(mode), mode) for mode in (True, False)]


def _compared(task, ours, peer, training):
    x, labels = task.data(torch.float64)
    with fired(ours, peer) as counts:
        logits = logits_of(ours, x)
        their_logits = peer(x.transpose(0, 1).contiguous())
    errors = {"logits": _error(logits, their_logits.transpose(0, 1))}
    if training:
        _our_loss(logits, labels).backward()
        _peer_loss(their_logits, labels).backward()
        errors |= _pair_errors(peer, ours)
    row = {
        "size": task.name, "mode": "training" if training else "evaluation", **_same_shape(ours, peer, counts),
        **{f"error of {what}": digits(error, 2) for what, error in errors.items()},
    }  # fmt: skip
    silent = sum(not layer.any() for layer in counts[0])
    if row["spikes apart"] or silent or not all(error <= 1e-9 for error in errors.values()):
        raise Disagreement(f"no times: the peer is another network ({silent} of {len(counts[0])} layers silent): {row}")
    return row


def _same_shape(ours, peer, counts):
    """Parameters, neurons and spikes of two networks that have the same number of both."""
    parameters, theirs = (sum(p.numel() for p in net.parameters()) for net in (ours, peer))
    fired, theirs_fired = (torch.cat(layers) for layers in counts)
    if (parameters, len(fired)) != (theirs, len(theirs_fired)):
        what = f"{theirs} parameters and {len(theirs_fired)} neurons that took part, ours {parameters} and {len(fired)}"
        raise Disagreement(f"no times: the peer is another network: it has {what}")
    apart = int((fired - theirs_fired).abs().sum())
    return {"parameters": parameters, "neurons": len(fired), "spikes": int(fired.sum()), "spikes apart": apart}


def _pair_errors(peer, ours):
    pairs = list(peers.pairs(peer, ours))
    learned = [pair for pair in pairs if pair[0].requires_grad]
    return {
        "statistics": max(_error(mine[rows], theirs[at]) for theirs, mine, rows, at in pairs if not theirs.requires_grad),
        "gradients": max(_error(_grad(mine)[rows], _grad(theirs)[at]) for theirs, mine, rows, at in learned),
    }


def _grad(parameter):
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _error(expected, found):
    return float(((expected - found).abs().max() / expected.abs().max().clamp(min=1)).detach())


@contextlib.contextmanager
def fired(ours, peer):
    """Spikes of every neuron, in the order in which layers fire: ([counts (C,) of a layer, ...] of ours, the same of the peer)."""
    counts, theirs = [], []
    nodes = [m for m in peer.modules() if _is_jelly_neuron(m)]
    hooks = [node.register_forward_hook(lambda _, __, out: theirs.append(out.detach().double().sum((0, 1)))) for node in nodes]
    try:
        with operands.listen(lambda event: counts.append(event.counts) if isinstance(event, operands.Firing) else None):
            yield counts, theirs
    finally:
        for hook in hooks:
            hook.remove()


def _is_jelly_neuron(m):
    return isinstance(m, peers.jelly("neuron").LIFNode)


# Training steps.


def logits_of(network, x):
    """Logits of full-length utterances, told so as recipes do."""
    return network(x, torch.ones(len(x)))


def _our_loss(logits, labels):
    return losses.votes_loss(losses.summed_softmax(logits, torch.ones(len(logits))), labels)


def _peer_loss(logits, labels):
    return F.cross_entropy(logits.softmax(-1).sum(0), labels)


OURS, PEER, OURS_BARE, PEER_BARE = "spikebrain", "spikingjelly", "spikebrain without neurons", "spikingjelly without neurons"


def steps_of(task):
    """The training steps that are timed, name -> Step."""
    (x, labels), one = task.data(), torch.ones(())
    turned = x.transpose(0, 1).contiguous()
    steps = {}
    for name in (OURS, OURS_BARE):
        net = task.network() if name == OURS else without_neurons(task.network())
        steps[name] = Step(net, lambda net=net: _our_loss(logits_of(net, x), labels), one)
    for name in (PEER, PEER_BARE):
        net = task.peer(task.network()) if name == PEER else without_neurons(task.peer(task.network()))
        steps[name] = Step(net, lambda net=net: _peer_loss(net(turned), labels), one)
    return steps


class Through(nn.Module):
    """In place of :class:`LIF`: hands on what enters, normalised where a norm stands before, and drops nothing."""

    def fire(self, x, counts, gain=None):
        """As :meth:`LIF.fire`."""
        return self.run(x, counts)[0]

    def run(self, x, counts, state=None, gain=None, norm=None):
        """As :meth:`LIF.run`; the bytes that stand for spikes take no memory."""
        value = x if norm is None else norm.normalise(x, counts)
        return operands.Spikes(value, torch.zeros((), dtype=torch.uint8).expand(x.shape), None, 1, counts), None


def without_neurons(net):
    """``net`` with every neuron of ours or of SpikingJelly's taken out, in place."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LIF) or _is_jelly_neuron(child):
                setattr(parent, name, Through() if isinstance(child, LIF) else nn.Identity())
    return net


# What a norm or neurons do within an op of ours has no name of its own: _places gives it one. In the op that does both, all but the
# norm's sums, mixtures and small vectors counts as neuron, memory for the results included, and the profiler's own time with each
# small operation: too much. The step less the step without neurons says too little: without them the norm takes a pass of its own.
KINDS = {
    "matmul": r"aten::(mm|bmm|addmm|baddbmm)$|conv",
    "norm": r"batch_norm|_Normalise|^norm$",
    "neuron": r"^neuron$|_(Normed)?Fire",
}
_NATIVE = {"lif": "neuron", "lif_backward": "neuron", "sums": "norm", "mix": "norm"}


def _places(net):
    yield native, "call", lambda source, function, *_: _NATIVE.get(function, function)
    yield from ((batch_norm, name, "norm") for name in ("moments", "affine", "input_gradient_"))
    yield from ((m, "run", "neuron") for m in net.modules() if isinstance(m, LIF))
    yield from ((m, "forward", "neuron") for m in net.modules() if _is_jelly_neuron(m))


def breakdown(step, milliseconds, repeats=5):
    """Percent and milliseconds of a step of ``milliseconds`` for every kind of work: columns of a row.

    Percent are of the profiled time, to which every operation adds its own; milliseconds are those percent of the time without a
    profiler. Products inside attention and convolutions count as matmul, dropout and loss as rest.
    """
    with measure.named(list(_places(step.module))):
        spent, operations = measure.profiled(step, KINDS, repeats)
    shares = measure.shares(spent)
    times = {re.sub("%$", "ms", kind): digits(share / 100 * milliseconds, 3) for kind, share in shares.items()}
    return {**shares, **times, "operations": operations}


def _steps(task, rounds):
    """Rows of times, and of where they go."""
    steps = steps_of(task)
    seconds = measure.take_turns(steps, rounds)
    rows, parts = [], []
    for name, step in steps.items():
        timed = measure.timed(seconds, name, OURS)
        rows.append({"size": task.name, "variant": name, **timed, "saved_mib": measure.saved_mib(step)})
        repeats = 1 if name == PEER else 5  # torch's profiler takes minutes for its hundred thousand operations a step
        parts.append({"size": task.name, "variant": name, **breakdown(step, timed["ms"]["median"], repeats)})
    return rows, parts


def _verdicts(size, rows, parts, judged):
    slower = {row["variant"]: row[f"ratio to {OURS}"]["median"] for row in rows}
    share = {part["variant"]: part["neuron %"] for part in parts}
    both = {part["variant"]: part["norm ms"] + part["neuron ms"] for part in parts}
    own = next(row["ms"]["median"] for row in rows if row["variant"] == OURS)
    beyond = 100 * (both[OURS] - both[OURS_BARE]) / own  # the op that does both applies the norm too, which is no neuron's work
    return [
        verdict(f"{PEER} against {OURS}: time of a training step, {size}", slower[PEER], ">=", 1.3, judged),
        verdict(f"percent that neurons add to our step without them, {size}", 100 * (1 / slower[OURS_BARE] - 1), "<=", 5, judged),
        verdict(f"percent of our step that norm and neurons take beyond a norm alone, by profile, {size}", beyond, "<=", 5, judged),
        verdict(f"neurons' percent of our step by profile, the norm's application included, {size}", share[OURS], "<=", 5, judged),
    ]
