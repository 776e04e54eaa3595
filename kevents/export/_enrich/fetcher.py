"""Reads the metadata of one object: finds its path, obeys the rate limit, remembers refusals."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
from cachetools import LRUCache

from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.exceptions import UnavailableError
from kevents.export._enrich.discovery import Discovery, Resource, Unread
from kevents.export._enrich.metadata import (
    METADATA,
    TABLE,
    TABLE_QUERY,
    Found,
    Reference,
    read_metadata,
    read_row,
    unwanted,
)
from kevents.export._source.api import JSON, Answer, NoAnswerError


class RateLimiter:
    """At most ``rate`` requests a second, ``burst`` of them at once; not for several threads.

    Unlike the recorder's bucket it says when the next request may go, so that nobody has to ask again and again.

    Args:
        rate: Requests a second, above 0.
        burst: How many may go at once after a rest, at least 1.
    """

    __slots__ = ("_due", "_held", "_interval", "_slack")

    def __init__(self, rate: float, burst: int) -> None:
        """Begin rested."""
        self._interval = 1.0 / rate
        self._slack = (burst - 1) * self._interval
        self._due = float("-inf")
        self._held = float("-inf")

    def reserve(self, now: float, patience: float) -> float | None:
        """Take the next place.

        Args:
            now: The present, in seconds of any clock.
            patience: The longest wait, in seconds.

        Returns:
            For how many seconds to wait before the request; None if that were longer than the patience: then no place
            is taken.
        """
        due = max(self._due, now)
        wait = max(due - self._slack - now, self._held - now, 0.0)
        if wait > patience:
            return None
        self._due = due + self._interval
        return wait

    def hold(self, until: float) -> None:
        """Let no request go before a moment: the server asked for it, or cannot be reached."""
        self._held = max(self._held, until)


FORBIDDEN_LIFE: Final = 300.0

_MOST = 4096
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_MOST_DOUBLINGS = 6
_EVERYWHERE = ""
_ALL_FORBIDDEN_FROM = 5


class NegativeCache:
    """Remembers refusals by kind; not for several threads.

    A kind that was forbidden in five namespaces, and allowed in none, is taken for forbidden in all.
    """

    def __init__(self) -> None:
        """Know of none."""
        self._forbidden: LRUCache[tuple[str, str], float] = LRUCache(_MOST)
        self._counts: dict[str, int] = {}
        self._allowed: set[str] = set()
        self._failing: dict[str, tuple[int, float]] = {}

    def forbidden(self, resource: str, namespace: str, now: float) -> bool:
        """Whether a kind is known to be forbidden in a namespace."""
        if not self._forbidden:
            return False
        until = max(self._forbidden.get((resource, where), 0.0) for where in (namespace, _EVERYWHERE))
        return now < until

    def failing(self, resource: str, now: float) -> bool:
        """Whether the last requests for a kind failed, and it is too early for another."""
        return bool(self._failing) and now < self._failing.get(resource, (0, 0.0))[1]

    def forbid(self, resource: str, namespace: str, now: float) -> None:
        """The server said 403."""
        self._forbidden[resource, namespace] = now + FORBIDDEN_LIFE
        count = self._counts[resource] = self._counts.get(resource, 0) + 1
        if count >= _ALL_FORBIDDEN_FROM and resource not in self._allowed:
            self._forbidden[resource, _EVERYWHERE] = now + FORBIDDEN_LIFE

    def fail(self, resource: str, now: float) -> None:
        """A request for the kind failed: each time the pause is twice as long, up to a minute."""
        failures = self._failing.get(resource, (0, 0.0))[0]
        pause = min(_FIRST_PAUSE * 2 ** min(failures, _MOST_DOUBLINGS), _LONGEST_PAUSE)
        self._failing[resource] = (failures + 1, now + pause)

    def allow(self, resource: str) -> None:
        """The server answered."""
        self._failing.pop(resource, None)
        self._counts.pop(resource, None)
        self._allowed.add(resource)

    def suspend(self, resource: str, now: float) -> None:
        """The server has no metadata of this kind to give: do not ask again for as long as after a 403."""
        self._failing[resource] = (self._failing.get(resource, (0, 0.0))[0], now + FORBIDDEN_LIFE)


_SHORTEST = 0.5
_SHORTEST_SHARE = 0.25
_LONGEST_HOLD = 30.0
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _NO_METHOD, _NO_FORM, _TOO_MANY = 200, 401, 403, 404, 405, 406, 429
_NODES: Final = ("", "nodes")


class Reader(Protocol):
    """What makes the requests; it may be called from several threads at once."""

    def get(self, path: str, accept: str, timeout: float) -> Answer:
        """Make one request.

        Raises:
            NoAnswerError: There was no answer to this request.
            UnavailableError: There was nobody to ask.
        """
        ...


@dataclass(frozen=True, slots=True)
class Gone:
    """The server has no object of that name."""


@dataclass(frozen=True, slots=True)
class Forbidden:
    """The server does not let us read objects of this kind."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The server cannot say: it knows no such kind, or has failed for it."""


@dataclass(frozen=True, slots=True)
class Late:
    """There was no answer in time, or no leave to ask for one."""


Outcome = Found | Gone | Forbidden | Unknown | Late


class _TooLateError(Exception):
    """No request can be made before the deadline."""


class _Status(msgspec.Struct):
    class Details(msgspec.Struct):
        name: str = ""

    details: Details | None = None


class Fetcher:
    """Reads metadata, a request at a time in each thread, never faster than the pace.

    Args:
        reader: What makes the requests.
        rate: Requests a second, discovery included.
        burst: How many may be made at once after a rest.
        timeout: The longest that one request may take, in seconds.
        drop_annotations: Which annotations are left out.
        log: For what has to be told.
        clock: The monotonic clock in seconds.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        rate: float,
        burst: int,
        timeout: float,
        drop_annotations: Iterable[str],
        log: LimitedLog,
        clock: Callable[[], float],
    ) -> None:
        """Ask for nothing yet."""
        self._clock = clock
        self._reader = reader
        self._timeout = timeout
        self._shortest = min(_SHORTEST, timeout * _SHORTEST_SHARE)  # a request that has less time says nothing
        self._unwanted = unwanted(drop_annotations)
        self._log = log
        self._closed = threading.Event()
        self._lock = threading.Lock()  # guards what follows; never held while waiting
        self._pace = RateLimiter(rate, burst)
        self._discovery = Discovery()
        self._refusals = NegativeCache()
        self._failures = 0
        self._requests: Counter[str] = Counter()

    def fetch(self, reference: Reference, deadline: float) -> tuple[Outcome, bool]:
        """Read an object's metadata.

        Args:
            reference: Which object.
            deadline: Until when the answer is of use, in seconds by the monotonic clock.

        Returns:
            What became of it, and whether the object was asked for at all.
        """
        try:
            resource = self._resolve(reference, deadline)
            path = resource.path(reference) if resource is not None and resource.readable else None
            if resource is None or path is None:
                return Unknown(), False
            refusal = self._refusal(resource, reference.namespace)
            return (refusal, False) if refusal else (self._read(resource, reference, path, deadline), True)
        except _TooLateError:
            return Late(), False

    def count(self, verb: str) -> None:
        """Count a request that somebody else made with the same credentials."""
        with self._lock:
            self._requests[verb] += 1

    def requests(self) -> dict[str, int]:
        """Give how many requests were made, by verb."""
        with self._lock:
            return dict(self._requests)

    def close(self) -> None:
        """Make no further request; whoever waits for leave is told that it is too late."""
        self._closed.set()

    # Where the object is

    def _resolve(self, reference: Reference, deadline: float) -> Resource | None:
        while True:
            with self._lock:
                step = self._discovery.resolve(reference.api_version, reference.kind, self._clock())
                if isinstance(step, Unread) and self._refusals.failing(step.path, self._clock()):
                    step = None
            if not isinstance(step, Unread):
                return step
            self._discover(step.path, deadline)

    def _discover(self, path: str, deadline: float) -> None:
        answer = self._ask(path, JSON, "discover", path, deadline)
        if answer.status in (_UNAUTHORIZED, _TOO_MANY):
            self._hold(answer)
            raise _TooLateError
        if answer.status not in (_OK, _FORBIDDEN, _NOT_FOUND):  # one group's server may be down, and no other's
            self._fail(path)
            return
        with self._lock:
            try:
                self._discovery.learn(path, answer.body if answer.status == _OK else None, self._clock())
            except ValueError as error:
                trouble = format_error(error)
            else:
                trouble = f"{path} was answered with 403" if answer.status == _FORBIDDEN else ""
        if trouble:
            self._log.log_limited(
                ("discovery", path), f"kinds cannot be looked up, their events are not enriched: {trouble}"
            )

    # Whether it may be asked for

    def _refusal(self, resource: Resource, namespace: str) -> Outcome | None:
        now = self._clock()
        with self._lock:
            if self._refusals.forbidden(resource.full_name, namespace, now):
                return Forbidden()
            return Unknown() if self._refusals.failing(resource.full_name, now) else None

    def _ask(self, path: str, accept: str, verb: str, what: str, deadline: float) -> Answer:
        """Make one request when it is its turn; what is not answered is left alone for a while, under its name.

        Raises:
            _TooLateError: Its turn would come too late, or there was no answer.
        """
        now = self._clock()
        with self._lock:
            wait = self._pace.reserve(now, deadline - now - self._shortest)
        if wait is None or self._closed.wait(wait):
            raise _TooLateError
        timeout = min(max(deadline - self._clock(), self._shortest), self._timeout)
        with self._lock:
            self._requests[verb] += 1
        try:
            answer = self._reader.get(path, accept, timeout)
        except UnavailableError as error:
            if isinstance(error, NoAnswerError) and error.accepted:
                self._fail(what)
            else:
                self._hold(None)
            self._log.log_limited(
                "unavailable", f"an event's object could not be looked up: {error}", level=logging.INFO
            )
            raise _TooLateError from None
        with self._lock:
            self._failures = 0
        return answer

    def _hold(self, answer: Answer | None) -> None:
        """The server is not to be asked for anything for a while."""
        with self._lock:
            pause = min(2.0**self._failures, _LONGEST_HOLD)
            self._failures = min(self._failures + 1, 10)
            after = answer.retry_after if answer is not None else None
            self._pace.hold(self._clock() + (pause if after is None else max(after, 1.0)))

    # What came back

    def _read(self, resource: Resource, reference: Reference, path: str, deadline: float) -> Outcome:
        node = (resource.group, resource.name) == _NODES
        path, form = (path + TABLE_QUERY, TABLE) if node else (path, METADATA)
        answer = self._ask(path, form, "get", resource.full_name, deadline)
        if answer.status == _OK:
            return self._found(resource, answer.body, node=node)
        return self._refused(resource, reference.namespace, answer)

    def _found(self, resource: Resource, body: bytes, *, node: bool) -> Outcome:
        try:
            found = (read_row if node else read_metadata)(body, self._unwanted)
        except ValueError as error:
            self._suspend(resource, format_error(error))
            return Unknown()
        with self._lock:
            self._refusals.allow(resource.full_name)
        return found

    def _refused(self, resource: Resource, namespace: str, answer: Answer) -> Outcome:
        name, now = resource.full_name, self._clock()
        if answer.status == _NOT_FOUND:
            return self._missing(resource, answer.body)
        if answer.status == _FORBIDDEN:
            with self._lock:
                self._refusals.forbid(name, namespace, now)
            rule = f'apiGroups: ["{resource.group}"], resources: ["{resource.name}"], verbs: ["get"]'
            self._log.log_limited(
                ("forbidden", name), f"events about {name} are not enriched: the server says 403; allow {rule}"
            )
            return Forbidden()
        if answer.status in (_NO_METHOD, _NO_FORM):
            self._suspend(resource, f"the server says {answer.status}")
            return Unknown()
        if answer.status in (_UNAUTHORIZED, _TOO_MANY):
            self._hold(answer)
            return Late()
        if not 400 <= answer.status < 500:  # noqa: PLR2004 - for what one event's author wrote no kind is to blame
            self._fail(name)
        return Unknown()

    def _missing(self, resource: Resource, body: bytes) -> Outcome:
        """Is it the object that is not there, or its kind?"""
        try:
            details = msgspec.json.decode(body, type=_Status).details
        except (msgspec.DecodeError, UnicodeDecodeError):
            details = None  # a page of text: nobody serves this path
        if details is not None and details.name:
            with self._lock:
                self._refusals.allow(resource.full_name)
            return Gone()
        with self._lock:
            self._discovery.forget(resource)
        return Unknown()

    def _fail(self, what: str) -> None:
        with self._lock:
            self._refusals.fail(what, self._clock())

    def _suspend(self, resource: Resource, why: str) -> None:
        with self._lock:
            self._refusals.suspend(resource.full_name, self._clock())
        self._log.log_limited(
            ("no metadata", resource.full_name), f"events about {resource.full_name} are not enriched: {why}"
        )
