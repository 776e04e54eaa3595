"""`python -m tests.bench` compares kevents with client-go. An argument selects another measurement."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.bench import compare, cost, faults, growth, load, memory, outage, read, real, sinks, soak, versions
from tests.bench.page import draw, keep
from tests.bench.rig import ROOT, described, machine

Measure = Callable[[argparse.Namespace], tuple[Any, str]]


def _sinks(options: argparse.Namespace) -> tuple[Any, str]:
    found = sinks.measure_with(options.python)
    return found, sinks.table(found)


def _growth(_: argparse.Namespace) -> tuple[Any, str]:
    found = growth.measure()
    return found, growth.tables(found)


def _cost(_: argparse.Namespace) -> tuple[Any, str]:
    found = cost.measure()
    return found, cost.tables(found)


def _load(options: argparse.Namespace) -> tuple[Any, str]:
    found = load.measure(options.python, options.rounds)
    return found, load.table(found)


def _memory(_: argparse.Namespace) -> tuple[Any, str]:
    found = memory.measure()
    return found, memory.table(found)


def _outage(_: argparse.Namespace) -> tuple[Any, str]:
    found = outage.measure()
    return found, outage.table(found)


def _real(options: argparse.Namespace) -> tuple[Any, str]:
    found = real.measure(options.rounds)
    return found, real.table(found)


def _versions(options: argparse.Namespace) -> tuple[Any, str]:
    found = versions.measure(options.python, options.rounds)
    return found, versions.table(found)


def _faults(_: argparse.Namespace) -> tuple[Any, str]:
    found = faults.measure()
    return found, faults.table(found)


def _read(_: argparse.Namespace) -> tuple[Any, str]:
    found = read.measure()
    return found, read.table(found)


def _part(options: argparse.Namespace) -> tuple[Any, str]:
    return compare.part(options.what, options.rounds, options.scale)


def _soak(options: argparse.Namespace) -> tuple[Any, str]:
    found = soak.measure(options.minutes)
    return found, soak.table(found)


OTHERS: Final[dict[str, tuple[str, Measure]]] = {
    "record": ("What a call of event() takes its caller, beside client-go.", _part),
    "correlate": ("What the correlator takes for each event, beside client-go.", _part),
    "sinks": (sinks.__doc__ or "", _sinks),
    "growth": (growth.__doc__ or "", _growth),
    "cost": (cost.__doc__ or "", _cost),
    "load": (load.__doc__ or "", _load),
    "memory": (memory.__doc__ or "", _memory),
    "outage": (outage.__doc__ or "", _outage),
    "faults": (faults.__doc__ or "", _faults),
    "read": (read.__doc__ or "", _read),
    "real": (real.__doc__ or "", _real),
    "soak": (soak.__doc__ or "", _soak),
    "versions": (versions.__doc__ or "", _versions),
}


def main() -> None:
    """Parse the command line and run the measurement."""
    options = _parser().parse_args()
    options.python = options.python or [sys.executable]
    if options.what == "compare":
        compare.run(options.rounds, options.scale, options.to)
        return
    _, measure = OTHERS[options.what]
    told = machine()
    found, table = measure(options)
    table = f"{table}\n\n{described(told)}."
    sys.stdout.write(table + "\n")
    keep(options.to, options.what, {"machine": told, "found": found}, table)
    if options.what in {"growth", "real"}:
        draw(f"draw_{options.what}", found, options.to / "pictures" / f"{options.what}.svg")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog="\n".join(f"{name}: {text}" for name, (text, _) in OTHERS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", default="compare", choices=["compare", *OTHERS])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the comparisons, load, real and versions (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the events in a round of a comparison (1)")
    parser.add_argument("--minutes", type=float, default=20.0, help="duration of soak (20)")
    parser.add_argument("--to", type=Path, default=ROOT / "docs", help="the folder of the page, JSON and plots (docs)")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        help="an interpreter for load, sinks and versions, with `kevents[test]` installed; can be repeated (this one)",
    )
    return parser


if __name__ == "__main__":
    main()
