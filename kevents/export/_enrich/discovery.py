"""Metadata of objects as the server sends it, and API discovery, which maps a kind to the path of its objects."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
TABLE: Final = "application/json;as=Table;g=meta.k8s.io;v=v1"
TABLE_QUERY: Final = "includeObject=Metadata"

_MIRRORED: Final = "kubernetes.io/config.hash"
_ADDRESSES: Final = ("Internal-IP", "External-IP")
_NONE: Final = ("", "<none>")
_UID_LENGTH: Final = 36
_UID_DASHES: Final = 4


class Reference(NamedTuple):
    """A reference to an object, and its key in the caches. ``uid`` is empty if it identifies no object."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Found:
    """The metadata that the server has under a name."""

    uid: str  # the UID of the object that has the name now
    rv: str  # its resourceVersion
    created: str  # its creationTimestamp as the server writes it; empty if unknown
    terminating: bool  # True if it has a deletionTimestamp
    labels: dict[str, str]
    annotations: dict[str, str]  # its annotations, without the unwanted ones
    owners: list[dict[str, Any]]  # its ownerReferences, as the server writes them
    mirrors: str = ""  # for a mirror pod, the UID of its static pod; else empty
    addresses: tuple[str, ...] = ()  # a Node's IP addresses, the internal one first
    size: int = 0  # the size of the answer in bytes

    def stands_for(self, uid: str) -> bool:
        """True if a UID means this object: its own, or that of its static pod, or none."""
        return not uid or uid == self.uid or (uid == self.mirrors and not is_given_by_server(uid))


@dataclass(frozen=True, slots=True)
class FoundPage:
    """One page of a list of metadata."""

    found: dict[str, Found]  # by name
    token: str  # the continue token of the next page; empty: this is the last one
    remaining: int  # the number of objects on the following pages, as far as the server knows it


def is_given_by_server(uid: str) -> bool:
    """True for a UID that never comes back. Those that the kubelet makes up for static pods may come back."""
    return len(uid) == _UID_LENGTH and uid.count("-") == _UID_DASHES


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[dict[str, Any]] | None = None


class _ListMeta(msgspec.Struct, rename={"token": "continue", "remaining": "remainingItemCount"}):
    token: str = ""
    remaining: int | None = None


class _Partial(msgspec.Struct):
    metadata: _Meta


class _PartialList(msgspec.Struct):
    metadata: _ListMeta
    items: list[_Partial] | None = None


class _Column(msgspec.Struct):
    name: str = ""


class _Row(msgspec.Struct):
    object: _Partial
    cells: list[Any] = []


class _Table(msgspec.Struct, rename="camel"):
    rows: list[_Row]
    column_definitions: list[_Column] = []
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


_PARTIAL: Final = msgspec.json.Decoder(_Partial)
_PARTIAL_LIST: Final = msgspec.json.Decoder(_PartialList)
_TABLE: Final = msgspec.json.Decoder(_Table)


def unwanted(patterns: Iterable[str]) -> re.Pattern[str]:
    """Compile the names of dropped annotations; ``*`` stands for any text. Raises ValueError if they are no names."""
    patterns = patterns if isinstance(patterns, str) else list(patterns)
    if isinstance(patterns, str) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"drop_annotations must be names of annotations in a list, not {patterns!r}")
    return re.compile("|".join(f"(?:{translate(pattern)})" for pattern in patterns) or r"(?!)")


def read_metadata(body: bytes, without: re.Pattern[str]) -> Found:
    """Decode a PartialObjectMetadata. Raises ValueError if it is none."""
    return _found(_decoded(_PARTIAL, body).metadata, without, (), len(body))


def read_row(body: bytes, without: re.Pattern[str]) -> Found:
    """Decode a Table of one Node, the only form with its addresses but without the whole object. Raises ValueError."""
    table: _Table = _decoded(_TABLE, body)
    if len(table.rows) != 1:
        raise ValueError(f"a table of one row was asked for, not of {len(table.rows)}")
    return next(iter(_rows(table, len(body), without).found.values()))


def read_metadata_list(body: bytes, without: re.Pattern[str]) -> FoundPage:
    """Decode a PartialObjectMetadataList. Raises ValueError if it is none."""
    page: _PartialList = _decoded(_PARTIAL_LIST, body)
    return _page(page.metadata, [(item.metadata, ()) for item in page.items or ()], len(body), without)


def read_rows(body: bytes, without: re.Pattern[str]) -> FoundPage:
    """Decode a Table of Nodes. Raises ValueError if it is none."""
    return _rows(_decoded(_TABLE, body), len(body), without)


def _rows(table: _Table, size: int, without: re.Pattern[str]) -> FoundPage:
    columns = [column.name for column in table.column_definitions]
    rows = []
    for row in table.rows:
        cells = dict(zip(columns, row.cells, strict=False))
        addresses = tuple(cell for name in _ADDRESSES if isinstance(cell := cells.get(name), str) and cell not in _NONE)
        rows.append((row.object.metadata, addresses))
    return _page(table.metadata, rows, size, without)


def _page(
    meta: _ListMeta, items: Sequence[tuple[_Meta, tuple[str, ...]]], size: int, without: re.Pattern[str]
) -> FoundPage:
    each = size // max(len(items), 1)
    found = {item.name: _found(item, without, addresses, each) for item, addresses in items}
    return FoundPage(found, meta.token, meta.remaining or 0)


def _decoded(decoder: Any, body: bytes) -> Any:  # noqa: ANN401 - of any of the forms
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the server's answer is no metadata: {error}") from None


def _found(meta: _Meta, without: re.Pattern[str], addresses: tuple[str, ...], size: int) -> Found:
    annotations = meta.annotations or {}
    return Found(
        uid=meta.uid,
        rv=meta.resource_version,
        created=meta.creation_timestamp or "",
        terminating=meta.deletion_timestamp is not None,
        labels=meta.labels or {},
        annotations={key: value for key, value in annotations.items() if not without.match(key)},
        owners=meta.owner_references or [],
        mirrors=annotations.get(_MIRRORED, ""),
        addresses=addresses,
        size=size,
    )


REFRESH: Final = 60.0

_VERSION: Final = re.compile(r"(?:([a-z0-9.-]+)/)?([a-z0-9]+)")
_LONGEST_NAME: Final = 253
_UNSAFE_NAME: Final = re.compile(r"\.{0,2}|.*[/%\ud800-\udfff].*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Resource:
    """The resource of a kind."""

    group: str  # the API group, empty for core
    version: str  # a served version
    name: str  # the plural
    namespaced: bool  # True if its objects live in namespaces
    readable: bool = True  # True if single objects can be read
    listable: bool = False  # True if objects can be listed

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
        self._content: dict[str, dict[str, Any]] = {}  # by path
        self._asked_at: dict[str, float] = {}  # the time of a path's last request

    def resolve(self, api_version: str, kind: str, now: float) -> Resource | Unread | None:
        """Return the resource of a kind, or the path that must be read first; None if the server has no such kind."""
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
        """Store the content of a path for at least a minute. Raises ValueError if it is no discovery document."""
        self._content[path], self._asked_at[path] = {}, now
        if body is not None:
            try:
                self._content[path] = _read_groups(body) if path == "/apis" else _read_resources(path, body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ValueError(f"{path} is no discovery document: {error}") from None

    def forget(self, resource: Resource) -> None:
        """Forget a resource that is no longer served; it is looked up again a minute after the last time."""
        for path in (version_path(resource.group, resource.version), "/apis"):
            self._content.pop(path, None)

    def _find(self, path: str, key: str, now: float) -> Any:  # noqa: ANN401 - of either kind of path
        found = self._content.get(path, {}).get(key)
        if found is None and now - self._asked_at.get(path, -math.inf) >= REFRESH:
            return Unread(path)
        return found


def version_path(group: str, version: str) -> str:
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
