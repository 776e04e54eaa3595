"""The object store sink: keys, positions, repeated requests and failing stores."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import AzureStore, GCSStore, LocalStore, MemoryStore, S3Store

from kevents.export import Batch, ObjectStoreSink, Retry, Stream
from kevents.export._model.position import AGE, folder_of
from kevents.export._sinks.segments import is_position_line
from tests.export.batches import CLUSTER, STREAM, batch, ids, ids_of, position, record
from tests.export.moto import SECRET, Moto
from tests.export.receiver import Answer, Scripted
from tests.export.sink_contract import Place, PositionContract

ROOT = Path(__file__).parents[3]
DAY = 86_400.0
BUCKETS = (f"bucket-{number}" for number in itertools.count())
PLACE = folder_of(STREAM)


def keys(store: Any) -> list[str]:
    """Return the keys of the objects with records, sorted."""
    return sorted(found["path"] for found in obstore.list(store).collect() if "position.json" not in found["path"])


def bodies(store: Any) -> list[dict[str, Any]]:
    """Return the records of all objects in key order."""
    read = [(bytes(obstore.get(store, key).bytes()), key) for key in keys(store)]
    plain = [gzip.decompress(data) if key.endswith(".gz") else data for data, key in read]
    return [json.loads(line) for text in plain for line in text.split(b"\n")[:-1] if not is_position_line(line)]


class TestMemory(PositionContract):
    """The contract with a store in memory."""

    @pytest.fixture
    def place(self) -> Place:
        """A store in memory."""
        store = MemoryStore()
        return Place(lambda: ObjectStoreSink(store), lambda: bodies(store))


class TestPlain(PositionContract):
    """The contract without compression."""

    @pytest.fixture
    def place(self) -> Place:
        """A store in memory."""
        store = MemoryStore()
        return Place(lambda: ObjectStoreSink(store, compress="none"), lambda: bodies(store))


class TestFolder(PositionContract):
    """The contract with a folder."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        """A folder."""
        url = f"file://{tmp_path}/events"
        return Place(
            lambda: ObjectStoreSink(url),
            lambda: bodies(LocalStore(tmp_path / "events", mkdir=True)),
        )


class TestS3(PositionContract):
    """The contract over HTTP."""

    @pytest.fixture
    def place(self, moto: Moto) -> Place:
        """A bucket with a prefix."""
        bucket = next(BUCKETS)
        moto.make_bucket(bucket)
        store = S3Store(bucket, prefix="a/b c", client_options={"allow_http": True}, **moto.options())
        url = f"s3://{bucket}/a/b%20c"
        return Place(lambda: ObjectStoreSink(url, options=moto.options()), lambda: bodies(store))


@pytest.fixture
def store() -> MemoryStore:
    """A store in memory."""
    return MemoryStore()


# -- keys -----------------------------------------------------------------------------------------------------------


def test_key(store: MemoryStore) -> None:
    """A key consists of cluster, scope, day, the first record's number and the position's number."""
    sink = ObjectStoreSink(store)
    sink.write(batch([3, 4], upto=9))
    sink.write(batch([12], Stream(CLUSTER, "prod"), seconds=DAY))
    expected = [
        f"{CLUSTER}/_all/dt=2026-07-24/00000000000000000003-00000000000000000009.jsonl.gz",
        f"{CLUSTER}/prod/dt=2026-07-25/00000000000000000012-00000000000000000012.jsonl.gz",
    ]
    assert keys(store) == expected


def test_after_a_reset(store: MemoryStore) -> None:
    """After a storage reset, the same resourceVersions have different keys, which sort later."""
    sink = ObjectStoreSink(store)
    sink.write(batch([3]))
    sink.write(batch([9]))
    sink.write(batch([AGE + 3]))
    assert [name.rpartition("/")[2] for name in keys(store)] == [
        "00000000000000000003-00000000000000000003.jsonl.gz",
        "00000000000000000009-00000000000000000009.jsonl.gz",
        "100000000000000000003-100000000000000000003.jsonl.gz",
    ]


@pytest.mark.parametrize("name", ["../../up", "/etc", "a b", "..", "A", "a_b", "ü", "_all", "x/y", "a%2fb"])
def test_pitfall_74(tmp_path: Path, name: str) -> None:
    """Pitfall 74: for any name of a cluster or namespace, the objects are below the prefix and separate."""
    streams = [STREAM, Stream(CLUSTER, name), Stream(name), Stream(name, name)]
    for make in (lambda: ObjectStoreSink(f"file://{tmp_path}/events"),) * 2:
        with closing(make()) as sink:
            for number, stream in enumerate(streams, 1):
                sink.write(batch([number], stream))
                assert sink.last_position(stream) == position(number, stream)
    assert [path.name for path in tmp_path.iterdir()] == ["events"]
    assert sorted(ids(bodies(LocalStore(tmp_path / "events")))) == sorted(ids_of(range(1, 5)))


@pytest.mark.parametrize(
    "url",
    [
        "s3://b/../x",
        "s3://b/a//b",
        "s3://b/a/./b",
        "s3://b/%2e%2e/x",
        "s3://b/a%2f..%2fb",
        "file:///tmp/../etc",
        "s3:///p",
    ],
)
def test_prefix(url: str) -> None:
    """Pitfall 74: a prefix that leads outside or has no bucket is refused."""
    with pytest.raises(ValueError, match=r"consists of names|names no bucket"):
        ObjectStoreSink(url)


@pytest.mark.parametrize("url", ["ftp://x/y", "events/", "memory:///x", "http://x/y", "", "S3"])
def test_no_store(url: str) -> None:
    """An unsupported URL is refused with the supported schemes."""
    with pytest.raises(ValueError, match=r"not an object store: .* s3://, gs://, az://, file:/// or memory:///"):
        ObjectStoreSink(url)


def test_pitfall_72_credentials_in_the_url() -> None:
    """Pitfall 72: credentials in the URL are refused and not repeated in the error."""
    for url in ("s3://AKIA:hushhush@b/p", "az://c/p?sig=hushhush"):
        with pytest.raises(ValueError, match="do not belong in the URL") as caught:
            ObjectStoreSink(url)
        assert "hushhush" not in str(caught.value)


def test_unknown_option() -> None:
    """An unknown option is refused with its name, without the values of the others."""
    with pytest.raises(ValueError, match="'regoin' is not valid for store 'S3'") as caught:
        ObjectStoreSink("s3://b/p", options={"regoin": "x", "secret_access_key": SECRET})
    assert SECRET not in str(caught.value)


KEY = json.dumps({"private_key": "k", "private_key_id": "i", "client_email": "e", "gcs_base_url": "http://127.0.0.1"})


@pytest.mark.parametrize(
    ("url", "options", "kind", "config"),
    [
        ("s3://b/p/q", {"region": "eu-central-1"}, S3Store, {"region": "eu-central-1", "bucket": "b"}),
        ("s3://b", {"endpoint": "http://minio:9000"}, S3Store, {"endpoint": "http://minio:9000"}),
        ("gs://b/p/q", {"skip_signature": True}, GCSStore, {"bucket": "b"}),
        ("az://c/p/q", {"account_name": "a", "account_key": "c2VjcmV0"}, AzureStore, {"container_name": "c"}),
        ("abfss://c@a.dfs.core.windows.net/p/q", {"sas_key": "?sv=1&sig=x"}, AzureStore, {"account_name": "a"}),
    ],
)
def test_clouds(url: str, options: dict[str, Any], kind: type[Any], config: dict[str, str]) -> None:
    """A URL and its options select the store, without a request, with the time-out and without retries."""
    sink = ObjectStoreSink(url, options=options, timeout=7)
    store: Any = sink._store.opened()
    assert isinstance(store, kind)
    assert store.prefix == ("p/q" if url.endswith("q") else None)
    assert {key: store.config[key] for key in config} == config
    assert store.retry_config["max_retries"] == 0
    assert str(store.client_options["timeout"]).replace(" ", "") == "7s"


# -- the position ---------------------------------------------------------------------------------------------------


def test_newest_of_many_days(store: MemoryStore) -> None:
    """The newest of many days is found."""
    with closing(ObjectStoreSink(store)) as sink:
        for day in range(40):
            sink.write(batch([day + 1], seconds=day * DAY))
    assert ObjectStoreSink(store).last_position(STREAM) == position(40, seconds=39 * DAY)


def test_a_clock_that_goes_back(store: MemoryStore) -> None:
    """An object from a clock that was wrong does not hide newer ones: the latest three days are compared."""
    with closing(ObjectStoreSink(store)) as sink:
        sink.write(batch([1]))
        sink.write(batch([2], seconds=3000 * DAY))
        sink.write(batch([3], seconds=DAY))
    assert ObjectStoreSink(store).last_position(STREAM) == position(3, seconds=DAY)


def test_foreign_object(store: MemoryStore) -> None:
    """A recompressed object has its position in its key and its time in its age. Other objects are ignored."""
    with closing(ObjectStoreSink(store)) as sink:
        sink.write(batch([1, 2]))
    [key] = keys(store)
    obstore.put(store, key, gzip.compress(b"{}\n"))
    obstore.put(store, f"{PLACE}/dt=2026-07-24/notes.txt", b"x")
    obstore.put(store, f"{PLACE}/other/{99:020d}-{99:020d}.jsonl.gz", b"x")
    found = ObjectStoreSink(store).last_position(STREAM)
    assert found is not None
    assert (found.rv, found.time > position(2).time) == (2, True)


def test_a_damaged_position_object(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    """An unreadable position object is reported, and the newest key is used."""
    with closing(ObjectStoreSink(store)) as sink:
        sink.write(batch([1, 2]))
        sink.write(batch([], upto=7))
    obstore.put(store, f"{PLACE}/position.json", b"{")
    with caplog.at_level(logging.WARNING):
        assert ObjectStoreSink(store).last_position(STREAM) == position(2)
    assert "position.json in MemoryStore cannot be read" in caplog.text


# -- repeated requests
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def lose_answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that sets how many requests succeed but lose their answers."""
    real, left = obstore.put, [0]

    def put(*args: Any, **keywords: Any) -> Any:
        answer = real(*args, **keywords)
        if left[0]:
            left[0] -= 1
            raise obstore.exceptions.GenericError("operation timed out")
        return answer

    monkeypatch.setattr(obstore, "put", put)
    return lambda times: left.__setitem__(0, times)


def test_an_answer_is_lost(store: MemoryStore, lose_answers: Callable[[int], None]) -> None:
    """A batch that was stored although the answer was lost is acknowledged when it is retried."""
    sink = ObjectStoreSink(store)
    lose_answers(1)
    with pytest.raises(Retry, match=r"cannot write .* to MemoryStore: operation timed out"):
        sink.write(batch([1, 2]))
    sink.write(batch([1, 2]))
    sink.write(batch([3]))
    assert ids(bodies(store)) == ids_of([1, 2, 3])


def test_an_answer_is_lost_and_the_record_differs(store: MemoryStore, lose_answers: Callable[[int], None]) -> None:
    """The same revisions with different metadata count as the same batch."""
    sink = ObjectStoreSink(store)
    lose_answers(1)
    with pytest.raises(Retry):
        sink.write(batch([1, 2]))
    sink.write(Batch([record(1, "other"), record(2)], position(2)))
    assert [found["message"] for found in bodies(store)] == ["message 1", "message 2"]


def test_another_exporter(store: MemoryStore) -> None:
    """An object of the same name with other records is reported, not overwritten and not acknowledged."""
    one, other = ObjectStoreSink(store), ObjectStoreSink(store)
    assert other.last_position(STREAM) is None
    one.write(batch([1, 3]))
    with pytest.raises(Retry, match="another exporter writes to the same place; give each exporter its own prefix"):
        other.write(batch([1, 2, 3]))
    assert ids(bodies(store)) == ids_of([1, 3])
    [key] = keys(store)
    obstore.put(store, key, b"noise")
    with pytest.raises(Retry, match="another exporter"):
        other.write(batch([1, 3]))


# -- failing stores
# -----------------------------------------------------------------------------------------------------


def test_no_bucket(moto: Moto) -> None:
    """A missing bucket is reported for reads and writes. Once it exists, the export continues."""
    bucket = next(BUCKETS)
    sink = ObjectStoreSink(f"s3://{bucket}/p", options=moto.options())
    for _ in range(2):
        with pytest.raises(Retry, match="NoSuchBucket: The specified bucket does not exist; create it") as caught:
            sink.last_position(STREAM)
        with pytest.raises(Retry, match=f"s3://{bucket}/p: NoSuchBucket"):
            sink.write(batch([1]))
        assert SECRET not in f"{caught.value!r} {sink!r} {sink._store!r} {vars(sink)}"
    moto.make_bucket(bucket)
    sink.write(batch([1]))
    assert sink.last_position(STREAM) == position(1)


def test_a_bucket_goes(moto: Moto) -> None:
    """A bucket that is removed during the export is reported. Once it is back, the batch is written."""
    bucket = next(BUCKETS)
    moto.make_bucket(bucket)
    sink = ObjectStoreSink(f"s3://{bucket}/", options=moto.options())
    assert sink.last_position(STREAM) is None
    assert moto.request("DELETE", f"/{bucket}")[0] == 204
    for empty in ([], [1]):
        with pytest.raises(Retry, match="NoSuchBucket"):
            sink.write(batch(empty, upto=1))
    moto.make_bucket(bucket)
    sink.write(batch([1]))
    assert ObjectStoreSink(f"s3://{bucket}/", options=moto.options()).last_position(STREAM) == position(1)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """A server with scripted answers."""
    with closing(Scripted()) as server:
        yield server


def options_for(server: Scripted, **more: Any) -> dict[str, Any]:
    """Return the options for a store on this server."""
    return {"endpoint": server.url, "region": "r", "access_key_id": "AKIAONE", "secret_access_key": SECRET, **more}


def error(code: str, message: str) -> bytes:
    """Return the body of an S3 error."""
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


LISTED = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
NOTHING_HELD: list[Answer | None] = [Answer(200, LISTED), Answer(404)]


@pytest.mark.parametrize(
    ("status", "code"), [(400, "ExpiredToken"), (403, "InvalidAccessKeyId"), (401, "Unauthorized")]
)
def test_credentials_that_expire(scripted: Scripted, status: int, code: str) -> None:
    """Expired credentials are reported, and the next attempt uses new ones."""
    tokens = iter(["first-token", "second-token"])
    given: list[str] = []

    def options() -> dict[str, Any]:
        given.append(next(tokens))
        return options_for(scripted, session_token=given[-1])

    sink = ObjectStoreSink("s3://bucket/p", options=options)
    scripted.answers = [*NOTHING_HELD, Answer(200), Answer(status, error(code, "it is first-token that has expired"))]
    sink.write(batch([1]))
    with pytest.raises(Retry, match=code) as caught:
        sink.write(batch([2]))
    assert "first-token" not in str(caught.value)
    sink.write(batch([2]))
    sent = [request.headers.get("x-amz-security-token") for request in scripted.requests]
    assert sent == ["first-token"] * 4 + ["second-token"]


def test_options_that_cannot_be_had(scripted: Scripted) -> None:
    """Unavailable or invalid options are reported and requested again."""
    answers: list[Any] = [FileNotFoundError(2, "No such file", "token"), {"regoin": "x"}, options_for(scripted)]

    def options() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    sink = ObjectStoreSink("s3://bucket/p", options=options)
    with pytest.raises(Retry, match="No such file"):
        sink.write(batch([1]))
    with pytest.raises(Retry, match="regoin"):
        sink.write(batch([1]))
    scripted.answers = list(NOTHING_HELD)
    sink.write(batch([1]))
    assert [request.method for request in scripted.requests] == ["GET", "HEAD", "PUT"]


def test_requests(scripted: Scripted) -> None:
    """A batch is written atomically with one request and `If-None-Match`."""
    scripted.answers = list(NOTHING_HELD)
    sink = ObjectStoreSink("s3://bucket/p", options=options_for(scripted))
    big = Batch([record(rv, "x" * (4 << 20)) for rv in (1, 2, 3)], position(3))
    sink.write(big)
    sink.write(batch([], upto=4))
    [put, idle] = scripted.requests[2:]
    assert (
        put.method,
        put.path,
        put.headers["if-none-match"],
    ) == ("PUT", f"/bucket/p/{PLACE}/dt=2026-07-24/{1:020d}-{3:020d}.jsonl.gz", "*")
    assert gzip.decompress(put.body).split(b"\n")[2] == big.records[2].line()
    assert (idle.method, idle.path) == ("PUT", f"/bucket/p/{PLACE}/position.json")
    assert (False, json.loads(idle.body)["rv"]) == ("if-none-match" in idle.headers, 4)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_trouble(scripted: Scripted, status: int) -> None:
    """A store error is reported after one request, because the export retries, not the client."""
    scripted.answers = [*NOTHING_HELD, Answer(status, error("SlowDown", "Please reduce your request rate."))]
    sink = ObjectStoreSink("s3://bucket/p", options=options_for(scripted))
    with pytest.raises(Retry, match="SlowDown: Please reduce your request rate"):
        sink.write(batch([1]))
    assert len(scripted.requests) == 3


def test_conflict(scripted: Scripted) -> None:
    """A conflict with a concurrent request is no acknowledgement while the object does not exist."""
    conflict = Answer(409, error("ConditionalRequestConflict", "under way"))
    scripted.answers = [*NOTHING_HELD, conflict, Answer(404)]
    sink = ObjectStoreSink("s3://bucket/p", options=options_for(scripted))
    with pytest.raises(Retry, match="exists, but does not return it"):
        sink.write(batch([1]))
    sink.write(batch([1]))
    assert scripted.requests[-1].method == "PUT"


def test_time_out(scripted: Scripted) -> None:
    """A request without an answer ends at the time-out."""
    scripted.answers = [*NOTHING_HELD, None]
    sink = ObjectStoreSink("s3://bucket/p", options=options_for(scripted), timeout=1.0)
    with pytest.raises(Retry, match="cannot write"):
        sink.write(batch([1]))
    sink.write(batch([1]))
    assert sink.last_position(STREAM) == position(1)


def test_unreachable() -> None:
    """An unreachable store is reported."""
    options = {"endpoint": "http://127.0.0.1:1", "region": "r", "access_key_id": "a", "secret_access_key": SECRET}
    with pytest.raises(Retry, match="cannot list s3://bucket/p: "):
        ObjectStoreSink("s3://bucket/p", options=options).last_position(STREAM)


def test_a_folder_on_a_bad_day(tmp_path: Path) -> None:
    """A file in place of the folder is reported."""
    sink = ObjectStoreSink(f"file://{tmp_path}/events")
    (tmp_path / "events").rmdir()
    (tmp_path / "events").write_text("x")
    with pytest.raises(Retry, match="cannot "):
        sink.write(batch([1]))


def test_without_obstore() -> None:
    """Without obstore, the error names the extra."""
    script = (
        "import sys; sys.modules['obstore'] = None\nfrom kevents.export import ObjectStoreSink\n"
        "try:\n    ObjectStoreSink('s3://b/p')\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("an object store needs obstore: pip install 'kevents[export]'")


@pytest.mark.parametrize("found", [b"<html>\n", b'{"kevents":7}\n', b"[]\n", b"\x1f\x8b\x08no gzip", b"\xff\n"])
def test_other_files_are_no_segments(found: bytes) -> None:
    """A foreign object under the key of a batch is reported and left unchanged."""
    store = MemoryStore()
    with closing(ObjectStoreSink(store, compress="none")) as sink:
        sink.write(batch([1, 2]))
    [key] = keys(store)
    store = MemoryStore()
    with closing(ObjectStoreSink(store, compress="none")) as sink:
        assert sink.last_position(STREAM) is None
        obstore.put(store, key, found)
        with pytest.raises(Retry, match="with other records"):
            sink.write(batch([1, 2]))
    assert bytes(obstore.get(store, key).bytes()) == found


def test_a_store_in_memory() -> None:
    """A store in memory keeps its objects as long as its sink lives."""
    with closing(ObjectStoreSink("memory:///")) as sink:
        sink.write(batch([1, 2]))
        assert sink.last_position(STREAM) == batch([1, 2]).position
