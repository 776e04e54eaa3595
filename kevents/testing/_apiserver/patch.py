"""Patches: strategic merge, merge, and JSON Patch."""

from __future__ import annotations

import copy
import json
from typing import Any, Final

from kevents.testing._apiserver.kinds import Kind
from kevents.testing._apiserver.requests import APIError, Request, bad_request, field_invalid, unsupported_media_type
from kevents.testing._apiserver.schema import DecodeError

STRATEGIC: Final = "application/strategic-merge-patch+json"
MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
APPLY: Final = "application/apply-patch+yaml"

_MERGE_KEYS: Final = {
    "addresses": "type",
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
_UNION: Final = frozenset({"finalizers"})


def check_patch_type(kind: Kind, content_type: str) -> None:
    """Refuse a content type that the kind does not accept for patches. Raises APIError: 415."""
    if content_type in {JSON_PATCH, MERGE, APPLY} or (content_type == STRATEGIC and not kind.custom):
        return
    if kind.custom:
        raise unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        )
    raise APIError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def parse_patch(request: Request) -> object:
    """Return the parsed patch. Raises APIError: 400 if it is no JSON."""
    body = request.body
    if isinstance(body, bytes) or not request.raw:
        fault = json_fault(request.raw)
        raise bad_request(fault if request.media_type == STRATEGIC else f"error decoding patch: {fault}")
    return body


def parse_apply(request: Request, kind: Kind) -> dict[str, Any]:
    """The configuration of a server-side apply, in JSON. Raises APIError: 400 if it is no object of the kind."""
    body = {} if request.body is None else request.body
    if isinstance(body, bytes):
        raise bad_request(f"error decoding YAML: {json_fault(body)}")
    if not isinstance(body, dict):
        text = _not_an_object(body, STRATEGIC)
        raise bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {text}")
    group, _, version = str(body.get("apiVersion") or "").rpartition("/")
    if (group, version, body.get("kind")) != (kind.group, kind.version, kind.kind):
        raise bad_request(f"invalid object type: {group}/{version}, Kind={body.get('kind') or ''}")
    if (body.get("metadata") or {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    return body


def apply_configuration(view: dict[str, Any], before: dict[str, Any], config: dict[str, Any], *, custom: bool) -> Any:  # noqa: ANN401 - any JSON
    """Apply a configuration: set its fields, remove those that only the manager's previous one, `before`, had."""
    kept = _without(view, before, config)
    return _merge(kept, config) if custom else _strategic(kept, config)


def _without(target: object, before: object, config: object) -> Any:  # noqa: ANN401 - any JSON
    if not (isinstance(target, dict) and isinstance(before, dict) and isinstance(config, dict)):
        return target
    return {
        key: _without(value, before.get(key), config.get(key))
        for key, value in target.items()
        if key not in before or key in config
    }


def json_fault(raw: bytes) -> str:
    """Return an error text like the server's for bytes that are no JSON. Empty for valid JSON."""
    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc):
            return "unexpected end of JSON input"
        if error.msg == "Extra data":
            return f"invalid character '{error.doc[error.pos]}' after top-level value"
        where = (
            "beginning of object key string" if error.doc[: error.pos].rstrip().endswith("{") else "beginning of value"
        )
        return f"invalid character '{error.doc[error.pos]}' looking for {where}"
    except ValueError:
        return "invalid UTF-8"
    return ""


def patch_unreadable(patch: object, view: object, error: DecodeError, content_type: str) -> APIError:
    """422 for a patch that sets a field to a value of the wrong type."""
    if content_type == STRATEGIC:
        cause = field_invalid("patch", _go(patch), error.in_patch)
    else:
        cause = field_invalid("patch", json.dumps(view, separators=(",", ":"), sort_keys=True), str(error))
    return APIError(422, "Invalid", f' "" is invalid: patch: {cause.message}', {"causes": [cause.as_dict()]})


def _go(value: object) -> str:
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_go(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(_go, value))}]"
    return str(value).lower() if isinstance(value, bool) else "<nil>" if value is None else str(value)


def apply_patch(view: dict[str, Any], patch: object, content_type: str) -> object:
    """Patch an object. Raises APIError: 400 for a patch of the wrong type, 422 for one that cannot be applied."""
    if content_type == JSON_PATCH:
        return _json_patch(view, patch)
    if patch is None and content_type == STRATEGIC:
        return view
    if not isinstance(patch, dict):
        raise bad_request(_not_an_object(patch, content_type))
    return _strategic(view, patch) if content_type == STRATEGIC else _merge(view, patch)


def _not_an_object(patch: object, content_type: str) -> str:
    if patch is None and content_type == MERGE:
        return "Invalid JSON Patch"
    what = "array" if isinstance(patch, list) else "string" if isinstance(patch, str) else "number"
    text = f"json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
    return text if content_type == STRATEGIC else f"error decoding patch: {text}"


def _merge(target: object, patch: object) -> object:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _strategic(target: object, patch: dict[str, Any]) -> dict[str, Any]:
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) and directive != "replace" else {}
    for key, value in patch.items():
        if key.startswith("$"):
            _directive(result, key, value)
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _strategic(result.get(key), value)
        elif isinstance(value, list):
            result[key] = _strategic_list(key, result.get(key) or [], value)
        else:
            result[key] = value
    return result


def _directive(result: dict[str, Any], key: str, value: object) -> None:
    name, _, field = key.partition("/")
    if name == "$deleteFromPrimitiveList" and isinstance(value, list) and isinstance(result.get(field), list):
        result[field] = [item for item in result[field] if item not in value]
    if key == "$retainKeys" and isinstance(value, list):
        for other in [other for other in result if other not in value]:
            del result[other]


def _strategic_list(field: str, target: list[Any], patch: list[Any]) -> list[Any]:
    if field in _UNION:
        return target + [item for item in patch if item not in target]
    key = _MERGE_KEYS.get(field)
    if key is not None and not all(isinstance(item, dict) for item in target + patch):
        return patch  # of the wrong type: refused when the object is decoded
    if key is None or any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if not (isinstance(item, dict) and "$patch" in item)]
    merged = {item.get(key): item for item in target}
    order = list(merged)
    patched = []
    for item in patch:
        if item.get("$patch") == "delete":
            merged.pop(item.get(key), None)
        else:
            merged[item.get(key)] = _strategic(merged.get(item.get(key)), item)
            patched.append(item.get(key))
    return [merged[name] for name in _merge_order(order, [name for name in order if name in merged], patched)]


def _merge_order(before: list[Any], kept: list[Any], patched: list[Any]) -> list[Any]:
    """Order a merged list like the server: the patch's items in their order, before items that they did not follow."""
    left, right, result = [name for name in kept if name not in patched], list(dict.fromkeys(patched)), []
    while left and right:
        follows = right[0] in before and before.index(left[0]) < before.index(right[0])
        result.append((left if follows else right).pop(0))
    return result + left + right


def _json_patch(view: dict[str, Any], patch: object) -> object:
    if not isinstance(patch, list):
        text = "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        raise bad_request(f"error decoding patch: {text}")
    document = {"": copy.deepcopy(view)}
    try:
        for operation in patch:
            _operate(document, operation)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        message = "the server rejected our request due to an error in our request"
        raise APIError(422, "Invalid", message, {}) from None
    return document[""]


def _operate(document: dict[str, Any], operation: dict[str, Any]) -> None:
    name, path = operation["op"], _pointer(operation["path"])
    parent, key = _resolve(document, path)
    if name in {"move", "copy"}:
        source, origin = _resolve(document, _pointer(operation["from"]))
        value = copy.deepcopy(_get(source, origin))
        if name == "move":
            del source[origin]
        parent, key = _resolve(document, path)
        _add(parent, key, value)
    elif name == "add":
        _add(parent, key, operation["value"])
    elif name == "remove":
        del parent[key]
    elif name == "replace":
        parent[key] = operation["value"]  # like the server: a missing field is added
    elif name != "test" or _get(parent, key) != operation.get("value"):
        raise ValueError(name)


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(text)
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")]


def _resolve(document: Any, path: list[str]) -> tuple[Any, Any]:  # noqa: ANN401 - any JSON
    """Return the parent of a path's target, and the target's key or index in it."""
    *parents, last = path
    for part in parents:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document, len(document) if last == "-" and isinstance(document, list) else last if isinstance(
        document, dict
    ) else int(last)


def _get(parent: Any, key: Any) -> Any:  # noqa: ANN401 - any JSON
    return parent[key] if isinstance(parent, list) else parent.get(key)  # like the server: a missing value is null


def _add(parent: Any, key: Any, value: object) -> None:  # noqa: ANN401 - any JSON
    if isinstance(parent, list):
        parent.insert(key, value)
    else:
        parent[key] = value
