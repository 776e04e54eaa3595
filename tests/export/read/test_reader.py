"""Reading back exported records: order, duplicates and damage."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from kevents.export import Damage, DeadLetters, FileSink, ObjectStoreSink, ReadError, Stream, read_records
from kevents.export._read.reader import LONGEST_LINE
from kevents.export._sinks.segments import BatchHeader, Gzip
from tests.export.batches import CLUSTER, batch, body, ids, ids_of, position, record
from tests.export.moto import SECRET, Moto
from tests.export.sinks.test_file import FOLDER, compress, files, part

__all__ = ["compress", "part"]

BUCKETS = (f"read-{number}" for number in itertools.count())


def read(source: Any, **values: Any) -> list[str]:
    """Return the ids of the records that are read."""
    return ids(read_records(source, **values))


def damaged(source: Any, **values: Any) -> tuple[list[str], list[Damage]]:
    """Return the ids of the records, and the damages."""
    damages: list[Damage] = []
    found = read(source, on_damage=damages.append, **values)
    with pytest.raises(ReadError) as caught:
        list(read_records(source, **values))
    assert (caught.value.damages, caught.value.total) == (damages, len(damages))
    return found, damages


# -- whole archives -------------------------------------------------------------------------------------------------


def test_a_folder(tmp_path: Path, compress: Any) -> None:
    """A folder is read in order of its segments, the open one last. Positions are skipped."""
    with closing(FileSink(tmp_path, compress=compress, max_bytes=5000)) as sink:
        for rv in range(1, 30):
            sink.write(batch([rv]))
            sink.write(batch([], upto=rv, seconds=rv))
    assert len(files(tmp_path)) > 3
    assert list(read_records(tmp_path)) == [body(rv) for rv in range(1, 30)]


def test_a_file(tmp_path: Path) -> None:
    """A single segment is read, closed or open, by a `Path` or a string."""
    with closing(FileSink(tmp_path, max_bytes=1)) as sink:
        sink.write(batch([1]))
        sink.write(batch([2]))
    closed, opened = files(tmp_path)
    assert (read(closed), read(str(opened))) == (ids_of([1]), ids_of([2]))


def test_numbers_of_any_length(tmp_path: Path) -> None:
    """Segments are sorted by their numbers, not by their names."""
    numbers = [1, 9 * 10**20, 10**21]
    with closing(FileSink(tmp_path, max_bytes=1)) as sink:
        for rv in numbers:
            sink.write(batch([rv]))
    assert read(tmp_path) == ids_of(numbers)


@pytest.mark.parametrize("deduplicate", [True, False])
def test_beside_an_export(tmp_path: Path, compress: Any, *, deduplicate: bool) -> None:
    """A segment that a running export closes while a folder is read is yielded once."""
    with closing(FileSink(tmp_path, compress=compress, max_age=10)) as sink:
        for rv in (1, 2, 3):
            sink.write(batch([rv], seconds=20 * rv))
        found = read_records(tmp_path, deduplicate=deduplicate)
        first = next(found)
        for rv in (4, 5):
            sink.write(batch([rv], seconds=20 * rv))
        assert ids([first, *found]) == ids_of([1, 2, 3])


def test_closed_while_it_is_listed(tmp_path: Path, compress: Any, part: Path) -> None:
    """A segment that is renamed during listing is read once, and one that is removed is skipped."""
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        sink.write(batch([1]))
    os.link(part, part.with_name(part.name.replace("current", f"{1:020d}-{1:020d}")))
    part.with_name("current.jsonl" if compress == "gzip" else "current.jsonl.gz").symlink_to("nowhere")
    assert read(tmp_path, deduplicate=False) == ids_of([1])


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    """A segment that cannot be opened is reported, and the others are read."""
    with closing(FileSink(tmp_path)) as sink:
        sink.write(batch([1]))
    (tmp_path / "current.jsonl").mkdir()
    (tmp_path / "b.jsonl").symlink_to("nowhere")
    found, damages = damaged(tmp_path)
    assert found == ids_of([1])
    assert [(Path(damage.file).name, damage.why.removeprefix("cannot be read: ")) for damage in damages] == [
        ("b.jsonl", "No such file or directory"),
        ("current.jsonl", "Is a directory"),
    ]


def test_several_streams(tmp_path: Path) -> None:
    """Streams are read one after the other."""
    with closing(FileSink(tmp_path)) as sink:
        for rv, scope in ((1, "b"), (2, "a"), (3, "b")):
            sink.write(batch([rv], Stream(CLUSTER, scope)))
    assert read(tmp_path) == ids_of([2, 1, 3])


def test_duplicates(tmp_path: Path) -> None:
    """A record is yielded once by its id, or as often as stored on request."""
    for folder in ("a", "b"):
        with closing(FileSink(tmp_path / folder)) as sink:
            sink.write(batch([1, 2] if folder == "a" else [2, 3]))
    assert read(tmp_path) == ids_of([1, 2, 3])
    assert read(tmp_path, deduplicate=False) == ids_of([1, 2, 2, 3])
    assert read(tmp_path, remembered=0) == ids_of([1, 2, 2, 3])


def test_remembered(tmp_path: Path) -> None:
    """At least the given number of ids is remembered, at most twice as many: memory is bounded."""
    lines = [record(rv).line() for rv in (*range(1, 11), *range(10, 0, -1))]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    again = [int(found.partition(":")[2]) for found in read(tmp_path, remembered=4)[10:]]
    assert again[-2:] == [2, 1]
    assert not {10, 9, 8, 7} & set(again)


def test_where(tmp_path: Path) -> None:
    """`where` selects records."""
    with closing(FileSink(tmp_path)) as sink:
        sink.write(batch([1, 2, 3]))
    assert read(tmp_path, where=lambda found: found["message"].endswith("2")) == ids_of([2])


def test_dead_letters(tmp_path: Path) -> None:
    """Dead letters are read like any segment."""
    DeadLetters(tmp_path / "dead.jsonl").write("pager", [record(1)], "no")
    [found] = read_records(tmp_path / "dead.jsonl")
    assert found["kevents"]["rejected"]["why"] == "no"


def test_files_of_others(tmp_path: Path) -> None:
    """Lines of other programs, recompressed or without ids, are read as records."""
    (tmp_path / "a.jsonl").write_bytes(b'{"a":1}\n{"a":1}\n\n{"a":2}')
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"a":3}\n{"a":4}') + gzip.compress(b'{"a":5}\n'))
    (tmp_path / "notes.txt").write_text("no record")
    assert [found["a"] for found in read_records(tmp_path)] == [1, 1, 2, 3, 4, 5]


def test_nothing_there(tmp_path: Path) -> None:
    """A missing path is an error. An empty folder yields nothing."""
    with pytest.raises(
        OSError, match=r"nowhere does not exist: give a file, a folder or a URL such as s3://bucket/prefix"
    ):
        list(read_records(tmp_path / "nowhere"))
    assert read(tmp_path) == []


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The URL of an object store, and its options."""
    if request.param == "folder":
        yield f"file://{tmp_path}/store", {}
        return
    moto: Moto = request.getfixturevalue("moto")
    bucket = next(BUCKETS)
    moto.make_bucket(bucket)
    yield f"s3://{bucket}/events", moto.options()


def test_objects(store: tuple[str, dict[str, Any]]) -> None:
    """The objects below a URL are read day by day. A single object is read by its own URL."""
    url, options = store
    with closing(ObjectStoreSink(url, options=options)) as sink:
        for rv in range(1, 12):
            sink.write(batch([rv], seconds=rv * 40_000))
        sink.write(batch([], upto=20))
    assert read(url, options=options) == ids_of(range(1, 12))
    assert read(f"{url}/{FOLDER}", options=options) == ids_of(range(1, 12))
    one = f"{url}/{FOLDER}/dt=2026-07-24/{1:020d}-{1:020d}.jsonl.gz"
    assert read(one, options=options) == ids_of([1])


def test_no_objects(store: tuple[str, dict[str, Any]]) -> None:
    """An empty prefix, a missing object and a missing bucket are errors with the URL, without secrets."""
    url, options = store
    with pytest.raises(OSError, match=r"nothing below .*: no object there ends with \.jsonl"):
        read(url, options=options)
    found, [damage] = damaged(f"{url}/none.jsonl", options=options)
    assert (found, damage.file, damage.offset) == ([], f"{url}/none.jsonl", 0)
    if url.startswith("s3"):
        with pytest.raises(OSError, match="cannot list s3://no-such-bucket: NoSuchBucket") as caught:
            read("s3://no-such-bucket", options=options)
        assert SECRET not in str(caught.value)


def test_a_large_object(moto: Moto) -> None:
    """Pitfall 73: an object of many megabytes is read in pieces."""
    bucket = next(BUCKETS)
    moto.make_bucket(bucket)
    line = record(1, "x" * 1000).line() + b"\n"
    data = line * 16_000
    obstore.put(S3Store(bucket, client_options={"allow_http": True}, **moto.options()), "big.jsonl", data)
    del data
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_records(f"s3://{bucket}", deduplicate=False, options=moto.options())) == 16_000
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# -- pitfall 73: truncated, corrupt, hugely expanding -----------------------------------------------------------------


def three(path: Path, compress: Any) -> list[int]:
    """Write three batches and return the sizes of the segment after each."""
    sizes = [0]
    with closing(FileSink(path, compress=compress)) as sink:
        for number in (1, 3, 5):
            sink.write(batch([number, number + 1]))
            sizes.append(files(path)[-1].stat().st_size)
    return sizes


def test_pitfall_73_truncated(tmp_path: Path) -> None:
    """Pitfall 73: a truncated segment is read up to its end. The error has the file and the member's offset."""
    sizes = three(tmp_path, "gzip")
    segment = tmp_path / "cut.jsonl.gz"
    data = files(tmp_path)[0].read_bytes()
    for cut in range(sizes[1] + 1, sizes[2], 17):
        segment.write_bytes(data[:cut])
        found, [damage] = damaged(segment)
        assert ids_of([1, 2]) == found[:2]
        assert len(found) <= 4
        assert damage == Damage(str(segment), sizes[1], "an incomplete gzip member")


def test_pitfall_73_corrupt(tmp_path: Path) -> None:
    """Pitfall 73: reading continues after a damaged member, and the error has its offset."""
    sizes = three(tmp_path, "gzip")
    segment = tmp_path / "corrupt.jsonl.gz"
    data = files(tmp_path)[0].read_bytes()
    for place in random.Random(3).sample(range(sizes[1] + 230, sizes[2]), 40):
        segment.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        found, damages = damaged(segment)
        assert (found[:2], found[-2:]) == (ids_of([1, 2]), ids_of([5, 6]))
        assert {damage.offset for damage in damages} == {sizes[1]}
        assert all("damaged gzip member" in damage.why or "no JSON" in damage.why for damage in damages), damages


def test_pitfall_73_noise(tmp_path: Path) -> None:
    """Pitfall 73: noise before, between and after members hides none of them."""
    three(tmp_path, "gzip")
    data = files(tmp_path)[0].read_bytes()
    segment = tmp_path / "noise.jsonl.gz"
    segment.write_bytes(data + bytes(100) + data[:200] + b"\x1f\x8bnoise" + data)
    found, damages = damaged(segment, deduplicate=False)
    assert found == ids_of([1, 2, 3, 4, 5, 6] * 2)
    assert [damage.offset for damage in damages][:2] == [len(data), len(data) + 100]


def test_pitfall_73_corrupt_line(tmp_path: Path) -> None:
    """Pitfall 73: a line that is not a JSON object is reported with its offset, and the next is read."""
    segment = tmp_path / "lines.jsonl"
    bad = [b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":1} x']
    segment.write_bytes(b"\n".join([record(1).line(), *bad, record(2).line()]) + b"\n")
    found, damages = damaged(segment)
    assert found == ids_of([1, 2])
    expected = [len(record(1).line()) + 1 + sum(len(line) + 1 for line in bad[:number]) for number in range(len(bad))]
    assert [damage.offset for damage in damages] == expected
    assert {damage.why for damage in damages} == {"a line that is not a JSON object"}


@pytest.mark.parametrize("content", [b"\0", b"\n", b"{}\n"])
def test_pitfall_73_a_bomb(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 73: a small member that expands enormously takes bounded memory. Other members are read."""
    monkeypatch.setattr("kevents.export._read.reader.LONGEST_LINE", 4 << 20)
    monkeypatch.setattr("kevents.export._read.reader.LARGEST_MEMBER", 6 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    piece = content * ((1 << 20) // len(content))
    bomb = b"".join(packer.compress(piece) for _ in range(16)) + packer.flush()
    del piece
    member = Gzip().encode([record(2).line()], BatchHeader(position(2), 2, 1))
    (tmp_path / "bomb.jsonl.gz").write_bytes(
        Gzip().encode([record(1).line()], BatchHeader(position(1), 1, 1)) + bomb + member
    )
    damages: list[Damage] = []
    tracemalloc.start()
    try:
        found = [name for name in map(_id, read_records(tmp_path, on_damage=damages.append)) if name]
        assert tracemalloc.get_traced_memory()[1] < 14 << 20
    finally:
        tracemalloc.stop()
    assert found == ids_of([1, 2])
    [damage] = damages
    assert damage.why in {"a line of more than 4 MiB", "a gzip member that expands to more than 6 MiB"}


def _id(found: dict[str, Any]) -> str:
    return str(found.get("kevents", {}).get("id", ""))


def test_pitfall_73_a_long_line(tmp_path: Path) -> None:
    """Pitfall 73: a very long plain line takes bounded memory, and the next lines are read."""
    segment = tmp_path / "long.jsonl"
    with segment.open("wb") as file:
        for _ in range(40):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + record(1).line() + b"\n")
    tracemalloc.start()
    try:
        found = damaged(segment)
        assert tracemalloc.get_traced_memory()[1] < 4 * LONGEST_LINE
    finally:
        tracemalloc.stop()
    assert found == (ids_of([1]), [Damage(str(segment), 0, "a line of more than 16 MiB")])


def test_torn_end_of_an_open_segment(tmp_path: Path, compress: Any, part: Path) -> None:
    """An incomplete last batch of an open segment is no damage."""
    sizes = three(tmp_path, compress)
    data = part.read_bytes()
    for cut in (sizes[2] + 5, sizes[2] + 30, sizes[3] - 20, sizes[3] - 1):
        part.write_bytes(data[:cut])
        assert read(tmp_path)[:4] == ids_of([1, 2, 3, 4])


def test_damage_in_the_middle_of_an_open_segment(tmp_path: Path) -> None:
    """Damage before complete batches is reported in an open segment, too."""
    sizes = three(tmp_path, "gzip")
    [segment] = files(tmp_path)
    data = bytearray(segment.read_bytes())
    data[sizes[2] - 6] ^= 1
    segment.write_bytes(data)
    found, [damage] = damaged(tmp_path)
    assert (found[:2], found[-2:], damage.offset) == (ids_of([1, 2]), ids_of([5, 6]), sizes[1])


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """A segment that cannot be opened is reported, and the others are read."""
    three(tmp_path, "gzip")
    (tmp_path / "a.jsonl").mkdir()
    found, [damage] = damaged(tmp_path)
    assert (found, damage.why) == (ids_of(range(1, 7)), "cannot be read: Is a directory")


def test_very_much_damage(tmp_path: Path) -> None:
    """The error keeps the first 100 damages and counts all. Its text has the first one and the number of the others."""
    (tmp_path / "a.jsonl").write_bytes(b"x\n" * 1000)
    with pytest.raises(ReadError) as caught:
        list(read_records(tmp_path))
    assert (len(caught.value.damages), caught.value.total) == (100, 1000)
    assert str(caught.value) == f"{tmp_path}/a.jsonl, at byte 0: a line that is not a JSON object (and 999 more)"


def test_changed_bit(tmp_path: Path, compress: Any, part: Path) -> None:
    """Fault 30: a record of a block that does not match its checksum is reported, never returned changed."""
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        for rv in (1, 2, 3):
            sink.write(batch([rv]))
    data = part.read_bytes()
    originals = [body(rv) for rv in (1, 2, 3)]
    part.unlink()
    closed = tmp_path / f"{1:020d}-{3:020d}{''.join(part.suffixes)}"
    for offset in range(0, len(data), 7):
        closed.write_bytes(data[:offset] + bytes([data[offset] ^ 4]) + data[offset + 1 :])
        damages: list[Damage] = []
        found = list(read_records(closed, on_damage=damages.append))
        assert all(record in originals for record in found), offset
        assert len(found) == len(originals) or damages, offset


@pytest.mark.parametrize("buffered", [0, 1 << 20])
def test_large_block(tmp_path: Path, compress: Any, part: Path, buffered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that is too large for memory is verified first, then read again."""
    monkeypatch.setattr("kevents.export._read.reader._MOST_BUFFERED", buffered)
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        sink.write(batch([1, 2, 3]))
        sink.write(batch([4, 5]))
    assert read(tmp_path) == ids_of([1, 2, 3, 4, 5])
    data = bytearray(part.read_bytes())
    data[-60] ^= 1
    part.write_bytes(data)
    assert damaged(tmp_path)[0] == ids_of([1, 2, 3])
