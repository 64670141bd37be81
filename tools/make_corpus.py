"""Makes the synthetic twin of a corpus in the corpus's real on-disk layout.

python tools/make_corpus.py librispeech OUT [--seed N] [--utterances train-clean-100=1200 test-clean=150 ...]
"""

import argparse
import sys
import time

from spikebrain.data.synthetic import MAKERS, maker


def split_count(text):
    """``"dev-clean=100"`` -> ("dev-clean", 100)."""
    split, equals, number = text.partition("=")
    if not equals or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not SPLIT=NUMBER, e.g. dev-clean=100")
    return split, int(number)


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", choices=sorted(MAKERS))
    parser.add_argument("out", help="folder to make; a complete one with the same seed and numbers is kept")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--utterances", type=split_count, nargs="+", metavar="SPLIT=NUMBER", help="only these splits")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Makes the corpus and prints its folder; a known problem ends in one line and exit status 1."""
    options = parse(arguments)
    start = time.perf_counter()
    try:
        out = maker(options.corpus).make(options.out, options.seed, dict(options.utterances) if options.utterances else None)
    except (ValueError, ImportError) as error:
        sys.exit(f"make_corpus: {error}")
    print(f"{out} ({time.perf_counter() - start:.1f} s)")


if __name__ == "__main__":
    main()
