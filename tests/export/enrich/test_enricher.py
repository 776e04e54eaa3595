"""The enricher completes records in place with the metadata available in time, and loses none."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from time import monotonic
from typing import Any, Final

import pytest
from urllib3.exceptions import ReadTimeoutError

from kevents.export import Enricher, Record
from kevents.export._enrich import fetcher as _fetcher
from kevents.export._enrich.discovery import LAST_APPLIED
from kevents.export._enrich.fetcher import Fetcher
from tests.export import reads
from tests.support.metadata import STREAM, UIDS, Cluster, Reply, record
from tests.support.polling import poll

PODS: Final = "/api/v1/namespaces/default/pods"


class Bench:
    """A cluster, an enricher, and a clock that the test sets."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.cluster = Cluster()
        self.options = options
        self.enricher = self.another()

    def another(self, **options: Any) -> Enricher:
        """Return an enricher of the same cluster."""
        settings: dict[str, Any] = {
            "qps": 1e6,
            "burst": 1000,
            "wait": 2.0,
            "clock": lambda: self.now,
            **self.options,
            **options,
        }
        return Enricher(self.cluster.api, **settings)

    def enrich(self, *records: Record) -> list[dict[str, Any]]:
        """Enrich records that were read now, and return the object part of each."""
        for each in records:
            each.read_at = self.now
        self.enricher.enrich(records)
        return [each.body["kevents"].get("object") for each in records]

    def state(self, done: Record) -> tuple[str, bool]:
        """Enrich one record and return its object's state and staleness."""
        [about] = self.enrich(done)
        return about["state"], about["stale"]


@pytest.fixture
def bench() -> Bench:
    """A cluster and an enricher."""
    return Bench()


def involved(done: Record) -> dict[str, Any]:
    """Return the involved object of a record."""
    found: dict[str, Any] = done.body["involvedObject"]
    return found


def test_names_of_144(bench: Bench) -> None:
    """The fields have the names of event-exporter's JSON, and the figures those of its metrics."""
    owners = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": UIDS(2), "controller": True}]
    rv = bench.cluster.put("Pod", "web-0", UIDS(1), labels={"a": "b"}, annotations={"c": "d"}, ownerReferences=owners)
    records = [record(uid=UIDS(1), rv=rv) for _ in range(3)]
    bench.enrich(*records)
    expected = {"labels": {"a": "b"}, "annotations": {"c": "d"}, "ownerReferences": owners, "deleted": False}
    assert {key: involved(records[2])[key] for key in expected} == expected
    figures = bench.enricher.statistics()
    assert (figures.kube_api_read_cache_hits, figures.kube_api_read_cache_misses, figures.states["live"]) == (2, 1, 3)


def test_reference_is_kept(bench: Bench) -> None:
    """The event's own object reference is unchanged."""
    bench.cluster.put("Pod", "web-0", UIDS(1))
    done = record(uid=UIDS(1), rv="7", fieldPath="spec.containers{web}")
    before = dict(involved(done))
    bench.enrich(done)
    assert {key: involved(done)[key] for key in before} == before


def test_metadata_only(bench: Bench) -> None:
    """Pitfall 76: objects are requested as PartialObjectMetadata and Nodes as a table, never as a whole."""
    bench.cluster.put("Secret", "s", UIDS(1), annotations={LAST_APPLIED: "{}", "a": "b"})
    bench.cluster.put("Node", "n1", UIDS(2), address="10.0.0.9")
    done = record("Secret", "s", UIDS(1), host="n1")
    bench.enrich(done)
    asked = {path: accept for path, accept in bench.cluster.accepts.items() if path in bench.cluster.objects_read()}
    form = "application/json;as={};g=meta.k8s.io;v=v1"
    assert asked == {
        "/api/v1/namespaces/default/secrets/s": form.format("PartialObjectMetadata"),
        "/api/v1/nodes/n1": form.format("Table"),
    }
    assert involved(done)["annotations"] == {"a": "b"}


def test_annotations_of_choice() -> None:
    """`drop_annotations` selects the annotations that are dropped."""
    bench = Bench(drop_annotations=["secret.example.com/*"])
    bench.cluster.put("Pod", "web-0", UIDS(1), annotations={LAST_APPLIED: "{}", "secret.example.com/a": "b"})
    done = record(uid=UIDS(1))
    bench.enrich(done)
    assert involved(done)["annotations"] == {LAST_APPLIED: "{}"}


def test_gone_and_replaced(bench: Bench) -> None:
    """A deleted object is requested once. An object with the same name and another UID is detected and cached."""
    gone, other = record("Pod", "gone", UIDS(1), "5"), record("Pod", "web-0", UIDS(2), "5")
    rv = bench.cluster.put("Pod", "web-0", UIDS(3), labels={"new": "yes"})
    assert [bench.state(each) for each in (gone, other)] == [("gone", False), ("replaced", False)]
    assert [involved(each)["deleted"] for each in (gone, other)] == [True, True]
    assert "labels" not in involved(other)
    reads_so_far = len(bench.cluster.requests)
    again = [record("Pod", "gone", UIDS(1), "99"), record("Pod", "web-0", UIDS(2)), record("Pod", "web-0", UIDS(3), rv)]
    assert [about["state"] for about in bench.enrich(*again)] == ["gone", "replaced", "live"]
    assert len(bench.cluster.requests) == reads_so_far


def test_static_pod(bench: Bench) -> None:
    """An event about a static pod gets the labels of its mirror pod."""
    bench.cluster.put(
        "Pod", "etcd-n1", UIDS(1), labels={"tier": "cp"}, annotations={"kubernetes.io/config.hash": "f00d"}
    )
    done = record("Pod", "etcd-n1", "f00d")
    assert bench.state(done) == ("live", False)
    assert involved(done)["labels"] == {"tier": "cp"}


def test_no_uid_created_later(bench: Bench) -> None:
    """Without a UID, an object that was created after the event does not match."""
    bench.cluster.put("Pod", "web-0", UIDS(1), labels={"a": "b"}, creationTimestamp="2026-11-22T12:00:05Z")
    times = ("2026-11-22T12:00:04Z", "2026-11-22T12:00:05.500000Z", "2026-11-22T13:00:00Z")
    records = [record(time=time) for time in times]
    assert [about["state"] for about in bench.enrich(*records)] == ["replaced", "live", "live"]
    assert [involved(each).get("labels") for each in records] == [None, {"a": "b"}, {"a": "b"}]


def test_no_uid_recreated(bench: Bench) -> None:
    """Without a UID, each later event reads the object again, because it may have been replaced."""
    for number in range(3):
        bench.cluster.put("Pod", "web-0", UIDS(number), labels={"number": str(number)})
        done = record(rv="5")
        bench.enrich(done)
        bench.now += 0.01
        assert involved(done)["labels"]["number"] == str(number)


def test_too_late(bench: Bench) -> None:
    """A record that has waited too long continues with the cached metadata, without a request."""
    rv = bench.cluster.put("Pod", "known", UIDS(1), labels={"a": "b"})
    bench.enrich(record("Pod", "known", UIDS(1), rv))
    bench.cluster.requests.clear()
    names = [("known", UIDS(1), rv), ("known", UIDS(1), "999"), ("unknown", UIDS(2), "5")]
    records = [record("Pod", name, uid, version, read_at=bench.now - 2.1) for name, uid, version in names]
    bench.enricher.enrich(records)
    expected = [("live", False), ("skipped", True), ("skipped", False)]
    abouts = [each.body["kevents"]["object"] for each in records]
    assert [(about["state"], about["stale"]) for about in abouts] == expected
    assert [about.get("enriched", True) for about in abouts] == [True, False, False]
    assert [involved(each).get("labels") for each in records] == [{"a": "b"}, {"a": "b"}, None]
    assert bench.cluster.requests == []


def test_rate() -> None:
    """Records that the rate limit does not allow in time are skipped."""
    bench = Bench(qps=0.001, burst=5)
    for number in range(10):
        bench.cluster.put("Pod", f"p{number}", UIDS(number))
    abouts = bench.enrich(*(record("Pod", f"p{number}", UIDS(number)) for number in range(10)))
    assert [about["state"] for about in abouts] == ["live"] * 4 + ["skipped"] * 6
    assert bench.enricher.statistics().requests == {"discover": 1, "get": 4}


def test_gap(bench: Bench) -> None:
    """A record without an object is unchanged."""
    body = {"kevents": {"v": 1, "id": "gap:1", "gap": {"why": "expired"}}}
    before = json.dumps(body)
    bench.enricher.enrich([Record(STREAM, 1, body, bench.now)])
    assert json.dumps(body) == before
    assert sum(bench.enricher.statistics().states.values()) == 0


ODD: Final[list[dict[str, Any]]] = [
    {},
    {"kind": "Pod"},
    {"name": "x"},
    {"kind": None, "name": None, "uid": None, "apiVersion": None, "namespace": None, "resourceVersion": None},
    {"kind": "Pod", "name": ["x"], "uid": {}, "apiVersion": 7, "namespace": "default"},
    {"kind": "Pod", "name": "x", "namespace": "default", "uid": "u", "apiVersion": "v1", "resourceVersion": 7},
    {"kind": "Pod", "name": "../../../secrets/s", "namespace": "default", "uid": "u", "apiVersion": "v1"},
    {"kind": "Pod", "name": "x", "namespace": "..", "uid": "u", "apiVersion": "v1"},
    {"kind": "Pod", "name": "x", "namespace": "", "uid": "u", "apiVersion": "v1"},
    {"kind": "Pod", "name": "x", "namespace": "default", "uid": "u", "apiVersion": "../../v1"},
    {"kind": "K" * 100_000, "name": "x" * 100_000, "uid": "u" * 100_000, "apiVersion": "v1", "namespace": "default"},
    {"kind": "Pod", "name": "\ud800", "namespace": "default", "uid": "u", "apiVersion": "v1"},
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_reference(bench: Bench, odd: dict[str, Any]) -> None:
    """A malformed object reference does not affect other records and reads no unexpected path."""
    rv = bench.cluster.put("Pod", "web-0", UIDS(1))
    broken, fine = record(), record(uid=UIDS(1), rv=rv)
    broken.body["involvedObject"] = dict(odd)
    bench.enrich(broken, fine)
    assert fine.body["kevents"]["object"]["state"] == "live"
    assert broken.body["kevents"]["object"]["state"] == "skipped" or "name" in odd
    assert [path for path in bench.cluster.objects_read() if not path.startswith(PODS + "/") or ".." in path] == []


@pytest.mark.parametrize("source", [None, "text", {"host": 7}, {"host": ["n"]}, {"host": "../namespaces/x"}, []])
def test_odd_source(bench: Bench, source: object) -> None:
    """A malformed source does not prevent enrichment."""
    bench.cluster.put("Pod", "web-0", UIDS(1), labels={"a": "b"})
    done = record(uid=UIDS(1))
    done.body["source"] = source
    bench.enrich(done)
    assert involved(done)["labels"] == {"a": "b"}


def test_owner(bench: Bench) -> None:
    """The top owner is cached with the object and read again after ten minutes."""

    def by(kind: str, number: int) -> list[dict[str, Any]]:
        return [{"apiVersion": "apps/v1", "kind": kind, "name": kind, "uid": UIDS(number), "controller": True}]

    rv = bench.cluster.put("Pod", "web-0", UIDS(1), ownerReferences=by("ReplicaSet", 2))
    bench.cluster.put("ReplicaSet", "ReplicaSet", UIDS(2), ownerReferences=by("Deployment", 3))
    bench.cluster.put("Deployment", "Deployment", UIDS(3))
    expected = {
        "kind": "Deployment",
        "name": "Deployment",
        "uid": UIDS(3),
        "path": ["ReplicaSet/ReplicaSet", "Deployment/Deployment"],
    }
    for passed, owner_reads in ((0.0, 2), (599.0, 2), (2.0, 4)):
        bench.now += passed
        done = record(uid=UIDS(1), rv=rv)
        bench.enrich(done)
        assert done.body["kevents"]["topOwner"] == expected
        assert bench.enricher.statistics().owner_reads == owner_reads
    assert bench.enricher.statistics().kube_api_read_cache_misses == 1


def test_an_owner_that_is_no_controller(bench: Bench) -> None:
    """An owner that is no controller is not followed."""
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": UIDS(2)}
    bench.cluster.put("Pod", "web-0", UIDS(1), ownerReferences=[owner])
    done = record(uid=UIDS(1))
    assert bench.state(done) == ("live", False)
    assert "topOwner" not in done.body["kevents"]


def test_owner_too_late() -> None:
    """If an owner cannot be read in time, there is no top owner. Later events get it."""
    bench = Bench(qps=0.001, burst=2)
    owners = [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": UIDS(2), "controller": True}]
    rv = bench.cluster.put("Pod", "web-0", UIDS(1), ownerReferences=owners)
    bench.cluster.put("Deployment", "web", UIDS(2))
    done = record(uid=UIDS(1), rv=rv)
    assert bench.state(done) == ("live", False)
    assert "topOwner" not in done.body["kevents"]
    for _ in range(3):
        bench.now += 1000.0
        bench.state(done)
    assert done.body["kevents"]["topOwner"]["kind"] == "Deployment"


def test_switched_off() -> None:
    """Disabled options cause no requests. With `cache_size=0`, nothing is enriched."""
    owners = [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": UIDS(2), "controller": True}]
    for options, reads_made in (({"top_owner": False, "nodes": False}, 1), ({"cache_size": 0}, 0)):
        bench = Bench(**options)
        bench.cluster.put("Pod", "web-0", UIDS(1), ownerReferences=owners)
        done = record(uid=UIDS(1), host="n1")
        bench.enrich(done)
        assert len(bench.cluster.objects_read()) == reads_made
        assert not {"topOwner", "node", "services"} & set(done.body["kevents"])


def test_node(bench: Bench) -> None:
    """A node's addresses are cached for ten minutes, and so are unknown nodes."""
    bench.cluster.put("Node", "n1", UIDS(1), address="10.0.0.9")
    bench.cluster.put("Pod", "web-0", UIDS(2))
    for passed, node_reads in ((0.0, 2), (599.0, 2), (2.0, 4)):
        bench.now += passed
        records = [record(uid=UIDS(2), host=host) for host in ("n1", "n1", "some-controller-7d9", "")]
        bench.enrich(*records)
        assert bench.enricher.statistics().node_reads == node_reads
        addresses = {"addresses": ["10.0.0.9"]}
        assert [each.body["kevents"].get("node") for each in records] == [addresses, addresses, None, None]


def test_node_by_name(bench: Bench) -> None:
    """An event about a Node, whose UID is its name, gets labels and addresses with one read."""
    bench.cluster.put("Node", "n1", UIDS(1), labels={"zone": "a"}, address="10.0.0.9")
    records = [record("Node", "n1", "n1", host="n1") for _ in range(5)]
    bench.enrich(*records)
    assert (
        involved(records[4])["labels"],
        records[4].body["kevents"]["node"],
    ) == ({"zone": "a"}, {"addresses": ["10.0.0.9"]})
    assert bench.cluster.objects_read() == ["/api/v1/nodes/n1"]


REFUSALS: Final = [
    (403, "forbidden", 299.0, 1),
    (403, "forbidden", 301.0, 2),
    (405, "skipped", 299.0, 1),
    (406, "skipped", 301.0, 2),
    (500, "skipped", 0.9, 1),
    (503, "skipped", 1.1, 2),
    (429, "skipped", 6.6, 1),
    (429, "skipped", 7.1, 2),
    (401, "skipped", 1.1, 2),
    (302, "skipped", 0.9, 1),
]


@pytest.mark.parametrize(("status", "state", "later", "asked"), REFUSALS)
def test_refused(status: int, state: str, later: float, asked: int) -> None:
    """After an error, the server is not asked again for a while, and all records continue."""
    bench = Bench(wait=0.4)
    bench.cluster.put("Pod", "web-0", UIDS(1))
    headers = {"Retry-After": "7"} if status == 429 else {}
    bench.cluster.answer = lambda path: Reply(status, b"{}", headers) if path.startswith(PODS) else None
    for number in range(3):
        assert bench.state(record(uid=UIDS(1 + number), rv="5")) == (state, False)
    bench.now += later
    bench.state(record(uid=UIDS(9), rv="5"))
    assert len(bench.cluster.objects_read()) == asked


def test_one_kind_fails(bench: Bench) -> None:
    """A kind that fails does not affect other kinds."""
    bench.cluster.answer = lambda path: Reply(500, b"conversion webhook failed") if "/secrets/" in path else None
    bench.cluster.put("Pod", "web-0", UIDS(1))
    abouts = bench.enrich(
        *(record("Secret", f"s{number}", UIDS(number)) for number in range(2, 9)), record(uid=UIDS(1))
    )
    assert [about["state"] for about in abouts] == ["skipped"] * 7 + ["live"]
    assert len(bench.cluster.objects_read()) == 2


@pytest.mark.parametrize("status", [400, 414, 422, 431])
def test_one_reference_is_refused(bench: Bench, status: int) -> None:
    """A name that the server refuses does not affect other objects."""
    bench.cluster.answer = lambda path: Reply(status, b"{}") if path.endswith("/odd") else None
    bench.cluster.put("Pod", "web-0", UIDS(1))
    abouts = bench.enrich(record("Pod", "odd", UIDS(2)), record(uid=UIDS(1)))
    assert [about["state"] for about in abouts] == ["skipped", "live"]


def test_one_group_is_down(bench: Bench) -> None:
    """A group whose server is down does not affect other kinds and is requested less and less often."""
    bench.cluster.versions["metrics.k8s.io/v1"] = {}
    bench.cluster.answer = lambda path: Reply(503, b"{}") if path == "/apis/metrics.k8s.io/v1" else None
    bench.cluster.put("Pod", "web-0", UIDS(1))
    asked = []
    for _ in range(30):
        bench.now += 0.5
        bench.enrich(record("PodMetrics", apiVersion="metrics.k8s.io/v1", uid=UIDS(2)))
        asked.append(bench.cluster.counts()["/apis/metrics.k8s.io/v1"])
    assert (asked[0], asked[-1]) == (1, 4)
    assert bench.state(record(uid=UIDS(1))) == ("live", False)


def test_one_kind_hangs(bench: Bench) -> None:
    """A kind whose requests hang does not affect other kinds."""

    def hang(path: str) -> Reply | None:
        if "/secrets/" in path:
            raise ReadTimeoutError(None, path, "timed out")  # type: ignore[arg-type]
        return None

    bench.cluster.answer = hang
    bench.cluster.put("Pod", "web-0", UIDS(1))
    abouts = bench.enrich(
        *(record("Secret", f"s{number}", UIDS(number)) for number in range(2, 9)), record(uid=UIDS(1))
    )
    assert [about["state"] for about in abouts] == ["skipped"] * 7 + ["live"]
    assert len(bench.cluster.objects_read()) == 2


def test_forbidden_keeps_labels(bench: Bench) -> None:
    """Labels from before a permission was revoked are attached as stale."""
    rv = bench.cluster.put("Pod", "web-0", UIDS(1), labels={"a": "b"})
    bench.state(record(uid=UIDS(1), rv=rv))
    bench.cluster.answer = lambda path: Reply(403, b"{}") if path.startswith(PODS) else None
    done = record(uid=UIDS(1), rv="999")
    assert [bench.state(done), bench.state(done)] == [("forbidden", True)] * 2
    assert involved(done)["labels"] == {"a": "b"}
    assert len(bench.cluster.objects_read()) == 2


def test_secrets_are_left_out_on_purpose(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Fault 36: the log does not advise allowing Secrets, which rbac.yaml omits. For other kinds it has the rule."""
    caplog.set_level("INFO", "kevents")
    bench.cluster.answer = lambda path: Reply(403, b"{}") if "/secrets/" in path or path.startswith(PODS) else None
    assert bench.state(record(uid=UIDS(1), kind="Secret", name="token"))[0] == "forbidden"
    assert bench.state(record(uid=UIDS(2)))[0] == "forbidden"
    secrets, pods = (line for line in caplog.messages if "are not enriched" in line)
    assert secrets.startswith("events about secrets are not enriched: this is on purpose")
    assert 'resources: ["pods"], verbs: ["get"]' in pods


@pytest.mark.parametrize("body", [b"404 page not found\n", b'{"kind": "Status", "code": 404, "details": {}}', b""])
def test_kind_is_gone(bench: Bench, body: bytes) -> None:
    """A 404 that does not name the object means that the kind is gone, not the object."""
    bench.cluster.put("Pod", "web-0", UIDS(1), labels={"a": "b"})
    bench.cluster.answer = lambda path: Reply(404, body) if path.startswith(PODS) else None
    assert [bench.state(record(uid=UIDS(1))) for _ in range(2)] == [("skipped", False)] * 2
    assert len(bench.cluster.objects_read()) == 1
    bench.cluster.answer = lambda path: None
    bench.now += 61.0
    assert bench.state(record(uid=UIDS(1))) == ("live", False)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"metadata": {"labels": {"a": 1}}}', b"{" * 100_000])
def test_nonsense(bench: Bench, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A 200 without metadata is logged once, and its kind is not requested again."""
    bench.cluster.answer = lambda path: Reply(200, body) if path.startswith(PODS) else None
    assert [bench.state(record(uid=UIDS(number))) for number in range(5)] == [("skipped", False)] * 5
    assert len(bench.cluster.objects_read()) == 1
    assert caplog.text.count("events about pods are not enriched") == 1


def test_huge_answer(bench: Bench) -> None:
    """Pitfall 78: an answer of more than 16 MiB is not read to its end."""
    huge = Reply(200, b" " * (17 << 20))
    bench.cluster.answer = lambda path: huge if path.startswith(PODS) else None
    assert bench.state(record(uid=UIDS(1))) == ("skipped", False)
    assert huge.body


@pytest.mark.parametrize(
    "error", [OSError("refused"), RuntimeError("odd"), ValueError("Invalid header value b'Bearer hunter2'")]
)
def test_no_answer(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 72: connection errors back off from one second and are logged without credentials."""
    bench = Bench(wait=0.4)
    caplog.set_level("INFO", "kevents")

    def fail(path: str) -> Reply:
        raise error

    bench.cluster.answer = fail
    asked = []
    for passed in (0.0, 0.6, 0.5, 1.6, 0.5):
        bench.now += passed
        assert bench.state(record(uid=UIDS(1))) == ("skipped", False)
        asked.append(len(bench.cluster.requests))
    assert asked == [1, 1, 2, 2, 3]
    assert "metadata could not be read" in caplog.text
    assert "hunter2" not in caplog.text


def test_discovery_refused(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A refused discovery is logged and retried after a minute. Records continue."""
    bench.cluster.answer = lambda path: Reply(403, b"{}") if path == "/api/v1" else None
    assert [bench.state(record(uid=UIDS(1))) for _ in range(3)] == [("skipped", False)] * 3
    assert (bench.cluster.requests, "/api/v1 was answered with 403" in caplog.text) == (["/api/v1"], True)


@pytest.mark.parametrize("status", [401, 429])
def test_discovery_held_up(bench: Bench, status: int) -> None:
    """After a 401 or 429, no request is made for a while. Enrichment continues afterwards."""
    bench.cluster.put("Pod", "web-0", UIDS(1))
    bench.cluster.answer = lambda _: Reply(status, b"{}", {"Retry-After": "7"})
    assert [bench.state(record(uid=UIDS(1))) for _ in range(3)] == [("skipped", False)] * 3
    assert bench.cluster.requests == ["/api/v1"]
    bench.cluster.answer = lambda _: None
    bench.now += 60
    assert bench.state(record(uid=UIDS(1))) == ("live", False)


def test_discovery_nonsense(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A malformed discovery document is logged. Records continue."""
    bench.cluster.answer = lambda path: Reply(200, b"<html>") if path == "/api/v1" else None
    assert [bench.state(record(uid=UIDS(1))) for _ in range(3)] == [("skipped", False)] * 3
    assert bench.cluster.requests == ["/api/v1"]
    assert "kinds cannot be looked up, their events are not enriched" in caplog.text


def test_one_read_at_a_time() -> None:
    """Concurrent requests of eight threads for one object cause one read."""
    cluster = Cluster()
    rv = cluster.put("Pod", "web-0", UIDS(1), labels={"a": "b"})
    arrived, leave = threading.Event(), threading.Event()

    def slow(path: str) -> None:
        if path.startswith(PODS):
            arrived.set()
            leave.wait(60)

    cluster.answer = slow
    enricher = Enricher(cluster.api, wait=30.0)
    records = [record(uid=UIDS(1), rv=rv, read_at=monotonic()) for _ in range(8)]
    threads = [threading.Thread(target=enricher.enrich, args=([each],)) for each in records]
    for thread in threads:
        thread.start()
    assert arrived.wait(60)
    leave.set()
    for thread in threads:
        thread.join(60)
    assert [involved(each).get("labels") for each in records] == [{"a": "b"}] * 8
    assert (cluster.counts()[f"{PODS}/web-0"], enricher.statistics().states["live"]) == (1, 8)


def test_many_threads() -> None:
    """Concurrent threads read no object twice, attach no wrong label, and every event is counted."""
    cluster = Cluster()
    versions = [cluster.put("Pod", f"p{number}", UIDS(number), labels={"of": str(number)}) for number in range(50)]
    enricher = Enricher(cluster.api, qps=1e6, burst=10**6, wait=60.0)
    wrong: list[Record] = []

    def work(seed: int) -> None:
        for step in range(40):
            numbers = [(seed * 7 + step * 13 + each) % 50 for each in range(25)]
            records = [record("Pod", f"p{n}", UIDS(n), versions[n], read_at=monotonic()) for n in numbers]
            enricher.enrich(records)
            wrong.extend(r for n, r in zip(numbers, records, strict=True) if involved(r)["labels"] != {"of": str(n)})

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert {count for path, count in cluster.counts().items() if path.startswith(PODS)} == {1}
    figures = enricher.statistics()
    assert (figures.states["live"], figures.kube_api_read_cache_misses, figures.errors) == (6000, 50, 0)


def test_closed() -> None:
    """Closing wakes waiting threads. Afterwards records are enriched from the cache."""
    cluster = Cluster()
    rv = cluster.put("Pod", "web-0", UIDS(1))
    enricher = Enricher(cluster.api, qps=0.001, burst=2, wait=3000.0)
    known, unknown = record(uid=UIDS(1), rv=rv, read_at=monotonic()), record(uid=UIDS(2), read_at=monotonic())
    enricher.enrich([known])
    waiting = threading.Thread(target=enricher.enrich, args=([unknown],))
    waiting.start()
    enricher.close()
    enricher.close()
    waiting.join(60)
    assert not waiting.is_alive()
    enricher.enrich([known])
    assert [each.body["kevents"]["object"]["state"] for each in (known, unknown)] == ["live", "skipped"]


def test_our_own_fault(bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An internal error affects one record, is counted and logged, and blocks no thread."""
    bench.cluster.put("Pod", "web-0", UIDS(1))

    def fail(*args: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(bench.enricher._objects, "look", fail)
        bench.enrich(record(uid=UIDS(1)))
    assert bench.enricher.statistics().errors == 1
    with monkeypatch.context() as patch:
        patch.setattr(bench.enricher._fetcher, "_get", fail)
        assert bench.state(record(uid=UIDS(1))) == ("skipped", False)
    assert poll(lambda: "objects could not be read: ZeroDivisionError" in caplog.text, 10)
    assert bench.state(record(uid=UIDS(1))) == ("live", False)


@pytest.mark.parametrize(
    "options",
    [
        {"cache_size": -1},
        {"cache_size": 1.5},
        {"cache_size": True},
        {"qps": 0},
        {"burst": 0},
        {"wait": 0},
        {"wait": float("nan")},
        {"drop_annotations": LAST_APPLIED},
    ],
)
def test_options(options: dict[str, Any]) -> None:
    """Pitfall 59: an invalid option is refused by the constructor with its name."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Enricher(Cluster().api, **options)


def test_wrong_api() -> None:
    """An invalid api is refused by the constructor."""
    with pytest.raises(TypeError, match="api must be a CoreV1Api"):
        Enricher(7)


# -- several objects at once (fault 23) --------------------------------------------------------------------------------


def crowd(bench: Bench, number: int, namespace: str = "default", first: int = 0) -> list[Record]:
    """Create pods with a ReplicaSet and a Deployment each, and return an event about each pod."""

    def by(kind: str, n: int) -> list[dict[str, Any]]:
        return [{"apiVersion": "apps/v1", "kind": kind, "name": f"{kind}-{n}", "uid": UIDS(n), "controller": True}]

    found = []
    for n in range(first, first + number):
        name, owner = f"p{n}", by("ReplicaSet", 10_000 + n)
        rv = bench.cluster.put("Pod", name, UIDS(n), namespace, labels={"n": str(n)}, ownerReferences=owner)
        owner = by("Deployment", 20_000 + n)
        bench.cluster.put("ReplicaSet", f"ReplicaSet-{10_000 + n}", UIDS(10_000 + n), namespace, ownerReferences=owner)
        bench.cluster.put("Deployment", f"Deployment-{20_000 + n}", UIDS(20_000 + n), namespace)
        found.append(record("Pod", name, UIDS(n), rv, namespace=namespace))
    return found


@pytest.fixture
def listing() -> Bench:
    """A cluster whose kinds can be listed, and an enricher with the default rate."""
    bench = Bench(qps=20.0, burst=40, wait=10.0, cache_size=2000)
    bench.cluster.verbs = ["get", "list"]
    return bench


def test_many_new_objects(listing: Bench) -> None:
    """Fault 23: 500 new pods with their owners are enriched by one list of each kind, within the burst."""
    records = crowd(listing, 500)
    listing.enrich(*records)
    assert [involved(each)["labels"]["n"] for each in records] == [str(n) for n in range(500)]
    assert {each.body["kevents"]["topOwner"]["kind"] for each in records} == {"Deployment"}
    assert listing.enricher.statistics().requests == {"discover": 3, "list": 3}
    assert listing.enricher.statistics().incomplete == 0


def test_lists_by_namespace(listing: Bench) -> None:
    """Objects are listed per namespace. A few objects of a namespace are read one by one."""
    records = [*crowd(listing, 4, "a"), *crowd(listing, 3, "b", 100)]
    listing.enrich(*records)
    assert all(each.body["kevents"]["topOwner"] for each in records)
    assert listing.enricher.statistics().requests == {"discover": 3, "list": 3, "get": 9}


def test_list_shows_neighbours(listing: Bench) -> None:
    """Other objects of a list are cached while there is space, so their events need no request."""
    records = crowd(listing, 20)
    listing.enrich(*records[:5])
    made = len(listing.cluster.requests)
    listing.enrich(*records[5:])
    assert [involved(each)["labels"]["n"] for each in records] == [str(n) for n in range(20)]
    assert len(listing.cluster.requests) == made


def test_pages_of_a_list(listing: Bench) -> None:
    """A list is read page by page until every object was found or cannot exist."""
    records = crowd(listing, 100)
    listing.cluster.page = 30
    gone = [record("Pod", "none", UIDS(999), "5"), record("Pod", "p0", UIDS(998), "5")]
    listing.enrich(*records, *gone)
    assert [each.body["kevents"]["object"]["state"] for each in gone] == ["gone", "replaced"]
    assert {each.body["kevents"]["object"]["state"] for each in records} == {"live"}
    assert listing.cluster.counts()[PODS] == 4


def test_no_list_of_a_large_namespace(listing: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is abandoned if it takes more requests than reading each object."""
    crowd(listing, 90)
    listing.cluster.page = 1
    monkeypatch.setattr(_fetcher, "_PAGE", 1)
    few = [record("Pod", f"p{number}", UIDS(number)) for number in range(85, 89)]
    for _ in range(2):
        listing.enrich(*few)
        assert [involved(each)["labels"] for each in few] == [{"n": str(number)} for number in range(85, 89)]
        listing.now += 61.0
    assert listing.cluster.counts()[PODS] == 1


@pytest.mark.parametrize("status", [403, 405, 406, 500, 503])
def test_a_list_that_is_refused(listing: Bench, status: int) -> None:
    """If a kind cannot be listed, its objects are read one by one."""
    listing.cluster.answer = lambda path: Reply(status, b"{}") if path == PODS else None
    records = crowd(listing, 5)
    listing.enrich(*records)
    assert all(involved(each)["labels"] for each in records)
    assert listing.cluster.counts()[PODS] == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"metadata": {}, "items": [7]}', b" " * (17 << 20)])
def test_a_list_that_is_none(listing: Bench, body: bytes) -> None:
    """After a malformed or huge list, the objects are read one by one."""
    listing.cluster.answer = lambda path: Reply(200, body) if path == PODS else None
    records = crowd(listing, 5)
    listing.enrich(*records)
    assert all(involved(each)["labels"] for each in records)


def test_nodes_are_listed(listing: Bench) -> None:
    """The addresses of many nodes are read with one list."""
    for number in range(10):
        listing.cluster.put("Node", f"n{number}", UIDS(500 + number), address=f"10.0.0.{number}")
    listing.cluster.put("Pod", "web-0", UIDS(1))
    records = [record(uid=UIDS(1), host=f"n{number}") for number in range(10)]
    listing.enrich(*records)
    expected = [{"addresses": [f"10.0.0.{number}"]} for number in range(10)]
    assert [each.body["kevents"]["node"] for each in records] == expected
    assert listing.enricher.statistics().requests == {"discover": 1, "get": 1, "list": 1}


def test_several_requests_at_once() -> None:
    """Objects of several namespaces are read by concurrent requests."""
    cluster, most, now = Cluster(), [0], [0]
    lock, full = threading.Lock(), threading.Event()

    def slow(path: str) -> None:
        if "/pods/" not in path:
            return
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] == 4:
                full.set()
        full.wait(10)
        with lock:
            now[0] -= 1

    cluster.answer = slow
    records = []
    for number in range(4):
        rv = cluster.put("Pod", "web-0", UIDS(number), f"ns{number}", labels={"a": "b"})
        records.append(record(uid=UIDS(number), rv=rv, read_at=monotonic(), namespace=f"ns{number}"))
    Enricher(cluster.api, wait=30.0).enrich(records)
    assert [involved(each)["labels"] for each in records] == [{"a": "b"}] * 4
    assert most[0] == 4


def test_a_record_waits(caplog: pytest.LogCaptureFixture) -> None:
    """A record waits up to `wait` seconds for its object, then continues without it, counted, logged and marked."""
    cluster, leave = Cluster(), threading.Event()
    cluster.put("Pod", "web-0", UIDS(1))
    cluster.answer = lambda path: None if not path.startswith(PODS) else Reply(200, b"") if leave.wait(30) else None
    enricher = Enricher(cluster.api, wait=0.2)
    began = monotonic()
    done = record(uid=UIDS(1), read_at=began)
    enricher.enrich([done])
    assert monotonic() - began >= 0.2
    leave.set()
    assert poll(lambda: enricher._fetcher._workers == 0, 10)
    assert done.body["kevents"]["object"] == {"state": "skipped", "stale": False, "enriched": False}
    assert enricher.statistics().incomplete == 1
    assert "1 event went on without labels or owners, which could not be read in time (0.2 s)" in caplog.text


def test_waiting_is_bounded() -> None:
    """An API server that always times out delays the first record by `wait` and later ones by half of it."""
    cluster, leave = Cluster(), threading.Event()
    cluster.answer = lambda path: Reply(200, b"") if leave.wait(30) else None
    enricher = Enricher(cluster.api, wait=0.4)
    began = monotonic()
    for number in range(20):
        enricher.enrich([record(uid=UIDS(number), read_at=monotonic())])
    assert monotonic() - began < 4  # less than 20 times `wait`
    leave.set()
    assert poll(lambda: enricher._fetcher._workers == 0, 10)


def test_known_objects_need_no_request() -> None:
    """Records whose object, owner and node are cached need no request."""
    bench = Bench()
    owners = [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": UIDS(9999), "controller": True}]
    bench.cluster.put("Deployment", "web", UIDS(9999))
    bench.cluster.put("Node", "n1", UIDS(9998), address="10.0.0.9")
    rvs = [bench.cluster.put("Pod", f"p{n}", UIDS(n), labels={"a": "b"}, ownerReferences=owners) for n in range(500)]

    def batch() -> list[Record]:
        return [record("Pod", f"p{n}", UIDS(n), rvs[n], read_at=bench.now, host="n1") for n in range(500)]

    bench.enricher.enrich(batch())
    requests = len(bench.cluster.requests)
    again = batch()
    bench.enricher.enrich(again)
    assert len(bench.cluster.requests) == requests
    assert {each.body["involvedObject"]["labels"]["a"] for each in again} == {"b"}


LONG: Final = [
    pytest.param(reads.BEFORE, 0.30, marks=pytest.mark.slow, id="before"),
    pytest.param(reads.DURING, 0.31, marks=pytest.mark.slow, id="during"),
]


@pytest.mark.parametrize(("trace", "most"), [pytest.param(replace(reads.DURING, events=2000), 0.52, id="short"), *LONG])
def test_reads(trace: reads.Trace, most: float) -> None:
    """On the reference trace, an event costs at most 0.30 reads, or slightly more if objects are deleted meanwhile.

    At the start of the trace, most objects are read for the first time.
    """
    score = reads.by_kevents(reads.World(trace, 1))
    assert score.reads / score.events <= most
    assert (score.events, score.wrong) == (trace.events, 0)


@pytest.mark.parametrize(
    ("events", "wrong"), [(2000, 150), pytest.param(50_000, 1000, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_wrong_metadata(events: int, wrong: int) -> None:
    """With recreated objects and missing UIDs, no label is wrong. With the pull request's key, many are."""
    trace = replace(reads.HOSTILE, events=events)
    ours, theirs = (rule(reads.World(trace, 1)) for rule in (reads.by_kevents, reads.by_uid_and_version))
    assert ours.wrong == 0
    assert theirs.wrong > wrong


def test_fetcher_gets_the_timeout(bench: Bench) -> None:
    """A request's time-out is the remaining time of its record."""
    fetcher: Fetcher = bench.enricher._fetcher
    timeouts: list[float] = []
    reader: Any = fetcher._reader
    get = reader.get

    def timed(path: str, accept: str, timeout: float) -> object:
        timeouts.append(timeout)
        return get(path, accept, timeout)

    reader.get = timed
    done = record(uid=UIDS(1), read_at=bench.now - 1.25)
    bench.enricher.enrich([done])
    assert timeouts == [0.75, 0.75]
