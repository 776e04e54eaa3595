"""The services of a pod: an index built from a list and a watch of EndpointSlices."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

import msgspec

from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.exceptions import UnavailableError
from kevents.export._model.options import Backoff
from kevents.export._model.types import value_at
from kevents.export._source.api import ApiReader, ListWatch
from kevents.export._source.response_stream import ResponseStream

KEPT: Final = 600.0  # seconds for which a pod keeps a service that it has left
PATH: Final = "/apis/discovery.k8s.io/v1/endpointslices"
RULE: Final = 'apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["list", "watch"]'

_SERVICE: Final = "kubernetes.io/service-name"
_PAGE: Final = 500
_WATCH_SECONDS: Final = 240
_SHORT_WATCH: Final = 1.0

SliceKey = tuple[str, str]


class ServiceIndex:
    """Maps a pod's UID to the names of its services; a pod that leaves a service keeps its name for 10 minutes.

    One thread changes the index and any thread may read it: a list that `names` returns is never changed.
    """

    def __init__(self) -> None:
        self.synced = False  # True once a complete list has been taken
        self._slices: dict[SliceKey, tuple[str, frozenset[str]]] = {}
        self._slice_counts: Counter[tuple[str, str]] = Counter()  # by UID and service
        self._left: dict[tuple[str, str], float] = {}  # by UID and service: when the pod left it, the oldest first
        self._names: dict[str, list[str]] = {}

    def names(self, uid: str) -> list[str]:
        return self._names.get(uid, [])

    def replace(self, slices: Iterable[Mapping[str, Any]], now: float) -> None:
        """Take a complete list; a slice that is not in it is removed."""
        listed = {_key(each): _content(each) for each in slices}
        for key in [key for key in self._slices if key not in listed]:
            self._set(key, "", frozenset(), now)
        for key, content in listed.items():
            self._set(key, *content, now)
        self.synced = True
        self.expire(now)

    def apply(self, kind: str, each: Mapping[str, Any], now: float) -> None:
        """Take one event of a watch."""
        if kind in ("ADDED", "MODIFIED"):
            self._set(_key(each), *_content(each), now)
        elif kind == "DELETED":
            self._set(_key(each), "", frozenset(), now)
        self.expire(now)

    def expire(self, now: float) -> None:
        """Forget the services that pods left 10 minutes ago."""
        while self._left and (oldest := next(iter(self._left.items())))[1] <= now - KEPT:
            uid, service = oldest[0]
            del self._left[uid, service]
            self._names[uid] = [name for name in self._names[uid] if name != service]
            if not self._names[uid]:
                del self._names[uid]

    def _set(self, key: SliceKey, service: str, pods: frozenset[str], now: float) -> None:
        before, members = self._slices.pop(key, ("", frozenset()))
        if pods and service:
            self._slices[key] = (service, pods)
        for uid in pods if service else ():
            self._slice_counts[uid, service] += 1
            self._left.pop((uid, service), None)
            if service not in self.names(uid):
                self._names[uid] = sorted([*self.names(uid), service])
        for uid in members:
            self._slice_counts[uid, before] -= 1
            if not self._slice_counts[uid, before]:
                del self._slice_counts[uid, before]
                self._left[uid, before] = now


def _key(each: Mapping[str, Any]) -> SliceKey:
    metadata = each.get("metadata") or {}
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def _content(each: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    """The service of a slice and the UIDs of its pods."""
    targets = (endpoint.get("targetRef") or {} for endpoint in each.get("endpoints") or ())
    pods = (target.get("uid") for target in targets if target.get("kind") == "Pod")
    service = str(value_at(each, "metadata", "labels", _SERVICE) or "")
    return service, frozenset(uid for uid in pods if isinstance(uid, str) and uid)


class SliceWatch:
    """The thread that lists and watches EndpointSlices and keeps an index up to date."""

    def __init__(self, reader: ApiReader, index: ServiceIndex, count: Callable[[str], None], log: LimitedLog) -> None:
        self._requests = ListWatch(reader, PATH)
        self._index = index  # only this thread changes it
        self._count = count  # called with the verb of each request
        self._log = log
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kevents-services", daemon=True)
        self._backoff = Backoff()

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """End the thread, also in the middle of a watch."""
        self._stopped.set()
        self._requests.end()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._watch(self._list())
            except Exception as error:  # noqa: BLE001 - the thread survives any answer of the server
                if not self._stopped.is_set():
                    rule = f"; allow {RULE}" if getattr(error, "code", 0) == HTTPStatus.FORBIDDEN else ""
                    text = f"the services of pods are not up to date, trying again: {format_error(error)}{rule}"
                    self._log.log_limited("services", text)
                    self._stopped.wait(self._backoff.next())

    def _list(self) -> str:
        """List all slices and return the resourceVersion for a watch."""
        rv = ""

        def slices() -> Iterator[Mapping[str, Any]]:  # page by page, to save memory in large clusters
            nonlocal rv
            token = None
            while token != "":
                self._count("list")
                page = msgspec.json.decode(self._requests.page(_PAGE, token or ""), type=dict)
                metadata = page.get("metadata") or {}
                token, rv = metadata.get("continue") or "", str(metadata.get("resourceVersion", ""))
                yield from page.get("items") or []

        self._index.replace(slices(), monotonic())
        return rv

    def _watch(self, rv: str) -> None:
        """Watch until the server no longer knows the resourceVersion; a watch that ends at once is such a sign."""
        while not self._stopped.is_set():
            began = monotonic()
            self._count("watch")
            with self._requests.watch(rv, _WATCH_SECONDS, bookmarks=True) as stream:
                after = self._read(stream, rv)
            if after is None or (after == rv and monotonic() - began < _SHORT_WATCH):
                self._stopped.wait(self._backoff.next())
                return
            rv = after

    def _read(self, stream: ResponseStream, rv: str) -> str | None:
        """Apply a watch until it ends; return its last resourceVersion, None if a new list is needed."""
        for line in stream.lines():
            if self._stopped.is_set():
                break
            if not line:
                continue
            event = msgspec.json.decode(line, type=dict)
            each = event.get("object") or {}
            kind = str(event.get("type", ""))
            if kind == "ERROR":
                if each.get("code") != HTTPStatus.GONE:
                    raise UnavailableError(f"a watch sent the error {each.get('code')} {each.get('message')}")
                return None
            self._backoff.reset()
            self._index.apply(kind, each, monotonic())
            rv = str((each.get("metadata") or {}).get("resourceVersion") or rv)
        return rv
