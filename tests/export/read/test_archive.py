"""Reading an archive by period: all records of the period are found, and few other parts are read."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kevents.export import Batch, FileSink, ObjectStoreSink, Position, Record, Sink, read_records
from kevents.export._model.types import gap_record
from kevents.export._read.archive import Period
from kevents.export._sinks.segments import MAGIC
from tests.export.batches import AT, SECOND, STREAM, body, ids, ids_of
from tests.export.moto import Moto

MINUTE, HOUR, DAY = 60, 3600, 86_400
BUCKETS = (f"period-{number}" for number in itertools.count())


def at(seconds: float) -> datetime:
    """Return a time relative to 09:00."""
    return datetime.fromtimestamp(AT // SECOND, timezone.utc) + timedelta(seconds=seconds)


def write(sink: Sink, rv: int, happened: float, position: float) -> None:
    """Write a batch of one record.

    `happened` and `position` are the seconds of the record and of the batch's position.
    """
    moment = at(happened).strftime("%Y-%m-%dT%H:%M:%SZ")
    record = Record(STREAM, rv, body(rv, lastTimestamp=moment), 0.0)
    sink.write(Batch([record], Position(STREAM, rv, AT + round(position * SECOND))))


@pytest.fixture(params=["file", "segments", "plain", "store"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A sink of each kind, with one or many segments."""
    options: dict[str, Any] = {
        "file": {},
        "segments": {"max_bytes": 1},
        "plain": {"compress": "none"},
    }
    made = (
        ObjectStoreSink(f"file://{tmp_path}/events")
        if request.param == "store"
        else FileSink(tmp_path / "events", **options[request.param])
    )
    with closing(made):
        yield made


@pytest.fixture
def place(sink: Any, tmp_path: Path) -> str:
    """The path or URL of the archive."""
    return f"file://{tmp_path}/events" if isinstance(sink, ObjectStoreSink) else str(tmp_path / "events")


def between(place: str, since: float | None, until: float | None = None) -> list[int]:
    """Return the resourceVersions of a period's records."""
    found = read_records(place, since=None if since is None else at(since), until=None if until is None else at(until))
    return [int(record["metadata"]["resourceVersion"]) for record in found]


def test_period(sink: Any, place: str) -> None:
    """A period contains the records that happened in it, including both ends, across several days."""
    for rv in range(1, 11):
        write(sink, rv, rv * 8 * HOUR, rv * 8 * HOUR + 5)
    assert between(place, 24 * HOUR, 56 * HOUR) == [3, 4, 5, 6, 7]
    assert between(place, 24 * HOUR + 1) == [4, 5, 6, 7, 8, 9, 10]
    assert between(place, None, 16 * HOUR) == [1, 2]
    assert between(place, 1000 * HOUR) == []
    assert between(place, -1000 * HOUR, -900 * HOUR) == []


@pytest.mark.parametrize("outage", [40 * MINUTE, 3 * DAY])
def test_after_an_outage(sink: Any, place: str, outage: float) -> None:
    """Records that were read late, after an outage, are found. Their positions keep the time when it began."""
    for rv in range(1, 6):
        write(sink, rv, 60 * rv, 60 * rv + 5)
    for rv in range(6, 26):  # from the last minutes of the outage
        write(sink, rv, outage + 60 * rv, 305)
    for rv in range(26, 46):
        write(sink, rv, outage + 60 * rv, outage + 60 * rv + 5)
    assert between(place, outage + 60 * 20) == list(range(20, 46))
    assert between(place, outage + 60 * 10, outage + 60 * 12) == [10, 11, 12]
    assert between(place, None, outage + 60 * 8) == list(range(1, 9))


def test_clocks(sink: Any, place: str) -> None:
    """Records of a reporter whose clock is off by 40 s are found by their own time."""
    times = {rv: rv * 10 + (40, -40, 0)[rv % 3] for rv in range(1, 100)}
    for rv, time in times.items():
        write(sink, rv, time, rv * 10 + 5)
    for since in (0, 300, 305, 777):
        expected = [rv for rv, time in times.items() if since <= time <= since + 100]
        assert between(place, since, since + 100) == expected


def test_late(sink: Any, place: str) -> None:
    """A record that was read hours after it happened is found."""
    for rv in range(1, 50):
        write(sink, rv, rv * 600, rv * 600 + 5)
    write(sink, 50, 600, 50 * 600)
    assert between(place, 0, 1200) == [1, 2, 50]


def test_gap(sink: Any, place: str) -> None:
    """A gap record belongs to each period that it overlaps."""
    write(sink, 1, 0, 5)
    before = Position(STREAM, 1, AT)
    sink.write(
        Batch([gap_record(before, 2, "expired", AT + HOUR * SECOND, 0.0)], Position(STREAM, 2, AT + HOUR * SECOND))
    )
    write(sink, 3, 2 * HOUR, 2 * HOUR)
    for since, until, gaps in ((600, 700, 1), (HOUR + 1, 2 * HOUR, 0), (-200, -100, 0)):
        found = list(read_records(place, since=at(since), until=at(until), namespace="none"))
        assert len(found) == gaps


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_nothing_is_missing(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A read by period finds the same records as a full read, for any outages, late reads and clock differences."""
    folder = tmp_path_factory.mktemp("events")
    now, held = 0.0, 0.0
    with closing(FileSink(folder, max_bytes=data.draw(st.sampled_from([1, 2000, 1 << 20])))) as sink:
        for rv in range(1, data.draw(st.integers(2, 30))):
            now += data.draw(st.sampled_from([1, 60, 3 * HOUR, 2 * DAY]))
            held = held if data.draw(st.booleans()) else now
            happened = now + data.draw(st.sampled_from([0, 40, -40, -40 * MINUTE, -20 * HOUR]))
            write(sink, rv, happened, held)
    since = data.draw(st.floats(-DAY, now + DAY))
    until = since + data.draw(st.sampled_from([0.0, 60.0, HOUR, DAY]))
    begin, end = (AT // SECOND + time for time in (since, until))
    times = [
        (datetime.fromisoformat(record["lastTimestamp"].replace("Z", "+00:00")).timestamp(), record)
        for record in read_records(folder)
    ]
    expected = [int(record["metadata"]["resourceVersion"]) for time, record in times if begin <= time <= end]
    assert between(str(folder), since, until) == expected


def test_skipped(sink: Any, place: str, tmp_path: Path) -> None:
    """A batch outside of the period is not decoded: damage in it is not reported."""
    for rv in range(1, 10):
        write(sink, rv, rv * HOUR, rv * HOUR + 5)
    for path in (tmp_path / "events").rglob("*.jsonl*"):
        data = path.read_bytes().replace(b'"message 2"', b'"message X"')
        header = data.find(b'"rv":2,') if path.suffix == ".gz" else -1
        if header >= 0:
            end = data.find(MAGIC, header) if MAGIC in data[header:] else len(data)
            data = data[: end - 6] + bytes([data[end - 6] ^ 1]) + data[end - 5 :]
        path.write_bytes(data)
    damages: list[Any] = []
    found = list(read_records(place, on_damage=damages.append))
    assert (len(found), len(damages)) == (8, 1)
    assert between(place, 4 * HOUR, 6 * HOUR) == [4, 5, 6]


def test_foreign_segments(tmp_path: Path) -> None:
    """A segment without headers is read and filtered, in any folder."""
    with closing(FileSink(tmp_path, max_bytes=1)) as sink:
        for rv in range(1, 10):
            write(sink, rv, rv * HOUR, rv * HOUR + 5)
    foreign = next(tmp_path.rglob(f"{4:020d}*"))
    lines = b"".join(
        Record(STREAM, 4, body(4, lastTimestamp=f"2026-07-24T1{n}:00:00Z"), 0.0).line() + b"\n" for n in (3, 9)
    )
    foreign.unlink()
    foreign.with_suffix("").write_bytes(lines)
    assert between(str(tmp_path), 3 * HOUR, 5 * HOUR) == [3, 4, 5]


def test_few_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the folders of the period's days are listed in a bucket, and few objects are requested."""
    url = f"file://{tmp_path}/events"
    with closing(ObjectStoreSink(url)) as sink:
        for rv in range(1, 201):
            write(sink, rv, rv * HOUR, rv * HOUR + 5)
    listed, fetched = [], set()
    real_list, real_get = obstore.list, obstore.get_range
    monkeypatch.setattr("obstore.list", lambda *given, **more: listed.append(given[1]) or real_list(*given, **more))
    monkeypatch.setattr("obstore.get_range", lambda *given, **more: fetched.add(given[1]) or real_get(*given, **more))
    assert between(url, 100 * HOUR, 101 * HOUR) == [100, 101]
    assert [place.rpartition("/")[2] for place in listed] == [f"dt=2026-07-{day}" for day in (27, 28, 29)]
    assert len(fetched) < 60


def test_several_objects_at_once(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of a bucket are requested concurrently and read in order."""
    bucket = next(BUCKETS)
    moto.make_bucket(bucket)
    with closing(ObjectStoreSink(f"s3://{bucket}", options=moto.options())) as sink:
        for rv in range(1, 17):
            write(sink, rv, rv, rv)
    together, real = threading.Barrier(8, timeout=60), obstore.get_range

    def get_range(*given: Any, **more: Any) -> Any:
        together.wait()  # breaks if fewer than eight requests are concurrent
        return real(*given, **more)

    monkeypatch.setattr("obstore.get_range", get_range)
    assert ids(read_records(f"s3://{bucket}", options=moto.options())) == ids_of(range(1, 17))


def test_conditions(tmp_path: Path) -> None:
    """The conditions of a route select records, together with a function and a duration before now."""
    lines = [
        body(1, type="Normal"),
        body(2, reason="Pulled"),
        body(3, lastTimestamp="2999-01-01T00:00:00Z"),
        body(4, involvedObject={"kind": "Pod", "name": "db-0", "labels": {"app": "db"}}),
    ]
    (tmp_path / "a.jsonl").write_bytes(b"".join(Record(STREAM, 1, each, 0.0).line() + b"\n" for each in lines))

    def found(**values: Any) -> list[str]:
        return ids(read_records(tmp_path, **values))

    assert found(type="Warning") == ids_of([2, 3, 4])
    assert found(type="Warning", reason={"glob": "Back*"}, labels={"app": "db"}) == ids_of([4])
    assert found(name="web-0", where=lambda record: record["reason"] == "Pulled") == ids_of([2])
    assert found(since=timedelta(hours=1)) == ids_of([3])
    assert found(since=timedelta(days=30_000), until=timedelta(seconds=1), reason="BackOff") == ids_of([1, 4])


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"reasn": "BackOff"}, TypeError, 'read_records: unknown condition "reasn"; did you mean "reason"'),
        ({"kind": "pod"}, ValueError, 'kind: "pod" never matches; did you mean "Pod"|"pod" never matches'),
        ({"since": datetime(2026, 7, 24)}, ValueError, "datetime without a zone"),  # noqa: DTZ001 - the error
        ({"since": at(60), "until": at(0)}, ValueError, "nothing is between"),
    ],
)
def test_wrong_arguments(tmp_path: Path, values: dict[str, Any], error: type[Exception], text: str) -> None:
    """An unknown or impossible condition, and a wrong period, are errors with the fix."""
    with pytest.raises(error, match=text):
        list(read_records(tmp_path, **values))


def test_days() -> None:
    """A period needs its own days, the next day, the last day before it, and folders without a date."""
    folders = ["a/dt=2026-07-01", "a/dt=2026-07-20", "a/dt=2026-07-24", "a/dt=2026-07-25", "a/dt=2026-07-26", "a/b"]
    period = Period(AT, AT + SECOND)
    assert period.days(folders) == ["a/b", "a/dt=2026-07-20", "a/dt=2026-07-24", "a/dt=2026-07-25"]
    assert Period(until=AT).days(folders) == ["a/b", *folders[:4]]
    assert Period(since=AT).days(folders) == ["a/b", *folders[1:5]]
