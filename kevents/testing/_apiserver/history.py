"""What has happened to the objects of a store, as far back as it is kept, and who is told."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Change", "CompactedError", "History", "Limits", "Watcher"]

Object = dict[str, Any]

_NANOSECONDS: Final = 1_000_000_000


class CompactedError(Exception):
    """The history does not reach back that far."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one object.

    Attributes:
        type: `ADDED`, `MODIFIED` or `DELETED`.
        version: The store's version after it.
        time: When it was, by the store's clock in nanoseconds.
        bucket: The kind of the object.
        namespace: Its namespace, empty for one of the cluster.
        object: It, as it is now (as it was last, when deleted).
        previous: It before, None when added.
    """

    type: str
    version: int
    time: int
    bucket: str
    namespace: str
    object: Object
    previous: Object | None


@dataclass(eq=False, slots=True)
class Watcher:
    """One who is told of the changes in a bucket.

    Attributes:
        bucket: The kind of the objects.
        namespace: One namespace, or empty for all.
        since: The version after which it is told; it may be yet to come.
        wake: Called when there is something new, under the store's lock.
        cut: Called when it is too far behind, under the store's lock: it is told nothing more.
        pending: What it has not taken yet.
    """

    bucket: str
    namespace: str
    since: int
    wake: Callable[[], None]
    cut: Callable[[], None]
    pending: deque[Change]

    def concerns(self, change: Change) -> bool:
        """Whether it is to be told."""
        return change.version > self.since and _concerns(change, self.bucket, self.namespace)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept of what was, and for whom.

    Attributes:
        changes: How many changes are kept, at least one.
        age: For how many seconds by the clock they are kept; None for ever.
        behind: By how many changes a watcher may be behind before it is cut off; None: by any number.
    """

    changes: int = 10_000
    age: float | None = None
    behind: int | None = None


class History:
    """The latest changes and the watchers; as etcd, it always keeps the last change. Its owner holds a lock.

    Args:
        limits: How much is kept.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._changes: deque[Change] = deque()
        self._watchers: list[Watcher] = []
        self._compacted = 1

    def add(self, change: Change) -> None:
        """Note a change, and tell those whom it concerns."""
        self._changes.append(change)
        self._forget(len(self._changes) - self._limits.changes)
        for watcher in [watcher for watcher in self._watchers if watcher.concerns(change)]:
            watcher.pending.append(change)
            self._wake(watcher)

    def watch(self, watcher: Watcher) -> None:
        """Tell a watcher from now on."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Tell the watcher nothing more; again: nothing."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def is_compacted(self, since: int) -> bool:
        """Tell whether what followed a version is not known any more."""
        return since < self._compacted - 1

    def since(self, bucket: str, namespace: str, version: int) -> Iterable[Change]:
        """Give what happened in a bucket after a version.

        Raises:
            CompactedError: It is not known any more.
        """
        if self.is_compacted(version):
            raise CompactedError
        return (found for found in self._after(version) if _concerns(found, bucket, namespace))

    def undo(self, bucket: str, objects: dict[tuple[str, str], Object], version: int) -> None:
        """Turn the present objects of a bucket into those of a version that is not compacted."""
        for change in reversed(list(self._after(version))):
            key = (change.namespace, change.object["metadata"]["name"])
            if change.bucket == bucket and change.previous is None:
                del objects[key]
            elif change.bucket == bucket and change.previous is not None:
                objects[key] = change.previous

    def compact(self) -> None:
        """Forget all but the last change."""
        self._forget(len(self._changes) - 1)

    def grow_old(self, now: int) -> None:
        """Forget what is too old, by the clock in nanoseconds."""
        if self._limits.age is None:
            return
        oldest = now - int(self._limits.age * _NANOSECONDS)
        while len(self._changes) > 1 and self._changes[0].time < oldest:
            self._forget(1)

    def reset(self, version: int) -> None:
        """Begin anew at a version; all watchers are cut off."""
        self._changes.clear()
        self._compacted = version
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.cut()

    def _after(self, version: int) -> Iterator[Change]:
        return (change for change in self._changes if change.version > version)

    def _forget(self, number: int) -> None:
        for _ in range(number):
            self._compacted = self._changes.popleft().version + 1

    def _wake(self, watcher: Watcher) -> None:
        if self._limits.behind is None or len(watcher.pending) <= self._limits.behind:
            watcher.wake()
            return
        self._watchers.remove(watcher)
        watcher.pending.clear()
        watcher.cut()


def _concerns(change: Change, bucket: str, namespace: str) -> bool:
    return change.bucket == bucket and namespace in {"", change.namespace}
