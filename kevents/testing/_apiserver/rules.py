"""Rules on requests and objects that need no store."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.events import validate_create
from kevents.testing._apiserver.names import metadata_causes, object_name_causes
from kevents.testing._apiserver.schema import META
from kevents.testing._apiserver.status import (
    APIError,
    Cause,
    bad_request,
    field_immutable,
    field_invalid,
    invalid,
    unsupported_media_type,
)

if TYPE_CHECKING:
    from kevents.testing._apiserver.kinds import Kind
    from kevents.testing._apiserver.requests import Incoming
    from kevents.testing._apiserver.schema import DecodeError

__all__ = [
    "cannot_handle",
    "check_version",
    "create_causes",
    "defaulted",
    "deletion_causes",
    "json_fault",
    "media_type",
    "named",
    "ordered",
    "parse_patch",
    "patch_unreadable",
    "refuse_invalid",
    "refuse_large",
    "timestamp",
    "unreadable_body",
    "unsupported_body",
    "unsupported_patch",
]

Object = dict[str, Any]

MAX_OBJECT: Final = 1_572_864
_PREFIX: Final = 58
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def timestamp(nanoseconds: int) -> str:
    """Give a moment as metadata has it: RFC 3339, whole seconds."""
    return (_EPOCH + timedelta(microseconds=nanoseconds // 1000)).strftime("%Y-%m-%dT%H:%M:%SZ")


def media_type(request: Incoming) -> str:
    """Give the content type without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def named(metadata: Object) -> str:
    """Give the object's name, made from `generateName` where it has none."""
    name: str = metadata.get("name", "")
    if not name and (prefix := metadata.get("generateName", "")):
        name = prefix[:_PREFIX] + "".join(random.choices(_ALPHABET, k=5))  # noqa: S311 - a name, no secret
    return name


def ordered(metadata: Object) -> Object:
    """Give metadata with its fields in the server's order."""
    return {key: value for key in META.fields if (value := metadata.get(key)) or value == 0}


def defaulted(kind: Kind, stored: Object) -> Object:
    """Fill in what the server adds to a new object of the kind."""
    if kind.struct is not None or kind.resource == "configmaps":
        return stored
    if kind.bucket == "namespaces.":
        labels = {"kubernetes.io/metadata.name": stored["metadata"]["name"], **stored["metadata"].get("labels", {})}
        metadata = ordered({**stored["metadata"], "labels": labels})
        return {"metadata": metadata, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    made = {**stored, "metadata": ordered({**stored["metadata"], "generation": 1})}
    if kind.bucket == "pods.":
        made.setdefault("status", {"phase": "Pending"})
    return made


def create_causes(kind: Kind, stored: Object) -> list[Cause]:
    """Tell what is wrong with a new object."""
    metadata = stored["metadata"]
    causes = object_name_causes(metadata.get("name", ""), kind.name_rule) + metadata_causes(metadata)
    return causes if kind.struct is None else validate_create(stored, kind.group, causes)


def deletion_causes(before: Object, after: Object) -> list[Cause]:
    """Tell what is wrong with a change of metadata: only a delete begins a deletion, and nothing may delay it more."""
    causes, was, now = [], before.get("deletionTimestamp"), after.get("deletionTimestamp")
    if now is not None and now != was:
        causes.append(field_immutable("metadata.deletionTimestamp", now))
    more = [name for name in after.get("finalizers", ()) if name not in before.get("finalizers", ())]
    if was is not None and more:
        why = "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers"
        texts = ", ".join(f'"{name}"' for name in more)
        causes.append(Cause("FieldValueForbidden", f"{why} []string{{{texts}}}", "metadata.finalizers"))
    return causes


def refuse_invalid(kind: Kind, name: str, causes: list[Cause]) -> None:
    """Refuse an object with which anything is wrong.

    Raises:
        APIError: 422 with the causes.
    """
    if causes:
        raise invalid(kind.kind, name, causes, kind.group if kind.custom else "")


def refuse_large(stored: Object) -> None:
    """Refuse what the storage could not take.

    Raises:
        APIError: 500, as the storage's answer comes through.
    """
    message = stored.get("message", "")
    if isinstance(message, str) and len(message) < MAX_OBJECT // 8:  # cannot get there by the event's other fields
        return
    if len(json.dumps(stored, ensure_ascii=False).encode()) > MAX_OBJECT:
        raise APIError(500, "", "etcdserver: request is too large")


def cannot_handle(kind: Kind, why: str) -> APIError:
    """400 for a body with a field of the wrong shape."""
    message = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}'
    return bad_request(message)


def unreadable_body(kind: Kind, raw: bytes) -> APIError:
    """400 for a body that is no JSON."""
    text = f"{json_fault(raw)} ({raw[:100].decode(errors='replace') or '<empty>'})"
    message = f"the object provided is unrecognized (must be of type {kind.kind}): couldn't get version/kind; "
    return bad_request(f"{message}json parse error: {text}")


def unsupported_body() -> APIError:
    """415 for a body in a content type that no object comes in."""
    types = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    message = f"the body of the request was in an unknown format - accepted media types include: {types}"
    return unsupported_media_type(message)


def unsupported_patch(kind: Kind) -> APIError:
    """415 for a patch in a content type that the kind does not take."""
    if not kind.custom:
        return unsupported_media_type("415: Unsupported Media Type", {})
    types = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    message = f"the body of the request was in an unknown format - accepted media types include: {types}"
    return unsupported_media_type(message)


def parse_patch(request: Incoming, *, strategic: bool) -> object:
    """Give the parsed patch.

    Raises:
        APIError: 400 for one that is no JSON.
    """
    body = request.body
    if isinstance(body, bytes) or not request.raw:
        fault = json_fault(request.raw)
        raise bad_request(fault if strategic else f"error decoding patch: {fault}")
    return body


def patch_unreadable(patch: object, error: DecodeError, *, strategic: bool) -> APIError:
    """422 for a patch that puts a field of the wrong shape into an object.

    Args:
        patch: The patch, or for other than strategic ones what the object became.
        error: What is wrong.
        strategic: Whether it is a strategic merge patch.
    """
    text = _go(patch) if strategic else json.dumps(patch, separators=(",", ":"), sort_keys=True)
    cause = field_invalid("patch", text, error.in_patch if strategic else str(error))
    return APIError(422, "Invalid", f' "" is invalid: patch: {cause.message}', {"causes": [cause.as_dict()]})


def _go(value: object) -> str:
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_go(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(_go, value))}]"
    return str(value).lower() if isinstance(value, bool) else "<nil>" if value is None else str(value)


def json_fault(raw: bytes) -> str:
    """Say why bytes are no JSON, as nearly as a few words can."""
    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc):
            return "unexpected end of JSON input"
        where = (
            "beginning of object key string" if error.doc[: error.pos].rstrip().endswith("{") else "beginning of value"
        )
        return f"invalid character '{error.doc[error.pos]}' looking for {where}"
    except ValueError:
        return "invalid UTF-8"
    return ""


def check_version(wanted: str, present: int) -> None:
    """Refuse a `resourceVersion` parameter that is none, or is ahead of the store.

    Raises:
        APIError: 400, or 504 as the real server says that it waited in vain.
    """
    if not wanted:
        return
    if not wanted.isdecimal():
        text = f'strconv.ParseUint: parsing "{wanted}": invalid syntax'
        raise bad_request(f'invalid resource version: resourceVersion: Invalid value: "{wanted}": {text}')
    if int(wanted) > present:
        cause = Cause("ResourceVersionTooLarge", "Too large resource version").as_dict()
        message = f"Timeout: Too large resource version: {wanted}, current: {present}"
        raise APIError(504, "Timeout", message, {"causes": [cause]})
