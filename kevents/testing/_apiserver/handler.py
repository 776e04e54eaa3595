"""HTTP: connections over `http.server`, and the way of a request to its answer."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from kevents.testing._apiserver.faults import Faults, Garbage, Hang, Reset, Rule, Status
from kevents.testing._apiserver.kinds import Kinds, negotiate, render
from kevents.testing._apiserver.requests import (
    Answer,
    APIError,
    Call,
    Cause,
    Request,
    RequestLog,
    Stream,
    Target,
    bad_request,
    dump,
    forbidden,
    invalid,
    json_answer,
    method_not_allowed,
    no_such_resource,
    status_body,
)
from kevents.testing._apiserver.resources import Resources
from kevents.testing._apiserver.watch import Watches

ALL_VERBS: Final = frozenset({"*"})
MAX_BODY: Final = 3_145_728
_REVIEWS: Final = {
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    ("authentication.k8s.io", "v1", "selfsubjectreviews"): "SelfSubjectReview",
}
_PUBLIC: Final = ("/healthz", "/livez", "/readyz", "/version")
_LINGER_0: Final = struct.pack("ii", 1, 0)
_TLS_HANDSHAKE: Final = b"\x16"
_PIECE: Final = 65_536
_BACKLOG: Final = 128
_LONGEST_LENGTH: Final = 18


class DroppedError(Exception):
    """The connection is closed without an answer."""

    def __init__(self, *, hard: bool) -> None:
        super().__init__()
        self.hard = hard  # whether it is reset


class _MalformedError(Exception):
    """The client sent no valid HTTP request."""


class Connection(BaseHTTPRequestHandler):
    """The connection of one client; `run` serves it until either side closes it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = _PIECE
    wbufsize = -1

    def __init__(
        self,
        number: int,
        sock: socket.socket,
        context: Callable[[], ssl.SSLContext],
        handle: Callable[[Connection, Request], Answer | Stream],
    ) -> None:
        self.number = number
        self.request: socket.socket = sock
        self._context = context
        self._handle = handle
        self._closing = threading.Lock()
        self._closed = False

    def run(self) -> None:
        """Answer requests until the connection ends, then close it."""
        try:
            # The client may close the connection at any moment, or send no HTTP.
            with contextlib.suppress(OSError, _MalformedError):
                super().__init__(self.request, None, None)  # type: ignore[arg-type] # serves; it needs no server
        except DroppedError as dropped:
            if dropped.hard:
                with contextlib.suppress(OSError):
                    self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        finally:
            with self._closing:
                self._closed = True
                self.request.close()

    def close(self) -> None:
        """Shut the connection down, from any thread; `run` returns."""
        with self._closing:
            if not self._closed:
                self._closed = True
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self.request, socket.SHUT_RDWR)

    def setup(self) -> None:
        """Speak TLS if the first byte is that of a TLS handshake."""
        if self.request.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE:
            context = self._context()
            with self._closing:
                if self._closed:
                    raise DroppedError(hard=False)
                tls = context.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
                self.request = tls
            tls.do_handshake()
        super().setup()

    def finish(self) -> None:
        """Close the files, even if the client reads no more."""
        self.rfile.close()
        with contextlib.suppress(OSError):
            self.wfile.close()

    def handle_expect_100(self) -> bool:
        """Ask for the body at once."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Close the connection of a client that speaks no HTTP."""
        raise _MalformedError(code, message, explain)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        ...
    def _exchange(self) -> None:
        incoming = self._read()
        answer = self._handle(self, incoming)
        self.send_response_only(answer.status)
        self.send_header("Cache-Control", "no-cache, private")
        self.send_header("Content-Type", answer.content_type)
        if isinstance(answer, Stream):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()  # sent with the first pieces
            answer.run(self._send_chunks)
            self.wfile.write(b"0\r\n\r\n")
            return
        for name, value in answer.headers:
            self.send_header(name, value.encode("latin-1", "replace").decode("latin-1"))
        self.send_header("Content-Length", str(answer.size or len(answer.body)))
        self.end_headers()
        if answer.size:
            self._send_repeated(answer.body, answer.size)
        elif self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _exchange  # noqa: N815 - found by name

    def _read(self) -> Request:
        headers = {name.lower(): value.strip() for name, value in self.headers.items()}
        if self.headers.defects or self.request_version == "HTTP/0.9":
            raise _MalformedError
        if headers.get("transfer-encoding", "").lower() == "chunked":
            pieces = self._chunks()
        else:
            length = headers.get("content-length", "0")
            if not length.isdecimal() or len(length) > _LONGEST_LENGTH:
                raise _MalformedError
            pieces = self._pieces(int(length))
        raw = bytearray()
        too_large = False
        for piece in pieces:
            too_large = too_large or len(raw) + len(piece) > MAX_BODY
            if not too_large:
                raw += piece
        body = b"" if too_large else bytes(raw)
        return Request(self.command, self.path, headers, body, self.number, too_large)

    def _chunks(self) -> Iterator[bytes]:
        size = -1
        while size:
            try:
                size = int(self.rfile.readline(_PIECE).partition(b";")[0], 16)
            except ValueError:
                raise _MalformedError from None
            yield from self._pieces(size)
            self.rfile.readline(_PIECE)

    def _pieces(self, length: int) -> Iterator[bytes]:
        while length > 0:
            piece = self.rfile.read(min(length, _PIECE))
            if not piece:
                raise _MalformedError
            length -= len(piece)
            yield piece

    def _send_chunks(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.flush()

    def _send_repeated(self, piece: bytes, size: int) -> None:
        block = (piece or b" ") * max(1, _PIECE // max(1, len(piece)))
        while size > 0:
            self.wfile.write(block[: min(size, len(block))])
            size -= len(block)


class Listener:
    """Accepts connections on one port, and serves each in a thread."""

    def __init__(
        self,
        host: str,
        port: int,
        context: Callable[[], ssl.SSLContext],
        handle: Callable[[Connection, Request], Answer | Stream],
    ) -> None:
        self.host = host
        self.port = port
        self.accepted = 0
        self._context = context
        self._handle = handle
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._thread: threading.Thread | None = None
        self._waker: socket.socket | None = None

    def open(self) -> None:
        """Listen; again on the same port. Raises OSError if the port is taken."""
        if self._thread is not None:
            return
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listening = socket.create_server((self.host, self.port), family=family, backlog=_BACKLOG)
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        heard, self._waker = socket.socketpair()
        self._thread = threading.Thread(
            target=self._accept, args=(listening, heard), name=f"kevents-apiserver-{self.port}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening: connections are refused. Open ones stay."""
        if self._thread is not None and self._waker is not None:
            self._waker.close()
            self._thread.join()
            self._thread = self._waker = None

    def disconnect(self) -> None:
        """Close all connections and wait for their threads."""
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            connection.close()
        for thread in connections.values():
            if thread is not threading.current_thread():
                thread.join()

    def _accept(self, listening: socket.socket, heard: socket.socket) -> None:
        # ThreadingHTTPServer.shutdown() would wait for the next poll, and could not keep open connections.
        with listening, heard, selectors.DefaultSelector() as selector:
            selector.register(listening, selectors.EVENT_READ)
            selector.register(heard, selectors.EVENT_READ)
            while all(key.fileobj is listening for key, _ in selector.select()):
                with contextlib.suppress(OSError):
                    self._adopt(listening.accept()[0])

    def _adopt(self, client: socket.socket) -> None:
        client.setblocking(True)
        with self._lock:
            self.accepted += 1
            connection = Connection(self.accepted, client, self._context, self._handle)
            name = f"kevents-apiserver-{self.port}-{self.accepted}"
            thread = threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True)
            self._connections[connection] = thread
        thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            with self._lock:
                del self._connections[connection]


@dataclass(frozen=True, slots=True)
class User:
    """A user, and the verbs allowed on all resources; `*` for all verbs."""

    name: str
    verbs: frozenset[str]

    def may(self, verb: str) -> bool:
        return verb in self.verbs or "*" in self.verbs


ANONYMOUS: Final = User("system:anonymous", frozenset())


class Users:
    """The users by their tokens; `token` is that of the administrator."""

    def __init__(self, token: str) -> None:
        self._lock = threading.Lock()
        self._users = {token: User("admin", ALL_VERBS)}

    def add(self, token: str, name: str, verbs: Iterable[str]) -> None:
        """Add a user, or change the user of a token."""
        with self._lock:
            self._users = {**self._users, token: User(name, frozenset(verbs))}

    def remove(self, name: str) -> None:
        with self._lock:
            self._users = {token: user for token, user in self._users.items() if user.name != name}

    def of(self, request: Request) -> User:
        """The user of a request, the anonymous one without a token. Raises APIError: 401 for an unknown token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return ANONYMOUS
        if user := self._users.get(token.strip()):
            return user
        raise APIError(401, "Unauthorized", "Unauthorized")


@dataclass(frozen=True, slots=True)
class Handler:
    """Answers requests: log, faults, authorization, then the verb of the resource."""

    users: Users
    faults: Faults
    log: RequestLog
    kinds: Kinds
    resources: Resources
    watches: Watches

    def open(self) -> None:
        self.faults.open()
        self.watches.open()

    def close(self) -> None:
        """Release requests that are delayed or hang, and end all watches."""
        self.faults.close()
        self.watches.close()

    def handle(self, connection: Connection, request: Request) -> Answer | Stream:
        """Answer a request. Raises DroppedError: the connection must be closed without an answer."""
        self.log.started(request)
        rule = self.faults.apply(request) if self.faults else None
        if self.faults.closed:
            raise DroppedError(hard=False)
        answer = self._answer(connection, request) if rule is None else self._fail(connection, request, rule)
        self.log.answered(request, answer.status)
        return answer

    def _fail(self, connection: Connection, request: Request, rule: Rule) -> Answer:
        fault = rule.fault
        if isinstance(fault, Status):
            return _refusal(fault)
        done = isinstance(fault, Hang | Reset | Garbage) and fault.after_processing
        earned = self._answer(connection, request) if done else None
        if isinstance(fault, Garbage):
            status = fault.status or (earned.status if earned else 200)
            return Answer(status, fault.body, fault.content_type, size=fault.size)
        if isinstance(fault, Hang):
            self.log.notify()
            rule.released.wait()
        raise DroppedError(hard=isinstance(fault, Reset))

    def _answer(self, connection: Connection, request: Request) -> Answer | Stream:
        try:
            return self._serve(connection, request)
        except APIError as error:
            return json_answer(error.code, error.body())

    def _serve(self, connection: Connection, request: Request) -> Answer | Stream:
        user = self.users.of(request)
        target = Target.of(request.target)
        if target is not None:
            if user is not ANONYMOUS and (kind := _REVIEWS.get((target.group, target.version, target.resource))):
                return _review(kind, user, request)
            _authorize(target, user, request)
        elif user is ANONYMOUS and not request.path.startswith(_PUBLIC):
            raise APIError(403, "Forbidden", f'forbidden: User "{user.name}" cannot get path "{request.path}"', {})
        if target is None or not self.kinds.has(target.group, target.version):
            return self._discover(request)
        call = Call.of(target, request, self.kinds)
        if request.too_large:
            raise APIError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")
        accept, include = request.headers.get("accept", ""), request.query.get("includeObject", "")
        shape = negotiate(accept, listed=call.verb == "list", include=include)
        if call.verb == "watch":
            return self.watches.stream(call, shape, connection.request)
        reply = self.resources.serve(call)
        texts = (text.replace("\\", "\\\\").replace('"', '\\"') for text in reply.warnings)
        warnings = tuple(("Warning", f'299 - "{text}"') for text in texts)
        return Answer(reply.status, dump(render(reply, shape, self.resources.store.clock())), headers=warnings)

    def _discover(self, request: Request) -> Answer:
        path = request.path.rstrip("/") or "/"
        found = self.kinds.discover(path)
        if isinstance(found, str):
            return Answer(200, found.encode(), "text/plain; charset=utf-8")
        if found is not None:
            if request.method not in {"GET", "HEAD"} and path.startswith("/api"):
                raise method_not_allowed()
            return json_answer(200, found)
        match path.split("/")[1:]:
            case ["api", "v1", *_]:
                raise no_such_resource()
            case ["apis", group, _, *_] if self.kinds.has_built_in(group):
                raise no_such_resource()
        return Answer(404, b"404 page not found\n", "text/plain; charset=utf-8")


def _review(kind: str, user: User, request: Request) -> Answer:
    """Answer a user's review of its own permissions or its own identity."""
    if request.method != "POST":
        raise method_not_allowed()
    body = request.body
    if not isinstance(body, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind")
    if kind == "SelfSubjectReview":
        info = {"username": user.name, "uid": f"{user.name}-uid", "groups": ["system:authenticated"]}
        review = {"apiVersion": "authentication.k8s.io/v1", "status": {"userInfo": info}}
    else:
        spec = body.get("spec") or {}
        asked = spec.get("resourceAttributes") or spec.get("nonResourceAttributes")
        if asked is None:
            why = "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
            cause = Cause("FieldValueInvalid", why, "spec.resourceAttributes")
            raise invalid("", "", [cause], "authorization.k8s.io")
        allowed = user.may(asked.get("verb", ""))
        review = {"apiVersion": "authorization.k8s.io/v1", "spec": spec, "status": {"allowed": allowed}}
    return json_answer(201, {"kind": kind, "metadata": {}, **review})


def _authorize(target: Target, user: User, request: Request) -> None:
    verb = target.verb(request) or request.method.lower()
    if user.may(verb):
        return
    namespace = target.name if target.resource == "namespaces" else target.namespace
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    resource = f"{target.resource}/{target.subresource}" if target.subresource else target.resource
    why = f'User "{user.name}" cannot {verb} resource "{resource}" in API group "{target.group}" {where}'
    raise forbidden(target.resource, target.group, target.name, why)


def _refusal(fault: Status) -> Answer:
    details: dict[str, Any] = {}
    if fault.causes:
        details["causes"] = [cause.as_dict() for cause in fault.causes]
    if fault.retry_after_seconds is not None:
        details["retryAfterSeconds"] = fault.retry_after_seconds
    message = fault.message or f"the embedded server was told to answer {fault.code}"
    headers = (("Retry-After", str(fault.retry_after)),) if fault.retry_after != "" else ()
    return json_answer(fault.code, status_body(fault.code, fault.reason, message, details or None), headers)
