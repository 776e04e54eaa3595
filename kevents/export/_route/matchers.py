"""The conditions of a route, compiled once: where each finds its value, how it tests it, and the words for both."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.export._model.text import listed, shown, unknown

Test: TypeAlias = Callable[[Any], bool]

_KEYS: Final = {
    "text": ("equals", "one_of", "regex", "glob", "exists", "not"),
    "number": ("equals", "one_of", "min", "max", "exists", "not"),
    "flag": ("equals", "exists", "not"),
}
_TYPES: Final[dict[str, type]] = {"text": str, "number": int, "flag": bool}
_AN: Final = {"text": "a text", "number": "a whole number", "flag": "true or false"}


class ConditionError(ValueError):
    """A condition that means nothing.

    Args:
        why: What is wrong, with the value and the fix.
        path: Where inside the condition: keys and indices.
    """

    def __init__(self, why: str, path: tuple[str | int, ...] = ()) -> None:
        """Take the reason and the place."""
        super().__init__(why)
        self.why = why
        self.path = path


@dataclass(frozen=True, slots=True)
class Condition:
    """One value's test.

    Attributes:
        matches: The test; it is given what an event holds, None if it holds nothing.
        told: What it asks, as the end of a sentence: ``is "Pod"``.
    """

    matches: Test
    told: str


def compiled(value: object, shape: str = "text", path: tuple[str | int, ...] = ()) -> Condition:
    """Compile a condition.

    Args:
        value: A plain value (equality), a list or set (one of), a table with one of ``equals``, ``one_of``, ``regex``
            (full match), ``glob``, ``min`` and ``max``, ``exists``, any with ``not = true``, or a callable.
        shape: What it is about: a ``text``, a ``number`` or a ``flag``.
        path: Where the value stands, for errors.

    Raises:
        ConditionError: If it means nothing.
    """
    if isinstance(value, Mapping):
        return _table(value, shape, path)
    if isinstance(value, list | tuple | AbstractSet):
        return _one_of(list(value) if isinstance(value, list | tuple) else sorted(value, key=str), shape, path)
    if callable(value):
        return Condition(value, f"satisfies {getattr(value, '__name__', 'a function')}")
    return _equals(value, shape, path)


def _equals(value: object, shape: str, path: tuple[str | int, ...]) -> Condition:
    expected = _plain(value, shape, path)
    return Condition(lambda found: bool(found == expected), f"is {shown(expected)}")


def _plain(value: object, shape: str, path: tuple[str | int, ...]) -> Any:  # noqa: ANN401
    if type(value) is not _TYPES[shape]:  # also a bool, which is an int to Python, is no number
        raise ConditionError(f"must be {_AN[shape]}, not {shown(value)}", path)
    return value


def _one_of(values: list[Any], shape: str, path: tuple[str | int, ...]) -> Condition:
    if not values:
        raise ConditionError("an empty list matches nothing: name at least one value, or leave the condition out", path)
    if all(type(value) is _TYPES[shape] for value in values):
        members = frozenset(values)
        told = f"is {listed(values)}" if len(values) == 1 else f"is one of {listed(values)}"
        return Condition(lambda found: type(found) is _TYPES[shape] and found in members, told)
    parts = [compiled(value, shape, (*path, number)) for number, value in enumerate(values)]
    tests = [part.matches for part in parts]
    return Condition(lambda found: any(test(found) for test in tests), " or ".join(part.told for part in parts))


def _table(table: Mapping[str, Any], shape: str, path: tuple[str | int, ...]) -> Condition:
    possible = _KEYS[shape]
    for key in table:
        if key not in possible:
            raise ConditionError(unknown("key", key, possible, of="a condition"), (*path, key))
    negated = _plain(table.get("not", False), "flag", (*path, "not"))
    asked = [key for key in table if key != "not"]
    if len(asked) != 1 and set(asked) != {"min", "max"}:
        one = listed(key for key in possible if key != "not")
        raise ConditionError(f"a condition holds exactly one of {one}, not {listed(asked) if asked else 'none'}", path)
    condition = _asked(table, asked, shape, path)
    return _negation(condition) if negated else condition


def _asked(table: Mapping[str, Any], asked: list[str], shape: str, path: tuple[str | int, ...]) -> Condition:
    if {"min", "max"} & set(asked):
        return _range(table, path)
    key = asked[0]
    makers: dict[str, Callable[[Any, str, tuple[str | int, ...]], Condition]] = {
        "equals": _equals,
        "one_of": _list,
        "regex": _regex,
        "glob": _glob,
        "exists": _exists,
    }
    return makers[key](table[key], shape, (*path, key))


def _list(value: object, shape: str, path: tuple[str | int, ...]) -> Condition:
    if not isinstance(value, list | tuple | AbstractSet):
        raise ConditionError(f"must be a list, not {shown(value)}", path)
    return compiled(value, shape, path)


def _regex(value: object, shape: str, path: tuple[str | int, ...]) -> Condition:
    text = _plain(value, shape, path)
    try:
        pattern = re.compile(text, re.DOTALL)  # a message may hold line breaks
    except (re.error, RecursionError, OverflowError) as error:
        raise ConditionError(
            f"{shown(text)} is no regular expression: {error}; a literal character is written with a backslash before "
            "it, inside single quotes: '\\.'",
            path,
        ) from None
    return Condition(
        lambda found: isinstance(found, str) and pattern.fullmatch(found) is not None, f"matches all of {shown(text)}"
    )


def _glob(value: object, shape: str, path: tuple[str | int, ...]) -> Condition:
    text = _plain(value, shape, path)
    pattern = re.compile(fnmatch.translate(text))
    return Condition(
        lambda found: isinstance(found, str) and pattern.match(found) is not None, f"is like {shown(text)}"
    )


def _exists(value: object, shape: str, path: tuple[str | int, ...]) -> Condition:  # noqa: ARG001
    wanted = _plain(value, "flag", path)
    told = "is there" if wanted else "is not there"
    return Condition(lambda found: (found not in (None, "")) == wanted, told)


def _range(table: Mapping[str, Any], path: tuple[str | int, ...]) -> Condition:
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


def _negation(condition: Condition) -> Condition:
    matches = condition.matches
    return Condition(lambda found: not matches(found), f"not: {condition.told}")


Value: TypeAlias = "str | int | bool | Collection[Any] | Mapping[str, Any] | Callable[[Any], bool] | None"
Body: TypeAlias = "Mapping[str, Any]"

_KINDS: Final = (
    "ConfigMap",
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Endpoints",
    "HorizontalPodAutoscaler",
    "Ingress",
    "Job",
    "Lease",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "ReplicaSet",
    "ReplicationController",
    "Secret",
    "Service",
    "ServiceAccount",
    "StatefulSet",
)
_SPELLED: Final = {"type": ("Normal", "Warning"), "kind": _KINDS, "owner_kind": _KINDS, "verb": ("ADDED", "MODIFIED")}


def _at(*path: str) -> Callable[[Body], Any]:
    """A reader of one place of a body: None where there is nothing."""

    def read(body: Body) -> Any:  # noqa: ANN401
        found: Any = body
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    return read


def _first(*readers: Callable[[Body], Any]) -> Callable[[Body], Any]:
    return lambda body: next((found for reader in readers if (found := reader(body)) not in (None, "")), None)


def _services(body: Body) -> Any:  # noqa: ANN401
    found = _at("kevents", "services")(body)
    return found if isinstance(found, list) else ()


# Names and meaning follow kubernetes-event-exporter's rules: labels and annotations are the involved object's.
_READERS: Final[dict[str, Callable[[Body], Any]]] = {
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
    "count": _first(_at("count"), _at("series", "count"), lambda body: 1 if "involvedObject" in body else None),
    "verb": _at("kevents", "verb"),
    "state": _at("kevents", "object", "state"),
    "owner_kind": _at("kevents", "topOwner", "kind"),
    "owner_name": _at("kevents", "topOwner", "name"),
    "service": _services,
}
_SHAPES: Final = {"count": "number", "deleted": "flag"}
_MAPS: Final = ("labels", "annotations")
CONDITIONS: Final = tuple(_READERS)
_LONGEST: Final = 80
_log = LimitedLog()


@dataclass(frozen=True, slots=True)
class Question:
    """One condition of a route, compiled.

    Attributes:
        about: What it asks for: ``kind``, ``labels.app``.
        read: Gives the value from a record's body.
        condition: The test of the value.
    """

    about: str
    read: Callable[[Body], Any]
    condition: Condition

    def holds(self, body: Body) -> bool:
        """Whether it holds; a user's function that raises holds: a copy too many is better than a loss."""
        try:
            return bool(self.condition.matches(self.read(body)))
        except Exception as error:  # noqa: BLE001 - whatever it raises, no event may be lost by it
            _log.log_limited(
                ("route", self.about), f"a route's test of {self.about} raised {format_error(error)}; taken as a match"
            )
            return True

    def answer(self, body: Body) -> str:
        """Say what it asks, and what it found."""
        asked = f"{self.about} {self.condition.told}"
        return asked if self.holds(body) else f"{asked}{_but(self.read(body))}"


def questions(conditions: Mapping[str, Value]) -> Iterable[Question]:
    """Compile the conditions of a route.

    Args:
        conditions: By what they ask about, one of `CONDITIONS`; None: not asked.

    Raises:
        ConditionError: If one means nothing.
    """
    for about, read in _READERS.items():
        value = conditions.get(about)
        if value is None:
            continue
        if about in _MAPS:
            yield from _of_map(about, read, value)
        else:
            yield _question(about, read, value)


def _question(about: str, read: Callable[[Body], Any], value: Value) -> Question:
    shape = _SHAPES.get(about, "text")
    condition = compiled(value, shape, (about,))
    _check_spelling(about, value)
    if about == "service":
        matches = condition.matches
        if isinstance(value, Mapping) and (value.get("not") or "exists" in value):  # of none of them
            raise ConditionError("a pod has several services: not and exists cannot be asked of them", ("service",))
        return Question(about, read, Condition(lambda found: any(map(matches, found)), condition.told))
    if shape == "text" and not callable(value):
        return Question(about, lambda body: read(body) or "", condition)
    return Question(about, read, condition)


def _of_map(about: str, read: Callable[[Body], Any], wanted: object) -> Iterable[Question]:
    if not isinstance(wanted, Mapping) or not wanted:
        raise ConditionError(f'must be a table of at least one key, {{ app = "web" }}, not {shown(wanted)}', (about,))
    for key, value in wanted.items():
        condition = compiled(value, "text", (about, key))
        yield Question(f"{about}.{key}", _member(read, key), condition)


def _member(read: Callable[[Body], Any], key: str) -> Callable[[Body], Any]:
    return lambda body: found.get(key) if isinstance(found := read(body), dict) else None


def _check_spelling(about: str, value: Value) -> None:
    """Refuse what differs from a known value in its case only: it would never match."""
    for path, text in _texts(value, (about,)):
        right = next((known for known in _SPELLED.get(about, ()) if known.lower() == text.lower()), text)
        if right != text:
            raise ConditionError(f"{shown(text)} never matches; did you mean {shown(right)}?", path)


def _texts(value: Value, path: tuple[str | int, ...]) -> Iterable[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key in {"equals", "one_of"} & set(value):
            yield from _texts(value[key], (*path, key))
    elif isinstance(value, Collection):
        for number, item in enumerate(value):
            yield from _texts(item, (*path, number))


def _but(found: object) -> str:
    if found is None or found in ("", ()):
        return ": it is not there"
    text = shown(list(found) if isinstance(found, tuple) else found)
    return f", not {text if len(text) <= _LONGEST else text[:_LONGEST] + '...'}"
