"""API discovery: maps a kind to the path of its objects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import msgspec

from kevents.export._enrich.metadata import Reference

REFRESH: Final = 60.0

_VERSION: Final = re.compile(r"(?:([a-z0-9.-]+)/)?([a-z0-9]+)")
_LONGEST_NAME: Final = 253
_UNSAFE_NAME: Final = re.compile(r"\.{0,2}|.*[/%\ud800-\udfff].*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Resource:
    """The resource of a kind.

    Attributes:
        group: The API group, empty for core.
        version: A served version.
        name: The plural.
        namespaced: True if its objects live in namespaces.
        readable: True if single objects can be read.
        listable: True if objects can be listed.
    """

    group: str
    version: str
    name: str
    namespaced: bool
    readable: bool = True
    listable: bool = False

    @property
    def full_name(self) -> str:
        """The plural and the group, ``deployments.apps`` or ``pods``; the same for all versions."""
        return f"{self.name}.{self.group}" if self.group else self.name

    def path(self, reference: Reference) -> str | None:
        """Return the path of an object; None if no object can have this name or namespace."""
        names = [reference.namespace, reference.name] if self.namespaced else [reference.name]
        if any(_UNSAFE_NAME.fullmatch(name) or len(name) > _LONGEST_NAME for name in names):
            return None
        return f"{self.list_path(reference.namespace)}/{quote(reference.name, safe='')}"

    def list_path(self, namespace: str) -> str:
        """Return the path of all objects in a namespace; of a cluster-scoped resource, of all objects."""
        where = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced else ""
        return f"{version_path(self.group, self.version)}{where}/{self.name}"


class _Version(msgspec.Struct):
    version: str = ""


class _Group(msgspec.Struct, rename="camel"):
    name: str
    versions: list[_Version] = []
    preferred_version: _Version | None = None


class _GroupList(msgspec.Struct):
    groups: list[_Group] = []


class _Listed(msgspec.Struct):
    name: str
    kind: str = ""
    namespaced: bool = False
    verbs: list[str] = []


class _ResourceList(msgspec.Struct):
    resources: list[_Listed] = []


@dataclass(slots=True)
class _Page:
    """The content of a discovery path, and the time of the last request."""

    content: dict[str, Any]
    asked_at: float


@dataclass(frozen=True, slots=True)
class Unread:
    """Returned by `Discovery` if a path must be read first."""

    path: str


class Discovery:
    """Learns the resources of a group and version when one is first needed; not thread-safe.

    It makes no request: it returns the path that must be read, and gets its content by `learn`. An unknown kind is
    looked up again after a minute, because it may have been installed since.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._pages: dict[str, _Page] = {}

    def resolve(self, api_version: str, kind: str, now: float) -> Resource | Unread | None:
        """Find the resource of a kind.

        Args:
            api_version: From the reference; empty: core. For a version that is not served, the group's preferred one
                is used.
            kind: The kind.
            now: The present, in seconds by the monotonic clock.

        Returns:
            The resource; the path that must be read first; None if the server has no such kind.
        """
        match = _VERSION.fullmatch(api_version or "v1")
        if match is None:
            return None
        group, version = match[1] or "", match[2] if match[1] else "v1"
        if group:
            versions = self._find("/apis", group, now)
            if versions is None or isinstance(versions, Unread):
                return versions
            version = version if version in versions else versions[0]
        found: Resource | Unread | None = self._find(version_path(group, version), kind, now)
        return found

    def learn(self, path: str, body: bytes | None, now: float) -> None:
        """Store the content of a path.

        Args:
            path: From `Unread`.
            body: The server's answer; None if it has no such path.
            now: The present.

        Raises:
            ValueError: If the answer is no discovery document; the path is not read again for a minute.
        """
        page = self._pages[path] = _Page({}, now)
        if body is not None:
            try:
                page.content = _read_groups(body) if path == "/apis" else _read_resources(path, body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ValueError(f"{path} is no discovery document: {error}") from None

    def forget(self, resource: Resource) -> None:
        """Forget a resource that is no longer served; it is looked up again a minute after the last time."""
        for path in (version_path(resource.group, resource.version), "/apis"):
            if path in self._pages:
                self._pages[path].content = {}

    def _find(self, path: str, key: str, now: float) -> Any:  # noqa: ANN401 - of either kind of page
        page = self._pages.get(path)
        if page is None or (key not in page.content and now - page.asked_at >= REFRESH):
            return Unread(path)
        return page.content.get(key)


def version_path(group: str, version: str) -> str:
    """Return the path of a group's version."""
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


def _read_groups(body: bytes) -> dict[str, Any]:
    """The versions of each group, the preferred one first."""
    found = {}
    for group in msgspec.json.decode(body, type=_GroupList).groups:
        preferred = [group.preferred_version.version] if group.preferred_version else []
        if versions := [*preferred, *(each.version for each in group.versions)]:
            found[group.name] = versions
    return found


def _read_resources(path: str, body: bytes) -> dict[str, Any]:
    group, version = path.split("/")[2:] if path.startswith("/apis/") else ("", path.rpartition("/")[2])
    return {
        each.kind: Resource(group, version, each.name, each.namespaced, "get" in each.verbs, "list" in each.verbs)
        for each in msgspec.json.decode(body, type=_ResourceList).resources
        if not _UNSAFE_NAME.fullmatch(each.name)  # leaves out subresources such as pods/log
    }
