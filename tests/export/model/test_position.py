"""The forms of a position: growing numbers, JSON, and names of folders and segments."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export import Stream
from kevents.export._model.position import (
    AGE,
    Order,
    SegmentName,
    encode_name,
    folder_of,
    number_of,
    segment_name,
)


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("1", 1),
        ("18446744073709551616", 2**64),
        ("9" * 100, int("9" * 100)),
        ("", None),
        ("0", None),
        ("007", None),
        ("1_0", None),
        (" 7", None),
        ("+7", None),
        ("7a", None),
        ("٣", None),
        ("9" * 5000, None),
    ],
    ids=lambda value: str(value)[:12],
)
def test_number(version: str, number: int | None) -> None:
    """A resourceVersion is a number of any length without leading zeros or signs. Other texts give None."""
    assert number == number_of(version)


class TestOrder:
    """Numbers that only grow."""

    def test_as_they_are(self) -> None:
        """A numeric resourceVersion keeps its value."""
        order = Order(70)
        assert (order.place(71), order.last) == (71, 70)
        order.advance(71)
        order.advance(60)
        assert order.last == 71

    def test_reset(self) -> None:
        """After a storage reset, smaller resourceVersions come after all earlier ones."""
        order = Order(70)
        assert (order.is_reset(70), order.is_reset(69)) == (False, True)
        began = order.reset()
        assert 70 < began < order.place(5)
        assert began == order.last

    def test_restart_after_a_reset(self) -> None:
        """A position contains its age, so that a restart after a reset does not detect the reset again."""
        order = Order(AGE + 50)
        assert (order.is_reset(50), order.is_reset(49), order.place(51)) == (False, True, AGE + 51)
        order.reset()
        assert order.place(3) == 2 * AGE + 3

    @pytest.mark.parametrize("last", [0, 30, AGE + 30])
    def test_records_held_by_any_destination(self, last: int) -> None:
        """The latest age of any destination applies. A list below it belongs to an earlier storage."""
        order = Order(last, AGE + 50)
        assert (order.last, order.place(51)) == (max(last, AGE), AGE + 51)
        assert (order.is_reset(50), order.is_reset(49)) == (False, True)
        assert order.reset() == 2 * AGE

    @given(st.integers(1, 2**63 - 1), st.integers(1, 2**63 - 1), st.integers(0, 8))
    def test_as_text(self, old: int, new: int, age: int) -> None:
        """Later ages also sort later as text of at least twenty digits, as in object store keys."""
        order = Order(age * AGE + old)
        before = f"{order.last:020d}"
        order.reset()
        assert before < f"{order.place(new):020d}"

    def test_invented(self) -> None:
        """Without numeric resourceVersions, growing numbers come from a clock that may stand still or go back."""
        order = Order(100)
        numbers = []
        for now in (90, 200, 200, 150):
            number = order.invent(now)
            order.advance(number)
            numbers.append(number)
        assert numbers == [101, 200, 201, 202]


def test_ages_are_longer_than_any_version() -> None:
    """Every unsigned 64-bit number fits into one age. A stream starts at 0."""
    assert AGE > 2**64
    order = Order()
    assert (order.last, order.reset(), order.place(1)) == (0, AGE, AGE + 1)


NAMES = st.text(max_size=8)  # A character takes up to twelve.
STREAMS = st.builds(Stream, st.text(min_size=1, max_size=8), NAMES)


def decoded(part: str) -> str:
    """Return the name that a part of a path stands for: it is encoded as in a URL, with `_` in the place of `%`."""
    return unquote(part.replace("_", "%"), errors="surrogatepass")


@given(NAMES)
def test_names_come_back(name: str) -> None:
    """Pitfall 74: any text becomes one path component and is restored from it."""
    part = encode_name(name)
    assert decoded(part) == name
    assert not set(part) - set("abcdefghijklmnopqrstuvwxyz0123456789-._")
    assert not part.startswith(".")


@given(STREAMS)
def test_streams_come_back(stream: Stream) -> None:
    """Pitfall 74: any stream has a folder of two components and is restored from it."""
    place = folder_of(stream)
    cluster, _, scope = place.partition("/")
    assert Stream(decoded(cluster), "" if scope == "_all" else decoded(scope)) == stream
    assert len([part for part in place.split("/") if part.strip(".")]) == 2


@pytest.mark.parametrize("stream", [Stream("x" * 201), Stream("c", "ü" * 34)])
def test_too_long(stream: Stream) -> None:
    """Pitfall 74: a name that is too long for a file system is refused and shown truncated."""
    with pytest.raises(ValueError, match="is too long for a path"):
        folder_of(stream)


def test_usual_names() -> None:
    """Names that Kubernetes allows are unchanged."""
    assert (
        folder_of(Stream("6f1c2d34-0000-4000-8000-00000000c1a5", "kube-system"))
        == "6f1c2d34-0000-4000-8000-00000000c1a5/kube-system"
    )
    assert folder_of(Stream("c")) == "c/_all"


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_segments_come_back(first: int, last: int) -> None:
    """A segment's name contains its numbers."""
    name = SegmentName(last, first)
    assert name == segment_name(name.file(".jsonl.gz")) == segment_name(name.file(".jsonl"))


@pytest.mark.parametrize("file", ["current.jsonl.gz", "1-2.jsonl", f"{1:020d}-{2:020d}.csv", ".lock", "x"])
def test_no_segment(file: str) -> None:
    """Names of other files are not parsed as segments."""
    assert segment_name(file) is None
