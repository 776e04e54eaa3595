"""The shapes in which objects go out: as they are, metadata only, or as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kevents.testing._apiserver.status import APIError, bad_request
from kevents.testing._apiserver.tables import columns, row

if TYPE_CHECKING:
    from kevents.testing._apiserver.calls import Reply
    from kevents.testing._apiserver.kinds import Kind

__all__ = ["PLAIN", "Shape", "negotiate", "render", "render_object"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """What the client asked for.

    Attributes:
        as_: With `Accept`: empty, `PartialObjectMetadata`, or `Table`.
        include: With `includeObject`, how much of an object goes with a table's row; empty for its metadata.
    """

    as_: str = ""
    include: str = ""


PLAIN = Shape()
_ALONE = ("PartialObjectMetadata", "PartialObjectMetadataList")
_SHAPES = ("", *_ALONE, "Table")
_META = "meta.k8s.io/v1"


def negotiate(accept: str, *, listed: bool = False, include: str = "") -> Shape:
    """Read an `Accept` header; the first type that the server knows counts.

    Args:
        accept: The header.
        listed: Whether a list is asked for, whose metadata alone has another name than that of an object.
        include: The parameter `includeObject`, which counts for tables.

    Raises:
        APIError: 406 when it knows none; 400 for such an `includeObject`.
    """
    if accept in {"", "*/*", "application/json"}:
        return PLAIN
    for wish in accept.split(","):
        name, *parameters = [part.strip() for part in wish.split(";")]
        given = dict(part.partition("=")[::2] for part in parameters)
        as_ = given.get("as", "")
        fits = as_ in _SHAPES and as_ != _ALONE[not listed]
        if name in {"*/*", "application/json"} and fits and given.get("v", "v1") == "v1":
            return _table(include) if as_ == "Table" else Shape(as_.removesuffix("List"))
    types = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    raise APIError(406, "NotAcceptable", f"406: Not Acceptable\n\nAvailable representations: {types}", {})


def _table(include: str) -> Shape:
    if include not in {"", "Metadata", "Object", "None"}:
        wrong = f"includeObject: Invalid value: \"{include}\": must be 'Metadata', 'Object', 'None', or empty"
        raise bad_request(f"Unable to convert to Table as requested: {wrong}")
    return Shape("Table", include)


def render(reply: Reply, shape: Shape, now: int) -> Object:
    """Give the body of a reply.

    Args:
        reply: What is to be shown.
        shape: In which shape.
        now: The wall clock in nanoseconds, for ages in tables.
    """
    if reply.body is not None:
        return dict(reply.body)
    if shape.as_ == "Table":
        version = reply.objects[0]["metadata"].get("resourceVersion", "") if reply.objects else ""
        metadata = reply.metadata if reply.metadata is not None else {"resourceVersion": version}
        return table(reply.kind, reply.objects, dict(metadata), now, shape.include)
    if reply.metadata is None:
        return render_object(reply.kind, reply.objects[0], shape, now)
    if shape.as_ == "PartialObjectMetadata":
        items = [partial(stored) for stored in reply.objects]
        return {"kind": "PartialObjectMetadataList", "apiVersion": _META, "metadata": reply.metadata, "items": items}
    items = [_item(reply.kind, stored) for stored in reply.objects]
    head = {"kind": f"{reply.kind.kind}List", "apiVersion": reply.kind.api_version}
    return {**head, "metadata": reply.metadata, "items": items}


def render_object(kind: Kind, stored: Object, shape: Shape, now: int, *, header: bool = True) -> Object:
    """Give one object in a shape; as a table, with the columns' definitions or without."""
    if shape.as_ == "PartialObjectMetadata":
        return partial(stored)
    if shape.as_ == "Table":
        version = stored["metadata"].get("resourceVersion", "")
        return table(kind, (stored,), {"resourceVersion": version}, now, shape.include, header=header)
    return kind.show(stored)


def partial(stored: Object) -> Object:
    """Give an object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": stored["metadata"]}


def table(
    kind: Kind, objects: tuple[Object, ...], metadata: Object, now: int, include: str = "", *, header: bool = True
) -> Object:
    """Give objects as the table that kubectl prints, with as much of each object as is to be included."""
    definitions = columns(kind) if header else None
    shown = {"None": lambda _: None, "Object": kind.show}.get(include, partial)
    rows = [{"cells": row(kind, stored, now), "object": shown(stored)} for stored in objects]
    body: Object = {"kind": "Table", "apiVersion": _META, "metadata": metadata}
    return {**body, "columnDefinitions": definitions, "rows": rows}


def _item(kind: Kind, stored: Object) -> Object:
    view = kind.show(stored)
    if not kind.custom:
        del view["kind"], view["apiVersion"]
    return view
