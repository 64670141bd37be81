"""What ``tools/bench.py`` measures: a module for every bench, and how to measure (``measure``).

A bench has ``PLANS``, name -> frozen dataclass with ``rounds``, for ``quick``, ``default`` and ``full``, and ``bench(plan)``, which
returns (sections, verdicts): name -> rows, and rows of :func:`measure.verdict`. A row is a dict of text, numbers, lists that are
shapes, and spreads; that is all that files and tables know of a bench.
"""
