"""Makes a corpus in its real on-disk layout: its synthetic twin, or with --from the same layout of existing recordings.

python tools/make_corpus.py librispeech OUT [--seed N] [--utterances train-clean-100=1200 test-clean=150 ...]
python tools/make_corpus.py voxceleb OUT --from FOLDER    (or gsc, librispeech; spoken digits: see spikebrain/data/spoken_digits.py)
"""

import argparse
import sys
import time

from spikebrain.data import spoken_digits
from spikebrain.data.synthetic import MAKERS, maker

SEED = 1234


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
    parser.add_argument("--seed", type=int, help=f"of the twin, default {SEED}")
    parser.add_argument("--utterances", type=split_count, nargs="+", metavar="SPLIT=NUMBER", help="of the twin: only these splits")
    parser.add_argument("--from", dest="source", metavar="FOLDER", help=f"existing recordings ({', '.join(spoken_digits.LAYOUTS)})")
    options = parser.parse_args(arguments)
    if options.source and options.corpus not in spoken_digits.LAYOUTS:
        parser.error(f"--from: {options.corpus} is made of no existing recordings, only {', '.join(spoken_digits.LAYOUTS)} are")
    if options.source and (options.seed is not None or options.utterances):
        parser.error("--from: takes all of FOLDER and draws nothing: leave --seed and --utterances out")
    return options


def make(options):
    """Makes what the command line asks for; its folder, a Path."""
    if options.source:
        return spoken_digits.make(options.out, options.source, options.corpus)
    seed = SEED if options.seed is None else options.seed
    return maker(options.corpus).make(options.out, seed, dict(options.utterances) if options.utterances else None)


def main(arguments=None):
    """Makes the corpus and prints its folder; a known problem ends in one line and exit status 1."""
    options = parse(arguments)
    start = time.perf_counter()
    try:
        out = make(options)
    except (ValueError, ImportError) as error:
        sys.exit(f"make_corpus: {error}")
    print(f"{out} ({time.perf_counter() - start:.1f} s)")


if __name__ == "__main__":
    main()
