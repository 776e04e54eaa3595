"""Requests and answers inside the server, and the log of requests."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote

from kevents.testing._apiserver.status import method_not_allowed, no_such_resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kevents.testing._apiserver.kinds import Kind, Kinds

Object = dict[str, Any]

_ITEM_VERBS: Final = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_COLLECTION_VERBS: Final = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
_NAMESPACE_SUBRESOURCES: Final = ("finalize", "status")
_FALSE: Final = frozenset({"0", "false"})
_NEED_A_NAMESPACE: Final = frozenset({"create", "deletecollection"})
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a client, and the status of its answer.

    Attributes:
        method: The HTTP method.
        path: The path, decoded, without the query.
        query: The parameters; the last value of a repeated one.
        headers: The headers, their names in lower case.
        body: The parsed JSON, or the bytes if they are no JSON; None without a body.
        connection: The number of the TCP connection, from 1.
        status: The HTTP status of the answer; 0 before it was sent, and if none was sent.
        started: The time when the request had been read, by `time.monotonic()`.

    .. versionadded:: 0.1
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    connection: int
    status: int
    started: float


@dataclass(eq=False, slots=True)
class Incoming:
    """A request that is being served; `status` is set when the answer is sent."""

    method: str
    target: str
    headers: dict[str, str]
    raw: bytes = b""
    connection: int = 0
    too_large: bool = False
    path: str = field(init=False)
    query: dict[str, str] = field(init=False)
    status: int = 0
    started: float = field(default_factory=time.monotonic)
    _parsed: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.target, _, query = self.target.partition("?")
        self.path = unquote(self.target)
        self.query = dict(parse_qsl(query, keep_blank_values=True))

    @property
    def body(self) -> Any:  # noqa: ANN401 - any JSON
        """The parsed JSON, or the bytes if they are no JSON; None without a body."""
        if not self._parsed:
            self._parsed.append(_parse(self.raw))
        return self._parsed[0]

    @property
    def media_type(self) -> str:
        """The content type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def snapshot(self) -> Request:
        """Return the entry of the log."""
        return Request(
            self.method, self.path, self.query, self.headers, self.body, self.connection, self.status, self.started
        )


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
        self._requests: deque[Incoming] = deque(maxlen=length)
        self._changed = threading.Condition()

    def started(self, request: Incoming) -> None:
        """Add a request that has been read."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def answered(self, request: Incoming, status: int) -> None:
        """Set the status of a request's answer."""
        with self._changed:
            request.status = status
            self._changed.notify_all()

    def snapshot(self) -> tuple[Request, ...]:
        """Return the requests, oldest first."""
        with self._changed:
            requests = tuple(self._requests)
        return tuple(request.snapshot() for request in requests)

    def clear(self) -> None:
        """Forget all requests."""
        with self._changed:
            self._requests.clear()

    def notify(self) -> None:
        """Make `wait_for` evaluate its predicate again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], object], timeout: float) -> bool:
        """Wait until the predicate is true; it is evaluated after each request and each answer.

        Args:
            predicate: The condition.
            timeout: The maximum wait in seconds.

        Returns:
            Whether it became true.
        """
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
        """Parse an encoded path; None if it names no resource."""
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

    def verb(self, request: Incoming) -> str:
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
    request: Incoming
    subresource: str = ""

    @classmethod
    def of(cls, target: Target, request: Incoming, kinds: Kinds) -> Call:
        """Find the kind and the verb of a request.

        Raises:
            APIError: 404 or 405.
        """
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
        """The parameters."""
        return self.request.query


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful result: objects in their stored form, before they are rendered.

    Attributes:
        kind: The kind of the objects.
        status: The HTTP status.
        objects: One object, or the items of a list.
        metadata: The metadata of the list; None for a single object.
        warnings: Texts for `Warning` headers.
        body: The whole body, if it is no object of the kind.
    """

    kind: Kind
    status: int
    objects: tuple[Object, ...] = ()
    metadata: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer.

    Attributes:
        status: The HTTP status.
        body: The body.
        content_type: Its type.
        headers: Additional headers; a name may occur several times.
        size: The length of the body in bytes: `body` is repeated up to it. 0 for the length of `body`.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    size: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer of unknown length; `run` sends its pieces through the given function and returns at the end."""

    run: Callable[[Callable[[Iterable[bytes]], None]], None]
    status: int = 200
    content_type: str = "application/json"


def json_answer(status: int, body: Mapping[str, Any], headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Return an answer with a JSON body."""
    return Answer(status, dump(body), headers=headers)


def dump(body: Mapping[str, Any]) -> bytes:
    """Return JSON in the server's format, one line."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
