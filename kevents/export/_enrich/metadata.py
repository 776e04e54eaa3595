"""An object's metadata: of the object nothing else ever leaves the server."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from typing import Any, Final, NamedTuple

import msgspec

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
TABLE: Final = "application/json;as=Table;g=meta.k8s.io;v=v1"
TABLE_QUERY: Final = "?includeObject=Metadata"

_MIRRORED: Final = "kubernetes.io/config.hash"
_ADDRESSES: Final = ("Internal-IP", "External-IP")
_NONE: Final = "<none>"
_UID_LENGTH: Final = 36
_UID_DASHES: Final = 4


class Reference(NamedTuple):
    """Which object is meant; also the key under which it is remembered. ``uid`` is empty if it says nothing."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the server has under a name.

    Attributes:
        uid: Of the object that has the name now.
        rv: Its resourceVersion.
        created: Its creationTimestamp as the server writes it, empty if unknown.
        terminating: Whether it has a deletionTimestamp.
        labels: Its labels.
        annotations: Its annotations, without those that were not wanted.
        owners: Its ownerReferences, as the server writes them.
        mirrors: The UID of the static pod for which this one stands, empty for all others.
        addresses: A Node's IP addresses, the internal one first.
        size: How many bytes the answer had.
    """

    uid: str
    rv: str
    created: str
    terminating: bool
    labels: dict[str, str]
    annotations: dict[str, str]
    owners: list[dict[str, Any]]
    mirrors: str = ""
    addresses: tuple[str, ...] = ()
    size: int = 0

    def stands_for(self, uid: str) -> bool:
        """Whether it is the object with a UID: also the mirror of a static pod, to which the kubelet gave the UID."""
        return not uid or uid == self.uid or (uid == self.mirrors and not is_given_by_server(uid))


def is_given_by_server(uid: str) -> bool:
    """Whether a UID never comes back; the kubelet makes others up for static pods, whose mirror may come later."""
    return len(uid) == _UID_LENGTH and uid.count("-") == _UID_DASHES


class _Meta(msgspec.Struct, rename="camel"):
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[dict[str, Any]] | None = None


class _Partial(msgspec.Struct):
    metadata: _Meta


class _Column(msgspec.Struct):
    name: str = ""


class _Row(msgspec.Struct):
    object: _Partial
    cells: list[Any] = []


class _Table(msgspec.Struct, rename="camel"):
    rows: list[_Row]
    column_definitions: list[_Column] = []


_PARTIAL: Final = msgspec.json.Decoder(_Partial)
_TABLE: Final = msgspec.json.Decoder(_Table)


def unwanted(patterns: Iterable[str]) -> re.Pattern[str]:
    """Compile which annotations are left out: names, in which ``*`` stands for anything.

    Raises:
        ValueError: If they are no names.
    """
    patterns = patterns if isinstance(patterns, str) else list(patterns)
    if isinstance(patterns, str) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"drop_annotations must be names of annotations in a list, not {patterns!r}")
    return re.compile("|".join(f"(?:{translate(pattern)})" for pattern in patterns) or r"(?!)")


def read_metadata(body: bytes, without: re.Pattern[str]) -> Found:
    """Read a PartialObjectMetadata.

    Args:
        body: The server's answer.
        without: Which annotations are left out.

    Raises:
        ValueError: If it is none.
    """
    return _found(_decoded(_PARTIAL, body).metadata, without, (), len(body))


def read_row(body: bytes, without: re.Pattern[str]) -> Found:
    """Read a Table of one Node with its metadata: the only form that has its addresses without the whole object.

    Raises:
        ValueError: If it is none.
    """
    table: _Table = _decoded(_TABLE, body)
    if len(table.rows) != 1:
        raise ValueError(f"a table of one row was asked for, not of {len(table.rows)}")
    cells = dict(zip((column.name for column in table.column_definitions), table.rows[0].cells, strict=False))
    addresses = tuple(
        cell for name in _ADDRESSES if isinstance(cell := cells.get(name), str) and cell not in ("", _NONE)
    )
    return _found(table.rows[0].object.metadata, without, addresses, len(body))


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
