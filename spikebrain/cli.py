"""The ``spikebrain`` command."""

import argparse
import sys

from spikebrain import __version__, doctor

COMMANDS = {"doctor": doctor.main}


def main(arguments=None):
    """Runs ``spikebrain COMMAND ...``; what follows the command's name is the command's own. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="spikebrain", description="Spiking speech processing for SpeechBrain")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="options of the command: spikebrain COMMAND --help")
    options = parser.parse_args(arguments)
    return COMMANDS[options.command](options.rest)


if __name__ == "__main__":
    sys.exit(main())
