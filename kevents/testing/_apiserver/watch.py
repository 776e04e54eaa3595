"""Watches: answers that go on, a line for every change."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.access import is_true
from kevents.testing._apiserver.http import Stream, dump
from kevents.testing._apiserver.options import check_list
from kevents.testing._apiserver.selectors import selector
from kevents.testing._apiserver.shapes import render_object
from kevents.testing._apiserver.status import APIError, bad_request, status_body
from kevents.testing._apiserver.storage import CompactedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from kevents.testing._apiserver.calls import Call
    from kevents.testing._apiserver.shapes import Shape
    from kevents.testing._apiserver.storage import Change, Store, Watcher

__all__ = ["Watches"]

Object = dict[str, Any]

_AT_ONCE: Final = 64
"""Lines that go out together when they wait together; each is a chunk of its own all the same."""


@dataclass(eq=False, slots=True)
class _Bell:
    """A pair of sockets: ringing one wakes the thread that selects on the other."""

    ringer: socket.socket
    heard: socket.socket

    def ring(self) -> None:
        """Wake; once is enough, so a full buffer does not matter."""
        with contextlib.suppress(OSError):
            self.ringer.send(b".")

    def hush(self) -> None:
        """Forget that it rang."""
        with contextlib.suppress(BlockingIOError):
            while self.heard.recv(4096):
                pass


class Watches:
    """The watches of a server.

    Args:
        store: What they watch.
        gone: How a watch from a version that is forgotten is answered: with an `event` of type ERROR, as etcd's history
            makes it; with the `status` 410, as caches do; or with an `empty` answer, as some proxies leave of it.
    """

    def __init__(self, store: Store, gone: str = "event") -> None:
        self._store = store
        self.gone = gone
        self._lock = threading.Lock()
        self._bells: set[_Bell] = set()
        self._closed = False

    def open(self) -> None:
        """Let watches go on."""
        with self._lock:
            self._closed = False

    def close(self) -> None:
        """End all watches."""
        with self._lock:
            self._closed = True
            for bell in self._bells:
                bell.ring()

    def stream(self, call: Call, shape: Shape, client: socket.socket) -> Stream:
        """Give the answer to a watch.

        Args:
            call: The request.
            shape: The shape of the objects.
            client: The connection, which ends the watch when it is closed.

        Raises:
            APIError: 400 for a selector that cannot be understood, 500 (as the real server) for such a version, 410
                for one that is forgotten, if that is how it is told.
        """
        selects = selector(call.kind, call.query.get("fieldSelector", ""), call.query.get("labelSelector", ""))
        check_list(call.query, watch=True)
        since = self._since(call.query)
        seconds = _seconds(call.query.get("timeoutSeconds", ""))
        deadline = time.monotonic() + seconds if seconds else None
        if self.gone == "status" and since is not None and self._store.is_compacted(since):
            raise APIError(410, "Expired", f"too old resource version: {since}")
        lines = _Lines(call, shape, selects, self._store.clock)

        def cut() -> None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(client, socket.SHUT_RDWR)

        def run(send: Callable[[Iterable[bytes]], None]) -> None:
            with self._bell() as bell:
                try:
                    watcher = self._store.watch(call.kind.bucket, call.namespace, since, bell.ring, cut)
                except CompactedError:
                    if self.gone != "empty":
                        send((dump({"type": "ERROR", "object": _gone()}),))
                    return
                try:
                    if is_true(call.query, "sendInitialEvents") and is_true(call.query, "allowWatchBookmarks"):
                        send(self._first(watcher, lines))
                    self._follow(watcher, bell, client, deadline, lambda found: send(lines.of(found)))
                finally:
                    self._store.unwatch(watcher)

        return Stream(run)

    def _since(self, query: Mapping[str, str]) -> int | None:
        wanted = query.get("resourceVersion", "")
        if "sendInitialEvents" not in query:
            return None if wanted in {"", "0"} else _version(wanted)
        if is_true(query, "sendInitialEvents"):
            return None
        return self._store.version if wanted in {"", "0"} else _version(wanted)

    def _first(self, watcher: Watcher, lines: _Lines) -> list[bytes]:
        with self._store.lock:
            return [*lines.of(self._store.take(watcher)), lines.end(self._store.version)]

    def _follow(
        self,
        watcher: Watcher,
        bell: _Bell,
        client: socket.socket,
        deadline: float | None,
        tell: Callable[[list[Change]], None],
    ) -> None:
        with selectors.DefaultSelector() as ears:
            ears.register(client, selectors.EVENT_READ)
            ears.register(bell.heard, selectors.EVENT_READ)
            while not self._closed:
                changes = self._store.take(watcher)
                for start in range(0, len(changes), _AT_ONCE):
                    tell(changes[start : start + _AT_ONCE])
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return
                if any(key.fileobj is client for key, _ in ears.select(_sooner(left, self._store.next_expiry()))):
                    return
                bell.hush()

    @contextlib.contextmanager
    def _bell(self) -> Iterator[_Bell]:
        ringer, heard = socket.socketpair()
        with ringer, heard:
            ringer.setblocking(False)
            heard.setblocking(False)
            bell = _Bell(ringer, heard)
            with self._lock:
                self._bells.add(bell)
            try:
                yield bell
            finally:
                with self._lock:
                    self._bells.discard(bell)


class _Lines:
    """What a watch tells about a change."""

    def __init__(
        self, call: Call, shape: Shape, selects: Callable[[Object], bool] | None, clock: Callable[[], int]
    ) -> None:
        self._kind = call.kind
        self._shape = shape
        self._selects = selects
        self._clock = clock
        self._header = True

    def of(self, changes: Iterable[Change]) -> list[bytes]:
        """Give the lines of those that the watch concerns."""
        return [self._line(change, type_) for change in changes if (type_ := self._type(change))]

    def end(self, version: int) -> bytes:
        """Give the line that ends what there was at first."""
        metadata = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
        body = render_object(self._kind, {"metadata": metadata}, self._shape, self._clock(), header=self._header)
        return dump({"type": "BOOKMARK", "object": body})

    def _line(self, change: Change, type_: str) -> bytes:
        body = render_object(self._kind, change.object, self._shape, self._clock(), header=self._header)
        self._header = False
        return dump({"type": type_, "object": body})

    def _type(self, change: Change) -> str:
        if self._selects is None:
            return change.type
        now = change.type != "DELETED" and self._selects(change.object)
        before = change.previous is not None and self._selects(change.previous)
        if now:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else ""


def _version(text: str) -> int:
    if text.isdecimal():
        return int(text)
    fault = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
    raise APIError(500, "", fault)


def _seconds(text: str) -> int:
    try:
        return int(text or "0")
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _sooner(left: float | None, expiry: float | None) -> float | None:
    known = [seconds for seconds in (left, expiry) if seconds is not None]
    return min(known) if known else None


def _gone() -> Object:
    return status_body(410, "Expired", "The resourceVersion for the provided watch is too old.")
