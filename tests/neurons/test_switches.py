"""Options as a frozen dataclass: unknown names and words are refused, with the nearest that is known."""

import dataclasses

import pytest

from spikebrain.neurons.switches import Switches, check_word, one_of


@dataclasses.dataclass(frozen=True)
class Tea(Switches):
    model, beside = "Teapot", ("volume",)
    kind: str = one_of("green", "black")
    minutes: float = 3.0


@dataclasses.dataclass(frozen=True)
class Chai(Tea):
    model = "Pan"
    milk: str = one_of("cow", "oat", "none")


def test_the_first_word_is_the_default_and_the_others_are_taken():
    assert Tea.of() == Tea("green", 3.0) and Tea.of(kind="black", minutes=5) == Tea("black", 5)
    assert Chai.of(milk="oat") == Chai("green", 3.0, "oat"), "an heir has the switches of both"


@pytest.mark.parametrize("config", [Tea, Chai])
def test_words_are_checked_however_the_options_are_made(config):
    for make in (config, config.of, lambda **k: dataclasses.replace(config(), **k)):
        with pytest.raises(ValueError, match=r"kind is 'blck': choose one of green, black; did you mean black\?$"):
            make(kind="blck")
        with pytest.raises(ValueError, match="kind is None: choose one of green, black$"):
            make(kind=None)
    with pytest.raises(ValueError, match="milk is 'goat': choose one of cow, oat, none; did you mean oat"):
        Chai.of(milk="goat")


def test_unknown_names_get_the_nearest_of_all_that_the_model_takes():
    with pytest.raises(TypeError, match=r"^Teapot has no option 'minute'; did you mean minutes\?$"):
        Tea.of(minute=4)
    with pytest.raises(TypeError, match=r"^Pan has no option 'volumes'; did you mean volume\?$"):
        Chai.of(volumes=4)
    with pytest.raises(TypeError, match="^Teapot has no option 'zzz'; choose from kind, minutes, volume$"):
        Tea.of(zzz=4)


def test_a_word_alone():
    check_word("reset", "hard", ("hard", "soft"))
    with pytest.raises(ValueError, match=r"^reset is 'sotf': choose one of hard, soft; did you mean soft\?$"):
        check_word("reset", "sotf", ("hard", "soft"))
