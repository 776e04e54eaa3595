"""Counts the occurrences of events by owner, reason and other fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final

from kevents.export._model.text import unknown
from kevents.export._model.types import event_time, moment

Body = Mapping[str, Any]
Key = tuple[str, ...]

_NONE: Final = "-"


def owner_of(body: Body) -> tuple[str, str]:
    """Return kind and name of the top owner that the enricher found, or else of the object itself."""
    own, involved = _table(body.get("kevents")), _table(body.get("involvedObject"))
    owner = _table(own.get("topOwner")) or involved
    return str(owner.get("kind") or ""), str(owner.get("name") or "")


def _table(value: object) -> Body:
    return value if isinstance(value, dict) else {}


def _of_object(key: str) -> Callable[[Body], Sequence[object]]:
    return lambda body: (_table(body.get("involvedObject")).get(key),)


def _of_source(key: str, other: str) -> Callable[[Body], Sequence[object]]:
    return lambda body: (_table(body.get("source")).get(key) or body.get(other),)


def _namespace(body: Body) -> Sequence[object]:
    return (_table(body.get("metadata")).get("namespace") or _table(body.get("involvedObject")).get("namespace"),)


def _services(body: Body) -> Sequence[object]:
    found = _table(body.get("kevents")).get("services")
    return found if isinstance(found, list) and found else (None,)


_FIELDS: Final[dict[str, Callable[[Body], Sequence[object]]]] = {
    "namespace": _namespace,
    "kind": _of_object("kind"),
    "name": _of_object("name"),
    "owner": lambda body: ("/".join(filter(None, owner_of(body))),),
    "service": _services,
    "type": lambda body: (body.get("type"),),
    "reason": lambda body: (body.get("reason"),),
    "component": _of_source("component", "reportingComponent"),
    "host": _of_source("host", "reportingInstance"),
    "cluster": lambda body: (body.get("clusterName"),),
    "day": lambda body: (moment(event_time(body))[:10],),
    "hour": lambda body: (moment(event_time(body))[:13] + "Z",),
}
FIELDS: Final = tuple(_FIELDS)


class Counts:
    """Occurrences by some fields. A record counts by its `countDelta`, and for each of the pod's services.

    Raises:
        ValueError: If a field is unknown, or there are none.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        for name in fields or [""]:
            if name not in _FIELDS:
                raise ValueError(unknown("field", name, FIELDS))
        self.fields = tuple(fields)
        self.gaps = 0
        self._readers = [_FIELDS[name] for name in fields]
        self._counts: Counter[Key] = Counter()

    def add(self, body: Body) -> None:
        """Count a record. Gap records have a counter of their own."""
        own = _table(body.get("kevents"))
        if "gap" in own:
            self.gaps += 1
            return
        delta = own.get("countDelta")
        number = max(delta, 0) if isinstance(delta, int) else 1
        for values in product(*(read(body) for read in self._readers)):
            self._counts[tuple(str(value or _NONE) for value in values)] += number

    def rows(self) -> Iterator[tuple[Key, int]]:
        """Yield values and their counts, the highest first."""
        yield from sorted(self._counts.items(), key=lambda each: (-each[1], each[0]))
