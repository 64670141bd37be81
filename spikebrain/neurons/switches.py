"""Switches: the keyword arguments of a model as a frozen dataclass, checked by name and, where they are words, by value.

    @dataclass(frozen=True)
    class LIFNetworkConfig(Switches):
        model = "LIFNetwork"
        neuron: str = one_of("lif", "plif")

It lies with the neurons, since their options are the first to need it; encoders and baselines build on it.
"""

from dataclasses import field, fields

from spikebrain.spelling import did_you_mean


def one_of(*words):
    """A field of :class:`Switches` that takes one of ``words``; the first is its default."""
    return field(default=words[0], metadata={"words": words})


def check_word(name, value, words):
    """Raises a ValueError that lists ``words`` and names the nearest, unless ``value``, of the option called ``name``, is one of them."""
    if value not in words:
        raise ValueError(f"{name} is {value!r}: choose one of {', '.join(words)}{did_you_mean(value, words)}")


class Switches:
    """What a frozen dataclass of options inherits. Its own ``__post_init__``, if it has one, begins with this one's.

    Attributes
    ----------
    model : str
        Whose options they are, in messages.
    beside : tuple of str
        What the model takes beside them: not checked here, but what a misspelt name may have meant.
    """

    model, beside = "the model", ()

    def __post_init__(self):
        for switch in fields(self):
            if "words" in switch.metadata:
                check_word(switch.name, getattr(self, switch.name), switch.metadata["words"])

    @classmethod
    def of(cls, **switches):
        """The options of keyword arguments.

        Raises
        ------
        TypeError
            For an argument that is none of them; it names the nearest.
        ValueError
            For a value that an option does not take.
        """
        own = sorted((f.name for f in fields(cls)), key=lambda name: name not in cls.__annotations__)  # those it inherits last
        names = [*own, *cls.beside]
        for name in switches:
            if name not in own:
                hint = did_you_mean(name, names) or f"; choose from {', '.join(names)}"
                raise TypeError(f"{cls.model} has no option {name!r}{hint}")
        return cls(**switches)
