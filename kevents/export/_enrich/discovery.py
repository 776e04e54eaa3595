"""Under which path the objects of a kind are found, as the server itself says it."""

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
_UNSAFE_NAME: Final = re.compile(r"\.{0,2}|.*[/%].*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Resource:
    """Where the objects of a kind are.

    Attributes:
        group: The API group, empty for core.
        version: A version that is served.
        name: The plural.
        namespaced: Whether its objects live in namespaces.
        readable: Whether single objects can be read at all.
    """

    group: str
    version: str
    name: str
    namespaced: bool
    readable: bool = True

    @property
    def full_name(self) -> str:
        """``deployments.apps``, ``pods``: one name whatever the version."""
        return f"{self.name}.{self.group}" if self.group else self.name

    def path(self, reference: Reference) -> str | None:
        """Give the path of an object; None if no object can have such a name."""
        places = [reference.namespace, reference.name] if self.namespaced else [reference.name]
        if any(_UNSAFE_NAME.fullmatch(place) or len(place) > _LONGEST_NAME for place in places):
            return None
        base = version_path(self.group, self.version)
        where = f"/namespaces/{quote(reference.namespace, safe='')}" if self.namespaced else ""
        return f"{base}{where}/{self.name}/{quote(reference.name, safe='')}"


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
    """What was read of a path, and when it was last asked for."""

    content: dict[str, Any]
    asked_at: float


@dataclass(frozen=True, slots=True)
class Unread:
    """An answer of `Discovery`: the path that has to be read first."""

    path: str


class Discovery:
    """Learns the resources of a group and version when one is first asked for; not for several threads.

    It asks nobody itself: it says which path is to be read, and is told what was there. A kind that is not known is
    looked for again a minute after the last time: it may have come since.
    """

    def __init__(self) -> None:
        """Know nothing."""
        self._pages: dict[str, _Page] = {}

    def resolve(self, api_version: str, kind: str, now: float) -> Resource | Unread | None:
        """Find the resource of a kind.

        Args:
            api_version: As a reference has it; empty: core. A version that is not served stands for the one that its
                group prefers.
            kind: The kind.
            now: The present, in seconds by the monotonic clock.

        Returns:
            The resource; what has to be read first; None if the server knows no such kind.
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
        """Take in what was at a path.

        Args:
            path: As `Unread` named it.
            body: The server's answer, None if it has no such path.
            now: The present.

        Raises:
            ValueError: If the answer is not what discovery answers; the path is not asked for again for a minute.
        """
        page = self._pages[path] = _Page({}, now)
        if body is not None:
            try:
                page.content = _read_groups(body) if path == "/apis" else _read_resources(path, body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ValueError(f"{path} is no discovery document: {error}") from None

    def forget(self, resource: Resource) -> None:
        """It is not served any more: look for it again, a minute after the last time."""
        for path in (version_path(resource.group, resource.version), "/apis"):
            if path in self._pages:
                self._pages[path].content = {}

    def _find(self, path: str, key: str, now: float) -> Any:  # noqa: ANN401 - of either kind of page
        page = self._pages.get(path)
        if page is None or (key not in page.content and now - page.asked_at >= REFRESH):
            return Unread(path)
        return page.content.get(key)


def version_path(group: str, version: str) -> str:
    """Give the path of a group's version."""
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


def _read_groups(body: bytes) -> dict[str, Any]:
    """By group its versions, the preferred one first."""
    found = {}
    for group in msgspec.json.decode(body, type=_GroupList).groups:
        preferred = [group.preferred_version.version] if group.preferred_version else []
        if versions := [*preferred, *(each.version for each in group.versions)]:
            found[group.name] = versions
    return found


def _read_resources(path: str, body: bytes) -> dict[str, Any]:
    group, version = path.split("/")[2:] if path.startswith("/apis/") else ("", path.rpartition("/")[2])
    return {
        each.kind: Resource(group, version, each.name, each.namespaced, "get" in each.verbs)
        for each in msgspec.json.decode(body, type=_ResourceList).resources
        if not _UNSAFE_NAME.fullmatch(each.name)  # also the subresources, pods/log
    }
