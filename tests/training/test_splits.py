"""Which splits a run trains on, chooses by, reports and listens to."""

from types import SimpleNamespace

import pytest

from spikebrain.training import keys, splits

PREPARED = SimpleNamespace(manifests={name: f"{name}.csv" for name in ("a", "b", "dev", "other", "test")})


def recipe(train=("a", "b"), dev=("dev", "other"), test=("test",)):
    return {"train_splits": train, "dev_splits": dev, "test_splits": test}


def test_the_first_dev_split_chooses_and_all_are_reported_once():
    train, valid, reported = splits.manifests(recipe(test=("test", "dev")), PREPARED)
    assert (train, valid) == (["a.csv", "b.csv"], ["dev.csv"])
    assert reported == {"dev": "dev.csv", "other": "other.csv", "test": "test.csv"}
    assert splits.compared(recipe()) == ["dev", "test"]


@pytest.mark.parametrize("nothing", [None, ()])
def test_dev_and_test_splits_may_be_left_out(nothing):
    assert splits.manifests(recipe(dev=nothing, test=nothing), PREPARED) == (["a.csv", "b.csv"], [], {})
    assert splits.compared(recipe(dev=nothing, test=nothing)) == []


def test_nothing_to_train_on_is_refused():
    splits.check(recipe())
    with pytest.raises(keys.RecipeError, match="train_splits: is empty: name at least one split, or use --test_only"):
        splits.check(recipe(train=[]))


@pytest.mark.parametrize("valid, tests, expected", [("v", {"t": "t"}, "v"), (None, {"t": "t", "u": "u"}, "t"), (None, {}, "a")])
def test_validation_is_listened_to_first(valid, tests, expected):
    assert splits.looked_at(SimpleNamespace(valid=valid, tests=tests, train="a")) == expected
