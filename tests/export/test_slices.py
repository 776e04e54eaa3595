"""The watch of EndpointSlices goes on, whatever the server does, and ends when it is told to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from kubernetes import config

from kevents._log import LimitedLog
from kevents.export import _slices
from kevents.export._reading import ApiReader
from kevents.export._services import ServiceIndex
from kevents.export._slices import SliceWatch
from kevents.testing import APIServer, Garbage, Reset, Status

SLICES = "/endpointslices"
pytestmark = pytest.mark.wire


class Told(ServiceIndex):
    """An index that says when it has changed."""

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self.changed = threading.Condition()

    def replace(self, slices: Any, now: float) -> None:
        """Take in a list, and say so."""
        with self.changed:
            super().replace(slices, now)
            self.changed.notify_all()

    def apply(self, kind: str, each: Mapping[str, Any], now: float) -> None:
        """Take in an event, and say so."""
        with self.changed:
            super().apply(kind, each, now)
            self.changed.notify_all()

    def when(self, uid: str, expected: list[str]) -> list[str]:
        """The services of a pod as soon as they are what is expected, or after ten seconds."""
        with self.changed:
            self.changed.wait_for(lambda: self.synced and self.names(uid) == expected, 10)
            return self.names(uid)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once, and lists in pages of two."""
    monkeypatch.setattr(_slices, "wait_random_exponential", lambda **options: lambda state: 0.0)
    monkeypatch.setattr(_slices, "_PAGE", 2)


def put(server: APIServer, name: str, *pods: str) -> None:
    """Create a slice of the service of the same name."""
    endpoints = [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "uid": pod}} for pod in pods]
    metadata = {"name": name, "labels": {"kubernetes.io/service-name": name}}
    body = {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": []}
    server.create("discovery.k8s.io/v1", "endpointslices", body)


@contextmanager
def following(server: APIServer, token: str | None = None) -> Iterator[tuple[Told, Counter[str]]]:
    """An index that follows a server, and the requests made for it."""
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
    """A list in several pages is taken in as a whole."""
    for number in range(5):
        put(api_server, f"s{number}", "a")
    with following(api_server) as (index, counts):
        assert [f"s{number}" for number in range(5)] == index.when("a", [f"s{number}" for number in range(5)])
        assert 3 == counts["list"]


def test_watched(api_server: APIServer) -> None:
    """What comes later arrives by the watch, without another list."""
    with following(api_server) as (index, counts):
        assert [] == index.when("a", [])
        put(api_server, "web", "a")
        assert ["web"] == index.when("a", ["web"])
        assert 1 == counts["list"]


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
    """After three lists or watches that went wrong, in whatever way, all is known again."""
    put(api_server, "web", "a")
    with api_server.fail(fault, times=3, path=SLICES), following(api_server) as (index, _):
        assert ["web"] == index.when("a", ["web"])
        put(api_server, "api", "a")
        assert ["api", "web"] == index.when("a", ["api", "web"])


def test_restart(api_server: APIServer) -> None:
    """After the server was away, with its history forgotten meanwhile, the difference is made up."""
    put(api_server, "web", "a")
    with following(api_server) as (index, _):
        assert ["web"] == index.when("a", ["web"])
        api_server.stop_listening()
        put(api_server, "api", "a")
        api_server.compact()
        api_server.listen_again()
        assert ["api", "web"] == index.when("a", ["api", "web"])


def test_forbidden(api_server: APIServer, caplog: pytest.LogCaptureFixture) -> None:
    """Without permission the log has the rule that is missing, and when it is given all goes on."""
    put(api_server, "web", "a")
    api_server.add_user("poor-token", "poor", ["get"])
    with following(api_server, "poor-token") as (index, counts):
        with index.changed:
            index.changed.wait_for(lambda: counts["list"] > 2, 1)
        assert not index.synced
        assert 'allow apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"]' in caplog.text
        api_server.add_user("poor-token", "poor")
        assert ["web"] == index.when("a", ["web"])


def test_close_in_a_watch(api_server: APIServer) -> None:
    """A watch on which nothing happens ends at once when it is told to."""
    with following(api_server) as (index, _):
        assert [] == index.when("a", [])
        start = monotonic()
    assert monotonic() - start < 2


def test_close_before_start(api_server: APIServer) -> None:
    """What was never started can be closed, and more than once."""
    client = config.new_client_from_config(str(api_server.kubeconfig()))
    watch = SliceWatch(ApiReader(client), ServiceIndex(), print, LimitedLog())
    watch.close()
    watch.close()
