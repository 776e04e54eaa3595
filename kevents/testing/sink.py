"""A sink in memory, which checks what an API server checks and fails on demand."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from kevents._model.wire import CORE_GROUP
from kevents.exceptions import StatusError, UnavailableError
from kevents.testing._apiserver.kinds import Kind, Kinds
from kevents.testing._apiserver.patch import STRATEGIC
from kevents.testing._apiserver.requests import Call, Incoming
from kevents.testing._apiserver.resources import Resources
from kevents.testing._apiserver.status import APIError
from kevents.testing._apiserver.storage import Store

__all__ = ["FakeSink", "LostAnswer", "SinkRequest"]

Json: TypeAlias = "dict[str, Any]"
Key: TypeAlias = "tuple[str, str]"

_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class LostAnswer:
    """A fault: the write lands, and the sink raises all the same, as if the answer had been lost.

    Attributes:
        error: What it raises.

    .. versionadded:: 0.1
    """

    error: BaseException = field(default_factory=lambda: UnavailableError("the answer was lost"))


@dataclass(frozen=True, slots=True)
class SinkRequest:
    """One call of a sink.

    Attributes:
        number: 1 for the first.
        verb: ``create`` or ``patch``.
        namespace: Of the event.
        name: Of the event; of a create, the one in its body.
        body: A copy of the body, or of the patch.
        done: Whether the call has ended.
        error: What it raised; None if it succeeded, or has not ended.

    .. versionadded:: 0.1
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


class FakeSink:
    """An :class:`~kevents.EventSink` in memory, with the rules of the embedded API server and no HTTP.

    It refuses what a real server refuses, with :class:`~kevents.StatusError`: a name that is taken (409), a patch of an
    event that is not there (404), an involved object in another namespace (422), a body of the wrong shape (400).

    A broadcaster promises never to have two calls at once under way for one event; a second one gets an
    ``AssertionError``, and ``violations`` keeps it.

    Attributes:
        api_group: As given; a broadcaster of the other API refuses the sink.

    Args:
        api_group: In which it is spoken to: ``events.k8s.io`` for :mod:`kevents.events`; empty for core/v1.
        faults: What goes wrong: errors by the number of the call, from 1, or a function that is asked at each call. A
            :class:`LostAnswer` lands first.
        namespaces: Those that exist; events in others are answered with 404. None: all exist.
        event_ttl: How many seconds an event lives after its last write; None for ever.
        clock: The wall clock in nanoseconds.

    Raises:
        TypeError: A fault is no exception and no :class:`LostAnswer`.
        ValueError: A fault is for a call that there is not, such as number 0.

    Example:
        >>> import kevents
        >>> sink = FakeSink(faults={1: kevents.StatusError(503), 2: LostAnswer()})
        >>> pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "prod"}}
        >>> with kevents.EventBroadcaster(sleep_duration=0.01) as broadcaster:
        ...     _ = broadcaster.start_recording_to_sink(sink)
        ...     broadcaster.new_recorder("operator").event(pod, "Normal", "Started", "up")
        >>> [event["reason"] for event in sink.events()], [request.verb for request in sink.requests]
        (['Started'], ['create', 'create', 'create', 'patch'])

    .. versionadded:: 0.1
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
        """Hold nothing yet."""
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
            StatusError: As the API server refuses it, or as the faults say.
        """
        metadata = body.get("metadata")
        name = metadata.get("name", "") if isinstance(metadata, Mapping) else ""
        self._call("create", namespace, str(name), body)

    def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch.

        Raises:
            StatusError: As the API server refuses it, or as the faults say.
        """
        self._call("patch", namespace, name, patch)

    def _call(self, verb: str, namespace: str, name: str, body: Json) -> None:
        raw = json.dumps(body).encode()
        request = self._begin(verb, namespace, name, json.loads(raw))
        error: BaseException | None = None
        try:
            self._released.wait()
            self._meet(request, raw)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._end(replace(request, done=True, error=error))

    def _begin(self, verb: str, namespace: str, name: str, body: Json) -> SinkRequest:
        with self._changed:
            request = SinkRequest(len(self._requests) + 1, verb, namespace, name, body)
            self._requests.append(request)
            self._under_way[namespace, name] += 1
            self._most_at_once = max(self._most_at_once, self._under_way.total())
            if self._under_way[namespace, name] > 1:
                self._violations.append(request)
            self._changed.notify_all()
            return request

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
            with suppress(APIError):  # it is there already
                self._add_namespace(request.namespace)
        headers = {"content-type": STRATEGIC if request.verb == "patch" else _JSON}
        incoming = Incoming("", "", headers, raw)
        name = request.name if request.verb == "patch" else ""
        try:
            self._resources.serve(Call(self._event, request.verb, request.namespace, name, incoming))
        except APIError as error:
            raise _status_error(error) from None

    def _end(self, request: SinkRequest) -> None:
        with self._changed:
            self._requests[request.number - 1] = request
            self._under_way[request.namespace, request.name] -= 1
            self._changed.notify_all()

    def _add_namespace(self, name: str) -> None:
        self._resources.insert(self._namespace, "", {"metadata": {"name": name}})

    # -- what goes wrong -----------------------------------------------------------------------------------------

    def hang(self) -> None:
        """Let every call from now on wait until :meth:`release`."""
        self._released.clear()

    def release(self) -> None:
        """Let the calls that wait go on, and those to come."""
        self._released.set()

    def expire(self, name: str = "*") -> int:
        """Let the events of that name expire now, all with ``*``; how many there were."""
        return self._resources.store.expire(name)

    # -- looking -------------------------------------------------------------------------------------------------

    def events(self, namespace: str | None = None) -> list[Json]:
        """Copies of the events, of one namespace or of all, as bodies of its API in the order of their names."""
        found, _ = self._resources.store.items(self._event.bucket, namespace or "")
        return [copy.deepcopy(self._event.show(stored)) for _, stored in found]

    @property
    def requests(self) -> tuple[SinkRequest, ...]:
        """The calls so far, the oldest first; a call is there as soon as it has begun."""
        with self._changed:
            return tuple(self._requests)

    @property
    def violations(self) -> tuple[SinkRequest, ...]:
        """The calls that began while another one for the same event was under way: none, if all is well."""
        with self._changed:
            return tuple(self._violations)

    @property
    def under_way(self) -> int:
        """How many calls have begun and not ended."""
        with self._changed:
            return self._under_way.total()

    @property
    def most_at_once(self) -> int:
        """How many calls have been under way at once, at most."""
        with self._changed:
            return self._most_at_once

    def wait_for(self, predicate: Callable[[], object], timeout: float = 5.0) -> bool:
        """Wait until ``predicate`` holds; it is asked again when a call begins or ends.

        Args:
            predicate: What to wait for, such as ``lambda: sink.under_way == 4``.
            timeout: For how many seconds at most.

        Returns:
            Whether it holds.
        """
        with self._changed:
            return bool(self._changed.wait_for(lambda: bool(predicate()), timeout))

    def __repr__(self) -> str:
        """How much it holds."""
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


def _status_error(error: APIError) -> StatusError:
    causes = (error.details or {}).get("causes", ())
    return StatusError(error.code, error.reason, str(error), [cause["reason"] for cause in causes])
