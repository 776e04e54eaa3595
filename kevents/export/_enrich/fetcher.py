"""Reads the metadata of objects: several requests at once, missing objects of one kind and namespace by one list.

A request waits in a group of its kind and namespace. A worker takes the group when the rate limiter lets it: a few
objects by one GET each, more by one LIST. So the longer requests wait, the more objects one request reads.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from typing import Final
from urllib.parse import quote

import msgspec
from cachetools import LRUCache

from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.exceptions import UnavailableError
from kevents.export._enrich.discovery import (
    METADATA,
    METADATA_LIST,
    TABLE,
    TABLE_QUERY,
    Discovery,
    Found,
    FoundPage,
    Reference,
    Resource,
    Unread,
    read_metadata,
    read_metadata_list,
    read_row,
    read_rows,
)
from kevents.export._model.options import Backoff
from kevents.export._model.types import value_at
from kevents.export._source.api import JSON, Answer, ApiReader, NoAnswerError

LIST_FROM: Final = 4  # from this number of missing objects of one kind and namespace on, they are read by a list
_WORKERS: Final = 8
_PAGE: Final = 500
_SHORTEST: Final = 0.5
_SHORTEST_SHARE: Final = 0.25
_MAX_TIMEOUT: Final = 5.0
_MAX_REMEMBERED: Final = 4096
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _NO_METHOD, _NO_FORM, _TOO_MANY = 200, 401, 403, 404, 405, 406, 429
_NODES: Final = ("", "nodes")
FORBIDDEN_LIFE: Final = 300.0
_EVERYWHERE: Final = ""
_FORBIDDEN_EVERYWHERE_FROM: Final = 5  # a kind forbidden in so many namespaces, and allowed in none, is so in all


class Refusal(Enum):
    """Why an object could not be read."""

    GONE = "the server has no object of this name"
    FORBIDDEN = "the server forbids reading objects of this kind"
    UNKNOWN = "the server has no such kind, or fails for it"
    LATE = "there was no answer in time, or no request was possible in time"


Outcome = Found | Refusal


@dataclass(slots=True, eq=False)
class Flight:
    """A request for one object, shared by all that wait for it."""

    reference: Reference  # the object
    deadline: float  # the time until which an answer is of use, in seconds by the monotonic clock
    land: Callable[[Flight], None]  # called when the outcome is known, before the waiting threads wake
    landed: threading.Event = field(default_factory=threading.Event)  # set at the end
    outcome: Outcome | None = None  # None until then
    asked: bool = False  # True if the server was asked for this object
    asked_at: float = float("-inf")  # the time of the request
    others: Sequence[tuple[Reference, Found]] = ()  # other objects that the same list showed

    @property
    def answered(self) -> bool:
        """True if the server showed the object, or that there is none."""
        return isinstance(self.outcome, Found) or self.outcome is Refusal.GONE


Group = tuple[str, str, str]  # API version, kind and namespace of requests that one list can answer


class _RefusedError(Exception):
    """The outcome for all objects of a request."""

    def __init__(self, outcome: Refusal) -> None:
        self.outcome = outcome


class RateLimiter:
    """At most ``qps`` requests a second, ``burst`` of them at once; callers need not poll. Not thread-safe."""

    def __init__(self, qps: float, burst: int) -> None:
        self._interval = 1.0 / qps
        self._slack = (burst - 1) * self._interval
        self._due = float("-inf")
        self._held = float("-inf")

    def reserve(self, now: float, patience: float) -> float | None:
        """Reserve the next request and return the seconds to wait; do neither, if that exceeds the patience: None."""
        due = max(self._due, now)
        wait = max(due - self._slack - now, self._held - now, 0.0)
        if wait > patience:
            return None
        self._due = due + self._interval
        return wait

    def give_back(self) -> None:
        self._due -= self._interval

    def hold(self, until: float) -> None:
        """Allow no request before a time: the server asked for it, or cannot be reached."""
        self._held = max(self._held, until)


class NegativeCache:
    """Remembers kinds that the server refuses, or fails to read. Several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forbidden: LRUCache[tuple[str, str], float] = LRUCache(_MAX_REMEMBERED)
        self._counts: Counter[str] = Counter()
        self._allowed: set[str] = set()
        self._backoffs: dict[str, Backoff] = {}
        self._failing_until: dict[str, float] = {}

    def forbidden(self, resource: str, namespace: str, now: float) -> bool:
        with self._lock:
            return any(now < self._forbidden.get((resource, where), now) for where in (namespace, _EVERYWHERE))

    def failing(self, resource: str, now: float) -> bool:
        """True if the last requests for a kind failed, and its pause has not ended."""
        with self._lock:
            return now < self._failing_until.get(resource, now)

    def forbid(self, resource: str, namespace: str, now: float) -> None:
        """The server answered 403."""
        with self._lock:
            self._forbidden[resource, namespace] = now + FORBIDDEN_LIFE
            self._counts[resource] += 1
            if self._counts[resource] >= _FORBIDDEN_EVERYWHERE_FROM and resource not in self._allowed:
                self._forbidden[resource, _EVERYWHERE] = now + FORBIDDEN_LIFE

    def fail(self, resource: str, now: float) -> None:
        """A request for the kind failed; each pause is twice as long, up to a minute."""
        with self._lock:
            backoff = self._backoffs.setdefault(resource, Backoff(1.0, 60.0, jitter=False))
            self._failing_until[resource] = now + backoff.next()

    def allow(self, resource: str) -> None:
        """The server answered."""
        with self._lock:
            for memory in (self._failing_until, self._backoffs, self._counts):
                memory.pop(resource, None)
            self._allowed.add(resource)

    def allowed(self, resource: str) -> bool:
        """True if the server has answered for this kind before."""
        return resource in self._allowed

    def suspend(self, resource: str, now: float) -> None:
        """The server has no metadata of this kind: pause as long as after a 403."""
        with self._lock:
            self._failing_until[resource] = now + FORBIDDEN_LIFE


class Fetcher:
    """Reads metadata in a few threads of its own, which end when there is nothing to do."""

    def __init__(
        self,
        reader: ApiReader,
        limiter: RateLimiter,  # of all requests, with those of discovery
        timeout: float,  # the longest time for one request, in seconds; at most 5
        unwanted: re.Pattern[str],  # the annotations that are dropped
        log: LimitedLog,
        clock: Callable[[], float],  # the monotonic clock in seconds
    ) -> None:
        self._clock = clock
        self._reader = reader
        self._timeout = min(timeout, _MAX_TIMEOUT)
        self._shortest = min(_SHORTEST, timeout * _SHORTEST_SHARE)  # a request with less time is useless
        self._unwanted = unwanted
        self._log = log
        self._closed = threading.Event()
        self._lock = threading.Lock()  # guards what follows; never held while waiting
        self._waiting: dict[Group, dict[str, list[Flight]]] = {}  # by name
        self._jobs: deque[Group] = deque()
        self._workers = 0
        self._limiter = limiter
        self._discovery = Discovery()
        self._discovering: dict[str, threading.Event] = {}  # paths that a worker is reading
        self._negative = NegativeCache()
        self._pages: LRUCache[Group, int] = LRUCache(_MAX_REMEMBERED)  # the length of the last list of a group
        self._outage = Backoff(1.0, 30.0, jitter=False)
        self._requests: Counter[str] = Counter()

    def submit(self, flights: Iterable[Flight]) -> None:
        """Read objects; each flight lands once. Objects of one call are read together where a list can do that."""
        groups: dict[Group, None] = {}
        with self._lock:
            for flight in flights:
                group = flight.reference[:3]
                groups[group] = None
                self._waiting.setdefault(group, {}).setdefault(flight.reference.name, []).append(flight)
        for group in groups:
            self._schedule(group)

    def count(self, verb: str) -> None:
        """Count a request that another component made with the same credentials."""
        with self._lock:
            self._requests[verb] += 1

    def requests(self) -> dict[str, int]:
        with self._lock:
            return dict(self._requests)

    def close(self) -> None:
        """Make no further request; waiting flights end as late."""
        self._closed.set()

    # -- workers ---------------------------------------------------------------------------------------------------

    def _schedule(self, group: Group) -> None:
        """Let a worker serve a group, if flights wait in it."""
        with self._lock:
            if group not in self._waiting or group in self._jobs:
                return
            self._jobs.append(group)
            if self._workers == _WORKERS:
                return
            self._workers += 1
        threading.Thread(target=self._work, name="kevents-enrich", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._workers -= 1
                    return
                group = self._jobs.popleft()
            try:
                self._serve(group)
            except Exception as error:  # noqa: BLE001 - a fault here must not leave a flight waiting
                text = f"objects could not be read: {format_error(error)}"
                self._log.log_limited("fetcher", text, level=logging.ERROR)
                self._land_all(self._take_all(group), Refusal.UNKNOWN)

    def _serve(self, group: Group) -> None:
        """Read some or all objects of a group."""
        with self._lock:
            names = self._waiting.get(group, {}).values()
            deadline = max((flight.deadline for flights in names for flight in flights), default=None)
        if deadline is None:  # another worker took them
            return
        try:
            resource = self._resolve(group, deadline)
            self._check_refusals(resource, group[2])
            self._wait_for_turn(deadline)
        except _RefusedError as refused:
            self._land_all(self._take_all(group), refused.outcome)
            return
        with self._lock:
            waiting = self._waiting.pop(group, {})
            listed = self._can_list(group, resource, len(waiting), self._clock())
            if waiting and not listed:
                name = next(iter(waiting))
                rest, waiting = waiting, {name: waiting.pop(name)}
                if rest:
                    self._waiting[group] = rest
            if not waiting:
                self._limiter.give_back()
                return
        # Until a kind has been read once, a single request finds out whether it may be read.
        if self._negative.allowed(resource.full_name):
            self._schedule(group)
        try:
            if listed:
                self._list(resource, group, waiting, deadline)
            else:
                self._read(resource, *waiting.values())
        finally:
            self._land_all(chain(*waiting.values()), Refusal.UNKNOWN)
            self._schedule(group)

    def _take_all(self, group: Group) -> list[Flight]:
        with self._lock:
            return [flight for flights in self._waiting.pop(group, {}).values() for flight in flights]

    def _can_list(self, group: Group, resource: Resource, missing: int, now: float) -> bool:
        if missing < max(LIST_FROM, 2 * self._pages.get(group, 1)) or not resource.listable:
            return False
        what = _list_of(resource)
        return not (self._negative.forbidden(what, group[2], now) or self._negative.failing(what, now))

    def _land_all(self, flights: Iterable[Flight], outcome: Outcome) -> None:
        for flight in flights:
            if flight.outcome is None:
                self._land(flight, outcome)

    def _land(self, flight: Flight, outcome: Outcome) -> None:
        flight.outcome = outcome
        try:
            flight.land(flight)
        finally:
            flight.landed.set()

    # -- where the objects are, and whether they may be read ---------------------------------------------------------

    def _resolve(self, group: Group, deadline: float) -> Resource:
        """Return the resource of a group, by discovery if needed. Raises _RefusedError."""
        while True:
            with self._lock:
                step = self._discovery.resolve(group[0], group[1], self._clock())
                if isinstance(step, Unread) and self._negative.failing(step.path, self._clock()):
                    step = None
                running = self._discovering.get(step.path) if isinstance(step, Unread) else None
                if isinstance(step, Unread) and running is None:
                    mine = self._discovering[step.path] = threading.Event()
            if not isinstance(step, Unread):
                break
            if running is not None:
                if not running.wait(max(deadline - self._clock(), 0.0)):
                    raise _RefusedError(Refusal.LATE)
                continue
            try:
                self._discover(step.path, deadline)
            finally:
                with self._lock:
                    del self._discovering[step.path]
                mine.set()
        if step is None or not step.readable:
            raise _RefusedError(Refusal.UNKNOWN)
        return step

    def _discover(self, path: str, deadline: float) -> None:
        self._wait_for_turn(deadline)
        answer = self._request(path, JSON, "discover", path, deadline)
        if answer.status not in (_OK, _FORBIDDEN, _NOT_FOUND):
            self._negative.fail(path, self._clock())
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

    def _check_refusals(self, resource: Resource, namespace: str) -> None:
        now = self._clock()
        if self._negative.forbidden(resource.full_name, namespace, now):
            raise _RefusedError(Refusal.FORBIDDEN)
        if self._negative.failing(resource.full_name, now):
            raise _RefusedError(Refusal.UNKNOWN)

    # -- requests ----------------------------------------------------------------------------------------------------

    def _wait_for_turn(self, deadline: float) -> None:
        """Wait until the rate limiter allows a request. Raises _RefusedError if that is too late for the deadline."""
        now = self._clock()
        with self._lock:
            wait = self._limiter.reserve(now, deadline - now - self._shortest)
        if wait is None or self._closed.wait(wait):
            raise _RefusedError(Refusal.LATE)

    def _request(self, path: str, accept: str, verb: str, what: str, deadline: float) -> Answer:
        """Make one request and return the answer, 200 or most of 4xx. Raises _RefusedError.

        After no answer or a 5xx, `what` (a kind or a discovery path) is not asked for during a pause: the server of one
        group may be down. After 401 and 429, nothing is asked for.
        """
        timeout = min(max(deadline - self._clock(), self._shortest), self._timeout)
        self.count(verb)
        try:
            answer = self._reader.get(path, accept, timeout)
        except UnavailableError as error:
            if isinstance(error, NoAnswerError) and error.accepted:
                self._negative.fail(what, self._clock())
            else:
                self._hold(None)
            self._log.log_limited("unavailable", f"metadata could not be read: {error}", level=logging.INFO)
            raise _RefusedError(Refusal.LATE) from None
        with self._lock:
            self._outage.reset()
        if answer.status in (_UNAUTHORIZED, _TOO_MANY):
            self._hold(answer)
            raise _RefusedError(Refusal.LATE)
        if answer.status != _OK and not 400 <= answer.status < 500:  # noqa: PLR2004
            self._negative.fail(what, self._clock())
            raise _RefusedError(Refusal.UNKNOWN)
        return answer

    def _hold(self, answer: Answer | None) -> None:
        """Ask the server for nothing for a while."""
        with self._lock:
            pause = self._outage.next()
            after = answer.retry_after if answer is not None else None
            self._limiter.hold(self._clock() + (pause if after is None else max(after, 1.0)))

    def _suspend(self, resource: Resource, why: str) -> None:
        self._negative.suspend(resource.full_name, self._clock())
        self._log.log_limited(
            ("no metadata", resource.full_name), f"events about {resource.full_name} are not enriched: {why}"
        )

    # -- objects -----------------------------------------------------------------------------------------------------

    def _read(self, resource: Resource, flights: Sequence[Flight]) -> None:
        """Read one object, which all flights are about."""
        reference = flights[0].reference
        path = resource.path(reference)
        if path is None:
            self._land_all(flights, Refusal.UNKNOWN)
            return
        for flight in flights:
            flight.asked, flight.asked_at = True, self._clock()
        try:
            outcome = self._get(resource, reference.namespace, path, max(flight.deadline for flight in flights))
        except _RefusedError as refused:
            outcome = refused.outcome
        self._land_all(flights, outcome)

    def _get(self, resource: Resource, namespace: str, path: str, deadline: float) -> Outcome:
        node = (resource.group, resource.name) == _NODES
        path, form = (f"{path}?{TABLE_QUERY}", TABLE) if node else (path, METADATA)
        answer = self._request(path, form, "get", resource.full_name, deadline)
        if answer.status != _OK:
            return self._refused(resource, namespace, answer)
        try:
            found = (read_row if node else read_metadata)(answer.body, self._unwanted)
        except ValueError as error:
            self._suspend(resource, format_error(error))
            return Refusal.UNKNOWN
        self._negative.allow(resource.full_name)
        return found

    def _list(self, resource: Resource, group: Group, waiting: dict[str, list[Flight]], deadline: float) -> None:
        """Read objects by a list, page by page, and those that it cannot show in a reasonable time one by one."""
        wanted = dict(waiting)
        for name in [name for name, flights in waiting.items() if resource.path(flights[0].reference) is None]:
            self._land_all(wanted.pop(name), Refusal.UNKNOWN)
        asked_at, token, pages = self._clock(), "", 0
        while wanted:
            page = self._page(resource, group[2], token, deadline)
            if page is None:
                break
            pages += 1
            self._match(page.found, wanted, asked_at)
            token, more = page.token, -(-page.remaining // _PAGE)
            with self._lock:
                self._pages[group] = pages + more
            if not token:
                for flights in wanted.values():
                    self._settle(flights, asked_at, Refusal.GONE)
                return
            if not wanted or more > len(wanted):
                break
            try:
                self._wait_for_turn(deadline)
            except _RefusedError as refused:
                self._land_all(chain(*wanted.values()), refused.outcome)
                return
        if wanted:
            with self._lock:
                for name in wanted:
                    self._waiting.setdefault(group, {}).setdefault(name, []).extend(waiting.pop(name))

    def _page(self, resource: Resource, namespace: str, token: str, deadline: float) -> FoundPage | None:
        """Read one page; None if the kind cannot be listed."""
        node = (resource.group, resource.name) == _NODES
        query = f"?limit={_PAGE}" + (f"&continue={quote(token, safe='')}" if token else "")
        query += f"&{TABLE_QUERY}" if node else ""
        path, form = resource.list_path(namespace) + query, TABLE if node else METADATA_LIST
        try:
            answer = self._request(path, form, "list", _list_of(resource), deadline)
        except _RefusedError:
            return None
        why = f"the server says {answer.status}"
        if answer.status == _OK:
            try:
                return (read_rows if node else read_metadata_list)(answer.body, self._unwanted)
            except ValueError as error:
                why = format_error(error)
        if not token:  # else the list expired between two pages
            self._negative.forbid(_list_of(resource), namespace, self._clock())
            rule = f'apiGroups: ["{resource.group}"], resources: ["{resource.name}"], verbs: ["get", "list"]'
            text = f"{resource.full_name} are not listed but read one by one: {why}; allow {rule}"
            self._log.log_limited(("list", resource.full_name), text, level=logging.INFO)
        return None

    def _match(self, found: Mapping[str, Found], wanted: dict[str, list[Flight]], asked_at: float) -> None:
        """Land the flights whose objects are on a page; give the other objects to one of them."""
        hits = {name: wanted.pop(name) for name in found if name in wanted}
        if not hits:
            return
        first = next(iter(hits.values()))[0]
        first.others = [
            (first.reference._replace(name=name, uid=each.uid), each)
            for name, each in found.items()
            if each.uid and name not in hits
        ]
        for name, flights in hits.items():
            self._settle(flights, asked_at, found[name])

    def _settle(self, flights: Iterable[Flight], asked_at: float, outcome: Outcome) -> None:
        """Land flights with an answer of the server."""
        for flight in flights:
            flight.asked, flight.asked_at = True, asked_at
            self._land(flight, outcome)

    def _refused(self, resource: Resource, namespace: str, answer: Answer) -> Outcome:
        name, now = resource.full_name, self._clock()
        if answer.status == _NOT_FOUND:
            return self._missing(resource, answer.body)
        if answer.status == _FORBIDDEN:
            self._negative.forbid(name, namespace, now)
            why = f'403; allow apiGroups: ["{resource.group}"], resources: ["{resource.name}"], verbs: ["get"]'
            if name == "secrets":
                why = "this is on purpose, because a permission to read their metadata is one to read their data"
            self._log.log_limited(("forbidden", name), f"events about {name} are not enriched: {why}")
            return Refusal.FORBIDDEN
        if answer.status in (_NO_METHOD, _NO_FORM):  # another 4xx may be due to the author of one event
            self._suspend(resource, f"the server says {answer.status}")
        return Refusal.UNKNOWN

    def _missing(self, resource: Resource, body: bytes) -> Outcome:
        """The outcome of a 404: either the object does not exist, or its kind."""
        try:
            name = value_at(msgspec.json.decode(body), "details", "name")
        except (msgspec.DecodeError, UnicodeDecodeError):
            name = None  # a page of text: the path is not served
        if name:
            self._negative.allow(resource.full_name)
            return Refusal.GONE
        with self._lock:
            self._discovery.forget(resource)
        return Refusal.UNKNOWN


def _list_of(resource: Resource) -> str:
    """The name under which a refusal to list a kind is remembered."""
    return f"list {resource.full_name}"
