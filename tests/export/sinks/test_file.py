"""The file sink: segments, recovery after a crash, rotation and retention."""

from __future__ import annotations

import errno
import gzip
import inspect
import json
import os
import random
import re
import resource
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from kevents.export import Batch, FileSink, Retry, Stream
from kevents.export._model.position import folder_of
from kevents.export._sinks.segments import is_position_line, lock_folder, replace
from tests.export.batches import AT, CLUSTER, SECOND, STREAM, batch, ids, ids_of, position, record
from tests.export.sink_contract import Place, PositionContract

FOLDER = folder_of(STREAM)
DAY = "dt=2026-07-24"


def files(path: Path) -> list[Path]:
    """Return the segments of a folder, the open one last."""
    found = [file for file in path.rglob("*") if file.is_file() and file.name != ".lock"]
    return sorted(found, key=lambda file: (file.parent, file.name.startswith("current"), file.name))


def lines(path: Path) -> list[bytes]:
    """Return the lines of all segments, as any tool reads them."""
    read = [gzip.decompress(file.read_bytes()) if ".gz" in file.name else file.read_bytes() for file in files(path)]
    return [line for text in read for line in text.split(b"\n")[:-1]]


def bodies(path: Path) -> list[dict[str, Any]]:
    """Return the records of all segments."""
    return [json.loads(line) for line in lines(path) if not is_position_line(line)]


@pytest.fixture(params=["gzip", "none"])
def compress(request: pytest.FixtureRequest) -> Any:
    """Both formats."""
    return request.param


@pytest.fixture
def part(tmp_path: Path, compress: str) -> Path:
    """The path of the open segment."""
    return tmp_path / FOLDER / DAY / ("current.jsonl.gz" if compress == "gzip" else "current.jsonl")


class TestFileSink(PositionContract):
    """The contract."""

    @pytest.fixture
    def place(self, tmp_path: Path, compress: Any) -> Place:
        """A folder."""
        return Place(lambda: FileSink(tmp_path, compress=compress), lambda: bodies(tmp_path))


class TestSmallSegments(PositionContract):
    """The contract with one segment for each batch."""

    @pytest.fixture
    def place(self, tmp_path: Path, compress: Any) -> Place:
        """A folder."""
        return Place(lambda: FileSink(tmp_path, compress=compress, max_bytes=1), lambda: bodies(tmp_path))


# -- format
# -------------------------------------------------------------------------------------------------------------


def test_any_tool_reads_it(tmp_path: Path) -> None:
    """Compressed segments contain only the records as lines, even with positions of empty batches."""
    with closing(FileSink(tmp_path)) as sink:
        sink.write(batch([1, 2], upto=4))
        sink.write(batch([], upto=8))
        sink.write(batch([9]))
    assert lines(tmp_path) == [record(rv).line() for rv in (1, 2, 9)]


def test_synced(tmp_path: Path, compress: Any, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a batch is acknowledged, the file is synced, and so is the folder of a new file."""
    synced: list[tuple[int, int]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        real(handle)
        found = os.fstat(handle)
        synced.append((found.st_ino, found.st_size))

    monkeypatch.setattr("kevents.export._sinks.segments.os.fsync", fsync)
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        for rvs, upto in (([1], 1), ([2], 2), ([], 9)):
            synced.clear()
            sink.write(batch(rvs, upto=upto))
            assert (part.stat().st_ino, part.stat().st_size) in synced
            assert rvs != [1] or part.parent.stat().st_ino in dict(synced)


def test_constructing_touches_nothing(tmp_path: Path) -> None:
    """The sink creates its folder with the first batch, not before."""
    sink = FileSink(tmp_path / "a" / "b")
    assert sink.last_position(STREAM) is None
    sink.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "values",
    [{"compress": "zip"}, {"level": 0}, {"level": 10}, {"max_bytes": 0}, {"max_age": 0}, {"keep": 0}, {"keep_for": -1}],
)
def test_wrong_values(tmp_path: Path, values: dict[str, Any]) -> None:
    """An invalid option is refused with its name."""
    with pytest.raises(ValueError, match=next(iter(values))):
        FileSink(tmp_path, **values)


@pytest.mark.parametrize("name", ["../../up", "/etc", "a b", "..", "A", "a_b", "ü", "_all", "x_of_y", "a\x00b", ".x"])
def test_pitfall_74(tmp_path: Path, name: str) -> None:
    """Pitfall 74: for any name of a cluster or namespace, the folder is inside the sink's and separate."""
    place = tmp_path / "events"
    streams = [STREAM, Stream(CLUSTER, name), Stream(name), Stream(name, name)]
    for number, stream in enumerate(streams, 1):
        with closing(FileSink(place)) as sink:
            assert sink.last_position(stream) is None
            sink.write(batch([number], stream))
    assert list(tmp_path.iterdir()) == [place]
    with closing(FileSink(place)) as sink:
        assert [sink.last_position(s) for s in streams] == [position(n, stream) for n, stream in enumerate(streams, 1)]


def test_a_name_too_long(tmp_path: Path) -> None:
    """Pitfall 74: a name that is too long for file systems is refused."""
    with closing(FileSink(tmp_path)) as sink, pytest.raises(ValueError, match="too long"):
        sink.write(batch([1], Stream("c", "x" * 201)))


def test_no_cluster(tmp_path: Path) -> None:
    """A stream without a cluster is refused, because other clusters would share its position."""
    with closing(FileSink(tmp_path)) as sink, pytest.raises(ValueError, match="without a cluster"):
        sink.write(batch([1], Stream("")))


def test_one_writer(tmp_path: Path) -> None:
    """A second writer to the same folder is retried until the first has closed."""
    with closing(FileSink(tmp_path)) as first, closing(FileSink(tmp_path)) as second:
        first.write(batch([1]))
        with pytest.raises(Retry, match="another process writes to"):
            second.write(batch([2]))
        with pytest.raises(Retry, match="another process writes to"):
            second.last_position(STREAM)
        first.close()
        second.write(batch([2]))
    assert ids(bodies(tmp_path)) == ids_of([1, 2])


def test_options_are_documented() -> None:
    """The page lists each option with its default."""
    page = (Path(__file__).parents[3] / "docs" / "export-sinks.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page.partition("\n## Object store")[0], re.MULTILINE)
    options = list(inspect.signature(FileSink).parameters.values())[1:]
    assert [(name, eval(value)) for name, value in listed] == [(option.name, option.default) for option in options]


# -- after a crash --------------------------------------------------------------------------------------------------


def written(path: Path, compress: Any) -> list[int]:
    """Write three batches and return the sizes of the open segment after each."""
    sizes = []
    with closing(FileSink(path, compress=compress)) as sink:
        for number in (1, 3, 5):
            sink.write(batch([number, number + 1]))
            sizes.append(files(path)[-1].stat().st_size)
    return sizes


def test_torn_anywhere(tmp_path: Path, compress: Any) -> None:
    """Wherever a segment is torn, complete batches stay and the position is that of the last one."""
    whole = written(tmp_path / "whole", compress)
    data = files(tmp_path / "whole")[-1].read_bytes()
    for cut in {*random.Random(1).sample(range(len(data)), 60), *whole, 0, 1, whole[0] - 1}:
        path = tmp_path / f"cut-{cut}"
        with closing(FileSink(path, compress=compress)) as sink:
            sink.write(batch([1]))
        files(path)[-1].write_bytes(data[:cut])
        held = sum(size <= cut for size in whole)
        with closing(FileSink(path, compress=compress)) as sink:
            assert sink.last_position(STREAM) == (position(2 * held) if held else None)
            sink.write(batch([2 * held + 1, 7]))
        assert ids(bodies(path)) == ids_of([*range(1, 2 * held + 1), 2 * held + 1, 7]), cut


def test_garbage_at_the_end(tmp_path: Path, compress: Any, part: Path) -> None:
    """Zeros and noise after the last complete batch are cut off."""
    for tail in (bytes(4096), b"\x1f\x8b\x08", b'{"a":', b"\xff" * 100 + b"\n"):
        with closing(FileSink(tmp_path, compress=compress)) as sink:
            sink.write(batch([1]))
        with part.open("ab") as file:
            file.write(tail)
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        assert sink.last_position(STREAM) == position(1)
    assert ids(bodies(tmp_path)) == ids_of([1])


def test_damage_in_the_middle(tmp_path: Path, compress: Any, part: Path) -> None:
    """Complete batches after a damaged one are kept: the segment is closed unchanged with its last position."""
    first, second, _ = written(tmp_path, compress)
    data = bytearray(part.read_bytes())
    data[(first + second) // 2] ^= 0xFF
    part.write_bytes(data)
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        assert sink.last_position(STREAM) == position(6)
        sink.write(batch([7]))
    closed, opened = files(tmp_path)
    assert closed.read_bytes() == bytes(data)
    assert closed.name.startswith(f"{1:020d}-{6:020d}.jsonl")
    assert opened == part


def test_damage_before_a_position(tmp_path: Path, compress: Any, part: Path) -> None:
    """If only a position follows a damaged batch, the segment is kept and the position is used."""
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        sink.write(batch([1, 2]))
        size = part.stat().st_size
        sink.write(batch([], upto=9))
    data = bytearray(part.read_bytes())
    data[size // 2] ^= 0xFF
    part.write_bytes(data)
    for _ in range(2):
        with closing(FileSink(tmp_path, compress=compress)) as sink:
            assert sink.last_position(STREAM) == position(9)
    assert [file.read_bytes() for file in files(tmp_path)] == [bytes(data)]


def test_torn_block_of_whole_lines(tmp_path: Path) -> None:
    """A plain block without its position is torn, even if its lines are complete, and is written again."""
    with closing(FileSink(tmp_path, compress="none")) as sink:
        sink.write(batch([1]))
    with files(tmp_path)[-1].open("ab") as file:
        file.write(record(2).line() + b"\n" + record(3).line() + b"\n")
    with closing(FileSink(tmp_path, compress="none")) as sink:
        assert sink.last_position(STREAM) == position(1)
        sink.write(batch([2, 3]))
    assert ids(bodies(tmp_path)) == ids_of([1, 2, 3])


def test_crash_between_closing_and_opening(tmp_path: Path, compress: Any, part: Path) -> None:
    """Without an open segment, the newest closed one has the position and its time."""
    with closing(FileSink(tmp_path, compress=compress, max_bytes=1)) as sink:
        sink.write(batch([1], seconds=1))
        sink.write(batch([2], upto=4, seconds=2))
        sink.write(batch([5], seconds=3))
    part.unlink()
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        assert sink.last_position(STREAM) == position(4, seconds=2)


def test_a_damaged_closed_segment(tmp_path: Path, part: Path, compress: Any) -> None:
    """If the newest closed segment is unreadable, the position comes from its name and the time from the file."""
    with closing(FileSink(tmp_path, compress=compress, max_bytes=1)) as sink:
        sink.write(batch([1]))
        sink.write(batch([2]))
    part.unlink()
    [closed] = files(tmp_path)
    closed.write_bytes(b"noise")
    os.utime(closed, ns=(AT, AT))
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        assert sink.last_position(STREAM) == position(1)


def test_another_format(tmp_path: Path) -> None:
    """After a change of the format, the position stays and the old open segment is closed."""
    with closing(FileSink(tmp_path)) as sink:
        sink.write(batch([1], upto=2))
    with closing(FileSink(tmp_path, compress="none")) as sink:
        assert sink.last_position(STREAM) == position(2)
        sink.write(batch([3]))
    with closing(FileSink(tmp_path)) as sink:
        assert sink.last_position(STREAM) == position(3)
    names = [f"{1:020d}-{2:020d}.jsonl.gz", f"{3:020d}-{3:020d}.jsonl"]
    assert [file.name for file in files(tmp_path)] == names


def test_another_format_with_a_position_only(tmp_path: Path) -> None:
    """A change of the format keeps a position without records."""
    with closing(FileSink(tmp_path)) as sink:
        sink.write(batch([], upto=2))
    for _ in range(2):
        with closing(FileSink(tmp_path, compress="none")) as sink:
            assert sink.last_position(STREAM) == position(2)
    assert [file.name for file in files(tmp_path)] == ["current.jsonl"]


# -- segments -------------------------------------------------------------------------------------------------------


def test_closed_by_size(tmp_path: Path, compress: Any) -> None:
    """A segment is closed before it exceeds its size. Its name has its first and last numbers."""
    with closing(FileSink(tmp_path, compress=compress, max_bytes=4000)) as sink:
        for rv in range(1, 40):
            sink.write(batch([rv]))
    *closed, _ = files(tmp_path)
    assert all(file.stat().st_size <= 4000 for file in closed)
    assert len(closed) > 2
    numbers = [tuple(int(part) for part in file.name.split(".")[0].split("-")) for file in closed]
    assert [first for first, _ in numbers] == [1, *(last + 1 for _, last in numbers[:-1])]
    assert ids(bodies(tmp_path)) == ids_of(range(1, 40))


def test_closed_by_age(tmp_path: Path) -> None:
    """A segment is closed by the first batch `max_age` seconds after its first record, even an empty one."""
    with closing(FileSink(tmp_path, max_age=60)) as sink:
        sink.write(batch([], upto=1))
        sink.write(batch([2], seconds=100))
        sink.write(batch([3], seconds=159))
        assert len(files(tmp_path)) == 1
    with closing(FileSink(tmp_path, max_age=60)) as sink:
        sink.write(batch([], upto=4, seconds=160))
    names = [f"{2:020d}-{3:020d}.jsonl.gz", "current.jsonl.gz"]
    assert [file.name for file in files(tmp_path)] == names


def test_days(tmp_path: Path, compress: Any) -> None:
    """Each day has a folder. The segment is closed at midnight UTC, also after a restart. The clock may go back."""
    day, last, names = 86_400, None, []
    for rv, seconds in enumerate((0, day, day + 60, 3 * day, 2 * day), 1):
        with closing(FileSink(tmp_path, compress=compress, max_age=day * 7)) as sink:
            assert sink.last_position(STREAM) == last
            sink.write(batch([rv], seconds=seconds))
            last = position(rv, seconds=seconds)
    suffix = ".jsonl.gz" if compress == "gzip" else ".jsonl"
    for day_of_month, begin, end in (("24", 1, 1), ("25", 2, 3), ("27", 4, 4)):
        names.append(f"dt=2026-07-{day_of_month}/{begin:020d}-{end:020d}{suffix}")
    assert {str(file.relative_to(tmp_path / FOLDER)) for file in files(tmp_path)} == {
        *names,
        f"dt=2026-07-26/current{suffix}",
    }


def test_a_position_moves_to_the_next_day(tmp_path: Path, compress: Any) -> None:
    """Without records, there is one open segment, which moves to the folder of the current day."""
    day = 86_400
    for number in range(1, 6):
        with closing(FileSink(tmp_path, compress=compress)) as sink:
            sink.write(batch([], upto=number, seconds=number * day))
            [segment] = files(tmp_path)
            assert segment.parent.name == f"dt=2026-07-{24 + number}"
        with closing(FileSink(tmp_path, compress=compress)) as sink:
            assert sink.last_position(STREAM) == position(number, seconds=number * day)


def test_open_segments_of_two_days(tmp_path: Path, compress: Any, part: Path) -> None:
    """The newest open segment is continued. An older one, from a copied archive, is closed."""
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        sink.write(batch([1, 2]))
    older = part.read_bytes()
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        sink.write(batch([3], seconds=86_400))
    for file in part.parent.iterdir():
        file.unlink()
    part.write_bytes(older)
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        assert sink.last_position(STREAM) == position(3, seconds=86_400)
        sink.write(batch([4], seconds=86_401))
    assert [file.name.partition(".")[0] for file in files(tmp_path)] == [f"{1:020d}-{2:020d}", "current"]
    assert ids(bodies(tmp_path)) == ids_of([1, 2, 3, 4])


def test_positions_do_not_pile_up(tmp_path: Path, compress: Any) -> None:
    """Without records, the segment does not grow."""
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        sizes = set()
        for minute in range(100, 200):
            sink.write(batch([], upto=minute, seconds=60 * minute))
            [segment] = files(tmp_path)
            sizes.add(segment.stat().st_size)
        assert len(sizes) <= 2
        assert sink.last_position(STREAM) == position(199, seconds=60 * 199)


def test_retention_by_count(tmp_path: Path) -> None:
    """The newest `keep` closed segments are kept. The open one is not counted."""
    with closing(FileSink(tmp_path, max_bytes=1, keep=2)) as sink:
        for rv in range(1, 8):
            sink.write(batch([rv]))
    assert ids(bodies(tmp_path)) == ids_of([5, 6, 7])


def test_folders_of_days_go_when_they_are_empty(tmp_path: Path) -> None:
    """The folder of a day is removed together with its last segment."""
    with closing(FileSink(tmp_path, keep=1)) as sink:
        for day in range(4):
            sink.write(batch([day + 1], seconds=86_400 * day))
    assert sorted(day.name for day in (tmp_path / FOLDER).glob("dt=*")) == ["dt=2026-07-26", "dt=2026-07-27"]


def test_retention_by_age(tmp_path: Path) -> None:
    """Old closed segments are deleted even without new records. The position stays."""
    with closing(FileSink(tmp_path, max_bytes=1, keep_for=3600)) as sink:
        for rv in (1, 2, 3):
            sink.write(batch([rv]))
        for age, file in zip((3601, 1800), files(tmp_path), strict=False):
            os.utime(file, ns=(AT - age * SECOND,) * 2)
        sink.write(batch([], upto=4, seconds=61))
        assert ids(bodies(tmp_path)) == ids_of([2, 3])
        for file in files(tmp_path):
            os.utime(file, ns=(AT, AT))
        sink.write(batch([], upto=5, seconds=4000))
    assert bodies(tmp_path) == []
    with closing(FileSink(tmp_path)) as sink:
        assert sink.last_position(STREAM) == position(5, seconds=4000)


# -- failing disks
# ------------------------------------------------------------------------------------------------------


def test_full_disk(tmp_path: Path, compress: Any, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up within a batch is reported. No part of the batch remains, and writing continues later."""
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        sink.write(batch([1]))
        before = part.read_bytes()
        real, space = os.write, [40]

        def write(handle: int, data: Any) -> int:
            if not space[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            taken = real(handle, bytes(data)[: space[0]])
            space[0] -= taken
            return taken

        with monkeypatch.context() as patched:
            patched.setattr("kevents.export._sinks.segments.os.write", write)
            for _ in range(3):
                with pytest.raises(Retry, match="No space left on device: free some space"):
                    sink.write(batch([2, 3]))
                assert part.read_bytes() == before
        assert (part.read_bytes(), sink.last_position(STREAM)) == (before, position(1))
        sink.write(batch([2, 3]))
    assert ids(bodies(tmp_path)) == ids_of([1, 2, 3])


QUOTA = """
import resource, signal, sys
from kevents.export import FileSink, Retry
from tests.export.batches import batch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
sink, rv = FileSink(sys.argv[1], compress=sys.argv[2]), 1
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
try:
    while True:
        sink.write(batch([rv, rv + 1]))
        rv += 2
except Retry as error:
    print(error)
for _ in range(2):
    try:
        sink.write(batch([rv, rv + 1]))
    except Retry:
        pass
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
sink.write(batch([rv, rv + 1]))
print(rv + 1)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs RLIMIT_FSIZE")
def test_real_quota(tmp_path: Path, compress: str) -> None:
    """With a real file size limit, the reason is reported, no batch is torn, and writing continues with space."""
    command = [sys.executable, "-c", QUOTA, str(tmp_path), compress]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    reason, last = done.stdout.splitlines()
    assert "File too large: free some space, and the export continues by itself" in reason
    assert ids(bodies(tmp_path)) == ids_of(range(1, int(last) + 1))


def test_no_folder_can_be_made(tmp_path: Path) -> None:
    """A path that cannot be a folder is reported and retried."""
    (tmp_path / "events").write_text("a file")
    with closing(FileSink(tmp_path / "events")) as sink:
        with pytest.raises(Retry, match=r"cannot open .*events.*: Not a directory"):
            sink.write(batch([1]))
        (tmp_path / "events").unlink()
        sink.write(batch([1]))
    assert ids(bodies(tmp_path)) == ids_of([1])


def test_removed_under_way(tmp_path: Path) -> None:
    """If the open segment is removed, later batches go to a new one."""
    with closing(FileSink(tmp_path)) as sink:
        sink.write(batch([1]))
        files(tmp_path)[-1].unlink()
        sink.write(Batch([record(2)], position(2)))
    assert ids(bodies(tmp_path)) == ids_of([2])


def test_a_file_that_cannot_take_its_place(tmp_path: Path) -> None:
    """A replacement that fails leaves no temporary file."""
    (tmp_path / "position.json").mkdir()
    with pytest.raises(OSError, match=r"position\.json"):
        replace(tmp_path / "position.json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["position.json"]


def test_a_folder_that_cannot_be_opened(tmp_path: Path, part: Path, compress: Any) -> None:
    """After a failure to open the folder, the next attempt succeeds."""
    part.mkdir(parents=True)
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        with pytest.raises(Retry):
            sink.write(batch([1, 2]))
        part.rmdir()
        sink.write(batch([1, 2]))
    assert ids(bodies(tmp_path)) == ids_of([1, 2])


def test_a_lock_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If locks are unsupported, the error is not about another writer, and no file stays open."""
    closed: list[int] = []

    def refuse(handle: int, _: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr(os, "close", lambda handle, close=os.close: closed.append(handle) or close(handle))
    with pytest.raises(OSError, match="No locks available"):
        lock_folder(tmp_path)
    assert len(closed) == 1


def test_a_new_name_is_not_durable(tmp_path: Path, compress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the folder cannot be synced after closing or creating a segment, the next attempt continues."""
    keeps = iter([False, True, False, True])

    def sync(folder: Path) -> None:
        assert folder == tmp_path / FOLDER / DAY
        if not next(keeps):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with closing(FileSink(tmp_path, compress=compress, max_age=10)) as sink:
        sink.write(batch([1]))
        monkeypatch.setattr("kevents.export._sinks.file.sync_folder", sync)
        for _ in range(2):
            with pytest.raises(Retry, match="Input/output error"):
                sink.write(batch([2], seconds=100))
            assert sink.last_position(STREAM) == position(1)
        sink.write(batch([2], seconds=100))
        assert (list(keeps), sink.last_position(STREAM)) == ([], position(2, seconds=100))
    assert len(files(tmp_path)) == 2
    assert ids(bodies(tmp_path)) == ids_of([1, 2])


def test_removed_before_it_is_closed(tmp_path: Path, compress: Any, part: Path) -> None:
    """If a segment is removed before it is closed, writing continues in a new one."""
    with closing(FileSink(tmp_path, compress=compress, max_age=10)) as sink:
        sink.write(batch([1]))
        part.unlink()
        sink.write(batch([2], seconds=100))
    assert files(tmp_path) == [part]
    assert ids(bodies(tmp_path)) == ids_of([2])


@pytest.mark.parametrize("step", [8, pytest.param(2, marks=pytest.mark.slow)])
def test_changed_position(tmp_path: Path, compress: Any, part: Path, step: int) -> None:
    """Fault 30: a changed bit in a segment never moves the position forward, so that no record is skipped."""
    with closing(FileSink(tmp_path, compress=compress)) as sink:
        sink.write(batch([1]))
        sink.write(batch([2]))
    data = part.read_bytes()
    position = data.rindex(b'"rv":2')  # every byte of it is changed
    for offset in {*range(0, len(data), step), *range(position, position + 8)}:
        for bit in (1, 4):
            part.write_bytes(data[:offset] + bytes([data[offset] ^ bit]) + data[offset + 1 :])
            with closing(FileSink(tmp_path, compress=compress)) as sink:
                found = sink.last_position(STREAM)
            assert found is None or found.rv <= 2, offset
            for file in part.parent.glob("0*"):
                file.unlink()


@pytest.mark.parametrize("name", [f"{DAY}/current.jsonl.gz", f"{DAY}/current.jsonl.gz.tmp", ".lock"])
def test_planted_link(tmp_path: Path, name: str) -> None:
    """Fault 37: a symbolic link in the place of a file of the sink is refused, and its target stays unchanged."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "events" / FOLDER
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(victim)
    with closing(FileSink(tmp_path / "events")) as sink:
        for rvs in ([], [1]):
            with suppress(Retry):
                sink.write(batch(rvs, upto=1))
    assert victim.read_bytes() == b"precious"


def test_planted_folder(tmp_path: Path, part: Path, compress: Any) -> None:
    """Fault 37: a symbolic link in the place of a day's folder is refused."""
    (tmp_path / "victim").mkdir()
    part.parent.parent.mkdir(parents=True)
    part.parent.symlink_to(tmp_path / "victim")
    with (
        closing(FileSink(tmp_path, compress=compress)) as sink,
        pytest.raises(Retry, match="a symbolic link is not followed; remove it"),
    ):
        sink.write(batch([1]))
    assert list((tmp_path / "victim").iterdir()) == []


def test_link_is_named(tmp_path: Path, part: Path, compress: Any) -> None:
    """The error names the link and the fix. A link to the folder itself is followed."""
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    with closing(FileSink(tmp_path / "link", compress=compress)) as sink:
        sink.write(batch([1]))
    part = real / part.relative_to(tmp_path)
    part.rename(tmp_path / "elsewhere")
    part.symlink_to(tmp_path / "elsewhere")
    with (
        closing(FileSink(tmp_path / "link", compress=compress)) as sink,
        pytest.raises(Retry, match="a symbolic link is not followed; remove it"),
    ):
        sink.write(batch([2]))
