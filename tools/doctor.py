"""``spikebrain doctor`` from a checkout, also where nothing is installed: ``python tools/doctor.py [--json]``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spikebrain.doctor import main

if __name__ == "__main__":
    sys.exit(main())
