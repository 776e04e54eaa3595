"""Deliveries to a real API server with TLS: kevents, client-go, the official client in a loop and kopf's posting."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Final

import kevents
from tests.bench.ours import deliver
from tests.bench.rig import NoGo, build_client_go, run_json, say
from tests.bench.subjects import event
from tests.processes.kopf_run import Operator
from tests.support.polling import poll
from tests.support.real_server import RealServer

__all__ = ["measure", "table"]

NUMBER: Final = 2000
"""Events of a program in a round, each about an object of its own."""
CLIENT_GO: Final = "client-go"
_MICRO: Final = 1e6
_NAMESPACE: Final = "prod"
_OPERATOR: Final = """
import asyncio, os, kopf

def pod(number):
    metadata = {"name": f"web-{number}", "namespace": os.environ["EVENTS"], "uid": f"u-{number}"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}

@kopf.on.event("configmaps")
async def post(name, **_):
    if name == "begin":
        for number in range(int(os.environ["NUMBER"])):
            kopf.info(pod(number), reason="Scheduled", message="assigned to a node")
"""


@dataclass(frozen=True)
class Program:
    """One of the programs.

    Attributes:
        name: For people.
        senders: Its number of concurrent requests, 0 if it decides by itself.
        aims: The ratios to client-go to reach: deliveries at least, processor time at most; None without an aim.
    """

    name: str
    senders: int
    aims: tuple[float | None, float | None] = (None, None)

    @property
    def title(self) -> str:
        """Name and senders."""
        return f"{self.name}, {self.senders} sender{'s' * (self.senders > 1)}" if self.senders else self.name


PROGRAMS: Final = (
    Program(CLIENT_GO, 0),
    Program("kevents", 1, (None, 1.1)),
    Program("kevents", 4, (1.5, 1.4)),
    Program("official client", 1),
    Program("official client", 4),
    Program("kopf.event", 0),
)


def measure(rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run the programs in turns; without Go, client-go is left out.

    Returns:
        Deliveries a second and microseconds of processor time per delivery, of each round, by the program's title.
    """
    found: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        client_go = ""
        try:
            client_go = stack.enter_context(build_client_go())
        except NoGo as why:
            say(f"client-go is skipped: {why}")
        programs = [program for program in PROGRAMS if client_go or program.name != CLIENT_GO]
        for number in range(rounds):
            with RealServer() as server:  # a new one: the size of its store must not favour the first
                server.request("POST", "/api/v1/namespaces", {"metadata": {"name": _NAMESPACE}})
                for program in programs:
                    say(f"round {number + 1} of {rounds}: {program.title}")
                    found.setdefault(program.title, []).append(_run(program, server, client_go))
            programs.reverse()
    return {program.title: found[program.title] for program in PROGRAMS if program.title in found}


def _run(program: Program, server: RealServer, client_go: str) -> dict[str, float]:
    if program.name == CLIENT_GO:
        address = [f"--url={server.url}", f"--ca={server.ca_file}", f"--token={server.token}"]
        found = run_json([client_go, *address, f"--deliver={json.dumps({'': NUMBER})}"])[""]
    elif program.name == "kopf.event":
        return _post_with_kopf(server)
    else:
        command = [sys.executable, "-m", "tests.bench.real", program.name, f"--senders={program.senders}"]
        found = run_json(command, environment={"KUBECONFIG": str(server.kubeconfig())})
    if found.pop("delivered") != found.pop("expected"):
        raise AssertionError(f"{program.title} did not deliver all events")
    return dict(found)


def _post_with_kopf(server: RealServer) -> dict[str, float]:
    """Let an operator post, and count its events on the server; its processor time is the system's count."""
    namespace = "kopf"
    server.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    with tempfile.TemporaryDirectory(prefix="kevents-bench-") as folder:
        file = Path(folder) / "operator.py"
        file.write_text(_OPERATOR, encoding="utf-8")
        environment = {"EVENTS": namespace, "NUMBER": str(NUMBER)}
        with Operator(file, Path(folder), server.kubeconfig(), environment=environment) as operator:
            operator.wait_until(lambda: operator.said("Initial authentication has finished"))
            time.sleep(2)  # until it watches
            begun, used = perf_counter(), operator.processor_seconds()
            server.request("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "begin"}})
            if not poll(lambda: _count(server, namespace) == NUMBER, 120):
                raise AssertionError(f"kopf posted {_count(server, namespace)} of {NUMBER} events")
            seconds, cpu = perf_counter() - begun, operator.processor_seconds() - used
    return {"per_second": NUMBER / seconds, "cpu_us": cpu / NUMBER * _MICRO}


def _count(server: RealServer, namespace: str) -> int:
    answer = server.request("GET", f"/api/v1/namespaces/{namespace}/events?limit=1").body
    return len(answer["items"]) + int(answer["metadata"].get("remainingItemCount", 0))


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """The medians, beside client-go's, and the aims."""
    lines = [
        "| | deliveries/s | to client-go | aim | processor time | to client-go | aim |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    reference = found.get(CLIENT_GO)
    for program in PROGRAMS:
        rounds = found.get(program.title)
        if rounds is None:
            continue
        cells = [program.title]
        for key, unit, aim, sign in (("per_second", "", program.aims[0], 1), ("cpu_us", " µs", program.aims[1], -1)):
            ratio = None
            if reference is not None:
                ratio = median(ours[key] / theirs[key] for ours, theirs in zip(rounds, reference, strict=True))
            cells += [f"{median(each[key] for each in rounds):,.0f}{unit}", *_cells(ratio, aim, sign)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(ratio: float | None, aim: float | None, sign: int) -> tuple[str, str]:
    shown = "-" if ratio is None else f"{ratio:.2f}"
    if aim is None:
        return shown, ""
    met = "" if ratio is None else ": met" if sign * ratio >= sign * aim else ": **not met**"
    return shown, f"{'at least' if sign > 0 else 'at most'} {aim:g}{met}"


def loop(number: int, senders: int) -> dict[str, float]:
    """Creates by the official client, with dictionaries, in one thread or in several."""
    from kubernetes import client, config

    config.load_kube_config()
    api = client.CoreV1Api()
    bodies = [event(time.time_ns(), which, "Scheduled", "assigned to a node").to_dict() for which in range(number + 8)]
    with ThreadPoolExecutor(senders) as pool:
        list(pool.map(lambda body: api.create_namespaced_event(_NAMESPACE, body), bodies[:8]))
        begun, used = perf_counter(), process_time()
        created = list(pool.map(lambda body: api.create_namespaced_event(_NAMESPACE, body), bodies[8:]))
        seconds, cpu = perf_counter() - begun, process_time() - used
    return {
        "per_second": number / seconds,
        "cpu_us": cpu / number * _MICRO,
        "delivered": float(len(created)),
        "expected": float(number),
    }


def main() -> None:
    """Measure one program of this interpreter, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.real", description=__doc__)
    parser.add_argument("program", choices=["kevents", "official client"])
    parser.add_argument("--senders", type=int, default=4)
    options = parser.parse_args()
    if options.program == "kevents":
        found = deliver(kevents.CoreV1EventSink(), NUMBER, options.senders)
    else:
        found = loop(NUMBER, options.senders)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
