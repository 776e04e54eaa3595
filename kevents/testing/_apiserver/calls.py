"""What travels between the handler and the resources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kevents.testing._apiserver.kinds import Kind
    from kevents.testing._apiserver.requests import Incoming

__all__ = ["Call", "Reply"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A request for a resource, understood as far as its path and its query go."""

    kind: Kind
    verb: str
    namespace: str
    name: str
    query: Mapping[str, str]
    request: Incoming


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that went well: objects in their stored form, and what stands around them.

    Attributes:
        kind: The kind of the objects.
        status: The HTTP status.
        objects: One object, or the items of a list.
        metadata: The metadata of the list; None for a single object.
        warnings: Texts for `Warning` headers.
        body: The whole body, for answers that are no objects of the kind.
    """

    kind: Kind
    status: int
    objects: tuple[Object, ...] = ()
    metadata: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    body: Mapping[str, Any] | None = None
