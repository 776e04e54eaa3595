"""The filters of ``kevents tail`` and ``kevents read``, with the habits of kubectl, as a route; and the counts."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from itertools import product
from typing import Any, Final

from kevents._model.wire import format_time
from kevents.export._model.text import KINDS, did_you_mean, duration, namespace_problem, shown, unknown
from kevents.export._model.types import event_time, time_span, value_at
from kevents.export._read.archive import Period
from kevents.export._read.reader import period_of
from kevents.export._route.routes import READERS, ConditionError, Route, Router, is_gap

_SHORT_NAMES: Final = {short: kind.lower() for kind, short in KINDS.items()}
_KNOWN_TYPES: Final = ("normal", "warning", "error")
_SETS: Final = re.compile(r"(\S+)\s+(in|notin)\s*\(([^()]*)\)")
_LABEL: Final = re.compile(r"(!?)\s*([^\s!=,()]+)\s*(?:(==|=|!=)\s*([^\s!=,()]*))?")
_REQUIREMENTS: Final = re.compile(r",(?![^(]*\))")


Body = Mapping[str, Any]
Key = tuple[str, ...]


class OptionError(Exception):
    """An option of the command line is invalid. The text names it."""


def filter_of(options: argparse.Namespace) -> Router:
    """The filters as a route. Gaps always match. Raises OptionError if one is invalid."""
    tests = list(_tests(options))
    conditions: dict[str, Any] = {
        "namespace": options.namespace,
        "kind": _is_kind(options.kind) if options.kind else None,
        "name": {"glob": options.name} if options.name else None,
        "reason": {"glob": options.reason} if options.reason else None,
        "type": {"equals": "Normal", "not": True} if options.warning else None,
        "labels": _labels(getattr(options, "label", None)),
        "when": (lambda body: all(test(body) for test in tests)) if tests else None,
    }
    given = {name: value for name, value in conditions.items() if value}
    try:
        return Router([Route(to="shown", all=not given, **given)])
    except ConditionError as error:
        raise OptionError(f"--{error.path[0] if error.path else 'name'}: {error.why}") from None


def check_namespaces(names: Iterable[str]) -> None:
    """Check the names of namespaces. Raises OptionError if one is impossible."""
    for name in names:
        if "," in name:
            raise OptionError(f"--namespace: give it once for each: -n {' -n '.join(name.split(','))}")
        if problem := namespace_problem(name):
            raise OptionError(f"--namespace: {problem}")


def spelling_hint(kinds: Iterable[str], types: str | None) -> str:
    """A hint if a kind or a type looks like a misspelt known one. Custom resources and kopf have others."""
    for text in kinds:
        word = text.lower().partition(".")[0]
        if not any(_names_kind(word, known) for known in _SHORT_NAMES.values()) and (
            hint := did_you_mean(word, _SHORT_NAMES.values())
        ):
            return f"no known kind is named {shown(text)}{hint}"
    for text in map(str.strip, (types or "").split(",")):
        if text.lower() not in _KNOWN_TYPES and (hint := did_you_mean(text.lower(), _KNOWN_TYPES)):
            return f"no known type is named {shown(text)}{hint}"
    return ""


def _tests(options: argparse.Namespace) -> Iterable[Callable[[Body], bool]]:
    period = period_of_options(options)
    if period.bounded:
        yield lambda body: period.overlaps(time_span(body))
    if owner := getattr(options, "owner", None):
        yield _is_owned(owner)
    if about := getattr(options, "about", None):
        kind, slash, name = about.partition("/")
        if not slash or not kind or not name:
            raise OptionError(f"--for must be written TYPE/NAME, such as pod/web-0, not {shown(about)}")
        is_kind, group = _is_kind([kind.partition(".")[0]]), kind.partition(".")[2]

        def is_about(body: Body) -> bool:
            found = body.get("involvedObject")
            if not isinstance(found, Mapping) or found.get("name") != name or not is_kind(found.get("kind")):
                return False
            own = str(found.get("apiVersion") or "").rpartition("/")[0]
            return not group or own == group or own == group.partition(".")[2]

        yield is_about
    if types := getattr(options, "types", None):
        wanted = {word.strip().lower() for word in types.split(",") if word.strip()}
        if not wanted:
            raise OptionError("--types must list types, such as Warning,Error")
        yield lambda body: str(body.get("type")).lower() in wanted
    if selector := getattr(options, "selector", None):
        yield _selects(selector)


def _is_kind(kinds: list[str]) -> Callable[[object], bool]:
    words = [kind.lower() for kind in kinds]
    return lambda found: any(_names_kind(word, str(found).lower()) for word in words)


def _names_kind(word: str, kind: str) -> bool:
    """Whether a word is the kind, its plural or short name, all in lower case. No request is made for it."""
    plurals = (f"{kind}s", f"{kind}es", f"{kind[:-1]}ies")
    return word == kind or word in plurals or _SHORT_NAMES.get(word) == kind


def _selects(selector: str) -> Callable[[Body], bool]:
    """Compile a label selector of kubectl for the labels of the event."""
    requirements: list[tuple[str, str, set[str]]] = []
    for text in map(str.strip, _REQUIREMENTS.split(selector)):
        if match := _SETS.fullmatch(text):
            requirements.append((match[1], match[2], {value.strip() for value in match[3].split(",")}))
        elif (match := _LABEL.fullmatch(text)) and not (match[1] and match[3]):
            operator = ("notin" if match[3] == "!=" else "in") if match[3] else "absent" if match[1] else "exists"
            requirements.append((match[2], operator, {match[4] or ""}))
        else:
            raise OptionError(f"--selector: {shown(text)} is no requirement such as app=web, tier!=db or a in (b, c)")

    def selects(body: Body) -> bool:
        labels = value_at(body, "metadata", "labels")
        return all(_fulfils(labels if isinstance(labels, Mapping) else {}, *each) for each in requirements)

    return selects


def _fulfils(labels: Body, key: str, operator: str, values: set[str]) -> bool:
    if operator in ("exists", "absent"):
        return (key in labels) == (operator == "exists")
    return (key in labels and labels[key] in values) == (operator == "in")


def period_of_options(options: argparse.Namespace) -> Period:
    """The period from ``--since`` to ``--until``. Raises OptionError if one is no time, or nothing is between them."""
    try:
        return period_of(_time("--since", options.since), _time("--until", getattr(options, "until", None)))
    except ValueError as error:
        raise OptionError(f"--since and --until: {error}") from None


def _time(option: str, text: str | None) -> datetime | timedelta | None:
    """The value of an option: a duration before now, or a time, in UTC without a zone."""
    if not text:
        return None
    try:
        return timedelta(seconds=duration(text))
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise OptionError(
            f"{option} must be a duration such as 30s, 10m or 2h, or a time such as 2026-07-24 or 2026-07-24T09:00, "
            f"not {shown(text)}"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _labels(texts: Iterable[str] | None) -> dict[str, str]:
    labels = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise OptionError(f"--label must be KEY=VALUE, such as app=web, not {shown(text)}")
        labels[key] = value
    return labels


def _is_owned(owner: str) -> Callable[[Body], bool]:
    """A test of the top owner, or of the object itself without one: ``web`` or ``deployment/web``."""
    kind, slash, name = owner.rpartition("/")
    if not name or (slash and not kind):
        raise OptionError(f"--owner must be NAME or TYPE/NAME, such as deployment/web, not {shown(owner)}")
    is_kind = _is_kind([kind.partition(".")[0]]) if kind else lambda found: True  # noqa: ARG005
    return lambda body: (found := owner_of(body))[1] == name and is_kind(found[0])


def owner_of(body: Body) -> tuple[str, str]:
    """Return kind and name of the top owner that the enricher found, or else of the object itself."""
    owner = value_at(body, "kevents", "topOwner") or body.get("involvedObject")
    return str(value_at(owner, "kind") or ""), str(value_at(owner, "name") or "")


_FIELDS: Final[dict[str, Callable[[Body], Any]]] = {
    **{name: READERS[name] for name in ("namespace", "kind", "name")},
    "owner": lambda body: "/".join(filter(None, owner_of(body))),
    **{name: READERS[name] for name in ("service", "type", "reason", "component", "host")},
    "cluster": lambda body: body.get("clusterName"),
    "day": lambda body: format_time(event_time(body))[:10],
    "hour": lambda body: format_time(event_time(body))[:13] + "Z",
}
FIELDS: Final = tuple(_FIELDS)


class Counts:
    """Occurrences by some fields: the `countDelta` of each record, once for each service. Raises OptionError."""

    def __init__(self, fields: Sequence[str]) -> None:
        for name in fields or [""]:
            if name not in _FIELDS:
                raise OptionError(f"--count-by: {unknown('field', name, FIELDS)}")
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
            self._counts[tuple(str(value or "-") for value in values)] += number

    def rows(self) -> Iterator[tuple[Key, int]]:
        """Yield values and their counts, the highest first."""
        yield from sorted(self._counts.items(), key=lambda each: (-each[1], each[0]))


def _values(found: Any) -> Sequence[object]:  # noqa: ANN401
    """The values of a field: a pod may have several services."""
    return found or (None,) if isinstance(found, list | tuple) else (found,)
