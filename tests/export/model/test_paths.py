"""Names of folders and segments, from streams and positions and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export import Stream
from kevents.export._model.position import SegmentName, decoded, encoded, place_of, segment_name, stream_of

NAMES = st.text(max_size=8)  # a character takes up to twelve
STREAMS = st.builds(Stream, st.text(min_size=1, max_size=8), NAMES, st.text(min_size=1, max_size=8))


@given(NAMES)
def test_names_come_back(name: str) -> None:
    """Pitfall 74: any text becomes one part of a path, and comes back."""
    part = encoded(name)
    assert decoded(part) == name
    assert not set(part) - set("abcdefghijklmnopqrstuvwxyz0123456789-._")
    assert not part.startswith(".")


@given(STREAMS)
def test_streams_come_back(stream: Stream) -> None:
    """Pitfall 74: any stream has a folder of two parts, and the folder tells the stream."""
    place = place_of(stream)
    assert stream_of(place) == stream
    assert len([part for part in place.split("/") if part.strip(".")]) == 2


@pytest.mark.parametrize("stream", [Stream("x" * 201), Stream("c", "ü" * 34), Stream("c", "x" * 120, "y" * 120)])
def test_too_long(stream: Stream) -> None:
    """Pitfall 74: a name that becomes too long for a file system is refused, and shown in part."""
    with pytest.raises(ValueError, match="is too long for a path"):
        place_of(stream)


def test_usual_names() -> None:
    """What Kubernetes calls things stays as it is."""
    assert (
        place_of(Stream("6f1c2d34-0000-4000-8000-00000000c1a5", "kube-system"))
        == "6f1c2d34-0000-4000-8000-00000000c1a5/kube-system"
    )
    assert place_of(Stream("c")) == "c/_all"
    assert place_of(Stream("c", "", "widgets")) == "c/widgets_of__all"


@pytest.mark.parametrize("part", ["..", ".a", "a/b", "_zz", "A", "_all"])
def test_no_name(part: str) -> None:
    """What no name is encoded as is not decoded."""
    with pytest.raises(ValueError, match="is no encoded name"):
        decoded(part)


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_segments_come_back(first: int, last: int) -> None:
    """A segment's name tells its numbers, and sorts by them as long as they have twenty digits."""
    name = SegmentName(last, first)
    assert name == segment_name(name.file(".jsonl.gz")) == segment_name(name.file(".jsonl"))


@pytest.mark.parametrize("file", ["current.jsonl.gz.part", "1-2.jsonl", f"{1:020d}-{2:020d}.csv", ".lock", "x"])
def test_no_segment(file: str) -> None:
    """Other files are no segments."""
    assert segment_name(file) is None
