"""Draws that decide what is trained on and what is tested."""

import hashlib


def draw(seed, text):
    """A number from 0 to 2^64 - 1 that ``text`` gets from ``seed``, always the same.

    No random generator: its numbers may change with the version of its library, and depend on what was drawn before.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{text}".encode()).digest()[:8], "big")
