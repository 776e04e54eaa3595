"""What routes ask of a record: where each condition finds its value, and what it says about it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.export._model.suggestions import shown
from kevents.export._route.conditions import Condition, ConditionError, compiled

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
