"""Logistic regression on statistics of features."""

import pytest
import torch
import torch.nn.functional as F

from spikebrain.baselines.statistics_regression import StatisticsRegression


def corpus(classes=3, each=6, channels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat(each)
    level = torch.randn(classes, channels, generator=generator)
    frames = [int(n) for n in torch.randint(5, 30, (len(labels),), generator=generator)]
    features = [level[label] + torch.randn(n, channels, generator=generator) for label, n in zip(labels, frames, strict=True)]
    return features, labels


def test_the_solution_is_where_the_gradient_of_the_objective_is_zero():
    features, labels = corpus()
    regression = StatisticsRegression(3, strength=0.5).fit(features, labels)
    z = regression.statistics(features)
    z = (z - z.mean(0)) / z.std(0, correction=0)
    weight, bias = (p.clone().requires_grad_() for p in (regression.weight, regression.bias))
    (F.cross_entropy(z @ weight.T + bias, labels, reduction="sum") + weight.square().sum() / (2 * 0.5)).backward()
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-5
    assert regression.weight.abs().max() > 0.1


def test_a_larger_strength_lets_weights_grow():
    features, labels = corpus()
    weak, strong = (StatisticsRegression(3, strength=strength).fit(features, labels) for strength in (0.01, 10))
    assert weak.weight.norm() < 0.2 * strong.weight.norm()
    assert (strong.predict(features) == labels).all()


def test_statistics_by_hand():
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert StatisticsRegression(2).statistics([x]).tolist() == [[2.0, 5.0, 1.0, 0.0]]


def test_layer_norm_loses_the_level_of_a_frame_and_scaling_does_not_matter():
    features, labels = corpus()
    louder = [3 * x + 2 for x in features]
    layer = StatisticsRegression(3, input_norm="layer").fit(features, labels)
    assert torch.allclose(layer.logits(features), layer.logits(louder), atol=0.02)
    plain = StatisticsRegression(3).fit(features, labels)
    assert not torch.allclose(plain.logits(features), plain.logits(louder), atol=0.5)
    again = StatisticsRegression(3).fit(louder, labels)  # statistics are standardised: a global norm changes nothing
    assert torch.allclose(again.logits(louder), plain.logits(features), atol=1e-5)


def test_a_channel_that_never_changes_is_no_nan():
    features, labels = corpus()
    features = [torch.cat([x, torch.full((len(x), 1), 7.0)], 1) for x in features]
    regression = StatisticsRegression(3).fit(features, labels)
    assert regression.logits(features).isfinite().all() and regression.parameters == 3 * 10 + 3


@pytest.mark.parametrize(
    "given, said", [({"input_norm": "batch"}, "'batch' is none of none, layer"), ({"strength": 0}, "must be more than 0")]
)
def test_what_it_refuses(given, said):
    with pytest.raises(ValueError, match=said):
        StatisticsRegression(3, **given)
