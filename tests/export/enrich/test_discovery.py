"""Discovery finds kinds with one request each, and retries unknown kinds after a minute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from kevents.export._enrich.discovery import Discovery, Reference, Resource, Unread

GROUPS = {
    "groups": [
        {"name": "apps", "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}},
        {
            "name": "example.com",
            "versions": [{"version": "v2"}, {"version": "v1"}],
            "preferredVersion": {"version": "v2"},
        },
    ]
}


def resource(name: str, kind: str, *, namespaced: bool = True, verbs: tuple[str, ...] = ("get",)) -> dict[str, Any]:
    """Return one entry of a list of resources."""
    return {"name": name, "kind": kind, "namespaced": namespaced, "verbs": verbs}


PAGES: Mapping[str, Any] = {
    "/apis": GROUPS,
    "/api/v1": {
        "resources": [
            resource("pods", "Pod"),
            resource("pods/eviction", "Eviction", verbs=("create",)),
            resource("pods/log", "Pod"),
            resource("nodes", "Node", namespaced=False),
            resource("bindings", "Binding", verbs=("create",)),
        ]
    },
    "/apis/apps/v1": {"resources": [resource("deployments", "Deployment")]},
    "/apis/example.com/v2": {"resources": [resource("widgets", "Widget")]},
}


class Asked:
    """A discovery that is given the requested pages, and the requested paths."""

    def __init__(self, pages: Mapping[str, Any] = PAGES) -> None:
        self.pages = dict(pages)
        self.discovery = Discovery()
        self.paths: list[str] = []

    def __call__(self, api_version: str, kind: str, now: float = 0.0) -> Resource | None:
        """Find a kind."""
        while isinstance(step := self.discovery.resolve(api_version, kind, now), Unread):
            self.paths.append(step.path)
            page = self.pages.get(step.path)
            self.discovery.learn(step.path, None if page is None else json.dumps(page).encode(), now)
        return step


def test_found_once() -> None:
    """A group and version is read once, when one of its kinds is first needed."""
    find = Asked()
    assert [
        getattr(find(version, kind), "name", None)
        for version, kind in (("v1", "Pod"), ("v1", "Node"), ("apps/v1", "Deployment"))
    ] == ["pods", "nodes", "deployments"]
    for _ in range(9):
        find("apps/v1", "Deployment", 1e6)
    assert find.paths == ["/api/v1", "/apis", "/apis/apps/v1"]


@pytest.mark.parametrize(
    ("version", "kind"),
    [("v1", "Nothing"), ("nothing.example.com/v1", "Pod"), ("apps/v1", "Nothing"), ("example.com/v1", "Nothing")],
)
def test_unknown(version: str, kind: str) -> None:
    """An unknown kind is looked up at most once a minute."""
    find = Asked()
    find("apps/v1", "Deployment", -1000.0)
    before = len(find.paths)
    for now in (0.0, 1.0, 59.0):
        assert find(version, kind, now) is None
    first = find.paths[before:]
    assert len(first) == len(set(first))
    find(version, kind, 60.0)
    assert find.paths[-1] == first[-1]
    assert len(find.paths) > before + len(first)


def test_many_unknown() -> None:
    """A hundred unknown kinds and groups cost as many requests as one."""
    find = Asked()
    for number in range(100):
        find(f"g{number}.example.com/v1", "Widget", 1.0)
        find(f"v{number + 2}", "Widget", 1.0)
        find("apps/v1", f"Widget{number}", 1.0)
    assert find.paths == ["/apis", "/api/v1", "/apis/apps/v1"]


def test_comes_later() -> None:
    """A group that is created later is found a minute after the last attempt."""
    pages = dict(PAGES)
    find = Asked({**pages, "/apis": {"groups": []}})
    assert find("example.com/v2", "Widget", 0.0) is None
    find.pages = pages
    assert [getattr(find("example.com/v2", "Widget", now), "name", None) for now in (59.9, 60.0)] == [None, "widgets"]


def test_old_version() -> None:
    """A version that is not served, or an empty one, is replaced by the group's preferred version."""
    find = Asked()
    assert [
        getattr(find(version, kind), "name", None)
        for version, kind in (("example.com/v1beta1", "Widget"), ("", "Pod"), ("v0", "Pod"))
    ] == ["widgets", "pods", "pods"]


@pytest.mark.parametrize(
    "version", ["../../api/v1", "apps/v1/..", "Apps/V1", "a b/v1", "v1?x=y", "/v1", "apps/", "é/v1"]
)
def test_no_version(version: str) -> None:
    """An invalid apiVersion causes no request."""
    find = Asked()
    assert (find(version, "Pod"), find.paths) == (None, [])


def test_unreadable() -> None:
    """A kind without `get` is known as not readable. A subresource is no kind."""
    find = Asked()
    binding = find("v1", "Binding")
    assert binding is not None
    assert not binding.readable
    assert find("v1", "Eviction") is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"resources": {}}', b"\xff", b"null", b"[" * 5000])
def test_nonsense(body: bytes) -> None:
    """An answer that is no discovery document raises an error, and is requested again after a minute."""
    discovery = Discovery()
    with pytest.raises(ValueError, match="/api/v1 is no discovery document"):
        discovery.learn("/api/v1", body, 0.0)
    assert [discovery.resolve("v1", "Pod", now) for now in (59.9, 60.0)] == [None, Unread("/api/v1")]


def test_forgotten() -> None:
    """A resource that is no longer served is looked up again, a minute after it was read."""
    find = Asked()
    deployments = find("apps/v1", "Deployment", 0.0)
    assert deployments is not None
    find.discovery.forget(deployments)
    del find.paths[:]
    assert find("apps/v1", "Deployment", 59.0) is None
    assert find.paths == []
    assert find("apps/v1", "Deployment", 60.0) == deployments


PODS = Resource("", "v1", "pods", namespaced=True)
NODES = Resource("", "v1", "nodes", namespaced=False)
DEPLOYMENTS = Resource("apps", "v1", "deployments", namespaced=True)


def test_paths() -> None:
    """Paths follow the API: cluster-scoped kinds ignore the namespace, and names are quoted."""
    reference = Reference("v1", "Pod", "default", "web:0 é", "")
    assert [each.path(reference) for each in (PODS, NODES, DEPLOYMENTS)] == [
        "/api/v1/namespaces/default/pods/web%3A0%20%C3%A9",
        "/api/v1/nodes/web%3A0%20%C3%A9",
        "/apis/apps/v1/namespaces/default/deployments/web%3A0%20%C3%A9",
    ]


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../secrets/s", "a%2fb", "a\n/b", "a" * 254])
def test_no_path(bad: str) -> None:
    """Pitfall 74: an impossible name has no path."""
    assert [
        PODS.path(Reference("v1", "Pod", bad, "web-0", "")),
        PODS.path(Reference("v1", "Pod", "default", bad, "")),
        NODES.path(Reference("v1", "Node", "", bad, "")),
    ] == [None, None, None]


def test_full_name() -> None:
    """A resource has the same full name in every version."""
    assert [each.full_name for each in (PODS, DEPLOYMENTS)] == ["pods", "deployments.apps"]
