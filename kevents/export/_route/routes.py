"""Routes decide which destinations a record goes to; the router tries them in order.

A route has conditions, compiled once: where each finds its value, how it tests it, and the words for both.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeAlias

from kevents._model.validation import how_to_install
from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.export._model.text import KINDS, listed, namespace_problem, shown, unknown
from kevents.export._model.types import Record, count_of, value_at

Test: TypeAlias = Callable[[Any], bool]
Value: TypeAlias = "str | int | bool | Collection[Any] | Mapping[str, Any] | Callable[[Any], bool] | None"
Body: TypeAlias = "Mapping[str, Any]"
Path: TypeAlias = "tuple[str | int, ...]"

_KEYS: Final = {
    "text": ("equals", "one_of", "regex", "glob", "exists", "not"),
    "number": ("equals", "one_of", "min", "max", "exists", "not"),
    "flag": ("equals", "exists", "not"),
}
_TYPES: Final[dict[str, type]] = {"text": str, "number": int, "flag": bool}
_AN: Final = {"text": "a text", "number": "a whole number", "flag": "true or false"}
_MAX_SHOWN: Final = 80

_SPELLED: Final = {
    "type": ("Normal", "Warning"),
    "kind": tuple(KINDS),
    "owner_kind": tuple(KINDS),
    "verb": ("ADDED", "MODIFIED"),
}

_log = LimitedLog()


class ConditionError(ValueError):
    """A condition that can never be tested, or never matches."""

    def __init__(self, why: str, path: Path = ()) -> None:
        super().__init__(why)
        self.why = why  # the mistake, with the value and the fix
        self.path = path  # the place inside the condition: keys and indices


# -- conditions: tests of one value ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Condition:
    """The test of one value."""

    matches: Test  # the test. It gets the value of the event, None if the event has none.
    text: str  # the condition as the end of a sentence: `is "Pod"`


def compile_condition(value: object, shape: str = "text", path: Path = ()) -> Condition:
    """Compile a condition. Raises ConditionError if it can never be tested, or never matches."""
    if isinstance(value, Mapping):
        return _table(value, shape, path)
    if isinstance(value, list | tuple | AbstractSet):
        return _one_of(value, shape, path)
    if callable(value):
        return Condition(value, f"satisfies {getattr(value, '__name__', 'a function')}")
    return _equals(value, shape, path)


def _equals(value: object, shape: str, path: Path) -> Condition:
    expected = _plain(value, shape, path)
    return Condition(lambda found: bool(found == expected), f"is {shown(expected)}")


def _plain(value: object, shape: str, path: Path) -> Any:  # noqa: ANN401
    if type(value) is not _TYPES[shape]:  # a bool is an int in Python, but no number here
        raise ConditionError(f"must be {_AN[shape]}, not {shown(value)}", path)
    return value


def _one_of(given: object, shape: str, path: Path) -> Condition:
    if not isinstance(given, list | tuple | AbstractSet):
        raise ConditionError(f"must be a list, not {shown(given)}", path)
    values: list[Any] = sorted(given, key=str) if isinstance(given, AbstractSet) else list(given)
    if not values:
        raise ConditionError("an empty list matches nothing: name at least one value, or leave the condition out", path)
    if all(type(value) is _TYPES[shape] for value in values):
        members = frozenset(values)
        text = f"is {listed(values)}" if len(values) == 1 else f"is one of {listed(values)}"
        return Condition(lambda found: type(found) is _TYPES[shape] and found in members, text)
    parts = [compile_condition(value, shape, (*path, number)) for number, value in enumerate(values)]
    tests = [part.matches for part in parts]
    return Condition(lambda found: any(test(found) for test in tests), " or ".join(part.text for part in parts))


def _table(table: Mapping[str, Any], shape: str, path: Path) -> Condition:
    possible = _KEYS[shape]
    for key in table:
        if key not in possible:
            raise ConditionError(unknown("key", key, possible, of="a condition"), (*path, key))
    negated = _plain(table.get("not", False), "flag", (*path, "not"))
    given = [key for key in table if key != "not"]
    if len(given) != 1 and set(given) != {"min", "max"}:
        one = listed(key for key in possible if key != "not")
        raise ConditionError(f"a condition holds exactly one of {one}, not {listed(given) if given else 'none'}", path)
    if {"min", "max"} & set(given):
        condition = _range(table, path)
    else:
        condition = _MAKERS[given[0]](table[given[0]], shape, (*path, given[0]))
    if not negated:
        return condition
    matches = condition.matches
    return Condition(lambda found: not matches(found), f"not: {condition.text}")


def _regex(value: object, shape: str, path: Path) -> Condition:
    """Compile a regular expression for RE2, whose time is linear in the tested text."""
    text = _plain(value, shape, path)
    try:
        import re2  # noqa: PLC0415 - only a configuration with a regex needs it
    except ImportError:
        raise ConditionError(f"a regex needs google-re2: {how_to_install('export')}", path) from None
    options = re2.Options()
    options.dot_nl = True  # a message may hold line breaks
    options.never_capture = True
    options.log_errors = False
    try:
        pattern = re2.compile(text.encode(), options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else ""
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(error)
        advice = "a literal character is written with a backslash before it, inside single quotes: '\\.'"
        if re.search(r"\(\?(<?[=!]|>)|\\[1-9]", text):
            advice = "look-arounds, atomic groups and back-references do not exist in RE2, whose time is linear"
        raise ConditionError(f"{shown(text)} is no regular expression: {reason}; {advice}", path) from None
    return Condition(
        lambda found: isinstance(found, str) and pattern.search(found.encode("utf-8", "replace")) is not None,
        f"contains a match of {shown(text)}",
    )


def _glob(value: object, shape: str, path: Path) -> Condition:
    text = _plain(value, shape, path)
    pattern = re.compile(fnmatch.translate(text))
    return Condition(
        lambda found: isinstance(found, str) and pattern.match(found) is not None, f"is like {shown(text)}"
    )


def _exists(value: object, shape: str, path: Path) -> Condition:  # noqa: ARG001
    wanted = _plain(value, "flag", path)
    return Condition(lambda found: (found not in (None, "")) == wanted, "exists" if wanted else "does not exist")


def _range(table: Mapping[str, Any], path: Path) -> Condition:
    least, most = (_plain(table[key], "number", (*path, key)) if key in table else None for key in ("min", "max"))
    if least is not None and most is not None and least > most:
        raise ConditionError(f"min {least} is above max {most}: nothing matches", path)

    def within(found: object) -> bool:
        if isinstance(found, bool) or not isinstance(found, int):
            return False
        return (least is None or found >= least) and (most is None or found <= most)

    parts = [f"at least {least}"] if least is not None else []
    parts += [f"at most {most}"] if most is not None else []
    return Condition(within, f"is {' and '.join(parts)}")


_MAKERS: Final[Mapping[str, Callable[[Any, str, Path], Condition]]] = {
    "equals": _equals,
    "one_of": _one_of,
    "regex": _regex,
    "glob": _glob,
    "exists": _exists,
}


# -- readers: the place of each value ----------------------------------------------------------------------------------


def _at(*path: str) -> Callable[[Body], Any]:
    return lambda body: value_at(body, *path)


def _first(*readers: Callable[[Body], Any]) -> Callable[[Body], Any]:
    return lambda body: next((found for reader in readers if (found := reader(body)) not in (None, "")), None)


def _enriched(body: Body) -> Any:  # noqa: ANN401
    """False if metadata is missing; None where nothing is enriched."""
    found = value_at(body, "kevents", "object")
    return found.get("enriched", True) if isinstance(found, dict) else None


# Names and meaning follow kubernetes-event-exporter's rules: labels and annotations are the involved object's.
READERS: Final[dict[str, Callable[[Body], Any]]] = {
    "type": _at("type"),
    "reason": _at("reason"),
    "message": _at("message"),
    "namespace": _first(_at("metadata", "namespace"), _at("involvedObject", "namespace")),
    "kind": _at("involvedObject", "kind"),
    "name": _at("involvedObject", "name"),
    "api_version": _at("involvedObject", "apiVersion"),
    "labels": _at("involvedObject", "labels"),
    "annotations": _at("involvedObject", "annotations"),
    "deleted": _at("involvedObject", "deleted"),
    "component": _first(_at("source", "component"), _at("reportingComponent")),
    "host": _first(_at("source", "host"), _at("reportingInstance")),
    "action": _at("action"),
    "count": lambda body: count_of(dict(body)) if "involvedObject" in body else None,
    "verb": _at("kevents", "verb"),
    "state": _at("kevents", "object", "state"),
    "enriched": _enriched,
    "owner_kind": _at("kevents", "topOwner", "kind"),
    "owner_name": _at("kevents", "topOwner", "name"),
    "service": lambda body: found if isinstance(found := value_at(body, "kevents", "services"), list) else (),
}
_SHAPES: Final = {"count": "number", "deleted": "flag", "enriched": "flag"}
_MAPS: Final = ("labels", "annotations")
CONDITIONS: Final = tuple(READERS)


# -- matchers: a reader and a condition --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Matcher:
    """One compiled condition of a route."""

    field: str  # the name of the value: `kind`, `labels.app`
    read: Callable[[Body], Any]  # returns the value from a record's body
    condition: Condition  # the test of the value

    def matches(self, body: Body) -> bool:
        """True if the condition holds. A user's function that raises counts as a match: no event is lost by it."""
        try:
            return bool(self.condition.matches(self.read(body)))
        except Exception as error:  # noqa: BLE001 - of the user's function
            text = f"a route's test of {self.field} raised {format_error(error)}; it counts as a match"
            _log.log_limited(("route", self.field), text)
            return True

    def explain(self, body: Body) -> str:
        """Return the condition, and the value if it does not match."""
        condition = f"{self.field} {self.condition.text}"
        if self.matches(body):
            return condition
        found = self.read(body)
        if found is None or found in ("", ()):
            return f"{condition}: it does not exist"
        text = shown(list(found) if isinstance(found, tuple) else found)
        return f"{condition}, not {text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '...'}"


def compile_matchers(conditions: Mapping[str, Value]) -> Iterable[Matcher]:
    """Compile the conditions of a route. Raises ConditionError if one can never be tested, or never matches."""
    for name, read in READERS.items():
        value = conditions.get(name)
        if value is None:
            continue
        if name in _MAPS:
            yield from _map_matchers(name, read, value)
        else:
            yield _matcher(name, read, value)


def _matcher(field: str, read: Callable[[Body], Any], value: Value) -> Matcher:
    shape = _SHAPES.get(field, "text")
    condition = compile_condition(value, shape, (field,))
    _check_values(field, value)
    if field == "service":
        matches = condition.matches
        if isinstance(value, Mapping) and (value.get("not") or "exists" in value):
            raise ConditionError("a pod has several services: not and exists do not apply to them", ("service",))
        return Matcher(field, read, Condition(lambda found: any(map(matches, found)), condition.text))
    if shape == "text" and not callable(value):
        return Matcher(field, lambda body: read(body) or "", condition)
    return Matcher(field, read, condition)


def _map_matchers(field: str, read: Callable[[Body], Any], wanted: object) -> Iterable[Matcher]:
    if not isinstance(wanted, Mapping) or not wanted:
        raise ConditionError(f'must be a table of at least one key, {{ app = "web" }}, not {shown(wanted)}', (field,))
    for key, value in wanted.items():
        condition = compile_condition(value, "text", (field, key))
        yield Matcher(f"{field}.{key}", lambda body, key=key: value_at(read(body), key), condition)  # type: ignore[misc]


def _check_values(field: str, value: Value) -> None:
    """Refuse values that never match: known ones in another case, and impossible namespaces."""
    for path, text in _texts(value, (field,)):
        right = next((known for known in _SPELLED.get(field, ()) if known.lower() == text.lower()), text)
        if right != text:
            raise ConditionError(f"{shown(text)} never matches; did you mean {shown(right)}?", path)
        if field == "namespace" and (problem := namespace_problem(text)):
            raise ConditionError(f"never matches: {problem}", path)


def _texts(value: Value, path: Path) -> Iterable[tuple[Path, str]]:
    """The texts that a condition compares with, and their places."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key in {"equals", "one_of"} & set(value):
            yield from _texts(value[key], (*path, key))
    elif isinstance(value, Collection):
        for number, item in enumerate(value):
            yield from _texts(item, (*path, number))


# -- routes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, repr=False)
class Route:
    """Sends the records for which every condition holds to some sinks.

    A condition is a plain value (equality), a list or set (one of), a function of the value, or a mapping. A mapping
    has one of the keys ``equals``, ``one_of``, ``regex`` (searches in the value, in linear time by RE2), ``glob`` (the
    whole value) and ``exists``, or for numbers ``min`` and ``max``. ``"not": True`` negates it. A field that an event
    does not have counts as an empty text. A label that does not exist matches only a negation. A gap record goes to
    every sink that any route names.

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
        owner_kind: The top owner's kind, from the enricher.
        owner_name: The top owner's name, from the enricher.
        service: One of the services of the involved pod, from the enricher.

    Raises:
        ConditionError: If a condition can never match, there is none (without ``all``), or no sink (without ``stop``).
            A ``ValueError``.
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
    return value_at(body, "kevents", "gap") is not None
