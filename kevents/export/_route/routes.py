"""Routes decide which destinations a record goes to; the router tries them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from kevents.export._model.text import listed
from kevents.export._model.types import Record
from kevents.export._route.matchers import (
    CONDITIONS,
    Body,
    ConditionError,
    Matcher,
    Value,
    compile_condition,
    compile_matchers,
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Route:
    """Sends the records for which every condition holds to some sinks.

    A condition is a plain value (equality), a list or set (one of), a mapping with one of ``equals``, ``one_of``,
    ``regex`` (searches in the value, in linear time by RE2), ``glob`` (the whole value), ``exists`` and, for numbers,
    ``min`` and ``max``, any with ``"not": True``; or a function of the value. A field that an event does not have
    counts as an empty text; a label that does not exist matches only a negation. A gap record goes to every sink that
    any route names.

    Args:
        to: The name of a sink, or several; empty only with ``stop``, which drops the matching records.
        all: True to match every record; required if there is no condition.
        stop: True if later routes are not tried for a matching record.
        id: A name for logs and ``kevents check``.
        when: A function of the whole body.
        type: The event's type: ``Normal`` or ``Warning``.
        reason: The event's reason.
        message: The event's message.
        namespace: The event's namespace.
        kind: The involved object's kind.
        name: The involved object's name.
        api_version: The involved object's API version: ``apps/v1``.
        labels: The involved object's labels, by key: ``{"app": "web"}``. All must match. The enricher adds them.
        annotations: The involved object's annotations, by key.
        deleted: True if the involved object is deleted or terminating.
        component: The reporter: ``source.component``, else ``reportingComponent``.
        host: The reporter's host: ``source.host``, else ``reportingInstance``.
        action: The action of an event of events.k8s.io.
        count: The number of occurrences, of the series first: a number, or ``{"min": 3}``.
        verb: ``ADDED`` or ``MODIFIED``.
        state: The involved object's state, from the enricher: ``live``, ``gone``.
        enriched: False for a record whose object, owners or node could not be read in time.
        owner_kind: Of the top owner, from the enricher.
        owner_name: Of the top owner, from the enricher.
        service: One of the services of the involved pod, from the enricher.

    Raises:
        ConditionError: If a condition can never match, there is none (without ``all``), or no sink (without ``stop``).
            A ``ValueError``.

    .. versionadded:: 0.1
    """

    to: str | Sequence[str] = ()
    all: bool = False
    stop: bool = False
    id: str = ""
    when: Callable[[Body], bool] | None = None
    type: Value = None
    reason: Value = None
    message: Value = None
    namespace: Value = None
    kind: Value = None
    name: Value = None
    api_version: Value = None
    labels: Mapping[str, Value] | None = None
    annotations: Mapping[str, Value] | None = None
    deleted: Value = None
    component: Value = None
    host: Value = None
    action: Value = None
    count: Value = None
    verb: Value = None
    state: Value = None
    enriched: Value = None
    owner_kind: Value = None
    owner_name: Value = None
    service: Value = None
    sinks: tuple[str, ...] = field(init=False, repr=False)
    matchers: tuple[Matcher, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the conditions."""
        sinks = (self.to,) if isinstance(self.to, str) else tuple(self.to)
        object.__setattr__(self, "sinks", tuple(dict.fromkeys(sinks)))
        matchers = list(compile_matchers({name: getattr(self, name) for name in CONDITIONS}))
        if self.when is not None:
            matchers.append(Matcher("the record", lambda body: body, compile_condition(self.when)))
        object.__setattr__(self, "matchers", tuple(matchers))
        if not self.matchers and not self.all:
            raise ConditionError("has no condition: name one, or say all = true if it is meant to match everything")
        if self.matchers and self.all:
            raise ConditionError("has conditions, and says all = true: take one of them away", ("all",))
        if not all(sinks) or not (sinks or self.stop):
            raise ConditionError(
                "names no sink: say to = the name of one, or stop = true to drop the records that match", ("to",)
            )

    def __repr__(self) -> str:
        """The given arguments."""
        given = [(each.name, getattr(self, each.name)) for each in fields(self) if each.repr]
        return f"Route({', '.join(f'{name}={value!r}' for name, value in given if value not in (None, False, ''))})"

    def matches(self, body: Body) -> bool:
        """True if every condition holds."""
        return all(matcher.matches(body) for matcher in self.matchers)


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one route for a record."""

    route: Route
    matched: bool | None  # True if every condition holds; None if the route was not tried because of an earlier `stop`
    reasons: tuple[str, ...]  # all conditions if it matched, else those that do not hold


class Router:
    """Tries routes in order.

    Args:
        routes: The routes.

    .. versionadded:: 0.1
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)
        self._sinks = tuple(dict.fromkeys(sink for route in self._routes for sink in route.sinks))

    @property
    def sinks(self) -> tuple[str, ...]:
        """The names of all sinks that a route names, each once, in order."""
        return self._sinks

    def targets(self, record: Record) -> tuple[str, ...]:
        """Return the names of the sinks of a record, each once, in order; a gap record goes to all."""
        return self.targets_of(record.body)

    def targets_of(self, body: Body) -> tuple[str, ...]:
        """Return the same for a body, before there is a record."""
        if is_gap(body):
            return self._sinks
        found: dict[str, None] = {}
        for route in self._routes:
            if route.matches(body):
                found.update(dict.fromkeys(route.sinks))
                if route.stop:
                    break
        return tuple(found)

    def explain(self, body: Body) -> list[Answer]:
        """Return for each route whether a body matches, and why."""
        answers, stopped = [], False
        for route in self._routes:
            answer = Answer(route, None, ()) if stopped else _answer(route, body)
            stopped = stopped or bool(answer.matched and route.stop)
            answers.append(answer)
        return answers

    def __repr__(self) -> str:
        return f"Router({len(self._routes)} routes to {listed(self._sinks)})"


def _answer(route: Route, body: Body) -> Answer:
    failed = tuple(matcher.explain(body) for matcher in route.matchers if not matcher.matches(body))
    met = tuple(matcher.explain(body) for matcher in route.matchers) or ("all = true",)
    return Answer(route, not failed, failed or met)


def is_gap(body: Body) -> bool:
    """True for a gap record: it stands for events that may be missing."""
    own = body.get("kevents")
    return isinstance(own, dict) and "gap" in own
