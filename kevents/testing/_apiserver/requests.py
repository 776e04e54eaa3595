"""The request log: what clients have asked for."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Request", "RequestLog"]

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in, and the status it was answered with.

    Attributes:
        method: The HTTP method.
        path: The path, decoded, without the query.
        query: The parameters; of repeated ones the last.
        headers: The headers, their names in lower case.
        body: The parsed JSON, or the bytes when they are none; None without a body.
        connection: The number of the TCP connection, from 1.
        status: The HTTP status sent, 0 when none was (yet).
        started: When the request had been read, by `time.monotonic()`.

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
    """A request on its way through the server; `status` is set when the answer goes out."""

    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes
    connection: int
    too_large: bool = False
    status: int = 0
    started: float = field(default_factory=time.monotonic)
    _parsed: list[Any] = field(default_factory=list)

    @property
    def body(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Give the parsed JSON, or the bytes when they are none; None without a body."""
        if not self._parsed:
            self._parsed.append(_parse(self.raw))
        return self._parsed[0]

    def snapshot(self) -> Request:
        """Give what the log shows."""
        return Request(
            self.method, self.path, self.query, self.headers, self.body, self.connection, self.status, self.started
        )


def _parse(raw: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    if not raw:
        return None
    try:
        value = json.loads(raw, parse_constant=_refuse)
    except ValueError:
        return raw
    return value if b"\\ud" not in raw.lower() else _without_surrogates(value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and its kin are JSON to Python only


def _without_surrogates(value: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    text = json.dumps(value, ensure_ascii=False)  # pairs are one character by now
    return json.loads(_SURROGATE.sub("\ufffd", text))


class RequestLog:
    """The latest requests, with a way to wait for what they make true."""

    def __init__(self, length: int) -> None:
        self._requests: deque[Incoming] = deque(maxlen=length)
        self._changed = threading.Condition()

    def started(self, request: Incoming) -> None:
        """Note a request that has been read."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def answered(self, request: Incoming, status: int) -> None:
        """Note the status that a request is answered with."""
        with self._changed:
            request.status = status
            self._changed.notify_all()

    def snapshot(self) -> tuple[Request, ...]:
        """Give the requests so far, the oldest first."""
        with self._changed:
            requests = tuple(self._requests)
        return tuple(request.snapshot() for request in requests)

    def clear(self) -> None:
        """Forget all requests."""
        with self._changed:
            self._requests.clear()

    def notify(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], object], timeout: float) -> bool:
        """Wait until the predicate holds; it is asked again after every request and every answer.

        Args:
            predicate: What to wait for; it may look at the server.
            timeout: How many seconds at most.

        Returns:
            Whether it holds.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while not predicate():
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return bool(predicate())
        return True
