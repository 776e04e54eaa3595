"""The cache of object metadata: which events a cached entry applies to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export._enrich.cache import FORBIDDEN, GONE, LIVE, REPLACED, SKIPPED, TERMINATING, Cache, Entry, covers
from kevents.export._enrich.discovery import Found, Reference
from tests.support.metadata import UIDS

POD = Reference("v1", "Pod", "default", "web-0", UIDS(1))
NAMELESS = POD._replace(uid="")
NODE = Reference("v1", "Node", "", "n1", "")
STATIC = POD._replace(uid="0123456789abcdef0123456789abcdef")


def found(uid: str = UIDS(1), rv: str = "10", *, terminating: bool = False, size: int = 0, mirrors: str = "") -> Found:
    """Return an object's metadata with the UID as a label."""
    return Found(uid, rv, "", terminating, {"of": uid}, {}, [], mirrors=mirrors, size=size)


def seen(cache: Cache, rv: str = "", read_at: float = 0.0, now: float = 0.0, reference: Reference = POD) -> str | None:
    """Return the state of the cached entry, or None if the object must be read."""
    entry = cache.look(reference, rv, read_at, now)
    return None if entry is None else entry.state


@pytest.mark.parametrize(("rv", "state"), [("9", LIVE), ("10", LIVE), ("11", None), ("100", None), ("2", LIVE)])
def test_version(rv: str, state: str | None) -> None:
    """An entry applies to its own resourceVersion and all earlier ones, at any age."""
    cache = Cache(4)
    cache.put(POD, found(rv="10"), "8", 0.0)
    assert seen(cache, rv, now=1e6, read_at=1e6) == state


def test_version_asked() -> None:
    """An entry also applies to the version for which it was requested."""
    cache = Cache(4)
    cache.put(POD, found(rv="10"), "99", 0.0)
    assert [seen(cache, rv, now=1e6) for rv in ("99", "98")] == [LIVE, None]


@pytest.mark.parametrize(("age", "state"), [(59.9, LIVE), (60.0, None)])
@pytest.mark.parametrize("rv", ["", "opaque"])
def test_no_version(rv: str, age: float, state: str | None) -> None:
    """Without a numeric version in the event, an entry applies for a minute."""
    cache = Cache(4)
    cache.put(POD, found(), "", 0.0)
    assert seen(cache, rv, now=age) == state


def test_gone_for_good() -> None:
    """A deleted object never comes back under the same UID."""
    cache = Cache(4)
    cache.put(POD, None, "5", 0.0)
    assert seen(cache, "9999", now=1e9, read_at=1e9) == GONE


def test_gone_keeps_labels() -> None:
    """A deleted object keeps its last known labels, marked as stale."""
    cache = Cache(4)
    cache.put(POD, found(), "", 0.0)
    entry = cache.put(POD, None, "11", 1.0)
    expected = ({"state": GONE, "stale": True}, {"labels": {"of": UIDS(1)}, "deleted": True})
    assert (entry.about, entry.fields) == expected


def test_replaced() -> None:
    """The labels of an object that replaced another are not attached. The last known labels of the old one are."""
    cache = Cache(4)
    fresh = cache.put(POD, found(UIDS(2)), "", 0.0)
    assert (fresh.state, fresh.fields) == (REPLACED, {"deleted": True})
    cache.put(POD, found(), "", 1.0)
    known = cache.put(POD, found(UIDS(2)), "11", 2.0)
    assert (known.state, known.fields["labels"], known.about["stale"]) == (REPLACED, {"of": UIDS(1)}, True)
    assert seen(cache, "12", now=1e9) == REPLACED


def test_terminating() -> None:
    """An object with a deletionTimestamp counts as deleted. For a newer version it is read again."""
    cache = Cache(4)
    entry = cache.put(POD, found(terminating=True), "", 0.0)
    assert (entry.state, entry.fields["deleted"]) == (TERMINATING, True)
    assert [seen(cache, rv) for rv in ("10", "11")] == [TERMINATING, None]


def test_gone_do_not_push_out() -> None:
    """Deleted objects do not evict existing ones."""
    cache = Cache(2)
    cache.put(POD, found(), "", 0.0)
    for number in range(2, 10):
        cache.put(POD._replace(uid=UIDS(number)), None, "", 0.0)
    assert (seen(cache, "10"), len(cache)) == (LIVE, 1)


def test_gone_are_bounded() -> None:
    """Up to four times `size` deleted objects are remembered."""
    cache = Cache(2)
    for number in range(9):
        cache.put(POD._replace(uid=UIDS(number)), None, "", 0.0)
    states = [seen(cache, reference=POD._replace(uid=UIDS(number))) for number in range(9)]
    assert states == [None, *[GONE] * 8]


def test_large_counts_as_several() -> None:
    """An object with 100 KiB of annotations counts as seven, and one with megabytes as the whole cache."""
    cache = Cache(8)
    references = [POD._replace(uid=UIDS(number)) for number in range(9)]
    for number, reference in enumerate(references):
        cache.put(reference, found(UIDS(number)), "", 0.0)
    cache.put(POD._replace(name="big"), found(size=100 * 1024), "", 0.0)
    assert len(cache) == 2
    cache.put(POD._replace(name="huge"), found(size=100 * 1024 * 1024), "", 0.0)
    assert len(cache) == 1


def test_no_uid() -> None:
    """Pitfall 17: without a UID, an entry applies only to events read before it was requested."""
    cache = Cache(4)
    cache.put(NAMELESS, found(), "", 5.0)
    assert [seen(cache, "10", read_at, 5.1, NAMELESS) for read_at in (5.0, 5.05)] == [LIVE, None]


def test_no_uid_is_no_key() -> None:
    """Objects without a UID are distinguished by group, kind, namespace and name."""
    cache = Cache(4)
    cache.put(NAMELESS, found(), "", 5.0)
    others = [
        NAMELESS._replace(**{field: "other"})  # type: ignore[arg-type]
        for field in ("api_version", "kind", "namespace", "name")
    ]
    assert [seen(cache, "", 1.0, 5.0, other) for other in others] == [None] * 4


def test_uid_is_not_enough() -> None:
    """An event with a foreign UID does not get the labels of that object."""
    cache = Cache(4)
    cache.put(POD, found(), "", 0.0)
    assert seen(cache, "", reference=POD._replace(namespace="other")) is None


@pytest.mark.parametrize(("age", "state"), [(9.9, LIVE), (10.0, None)])
def test_node(age: float, state: str | None) -> None:
    """A Node without a UID is cached for ten seconds."""
    cache = Cache(4)
    cache.put(NODE, found(), "", 0.0)
    assert seen(cache, "", age, age, NODE) == state


@pytest.mark.parametrize(("age", "state"), [(59.9, GONE), (60.0, None)])
def test_static_pod(age: float, state: str | None) -> None:
    """A UID from the kubelet can come back with a mirror pod, so its deletion is cached for a minute."""
    cache = Cache(4)
    cache.put(STATIC, None, "", 0.0)
    assert seen(cache, "", age, age, STATIC) == state


def test_mirror_pod() -> None:
    """The mirror pod stands for its static pod, although it has another UID."""
    assert Cache(4).put(STATIC, found(mirrors=STATIC.uid), "", 0.0).state == LIVE
    assert Cache(4).put(STATIC, found(mirrors="another"), "", 0.0).state == REPLACED


def test_false_mirror() -> None:
    """A pod that claims to mirror a pod with a server UID is ignored."""
    assert Cache(4).put(POD, found(UIDS(2), mirrors=POD.uid), "", 0.0).state == REPLACED


def test_aged() -> None:
    """Without an answer, the last labels are attached as stale, without `deleted`."""
    cache = Cache(4)
    cache.put(POD, found(), "", 0.0)
    entry = cache.last(POD, SKIPPED)
    assert (entry.about, entry.fields) == ({"state": SKIPPED, "stale": True}, {"labels": {"of": UIDS(1)}})
    unknown = cache.last(NAMELESS, FORBIDDEN)
    assert (unknown.about, unknown.fields) == ({"state": FORBIDDEN, "stale": False}, {})


def test_empty_fields_are_left_out() -> None:
    """Empty fields are omitted, as in event-exporter's JSON. `deleted` is always present."""
    assert Entry(LIVE, Found("u", "1", "", False, {}, {}, [])).fields == {"deleted": False}


NUMBERS = st.integers(1, 10**30)


@given(fetched=NUMBERS, rv=NUMBERS)
def test_versions_compare_as_numbers(fetched: int, rv: int) -> None:
    """Versions of any length compare as whole numbers."""
    assert covers(str(fetched), str(rv)) == (rv <= fetched)


@pytest.mark.parametrize("rv", ["", "x", "01", "-1", "1.0", "٣", " 1", "1" * 5000])
def test_values_that_are_no_number(rv: str) -> None:
    """A version that is no whole number covers only itself. One of 5,000 digits is a large number."""
    assert [covers("10", rv), covers(rv, rv)] == [False, True]
