"""Forms of a sink: kevents' own connections, and the official client with dictionaries or with its models."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import kevents
from tests.bench.ours import api_for, deliver, sink_for
from tests.bench.rig import Server, run_json, say, serving

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["measure_with", "table"]

DELAYS: Final = (0, 5)
SENDERS: Final = (1, 4)
FORMS: Final = ("own connections", "a given client", "dictionaries", "models")
_SECONDS: Final = 1.0
_SLOWEST_REQUEST: Final = 0.0008
"""Seconds of a request besides the server's delay. Determines the number of requests in a measurement."""


class ModelSink:
    """Converts events to the client's models, and lets the client parse answers into models."""

    def __init__(self, api: Any) -> None:
        from kubernetes import client

        self._api = api
        self._client: Any = client
        self._body: Callable[[dict[str, Any]], object] = (
            client.CoreV1Event.from_dict if hasattr(client.CoreV1Event, "from_dict") else self._model
        )

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Create an event."""
        self._api.create_namespaced_event(namespace, self._body(body))

    def patch(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Patch the event."""
        self._api.patch_namespaced_event(name, namespace, patch)

    def _model(self, body: dict[str, Any]) -> object:
        """Return the models for client versions without `from_dict`."""
        about, source, metadata = body["involvedObject"], body["source"], body["metadata"]
        return self._client.CoreV1Event(
            metadata=self._client.V1ObjectMeta(name=metadata["name"], namespace=metadata["namespace"]),
            involved_object=self._client.V1ObjectReference(
                kind=about["kind"],
                api_version=about["apiVersion"],
                namespace=about["namespace"],
                name=about["name"],
                uid=about["uid"],
                resource_version=about["resourceVersion"],
            ),
            source=self._client.V1EventSource(component=source["component"], host=source["host"]),
            reason=body["reason"],
            message=body["message"],
            type=body["type"],
            count=body["count"],
            first_timestamp=body["firstTimestamp"],
            last_timestamp=body["lastTimestamp"],
            reporting_component=body["reportingComponent"],
            reporting_instance=body["reportingInstance"],
        )


class DictionarySink:
    """Passes dictionaries to the client, and lets it parse the answers."""

    def __init__(self, api: Any) -> None:
        self._api = api

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Create an event."""
        self._api.create_namespaced_event(namespace, body)

    def patch(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Patch the event."""
        self._api.patch_namespaced_event(name, namespace, patch)


def sink_of(form: str, url: str, ca_file: str) -> kevents.EventSink:
    """Return a sink of one of the forms."""
    if form == "own connections":
        return sink_for(url, ca_file)
    api = api_for(url, ca_file)
    if form == "models":
        return ModelSink(api)
    return DictionarySink(api) if form == "dictionaries" else kevents.CoreV1EventSink(api)


def number_of(delay: int, senders: int) -> int:
    """Return the number of deliveries to measure, which take about a second on the reference machine."""
    return max(round(_SECONDS * senders / (delay / 1000 + _SLOWEST_REQUEST * max(1, senders / 4))), 2 * senders)


def measure(form: str, delay: int, senders: int, server: Server) -> dict[str, Any]:
    """Measure one form, delay and number of senders."""
    before = server.counters()["connections"]
    sink = sink_of(form, f"{server.url}/{delay}", server.ca_file)
    found: dict[str, Any] = deliver(sink, number_of(delay, senders), senders)
    found["connections"] = server.counters()["connections"] - before - 1
    return found


def measure_all(*, delays: tuple[int, ...]) -> list[dict[str, Any]]:
    """Measure every combination, with TLS."""
    rows = []
    with serving(tls=True) as server:
        for delay in delays:
            for senders in SENDERS:
                for form in FORMS:
                    found = measure(form, delay, senders, server)
                    rows.append({"form": form, "delay": delay, "senders": senders, **found})
    return rows


def measure_with(pythons: list[str]) -> list[dict[str, Any]]:
    """Measure with each interpreter and its version of the client."""
    rows: list[dict[str, Any]] = []
    for python in pythons:
        say(f"sinks: {python}")
        rows += run_json([python, "-m", "tests.bench.sinks"])
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return a table of deliveries a second and CPU time with the default senders, with the forms side by side."""
    lines = ["| client | server | " + " | ".join(FORMS) + " |"]
    lines.append("| --- " * (2 + len(FORMS)) + "|")
    shown = [row for row in rows if row["senders"] == SENDERS[-1]]
    for client, delay in dict.fromkeys((row["client"], row["delay"]) for row in shown):
        forms = {row["form"]: row for row in shown if (client, delay) == (row["client"], row["delay"])}
        cells = [f"{forms[form]['per_second']:,.0f}/s, {forms[form]['cpu_us']:.0f} µs" for form in FORMS]
        cells = [client, f"{delay} ms", *cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure with this interpreter and print JSON."""
    from importlib.metadata import version

    rows = measure_all(delays=DELAYS)
    sys.stdout.write(json.dumps([{"client": version("kubernetes"), **row} for row in rows]) + "\n")


if __name__ == "__main__":
    main()
