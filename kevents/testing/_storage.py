"""The object store: versions, expiry and what watchers are told."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Change", "CompactedError", "ExistsError", "MissingError", "Store", "Watcher"]

Object = dict[str, Any]
Key = tuple[str, str, str]

_HISTORY: Final = 10_000
_NANOSECONDS: Final = 1_000_000_000


class ExistsError(Exception):
    """The name is taken."""


class MissingError(Exception):
    """There is no such object."""


class CompactedError(Exception):
    """The history does not reach back that far."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one object.

    Attributes:
        type: `ADDED`, `MODIFIED` or `DELETED`.
        version: The store's version after it.
        bucket: The kind of the object.
        namespace: Its namespace, empty for one of the cluster.
        object: It, as it is now (as it was last, when deleted).
        previous: It before, None when added.
    """

    type: str
    version: int
    bucket: str
    namespace: str
    object: Object
    previous: Object | None


@dataclass(eq=False, slots=True)
class Watcher:
    """One who is told of the changes in a bucket; `wake` is called under the store's lock."""

    bucket: str
    namespace: str
    pending: deque[Change]
    wake: Callable[[], None]


class Store:
    """Objects by bucket, namespace and name.

    Stored objects are never changed, only replaced: what comes out may be kept, and must not be written to.

    Args:
        clock: The wall clock in nanoseconds.
        ttl: How many seconds an object of bucket `events` lives after its last write; None for ever.
    """

    def __init__(self, clock: Callable[[], int], ttl: float | None) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.version = 1
        self._ttl = None if ttl is None else int(ttl * _NANOSECONDS)
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._expiry: OrderedDict[Key, int] = OrderedDict()
        self._history: deque[Change] = deque(maxlen=_HISTORY)
        self._watchers: list[Watcher] = []
        self._compacted = 0

    def create(self, bucket: str, namespace: str, name: str, build: Callable[[str], Object]) -> Object:
        """Store a new object.

        Args:
            bucket: Its kind.
            namespace: Its namespace, or empty.
            name: Its name.
            build: Makes the object, given its resourceVersion.

        Returns:
            The object.

        Raises:
            ExistsError: The name is taken.
        """
        with self.lock:
            self._expire()
            if (namespace, name) in self._objects.setdefault(bucket, {}):
                raise ExistsError
            made = build(str(self.version + 1))
            self._put((bucket, namespace, name), made, None)
            return made

    def modify(self, bucket: str, namespace: str, name: str, change: Callable[[Object], Object]) -> Object:
        """Replace an object by what `change` makes of it; the same object changes nothing.

        Raises:
            MissingError: There is no such object.
        """
        with self.lock:
            old = self.get(bucket, namespace, name)
            new = change(old)
            if new is old or new == old:
                return old
            new = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.version + 1)}}
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

    def items(self, bucket: str, namespace: str = "") -> tuple[list[tuple[tuple[str, str], Object]], int]:
        """Give the objects of a namespace, or of all, in the order of their keys, and the store's version."""
        with self.lock:
            self._expire()
            found = self._objects.get(bucket, {}).items()
            return sorted((item for item in found if not namespace or item[0][0] == namespace), key=_key), self.version

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

    def watch(self, bucket: str, namespace: str, since: int | None, wake: Callable[[], None]) -> Watcher:
        """Register a watcher.

        Args:
            bucket: The kind to watch.
            namespace: One namespace, or empty for all.
            since: The version after which to begin; None for what there is, and then on.
            wake: Called when there is something new.

        Raises:
            CompactedError: The history does not reach back that far.
        """
        with self.lock:
            self._expire()
            if since is None:
                pending = deque(self._present(bucket, namespace))
            else:
                pending = deque(self._since(bucket, namespace, since))
            watcher = Watcher(bucket, namespace, pending, wake)
            self._watchers.append(watcher)
            return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """Tell the watcher nothing more."""
        with self.lock:
            self._watchers.remove(watcher)

    def take(self, watcher: Watcher) -> list[Change]:
        """Give the watcher what is new."""
        with self.lock:
            self._expire()
            changes = list(watcher.pending)
            watcher.pending.clear()
            return changes

    def compact(self) -> None:
        """Forget the history: watches from an older version are gone."""
        with self.lock:
            self._history = deque(maxlen=_HISTORY)
            self._compacted = self.version

    def _present(self, bucket: str, namespace: str) -> Iterator[Change]:
        for (found, _), item in self.items(bucket, namespace)[0]:
            yield Change("ADDED", self.version, bucket, found, item, None)

    def _since(self, bucket: str, namespace: str, since: int) -> Iterator[Change]:
        full = len(self._history) == _HISTORY
        if since < self._compacted or (full and since < self._history[0].version - 1):
            raise CompactedError
        return (change for change in self._history if change.version > since and _concerns(change, bucket, namespace))

    def _put(self, key: Key, new: Object, old: Object | None) -> None:
        bucket, namespace, name = key
        self.version += 1
        self._objects[bucket][namespace, name] = new
        if bucket == "events" and self._ttl is not None:
            self._expiry[key] = self.clock() + self._ttl
            self._expiry.move_to_end(key)
        kind = "ADDED" if old is None else "MODIFIED"
        self._tell(Change(kind, self.version, bucket, namespace, new, old))

    def _remove(self, bucket: str, namespace: str, name: str) -> None:
        old = self._objects[bucket].pop((namespace, name))
        self._expiry.pop((bucket, namespace, name), None)
        self.version += 1
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}
        self._tell(Change("DELETED", self.version, bucket, namespace, last, old))

    def _expire(self) -> None:
        if not self._expiry:
            return
        now = self.clock()
        while self._expiry and (first := next(iter(self._expiry.items())))[1] <= now:
            self._remove(*first[0])

    def _tell(self, change: Change) -> None:
        self._history.append(change)
        for watcher in self._watchers:
            if _concerns(change, watcher.bucket, watcher.namespace):
                watcher.pending.append(change)
                watcher.wake()


def new_uid() -> str:
    """Give a uid for a new object."""
    return str(uuid.uuid4())


def _key(item: tuple[tuple[str, str], Object]) -> tuple[str, str]:
    return item[0]


def _concerns(change: Change, bucket: str, namespace: str) -> bool:
    return change.bucket == bucket and namespace in {"", change.namespace}
