"""The story of the demonstration: six stages of a failing backup, each with the events that must then be stored.

It plays against an embedded API server, or that of a kubeconfig.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Final, cast

from kevents._broadcast.recorder import Recorder
from kevents._cli.api import Api, ClusterError, MissingError, find
from kevents._clients.sync import CoreV1EventSink
from kevents._correlation.options import CorrelatorOptions
from kevents._model.objects import AnyEventType
from kevents.exceptions import StatusError
from kevents.testing import APIServer, FakeClock

NAMESPACE: Final = "default"
_EVENTS: Final = f"/api/v1/namespaces/{NAMESPACE}/events"
_RULE: Final = 'apiGroups: [""], resources: ["events"], verbs: ["create", "patch", "list", "delete"]'
_PERMISSION: Final = f"its user lacks a permission: bind a role with the rule {_RULE} in the namespace {NAMESPACE}"

_IDENTICAL, _SIMILAR, _STORM, _SHARDS, _ROUNDS = 8, 14, 200, 4, 6  # events of the stages
_OUTAGE: Final = 2.0  # seconds
_BACKUP: Final = "example.com/v1/Backup/nightly"
_DEFAULTS: Final = CorrelatorOptions()  # client-go's
_MOST_DIFFERENT: Final = (_DEFAULTS.max_events or 0) - 1
_NEXT_TOKEN: Final = 1 / _DEFAULTS.qps  # seconds

BURST: Final = _DEFAULTS.burst_size or 0
FILTERED: Final = _STORM - BURST
AGGREGATED: Final = _SIMILAR - _MOST_DIFFERENT
REFUSED: Final = {"invalid_type": 1, "invalid_reference": 1}

Counts = tuple[int, ...]
Key = tuple[str, str]


class Cluster:
    """A sink that writes to an API server, with the requests and the outage of the story.

    Without an embedded server, names get a random suffix, and the outage is made in this process.
    """

    def __init__(self, kubeconfig: str, server: APIServer | None = None) -> None:
        endpoint = find(kubeconfig, "")
        self.suffix = "" if server else f"-{secrets.token_hex(2)}"
        self.component = f"backup-operator{self.suffix}"
        self._api, self._sink = Api(endpoint, kubeconfig, _PERMISSION), CoreV1EventSink(endpoint)
        self.title = f"the API server at {self._api.host}, namespace {NAMESPACE}"
        self.outage = (
            "A real API server is not stopped for a demonstration: the connection is cut within this process. For {0} "
            "each write meets a 503, for another {0} a refused connection."
        )
        if server:
            self.title = "an embedded API server"
            self.outage = "For {0} it answers 503, for another {0} it refuses connections."
        self._server = server
        self._error: Exception | None = None  # during the outage
        self._events: list[dict[str, Any]] = []  # as last listed
        self._check_permissions()

    def _check_permissions(self) -> None:
        name = f"kevents-demo{self.suffix}"
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "involvedObject": {"namespace": NAMESPACE}}
        self.events()
        self._api.request("create", f"{_EVENTS}?dryRun=All", body)
        with suppress(MissingError):
            self._api.request("patch", f"{_EVENTS}/{name}?dryRun=All", {"count": 2})
        self.delete(name)

    def create(self, namespace: str, body: dict[str, Any], /) -> None:
        if self._error and not self._server:
            raise self._error
        self._sink.create(namespace, body)

    def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
        if self._error and not self._server:
            raise self._error
        self._sink.patch(namespace, name, patch)

    def events(self) -> list[dict[str, Any]]:
        """Return the stored events; during the outage, those stored before it."""
        if self._error is None:
            answer = self._api.request("list", f"{_EVENTS}?fieldSelector=source%3D{self.component}")
            self._events = answer["items"]
        return self._events

    def delete(self, name: str) -> None:
        """Delete an event, if it exists."""
        with suppress(MissingError):
            self._api.request("delete", f"{_EVENTS}/{name}")

    def clean_up(self) -> None:
        """Delete the events of the story."""
        try:
            for event in self.events():
                self.delete(event["metadata"]["name"])
        except ClusterError as error:
            left = f"events of {self.component} are left in the namespace {NAMESPACE}; they expire by themselves"
            raise ClusterError(f"{error}; {left}") from None

    def answer_503(self) -> None:
        """Begin the outage."""
        self._error = StatusError(503, "ServiceUnavailable", "scripted by the demonstration")
        if self._server:
            self._server.fail(503)

    def refuse_connections(self) -> None:
        """Make the outage worse."""
        self._error = ConnectionRefusedError("scripted by the demonstration")
        if self._server:
            self._server.stop_listening()

    def recover(self) -> None:
        """End the outage, if there is one."""
        if self._server and self._error:
            self._server.clear_faults()
            self._server.listen_again()
        self._error = None


@dataclass
class Scene:
    """The operator and its cluster; counts and times the calls of the recorder."""

    cluster: Cluster
    recorder: Recorder
    clock: FakeClock
    recorded: int = 0
    slowest: float = 0.0  # seconds

    def record(self, about: str, eventtype: str, reason: str, message: str) -> None:
        """Record an event about an object, written ``apiVersion/Kind/name``. Empty for no object."""
        *group, kind, name = f"/{about}".split("/")
        metadata = {"name": f"{name}{self.cluster.suffix}", "namespace": NAMESPACE}
        manifest = {"apiVersion": "/".join(group[1:]), "kind": kind, "metadata": metadata} if about else None
        before = perf_counter()
        self.recorder.event(manifest, cast("AnyEventType", eventtype), reason, message)
        self.slowest = max(self.slowest, perf_counter() - before)
        self.recorded += 1


@dataclass(frozen=True)
class Stage:
    """One stage: what happens, its result, and how kevents and client-go handle it."""

    title: str
    result: str
    kevents: str
    play: Callable[[Scene], Iterator[float]]  # yields the pauses to make, in seconds
    expected: Mapping[Key, Counts]  # counts of stored events by object and reason
    client_go: str = "the same."


_CONNECT_FAILED: Final = (_BACKUP, "Warning", "ConnectFailed", "dial tcp 10.0.4.7:9000: connection refused")
_BACK_OFF: Final = ("v1/Pod/uploader-1", "Warning", "BackOff", "restarting the failed container")


def _identical(scene: Scene) -> Iterator[float]:
    for _ in range(_IDENTICAL):
        scene.record(*_CONNECT_FAILED)
        yield 0.15


def _similar(scene: Scene) -> Iterator[float]:
    for part in range(1, _SIMILAR + 1):
        scene.record("v1/Pod/uploader-0", "Warning", "UploadFailed", f"part {part:02d}: checksum mismatch")
        yield 0.1


def _storm(scene: Scene) -> Iterator[float]:
    for _ in range(_STORM):
        scene.record(*_BACK_OFF)
    yield 1.2
    scene.clock.advance(_NEXT_TOKEN + 1)
    scene.record(*_BACK_OFF)
    yield 0.5


def _deleted(scene: Scene) -> Iterator[float]:
    for event in scene.cluster.events():
        if event["reason"] == "ConnectFailed":
            scene.cluster.delete(event["metadata"]["name"])
    yield 0.8
    scene.record(*_CONNECT_FAILED)
    yield 0.5


def _outage(scene: Scene) -> Iterator[float]:
    scene.cluster.answer_503()
    for number in range(_ROUNDS):
        if number == _ROUNDS // 2:
            scene.cluster.refuse_connections()
        for shard in range(_SHARDS):
            scene.record(f"batch/v1/Job/shard-{shard}", "Warning", "ShardFailed", "no copy within 30 s")
            yield _OUTAGE / _ROUNDS / _SHARDS
    scene.cluster.recover()


def _mistakes(scene: Scene) -> Iterator[float]:
    scene.record(_BACKUP, "Info", "BackupFailed", "an event's type is Normal or Warning")
    scene.record("", "Warning", "BackupFailed", "an event without an object")
    scene.record(_BACKUP, "Normal", "Finished", "the store said: \x1b[31;5m4 shards missing\x1b[0m\r\n")
    yield 0.5


_STAGES: Final = (
    Stage(
        f"The same event, {_IDENTICAL} times",
        f"1 object, count {_IDENTICAL}",
        "A repeated event is not written again: the count of the stored one grows.",
        _identical,
        {("backup/nightly", "ConnectFailed"): (_IDENTICAL,)},
    ),
    Stage(
        f"{_SIMILAR} with different messages",
        f"{_MOST_DIFFERENT} objects, and 1 combined, count {AGGREGATED}",
        f"From the {_MOST_DIFFERENT + 1}th different message about one object and reason on, similar events are "
        "combined into one.",
        _similar,
        {("pod/uploader-0", "UploadFailed"): (1,) * _MOST_DIFFERENT + (AGGREGATED,)},
    ),
    Stage(
        f"A storm: {_STORM} at once",
        f"{FILTERED} filtered; the count is {_STORM + 1}",
        f"One object may have {BURST} events at once, and one more every {_NEXT_TOKEN / 60:.0f} minutes. Events beyond "
        "that are only counted, and their count is written later. Then these minutes pass (the demonstration puts "
        "kevents' clock forward), and the next event is written, with the whole count.",
        _storm,
        {("pod/uploader-1", "BackOff"): (_STORM + 1,)},
        "writes no count later, and logs nothing about the events it leaves out.",
    ),
    Stage(
        "An event is deleted",
        f"recreated, with count {_IDENTICAL + 1}",
        "The next repetition patches the count and meets 404: the event is created again, and its count goes on.",
        _deleted,
        {("backup/nightly", "ConnectFailed"): (_IDENTICAL + 1,)},
    ),
    Stage(
        "The API server fails",
        f"{_SHARDS * _ROUNDS} waited for it, none lost",
        f"{{outage}} Meanwhile {_SHARDS * _ROUNDS} events are recorded, and no call blocks. They wait in the work "
        "queue, one write for each object; single probes test whether the server is back.",
        _outage,
        {(f"job/shard-{shard}", "ShardFailed"): (_ROUNDS,) for shard in range(_SHARDS)},
        "a 503 without Retry-After is final, and the event is lost; an event being retried holds up all others.",
    ),
    Stage(
        "Mistakes",
        "2 refused and counted, nothing raised",
        'An event of the type "Info", and one without an object: the operator goes on, and both are counted and '
        "logged. A message with terminal escapes is stored unchanged, and shown escaped.",
        _mistakes,
        {("backup/nightly", "Finished"): (1,)},
        "logs both, counts neither.",
    ),
)


def stages(suffix: str, outage: str, scale: float) -> list[Stage]:
    """The stages, with a suffix for the objects' names, and a text on how the outage is made (``{0}``: half of it)."""
    how = outage.format(f"{_OUTAGE * scale / 2:.2g} s")
    return [
        replace(
            stage,
            kevents=stage.kevents.replace("{outage}", how),
            expected={(f"{about}{suffix}", reason): counts for (about, reason), counts in stage.expected.items()},
        )
        for stage in _STAGES
    ]


def counts_of(events: list[dict[str, Any]]) -> dict[Key, Counts]:
    """The sorted counts of events, by object and reason."""
    found = sorted((object_of(event), event["reason"], event["count"]) for event in events)
    return {key: tuple(count for *other, count in found if (*other,) == key) for key in {each[:2] for each in found}}


def object_of(event: Mapping[str, Any]) -> str:
    """The object of an event, as kubectl writes it: ``pod/web-0``."""
    involved = event["involvedObject"]
    return f"{involved['kind'].lower()}/{involved['name']}"
