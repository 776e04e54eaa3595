"""Kinds are found where the server says, asked for once, and again a minute later when they were not there."""

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
    """One entry of a list of resources."""
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
    """A discovery that is given what it asks for, and which paths those were."""

    def __init__(self, pages: Mapping[str, Any] = PAGES) -> None:
        """Ask for nothing yet."""
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
    """A group and version is read when one of its kinds is first asked for, and then no more."""
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
    """An unknown kind is looked for at most once a minute, whatever was asked for meanwhile."""
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
    """A hundred kinds and groups that do not exist cost no more than one does."""
    find = Asked()
    for number in range(100):
        find(f"g{number}.example.com/v1", "Widget", 1.0)
        find(f"v{number + 2}", "Widget", 1.0)
        find("apps/v1", f"Widget{number}", 1.0)
    assert find.paths == ["/apis", "/api/v1", "/apis/apps/v1"]


def test_comes_later() -> None:
    """A group that is defined while we run is found a minute after it was looked for."""
    pages = dict(PAGES)
    find = Asked({**pages, "/apis": {"groups": []}})
    assert find("example.com/v2", "Widget", 0.0) is None
    find.pages = pages
    assert [getattr(find("example.com/v2", "Widget", now), "name", None) for now in (59.9, 60.0)] == [None, "widgets"]


def test_old_version() -> None:
    """A version that is no longer served stands for the one that its group prefers, and so does none."""
    find = Asked()
    assert [
        getattr(find(version, kind), "name", None)
        for version, kind in (("example.com/v1beta1", "Widget"), ("", "Pod"), ("v0", "Pod"))
    ] == ["widgets", "pods", "pods"]


@pytest.mark.parametrize(
    "version", ["../../api/v1", "apps/v1/..", "Apps/V1", "a b/v1", "v1?x=y", "/v1", "apps/", "é/v1"]
)
def test_no_version(version: str) -> None:
    """What is no apiVersion is asked nobody for."""
    find = Asked()
    assert (find(version, "Pod"), find.paths) == (None, [])


def test_unreadable() -> None:
    """Of a kind whose objects cannot be read that is known; a subresource stands for no kind."""
    find = Asked()
    binding = find("v1", "Binding")
    assert binding is not None
    assert not binding.readable
    assert find("v1", "Eviction") is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"resources": {}}', b"\xff", b"null", b"[" * 5000])
def test_nonsense(body: bytes) -> None:
    """An answer that is no discovery document is an error once, and is not asked for again for a minute."""
    discovery = Discovery()
    with pytest.raises(ValueError, match="/api/v1 is no discovery document"):
        discovery.learn("/api/v1", body, 0.0)
    assert [discovery.resolve("v1", "Pod", now) for now in (59.9, 60.0)] == [None, Unread("/api/v1")]


def test_forgotten() -> None:
    """A resource that is not served any more is looked for again, a minute after it was read."""
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
    """Objects are where the API says; the namespace of an object that lives in none is ignored; names are quoted."""
    reference = Reference("v1", "Pod", "default", "web:0 é", "")
    assert [each.path(reference) for each in (PODS, NODES, DEPLOYMENTS)] == [
        "/api/v1/namespaces/default/pods/web%3A0%20%C3%A9",
        "/api/v1/nodes/web%3A0%20%C3%A9",
        "/apis/apps/v1/namespaces/default/deployments/web%3A0%20%C3%A9",
    ]


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../secrets/s", "a%2fb", "a\n/b", "a" * 254])
def test_no_path(bad: str) -> None:
    """Pitfall 74: a name that no object can have leads nowhere, least of all to another resource."""
    assert [
        PODS.path(Reference("v1", "Pod", bad, "web-0", "")),
        PODS.path(Reference("v1", "Pod", "default", bad, "")),
        NODES.path(Reference("v1", "Node", "", bad, "")),
    ] == [None, None, None]


def test_full_name() -> None:
    """A resource has one name whatever its version."""
    assert [each.full_name for each in (PODS, DEPLOYMENTS)] == ["pods", "deployments.apps"]
