"""Features of the embedded API server only: faults, the request log, users, start and stop."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import ssl
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest

from kevents import StatusError
from kevents.testing import APIError, APIServer, Cause, Delay, Garbage, Hang, LostAnswer, Reset, Status
from kevents.testing._apiserver.handler import Connection
from kevents.testing._apiserver.patch import json_fault
from kevents.testing._apiserver.server import _own_certificate, kubeconfig, self_signed
from tests.support.real_server import Response, send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENTS = "/api/v1/namespaces/default/events"
MERGE = "application/merge-patch+json"


def ask(
    server: APIServer, method: str = "GET", path: str = EVENTS, body: object = None, token: str | None = None
) -> Response:
    """Send one request over a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    content_type = MERGE if method == "PATCH" else "application/json"
    given = server.token if token is None else token
    return send(connection, method, path, body, token=given, content_type=content_type)


def event(name: str = "pod.1") -> dict[str, Any]:
    """Return the body of an event."""
    return {"metadata": {"name": name}, "involvedObject": {"name": "pod", "namespace": "default"}, "count": 1}


def create(server: APIServer, name: str = "pod.1") -> Response:
    """Create an event."""
    return ask(server, "POST", EVENTS, event(name))


@contextlib.contextmanager
def connected(server: APIServer, timeout: float = 10) -> Iterator[http.client.HTTPConnection]:
    """Yield a persistent connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    with contextlib.closing(connection):
        connection.connect()
        yield connection


def bearer(server: APIServer) -> dict[str, str]:
    """Return the administrator's headers."""
    return {"Authorization": f"Bearer {server.token}"}


class Clock:
    """A wall clock that stands still."""

    def __init__(self) -> None:
        self.now = 1_784_883_600_000_000_000

    def __call__(self) -> int:
        """Return the time in nanoseconds."""
        return self.now


class TestStatusFaults:
    """Scripted answers."""

    def test_count(self, api_server: APIServer) -> None:
        """A rule with `times` applies to that number of requests."""
        api_server.fail(503, times=2)
        assert [create(api_server, name).status for name in "abc"] == [503, 503, 201]
        assert [found["metadata"]["name"] for found in api_server.events()] == ["c"]

    def test_block(self, api_server: APIServer) -> None:
        """A rule as a context manager ends with its block and counts its requests."""
        with api_server.fail(500) as rule:
            statuses = [create(api_server).status for _ in range(3)]
        assert (statuses, rule.hits, create(api_server).status) == ([500, 500, 500], 3, 201)

    def test_remove(self, api_server: APIServer) -> None:
        """A rule can be removed, also twice."""
        rule = api_server.fail(500)
        rule.remove()
        rule.remove()
        assert create(api_server).status == 201

    def test_body(self, api_server: APIServer) -> None:
        """Code, reason, message, causes and both forms of the retry delay are sent as given."""
        cause = Cause("NamespaceTerminating", "namespace x is being terminated", "metadata.namespace")
        fault = Status(429, "TooManyRequests", "slow down", (cause,), retry_after=3, retry_after_seconds=7)
        with api_server.fail(fault):
            response = create(api_server)
        assert (response.status, response.headers["retry-after"]) == (429, "3")
        assert response.body == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "slow down",
            "reason": "TooManyRequests",
            "details": {"causes": [cause.as_dict()], "retryAfterSeconds": 7},
            "code": 429,
        }

    @pytest.mark.parametrize("retry_after", [0, "Fri, 24 Jul 2026 09:00:00 GMT", "-5", "99999999999"])
    def test_retry_after(self, api_server: APIServer, retry_after: str | int) -> None:
        """Retry-After is sent as given."""
        with api_server.fail(Status(503, retry_after=retry_after)):
            assert create(api_server).headers["retry-after"] == str(retry_after)

    def test_matching(self, api_server: APIServer) -> None:
        """Rules match by method, part of the path and a function."""
        api_server.fail(501, method="PATCH")
        api_server.fail(502, path="/pods")
        api_server.fail(503, when=lambda request: isinstance(request.body, dict) and request.body.get("count") == 5)
        statuses = [
            create(api_server).status,
            ask(api_server, "PATCH", f"{EVENTS}/pod.1", {"count": 2}).status,
            ask(api_server, path="/api/v1/namespaces/default/pods").status,
            ask(api_server, "POST", EVENTS, {**event("b"), "count": 5}).status,
        ]
        assert statuses == [201, 501, 502, 503]

    def test_oldest_first(self, api_server: APIServer) -> None:
        """If two rules match, the older one applies until it is used up."""
        api_server.fail(501, times=1)
        api_server.fail(502, times=1)
        assert [create(api_server).status for _ in range(3)] == [501, 502, 201]

    def test_clear(self, api_server: APIServer) -> None:
        """`clear_faults` removes all rules."""
        api_server.fail(500)
        api_server.fail(501)
        api_server.clear_faults()
        assert create(api_server).status == 201

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (StatusError(503), TypeError),
            (LostAnswer(), TypeError),
            ("503", TypeError),
            (True, TypeError),
            (Status, TypeError),
            (99, ValueError),
            (Status(1000), ValueError),
        ],
        ids=repr,
    )
    def test_no_fault(self, api_server: APIServer, fault: Any, error: type[Exception]) -> None:
        """An invalid fault is refused by `fail`, and connections still work."""
        with pytest.raises(error, match=r"fault|status"):
            api_server.fail(fault)
        assert ask(api_server).status == 200

    def test_times_below_zero(self, api_server: APIServer) -> None:
        """A negative `times` is refused."""
        with pytest.raises(ValueError, match="not -1"):
            api_server.fail(503, times=-1)

    def test_method_in_lower_case(self, api_server: APIServer) -> None:
        """The method of a rule is case-insensitive."""
        with api_server.fail(503, method="get") as rule:
            assert ask(api_server).status == 503
        assert rule.hits == 1


class TestConnectionFaults:
    """Connections that break."""

    def test_reset(self, api_server: APIServer) -> None:
        """By default, a reset happens before processing."""
        with api_server.fail(Reset()), pytest.raises(ConnectionResetError):
            create(api_server)
        assert (api_server.events(), api_server.requests[0].status) == ([], 0)

    def test_reset_after_processing(self, api_server: APIServer) -> None:
        """A reset after processing loses the answer, not the write."""
        with api_server.fail(Reset(after_processing=True)), pytest.raises(ConnectionResetError):
            create(api_server)
        assert [found["metadata"]["name"] for found in api_server.events()] == ["pod.1"]

    def test_hang(self, api_server: APIServer) -> None:
        """A hanging request is not processed, and its connection is closed when the rule is removed."""
        with ThreadPoolExecutor(1) as pool, api_server.fail(Hang()) as rule:
            answer = pool.submit(create, api_server)
            assert api_server.wait_for(lambda: rule.hits == 1)
            assert not answer.done()
            rule.remove()
            with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
                answer.result(60)
        assert api_server.events() == []

    def test_hang_after_processing(self, api_server: APIServer) -> None:
        """A request can hang after it was processed."""
        with ThreadPoolExecutor(1) as pool, api_server.fail(Hang(after_processing=True)) as rule:
            answer = pool.submit(create, api_server)
            assert api_server.wait_for(api_server.events)
            rule.remove()
            assert isinstance(answer.exception(10), (http.client.RemoteDisconnected, ConnectionResetError))

    def test_one_hangs(self, api_server: APIServer) -> None:
        """Other requests are served while one hangs."""
        with ThreadPoolExecutor(1) as pool, api_server.fail(Hang(), times=1) as rule:
            answer = pool.submit(create, api_server, "a")
            assert api_server.wait_for(lambda: rule.hits == 1)
            assert create(api_server, "b").status == 201
            rule.remove()
            assert answer.exception(10) is not None

    def test_delay(self, api_server: APIServer) -> None:
        """A delay happens before processing, and a later rule can also apply."""
        api_server.fail(Delay(0.05))
        api_server.fail(503, times=1)
        before = time.monotonic()
        assert [create(api_server).status, create(api_server).status] == [503, 201]
        assert time.monotonic() - before >= 0.1

    def test_delay_ends_with_its_rule(self, api_server: APIServer) -> None:
        """If a delay's rule is removed, the request continues immediately."""
        with ThreadPoolExecutor(1) as pool, api_server.fail(Delay(3600)) as rule:
            answer = pool.submit(create, api_server)
            assert api_server.wait_for(lambda: rule.hits == 1)
            rule.remove()
            assert answer.result(60).status == 201

    def test_rules_outlive_a_stop(self) -> None:
        """A rule made before or after a stop holds no request until the next start."""
        server = APIServer()
        with server:
            rules = [server.fail(Hang())]
        rules.append(server.fail(Hang()))
        assert [rule.released.is_set() for rule in rules] == [True, True]
        with server:
            assert [rule.released.is_set() for rule in rules] == [False, False]

    def test_away(self, api_server: APIServer) -> None:
        """After `stop_listening`, connections are refused. After `listen_again`, the port is the same."""
        create(api_server)
        port = api_server.port
        api_server.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            create(api_server)
        api_server.listen_again()
        assert (create(api_server).status, api_server.port) == (409, port)

    def test_away_closes_connections(self, api_server: APIServer) -> None:
        """`stop_listening` closes open connections."""
        with connected(api_server) as connection:
            connection.request("GET", "/readyz")
            connection.getresponse().read()
            api_server.stop_listening()
            assert connection.sock.recv(1) == b""

    def test_away_keeps_connections(self, api_server: APIServer) -> None:
        """`stop_listening` can keep open connections."""
        with connected(api_server) as connection:
            connection.request("GET", "/readyz")
            connection.getresponse().read()
            api_server.stop_listening(disconnect=False)
            connection.request("GET", "/readyz")
            assert connection.getresponse().read() == b"ok"


class TestGarbage:
    """Answers that are no API objects."""

    @pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"null"])
    def test_after_the_write(self, api_server: APIServer, body: bytes) -> None:
        """A garbage answer is sent after processing with the original status."""
        with api_server.fail(Garbage(body, content_type="text/html")):
            assert Response(
                201,
                {"cache-control": "no-cache, private", "content-type": "text/html", "content-length": f"{len(body)}"},
                body.decode(),
            ) == create(api_server)
        assert len(api_server.events()) == 1

    def test_instead_of_the_write(self, api_server: APIServer) -> None:
        """A garbage answer can replace processing."""
        with api_server.fail(Garbage(b"hello", status=200, content_type="text/plain", after_processing=False)):
            assert create(api_server).body == "hello"
        assert api_server.events() == []

    def test_huge(self, api_server: APIServer) -> None:
        """A huge body has the given size, and the connection continues to work."""
        with connected(api_server) as connection:
            with api_server.fail(Garbage(b"abc", size=20_000_001)):
                connection.request("GET", EVENTS, headers=bearer(api_server))
                with connection.getresponse() as answer:
                    assert len(answer.read()) == 20_000_001
            connection.request("GET", EVENTS, headers=bearer(api_server))
            assert connection.getresponse().status == 200


class TestLog:
    """The request log."""

    def test_entry(self, api_server: APIServer) -> None:
        """An entry has all parts of a request and the status of its answer."""
        ask(api_server, "PATCH", f"{EVENTS}/A%20b?dryRun=All&x=1", {"count": 2})
        (entry,) = api_server.requests
        assert (entry.method, entry.path, entry.query) == ("PATCH", f"{EVENTS}/A b", {"dryRun": "All", "x": "1"})
        assert (entry.body, entry.connection, entry.status) == ({"count": 2}, 1, 404)
        assert entry.headers["content-type"] == MERGE
        assert 0 <= time.monotonic() - entry.started < 60

    def test_snapshot(self, api_server: APIServer) -> None:
        """A snapshot of the log does not change."""
        create(api_server)
        before = api_server.requests
        create(api_server)
        assert (len(before), len(api_server.requests)) == (1, 2)

    def test_clear(self, api_server: APIServer) -> None:
        """The log can be cleared."""
        create(api_server)
        api_server.clear_requests()
        assert api_server.requests == ()

    def test_body_that_is_no_json(self, api_server: APIServer) -> None:
        """A malformed body is logged as bytes, and a missing one as None."""
        ask(api_server, "POST", EVENTS, b"{")
        ask(api_server)
        assert [entry.body for entry in api_server.requests] == [b"{", None]

    def test_connections(self, api_server: APIServer) -> None:
        """Connections are counted and reused for several requests."""
        with connected(api_server) as connection:
            for name in "abc":
                connection.request("POST", EVENTS, json.dumps(event(name)), bearer(api_server))
                connection.getresponse().read()
        create(api_server, "d")
        assert api_server.connections == 2
        assert [entry.connection for entry in api_server.requests] == [1, 1, 1, 2]

    def test_limit(self) -> None:
        """The log drops the oldest entries."""
        with APIServer(log_length=2) as server:
            for name in "abc":
                create(server, name)
            assert [entry.body["metadata"]["name"] for entry in server.requests] == ["b", "c"]

    def test_wait_for(self, api_server: APIServer) -> None:
        """`wait_for` returns True once its condition holds, and False after its timeout."""
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(api_server.wait_for, lambda: len(api_server.requests) == 2)
            create(api_server, "a")
            create(api_server, "b")
            assert waiting.result(60) is True
        assert api_server.wait_for(lambda: False, timeout=0.01) is False


class TestUsers:
    """Users at run time."""

    def test_default_token(self) -> None:
        """Each server has its own token."""
        assert APIServer().token != APIServer().token

    def test_given_token(self) -> None:
        """The token can be set."""
        with APIServer(token="mine") as server:
            assert ask(server, token="mine").status == 200

    def test_run_time(self, api_server: APIServer) -> None:
        """Users can be added, changed, removed and restored at run time."""
        api_server.add_user("t", "bob", {"list"})
        statuses = [ask(api_server, token="t").status]
        api_server.add_user("t", "bob", ())
        statuses.append(ask(api_server, token="t").status)
        api_server.remove_user("bob")
        statuses.append(ask(api_server, token="t").status)
        api_server.add_user("t", "bob")
        statuses.append(ask(api_server, token="t").status)
        assert statuses == [200, 403, 401, 200]

    def test_admin(self, api_server: APIServer) -> None:
        """The administrator can be removed and restored."""
        api_server.remove_user("admin")
        assert ask(api_server).status == 401
        api_server.add_user(api_server.token, "admin")
        assert ask(api_server).status == 200


class TestObjects:
    """Objects that tests read and prepare."""

    def test_copies(self, api_server: APIServer) -> None:
        """Returned objects are copies."""
        create(api_server)
        api_server.events()[0]["involvedObject"]["name"] = "changed"
        assert api_server.events()[0]["involvedObject"]["name"] == "pod"

    def test_namespace(self, api_server: APIServer) -> None:
        """`events` returns the events of one namespace or of all."""
        api_server.create_namespace("a")
        api_server.create("v1", "events", {"metadata": {"name": "x"}, "involvedObject": {"namespace": "a"}}, "a")
        create(api_server)
        assert [found["metadata"]["name"] for found in api_server.events("a")] == ["x"]
        assert [found["metadata"]["name"] for found in api_server.events()] == ["x", "pod.1"]

    def test_refused(self, api_server: APIServer) -> None:
        """`create` refuses objects that a client could not create."""
        with pytest.raises(APIError, match='namespaces "a" not found'):
            api_server.create("v1", "events", event(), "a")

    def test_unknown_resource(self, api_server: APIServer) -> None:
        """An unregistered resource is a LookupError."""
        with pytest.raises(LookupError, match=r"no resource 'widgets' in 'example\.com/v1'"):
            api_server.objects("example.com/v1", "widgets")

    def test_register(self, api_server: APIServer) -> None:
        """A kind can be registered at run time, also as cluster-scoped."""
        api_server.register("example.com/v1", "Planet", "planets", namespaced=False)
        api_server.create("example.com/v1", "planets", {"metadata": {"name": "mars"}, "spec": {"moons": 2}})
        assert ask(api_server, path="/apis/example.com/v1/planets/mars").body["spec"] == {"moons": 2}

    def test_terminate(self, api_server: APIServer) -> None:
        """A namespace can be left Terminating."""
        api_server.create_namespace("a")
        api_server.terminate_namespace("a")
        response = ask(api_server, "POST", "/api/v1/namespaces/a/events", {"metadata": {"name": "x"}})
        assert response.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"

    def test_remove_namespace(self, api_server: APIServer) -> None:
        """`remove_namespace` removes a namespace with its content."""
        api_server.create_namespace("a")
        api_server.create("v1", "events", {"metadata": {"name": "x"}, "involvedObject": {"namespace": "a"}}, "a")
        api_server.remove_namespace("a")
        assert (api_server.events(), ask(api_server, path="/api/v1/namespaces/a").status) == ([], 404)

    def test_finalize(self) -> None:
        """With `finalize_namespaces`, a deleted namespace is gone immediately."""
        with APIServer(finalize_namespaces=True) as server:
            server.create_namespace("a")
            ask(server, "DELETE", "/api/v1/namespaces/a")
            assert ask(server, path="/api/v1/namespaces/a").status == 404

    def test_expire(self, api_server: APIServer) -> None:
        """`expire` removes one event or all."""
        for name in "abc":
            create(api_server, name)
        assert (api_server.expire("b"), len(api_server.events())) == (1, 2)
        assert (api_server.expire(), api_server.events()) == (2, [])
        assert ask(api_server, "PATCH", f"{EVENTS}/a", {"count": 2}).status == 404

    def test_time_to_live(self) -> None:
        """An event expires after its TTL since the last write. Other objects do not expire."""
        clock = Clock()
        with APIServer(event_ttl=3600, clock=clock) as server:
            create(server, "a")
            create(server, "b")
            clock.now += 3_000_000_000_000
            ask(server, "PATCH", f"{EVENTS}/a", {"count": 2})
            clock.now += 1_000_000_000_000
            assert [found["metadata"]["name"] for found in server.events()] == ["a"]
            clock.now += 3_600_000_000_000
            assert (server.events(), len(server.objects("v1", "namespaces"))) == ([], 4)

    def test_no_time_to_live(self) -> None:
        """Without a TTL, events do not expire."""
        clock = Clock()
        with APIServer(event_ttl=None, clock=clock) as server:
            create(server)
            clock.now += 10**18
            assert len(server.events()) == 1

    def test_clock(self) -> None:
        """The server uses its clock for timestamps."""
        with APIServer(clock=Clock()) as server:
            create(server)
            assert server.events()[0]["metadata"]["creationTimestamp"] == "2026-07-24T09:00:00Z"


class TestWatches:
    """Watch features that a real server cannot show in a test."""

    def test_expiry(self) -> None:
        """A watch reports an expired event as deleted."""
        with APIServer(event_ttl=0.05) as server, connected(server) as connection:
            create(server)
            connection.request("GET", f"{EVENTS}?watch=1&resourceVersion=1", headers=bearer(server))
            with connection.getresponse() as answer:
                lines = (json.loads(line) for line in iter(answer.readline, b""))
                assert next(line["type"] for line in lines if line["type"] != "ADDED") == "DELETED"

    def test_compacted(self, api_server: APIServer) -> None:
        """A watch from a compacted version gets 410."""
        create(api_server)
        api_server.compact()
        response = ask(api_server, path=f"{EVENTS}?watch=1&resourceVersion=2")
        assert (response.body["type"], response.body["object"]["code"]) == ("ERROR", 410)
        assert response.body["object"]["reason"] == "Expired"

    @pytest.mark.parametrize(("gone", "status", "code"), [("event", 200, 410), ("status", 410, 410), ("empty", 200, 0)])
    def test_forms_of_gone(self, gone: Any, status: int, code: int) -> None:
        """A compacted version is answered with an ERROR event, a status or an empty answer."""
        with APIServer(gone=gone) as server:
            create(server)
            server.compact()
            response = ask(server, path=f"{EVENTS}?watch=1&resourceVersion=2")
        body = response.body.get("object", response.body) if response.body else {}
        assert (response.status, body.get("code", 0)) == (status, code)

    def test_history(self) -> None:
        """`history` limits the number of changes."""
        with APIServer(history=3) as server:
            versions = [create(server, name).body["metadata"]["resourceVersion"] for name in "abcd"]
            told = ask(server, path=f"{EVENTS}?watch=1&timeoutSeconds=1&resourceVersion={versions[2]}")
            gone = ask(server, path=f"{EVENTS}?watch=1&resourceVersion={int(versions[0]) - 1}")
        assert (told.body["object"]["metadata"]["name"], gone.body["type"]) == ("d", "ERROR")

    def test_history_age(self) -> None:
        """`history_age` limits the age of changes, except the last one."""
        clock = Clock()
        with APIServer(clock=clock, history_age=300) as server:
            first, second = (create(server, name).body["metadata"]["resourceVersion"] for name in "ab")
            clock.now += 301_000_000_000
            told = ask(server, path=f"{EVENTS}?watch=1&timeoutSeconds=1&resourceVersion={first}")
            gone = ask(server, path=f"{EVENTS}?watch=1&resourceVersion={int(first) - 1}")
        assert (second, "ERROR") == (told.body["object"]["metadata"]["resourceVersion"], gone.body["type"])

    def test_slow(self) -> None:
        """A watch that falls too far behind is cut, possibly within a line."""
        with APIServer(watch_buffer=50, event_ttl=None) as server, connected(server) as connection:
            create(server, "first")
            connection.request("GET", f"{EVENTS}?watch=1", headers=bearer(server))
            answer = connection.getresponse()
            answer.readline()  # events created before the first line would be initial events, not a backlog
            for number in range(400):
                server.create("v1", "events", {**event(f"pod.{number}"), "message": "x" * 40_000})
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
            with answer, pytest.raises(http.client.IncompleteRead):
                answer.read()

    def test_restore(self) -> None:
        """`restore` returns to a backup and cuts the watches."""
        with APIServer() as server, connected(server) as connection:
            made = create(server, "a").body
            backup = server.backup()
            create(server, "b")
            connection.request("GET", f"{EVENTS}?watch=1", headers=bearer(server))
            with connection.getresponse() as answer:
                answer.readline()
                server.restore(backup)
                with pytest.raises(http.client.IncompleteRead):
                    answer.read()
            listed = ask(server).body
        assert [item["metadata"]["name"] for item in listed["items"]] == ["a"]
        assert made["metadata"]["resourceVersion"] == listed["metadata"]["resourceVersion"]

    def test_client_goes(self, api_server: APIServer) -> None:
        """A watch ends when its client disconnects, even without changes."""
        threads = threading.active_count()
        with connected(api_server) as connection:
            connection.request("GET", f"{EVENTS}?watch=1", headers=bearer(api_server))
            connection.getresponse()
        deadline = time.monotonic() + 10
        while threading.active_count() > threads and time.monotonic() < deadline:
            threading.Event().wait(0.001)
        assert threads == threading.active_count()


class TestLife:
    """Start, stop and cleanup."""

    def test_loopback(self, api_server: APIServer) -> None:
        """The server listens on the loopback interface."""
        assert f"http://127.0.0.1:{api_server.port}" == api_server.url
        assert api_server._listener.host == "127.0.0.1"

    @pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
    def test_ipv6(self) -> None:
        """The server can listen on IPv6 loopback."""
        try:
            server = APIServer(host="::1").start()
        except OSError:
            pytest.skip("no IPv6 on this machine")
        with server, urllib.request.urlopen(f"{server.url}/readyz") as answer:
            assert answer.read() == b"ok"

    def test_building_starts_nothing(self) -> None:
        """A server that was not started has no thread and no port."""
        threads = threading.active_count()
        server = APIServer()
        assert (threading.active_count(), server.port) == (threads, 0)

    def test_stop_is_idempotent(self) -> None:
        """`stop` can be called twice and before `start`."""
        server = APIServer()
        server.stop()
        server.start()
        server.stop()
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            create(server)

    def test_start_again(self) -> None:
        """A stopped server can start again with its port and objects."""
        server = APIServer()
        with server:
            create(server)
            port = server.port
        with server:
            assert (server.port, create(server).status) == (port, 409)

    def test_port_taken(self, api_server: APIServer) -> None:
        """A port in use raises OSError, and no thread is left."""
        threads = threading.active_count()
        with pytest.raises(OSError, match="in use"):
            APIServer(port=api_server.port).start()
        assert threads == threading.active_count()

    def test_nothing_is_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`stop` ends idle connections, watches, hanging and delayed requests, and removes temporary files."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        threads = set(threading.enumerate())
        server = APIServer().start()
        server.kubeconfig()
        hang, delay = server.fail(Hang(), path="/hang"), server.fail(Delay(3600), path="/delay")
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connected(server)) for _ in range(4)]
            clients[1].request("GET", f"{EVENTS}?watch=1", headers=bearer(server))
            clients[2].request("GET", "/hang")
            clients[3].request("GET", "/delay")
            assert server.wait_for(lambda: len(server.requests) == 3 and hang.hits == delay.hits == 1)
            before = time.monotonic()
            server.stop()
            assert time.monotonic() - before < 30
        assert (set(), []) == (set(threading.enumerate()) - threads, list(tmp_path.iterdir()))

    def test_stop_while_sending(self) -> None:
        """`stop` ends an answer that the client does not read."""
        server = APIServer().start()
        server.fail(Garbage(b"x", size=1 << 30))
        with connected(server) as connection:
            connection.request("GET", "/readyz")
            assert server.wait_for(lambda: bool(server.requests and server.requests[0].status))
            server.stop()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("kevents-apiserver")]

    def test_stop_in_a_handshake(self) -> None:
        """`stop` ends an incomplete TLS handshake."""
        with APIServer() as server, socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"\x16\x03\x01")
            create(server)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("kevents-apiserver")]

    def test_many(self) -> None:
        """Many servers leave no threads."""
        threads = threading.active_count()
        for _ in range(50):
            with APIServer() as server:
                create(server)
        assert threads == threading.active_count()

    @pytest.mark.parametrize(
        "raw",
        [
            b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/1.1\r\nbad\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: " + b"1" * 5_000 + b"\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        ],
    )
    def test_no_http(self, api_server: APIServer, raw: bytes) -> None:
        """Bytes that are no HTTP only close their connection."""
        with socket.create_connection(("127.0.0.1", api_server.port), timeout=60) as client:
            client.sendall(raw)
            assert client.recv(100) == b""
        assert create(api_server).status == 201

    def test_a_mistake_of_ours(self) -> None:
        """An internal error closes the connection and is not mistaken for a disconnect."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            theirs = socket.create_connection(listening.getsockname(), timeout=10)
            ours, _ = listening.accept()
        connection = Connection(1, ours, ssl.create_default_context, Mock(side_effect=ValueError("ours")))
        with ours, theirs:
            theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(ValueError, match=r"^ours$"):
                connection.run()
            assert theirs.recv(100) == b""

    @pytest.mark.parametrize(
        ("raw", "fault"),
        [
            (b"{}", ""),
            (b"", "unexpected end of JSON input"),
            (b"[x]", "invalid character 'x' looking for beginning of value"),
            (b"{x}", "invalid character 'x' looking for beginning of object key string"),
            (b'"\xff"', "invalid UTF-8"),
        ],
    )
    def test_no_json(self, raw: bytes, fault: str) -> None:
        """The error of a malformed body has the server's text. Valid JSON has none."""
        assert fault == json_fault(raw)

    def test_chunked_body(self, api_server: APIServer) -> None:
        """A body can be chunked."""
        with connected(api_server) as connection:
            body = iter([json.dumps(event()).encode()[:10], json.dumps(event()).encode()[10:]])
            connection.request("POST", EVENTS, body, bearer(api_server), encode_chunked=True)
            assert connection.getresponse().status == 201

    @pytest.mark.parametrize("head", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
    def test_half_a_body(self, api_server: APIServer, head: bytes) -> None:
        """A request whose body is incomplete is ignored."""
        with socket.create_connection(("127.0.0.1", api_server.port), timeout=60) as client:
            client.sendall(b"POST /readyz HTTP/1.1\r\n" + head + b"\r\n\r\n9\r\n{")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b""
        assert api_server.requests == ()

    def test_body_that_waits(self, api_server: APIServer) -> None:
        """`Expect: 100-continue` is answered before the body is read."""
        body = json.dumps(event()).encode()
        head = f"POST {EVENTS} HTTP/1.1\r\nAuthorization: Bearer {api_server.token}\r\nContent-Length: {len(body)}\r\n"
        with socket.create_connection(("127.0.0.1", api_server.port), timeout=60) as client:
            client.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            with client.makefile("rb") as answers:
                assert [answers.readline(), answers.readline()] == [b"HTTP/1.1 100 Continue\r\n", b"\r\n"]
                client.sendall(body)
                assert answers.readline().startswith(b"HTTP/1.1 201 ")

    def test_parallel(self, api_server: APIServer) -> None:
        """Concurrent creates get different versions."""
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda number: create(api_server, f"e{number}").body, range(100)))
        assert len({body["metadata"]["resourceVersion"] for body in made}) == 100


class TestKubeconfig:
    """The kubeconfig file."""

    def test_content(self, api_server: APIServer) -> None:
        """The file has the address, certificate and token, and only its owner can read it."""
        path = api_server.kubeconfig()
        config = json.loads(path.read_text(encoding="utf-8"))
        assert api_server.tls_url == config["clusters"][0]["cluster"]["server"]
        assert {"token": api_server.token} == config["users"][0]["user"]
        assert path.stat().st_mode & 0o077 == 0

    def test_path(self, api_server: APIServer, tmp_path: Path) -> None:
        """A file at a given path is kept after `stop` and can have another token."""
        path = api_server.kubeconfig(tmp_path / "config", token="other")
        api_server.stop()
        assert json.loads(path.read_text(encoding="utf-8"))["users"][0]["user"] == {"token": "other"}

    def test_removed(self) -> None:
        """A temporary file is removed with the server."""
        with APIServer() as server:
            path = server.kubeconfig()
        assert not path.parent.exists()

    def test_official_client(self, api_server: APIServer) -> None:
        """The official client works with the file."""
        kubernetes = pytest.importorskip("kubernetes")
        configuration = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(str(api_server.kubeconfig()), client_configuration=configuration)
        create(api_server)
        with kubernetes.client.ApiClient(configuration) as client:
            api = kubernetes.client.CoreV1Api(client)
            listed = api.list_namespaced_event("default")
            patched = api.patch_namespaced_event("pod.1", "default", {"count": 2})
        assert ([item.metadata.name for item in listed.items], patched.count) == (["pod.1"], 2)

    @pytest.mark.parametrize(("url", "unchecked"), [("https://10.0.0.1", True), ("http://10.0.0.1", None)])
    def test_without_authority(self, url: str, unchecked: bool | None) -> None:  # noqa: FBT001 - a parameter of the test
        """Without a certificate authority, an https server's certificate is not verified."""
        cluster = json.loads(kubeconfig(url, "t"))["clusters"][0]["cluster"]
        assert {"insecure-skip-tls-verify": None, **cluster} == {"server": url, "insecure-skip-tls-verify": unchecked}


class TestTLS:
    """TLS on the same port."""

    def test_without_cryptography(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the extra, the server and its kubeconfig use plain HTTP. TLS raises an error that names the extra."""
        monkeypatch.setitem(sys.modules, "cryptography", None)
        _own_certificate.cache_clear()
        with APIServer() as server:
            for attribute in ("tls_url", "ca"):
                with pytest.raises(ImportError, match=r"pip install 'kevents\[testing\]'"):
                    getattr(server, attribute)
            config = json.loads(server.kubeconfig().read_text(encoding="utf-8"))
            assert config["clusters"][0]["cluster"] == {"server": server.url}
            assert create(server).status == 201

    def test_trusted(self, api_server: APIServer) -> None:
        """The certificate passes strict verification."""
        context = ssl.create_default_context(cadata=api_server.ca)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with urllib.request.urlopen(f"{api_server.tls_url}/readyz", context=context) as answer:
            assert answer.read() == b"ok"

    def test_not_trusted(self, api_server: APIServer) -> None:
        """A client that trusts another certificate cannot connect."""
        context = ssl.create_default_context(cadata=self_signed(["127.0.0.1"]).certificate)
        connection = http.client.HTTPSConnection("127.0.0.1", api_server.port, timeout=60, context=context)
        with contextlib.closing(connection), pytest.raises(ssl.SSLCertVerificationError):
            connection.request("GET", "/readyz")
        assert create(api_server).status == 201

    def test_shared_certificate(self, api_server: APIServer) -> None:
        """The servers of a process have one certificate for the same hosts."""
        with APIServer() as same, APIServer(host="localhost") as other:
            assert (same.ca == api_server.ca, other.ca == api_server.ca) == (True, False)

    def test_given_context(self) -> None:
        """A given TLS context is used."""
        ca, context = self_signed(["127.0.0.1"])
        with APIServer(ssl_context=context, ca=ca) as server:
            assert server.ca == ca
            trusting = ssl.create_default_context(cadata=ca)
            with urllib.request.urlopen(f"{server.tls_url}/readyz", context=trusting) as answer:
                assert answer.read() == b"ok"

    @pytest.mark.parametrize("after", [False, True])
    def test_reset(self, api_server: APIServer, after: bool) -> None:  # noqa: FBT001 - a parameter of the test
        """Faults work over TLS."""
        context = ssl.create_default_context(cadata=api_server.ca)
        connection = http.client.HTTPSConnection("127.0.0.1", api_server.port, timeout=60, context=context)
        with api_server.fail(Reset(after_processing=after)), pytest.raises(ConnectionError):
            send(connection, "POST", EVENTS, event(), token=api_server.token)
        assert after == len(api_server.events())


def test_a_watch_begins_before_its_answer(api_server: APIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The headers of a watch are sent after it is registered, so that each later change is one of the watch."""
    url = urlsplit(api_server.url)
    early = []
    register = api_server._store.watch
    with socket.create_connection((url.hostname, url.port)) as client:

        def watch(*args: Any) -> Any:
            early.append(bool(select.select([client], [], [], 0)[0]))
            return register(*args)

        monkeypatch.setattr(api_server._store, "watch", watch)
        request = f"GET /api/v1/events?watch=1 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {api_server.token}\r\n\r\n"
        client.sendall(request.encode())
        assert client.recv(12) == b"HTTP/1.1 200"
    assert early == [False]
