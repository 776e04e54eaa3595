"""What is remembered answers for what it was read for, and for nothing that it cannot know."""

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
    """An object's metadata, with the UID for a label."""
    return Found(uid, rv, "", terminating, {"of": uid}, {}, [], mirrors=mirrors, size=size)


def seen(cache: Cache, rv: str = "", read_at: float = 0.0, now: float = 0.0, reference: Reference = POD) -> str | None:
    """The state that the cache answers with; None if the object is to be read."""
    entry = cache.look(reference, rv, read_at, now)
    return None if entry is None else entry.state


@pytest.mark.parametrize(("rv", "state"), [("9", LIVE), ("10", LIVE), ("11", None), ("100", None), ("2", LIVE)])
def test_version(rv: str, state: str | None) -> None:
    """A reading answers for the resourceVersion that it showed and for all before it, however long ago."""
    cache = Cache(4)
    cache.put(POD, found(rv="10"), "8", 0.0)
    assert seen(cache, rv, now=1e6, read_at=1e6) == state


def test_version_asked() -> None:
    """A version that the server did not show when it was asked for it is not asked for again."""
    cache = Cache(4)
    cache.put(POD, found(rv="10"), "99", 0.0)
    assert [seen(cache, rv, now=1e6) for rv in ("99", "98")] == [LIVE, None]


@pytest.mark.parametrize(("age", "state"), [(59.9, LIVE), (60.0, None)])
@pytest.mark.parametrize("rv", ["", "opaque"])
def test_no_version(rv: str, age: float, state: str | None) -> None:
    """For a reference without a version, or with one that is no number, a reading answers for a minute."""
    cache = Cache(4)
    cache.put(POD, found(), "", 0.0)
    assert seen(cache, rv, now=age) == state


def test_gone_for_good() -> None:
    """An object that is gone never comes back under its UID."""
    cache = Cache(4)
    cache.put(POD, None, "5", 0.0)
    assert seen(cache, "9999", now=1e9, read_at=1e9) == GONE


def test_gone_keeps_labels() -> None:
    """Of an object that is gone the last known labels are told, as stale."""
    cache = Cache(4)
    cache.put(POD, found(), "", 0.0)
    entry = cache.put(POD, None, "11", 1.0)
    expected = ({"state": GONE, "stale": True}, {"labels": {"of": UIDS(1)}, "deleted": True})
    assert (entry.about, entry.fields) == expected


def test_replaced() -> None:
    """Labels of an object that took the name over are not attached; those last known of the one meant are."""
    cache = Cache(4)
    fresh = cache.put(POD, found(UIDS(2)), "", 0.0)
    assert (fresh.state, fresh.fields) == (REPLACED, {"deleted": True})
    cache.put(POD, found(), "", 1.0)
    known = cache.put(POD, found(UIDS(2)), "11", 2.0)
    assert (known.state, known.fields["labels"], known.about["stale"]) == (REPLACED, {"of": UIDS(1)}, True)
    assert seen(cache, "12", now=1e9) == REPLACED


def test_terminating() -> None:
    """An object with a deletionTimestamp counts as deleted; for an event with a newer version it is read again."""
    cache = Cache(4)
    entry = cache.put(POD, found(terminating=True), "", 0.0)
    assert (entry.state, entry.fields["deleted"]) == (TERMINATING, True)
    assert [seen(cache, rv) for rv in ("10", "11")] == [TERMINATING, None]


def test_gone_do_not_push_out() -> None:
    """Objects that are gone take no room from those that are not."""
    cache = Cache(2)
    cache.put(POD, found(), "", 0.0)
    for number in range(2, 10):
        cache.put(POD._replace(uid=UIDS(number)), None, "", 0.0)
    assert (seen(cache, "10"), len(cache)) == (LIVE, 1)


def test_gone_are_bounded() -> None:
    """Of those that are gone four times the size are remembered."""
    cache = Cache(2)
    for number in range(9):
        cache.put(POD._replace(uid=UIDS(number)), None, "", 0.0)
    states = [seen(cache, reference=POD._replace(uid=UIDS(number))) for number in range(9)]
    assert states == [None, *[GONE] * 8]


def test_large_counts_as_several() -> None:
    """An object with 100 KiB of annotations takes the room of seven, and one with megabytes all there is, no more."""
    cache = Cache(8)
    references = [POD._replace(uid=UIDS(number)) for number in range(9)]
    for number, reference in enumerate(references):
        cache.put(reference, found(UIDS(number)), "", 0.0)
    cache.put(POD._replace(name="big"), found(size=100 * 1024), "", 0.0)
    assert len(cache) == 2
    cache.put(POD._replace(name="huge"), found(size=100 * 1024 * 1024), "", 0.0)
    assert len(cache) == 1


def test_no_uid() -> None:
    """Pitfall 17: without a UID a reading answers for events read before it was asked for, never for later ones."""
    cache = Cache(4)
    cache.put(NAMELESS, found(), "", 5.0)
    assert [seen(cache, "10", read_at, 5.1, NAMELESS) for read_at in (5.0, 5.05)] == [LIVE, None]


def test_no_uid_is_no_key() -> None:
    """Objects without a UID are not taken for each other, whatever the group, the kind, the namespace or the name."""
    cache = Cache(4)
    cache.put(NAMELESS, found(), "", 5.0)
    others = [
        NAMELESS._replace(**{field: "other"})  # type: ignore[arg-type]
        for field in ("api_version", "kind", "namespace", "name")
    ]
    assert [seen(cache, "", 1.0, 5.0, other) for other in others] == [None] * 4


def test_uid_is_not_enough() -> None:
    """A UID that an event gives to another object brings none of its labels: that is looked up by its name."""
    cache = Cache(4)
    cache.put(POD, found(), "", 0.0)
    assert seen(cache, "", reference=POD._replace(namespace="other")) is None


@pytest.mark.parametrize(("age", "state"), [(9.9, LIVE), (10.0, None)])
def test_node(age: float, state: str | None) -> None:
    """A Node by its name is trusted for ten seconds."""
    cache = Cache(4)
    cache.put(NODE, found(), "", 0.0)
    assert seen(cache, "", age, age, NODE) == state


@pytest.mark.parametrize(("age", "state"), [(59.9, GONE), (60.0, None)])
def test_static_pod(age: float, state: str | None) -> None:
    """A UID that the kubelet made up may come back with its mirror pod: that it is gone holds for a minute."""
    cache = Cache(4)
    cache.put(STATIC, None, "", 0.0)
    assert seen(cache, "", age, age, STATIC) == state


def test_mirror_pod() -> None:
    """The mirror of a static pod stands for it, though it has a UID of its own."""
    assert Cache(4).put(STATIC, found(mirrors=STATIC.uid), "", 0.0).state == LIVE
    assert Cache(4).put(STATIC, found(mirrors="another"), "", 0.0).state == REPLACED


def test_false_mirror() -> None:
    """A pod that claims to mirror one with a UID of the server's does not stand for it."""
    assert Cache(4).put(POD, found(UIDS(2), mirrors=POD.uid), "", 0.0).state == REPLACED


def test_aged() -> None:
    """Without an answer the last labels are told as stale, and nothing is said about a deletion."""
    entry = Entry(LIVE, found()).aged(SKIPPED)
    assert (entry.about, entry.fields) == ({"state": SKIPPED, "stale": True}, {"labels": {"of": UIDS(1)}})
    assert (Entry(FORBIDDEN).about, Entry(FORBIDDEN).fields) == ({"state": FORBIDDEN, "stale": False}, {})


def test_empty_fields_are_left_out() -> None:
    """What an object does not have is not there, as in event-exporter's JSON; `deleted` always is."""
    assert Entry(LIVE, Found("u", "1", "", False, {}, {}, [])).fields == {"deleted": False}


NUMBERS = st.integers(1, 10**30)


@given(fetched=NUMBERS, rv=NUMBERS)
def test_versions_compare_as_numbers(fetched: int, rv: int) -> None:
    """Versions of any length compare as whole numbers."""
    assert covers(str(fetched), str(rv)) == (rv <= fetched)


@pytest.mark.parametrize("rv", ["", "x", "01", "-1", "1.0", "٣", " 1", "1" * 5000])
def test_what_is_no_number(rv: str) -> None:
    """A version that is no whole number is covered by itself only; one of 5,000 digits is a large number."""
    assert [covers("10", rv), covers(rv, rv)] == [False, True]
