"""Requests and answers inside the server, and the log of requests."""

from __future__ import annotations

import copy
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from kevents.testing._apiserver.kinds import Kind, Kinds

Details = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of `details.causes`."""

    reason: str
    message: str
    field: str = ""

    def as_dict(self) -> dict[str, str]:
        """The cause as JSON, without an empty field."""
        body = {"reason": self.reason, "message": self.message}
        return {**body, "field": self.field} if self.field else body


class APIError(Exception):
    """A request that is answered with a Status of failure.

    Attributes:
        code: The HTTP status.
        reason: The machine-readable reason. Empty if the server gives none.
        message: The text for people.
        details: `details` of the Status. None omits the key.
        metadata: The metadata of the Status.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Details | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.metadata = dict(metadata or {})

    def body(self) -> dict[str, Any]:
        """The Status object."""
        return {**status_body(self.code, self.reason, self.message, self.details), "metadata": self.metadata}


def status_body(code: int, reason: str, message: str, details: Details | None = None) -> dict[str, Any]:
    """Build a Status of failure. Its keys have the order of the real server."""
    body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    body["message"] = message
    if reason:
        body["reason"] = reason
    if details is not None:
        body["details"] = details
    body["code"] = code
    return body


def qualified(resource: str, group: str) -> str:
    """`resource`, or `resource.group` outside core/v1."""
    return f"{resource}.{group}" if group else resource


def _details(name: str, group: str, kind: str, causes: Iterable[Cause] = ()) -> Details:
    details = {"name": name, "group": group, "kind": kind, "causes": [cause.as_dict() for cause in causes]}
    return {key: value for key, value in details.items() if value}


def bad_request(message: str) -> APIError:
    """400: the body or a parameter cannot be understood."""
    return APIError(400, "BadRequest", message)


def not_found(resource: str, group: str, name: str) -> APIError:
    """404 for one object."""
    message = f'{qualified(resource, group)} "{name}" not found'
    return APIError(404, "NotFound", message, _details(name, group, resource))


def no_such_resource() -> APIError:
    """404 for the path of an unknown resource."""
    return APIError(404, "NotFound", "the server could not find the requested resource", {})


def method_not_allowed() -> APIError:
    """405 for a verb that the resource does not have."""
    message = "the server does not allow this method on the requested resource"
    return APIError(405, "MethodNotAllowed", message, {})


def already_exists(resource: str, group: str, name: str) -> APIError:
    """409 for a create with the name of an existing object."""
    message = f'{qualified(resource, group)} "{name}" already exists'
    return APIError(409, "AlreadyExists", message, _details(name, group, resource))


_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(resource: str, group: str, name: str, why: str = _MODIFIED) -> APIError:
    """409 for a write with an old resourceVersion, or another uid."""
    message = f'Operation cannot be fulfilled on {qualified(resource, group)} "{name}": {why}'
    return APIError(409, "Conflict", message, _details(name, group, resource))


def precondition_failed(kind: str, group: str, name: str, why: str, fate: str) -> APIError:
    """409 for a delete whose precondition does not hold."""
    text = f'Operation cannot be fulfilled on {qualified(kind, group)} "{name}": {why}'
    return APIError(409, "Conflict", f"{text}. The object might have been {fate}", _details(name, group, kind))


def forbidden(resource: str, group: str, name: str, why: str, causes: Iterable[Cause] = ()) -> APIError:
    """403 for an object or, without a name, for a collection."""
    subject = f'{qualified(resource, group)} "{name}"' if name else qualified(resource, group)
    return APIError(403, "Forbidden", f"{subject} is forbidden: {why}", _details(name, group, resource, causes))


def unsupported_media_type(types: str) -> APIError:
    """415 for a body whose content type is not one of `types`."""
    message = f"the body of the request was in an unknown format - accepted media types include: {types}"
    return APIError(415, "UnsupportedMediaType", message)


def invalid(kind: str, name: str, causes: Iterable[Cause], group: str = "") -> APIError:
    """422 for an object that does not pass validation."""
    listed = list(causes)
    texts = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in listed))
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    message = f'{qualified(kind, group)} "{name}" is invalid: {joined}'
    return APIError(422, "Invalid", message, _details(name, group, kind, listed))


def field_required(field: str, note: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value: {note}" if note else "Required value", field)


def field_invalid(field: str, value: str, note: str) -> Cause:
    """Return the cause for a field with a wrong value."""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return Cause("FieldValueInvalid", f'Invalid value: "{quoted}": {note}', field)


def field_immutable(field: str, value: str) -> Cause:
    """Return the cause for a changed field that cannot change."""
    return field_invalid(field, value, "field is immutable")


def field_forbidden(field: str, note: str) -> Cause:
    """Return the cause for a field that must not be set."""
    return Cause("FieldValueForbidden", f"Forbidden: {note}", field)


def field_unsupported(field: str, value: str, supported: str) -> Cause:
    """Return the cause for a value that is not in a list; both `value` and `supported` are quoted already."""
    return Cause("FieldValueNotSupported", f"Unsupported value: {value}: supported values: {supported}", field)


Object = dict[str, Any]

_ITEM_VERBS: Final = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_COLLECTION_VERBS: Final = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
_NAMESPACE_SUBRESOURCES: Final = ("finalize", "status")
_FALSE: Final = frozenset({"0", "false"})
_NEED_A_NAMESPACE: Final = frozenset({"create", "deletecollection"})
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(eq=False, slots=True)
class Request:
    """One request of a client, and the status of its answer.

    Attributes:
        method: The HTTP method.
        target: The path as it was sent, without the query.
        headers: The headers, their names in lower case.
        raw: The body in bytes; empty if it is too large.
        connection: The number of the TCP connection, from 1.
        too_large: Whether the body is larger than the server accepts.
        path: The path, decoded, without the query.
        query: The parameters; the last value of a repeated one.
        status: The HTTP status of the answer; 0 before it was sent, and if none was sent.
        started: The time when the request had been read, by `time.monotonic()`.
    """

    method: str
    target: str
    headers: dict[str, str]
    raw: bytes = field(default=b"", repr=False)
    connection: int = 0
    too_large: bool = False
    path: str = field(init=False)
    query: dict[str, str] = field(init=False)
    status: int = 0
    started: float = field(default_factory=time.monotonic)
    _parsed: list[Any] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.target, _, query = self.target.partition("?")
        self.path = unquote(self.target)
        self.query = dict(parse_qsl(query, keep_blank_values=True))

    @property
    def body(self) -> Any:  # noqa: ANN401 - any JSON
        """The parsed JSON, or the bytes if they are no JSON. None without a body."""
        if not self._parsed:
            self._parsed.append(_parse(self.raw))
        return self._parsed[0]

    @property
    def media_type(self) -> str:
        """The content type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def _parse(raw: bytes) -> Any:  # noqa: ANN401 - any JSON
    if not raw:
        return None
    try:
        value = json.loads(raw, parse_constant=_refuse)
    except ValueError:
        return raw
    if b"\\ud" not in raw.lower():
        return value
    text = json.dumps(value, ensure_ascii=False)  # pairs of surrogates are one character now; Go replaces the others
    return json.loads(_SURROGATE.sub("\ufffd", text))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and Infinity are JSON for Python only


class RequestLog:
    """The latest requests, at most `length`."""

    def __init__(self, length: int) -> None:
        self._requests: deque[Request] = deque(maxlen=length)
        self._changed = threading.Condition()

    def started(self, request: Request) -> None:
        """Add a request that has been read."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def answered(self, request: Request, status: int) -> None:
        """Set the status of a request's answer."""
        with self._changed:
            request.status = status
            self._changed.notify_all()

    def snapshot(self) -> tuple[Request, ...]:
        """Return the requests, oldest first."""
        with self._changed:
            requests = tuple(self._requests)
        return tuple(copy.copy(request) for request in requests)  # the status of a copy does not change

    def clear(self) -> None:
        with self._changed:
            self._requests.clear()

    def notify(self) -> None:
        """Make `wait_for` evaluate its predicate again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], object], timeout: float) -> bool:
        """Whether the predicate became true. It is evaluated after each request and each answer."""
        with self._changed:
            return bool(self._changed.wait_for(predicate, timeout))


@dataclass(frozen=True, slots=True)
class Target:
    """The resource that a path names, whether or not it exists."""

    group: str
    version: str
    resource: str
    namespace: str
    name: str
    subresource: str

    @classmethod
    def of(cls, path: str) -> Target | None:
        """Parse an encoded path. None if it names no resource."""
        match [unquote(part) for part in path.strip("/").split("/")]:
            case ["api", version, *rest] if rest:
                group = ""
            case ["apis", group, version, *rest] if rest:
                pass
            case _:
                return None
        match rest:
            case ["namespaces", namespace, what, *more] if what not in _NAMESPACE_SUBRESOURCES:
                rest = [what, *more]
            case _:
                namespace = ""
        resource, name, subresource, *more = [*rest, "", ""]
        return cls(group, version, resource, namespace, name, "/".join((subresource, *more)).rstrip("/"))

    def verb(self, request: Request) -> str:
        """Return the API's verb for a request; empty for a method that the API does not have."""
        if self.name:
            return _ITEM_VERBS.get(request.method, "")
        verb = _COLLECTION_VERBS.get(request.method, "")
        return "watch" if verb == "list" and is_true(request.query, "watch") else verb


def is_true(query: Mapping[str, str], name: str) -> bool:
    """Whether a boolean parameter is set. The server takes any value but `0` and `false` as true."""
    return query.get(name, "false").lower() not in _FALSE


@dataclass(frozen=True, slots=True)
class Call:
    """A request for a resource that exists."""

    kind: Kind
    verb: str
    namespace: str
    name: str
    request: Request
    subresource: str = ""

    @classmethod
    def of(cls, target: Target, request: Request, kinds: Kinds) -> Call:
        """Find the kind and the verb of a request. Raises APIError: 404 or 405."""
        verb = target.verb(request)
        kind = kinds.find(target.group, target.version, target.resource)
        if kind is None or not (target.subresource == "" or (target.subresource == "status" and kind.has_status)):
            raise no_such_resource()
        if target.name and kind.namespaced and not target.namespace:
            raise no_such_resource()
        if not verb or (verb in _NEED_A_NAMESPACE and kind.namespaced and not target.namespace):
            raise method_not_allowed()
        return cls(kind, verb, target.namespace, target.name, request, target.subresource)

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful result: objects in their stored form, before they are rendered."""

    kind: Kind  # the kind of the objects
    status: int  # the HTTP status
    objects: tuple[Object, ...] = ()  # one object, or the items of a list
    metadata: Mapping[str, Any] | None = None  # the metadata of the list. None for a single object
    warnings: tuple[str, ...] = ()  # texts for `Warning` headers
    body: Mapping[str, Any] | None = None  # the whole body, if it is no object of the kind


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer."""

    status: int  # the HTTP status
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()  # additional headers; a name may occur several times
    size: int = 0  # the length of the body in bytes: `body` is repeated up to it. 0 for the length of `body`.


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer of unknown length. `run` sends its pieces, the first time with the headers, and returns at the end."""

    run: Callable[[Callable[[Iterable[bytes]], None]], None]
    status: int = 200
    content_type: str = "application/json"


def json_answer(status: int, body: Mapping[str, Any], headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer(status, dump(body), headers=headers)


def dump(body: Mapping[str, Any]) -> bytes:
    """Return JSON in the server's format, one line."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
