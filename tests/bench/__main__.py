"""`python -m tests.bench`: kevents beside client-go; with a name after it, one of the other measurements."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench import compare
from tests.bench.rig import ROOT


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    _add_comparison(parser)
    parser.set_defaults(run=lambda options: compare.run(options.rounds, options.scale, options.to))
    options = parser.parse_args()
    options.run(options)


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="in which both run in turns (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of events in a round (1)")
    parser.add_argument("--to", type=Path, default=ROOT / "docs", help="the folder for JSON and plots (docs)")


if __name__ == "__main__":
    main()
