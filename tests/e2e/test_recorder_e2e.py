"""From a recorder's call to the output of kubectl, through a real API server, as an ordinary user."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest
from kubernetes import config

from kevents import (
    CoreV1EventSink,
    CorrelatorOptions,
    DropReason,
    EventBroadcaster,
    EventRecorder,
    EventSource,
    ObjectReference,
    SinkStatistics,
)
from kevents._model.wire import clean
from tests.support.real_server import LEFT_BY_SSL, RealServer, required_assets

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

MEBIBYTE: Final = 1 << 20
RULE: Final = 'apiGroups: [""], resources: ["events"], verbs: ["create", "patch"]'


class Namespace:
    """A separate namespace on a real server, and recorders that write to it.

    Attributes:
        name: The namespace.
    """

    def __init__(self, server: RealServer) -> None:
        self.server = server
        self.name = f"e2e-{secrets.token_hex(4)}"
        self.ok("POST", "/api/v1/namespaces", {"metadata": {"name": self.name}})

    def ok(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Send a request as the administrator. It must succeed."""
        response = self.server.request(method, path, body)
        assert response.status in {200, 201}, response.body
        made: dict[str, Any] = response.body
        return made

    def pod(self, name: str = "web-0") -> dict[str, Any]:
        """Create a pod and return its manifest."""
        spec = {"containers": [{"name": "main", "image": "i"}]}
        return self.ok("POST", f"/api/v1/namespaces/{self.name}/pods", {"metadata": {"name": name}, "spec": spec}) | {
            "kind": "Pod",
            "apiVersion": "v1",
        }

    def reference(self, name: str, **fields: str) -> ObjectReference:
        """Return a reference to an object that need not exist."""
        return ObjectReference(
            **{"kind": "Widget", "api_version": "example.com/v1", "namespace": self.name, "name": name, **fields}
        )

    @contextlib.contextmanager
    def recording(self, user: str = "recorder", **options: Any) -> Iterator[Session]:
        """A broadcaster that writes as an ordinary user."""
        with EventBroadcaster(**options) as broadcaster:
            path = str(self.server.kubeconfig(user))
            broadcaster.start_recording_to_sink(CoreV1EventSink(lambda: config.new_client_from_config(path)))
            yield Session(broadcaster)

    def events(self, namespace: str = "", **fields: str) -> list[dict[str, Any]]:
        """Return the events of `kubectl get events`, sorted by name."""
        selector = [f"--field-selector={','.join(f'{key}={value}' for key, value in fields.items())}"] if fields else []
        text = self.server.kubectl("-n", namespace or self.name, "get", "events", "-o", "json", *selector)
        items: list[dict[str, Any]] = json.loads(text)["items"]
        return sorted(items, key=lambda item: item["metadata"]["name"])

    def table(self, *arguments: str) -> list[list[str]]:
        """Return the rows that kubectl prints, without the header, as words."""
        return [line.split() for line in self.server.kubectl("-n", self.name, *arguments).splitlines()[1:]]


class Session:
    """A broadcaster with one sink, and its recorder."""

    def __init__(self, broadcaster: EventBroadcaster) -> None:
        self.broadcaster = broadcaster
        self.recorder: EventRecorder = broadcaster.new_recorder(EventSource("e2e-operator", "node-1"))

    def flush(self, timeout: float = 30) -> None:
        """Wait until all recorded events are delivered or dropped."""
        assert self.broadcaster.flush(timeout)

    @property
    def ledger(self) -> SinkStatistics:
        """The statistics of the sink."""
        ledger = self.broadcaster.statistics().watchers[0].sink
        assert ledger is not None
        return ledger


@pytest.fixture
def namespace(real_server: RealServer) -> Namespace:
    """A separate namespace."""
    return Namespace(real_server)


class Warnings(logging.Handler):
    """Collects the warnings of kevents. A sender logs shortly after the event's outcome is counted."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        """Store the message."""
        with self._changed:
            self.messages.append(record.getMessage())
            self._changed.notify_all()

    def first(self, number: int) -> list[str]:
        """Wait for `number` messages, check that there are no more, and return them."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.messages) >= number, 60)
            assert len(self.messages) == number, self.messages
            return self.messages


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    """The warnings of kevents."""
    handler, logger = Warnings(), logging.getLogger("kevents")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


# Correlation as shown by kubectl


def test_sixty_identical_events(namespace: Namespace) -> None:
    """Pitfall 49: without catch-ups, sixty identical events become one event with the count of client-go."""
    with namespace.recording(correlator_options=CorrelatorOptions(catch_up=False)) as session:
        for _ in range(60):
            session.recorder.event(namespace.reference("same"), "Warning", "BackOff", "the bucket is gone")
        session.flush()
        assert (session.ledger.accepted, session.ledger.spam_filtered, session.ledger.delivered) == (60, 35, 25)
    (event,) = namespace.events()
    assert (event["count"], event["message"]) == (25, "the bucket is gone")


def test_three_hundred_identical_events(namespace: Namespace) -> None:
    """Three hundred identical events end as `x300`, although 275 were held back."""
    pod = namespace.pod("again")
    with namespace.recording() as session:
        for _ in range(300):
            session.recorder.event(pod, "Warning", "BackOff", "the bucket is gone")
    assert (session.ledger.accepted, session.ledger.spam_filtered, session.ledger.delivered) == (300, 275, 25)
    (event,) = namespace.events()
    assert event["count"] == 300
    assert "(x300 over " in namespace.server.kubectl("-n", namespace.name, "describe", "pod", "again")


def test_sixty_messages(namespace: Namespace) -> None:
    """Pitfall 49: sixty messages about one object become nine events and a combined one, whose count catches up."""
    with namespace.recording() as session:
        for number in range(60):
            session.recorder.event(namespace.reference("many"), "Warning", "BackOff", f"message {number}")
        session.flush()
    columns = "custom-columns=COUNT:.count,MESSAGE:.message"
    rows = namespace.table("get", "events", "--sort-by=.metadata.name", "-o", columns)
    combined = ["51", "(combined", "from", "similar", "events):", "message", "59"]
    assert rows == [*(["1", "message", str(number)] for number in range(9)), combined]


def test_one_after_the_other(namespace: Namespace) -> None:
    """Events recorded one after the other cause one create and then patches, as in client-go."""
    with namespace.recording() as session:
        for _ in range(4):
            session.recorder.event(namespace.reference("slow"), "Normal", "Tick", "tick")
            session.flush()
        assert (session.ledger.created, session.ledger.patched) == (1, 3)
    assert [event["count"] for event in namespace.events()] == [4]


def test_describe(namespace: Namespace) -> None:
    """`kubectl describe` shows the event of a pod with its count and source."""
    pod = namespace.pod()
    with namespace.recording() as session:
        for _ in range(3):
            session.recorder.event(pod, "Warning", "BackupFailed", "the bucket is gone")
    row = namespace.server.kubectl("-n", namespace.name, "describe", "pod", "web-0").splitlines()[-1]
    assert row.split()[:2] == ["Warning", "BackupFailed"]
    assert "(x3 over" in row
    assert row.split()[-5:] == ["e2e-operator", "the", "bucket", "is", "gone"]


def test_get_and_events(namespace: Namespace) -> None:
    """`kubectl get events` and `kubectl events --for` print the object, the reason and the message."""
    pod = namespace.pod()
    with namespace.recording() as session:
        session.recorder.for_object(pod).normal("Started", "it runs")
    assert [row[1:] for row in namespace.table("get", "events")] == [["Normal", "Started", "pod/web-0", "it", "runs"]]
    rows = namespace.table("events", "--for=pod/web-0")
    assert [row[1:] for row in rows] == [["Normal", "Started", "Pod/web-0", "it", "runs"]]


# Users and namespaces


def test_forbidden(namespace: Namespace, warnings: Warnings) -> None:
    """Pitfall 43: without permission, events are rejected and counted. The first log line names the missing rule."""
    with namespace.recording("stranger") as session:
        for number in range(5):
            session.recorder.event(namespace.reference(f"n-{number}"), "Normal", "Reason", "m")
            session.flush()
            warnings.first(1)
        ledger = session.ledger
    assert (ledger.dropped, ledger.rejected_by_code, ledger.retried) == ({DropReason.REJECTED: 5}, {403: 5}, 0)
    first, last = warnings.first(2)
    assert 'User "stranger" cannot create resource "events"' in first
    assert first.endswith(f"the role lacks a rule, grant {RULE}")
    assert last.startswith("4 more like")


def test_patch_forbidden(namespace: Namespace, warnings: Warnings) -> None:
    """Pitfall 44: without the patch verb, each event is created once, and the log names the verb."""
    with namespace.recording("creator") as session:
        for _ in range(2):
            session.recorder.event(namespace.reference("n"), "Normal", "Reason", "m")
            session.flush()
        ledger = session.ledger
    assert (ledger.delivered, ledger.dropped, ledger.rejected_by_code) == (1, {DropReason.REJECTED: 1}, {403: 1})
    (line,) = warnings.first(1)
    assert 'cannot patch resource "events"' in line
    assert line.endswith(f"the patch verb may be missing, grant {RULE}")
    assert [event["count"] for event in namespace.events()] == [1]


def test_terminating_namespace(namespace: Namespace, warnings: Warnings) -> None:
    """Pitfall 45: an event in a terminating namespace is counted as rejected, without a warning."""
    namespace.ok("DELETE", f"/api/v1/namespaces/{namespace.name}")
    with namespace.recording() as session:
        session.recorder.event(namespace.reference("n"), "Normal", "Reason", "m")
        session.flush()
        assert (session.ledger.dropped, session.ledger.rejected_by_code) == ({DropReason.REJECTED: 1}, {403: 1})
    assert warnings.messages == []


def test_unknown_namespace(namespace: Namespace, warnings: Warnings) -> None:
    """Pitfall 41: an event for a missing namespace is rejected with one log line. The next one is delivered."""
    with namespace.recording() as session:
        session.recorder.event(namespace.reference("n", namespace="no-such"), "Normal", "Reason", "m")
        session.recorder.event(namespace.reference("n"), "Normal", "Reason", "m")
        session.flush()
        assert (session.ledger.delivered, session.ledger.rejected_by_code) == (1, {404: 1})
    (line,) = warnings.first(1)
    assert 'namespaces "no-such" not found' in line


def test_deleted_event(namespace: Namespace) -> None:
    """Pitfall 36: a deleted event is created again at its next occurrence, with its name and count."""
    with namespace.recording() as session:
        session.recorder.event(namespace.reference("n"), "Normal", "Reason", "m")
        session.flush()
        (before,) = namespace.events()
        namespace.server.kubectl("-n", namespace.name, "delete", "event", before["metadata"]["name"])
        session.recorder.event(namespace.reference("n"), "Normal", "Reason", "m")
        session.flush()
        assert (session.ledger.delivered, session.ledger.recreated) == (2, 1)
    (after,) = namespace.events()
    assert (after["metadata"]["name"], after["count"]) == (before["metadata"]["name"], 2)
    assert before["metadata"]["uid"] != after["metadata"]["uid"]


# Objects


def test_node(namespace: Namespace) -> None:
    """Pitfall 32: an event about a node is in the namespace default without a namespace in the reference."""
    name = f"node-{secrets.token_hex(4)}"
    node = namespace.ok("POST", "/api/v1/nodes", {"metadata": {"name": name}}) | {"kind": "Node", "apiVersion": "v1"}
    with namespace.recording() as session:
        session.recorder.event(node, "Warning", "Rebooted", "it was rebooted")
    (event,) = namespace.events("default", **{"involvedObject.name": name})
    assert event["involvedObject"].keys() == {"apiVersion", "kind", "name", "resourceVersion", "uid"}
    assert "it was rebooted" in namespace.server.kubectl("describe", "node", name)


def test_namespace(namespace: Namespace) -> None:
    """Pitfall 32: an event about a namespace is in the namespace default."""
    about = namespace.ok("GET", f"/api/v1/namespaces/{namespace.name}")
    with namespace.recording() as session:
        session.recorder.event(about, "Normal", "Labelled", "m")
    (event,) = namespace.events("default", **{"involvedObject.name": namespace.name})
    assert (event["metadata"]["namespace"], event["involvedObject"]["kind"]) == ("default", "Namespace")


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("fd00:10:233::103", "fd00-10-233-103-"),
        ("Rack.7:Slot_3", "rack.7-slot-3-"),
        ("a" * 253, "a" * 200),
        ("über/straße%20", "ber-stra-e-20-"),
        ("...", ""),
    ],
)
def test_names(namespace: Namespace, name: str, prefix: str) -> None:
    """Pitfall 25: events about an object whose name is no DNS name get a readable name, also combined events."""
    with namespace.recording() as session:
        for number in range(12):
            session.recorder.event(namespace.reference(name), "Normal", "Reason", f"message {number}")
        session.flush()
        assert session.ledger.dropped == {}
    events = namespace.events()
    assert (len(events), {event["involvedObject"]["name"] for event in events}) == (10, {name})
    assert [event["metadata"]["name"] for event in events if not event["metadata"]["name"].startswith(prefix)] == []


# Texts


@pytest.mark.parametrize("size", [MEBIBYTE, 2_000_000])
def test_long_messages(namespace: Namespace, size: int) -> None:
    """A message over 1 MiB is cut to 1 MiB with an ellipsis. One of 1 MiB is unchanged."""
    with namespace.recording() as session:
        session.recorder.event(namespace.reference("n"), "Normal", "Reason", "x" * size)
        session.flush()
        assert session.ledger.delivered == 1
    (event,) = namespace.events()
    ending = "..." if size > MEBIBYTE else "xxx"
    assert (len(event["message"]), event["message"][-3:]) == (MEBIBYTE, ending)


def test_long_message_patched(namespace: Namespace) -> None:
    """A repeated message of 2 MB is cut in the patch too."""
    with namespace.recording() as session:
        for _ in range(2):
            session.recorder.event(namespace.reference("n"), "Normal", "Reason", "x" * 2_000_000)
            session.flush()
        assert (session.ledger.created, session.ledger.patched) == (1, 1)
    (event,) = namespace.events()
    assert (event["count"], len(event["message"])) == (2, MEBIBYTE)


@pytest.mark.parametrize("character", ["é", "🔥", "\n\x00"], ids=["é", "emoji", "control characters"])
def test_long_messages_of_other_characters(namespace: Namespace, character: str) -> None:
    """A message of 2 MB in any characters is cut so that the server accepts it."""
    with namespace.recording() as session:
        session.recorder.event(namespace.reference("n"), "Normal", "Reason", character * (2_000_000 // len(character)))
        session.flush()
        assert session.ledger.dropped == {}
    assert [event["count"] for event in namespace.events()] == [1]


@pytest.mark.parametrize("reason", ["r" * (MEBIBYTE + 4096)], ids=["over 2 MiB together"])
def test_records_that_can_never_be_stored(namespace: Namespace, reason: str) -> None:
    """An event whose other fields make it too large is rejected instead of retried forever."""
    with namespace.recording() as session:
        session.recorder.event(namespace.reference("n"), "Normal", reason, "x" * MEBIBYTE)
        ended = session.broadcaster.flush(5)
        session.broadcaster.shutdown(0)
        assert (ended, session.ledger.dropped) == (True, {DropReason.REJECTED: 1})


def test_long_reason(namespace: Namespace) -> None:
    """Pitfall 13: a reason of 10,000 characters and an empty one are stored unchanged."""
    with namespace.recording() as session:
        session.recorder.event(namespace.reference("n"), "Normal", "R" * 10_000, "m")
        session.recorder.event(namespace.reference("n"), "Normal", "", "m")
        session.recorder.event(namespace.reference("n"), "Normal", "with spaces, and more", "m")
    assert sorted(event.get("reason", "") for event in namespace.events()) == [
        "",
        "R" * 10_000,
        "with spaces, and more",
    ]


@pytest.mark.parametrize("text", ["🔥 世界 é", "a\ud800b", "a\x00b", "one\ntwo\r\n", "100% of %s done %d", ""])
def test_texts(namespace: Namespace, text: str) -> None:
    """Pitfalls 8, 28: messages, annotations and labels arrive unchanged. Lone surrogates are replaced."""
    with namespace.recording() as session:
        session.recorder.event(
            namespace.reference("n"),
            "Normal",
            "Reason",
            text,
            annotations={"example.com/a": text},
            labels={"app": "web"},
        )
        session.flush()
        assert session.ledger.delivered == 1
    (event,) = namespace.events()
    assert event.get("message", "") == clean(text)
    assert event["metadata"]["annotations"] == {"example.com/a": clean(text)}
    assert event["metadata"]["labels"] == {"app": "web"}


def test_labels_select(namespace: Namespace) -> None:
    """`kubectl get events -l` finds an event by its label."""
    with namespace.recording() as session:
        session.recorder.event(namespace.reference("a"), "Normal", "Reason", "m", labels={"app": "a"})
        session.recorder.event(namespace.reference("b"), "Normal", "Reason", "m", labels={"app": "b"})
    assert [row[3:4] for row in namespace.table("get", "events", "-l", "app=b")] == [["widget/b"]]


# Outages


def own_server(event_ttl: str = "1h") -> RealServer:
    """Return a separate server. The test is skipped if its programs are missing."""
    required_assets()
    return RealServer(event_ttl=event_ttl)


@pytest.mark.filterwarnings(LEFT_BY_SSL)
def test_restart() -> None:
    """Pitfalls 48, 83: the server is killed and restarted while events are recorded, and no event is lost."""
    with own_server() as server:
        namespace = Namespace(server)
        options = CorrelatorOptions(burst_size=None, max_events=None)
        with namespace.recording(correlator_options=options) as session, steadily(session, namespace) as recorded:
            assert recorded.wait_for(100)
            server.kill()
            assert recorded.wait_for(100)
            server.start_again()
            assert recorded.wait_for(100)
            recorded.stop()
            session.flush(60)
            ledger = session.ledger
        assert (ledger.delivered, ledger.dropped) == (recorded.count, {})
        assert sum(event["count"] for event in namespace.events()) == recorded.count


class Steady:
    """A thread that records a few hundred events a second about twenty objects."""

    def __init__(self, session: Session, namespace: Namespace) -> None:
        self.count = 0
        self._ended = threading.Event()
        self._changed = threading.Condition()
        self._session = session
        self._namespace = namespace
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.wait(0.003):
            about = self._namespace.reference(f"n-{self.count % 20}")
            self._session.recorder.event(about, "Normal", "Tick", f"message {self.count % 3}")
            with self._changed:
                self.count += 1
                self._changed.notify_all()

    def wait_for(self, more: int) -> bool:
        """Wait until `more` further events are recorded."""
        with self._changed:
            goal = self.count + more
            return self._changed.wait_for(lambda: self.count >= goal, 60)

    def stop(self) -> None:
        """Stop recording."""
        self._ended.set()
        self._thread.join()

    def start(self) -> None:
        """Start recording."""
        self._thread.start()


@contextlib.contextmanager
def steadily(session: Session, namespace: Namespace) -> Iterator[Steady]:
    """Record steadily for the block."""
    steady = Steady(session, namespace)
    steady.start()
    try:
        yield steady
    finally:
        steady.stop()


@pytest.mark.slow
def test_expired_event() -> None:
    """Pitfall 36: an event that expired on the server is created again with its name and count."""
    with own_server(event_ttl="2s") as server:
        namespace = Namespace(server)
        with namespace.recording() as session:
            for count in (1, 2):
                session.recorder.event(namespace.reference("n"), "Normal", "Reason", "m")
                session.flush()
                assert [event["count"] for event in namespace.events()] == [count]
                wait_until_forgotten(namespace)
            assert (session.ledger.delivered, session.ledger.recreated) == (2, 1)


def wait_until_forgotten(namespace: Namespace) -> None:
    """Wait until the server has expired all events of the namespace."""
    namespace.server.kubectl("-n", namespace.name, "wait", "--for=delete", "events", "--all", "--timeout=60s")
    assert namespace.events() == []
