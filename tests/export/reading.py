"""A stream that is read in a separate thread, and an embedded server as its source."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any, Final

import kubernetes.client
import kubernetes.config
from typing_extensions import Self

from kevents.export import Chunk, ClusterEventSource, EventStream, Position, Record
from kevents.testing import APIServer

PATIENCE: Final = 60.0
QUICK: Final = (0.001, 0.01)
"""Retry delays that take almost no time."""


def client(server: APIServer, *, tls: bool = False, token: str = "") -> Any:
    """Return a client of the embedded server."""
    configuration = kubernetes.client.Configuration(host=server.url)
    configuration.retries = False
    if tls:
        kubernetes.config.load_kube_config(str(server.kubeconfig()), client_configuration=configuration)
        return kubernetes.client.ApiClient(configuration)
    configuration.api_key = {"authorization": token or server.token}
    configuration.api_key_prefix = {"authorization": "Bearer"}
    return kubernetes.client.ApiClient(configuration)


def source(server: APIServer, *, tls: bool = False, token: str = "", **options: Any) -> ClusterEventSource:
    """Return a source that reads the embedded server with short delays."""
    return ClusterEventSource(client(server, tls=tls, token=token), **{"retry": QUICK, "patience": 0.1, **options})


def event(name: str, namespace: str = "default", **fields: Any) -> dict[str, Any]:
    """Return the body of an event."""
    involved = {"kind": "Pod", "namespace": namespace, "name": "web-0"}
    return {"metadata": {"name": name, "namespace": namespace}, "involvedObject": involved, "count": 1, **fields}


def put(server: APIServer, *names: str, namespace: str = "default", **fields: Any) -> list[str]:
    """Store events and return the ids of their revisions."""
    made = [server.create("v1", "events", event(name, namespace, **fields))["metadata"] for name in names]
    return [f"{metadata['uid']}:{metadata['resourceVersion']}" for metadata in made]


class Reading:
    """Reads a stream in a thread until the `with` block ends.

    Attributes:
        chunks: The chunks received so far.
    """

    def __init__(self, stream: EventStream, after: Position | None = None) -> None:
        self.stream = stream
        self.chunks: list[Chunk] = []
        self.error: BaseException | None = None
        self._after = after
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)

    @property
    def records(self) -> list[Record]:
        """The records received so far."""
        return [record for chunk in list(self.chunks) for record in chunk.records]

    @property
    def ids(self) -> list[str]:
        """The ids of the records."""
        return [record.id for record in self.records]

    @property
    def deltas(self) -> list[Any]:
        """The count deltas of the records."""
        return [record.body["kevents"].get("countDelta") for record in self.records]

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """The gaps among the records."""
        return [own["gap"] for own in (record.body["kevents"] for record in self.records) if "gap" in own]

    @property
    def position(self) -> Position:
        """The last position."""
        return self.chunks[-1].position

    def wait(self, holds: Callable[[], object]) -> None:
        """Wait until a condition holds. It is checked after each chunk."""
        deadline = monotonic() + PATIENCE
        with self._more:
            while not holds():
                if self.error is not None:
                    raise self.error
                if not self._more.wait(min(0.05, max(deadline - monotonic(), 0))) and monotonic() > deadline:
                    raise AssertionError(f"timed out with {len(self.records)} records, position {self.chunks[-1:]}")

    def wait_for(self, number: int) -> None:
        """Wait until `number` records have arrived."""
        self.wait(lambda: len(self.records) >= number)

    def wait_listed(self) -> None:
        """Wait until the first list is complete, so that a watch follows."""
        self.wait(lambda: self.chunks and not self.chunks[-1].records)

    def __enter__(self) -> Self:
        """Start reading."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading, which must not take long, and check the invariants."""
        self.stream.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        if kind is None:
            check(self.chunks)

    def _run(self) -> None:
        try:
            for chunk in self.stream.read(self._after):
                with self._more:
                    self.chunks.append(chunk)
                    self._more.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            self.error = error


def check(chunks: list[Chunk]) -> None:
    """Check that records and positions grow, and that a position covers its records."""
    last = -1
    for chunk in chunks:
        for record in chunk.records:
            assert last < record.rv
            last = record.rv
        assert last <= chunk.position.rv
        last = chunk.position.rv
