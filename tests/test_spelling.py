"""The hint behind a refused name."""

import pytest

from spikebrain.spelling import did_you_mean


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("rat", ["width", "rate"], "; did you mean rate?"),
        ("yess", {"yes", "no"}, "; did you mean yes?"),
        ("kdlc", {"kdcl": 1, "direct": 2}, "; did you mean kdcl?"),
        ("zzzz", ["rate"], ""),
        ("rate", [], ""),
        (3, [35, 12], "; did you mean 35?"),
        (True, ["yes", "no"], ""),
    ],
)
def test_the_nearest_is_named(name, known, hint):
    assert did_you_mean(name, known) == hint
