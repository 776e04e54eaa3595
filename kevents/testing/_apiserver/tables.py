"""How objects are rendered: whole, as metadata only, or as the table that kubectl prints."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.requests import APIError, bad_request

if TYPE_CHECKING:
    from kevents.testing._apiserver.kinds import Kind
    from kevents.testing._apiserver.requests import Reply

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """The form that the client asked for.

    Attributes:
        as_: The parameter `as` of `Accept`: empty, `PartialObjectMetadata`, or `Table`.
        include: The query parameter `includeObject`: how much of the object a row of a table has.
    """

    as_: str = ""
    include: str = ""


_PARTIAL: Final = ("PartialObjectMetadata", "PartialObjectMetadataList")
_META: Final = "meta.k8s.io/v1"


def negotiate(accept: str, *, listed: bool = False, include: str = "") -> Shape:
    """Parse an `Accept` header: the first type that the server knows decides.

    Args:
        accept: The header.
        listed: Whether the request is a list; the metadata of a list has another name than that of an object.
        include: The parameter `includeObject`, which matters for tables.

    Raises:
        APIError: 406 if the server knows none of the types; 400 for an unknown `includeObject`.
    """
    if accept in {"", "*/*", "application/json"}:
        return Shape()
    for wish in accept.split(","):
        name, *parameters = [part.strip() for part in wish.split(";")]
        given = dict(part.partition("=")[::2] for part in parameters)
        as_ = given.get("as", "")
        if (
            name in {"*/*", "application/json"}
            and as_ in {"", "Table", _PARTIAL[listed]}
            and given.get("v", "v1") == "v1"
        ):
            return _table_shape(include) if as_ == "Table" else Shape(as_.removesuffix("List"))
    types = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    raise APIError(406, "NotAcceptable", f"406: Not Acceptable\n\nAvailable representations: {types}", {})


def _table_shape(include: str) -> Shape:
    if include not in {"", "Metadata", "Object", "None"}:
        wrong = f"includeObject: Invalid value: \"{include}\": must be 'Metadata', 'Object', 'None', or empty"
        raise bad_request(f"Unable to convert to Table as requested: {wrong}")
    return Shape("Table", include)


def render(reply: Reply, shape: Shape, now: int) -> Object:
    """Return the body of an answer.

    Args:
        reply: The result.
        shape: The form.
        now: The wall clock in nanoseconds, for ages in tables.
    """
    if reply.body is not None:
        return dict(reply.body)
    if reply.metadata is None:
        return render_object(reply.kind, reply.objects[0], shape, now)
    if shape.as_ == "Table":
        return _table(reply.kind, reply.objects, dict(reply.metadata), now, shape.include)
    if shape.as_ == "PartialObjectMetadata":
        items = [_partial(stored) for stored in reply.objects]
        return {"kind": "PartialObjectMetadataList", "apiVersion": _META, "metadata": reply.metadata, "items": items}
    items = [reply.kind.show(stored) for stored in reply.objects]
    if not reply.kind.custom:
        for item in items:
            del item["kind"], item["apiVersion"]
    head = {"kind": f"{reply.kind.kind}List", "apiVersion": reply.kind.api_version}
    return {**head, "metadata": reply.metadata, "items": items}


def render_object(kind: Kind, stored: Object, shape: Shape, now: int, *, header: bool = True) -> Object:
    """Return one object; `header` is whether a table has the definitions of its columns."""
    if shape.as_ == "PartialObjectMetadata":
        return _partial(stored)
    if shape.as_ == "Table":
        version = stored["metadata"].get("resourceVersion", "")
        return _table(kind, (stored,), {"resourceVersion": version}, now, shape.include, header=header)
    return kind.show(stored)


def _partial(stored: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": stored["metadata"]}


def _table(
    kind: Kind, objects: tuple[Object, ...], metadata: Object, now: int, include: str, *, header: bool = True
) -> Object:
    shown = {"None": lambda _: None, "Object": kind.show}.get(include, _partial)
    rows = [{"cells": _cells(kind, stored, now), "object": shown(stored)} for stored in objects]
    body: Object = {"kind": "Table", "apiVersion": _META, "metadata": metadata}
    return {**body, "columnDefinitions": _columns(kind) if header else None, "rows": rows}


_NANOSECONDS: Final = 1_000_000_000
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "y": 365 * 86_400}
_STEPS: Final = (  # below this number of seconds, an age is shown in the first unit and, if any, in the second
    (120, "s", ""),
    (600, "m", "s"),
    (3 * 3600, "m", ""),
    (8 * 3600, "h", "m"),
    (48 * 3600, "h", ""),
    (8 * 86_400, "d", "h"),
    (2 * 365 * 86_400, "d", ""),
    (8 * 365 * 86_400, "y", "d"),
)
_EVENT_COLUMNS: Final = (
    ("Last Seen", 0),
    ("Type", 0),
    ("Reason", 0),
    ("Object", 0),
    ("Subobject", 1),
    ("Source", 1),
    ("Message", 0),
    ("First Seen", 1),
    ("Count", 1),
    ("Name", 1),
)
_COLUMNS: Final = {
    "events": _EVENT_COLUMNS,
    "namespaces.": (("Name", 0), ("Status", 0), ("Age", 0)),
    "pods.": (("Name", 0), ("Ready", 0), ("Status", 0), ("Restarts", 0), ("Age", 0)),
    "configmaps.": (("Name", 0), ("Data", 0), ("Age", 0)),
    "nodes.": (
        ("Name", 0),
        ("Status", 0),
        ("Roles", 0),
        ("Age", 0),
        ("Version", 0),
        ("Internal-IP", 1),
        ("External-IP", 1),
        ("OS-Image", 1),
        ("Kernel-Version", 1),
        ("Container-Runtime", 1),
    ),
}
_OTHER_COLUMNS: Final = (("Name", 0), ("Age", 0))


def _columns(kind: Kind) -> list[Object]:
    return [
        {
            "name": name,
            "type": "string",
            "format": "name" if name == "Name" else "",
            "description": f"{name} of the {kind.kind}",
            "priority": priority,  # 1: only in wide output
        }
        for name, priority in _COLUMNS.get(kind.bucket, _OTHER_COLUMNS)
    ]


def _cells(kind: Kind, stored: Object, now: int) -> list[object]:
    if kind.bucket == "events":
        return _event_cells(stored, now)
    if kind.bucket == "nodes.":
        return _node_cells(stored, now)
    metadata, status = stored["metadata"], stored.get("status", {})
    cells: list[object] = []
    if kind.bucket == "pods.":
        statuses = status.get("containerStatuses", [])
        ready = sum(bool(status.get("ready")) for status in statuses)
        restarts = sum(status.get("restartCount", 0) for status in statuses)
        containers = stored.get("spec", {}).get("containers", [])
        cells = [f"{ready}/{len(containers)}", status.get("phase", ""), str(restarts)]
    elif kind.bucket == "namespaces.":
        cells = [status.get("phase", "")]
    elif kind.bucket == "configmaps.":
        cells = [len(stored.get("data", {}))]
    return [metadata.get("name", ""), *cells, _age(metadata.get("creationTimestamp"), now)]


def _event_cells(event: Object, now: int) -> list[object]:
    involved, source = event.get("involvedObject", {}), event.get("source", {})
    kind, name = involved.get("kind", ""), involved.get("name", "")
    first = event.get("firstTimestamp") or event.get("eventTime")
    series = event.get("series")
    last = event.get("lastTimestamp") or first if series is None else series.get("lastObservedTime")
    count = event.get("count") or 1 if series is None else series.get("count", 0)
    component = source.get("component") or event.get("reportingComponent", "")
    host = source.get("host") or event.get("reportingInstance", "")
    return [
        _age(last, now),
        event.get("type", ""),
        event.get("reason", ""),
        f"{kind.lower()}/{name}" if name else kind.lower(),
        involved.get("fieldPath", ""),
        f"{component}, {host}" if host else component,
        event.get("message", "").strip(),
        _age(first, now),
        count,
        event["metadata"].get("name", ""),
    ]


def _node_cells(node: Object, now: int) -> list[object]:
    metadata, status = node["metadata"], node.get("status", {})
    ready = {condition.get("type"): condition.get("status") for condition in status.get("conditions", ())}.get("Ready")
    states = ["Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"]
    if node.get("spec", {}).get("unschedulable"):
        states.append("SchedulingDisabled")
    prefix = "node-role.kubernetes.io/"
    roles = sorted(key.removeprefix(prefix) for key in metadata.get("labels", {}) if key.startswith(prefix))
    addresses = {address.get("type"): address.get("address") for address in reversed(status.get("addresses", ()))}
    info = status.get("nodeInfo", {})
    return [
        metadata["name"],
        ",".join(states),
        ",".join(roles) or "<none>",
        _age(metadata.get("creationTimestamp"), now),
        info.get("kubeletVersion", ""),
        *(addresses.get(key, "<none>") for key in ("InternalIP", "ExternalIP")),
        *(info.get(key) or "<unknown>" for key in ("osImage", "kernelVersion", "containerRuntimeVersion")),
    ]


def _age(text: str | None, now: int) -> str:
    if not text:
        return "<unknown>"
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    seconds = int(now / _NANOSECONDS - moment.astimezone(timezone.utc).timestamp())
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    large, small = next(((large, small) for limit, large, small in _STEPS if seconds < limit), ("y", ""))
    whole, rest = divmod(seconds, _UNITS[large])
    part = rest // _UNITS[small] if small else 0
    return f"{whole}{large}{part}{small}" if part else f"{whole}{large}"
