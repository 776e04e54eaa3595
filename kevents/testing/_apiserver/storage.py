"""The object store: objects, versions, expiry, the history of changes, and watchers."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

Object = dict[str, Any]
Key = tuple[str, str, str]
Item = tuple[tuple[str, str], Object]

_NANOSECONDS: Final = 1_000_000_000


class ExistsError(Exception):
    """An object of that name exists."""


class MissingError(Exception):
    """There is no such object."""


class CompactedError(Exception):
    """The history does not reach back to that version."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one object."""

    type: str  # `ADDED`, `MODIFIED` or `DELETED`
    version: int  # the store's version after the change
    time: int  # the time of the change by the store's clock, in nanoseconds
    bucket: str  # the kind of the object
    namespace: str  # its namespace. Empty if it has none
    object: Object  # the object after the change; the last state of a deleted one
    previous: Object | None  # the object before the change. None if it was added

    def concerns(self, bucket: str, namespace: str) -> bool:
        """Whether it is in a bucket and a namespace; an empty namespace stands for all."""
        return self.bucket == bucket and namespace in {"", self.namespace}


@dataclass(eq=False, slots=True)
class Watcher:
    """A consumer of the changes in a bucket."""

    bucket: str  # the kind of the objects
    namespace: str  # one namespace, or empty for all
    since: int  # changes up to this version are skipped; it may be in the future
    wake: Callable[[], None]  # called under the store's lock when there is a change
    cut: Callable[[], None]  # called under the store's lock when the watcher is too far behind and gets no more changes
    pending: deque[Change]  # the changes that it has not taken yet

    def concerns(self, change: Change) -> bool:
        return change.version > self.since and change.concerns(self.bucket, self.namespace)


@dataclass(frozen=True, slots=True)
class Backup:
    """The content of a store at one moment."""

    version: int
    objects: dict[str, dict[tuple[str, str], Object]]
    expiry: dict[Key, int]


class Store:
    """Objects by bucket, namespace and name, the latest changes, and the watchers.

    Like etcd it always keeps the last change. Stored objects are never changed, only replaced: a caller may keep a
    returned object but must not change it.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        ttl: float | None,
        *,
        history: int = 10_000,  # the number of changes kept, at least one
        history_age: float | None = None,  # seconds, by the clock, for which changes are kept; None for ever
        watch_buffer: int | None = None,  # changes by which a watcher may be behind before it is cut; None for no limit
    ) -> None:
        self.lock = threading.RLock()
        self.clock = clock  # the wall clock in nanoseconds
        self.version = 1
        self._ttl = None if ttl is None else int(ttl * _NANOSECONDS)
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._expiry: OrderedDict[Key, int] = OrderedDict()
        self._history, self._history_age, self._watch_buffer = history, history_age, watch_buffer
        self._changes: deque[Change] = deque()
        self._watchers: list[Watcher] = []
        self._compacted = 1  # the first version whose changes are known
        self._listed: tuple[str, str, int, list[Item]] = ("", "", 0, [])

    def create(
        self, bucket: str, namespace: str, name: str, build: Callable[[str], Object], *, dry_run: bool = False
    ) -> Object:
        """Store a new object and return it. Raises ExistsError if an object of that name exists."""
        with self.lock:
            self._expire()
            if (namespace, name) in self._objects.setdefault(bucket, {}):
                raise ExistsError
            if dry_run:
                return build("")
            made = build(str(self.version + 1))
            self._put((bucket, namespace, name), made, None)
            return made

    def modify(
        self, bucket: str, namespace: str, name: str, change: Callable[[Object], Object], *, dry_run: bool = False
    ) -> Object:
        """Replace an object by the result of `change`, and return it. Raises MissingError.

        An equal result changes nothing, nor does a dry run. An object that is being deleted is removed with its last
        finalizer.
        """
        with self.lock:
            old = self.get(bucket, namespace, name)
            new = change(old)
            if new is old or new == old:
                return old
            if dry_run:
                return new
            new = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.version + 1)}}
            ending = "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers")
            if ending and bucket != "namespaces.":  # the finalizers of a namespace are in its spec
                self._remove(bucket, namespace, name)
            else:
                self._put((bucket, namespace, name), new, old)
            return new

    def get(self, bucket: str, namespace: str, name: str) -> Object:
        """Return an object. Raises MissingError if there is no such object."""
        with self.lock:
            self._expire()
            try:
                return self._objects[bucket][namespace, name]
            except KeyError:
                raise MissingError from None

    def items(self, bucket: str, namespace: str = "") -> tuple[list[Item], int]:
        """Return the objects of one namespace or of all, sorted by key, and the store's version."""
        with self.lock:
            self._expire()
            return self.items_at(bucket, namespace, self.version), self.version

    def items_at(self, bucket: str, namespace: str, version: int) -> list[Item]:
        """The objects as they were at a version, in a list that must not be changed. Raises CompactedError."""
        with self.lock:
            self._expire()
            if version < self._compacted:
                raise CompactedError
            if self._listed[:3] != (bucket, namespace, version):  # cached for the pages of one list
                found = dict(self._objects.get(bucket, {}))
                for change in reversed(list(self._since(bucket, "", version))):
                    key = (change.namespace, change.object["metadata"]["name"])
                    if change.previous is None:
                        del found[key]
                    else:
                        found[key] = change.previous
                items = sorted((item for item in found.items() if namespace in {"", item[0][0]}), key=itemgetter(0))
                self._listed = (bucket, namespace, version, items)
            return self._listed[3]

    def delete(self, bucket: str, namespace: str, name: str) -> None:
        """Remove an object. Raises MissingError."""
        with self.lock:
            self.get(bucket, namespace, name)
            self._remove(bucket, namespace, name)

    def empty(self, namespace: str) -> None:
        with self.lock:
            for bucket, objects in self._objects.items():
                for key in [key for key in objects if key[0] == namespace]:
                    self._remove(bucket, *key)

    def expire(self, name: str) -> int:
        """Remove the events of a name, or all with `*`, as if they had expired. Return their number."""
        with self.lock:
            keys = [key for key in self._objects.get("events", {}) if name in {"*", key[1]}]
            for namespace, found in keys:
                self._remove("events", namespace, found)
            return len(keys)

    def next_expiry(self) -> float | None:
        """Return the time in seconds until the next event expires. None if none will."""
        with self.lock:
            self._expire()
            for moment in self._expiry.values():
                return max(0, moment - self.clock()) / _NANOSECONDS
            return None

    def watch(
        self, bucket: str, namespace: str, since: int | None, wake: Callable[[], None], cut: Callable[[], None]
    ) -> Watcher:
        """Register a watcher. Raises CompactedError if the history does not reach back to that version."""
        with self.lock:
            self._expire()
            changes = self._existing(bucket, namespace)
            pending = deque(changes if since is None else self._since(bucket, namespace, since))
            watcher = Watcher(bucket, namespace, since or 0, wake, cut, pending)
            self._watchers.append(watcher)
            return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """Remove a watcher, if it is still there."""
        with self.lock:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

    def take(self, watcher: Watcher) -> list[Change]:
        """Return the watcher's pending changes, and clear them."""
        with self.lock:
            self._expire()
            changes = list(watcher.pending)
            watcher.pending.clear()
            return changes

    def compact(self) -> None:
        """Forget the history but for the last change."""
        with self.lock:
            self._forget(len(self._changes) - 1)

    def is_compacted(self, since: int) -> bool:
        """Whether a watch from that version gets 410."""
        with self.lock:
            self._expire()
            return since < self._compacted - 1

    def backup(self) -> Backup:
        """Return a copy of the content."""
        with self.lock:
            self._expire()
            objects = {bucket: dict(found) for bucket, found in self._objects.items()}
            return Backup(self.version, objects, dict(self._expiry))

    def restore(self, backup: Backup) -> None:
        """Return to a backup, its version included. All watchers are cut."""
        with self.lock:
            self.version = backup.version
            self._objects = {bucket: dict(found) for bucket, found in backup.objects.items()}
            self._expiry = OrderedDict(backup.expiry)
            self._listed = ("", "", 0, [])
            self._changes.clear()
            self._compacted = backup.version
            watchers, self._watchers = self._watchers, []
            for watcher in watchers:
                watcher.cut()

    def _existing(self, bucket: str, namespace: str) -> Iterator[Change]:
        for (found, _), item in self.items(bucket, namespace)[0]:
            yield Change("ADDED", self.version, self.clock(), bucket, found, item, None)

    def _put(self, key: Key, new: Object, old: Object | None) -> None:
        bucket, namespace, name = key
        self.version += 1
        self._objects[bucket][namespace, name] = new
        if bucket == "events" and self._ttl is not None:
            self._expiry[key] = self.clock() + self._ttl
            self._expiry.move_to_end(key)
        kind = "ADDED" if old is None else "MODIFIED"
        self._add(Change(kind, self.version, self.clock(), bucket, namespace, new, old))

    def _remove(self, bucket: str, namespace: str, name: str) -> None:
        old = self._objects[bucket].pop((namespace, name))
        self._expiry.pop((bucket, namespace, name), None)
        self.version += 1
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}
        self._add(Change("DELETED", self.version, self.clock(), bucket, namespace, last, old))

    def _add(self, change: Change) -> None:
        """Add a change and wake the watchers that it concerns."""
        self._changes.append(change)
        self._forget(len(self._changes) - self._history)
        for watcher in [watcher for watcher in self._watchers if watcher.concerns(change)]:
            watcher.pending.append(change)
            if self._watch_buffer is None or len(watcher.pending) <= self._watch_buffer:
                watcher.wake()
            else:
                self._watchers.remove(watcher)
                watcher.pending.clear()
                watcher.cut()

    def _since(self, bucket: str, namespace: str, version: int) -> Iterable[Change]:
        """Return the changes in a bucket after a version. Raises CompactedError if they are no longer known."""
        if version < self._compacted - 1:
            raise CompactedError
        return (change for change in self._changes if change.version > version and change.concerns(bucket, namespace))

    def _forget(self, number: int) -> None:
        for _ in range(number):
            self._compacted = self._changes.popleft().version + 1

    def _expire(self) -> None:
        """Forget changes that are too old, and remove expired events."""
        now = self.clock()
        if self._history_age is not None:
            oldest = now - int(self._history_age * _NANOSECONDS)
            while len(self._changes) > 1 and self._changes[0].time < oldest:
                self._forget(1)
        while self._expiry and (first := next(iter(self._expiry.items())))[1] <= now:
            self._remove(*first[0])
