"""Runs kevents and client-go in turns, and compares the medians with the aims."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.bench.page import draw, keep
from tests.bench.rig import NoGo, Server, build_client_go, described, machine, run_json, say, serving
from tests.bench.rows import CORRELATE, DELIVER, RECORD, Finding, Row, findings, markdown
from tests.bench.subjects import realistic

__all__ = ["PARTS", "part", "run"]

_DELIVERIES: Final = {0: 2000, 1: 500, 5: 300, 20: 100}
"""Number of deliveries in each round by the server's delay in milliseconds."""
_MOST_EVENTS: Final = 20_000

PARTS: Final = {"record": RECORD, "correlate": CORRELATE}
"""The figures of the parts that need no server."""

Rounds = list[dict[str, Any]]


class Side:
    """One of the two programs.

    Args:
        name: The name for display.
        command: The command that runs it, without options.
        given: Its standard input.
    """

    def __init__(self, name: str, command: list[str], given: str = "") -> None:
        self.name = name
        self.found: Rounds = []
        self._command = command
        self._given = given

    def measure(self, part: str, scale: float) -> None:
        """Add a round of a part that needs no server: ``record`` or ``correlate``."""
        self.found.append(run_json([*self._command, f"--part={part}", f"--scale={scale}"], self._given))

    def deliver(self, server: Server, scale: float) -> None:
        """Add a round of deliveries."""
        numbers = {str(delay): max(round(number * scale), 20) for delay, number in _DELIVERIES.items()}
        found = run_json([*self._command, f"--url={server.url}", f"--deliver={json.dumps(numbers)}"])
        for delay, figures in found.items():
            if figures["delivered"] != figures["expected"]:
                raise AssertionError(f"{self.name} delivered {figures} to a server that answers after {delay} ms")
        self.found.append({"deliver": found})


def in_turns(
    rows: Iterable[Row], rounds: int, measure: Callable[[Side], None]
) -> tuple[list[Finding], dict[str, Rounds]]:
    """Run both programs in turns, or kevents alone if Go is missing.

    Args:
        rows: The compared figures.
        rounds: The number of rounds.
        measure: Called with each side in each round.
    """
    ours = Side("kevents", [sys.executable, "-m", "tests.bench.ours"])
    sides = [ours]
    with ExitStack() as stack:
        try:
            program = stack.enter_context(build_client_go())
            sides.append(Side("client-go", [program], json.dumps(realistic(_MOST_EVENTS))))
        except NoGo as why:
            say(f"client-go is skipped: {why}")
        for number in range(rounds):
            for side in sides:
                say(f"round {number + 1} of {rounds}: {side.name}")
                measure(side)
            sides.reverse()  # the order alternates between rounds
    found = {side.name: side.found for side in sides}
    return findings(rows, ours.found, found.get("client-go", [])), found


def run(rounds: int, scale: float, folder: Path) -> None:
    """Compare deliveries, print the table, and write JSON, table and plot."""
    told = machine()
    with serving() as server:
        found, raw = in_turns(DELIVER, rounds, lambda side: side.deliver(server, scale))
    table = f"{markdown(found)}\n\n{described(told)}; medians of {rounds} rounds."
    sys.stdout.write(table + "\n")
    written = {"machine": told, "rounds": rounds, "findings": [finding.to_json() for finding in found], "raw": raw}
    keep(folder, "comparison", written, table)
    draw("draw_comparison", written, folder / "pictures" / "performance.svg")


def part(name: str, rounds: int, scale: float) -> tuple[dict[str, Any], str]:
    """Compare a part that needs no server, ``record`` or ``correlate``. Returns its figures and the table."""
    found, raw = in_turns(PARTS[name], rounds, lambda side: side.measure(name, scale))
    written = {"rounds": rounds, "findings": [finding.to_json() for finding in found], "raw": raw}
    return written, f"{markdown(found)}\n\nMedians of {rounds} rounds."
