"""The watch of EndpointSlices survives server failures and stops on request."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from kubernetes import config

from kevents._runtime.log import LimitedLog
from kevents.export import Enricher
from kevents.export._enrich import services as _slices
from kevents.export._enrich.services import ServiceIndex, SliceWatch
from kevents.export._source.api import ApiReader
from kevents.testing import APIServer, Garbage, Request, Reset, Status
from tests.support.metadata import UIDS, record
from tests.support.polling import poll

SLICES = "/endpointslices"
pytestmark = pytest.mark.wire


class Told(ServiceIndex):
    """An index that notifies about changes."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()

    def replace(self, slices: Any, now: float) -> None:
        """Apply a list and notify."""
        with self.changed:
            super().replace(slices, now)
            self.changed.notify_all()

    def apply(self, kind: str, each: Mapping[str, Any], now: float) -> None:
        """Apply a watch event and notify."""
        with self.changed:
            super().apply(kind, each, now)
            self.changed.notify_all()

    def when(self, uid: str, expected: list[str]) -> list[str]:
        """Wait until a pod has the expected services, and return its services."""
        with self.changed:
            self.changed.wait_for(lambda: self.synced and self.names(uid) == expected, 60)
            return self.names(uid)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without delay, and list in pages of two."""
    monkeypatch.setattr(_slices.Backoff, "next", lambda backoff: 0.0)
    monkeypatch.setattr(_slices, "_PAGE", 2)


def put(server: APIServer, name: str, *pods: str) -> None:
    """Create a slice of the service of the same name."""
    endpoints = [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "uid": pod}} for pod in pods]
    metadata = {"name": name, "labels": {"kubernetes.io/service-name": name}}
    body = {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": []}
    server.create("discovery.k8s.io/v1", "endpointslices", body)


@contextmanager
def following(server: APIServer, token: str | None = None) -> Iterator[tuple[Told, Counter[str]]]:
    """Yield an index that follows a server, and the number of its requests by verb."""
    client = config.new_client_from_config(str(server.kubeconfig(token=token)))
    index, counts = Told(), Counter[str]()

    def count(verb: str) -> None:
        counts[verb] += 1

    watch = SliceWatch(ApiReader(client), index, count, LimitedLog())
    watch.start()
    yield index, counts
    watch.close()
    client.rest_client.pool_manager.clear()


def test_pages(api_server: APIServer) -> None:
    """A list of several pages is applied as a whole."""
    for number in range(5):
        put(api_server, f"s{number}", "a")
    with following(api_server) as (index, counts):
        assert index.when("a", [f"s{number}" for number in range(5)]) == [f"s{number}" for number in range(5)]
        assert counts["list"] == 3


def test_watched(api_server: APIServer) -> None:
    """Later slices arrive through the watch, without another list."""
    with following(api_server) as (index, counts):
        assert index.when("a", []) == []
        put(api_server, "web", "a")
        assert index.when("a", ["web"]) == ["web"]
        assert counts["list"] == 1


FAULTS = {
    "history forgotten": Status(410, "Expired", "too old resource version"),
    "unavailable": Status(503, "ServiceUnavailable"),
    "too many": Status(429, "TooManyRequests", retry_after="1"),
    "cut": Reset(),
    "garbage": Garbage(b"<html>", 200),
    "other JSON": Garbage(b"[]\n7\n", 200),
    "null": Garbage(b"null", 200),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_faults(api_server: APIServer, fault: Any) -> None:
    """The index recovers after three lists or watches that failed in any way."""
    put(api_server, "web", "a")
    with api_server.fail(fault, times=3, path=SLICES), following(api_server) as (index, _):
        assert index.when("a", ["web"]) == ["web"]
        put(api_server, "api", "a")
        assert index.when("a", ["api", "web"]) == ["api", "web"]


def test_restart(api_server: APIServer) -> None:
    """The index recovers after the server was unreachable and its history was compacted."""
    put(api_server, "web", "a")
    with following(api_server) as (index, _):
        assert index.when("a", ["web"]) == ["web"]
        api_server.stop_listening()
        put(api_server, "api", "a")
        api_server.compact()
        api_server.listen_again()
        assert index.when("a", ["api", "web"]) == ["api", "web"]


def test_forbidden(api_server: APIServer, caplog: pytest.LogCaptureFixture) -> None:
    """Without permission, the log has the missing rule. Once it is granted, the index fills."""
    put(api_server, "web", "a")
    api_server.add_user("poor-token", "poor", ["get"])
    with following(api_server, "poor-token") as (index, counts):
        with index.changed:
            index.changed.wait_for(lambda: counts["list"] > 2, 1)
        assert not index.synced
        assert 'allow apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"]' in caplog.text
        api_server.add_user("poor-token", "poor")
        assert index.when("a", ["web"]) == ["web"]


def test_close_in_a_watch(api_server: APIServer) -> None:
    """Closing ends an idle watch immediately."""
    with following(api_server) as (index, _):
        assert index.when("a", []) == []
        start = monotonic()
    assert monotonic() - start < 20  # a watch lasts longer


def test_close_before_start(api_server: APIServer) -> None:
    """A watch that was never started can be closed, also twice."""
    client = config.new_client_from_config(str(api_server.kubeconfig()))
    watch = SliceWatch(ApiReader(client), ServiceIndex(), print, LimitedLog())
    watch.close()
    watch.close()


# -- how a watch ends ------------------------------------------------------------------------------------------------


def is_watch(request: Request) -> bool:
    """True if a request is a watch of slices."""
    return "watch" in request.query and request.path.endswith(SLICES)


def lines(*events: dict[str, Any]) -> Garbage:
    """Return a watch that sends these events and ends."""
    return Garbage(b"".join(json.dumps(event).encode() + b"\n" for event in events), after_processing=False)


def bookmark(version: str) -> dict[str, Any]:
    """Return a bookmark."""
    return {"type": "BOOKMARK", "object": {"kind": "EndpointSlice", "metadata": {"resourceVersion": version}}}


def test_a_watch_at_its_time(api_server: APIServer) -> None:
    """After a watch that ends normally, the next one resumes at its bookmark without a list."""
    for name in ("web", "api"):
        put(api_server, name, "a")
    listed = str(api_server._store.version)
    before = str(api_server._store.version - 1)
    with api_server.fail(lines(bookmark(before)), times=1, when=is_watch), following(api_server) as (index, counts):
        assert index.when("a", ["api", "web"]) == ["api", "web"]
        assert api_server.wait_for(lambda: len(list(filter(is_watch, api_server.requests))) == 2)
        assert (counts["list"], counts["watch"]) == (1, 2)
    asked = [request.query["resourceVersion"] for request in api_server.requests if is_watch(request)]
    assert asked == [listed, before]


@pytest.mark.parametrize(("code", "said"), [(410, False), (500, True)])
def test_an_error_in_a_watch(api_server: APIServer, caplog: pytest.LogCaptureFixture, code: int, *, said: bool) -> None:
    """An error in a watch is followed by a list. It is logged unless it is 410."""
    error = {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "broken"}}
    with api_server.fail(lines(error), times=1, when=is_watch), following(api_server) as (index, counts):
        assert api_server.wait_for(lambda: len(list(filter(is_watch, api_server.requests))) == 2)
        assert (counts["list"], index.when("a", [])) == (2, [])
    assert (f"trying again: UnavailableError: a watch sent the error {code} broken" in caplog.text) == said


class Lines:
    """An answer of a server, with lines that have all arrived."""

    status = 200

    def __init__(self, *events: dict[str, Any]) -> None:
        self._lines = [b"", *(json.dumps(event).encode() for event in events)]

    def open(self, path: str, accept: str, timeout: tuple[float, float], *, live: bool = False) -> Lines:
        """Return itself, as a reader returns an answer."""
        return self

    def lines(self) -> Iterator[bytes]:
        """Yield the lines."""
        yield from self._lines

    def close(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


def test_an_end_in_the_middle() -> None:
    """After `close`, the remaining lines are ignored and no request is made."""
    counts = Counter[str]()

    class Ending(Told):
        def apply(self, kind: str, each: Mapping[str, Any], now: float) -> None:
            counts[f"applied {each['metadata']['resourceVersion']}"] += 1
            watch.close()

    reader: Any = Lines(bookmark("1"), bookmark("2"))
    watch = SliceWatch(reader, Ending(), lambda verb: counts.update([verb]), LimitedLog())
    watch._watch("0")
    assert counts == {"watch": 1, "applied 1": 1}


class Idle(Lines):
    """A server without slices, whose watches end immediately."""

    def read_all(self, limit: int) -> bytes:
        """Return an empty list."""
        return b'{"metadata":{"resourceVersion":"5"},"items":[]}'


@pytest.mark.parametrize("events", [[], [{"type": "ERROR", "object": {"code": 410}}], [bookmark("5")]])
def test_a_watch_that_ends_at_once(monkeypatch: pytest.MonkeyPatch, events: list[dict[str, Any]]) -> None:
    """After a watch that ends immediately without news or with "gone", there is a pause and a list."""
    counts, attempts = Counter[str](), list[int]()

    def count(verb: str) -> None:
        counts[verb] += 1
        if counts.total() == 9:  # six are enough
            watch._stopped.set()

    def wait(backoff: Any) -> float:
        backoff.failures += 1
        attempts.append(backoff.failures)
        if len(attempts) == 3:
            watch._stopped.set()
        return 0.0

    monkeypatch.setattr(_slices.Backoff, "next", wait)
    reader: Any = Idle(*events)
    watch = SliceWatch(reader, ServiceIndex(), count, LimitedLog())
    watch._run()
    assert counts == {"list": 3, "watch": 3}
    assert attempts == ([1, 1, 1] if [bookmark("5")] == events else [1, 2, 3])


def test_services_of_a_pod(api_server: APIServer) -> None:
    """With `services`, the enricher adds a pod's services and counts the requests."""
    put(api_server, "web", UIDS(1))
    client = config.new_client_from_config(str(api_server.kubeconfig()))
    with Enricher(client, services=True, nodes=False) as enricher:
        assert poll(lambda: enricher._services is not None and enricher._services.synced, 10)
        done, other = record(uid=UIDS(1), read_at=monotonic()), record("Node", "n1", UIDS(2), read_at=monotonic())
        enricher.enrich([done, other])
        assert done.body["kevents"]["services"] == ["web"]
        assert "services" not in other.body["kevents"]
        assert api_server.wait_for(lambda: [request for request in api_server.requests if is_watch(request)])
    assert tuple(enricher._fetcher.requests()[verb] for verb in ("list", "watch")) == (1, 1)
    client.rest_client.pool_manager.clear()
