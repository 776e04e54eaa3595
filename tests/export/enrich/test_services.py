"""A pod's services are those whose slices contain it, now or in the last ten minutes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kevents.export._enrich.services import KEPT, ServiceIndex


def endpoint_slice(name: str, service: str, *pods: str, namespace: str = "default") -> dict[str, Any]:
    """Return an EndpointSlice."""
    endpoints = [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "uid": pod}} for pod in pods]
    labels = {"kubernetes.io/service-name": service} if service else {}
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "endpoints": endpoints}


def test_list_and_watch() -> None:
    """The index contains listed slices and follows the watch's changes."""
    index = ServiceIndex()
    assert not index.synced
    index.replace([endpoint_slice("web-1", "web", "a", "b"), endpoint_slice("api-1", "api", "a")], 0.0)
    assert (index.synced, index.names("a"), index.names("b"), index.names("c")) == (True, ["api", "web"], ["web"], [])
    index.apply("ADDED", endpoint_slice("db-1", "db", "c"), 0.0)
    index.apply("MODIFIED", endpoint_slice("web-1", "web", "b", "c"), 0.0)
    index.apply("DELETED", endpoint_slice("api-1", "api", "a"), 0.0)
    index.apply("BOOKMARK", {"metadata": {"resourceVersion": "9"}}, KEPT)
    assert [index.names(uid) for uid in "abc"] == [[], ["web"], ["db", "web"]]


@pytest.mark.parametrize(("later", "expected"), [(KEPT - 1, ["web"]), (KEPT, [])])
def test_kept(later: float, expected: list[str]) -> None:
    """A pod that left a service keeps its name for ten minutes."""
    index = ServiceIndex()
    index.replace([endpoint_slice("web-1", "web", "a")], 0.0)
    index.apply("DELETED", endpoint_slice("web-1", "web", "a"), 100.0)
    index.expire(100.0 + later)
    assert index.names("a") == expected


def test_back_again() -> None:
    """The ten minutes count from the last time that the pod left."""
    index = ServiceIndex()
    for now, kind in ((0.0, "ADDED"), (10.0, "DELETED"), (20.0, "ADDED"), (30.0, "DELETED")):
        index.apply(kind, endpoint_slice("web-1", "web", "a"), now)
    assert [(index.expire(now), index.names("a"))[1] for now in (KEPT + 29, KEPT + 30)] == [["web"], []]


def test_two_slices() -> None:
    """A pod leaves a service with the last of its slices. A slice can change its service."""
    index = ServiceIndex()
    index.replace([endpoint_slice("web-1", "web", "a"), endpoint_slice("web-2", "web", "a")], 0.0)
    index.apply("DELETED", endpoint_slice("web-1", "web", "a"), 0.0)
    index.expire(KEPT)
    assert index.names("a") == ["web"]
    index.apply("MODIFIED", endpoint_slice("web-2", "new", "a"), KEPT)
    index.expire(2 * KEPT)
    assert index.names("a") == ["new"]


def test_listed_anew() -> None:
    """A slice that a new list does not contain counts as deleted."""
    index = ServiceIndex()
    index.replace([endpoint_slice("web-1", "web", "a"), endpoint_slice("api-1", "api", "a")], 0.0)
    index.replace([endpoint_slice("api-1", "api", "a")], 1.0)
    assert index.names("a") == ["api", "web"]
    index.expire(KEPT + 1)
    assert index.names("a") == ["api"]


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"metadata": None, "endpoints": None},
        {
            "metadata": {"name": "x"},
            "endpoints": [{}, {"targetRef": None}, {"targetRef": {"kind": "Node", "uid": "a"}}],
        },
        endpoint_slice("x", "", "a"),
        {
            "metadata": {"name": "x"},
            "endpoints": [{"targetRef": {"kind": "Pod"}}, {"targetRef": {"kind": "Pod", "uid": 7}}],
        },
    ],
)
def test_odd(odd: dict[str, Any]) -> None:
    """A slice without a service, endpoints or pods adds nothing."""
    index = ServiceIndex()
    index.apply("ADDED", odd, 0.0)
    index.apply("DELETED", odd, 0.0)
    assert index.names("a") == []


class Model(RuleBasedStateMachine):
    """A model of the index: the current slices, and when each pod was last in each service."""

    def __init__(self) -> None:
        super().__init__()
        self.index = ServiceIndex()
        self.now = 0.0
        self.slices: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.last: dict[tuple[str, str], float] = {}

    @rule(name=st.sampled_from("xyz"), service=st.sampled_from("st"), pods=st.sets(st.sampled_from("ab")))
    def put(self, name: str, service: str, pods: set[str]) -> None:
        """Create or change a slice."""
        self.touch()
        self.slices[name] = (service, tuple(pods))
        self.index.apply("MODIFIED", endpoint_slice(name, service, *pods), self.now)

    @rule(name=st.sampled_from("xyz"))
    def drop(self, name: str) -> None:
        """Delete a slice."""
        self.touch()
        self.slices.pop(name, None)
        self.index.apply("DELETED", endpoint_slice(name, "s"), self.now)

    @rule(step=st.sampled_from([1.0, KEPT / 2, KEPT]))
    def pass_time(self, step: float) -> None:
        """Advance the time."""
        self.touch()
        self.now += step
        self.index.expire(self.now)

    def touch(self) -> None:
        """Set the last time of all current memberships to now."""
        for service, pods in self.slices.values():
            for pod in pods:
                self.last[pod, service] = self.now

    @invariant()
    def as_defined(self) -> None:
        """A pod has its current services and those it left less than ten minutes ago."""
        inside = {(pod, service) for service, pods in self.slices.values() for pod in pods}
        for pod in "ab":
            recent = {s for (p, s), when in self.last.items() if p == pod and self.now - when < KEPT}
            assert self.index.names(pod) == sorted({s for p, s in inside if pod == p} | recent)


Model.TestCase.settings = settings(max_examples=60)
TestModel = Model.TestCase
