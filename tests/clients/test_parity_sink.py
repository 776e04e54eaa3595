"""For each recorded sequence of answers kevents makes the requests of client-go v0.36.3, tested end to end.

The tests include recorder, broadcaster, sink, official client and HTTP. If kevents deliberately makes other requests
(record-semantics.md, section 8), the case is in `DIFFERENCES` with the reason and the expected requests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from kubernetes import client, config
from tenacity import wait_none

from kevents import CoreV1EventSink, DropReason, EventBroadcaster, SinkStatistics
from kevents.testing import APIServer, Cause, Fault, Garbage, Request, Reset, Status

pytestmark = pytest.mark.wire

TRACES: Final = Path(__file__).parents[1] / "traces" / "sink"
CASES: Final = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(TRACES.glob("*.json"))}
POD: Final = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "default", "uid": "u-1"}}

CREATE: Final = ("POST", "application/json", 1)
REJECTED: Final = {DropReason.REJECTED: 1}


@dataclass(frozen=True)
class Outcome:
    """The expected statistics of a case, and its requests if they differ from client-go's."""

    delivered: int = 0
    dropped: dict[DropReason, int] = field(default_factory=dict)
    codes: dict[int, int] = field(default_factory=dict)
    requests: list[tuple[str, str, int]] | None = None


SAME: Final = {
    "created": Outcome(delivered=1),
    "created-patched": Outcome(delivered=2),
    "create-403": Outcome(dropped={DropReason.REJECTED: 2}, codes={403: 2}),
    "create-409": Outcome(dropped=REJECTED, codes={409: 1}),
    "create-422": Outcome(dropped=REJECTED, codes={422: 1}),
    "create-namespace-terminating": Outcome(dropped=REJECTED, codes={403: 1}),
    "patch-404": Outcome(delivered=2),
    "patch-404-create-404": Outcome(delivered=1, dropped=REJECTED, codes={404: 1}),
    "rejected-then-next": Outcome(delivered=1, dropped=REJECTED, codes={422: 1}),
    "reset-then-created": Outcome(delivered=1),
}
DIFFERENCES: Final = {
    # "every Status error is final, 401, 429 and 5xx too": kevents retries, as client-go's HTTP layer does.
    "create-500": Outcome(delivered=1, requests=[CREATE] * 2),
    "create-503": Outcome(delivered=1, requests=[CREATE] * 2),
    # "an answer that is no JSON: tried again": in kevents a 2xx is delivered, because the write happened.
    "garbage": Outcome(delivered=1, requests=[CREATE]),
    # "12 tries, also while the server is unreachable": in kevents an unreachable server charges no tries.
    "reset-12": Outcome(delivered=1, requests=[CREATE] * 15),
}


def script(server: APIServer, answers: list[dict[str, Any]]) -> None:
    """Script the answers of the first requests. Later requests succeed."""
    for number, answer in enumerate(answers):

        def when(request: Request, number: int = number) -> bool:
            return len(server.requests) == number + 1

        server.fail(fault(**answer), times=1, when=when)


def fault(kind: str, code: int = 0, reason: str = "", cause: str = "") -> Fault:
    """An answer of a trace as a fault of the embedded server."""
    known = {
        "ok": Garbage(b'{"kind":"Event"}', 200, after_processing=False),
        "garbage": Garbage(b"this is no JSON", 200, after_processing=False),
        "reset": Reset(),
        "status": Status(code, reason, causes=(Cause(cause, "m"),) if cause else ()),
    }
    return known[kind]


def replay(server: APIServer, case: dict[str, Any]) -> SinkStatistics:
    """Record the case's identical events one after the other. Returns the statistics of the sink."""
    configuration = client.Configuration()
    config.load_kube_config(str(server.kubeconfig()), client_configuration=configuration)
    configuration.retries = False
    script(server, case["answers"])
    with EventBroadcaster(sleep_duration=0.001) as broadcaster:
        sink = CoreV1EventSink(client.ApiClient(configuration))
        broadcaster.start_recording_to_sink(sink, retry_wait=wait_none())
        recorder = broadcaster.new_recorder("c")
        for _ in range(case["identical_events"]):
            recorder.event(POD, "Warning", "Reason", "the message")
            assert broadcaster.flush(20)
    ledger = broadcaster.statistics().watchers[0].sink
    assert ledger is not None
    return ledger


def request_of(request: Request) -> tuple[str, str, int]:
    """A request in the form of the traces. Client 37 sends no content type in a create, which means JSON."""
    default = "application/json" if request.method == "POST" else ""
    return request.method, request.headers.get("content-type", default), request.body["count"]


@pytest.mark.parametrize("name", CASES)
def test_case(api_server: APIServer, name: str) -> None:
    """The requests are client-go's, except for deliberate differences. The statistics account for every event."""
    case, outcome = CASES[name], {**SAME, **DIFFERENCES}[name]
    ledger = replay(api_server, case)
    theirs = [(request["method"], request["content_type"], request["count"]) for request in case["requests"]]
    assert [request_of(request) for request in api_server.requests] == (outcome.requests or theirs)
    assert (ledger.delivered, dict(ledger.dropped)) == (outcome.delivered, outcome.dropped)
    assert (ledger.accepted, ledger.backlog) == (case["identical_events"], 0)
    assert dict(ledger.rejected_by_code) == outcome.codes


@pytest.mark.parametrize("name", CASES)
def test_names_and_bodies(api_server: APIServer, name: str) -> None:
    """All requests of a case are about one event, and each create has the complete body."""
    replay(api_server, CASES[name])
    names = set()
    for request in api_server.requests:
        if request.method == "PATCH":
            names.add(request.path.rpartition("/")[2])
            assert request.body.keys() == {"count", "lastTimestamp", "message"}
        else:
            names.add(request.body["metadata"]["name"])
            assert "resourceVersion" not in request.body["metadata"]
            assert {"name": "web-0", "uid": "u-1"}.items() <= request.body["involvedObject"].items()
    assert len(names) == 1


def test_every_case() -> None:
    """Each trace is either the same or different, and those listed as different do differ."""
    assert SAME.keys() | DIFFERENCES.keys() == CASES.keys()
    assert not SAME.keys() & DIFFERENCES.keys()
    for name, outcome in DIFFERENCES.items():
        assert len(outcome.requests or ()) != len(CASES[name]["requests"])


def test_409_after_an_unseen_answer(api_server: APIServer) -> None:
    """Pitfall 38: a create whose answer was lost meets 409 and is patched. In client-go a 409 is final."""
    api_server.fail(Reset(after_processing=True), times=1)
    ledger = replay(api_server, {"answers": [], "identical_events": 1})
    assert [request.method for request in api_server.requests] == ["POST", "POST", "PATCH"]
    assert ([stored["count"] for stored in api_server.events()], ledger.delivered) == ([1], 1)


def test_merged_while_waiting(api_server: APIServer) -> None:
    """Identical events that wait for the server are merged into one create. client-go sends them one by one."""
    configuration = client.Configuration()
    config.load_kube_config(str(api_server.kubeconfig()), client_configuration=configuration)
    api_server.stop_listening()
    with EventBroadcaster(sleep_duration=0.01) as broadcaster:
        broadcaster.start_recording_to_sink(CoreV1EventSink(client.ApiClient(configuration)))
        recorder = broadcaster.new_recorder("c")
        for _ in range(20):
            recorder.event(POD, "Warning", "Reason", "the message")
        assert not broadcaster.flush(0.05)
        api_server.listen_again()
        assert broadcaster.flush(20)
    assert [(request.method, request.body["count"]) for request in api_server.requests] == [("POST", 20)]
