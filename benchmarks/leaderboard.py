"""Writes the leaderboard of the committed reports: ``python benchmarks/leaderboard.py [--out DIR]``."""

from __future__ import annotations

import sys
from pathlib import Path

from pdesurrogate.cli.leaderboard import main

HERE = Path(__file__).parent

if __name__ == "__main__":
    out = [] if "--out" in sys.argv else ["--out", str(HERE)]
    sys.exit(main(["page", str(HERE / "reports"), "--checkpoints", str(HERE / "checkpoints"), *out, *sys.argv[1:]]))
