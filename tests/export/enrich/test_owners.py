"""The top owner: the chain of controllers, at most five steps, without cycles."""

from __future__ import annotations

from typing import Any

import pytest

from kevents.export._enrich.cache import FORBIDDEN, GONE, LIVE, Entry
from kevents.export._enrich.discovery import Found, Reference
from kevents.export._enrich.enricher import top_owner

POD = Reference("v1", "Pod", "default", "p", "u-0")


def owner(number: int, **fields: Any) -> dict[str, Any]:
    """Return a reference to the owner of this number."""
    base = {
        "apiVersion": "apps/v1",
        "kind": f"K{number}",
        "name": f"o{number}",
        "uid": f"u-{number}",
        "controller": True,
    }
    return {**base, **fields}


def entry(*owners: dict[str, Any], state: str = LIVE) -> Entry:
    """Return an object with owners."""
    return Entry(state, Found("u", "1", "", False, {}, {}, list(owners)))


def chain(length: int) -> dict[str, Entry]:
    """Return owners by UID, each owned by the next."""
    return {f"u-{n}": entry(owner(n + 1)) if n < length else entry() for n in range(1, length + 1)}


@pytest.mark.parametrize(("length", "top"), [(1, 1), (2, 2), (5, 5), (6, 5), (50, 5)])
def test_length(length: int, top: int) -> None:
    """The last of at most five owners is the top, and its path names all."""
    asked: list[Reference] = []

    def find(reference: Reference) -> Entry:
        asked.append(reference)
        return chain(length)[reference.uid]

    path = [f"K{n}/o{n}" for n in range(1, top + 1)]
    expected = {"kind": f"K{top}", "name": f"o{top}", "uid": f"u-{top}", "path": path}
    assert top_owner(entry(owner(1)), POD, find) == (expected, False)
    assert len(asked) == min(length, 4)
    assert asked[0] == Reference("apps/v1", "K1", "default", "o1", "u-1")


@pytest.mark.parametrize(
    "owners",
    [
        [],
        [owner(1, controller=False)],
        [owner(1, controller="true")],
        [owner(1, uid="")],
        [owner(1, name=None)],
        [{"controller": True}],
    ],
)
def test_no_controller(owners: list[dict[str, Any]]) -> None:
    """Owners that are no controllers or incomplete are ignored."""
    assert top_owner(entry(*owners), POD, lambda reference: entry()) == (None, False)


def test_the_controller_among_owners() -> None:
    """Among several owners, the controller counts."""
    found, _ = top_owner(entry(owner(1, controller=False), owner(2)), POD, lambda reference: entry())
    assert found is not None
    assert found["path"] == ["K2/o2"]


@pytest.mark.parametrize("state", [GONE, FORBIDDEN])
def test_end_of_knowledge(state: str) -> None:
    """An owner that is gone or forbidden is the last of the chain."""
    found, _ = top_owner(entry(owner(1)), POD, lambda reference: Entry(state))
    assert found is not None
    assert found["path"] == ["K1/o1"]


def test_circle() -> None:
    """A cycle of owners ends where it began."""
    owners = {"u-1": entry(owner(2)), "u-2": entry(owner(1))}
    found, _ = top_owner(entry(owner(1)), POD, lambda reference: owners[reference.uid])
    assert found is not None
    assert found["path"] == ["K1/o1", "K2/o2"]
    assert top_owner(entry(owner(0)), POD, lambda reference: owners[reference.uid]) == (None, False)


def test_incomplete() -> None:
    """If an owner cannot be read in time, there is no top owner: half a chain would be wrong."""
    assert top_owner(entry(owner(1)), POD, lambda reference: None) == (None, True)
