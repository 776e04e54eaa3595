"""Runs kevents and client-go in turns against the same server, and compares the medians with the aims."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.bench.page import draw, keep
from tests.bench.rig import NoGo, Server, build_client_go, described, machine, run_json, say, serving
from tests.bench.rows import Finding, findings, markdown
from tests.bench.subjects import realistic

__all__ = ["compare", "run"]

_DELIVERIES: Final = {0: 2000, 1: 500, 5: 300, 20: 100}
"""Number of deliveries in each round by the server's delay in milliseconds."""
_MOST_EVENTS: Final = 20_000

Rounds = list[dict[str, Any]]


class Side:
    """One of the two programs.

    Args:
        name: The name for display.
        command: The command that runs it, without options.
        given: Its standard input.
    """

    def __init__(self, name: str, command: list[str], given: str = "") -> None:
        """Start without measurements."""
        self.name = name
        self.found: Rounds = []
        self._command = command
        self._given = given

    def think(self, scale: float) -> None:
        """Start a round with the measurements that need no server."""
        self.found.append(run_json([*self._command, f"--scale={scale}"], self._given))

    def deliver(self, server: Server, scale: float) -> None:
        """End a round with the measurements of deliveries."""
        numbers = {str(delay): max(round(number * scale), 20) for delay, number in _DELIVERIES.items()}
        found = run_json([*self._command, f"--url={server.url}", f"--deliver={json.dumps(numbers)}"])
        for delay, figures in found.items():
            if figures["delivered"] != figures["expected"]:
                raise AssertionError(f"{self.name} delivered {figures} to a server that answers after {delay} ms")
        self.found[-1]["deliver"] = found


def compare(rounds: int, scale: float) -> tuple[list[Finding], dict[str, Rounds]]:
    """Run both programs in turns, or kevents alone if Go is missing."""
    ours = Side("kevents", [sys.executable, "-m", "tests.bench.ours"])
    sides = [ours]
    with ExitStack() as stack:
        try:
            program = stack.enter_context(build_client_go())
            sides.append(Side("client-go", [program], json.dumps(realistic(_MOST_EVENTS))))
        except NoGo as why:
            say(f"client-go is skipped: {why}")
        server = stack.enter_context(serving())
        for number in range(rounds):
            for side in sides:
                say(f"round {number + 1} of {rounds}: {side.name}")
                side.think(scale)
            for side in sides:
                side.deliver(server, scale)
            sides.reverse()  # the order alternates between rounds
    found = {side.name: side.found for side in sides}
    return findings(ours.found, found.get("client-go", [])), found


def run(rounds: int, scale: float, folder: Path) -> None:
    """Compare, print the table, and write JSON, table and plot."""
    told = machine()
    found, raw = compare(rounds, scale)
    table = f"{markdown(found)}\n\n{described(told)}; medians of {rounds} rounds."
    sys.stdout.write(table + "\n")
    written = {"machine": told, "rounds": rounds, "findings": [finding.to_json() for finding in found], "raw": raw}
    keep(folder, "comparison", written, table)
    draw("draw_comparison", written, folder / "pictures" / "performance.svg")
