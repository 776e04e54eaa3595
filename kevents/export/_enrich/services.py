"""Which services a pod belongs to, as EndpointSlices say it, and said it a while ago."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

KEPT: Final = 600.0

_SERVICE: Final = "kubernetes.io/service-name"

SliceKey = tuple[str, str]


class ServiceIndex:
    """From a pod's UID to the names of its services; a pod that left one keeps its name for ten minutes.

    One thread changes it. Any may read: what `names` gives is made anew with each change, and never changed.
    """

    def __init__(self) -> None:
        """Know of no service, and not even that there is none."""
        self.synced = False
        self._slices: dict[SliceKey, tuple[str, frozenset[str]]] = {}
        self._memberships: dict[str, dict[str, int]] = {}
        self._left: dict[str, dict[str, float]] = {}
        self._leaving: deque[tuple[float, str, str]] = deque()
        self._names: dict[str, list[str]] = {}

    def names(self, uid: str) -> list[str]:
        """Give the services of a pod, by name."""
        return self._names.get(uid, [])

    def replace(self, slices: Iterable[Mapping[str, Any]], now: float) -> None:
        """Take in a complete list; a slice that is not in it is gone."""
        listed = {_key(each): _content(each) for each in slices}
        for key in [key for key in self._slices if key not in listed]:
            self._set(key, "", frozenset(), now)
        for key, content in listed.items():
            self._set(key, *content, now)
        self.synced = True
        self.expire(now)

    def apply(self, kind: str, each: Mapping[str, Any], now: float) -> None:
        """Take in one event of a watch.

        Args:
            kind: ``ADDED``, ``MODIFIED`` or ``DELETED``; others are ignored.
            each: The EndpointSlice.
            now: The present, in seconds by the monotonic clock.
        """
        if kind in ("ADDED", "MODIFIED"):
            self._set(_key(each), *_content(each), now)
        elif kind == "DELETED":
            self._set(_key(each), "", frozenset(), now)
        self.expire(now)

    def expire(self, now: float) -> None:
        """Forget the services that pods have left ten minutes ago."""
        while self._leaving and self._leaving[0][0] <= now - KEPT:
            when, uid, service = self._leaving.popleft()
            left = self._left.get(uid, {})
            if left.get(service) == when:  # it has not come back, and left again, meanwhile
                self._forget(uid, service)
                self._publish(uid)

    def _set(self, key: SliceKey, service: str, pods: frozenset[str], now: float) -> None:
        before, members = self._slices.pop(key, ("", frozenset()))
        if pods and service:
            self._slices[key] = (service, pods)
        for uid in pods if service else ():
            self._join(uid, service)
        for uid in members:
            self._leave(uid, before, now)
        for uid in pods | members:
            self._publish(uid)

    def _join(self, uid: str, service: str) -> None:
        counts = self._memberships.setdefault(uid, {})
        counts[service] = counts.get(service, 0) + 1
        self._forget(uid, service)

    def _leave(self, uid: str, service: str, now: float) -> None:
        counts = self._memberships[uid]
        counts[service] -= 1
        if counts[service]:
            return
        del counts[service]
        if not counts:
            del self._memberships[uid]
        self._left.setdefault(uid, {})[service] = now
        self._leaving.append((now, uid, service))

    def _forget(self, uid: str, service: str) -> None:
        left = self._left.get(uid)
        if left is not None:
            left.pop(service, None)
            if not left:
                del self._left[uid]

    def _publish(self, uid: str) -> None:
        names = {*self._memberships.get(uid, ()), *self._left.get(uid, ())}
        if names:
            self._names[uid] = sorted(names)
        else:
            self._names.pop(uid, None)


def _key(each: Mapping[str, Any]) -> SliceKey:
    metadata = each.get("metadata") or {}
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def _content(each: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    """The service, and the UIDs of the pods, of a slice."""
    labels = (each.get("metadata") or {}).get("labels") or {}
    targets = (endpoint.get("targetRef") or {} for endpoint in each.get("endpoints") or ())
    pods = (target.get("uid") for target in targets if target.get("kind") == "Pod")
    return str(labels.get(_SERVICE, "")), frozenset(uid for uid in pods if isinstance(uid, str) and uid)
