"""Counts of an archive by owner, service and other fields."""

from __future__ import annotations

from typing import Any

import pytest

from kevents.export._operate.filters import FIELDS, Counts, OptionError
from tests.export.batches import body

GAP: dict[str, Any] = {"kevents": {"v": 1, "id": "gap", "gap": {"from": "2026-07-24T09:00:00Z"}}}


def counted(fields: str, *bodies: dict[str, Any]) -> list[tuple[tuple[str, ...], int]]:
    """Return the rows of a table."""
    counts = Counts(fields.split(","))
    for each in bodies:
        counts.add(each)
    return list(counts.rows())


def enriched(rv: int, delta: Any = 1, **own: Any) -> dict[str, Any]:
    """Return an enriched record."""
    return body(rv, kevents={"v": 1, "id": f"u:{rv}", "time": "2026-07-24T09:00:05Z", "countDelta": delta, **own})


def test_by_occurrences() -> None:
    """A record counts as often as its countDelta, and once if it is unknown."""
    assert counted("reason", *(enriched(rv, delta) for rv, delta in enumerate((3, None, 0, 1), 1))) == [
        (("BackOff",), 5)
    ]


def test_order() -> None:
    """Rows are sorted by descending count, then by value."""
    web = {"kind": "Deployment", "name": "web"}
    found = counted(
        "reason,owner",
        enriched(1),
        enriched(2, topOwner=web),
        enriched(3, topOwner=web),
        {**enriched(4), "reason": "A"},
    )
    assert found == [(("BackOff", "Deployment/web"), 2), (("A", "Pod/web-0"), 1), (("BackOff", "Pod/web-0"), 1)]


def test_services() -> None:
    """A record counts for each of its services. Records without a service have a separate row."""
    found = counted(
        "service", enriched(1, 2, services=["a", "b"]), enriched(2, services=["b"]), enriched(3, services=[])
    )
    assert found == [(("b",), 3), (("a",), 2), (("-",), 1)]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("namespace", "prod"),
        ("kind", "Pod"),
        ("name", "web-0"),
        ("owner", "Pod/web-0"),
        ("service", "-"),
        ("type", "Warning"),
        ("reason", "BackOff"),
        ("component", "kubelet"),
        ("host", "node-1"),
        ("cluster", "-"),
        ("day", "2026-07-24"),
        ("hour", "2026-07-24T09Z"),
    ],
)
def test_fields(field: str, expected: str) -> None:
    """Each field is read from the record."""
    assert counted(field, enriched(1)) == [((expected,), 1)]


def test_strange_records() -> None:
    """Records of any structure are counted, and gap records separately."""
    counts = Counts(FIELDS)
    for strange in ({}, {"kevents": 1, "involvedObject": [], "source": "x", "metadata": None}, GAP):
        counts.add(strange)
    assert (sum(number for _, number in counts.rows()), counts.gaps) == (2, 1)


def test_unknown_fields() -> None:
    """The error of an unknown field suggests a similar one."""
    with pytest.raises(OptionError, match='unknown field "ownr"; did you mean "owner"'):
        Counts(["ownr"])
    with pytest.raises(OptionError, match='unknown field ""; there are "namespace"'):
        Counts([])
