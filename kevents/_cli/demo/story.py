"""The story of the demonstration: a backup that fails in every way, and what the API server must hold after each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

from kevents._correlation.options import CorrelatorOptions

if TYPE_CHECKING:
    from kevents._broadcast.recorder import Recorder
    from kevents.testing import FakeClock

# From the design: the defaults of the options, which are client-go's.
_DEFAULTS: Final = CorrelatorOptions()
BUDGET: Final = _DEFAULTS.burst_size or 0
_MOST_DIFFERENT: Final = (_DEFAULTS.max_events or 0) - 1
_NEXT_TOKEN: Final = 1 / _DEFAULTS.qps

_IDENTICAL: Final = 8
_SIMILAR: Final = 14
_STORM: Final = 200
_SHARDS: Final = 4
_ROUNDS: Final = 6

_OUTAGE: Final = 2.0

Counts = tuple[int, ...]
Key = tuple[str, str]


class Cluster(Protocol):
    """What the story does to the API server."""

    suffix: str
    namespace: str

    def events(self) -> list[dict[str, Any]]:
        """Give the story's events, as the server holds them."""

    def delete(self, name: str) -> None:
        """Delete an event, as somebody with kubectl might."""

    def answer_503(self) -> None:
        """Begin the outage."""

    def vanish(self) -> None:
        """Refuse connections."""

    def come_back(self) -> None:
        """End the outage."""


@dataclass
class Scene:
    """What the stages play with, and what is to be remembered of it.

    Attributes:
        cluster: Where the events go.
        recorder: Through which.
        clock: The correlator's.
        recorded: How many events were recorded.
        slowest: The longest time that one call of the recorder took, in seconds.
    """

    cluster: Cluster
    recorder: Recorder
    clock: FakeClock
    recorded: int = 0
    slowest: float = 0.0

    def about(self, kind: str, name: str, api_version: str) -> dict[str, Any]:
        """The manifest of one of the story's objects."""
        metadata = {"name": f"{name}{self.cluster.suffix}", "namespace": self.cluster.namespace}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata}

    @property
    def backup(self) -> dict[str, Any]:
        """The custom resource that the pretend operator looks after."""
        return self.about("Backup", "nightly", "example.com/v1")

    def uploader(self, number: int) -> dict[str, Any]:
        """One of its pods."""
        return self.about("Pod", f"uploader-{number}", "v1")

    def shard(self, number: int) -> dict[str, Any]:
        """One of its jobs."""
        return self.about("Job", f"shard-{number}", "batch/v1")

    def record(self, about: object, eventtype: str, reason: str, message: str) -> None:
        """Record an event, and look at the clock."""
        before = perf_counter()
        self.recorder.event(about, eventtype, reason, message)
        self.slowest = max(self.slowest, perf_counter() - before)
        self.recorded += 1


@dataclass(frozen=True)
class Stage:
    """One chapter.

    Attributes:
        title: What happens.
        result: What must come of it, in a few words.
        says: What kevents does about it, for people who see it for the first time.
        client_go: What client-go does.
        play: Does it; gives the pauses to make, in seconds.
        expected: The counts of the objects that the server must hold afterwards, by object and reason.
    """

    title: str
    result: str
    says: str
    client_go: str
    play: Callable[[Scene], Iterator[float]]
    expected: Mapping[Key, Counts] = field(default_factory=dict)


def _identical(scene: Scene) -> Iterator[float]:
    for _ in range(_IDENTICAL):
        scene.record(scene.backup, "Warning", "ConnectFailed", "dial tcp 10.0.4.7:9000: connection refused")
        yield 0.15


def _similar(scene: Scene) -> Iterator[float]:
    for part in range(1, _SIMILAR + 1):
        scene.record(scene.uploader(0), "Warning", "UploadFailed", f"part {part:02d}: checksum mismatch")
        yield 0.1


def _storm(scene: Scene) -> Iterator[float]:
    for _ in range(_STORM):
        scene.record(scene.uploader(1), "Warning", "BackOff", "restarting the failed container")
    yield 1.2
    scene.clock.advance(_NEXT_TOKEN + 1)
    scene.record(scene.uploader(1), "Warning", "BackOff", "restarting the failed container")
    yield 0.5


def _deleted(scene: Scene) -> Iterator[float]:
    for event in scene.cluster.events():
        if event["reason"] == "ConnectFailed":
            scene.cluster.delete(event["metadata"]["name"])
    yield 0.8
    scene.record(scene.backup, "Warning", "ConnectFailed", "dial tcp 10.0.4.7:9000: connection refused")
    yield 0.5


def _outage(scene: Scene) -> Iterator[float]:
    scene.cluster.answer_503()
    for number in range(_ROUNDS):
        if number == _ROUNDS // 2:
            scene.cluster.vanish()
        for shard in range(_SHARDS):
            scene.record(scene.shard(shard), "Warning", "ShardFailed", "no copy within 30 s")
            yield _OUTAGE / _ROUNDS / _SHARDS
    scene.cluster.come_back()


def _mistakes(scene: Scene) -> Iterator[float]:
    scene.record(scene.backup, "Error", "BackupFailed", "there are two types of events, and this is neither")
    scene.record(None, "Warning", "BackupFailed", "about nothing at all")
    scene.record(scene.backup, "Normal", "Finished", "the store said: \x1b[31;5m4 shards missing\x1b[0m\r\n")
    yield 0.5


def stages(suffix: str, outage: str, scale: float) -> tuple[Stage, ...]:
    """The stages of the story.

    Args:
        suffix: Of the objects' names.
        outage: How the outage comes about on this cluster, with a place for the seconds that each half of it takes.
        scale: How much longer than usual it takes.
    """
    nightly = f"backup/nightly{suffix}"
    return (
        _of_identical(nightly),
        _of_similar(f"pod/uploader-0{suffix}"),
        _of_a_storm(f"pod/uploader-1{suffix}"),
        _of_a_deletion(nightly),
        _of_an_outage(suffix, outage.format(f"{_OUTAGE * scale / 2:.2g} s")),
        _of_mistakes(nightly),
    )


def _of_identical(nightly: str) -> Stage:
    return Stage(
        f"The same event, {_IDENTICAL} times",
        f"1 object, count {_IDENTICAL}",
        "An event that happened before is not written again: the count of the one that is there grows.",
        "the same.",
        _identical,
        {(nightly, "ConnectFailed"): (_IDENTICAL,)},
    )


def _of_similar(uploader: str) -> Stage:
    combined = _SIMILAR - _MOST_DIFFERENT
    return Stage(
        f"{_SIMILAR} that differ in their message",
        f"{_MOST_DIFFERENT} objects, and 1 combined, count {combined}",
        f"From the {_MOST_DIFFERENT + 1}th different message about one object and reason on, similar events are "
        "combined into one.",
        "the same.",
        _similar,
        {(uploader, "UploadFailed"): (1,) * _MOST_DIFFERENT + (combined,)},
    )


def _of_a_storm(uploader: str) -> Stage:
    return Stage(
        f"A storm: {_STORM} at once",
        f"{_STORM - BUDGET} filtered; the count says {_STORM + 1}",
        f"One object has a budget of {BUDGET} events, and gets one more every {_NEXT_TOKEN / 60:.0f} minutes. What "
        "is over it is not written, but counted. Then those minutes pass (the demonstration puts kevents' clock "
        "forward), and the next event carries the whole count.",
        "the same, but it neither counts nor logs what it leaves out.",
        _storm,
        {(uploader, "BackOff"): (_STORM + 1,)},
    )


def _of_a_deletion(nightly: str) -> Stage:
    return Stage(
        "Somebody deletes an event",
        f"made anew, with count {_IDENTICAL + 1}",
        "The next time it happens, the patch of its count meets 404: it is created again, and its count goes on.",
        "the same.",
        _deleted,
        {(nightly, "ConnectFailed"): (_IDENTICAL + 1,)},
    )


def _of_an_outage(suffix: str, outage: str) -> Stage:
    return Stage(
        "The API server fails",
        f"{_SHARDS * _ROUNDS} waited for it, none lost",
        f"{outage} Meanwhile {_SHARDS * _ROUNDS} events are recorded, and no call waits. They wait in "
        "the work queue, those about one object as one write; single probes ask whether the server is back.",
        "a 503 that names no time to come back is final, and the event is lost; while one event is being retried, "
        "all behind it wait.",
        _outage,
        {(f"job/shard-{shard}{suffix}", "ShardFailed"): (_ROUNDS,) for shard in range(_SHARDS)},
    )


def _of_mistakes(nightly: str) -> Stage:
    return Stage(
        "Mistakes",
        "2 refused and counted, nothing raised",
        'An event of the type "Error", and one about no object: the operator goes on, and both are counted and '
        "logged. A message with terminal escapes in it is stored as it is, and shown escaped.",
        "logs both, counts neither.",
        _mistakes,
        {(nightly, "Finished"): (1,)},
    )


FILTERED: Final = _STORM - BUDGET
AGGREGATED: Final = _SIMILAR - _MOST_DIFFERENT
REFUSED: Final = {"invalid_type": 1, "invalid_reference": 1}


def counts_of(events: list[dict[str, Any]]) -> dict[Key, Counts]:
    """The counts of events by object and reason, sorted."""
    found: dict[Key, list[int]] = {}
    for event in events:
        found.setdefault((object_of(event), event["reason"]), []).append(event["count"])
    return {key: tuple(sorted(counts)) for key, counts in found.items()}


def object_of(event: Mapping[str, Any]) -> str:
    """Which object an event is about, as kubectl writes it."""
    involved = event["involvedObject"]
    return f"{involved['kind'].lower()}/{involved['name']}"
