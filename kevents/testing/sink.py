"""A sink in memory that validates events like an API server, and fails on demand; and a clock that tests set."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Final, TypeAlias

from kevents._model.wire import CORE_GROUP, parse_time
from kevents._runtime.lifecycle import ProcessBound
from kevents.exceptions import StatusError, UnavailableError
from kevents.testing._apiserver.kinds import Kind, Kinds
from kevents.testing._apiserver.patch import STRATEGIC
from kevents.testing._apiserver.requests import APIError, Call, Request
from kevents.testing._apiserver.resources import Resources
from kevents.testing._apiserver.storage import Store

__all__ = ["FakeClock", "FakeSink", "LostAnswer", "SinkRequest"]

Json: TypeAlias = "dict[str, Any]"
Key: TypeAlias = "tuple[str, str]"

_JSON: Final = "application/json"
_NANO: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class LostAnswer:
    """A fault: the write is stored, but the sink raises, as if the answer had been lost.

    Attributes:
        error: The exception.
    """

    error: BaseException = field(default_factory=lambda: UnavailableError("the answer was lost"))


@dataclass(frozen=True, slots=True)
class SinkRequest:
    """One call of a sink.

    Attributes:
        number: The number of the call, from 1.
        verb: ``create`` or ``patch``.
        namespace: The namespace of the event.
        name: The name of the event.
        body: A copy of the body, or of the patch.
        done: Whether the call has ended.
        error: The exception that it raised, or None.
    """

    number: int
    verb: str
    namespace: str
    name: str
    body: Json
    done: bool = False
    error: BaseException | None = None


Fault: TypeAlias = "BaseException | LostAnswer"
Faults: TypeAlias = "Mapping[int, Fault] | Callable[[SinkRequest], Fault | None]"


class FakeSink(ProcessBound):
    """An :class:`~kevents.EventSink` in memory, with the rules of the embedded API server but without HTTP.

    Like a real server it refuses bad requests with :class:`~kevents.StatusError`:

    - 400 for a field of the wrong type
    - 404 for a patch of a missing event
    - 409 for a create with a used name
    - 422 for an involved object in another namespace

    A broadcaster never makes two calls for one event at the same time. If it did, the second call would raise an
    ``AssertionError`` and appear in ``violations``.

    Attributes:
        api_group: The argument. A broadcaster of the other API refuses the sink.

    Args:
        api_group: The API group: ``events.k8s.io`` for :mod:`kevents.events`, empty for core/v1.
        faults: Exceptions by the number of the call, from 1, or a function that returns one for a call. With
            :class:`LostAnswer` the write is stored first.
        namespaces: The existing namespaces. Events in others get 404. None: all exist.
        event_ttl: The lifetime in seconds of an event after its last write. None for ever.
        clock: The wall clock in nanoseconds.

    Raises:
        TypeError: A fault is no exception and no :class:`LostAnswer`.
        ValueError: There is no call with the number of a fault, such as 0.

    Example:
        >>> import kevents
        >>> sink = FakeSink(faults={1: kevents.StatusError(503), 2: LostAnswer()})
        >>> pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "prod"}}
        >>> with kevents.EventBroadcaster(sleep_duration=0.01) as broadcaster:
        ...     _ = broadcaster.start_recording_to_sink(sink)
        ...     broadcaster.new_recorder("operator").event(pod, "Normal", "Started", "up")
        >>> [event["reason"] for event in sink.events()], [request.verb for request in sink.requests]
        (['Started'], ['create', 'create', 'create', 'patch'])
    """

    def __init__(
        self,
        *,
        api_group: str = CORE_GROUP,
        faults: Faults | None = None,
        namespaces: Iterable[str] | None = None,
        event_ttl: float | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._fault_of = _asked(faults)
        self._any_namespace = namespaces is None
        kinds = Kinds()
        self.api_group: Final = api_group
        self._event = _kind(kinds, api_group, "events")
        self._namespace = _kind(kinds, CORE_GROUP, "namespaces")
        self._resources = Resources(Store(clock, event_ttl), finalize_namespaces=False)
        self._changed = threading.Condition(threading.RLock())
        self._requests: list[SinkRequest] = []
        self._under_way: Counter[Key] = Counter()
        self._violations: list[SinkRequest] = []
        self._most_at_once = 0
        self._released = threading.Event()
        self._released.set()
        for name in namespaces or ():
            self._add_namespace(name)

    # -- the sink ------------------------------------------------------------------------------------------------

    def create(self, namespace: str, body: Json, /) -> None:
        """Create an event.

        Raises:
            StatusError: The API server would refuse it. The faults may raise any exception.
        """
        metadata = body.get("metadata")
        name = metadata.get("name", "") if isinstance(metadata, Mapping) else ""
        self._call("create", namespace, str(name), body)

    def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch.

        Raises:
            StatusError: The API server would refuse it. The faults may raise any exception.
        """
        self._call("patch", namespace, name, patch)

    def _call(self, verb: str, namespace: str, name: str, body: Json) -> None:
        raw = json.dumps(body).encode()
        with self._changed:
            request = SinkRequest(len(self._requests) + 1, verb, namespace, name, json.loads(raw))
            self._requests.append(request)
            self._under_way[namespace, name] += 1
            self._most_at_once = max(self._most_at_once, self._under_way.total())
            if self._under_way[namespace, name] > 1:
                self._violations.append(request)
            self._changed.notify_all()
        error: BaseException | None = None
        try:
            self._released.wait()
            self._meet(request, raw)
        except BaseException as raised:
            error = raised
            raise
        finally:
            with self._changed:
                self._requests[request.number - 1] = replace(request, done=True, error=error)
                self._under_way[namespace, name] -= 1
                self._changed.notify_all()

    def _meet(self, request: SinkRequest, raw: bytes) -> None:
        if request in self.violations:
            raise AssertionError(f"two calls at once for {request.namespace}/{request.name}")
        fault = self._fault_of(request)
        if fault is None or isinstance(fault, LostAnswer):
            self._serve(request, raw)
        if fault is not None:
            raise fault.error if isinstance(fault, LostAnswer) else fault

    def _serve(self, request: SinkRequest, raw: bytes) -> None:
        if self._any_namespace:
            with suppress(APIError):  # it exists already
                self._add_namespace(request.namespace)
        headers = {"content-type": STRATEGIC if request.verb == "patch" else _JSON}
        incoming = Request("", "", headers, raw)
        name = request.name if request.verb == "patch" else ""
        try:
            self._resources.serve(Call(self._event, request.verb, request.namespace, name, incoming))
        except APIError as error:
            causes = (error.details or {}).get("causes", ())
            reasons = [cause["reason"] for cause in causes]
            raise StatusError(error.code, error.reason, str(error), reasons) from None

    def _add_namespace(self, name: str) -> None:
        self._resources.insert(self._namespace, "", {"metadata": {"name": name}})

    # -- faults --------------------------------------------------------------------------------------------------

    def hang(self) -> None:
        """Block all calls until :meth:`release`."""
        self._released.clear()

    def release(self) -> None:
        """Let blocked calls go on, and block no more."""
        self._released.set()

    def expire(self, name: str = "*") -> int:
        """Expire the events of a name, or all with ``*``; returns their number."""
        return self._resources.store.expire(name)

    # -- results -------------------------------------------------------------------------------------------------

    def events(self, namespace: str | None = None) -> list[Json]:
        """Copies of the events of one namespace or of all, in the form of its API, sorted by name."""
        found, _ = self._resources.store.items(self._event.bucket, namespace or "")
        return [copy.deepcopy(self._event.show(stored)) for _, stored in found]

    @property
    def requests(self) -> tuple[SinkRequest, ...]:
        """The calls, oldest first. A call is added when it begins."""
        with self._changed:
            return tuple(self._requests)

    @property
    def violations(self) -> tuple[SinkRequest, ...]:
        """The calls that began while another call for the same event was running; a broadcaster makes none."""
        with self._changed:
            return tuple(self._violations)

    @property
    def under_way(self) -> int:
        """The number of running calls."""
        with self._changed:
            return self._under_way.total()

    @property
    def most_at_once(self) -> int:
        """The highest number of calls that ran at the same time."""
        with self._changed:
            return self._most_at_once

    def wait_for(self, predicate: Callable[[], object], timeout: float = 5.0) -> bool:
        """Wait until ``predicate`` is true. It is evaluated when a call begins or ends.

        Args:
            predicate: The condition, such as ``lambda: sink.under_way == 4``.
            timeout: The maximum wait in seconds.

        Returns:
            Whether it became true.
        """
        with self._changed:
            return bool(self._changed.wait_for(lambda: bool(predicate()), timeout))

    def __repr__(self) -> str:
        return f"<FakeSink {len(self.events())} events, {len(self.requests)} requests>"


def _asked(faults: Faults | None) -> Callable[[SinkRequest], Fault | None]:
    if callable(faults):
        return lambda request: _checked(faults(request))
    by_number = {number: _checked(fault) for number, fault in (faults or {}).items()}
    if wrong := [number for number in by_number if type(number) is not int or number < 1]:
        raise ValueError(f"faults go by the number of the call, from 1, not {wrong[0]!r}")
    return lambda request: by_number.get(request.number)


def _checked(fault: Fault | None) -> Fault | None:
    if fault is None or isinstance(fault, BaseException | LostAnswer):
        return fault
    raise TypeError(f"a sink's fault is an exception, such as kevents.StatusError(503), or LostAnswer(), not {fault!r}")


def _kind(kinds: Kinds, group: str, resource: str) -> Kind:
    kind = kinds.find(group, "v1", resource)
    if kind is None:
        raise ValueError(f"api_group must be empty, for core/v1, or 'events.k8s.io', not {group!r}")
    return kind


class FakeClock:
    """A wall clock in nanoseconds that moves only when a test moves it.

    It is for ``clock=`` of a broadcaster, of ``CorrelatorOptions``, of a ``FakeSink`` or of an ``APIServer``. Delays
    between retries, ``max_age`` and the times of series use the system's clock.

    Args:
        start: The initial time: an aware datetime, or nanoseconds since the epoch.

    Example:
        >>> clock = FakeClock()
        >>> clock.advance(300)
        >>> print(clock.now)
        2026-01-01 00:05:00+00:00
    """

    def __init__(self, start: datetime | int = datetime(2026, 1, 1, tzinfo=timezone.utc)) -> None:
        self._lock = threading.Lock()
        self._now = _nanoseconds(start)

    def __call__(self) -> int:
        """The time in nanoseconds since the epoch."""
        return self._now

    @property
    def now(self) -> datetime:
        """The time as an aware datetime, exact to the microsecond."""
        return _EPOCH + timedelta(microseconds=self._now // 1000)

    def advance(self, seconds: float) -> None:
        """Move the clock forward, or back if ``seconds`` is negative."""
        with self._lock:
            self._now += round(seconds * _NANO)

    def set(self, when: datetime | int) -> None:
        """Set the time: an aware datetime, or nanoseconds since the epoch."""
        self._now = _nanoseconds(when)

    def __repr__(self) -> str:
        return f"<FakeClock {self.now.isoformat()}>"


def _nanoseconds(when: datetime | int) -> int:
    return when if isinstance(when, int) else parse_time(when)
