"""The recogniser's Brain: losses, updates, and the way from a waveform to logits."""

import ast
import inspect
import math

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.nnet.schedulers import NoamScheduler
from speechbrain.utils.epoch_loop import EpochCounter

from spikebrain.training import asr, keys

SMALL = {
    "d_model": 16, "nhead": 2, "num_encoder_layers": 2, "num_decoder_layers": 1, "d_ffn": 32, "output_neurons": 12, "n_mels": 40,
    "conv_channels": 4, "norm_type": "sentence",
}  # fmt: skip


@pytest.fixture(scope="module")
def net(checkout):
    def build(**changes):
        torch.manual_seed(1)
        with open(checkout / "recipes" / "shared" / "hparams" / "asr_net.yaml") as file:
            return load_hyperpyyaml(file, {**SMALL, **changes})

    return build


def brain_of(net, **hparams):
    hparams = {**asr.OPTIONAL, "num_decoder_layers": 1, "ctc_weight": 0.5, "epoch_counter": EpochCounter(3), **hparams}
    brain = asr.ASR(net["modules"], hparams.pop("opt_class", None), hparams, {"device": "cpu"})
    brain.parts = net["modules"]
    return brain


def calibrated(brain, dtype=torch.float64):
    """In evaluation mode, with the running maxima of a random batch."""
    brain.modules.to(dtype).train()
    speech = torch.randn(4, 24000, dtype=dtype)
    tokens = torch.randint(3, 12, (4, 5))
    with torch.no_grad():
        for _ in range(3):
            x, lengths = brain.features(speech, torch.ones(4))
            brain.recognise(*brain.modules.frontend(x, lengths), tokens)
    brain.modules.eval()
    return brain


@pytest.mark.parametrize("encoder", ["iml_spikeformer", "transformer"])
@pytest.mark.parametrize("subsampling", [4, 6])
def test_an_utterance_alone_is_as_in_a_padded_batch(net, encoder, subsampling):
    brain = calibrated(brain_of(net(encoder_module=encoder, subsampling=subsampling)))
    samples = [24000, 16077, 20001, 9123]
    speech = torch.randn(4, max(samples), dtype=torch.float64)  # what lies past the ends is noise, not zeros
    tokens = torch.randint(3, 12, (4, 5))

    def logits(wavs, lengths, prefix):
        with torch.no_grad():
            x, lengths = brain.features(wavs, lengths)
            return brain.recognise(*brain.modules.frontend(x, lengths), prefix)

    batch = logits(speech, torch.tensor(samples) / max(samples), tokens)
    for i, count in enumerate(samples):
        alone = logits(speech[i : i + 1, :count], torch.ones(1), tokens[i : i + 1])
        frames = alone.ctc.shape[1]
        assert frames == round(float(batch.lengths[i]) * batch.ctc.shape[1])
        assert torch.allclose(batch.ctc[i, :frames], alone.ctc[0], rtol=0, atol=1e-10)
        assert torch.allclose(batch.attention[i], alone.attention[0], rtol=0, atol=1e-10)


def test_a_front_end_that_hears_padding_fails_that(net):
    brain = calibrated(brain_of(net()))
    speech = torch.randn(1, 16000, dtype=torch.float64)
    with torch.no_grad():
        honest, _ = brain.features(torch.cat([speech, speech], 1), torch.tensor([0.5]))
        deaf, _ = brain.features(torch.cat([speech, speech], 1), torch.ones(1))
    assert not torch.allclose(honest[:, :90], deaf[:, :90])


def output_of(ctc, lengths, attention=None):
    return asr.Output(ctc, attention, None, lengths)


def test_ctc_loss_is_the_mean_over_utterances_of_their_own_frames():
    torch.manual_seed(0)
    scores, frames, sizes = torch.randn(3, 20, 7).log_softmax(-1), [20, 16, 11], [4, 2, 3]
    targets = torch.tensor([[1, 2, 3, 1], [4, 4, 0, 0], [5, 6, 1, 0]])
    alone = [
        asr.ctc_loss(output_of(scores[i : i + 1, :f], torch.ones(1)), (targets[i : i + 1, :u], torch.ones(1)))
        for i, (f, u) in enumerate(zip(frames, sizes, strict=True))
    ]
    batch = asr.ctc_loss(output_of(scores, torch.tensor(frames) / 20), (targets, torch.tensor(sizes) / 4))
    assert batch == pytest.approx(sum(alone) / 3)


def test_ctc_loss_by_hand():
    # Two frames, one token: of the 3 x 3 paths over {blank, a, b}, "a" is said by (a a), (a -) and (- a).
    ctc = torch.full((1, 2, 3), 1 / 3).log()
    assert asr.ctc_loss(output_of(ctc, torch.ones(1)), (torch.tensor([[1]]), torch.ones(1))) == pytest.approx(math.log(3))


def test_attention_loss_by_hand_and_without_padding():
    logits = torch.zeros(2, 3, 4)
    targets, lengths = torch.tensor([[1, 2, 3], [2, 0, 0]]), torch.tensor([1.0, 1 / 3])
    # Uniform over four pieces: log 4 for each of the 3 + 1 valid tokens, shared by two utterances.
    assert asr.attention_loss(logits, (targets, lengths), 0.1) == pytest.approx(4 * torch.tensor(4.0).log() / 2)
    moved = logits.clone()
    moved[1, 1:] = torch.randn(2, 4)
    assert torch.equal(asr.attention_loss(moved, (targets, lengths), 0.0), asr.attention_loss(logits, (targets, lengths), 0.0))


def stepped(net, groups, schedule=None, limit=1.0):
    """One update of a brain whose optimizer has one or several groups; every gradient is 1."""

    def sgd(parameters):
        return torch.optim.SGD(groups(list(parameters)), lr=1.0)

    brain = brain_of(net(), opt_class=sgd, schedule=schedule or (lambda opt: None))
    brain.max_grad_norm = limit
    brain.init_optimizers()
    before = [p.detach().clone() for p in brain.modules.parameters()]
    for p in brain.modules.parameters():
        p.grad = torch.ones_like(p)
    brain.optimizers_step()
    moves = torch.cat([(a - b).detach().flatten() for a, b in zip(before, brain.modules.parameters(), strict=True)])
    return brain, moves


@pytest.mark.parametrize("groups", [lambda p: p, lambda p: [{"params": p[:5]}, {"params": p[5:]}]])
def test_the_norm_of_all_gradients_is_clipped(net, groups):
    _, moves = stepped(net, groups)
    assert moves.norm() == pytest.approx(1.0, rel=1e-3)


def test_a_negative_limit_clips_nothing(net):
    _, moves = stepped(net, lambda p: p, limit=-1.0)
    assert moves.norm() == pytest.approx(len(moves) ** 0.5, rel=1e-3)


def test_the_first_update_is_warmed_up(net):
    brain, moves = stepped(net, lambda p: p, NoamScheduler(lr_initial=1.0, n_warmup_steps=100))
    assert brain.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    assert moves.norm() == pytest.approx(0.01, rel=1e-3)


def test_an_update_that_is_not_finite_is_left_out(net):
    brain = brain_of(net(), opt_class=lambda parameters: torch.optim.SGD(parameters, lr=1.0), schedule=lambda opt: None)
    brain.init_optimizers()
    before = [p.detach().clone() for p in brain.modules.parameters()]
    for p in brain.modules.parameters():
        p.grad = torch.full_like(p, float("nan"))
    brain.optimizers_step()
    assert all(torch.equal(a, b) for a, b in zip(before, brain.modules.parameters(), strict=True))


@pytest.mark.parametrize(
    ("weight", "layers", "message"),
    [(1.0, 2, "do not go together"), (0.3, 0, "do not go together"), (-0.1, 1, "outside of 0 to 1"), (1.2, 0, "outside of 0 to 1")],
)
def test_weights_that_leave_something_untrained(weight, layers, message):
    with pytest.raises(keys.RecipeError, match=message):
        asr.check({"ctc_weight": weight, "num_decoder_layers": layers, "train_splits": ["a"]})


def read_keys(function_source):
    """Names that a source reads from ``hparams``, as items or attributes."""
    for node in ast.walk(ast.parse(function_source)):
        if isinstance(node, ast.Subscript) and _is_hparams(node.value) and isinstance(node.slice, ast.Constant):
            yield node.slice.value
        elif isinstance(node, ast.Attribute) and _is_hparams(node.value):
            yield node.attr


def _is_hparams(node):
    return (isinstance(node, ast.Name) and node.id == "hparams") or (isinstance(node, ast.Attribute) and node.attr == "hparams")


def test_every_key_that_is_read_is_declared_and_the_reverse():
    from spikebrain.training import brain, run, splits

    found = {key for module in (asr, brain, splits) for key in read_keys(inspect.getsource(module))}
    known = asr.KEYS | run.KEYS
    assert found <= known, found - known
    assert asr.KEYS - set(asr.BATCHING) <= found
    # The first two are looked up by name, and the task is chosen before the rest is built.
    assert run.KEYS <= found | set(read_keys(inspect.getsource(run))) | {"strict_counts", "skip_bad_audio", "task"}


def test_unused_outputs_say_nothing():
    class Tokenizer:
        def __len__(self):
            return 5

        def decode_ids(self, ids):
            assert max(ids) < 5
            return " ".join(map(str, ids))

    brain = asr.ASR({"a": torch.nn.Linear(1, 1)}, run_opts={"device": "cpu"})
    brain.tokenizer = Tokenizer()
    assert brain.text([3, 59, torch.tensor(4)]) == "3 4"
