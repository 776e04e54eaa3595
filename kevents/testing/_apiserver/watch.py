"""Watches: streams with one line of JSON for each change."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from kevents.testing._apiserver.kinds import Shape, render_object
from kevents.testing._apiserver.options import check_list, parse_int, selector
from kevents.testing._apiserver.requests import APIError, Call, Stream, dump, is_true, status_body
from kevents.testing._apiserver.storage import Change, CompactedError, Store, Watcher

Object = dict[str, Any]

_PIECE: Final = 4096
_BATCH: Final = 64
"""The number of lines that are sent together; each is a chunk of its own."""


class Watches:
    """The watches of a server."""

    def __init__(self, store: Store, gone: str = "event") -> None:
        self._store = store  # the objects
        self._gone = gone  # the answer to a watch from a compacted version: `event`, `status` or `empty`
        self._lock = threading.Lock()
        self._bells: set[Callable[[], None]] = set()
        self._closed = False

    def open(self) -> None:
        with self._lock:
            self._closed = False

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for ring in self._bells:
                ring()

    def stream(self, call: Call, shape: Shape, client: socket.socket) -> Stream:
        """Return the answer to a watch.

        Raises APIError: 400 for a selector that cannot be parsed. 500, like the real server, for a version that is no
        number. 410 for a compacted version if `gone` is `status`.
        """
        selects = selector(call.kind, call.query)
        check_list(call.query, watch=True)
        since = self._since(call.query)
        seconds = parse_int(call.query.get("timeoutSeconds", ""))
        deadline = time.monotonic() + seconds if seconds else None
        if self._gone == "status" and since is not None and self._store.is_compacted(since):
            raise APIError(410, "Expired", f"too old resource version: {since}")
        lines = _Lines(call, shape, selects, self._store.clock)

        def cut() -> None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(client, socket.SHUT_RDWR)

        def run(send: Callable[[Iterable[bytes]], None]) -> None:
            with self._bell() as (ring, heard):
                try:
                    watcher = self._store.watch(call.kind.bucket, call.namespace, since, ring, cut)
                except CompactedError:
                    if self._gone != "empty":
                        gone = status_body(410, "Expired", "The resourceVersion for the provided watch is too old.")
                        send((dump({"type": "ERROR", "object": gone}),))
                    return
                try:
                    send(())  # the client goes on: each later change is one of this watch
                    if since is None and is_true(call.query, "allowWatchBookmarks"):
                        with self._store.lock:
                            initial = [*lines.of(self._store.take(watcher)), lines.bookmark(self._store.version)]
                        send(initial)
                    self._follow(watcher, heard, client, deadline, lambda changes: send(lines.of(changes)))
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

    def _follow(
        self,
        watcher: Watcher,
        heard: socket.socket,
        client: socket.socket,
        deadline: float | None,
        send: Callable[[list[Change]], None],
    ) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            selector.register(heard, selectors.EVENT_READ)
            while not self._closed:
                changes = self._store.take(watcher)
                for start in range(0, len(changes), _BATCH):
                    send(changes[start : start + _BATCH])
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return
                timeout = min((wait for wait in (left, self._store.next_expiry()) if wait is not None), default=None)
                ready = {key.fileobj for key, _ in selector.select(timeout)}
                if client in ready:
                    return
                if heard in ready:
                    heard.recv(_PIECE)

    @contextlib.contextmanager
    def _bell(self) -> Iterator[tuple[Callable[[], None], socket.socket]]:
        """Register a function that wakes the thread that selects on the socket."""
        ringer, heard = socket.socketpair()

        def ring() -> None:
            with contextlib.suppress(OSError):  # a full buffer: the thread has been woken already
                ringer.send(b".")

        with ringer, heard:
            ringer.setblocking(False)
            with self._lock:
                self._bells.add(ring)
            try:
                yield ring, heard
            finally:
                with self._lock:
                    self._bells.discard(ring)


class _Lines:
    """Renders changes as the lines of one watch."""

    def __init__(
        self, call: Call, shape: Shape, selects: Callable[[Object], bool] | None, clock: Callable[[], int]
    ) -> None:
        self._kind = call.kind
        self._shape = shape
        self._selects = selects
        self._clock = clock
        self._header = True

    def of(self, changes: Iterable[Change]) -> list[bytes]:
        """Return the lines for the changes of selected objects."""
        return [self._line(type_, change.object) for change in changes if (type_ := self._type(change))]

    def bookmark(self, version: int) -> bytes:
        """Return the line that ends the initial events."""
        metadata = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
        return self._line("BOOKMARK", {"metadata": metadata})

    def _line(self, type_: str, stored: Object) -> bytes:
        body = render_object(self._kind, stored, self._shape, self._clock(), header=self._header)
        self._header = False  # only the first table has the definitions of its columns
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
