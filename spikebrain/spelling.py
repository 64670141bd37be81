"""What was meant by a name that nobody knows: the one place where misspelt options, keys and words find their hint."""

import difflib


def did_you_mean(name, known):
    """The end of an error message that refuses ``name``: ``; did you mean X?``, X the one of ``known`` that is spelt most like it.

    Arguments
    ---------
    name : object
        What was given; a YAML may give a number or a truth value where a word was meant.
    known : iterable
        What may be given.

    Returns
    -------
    str
        Empty when none of ``known`` is near (difflib's ratio 0.6).
    """
    near = difflib.get_close_matches(str(name), map(str, known), 1)
    return f"; did you mean {near[0]}?" if near else ""
