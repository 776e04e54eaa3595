"""The object store: versions, expiry and what watchers are told."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.history import Change, CompactedError, History, Limits, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Backup", "Change", "CompactedError", "ExistsError", "Item", "Limits", "MissingError", "Store", "Watcher"]

Object = dict[str, Any]
Key = tuple[str, str, str]
Item = tuple[tuple[str, str], Object]

_NANOSECONDS: Final = 1_000_000_000


class ExistsError(Exception):
    """The name is taken."""


class MissingError(Exception):
    """There is no such object."""


@dataclass(frozen=True, slots=True)
class Backup:
    """All that a store held at some time."""

    version: int
    objects: dict[str, dict[tuple[str, str], Object]]
    expiry: dict[Key, int]


class Store:
    """Objects by bucket, namespace and name.

    Stored objects are never changed, only replaced: what comes out may be kept, and must not be written to.

    Args:
        clock: The wall clock in nanoseconds.
        ttl: How many seconds an object of bucket `events` lives after its last write; None for ever.
        limits: How much of the past is kept.
    """

    def __init__(self, clock: Callable[[], int], ttl: float | None, limits: Limits | None = None) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.version = 1
        self._ttl = None if ttl is None else int(ttl * _NANOSECONDS)
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._expiry: OrderedDict[Key, int] = OrderedDict()
        self._history = History(limits or Limits())
        self._listed: tuple[str, str, int, list[Item]] = ("", "", 0, [])

    def create(
        self, bucket: str, namespace: str, name: str, build: Callable[[str], Object], *, dry_run: bool = False
    ) -> Object:
        """Store a new object.

        Args:
            bucket: Its kind.
            namespace: Its namespace, or empty.
            name: Its name.
            build: Makes the object, given its resourceVersion; an empty one if it is not to be stored.
            dry_run: Whether it is not to be stored.

        Returns:
            The object.

        Raises:
            ExistsError: The name is taken.
        """
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
        """Replace an object by what `change` makes of it; the same object changes nothing, nor does a dry run.

        One that is being deleted goes when its last finalizer does.

        Raises:
            MissingError: There is no such object.
        """
        with self.lock:
            old = self.get(bucket, namespace, name)
            new = change(old)
            if new is old or new == old:
                return old
            if dry_run:
                return new
            new = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.version + 1)}}
            if _is_over(bucket, new["metadata"]):
                self._remove(bucket, namespace, name)
                return new
            self._put((bucket, namespace, name), new, old)
            return new

    def get(self, bucket: str, namespace: str, name: str) -> Object:
        """Give an object.

        Raises:
            MissingError: There is no such object.
        """
        with self.lock:
            self._expire()
            try:
                return self._objects[bucket][namespace, name]
            except KeyError:
                raise MissingError from None

    def items(self, bucket: str, namespace: str = "") -> tuple[list[Item], int]:
        """Give the objects of a namespace, or of all, in the order of their keys, and the store's version."""
        with self.lock:
            self._expire()
            return self.items_at(bucket, namespace, self.version), self.version

    def items_at(self, bucket: str, namespace: str, version: int) -> list[Item]:
        """Give the objects as they were at a version; the list must not be changed.

        Raises:
            CompactedError: The history does not reach back that far.
        """
        with self.lock:
            self._expire()
            if self._history.is_compacted(version - 1):
                raise CompactedError
            return self._sorted(bucket, namespace, version)

    def delete(self, bucket: str, namespace: str, name: str) -> Object:
        """Remove an object and give it as it was.

        Raises:
            MissingError: There is no such object.
        """
        with self.lock:
            old = self.get(bucket, namespace, name)
            self._remove(bucket, namespace, name)
            return old

    def empty(self, namespace: str) -> None:
        """Remove everything that is in a namespace."""
        with self.lock:
            for bucket, objects in self._objects.items():
                for key in [key for key in objects if key[0] == namespace]:
                    self._remove(bucket, *key)

    def expire(self, name: str) -> int:
        """Let the events of that name end now, or all with `*`; give how many there were."""
        with self.lock:
            keys = [key for key in self._objects.get("events", {}) if name in {"*", key[1]}]
            for namespace, found in keys:
                self._remove("events", namespace, found)
            return len(keys)

    def next_expiry(self) -> float | None:
        """Tell how many seconds it is until the next event ends; None when none will."""
        with self.lock:
            self._expire()
            for moment in self._expiry.values():
                return max(0, moment - self.clock()) / _NANOSECONDS
            return None

    def watch(
        self, bucket: str, namespace: str, since: int | None, wake: Callable[[], None], cut: Callable[[], None]
    ) -> Watcher:
        """Register a watcher.

        Args:
            bucket: The kind to watch.
            namespace: One namespace, or empty for all.
            since: The version after which to begin; None for what there is, and then on.
            wake: Called when there is something new.
            cut: Called when it is too far behind: it is told nothing more.

        Raises:
            CompactedError: The history does not reach back that far.
        """
        with self.lock:
            self._expire()
            if since is None:
                pending = deque(self._present(bucket, namespace))
            else:
                pending = deque(self._history.since(bucket, namespace, since))
            watcher = Watcher(bucket, namespace, since or 0, wake, cut, pending)
            self._history.watch(watcher)
            return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """Tell the watcher nothing more; again: nothing."""
        with self.lock:
            self._history.unwatch(watcher)

    def take(self, watcher: Watcher) -> list[Change]:
        """Give the watcher what is new."""
        with self.lock:
            self._expire()
            changes = list(watcher.pending)
            watcher.pending.clear()
            return changes

    def compact(self) -> None:
        """Forget the history but for the last change: watches and pages of an older version are gone."""
        with self.lock:
            self._history.compact()

    def is_compacted(self, since: int) -> bool:
        """Tell whether a watch from that version is gone."""
        with self.lock:
            self._expire()
            return self._history.is_compacted(since)

    def backup(self) -> Backup:
        """Give all that there is."""
        with self.lock:
            self._expire()
            objects = {bucket: dict(found) for bucket, found in self._objects.items()}
            return Backup(self.version, objects, dict(self._expiry))

    def restore(self, backup: Backup) -> None:
        """Go back to what there was, its version too; who watches is cut off."""
        with self.lock:
            self.version = backup.version
            self._objects = {bucket: dict(found) for bucket, found in backup.objects.items()}
            self._expiry = OrderedDict(backup.expiry)
            self._listed = ("", "", 0, [])
            self._history.reset(backup.version)

    def _present(self, bucket: str, namespace: str) -> Iterator[Change]:
        for (found, _), item in self.items(bucket, namespace)[0]:
            yield Change("ADDED", self.version, self.clock(), bucket, found, item, None)

    def _sorted(self, bucket: str, namespace: str, version: int) -> list[Item]:
        if self._listed[:3] != (bucket, namespace, version):  # the pages of one list are asked for one after another
            found = dict(self._objects.get(bucket, {}))
            self._history.undo(bucket, found, version)
            items = sorted((item for item in found.items() if namespace in {"", item[0][0]}), key=_key)
            self._listed = (bucket, namespace, version, items)
        return self._listed[3]

    def _put(self, key: Key, new: Object, old: Object | None) -> None:
        bucket, namespace, name = key
        self.version += 1
        self._objects[bucket][namespace, name] = new
        if bucket == "events" and self._ttl is not None:
            self._expiry[key] = self.clock() + self._ttl
            self._expiry.move_to_end(key)
        kind = "ADDED" if old is None else "MODIFIED"
        self._history.add(Change(kind, self.version, self.clock(), bucket, namespace, new, old))

    def _remove(self, bucket: str, namespace: str, name: str) -> None:
        old = self._objects[bucket].pop((namespace, name))
        self._expiry.pop((bucket, namespace, name), None)
        self.version += 1
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}
        self._history.add(Change("DELETED", self.version, self.clock(), bucket, namespace, last, old))

    def _expire(self) -> None:
        now = self.clock()
        self._history.grow_old(now)
        while self._expiry and (first := next(iter(self._expiry.items())))[1] <= now:
            self._remove(*first[0])


def _is_over(bucket: str, metadata: Object) -> bool:
    ending = "deletionTimestamp" in metadata and not metadata.get("finalizers")
    return ending and bucket != "namespaces."  # theirs are elsewhere


def new_uid() -> str:
    """Give a uid for a new object."""
    return str(uuid.uuid4())


def _key(item: tuple[tuple[str, str], Object]) -> tuple[str, str]:
    return item[0]
