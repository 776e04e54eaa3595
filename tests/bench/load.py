"""Loading: from the first import to the first delivered event, and of a kopf operator to its first handler."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

from kevents.testing import APIServer
from tests.bench.rig import run_json, say
from tests.processes.kopf_run import CLIENTS, Operator

__all__ = ["measure", "table"]

_POD: Final = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "default", "uid": "u-1"}}
_FRAME: Final = """
import json, sys, time

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

before, begun = resident(), time.process_time()
POD = {pod}
{code}
used, grown = time.process_time() - begun, resident() - before
import importlib.metadata
client = importlib.metadata.version("kubernetes")
print(json.dumps({{"seconds": used, "mib": grown, "client": client}}))
"""
_KEVENTS: Final = """
import kevents
{before}
broadcaster = kevents.EventBroadcaster()
broadcaster.start_recording_to_sink(kevents.CoreV1EventSink({api}))
broadcaster.new_recorder("bench").event(POD, "Normal", "Loaded", "m")
assert broadcaster.flush(60)
"""
_ASYNCIO: Final = """
import asyncio
from kevents import aio

async def main():
    async with aio.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(aio.CoreV1EventSink())
        broadcaster.new_recorder("bench").event(POD, "Normal", "Loaded", "m")
        assert await broadcaster.flush(60)

asyncio.run(main())
"""
_CLIENT: Final = """
from kubernetes import client, config
config.load_kube_config()
reference = client.V1ObjectReference(api_version="v1", kind="Pod", name="web-0", namespace="default", uid="u-1")
body = client.CoreV1Event(
    metadata=client.V1ObjectMeta(name=f"web-0.{time.time_ns():x}", namespace="default"), involved_object=reference,
    reason="Loaded", message="m", type="Normal",
)
client.CoreV1Api().create_namespaced_event("default", body)
"""
_GIVEN: Final = "from kubernetes import client, config; config.load_kube_config()"
PROGRAMS: Final = {
    "kevents": _KEVENTS.format(before="", api=""),
    "kevents through a given client": _KEVENTS.format(before=_GIVEN, api="client.CoreV1Api()"),
    "kevents.aio": _ASYNCIO,
    "official client alone": _CLIENT,
}
_OPERATOR: Final = """
import time, kopf
{imports}

@kopf.on.event("example.com", "v1", "widgets")
def first(body, **_):
    {record}
    print(f"first handler after {{time.process_time()}} s", flush=True)
"""
OPERATORS: Final = {
    "kopf operator": {"imports": "", "record": "pass"},
    "kopf operator with kevents": {
        "imports": 'import kevents.kopf; recorder = kevents.kopf.install("bench")',
        "record": 'recorder.info(body, "Loaded", "m")',
    },
}
_WITHOUT_CLIENT: Final = ", no client installed"


def measure(pythons: list[str], rounds: int) -> list[dict[str, Any]]:
    """Run each program in a process of its own, in turns.

    Args:
        pythons: Interpreters, each with a generation of the official client and ``kevents[test]``.
        rounds: How often.

    Returns:
        Medians of processor seconds and MiB, by client and program.
    """
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with APIServer() as server:
        server.register("example.com/v1", "Widget", "widgets")
        server.create("example.com/v1", "widgets", {"metadata": {"name": "w", "namespace": "default"}})
        for number in range(rounds):
            for python in pythons:
                say(f"round {number + 1} of {rounds}: {python}")
                for name, code in PROGRAMS.items():
                    command = [python, "-c", _FRAME.format(pod=_POD, code=code)]
                    figures = run_json(command, environment={"KUBECONFIG": str(server.kubeconfig())})
                    found.setdefault((figures.pop("client"), name), []).append(figures)
            for name, parts in OPERATORS.items():
                for hidden in ((), CLIENTS):
                    seconds = _first_handler(server, parts, hidden)
                    where = name + (_WITHOUT_CLIENT if hidden else "")
                    found.setdefault(("", where), []).append({"seconds": seconds})
    return [
        {"client": client, "program": name, **{key: median(each[key] for each in figures) for key in figures[0]}}
        for (client, name), figures in found.items()
    ]


def _first_handler(server: APIServer, parts: dict[str, str], hidden: tuple[str, ...]) -> float:
    """Processor seconds of an operator until its first handler has recorded."""
    with tempfile.TemporaryDirectory(prefix="kevents-bench-") as folder:
        file = Path(folder) / "operator.py"
        file.write_text(_OPERATOR.format(**parts), encoding="utf-8")
        with Operator(file, Path(folder), server.kubeconfig(), hidden=hidden) as operator:
            operator.wait_until(lambda: operator.said("first handler after"))
            [line, *_] = operator.said("first handler after")
            return float(line.split()[-2])


def table(rows: list[dict[str, Any]]) -> str:
    """Seconds and MiB, beside the official client alone or the operator alone."""
    alone = {row["client"]: row for row in rows if row["program"] == "official client alone"}
    operators = {row["program"]: row["seconds"] for row in rows if not row["client"]}
    lines = ["| program | client | processor time | memory | to the client or operator alone |", "| --- " * 5 + "|"]
    for row in rows:
        if row["client"]:
            memory, ratio = f"+{row['mib']:.0f} MiB", row["seconds"] / alone[row["client"]]["seconds"]
        else:
            memory, ratio = "", row["seconds"] / operators[row["program"].replace(" with kevents", "")]
        cells = [row["program"], row["client"], f"{row['seconds']:.2f} s", memory, f"{ratio:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
