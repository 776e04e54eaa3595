"""Counts the occurrences of events by what they are about: which Deployments had the most warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final

from kevents.export._model.text import unknown
from kevents.export._model.types import event_time, moment, value_at
from kevents.export._route.routes import READERS, is_gap

Body = Mapping[str, Any]
Key = tuple[str, ...]

_NONE: Final = "-"


def owner_of(body: Body) -> tuple[str, str]:
    """Return kind and name of the top owner that the enricher found, or else of the object itself."""
    owner = value_at(body, "kevents", "topOwner") or body.get("involvedObject")
    return str(value_at(owner, "kind") or ""), str(value_at(owner, "name") or "")


_FIELDS: Final[dict[str, Callable[[Body], Any]]] = {
    **{name: READERS[name] for name in ("namespace", "kind", "name")},
    "owner": lambda body: "/".join(filter(None, owner_of(body))),
    **{name: READERS[name] for name in ("service", "type", "reason", "component", "host")},
    "cluster": lambda body: body.get("clusterName"),
    "day": lambda body: moment(event_time(body))[:10],
    "hour": lambda body: moment(event_time(body))[:13] + "Z",
}
FIELDS: Final = tuple(_FIELDS)


class Counts:
    """Occurrences by some fields. A record counts by its `countDelta`, and for each of the pod's services.

    Raises:
        ValueError: If one is unknown, or there are none.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        for name in fields or [""]:
            if name not in _FIELDS:
                raise ValueError(unknown("field", name, FIELDS))
        self.fields = tuple(fields)  # names of `FIELDS`
        self.gaps = 0
        self._readers = [_FIELDS[name] for name in fields]
        self._counts: Counter[Key] = Counter()

    def add(self, body: Body) -> None:
        """Count a record; gap records are counted on their own."""
        if is_gap(body):
            self.gaps += 1
            return
        delta = value_at(body, "kevents", "countDelta")
        number = max(delta, 0) if isinstance(delta, int) else 1
        for values in product(*(_values(read(body)) for read in self._readers)):
            self._counts[tuple(str(value or _NONE) for value in values)] += number

    def rows(self) -> Iterator[tuple[Key, int]]:
        """Yield values and their counts, the highest first."""
        yield from sorted(self._counts.items(), key=lambda each: (-each[1], each[0]))


def _values(found: Any) -> Sequence[object]:  # noqa: ANN401
    """The values of a field: a pod may have several services."""
    return found or (None,) if isinstance(found, list | tuple) else (found,)
