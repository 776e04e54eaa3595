"""Which destinations a record goes to: routes, and the router that asks them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from kevents.export._model.text import listed
from kevents.export._model.types import Record
from kevents.export._route.matchers import CONDITIONS, Body, ConditionError, Question, Value, compiled, questions


@dataclass(frozen=True, kw_only=True, repr=False)
class Route:
    """Which records go to which sinks: those for which every condition holds.

    A condition is a plain value (equality), a list or set (one of), a mapping with one of ``equals``, ``one_of``,
    ``regex`` (matches the whole value), ``glob``, ``exists`` and, for numbers, ``min`` and ``max``, any with
    ``"not": True``; or a function of the value. What an event does not have is an empty text; a label that is not there
    fulfils nothing but a negation. The word about a gap goes to every sink that any route names.

    Args:
        to: The name of a sink, or several; none: only with ``stop``, which drops what matches.
        all: That everything matches: said, not left out.
        stop: That later routes are not asked about what matches.
        id: A name for logs and ``kevents check``.
        when: A function of the whole body.
        type: Of the event: ``Normal`` or ``Warning``.
        reason: Of the event.
        message: Of the event.
        namespace: Of the event.
        kind: Of the involved object.
        name: Of the involved object.
        api_version: Of the involved object: ``apps/v1``.
        labels: Of the involved object, by key: ``{"app": "web"}``. All must hold. The enricher adds them.
        annotations: Of the involved object, by key.
        deleted: Whether the involved object is gone or going.
        component: What reported it: ``source.component``, else ``reportingComponent``.
        host: Where: ``source.host``, else ``reportingInstance``.
        action: Of an event of events.k8s.io.
        count: How often it happened: a number, or ``{"min": 3}``.
        verb: ``ADDED`` or ``MODIFIED``.
        state: Of the involved object, by the enricher: ``live``, ``gone``.
        owner_kind: Of the top owner, by the enricher.
        owner_name: Of the top owner, by the enricher.
        service: One of the services of the involved pod, by the enricher.

    Raises:
        ConditionError: If a condition means nothing, there is none (without ``all``), or no sink (without ``stop``).
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
    owner_kind: Value = None
    owner_name: Value = None
    service: Value = None
    sinks: tuple[str, ...] = field(init=False, repr=False)
    questions: tuple[Question, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the conditions."""
        sinks = (self.to,) if isinstance(self.to, str) else tuple(self.to)
        object.__setattr__(self, "sinks", tuple(dict.fromkeys(sinks)))
        object.__setattr__(self, "questions", tuple(self._compiled()))
        if not self.questions and not self.all:
            raise ConditionError("has no condition: name one, or say all = true if it is meant to match everything")
        if self.questions and self.all:
            raise ConditionError("has conditions, and says all = true: take one of them away", ("all",))
        if not all(sinks) or not (sinks or self.stop):
            raise ConditionError(
                "names no sink: say to = the name of one, or stop = true to drop what matches", ("to",)
            )

    def __repr__(self) -> str:
        """With what was given."""
        given = [(each.name, getattr(self, each.name)) for each in fields(self) if each.repr]
        return f"Route({', '.join(f'{name}={value!r}' for name, value in given if value not in (None, False, ''))})"

    def _compiled(self) -> Iterable[Question]:
        yield from questions({about: getattr(self, about) for about in CONDITIONS})
        if self.when is not None:
            yield Question("the record", lambda body: body, compiled(self.when))


@dataclass(frozen=True, slots=True)
class Answer:
    """What one route says about a record.

    Attributes:
        route: Which.
        matched: Whether every condition holds; None if it was not asked, since an earlier one said ``stop``.
        reasons: What was asked and found: all of it on a match, else what does not hold.
    """

    route: Route
    matched: bool | None
    reasons: tuple[str, ...]


class Router:
    """Asks routes in their order where a record goes.

    Args:
        routes: In their order.

    .. versionadded:: 0.1
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        """Take the routes."""
        self._routes = tuple(routes)
        self._everyone = tuple(dict.fromkeys(sink for route in self._routes for sink in route.sinks))

    @property
    def sinks(self) -> tuple[str, ...]:
        """The names of all sinks that a route names, each once, in order."""
        return self._everyone

    def targets(self, record: Record) -> tuple[str, ...]:
        """Give the names of the sinks that a record goes to, each once, in order; a gap concerns all of them."""
        return self.targets_of(record.body)

    def targets_of(self, body: Body) -> tuple[str, ...]:
        """Give the same for a body, before there is a record."""
        if is_gap(body):
            return self._everyone
        found: dict[str, None] = {}
        for route in self._routes:
            if all(question.holds(body) for question in route.questions):
                found.update(dict.fromkeys(route.sinks))
                if route.stop:
                    break
        return tuple(found)

    def explain(self, body: Body) -> list[Answer]:
        """Say for each route whether a body matches, and why."""
        answers, stopped = [], False
        for route in self._routes:
            answer = Answer(route, None, ()) if stopped else _answer(route, body)
            stopped = stopped or bool(answer.matched and route.stop)
            answers.append(answer)
        return answers

    def __repr__(self) -> str:
        return f"Router({len(self._routes)} routes to {listed(self._everyone)})"


def _answer(route: Route, body: Body) -> Answer:
    failed = tuple(question.answer(body) for question in route.questions if not question.holds(body))
    met = tuple(question.answer(body) for question in route.questions) or ("all = true",)
    return Answer(route, not failed, failed or met)


def is_gap(body: Body) -> bool:
    """Whether a body is the export's own word about events that cannot be had any more."""
    word = body.get("kevents")
    return isinstance(word, dict) and "gap" in word
