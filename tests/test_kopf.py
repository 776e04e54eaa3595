"""Recording in kopf operators: the recorder's API, both ways to log in, and kopf running."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("kopf", reason="needs kevents[kopf]")
pytest.register_assert_rewrite("tests.clients.sink_contract")

import kopf  # noqa: E402
import kubernetes.client  # noqa: E402

import kevents  # noqa: E402
import kevents.kopf  # noqa: E402
from kevents._clients.sync import events_path  # noqa: E402
from kevents.kopf import LoginSink, _endpoint  # noqa: E402
from kevents.testing import APIServer, Delay, Hang  # noqa: E402
from tests.clients.sink_contract import MakeSink, SinkContract, event  # noqa: E402
from tests.processes.kopf_run import CLIENTS, Operator  # noqa: E402

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "default", "uid": "u-1"}}
OTHER = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "namespace": "default", "uid": "u-2"}}
TIMES = (5.0, 15.0)


def connection(api_server: APIServer, **fields: Any) -> kopf.ConnectionInfo:
    """A login handler's result for an embedded server."""
    given = {"server": api_server.tls_url, "ca_data": api_server.ca, "token": api_server.token}
    return kopf.ConnectionInfo(**{**given, **fields})


@pytest.fixture
def broadcaster() -> Iterator[kevents.EventBroadcaster]:
    """A broadcaster with short retries."""
    with kevents.EventBroadcaster(sleep_duration=0.05) as broadcaster:
        yield broadcaster


@pytest.fixture
def recorder(broadcaster: kevents.EventBroadcaster) -> kevents.kopf.KopfRecorder:
    """A recorder."""
    return kevents.kopf.KopfRecorder("an-operator", broadcaster)


@pytest.fixture
def seen(
    recorder: kevents.kopf.KopfRecorder, broadcaster: kevents.EventBroadcaster, api_server: APIServer
) -> list[kevents.Event]:
    """A list that collects the recorded events. The recorder is logged in to an embedded server."""
    recorder.logged_in(connection(api_server))
    events: list[kevents.Event] = []
    broadcaster.start_event_watcher(events.append)
    return events


def told(broadcaster: kevents.EventBroadcaster, seen: list[kevents.Event]) -> list[tuple[str, str, str, str]]:
    """Object, type, reason and message of the recorded events, after a flush."""
    assert broadcaster.flush(10)
    return [(event.reference.name, event.type, event.reason, event.message) for event in seen]


def fail(text: str) -> None:
    """Raise an error as a handler might."""
    raise ConnectionError(text)


# -- the recorder ----------------------------------------------------------------------------------------------------


def test_habits(
    recorder: kevents.kopf.KopfRecorder, broadcaster: kevents.EventBroadcaster, seen: list[kevents.Event]
) -> None:
    """The calls have kopf's arguments, by position and by name, and record the two types of Kubernetes."""
    recorder.info(POD, "Done", "well")
    recorder.warn(POD, reason="Failed", message="badly")
    recorder.exception(POD, "Broken", exc=LookupError("no such thing"))
    try:
        fail("the bucket is gone")
    except ConnectionError:
        recorder.exception(POD)
        recorder.exception(POD, message="while writing:")
    recorder.exception(POD, message="nothing at hand")
    expected = [
        ("web-0", "Normal", "Done", "well"),
        ("web-0", "Warning", "Failed", "badly"),
        ("web-0", "Warning", "Broken", "LookupError: no such thing"),
        ("web-0", "Warning", "ConnectionError", "ConnectionError: the bucket is gone"),
        ("web-0", "Warning", "ConnectionError", "while writing: ConnectionError: the bucket is gone"),
        ("web-0", "Warning", "Error", "nothing at hand"),
    ]
    assert told(broadcaster, seen) == expected


def test_several_objects(
    recorder: kevents.kopf.KopfRecorder, broadcaster: kevents.EventBroadcaster, seen: list[kevents.Event]
) -> None:
    """Lists, tuples, generators and views, nested or empty, stand for several objects."""
    for several in ([POD, OTHER], (POD, [OTHER]), iter([POD, OTHER]), {1: POD, 2: OTHER}.values(), [], [[]]):
        recorder.event(several, "Normal", "R", "m")
    recorder.for_object([POD, OTHER]).normal("R", "m")
    assert [name for name, *_ in told(broadcaster, seen)] == ["web-0", "web-1"] * 5


def test_one_object(
    recorder: kevents.kopf.KopfRecorder, broadcaster: kevents.EventBroadcaster, seen: list[kevents.Event]
) -> None:
    """A mapping, a model or a reference is one object, even if it is iterable."""
    reference = kubernetes.client.V1ObjectReference(api_version="v1", kind="Pod", name="web-0", namespace="default")
    for one in (POD, kopf.Body(POD), reference, kevents.get_reference(POD)):
        recorder.event(one, "Normal", "R", "m")
    assert [name for name, *_ in told(broadcaster, seen)] == ["web-0"] * 4


class Hostile:
    """An object that raises on every use."""

    def __iter__(self) -> Iterator[object]:
        """Yield one object, then raise."""
        yield POD
        raise OSError("gone")

    def __bool__(self) -> bool:
        """Raise."""
        raise OSError("gone")

    __str__ = __repr__ = __bool__  # type: ignore[assignment]


def test_never_raises(recorder: kevents.kopf.KopfRecorder, broadcaster: kevents.EventBroadcaster) -> None:
    """No argument makes the recorder raise into a handler, and each refusal is counted."""
    endless: list[object] = []
    endless.append(endless)
    for objects in (iter(Hostile()), endless, None, "text", b"bytes", 7, [None, POD["metadata"]]):
        recorder.info(objects, "R", "m")
    recorder.exception(POD, message=Hostile(), exc=LookupError())
    refused = broadcaster.statistics().refused
    assert refused == {kevents.DropReason.INVALID_REFERENCE: 8, kevents.DropReason.INVALID_MESSAGE: 1}


def test_strict(api_server: APIServer) -> None:
    """The recorder of a strict broadcaster raises for objects that cannot be iterated, too."""
    with kevents.EventBroadcaster(strict=True) as broadcaster:
        recorder = kevents.kopf.KopfRecorder("an-operator", broadcaster)
        with pytest.raises(kevents.InvalidReferenceError, match="cannot iterate over the objects: OSError: gone"):
            recorder.info(iter(Hostile()), "R", "m")
        with pytest.raises(kevents.InvalidReferenceError):
            recorder.info([None], "R", "m")


def test_is_a_recorder(recorder: kevents.kopf.KopfRecorder, caplog: pytest.LogCaptureFixture) -> None:
    """The recorder satisfies the protocol, and keeps its API with another logger."""
    assert isinstance(recorder, kevents.Recorder)
    other = recorder.with_logger(logging.getLogger("mine"))
    with caplog.at_level(logging.WARNING, logger="mine"):
        other.warn([None], "R")
    assert [record.name for record in caplog.records] == ["mine"]
    assert other.source == recorder.source


def test_two_recorders_of_a_broadcaster(
    recorder: kevents.kopf.KopfRecorder, broadcaster: kevents.EventBroadcaster, api_server: APIServer
) -> None:
    """Recorders of two components share their broadcaster's sink: each event is written once."""
    other = kevents.kopf.KopfRecorder("another", broadcaster)
    other.logged_in(connection(api_server))
    recorder.info(POD, "One", "m")
    other.info(POD, "Two", "m")
    assert broadcaster.flush(10)
    assert sorted(event["reason"] for event in api_server.events()) == ["One", "Two"]
    (watcher,) = broadcaster.statistics().watchers
    assert watcher.sink is not None
    assert 2 == watcher.sink.delivered == len(api_server.requests)


class Untrue(str):
    """A string whose length raises."""

    __slots__ = ()

    def __len__(self) -> int:
        """Raise."""
        raise OSError("gone")


def test_exception_with_hostile_error(
    recorder: kevents.kopf.KopfRecorder, broadcaster: kevents.EventBroadcaster, seen: list[kevents.Event]
) -> None:
    """Misbehaving reasons and messages never replace the recorded exception by another one."""
    recorder.exception(POD, Untrue("R"), LookupError("e"), message=Untrue("m"))
    recorder.exception(POD, None, LookupError("e"), message=None)  # type: ignore[arg-type]
    recorder.exception(POD, Hostile(), LookupError("e"), message="m")  # type: ignore[arg-type]
    expected = [
        ("web-0", "Warning", "R", "m LookupError: e"),
        ("web-0", "Warning", "LookupError", "LookupError: e"),
    ]
    assert told(broadcaster, seen) == expected
    assert broadcaster.statistics().refused == {kevents.DropReason.INVALID_MESSAGE: 1}


@pytest.mark.parametrize("value", [7, "b", object()])
def test_wrong_broadcaster(value: Any) -> None:
    """An invalid broadcaster is refused when the recorder is built."""
    with pytest.raises(TypeError, match=r"broadcaster must be a kevents\.EventBroadcaster"):
        kevents.kopf.install("an-operator", broadcaster=value, registry=kopf.OperatorRegistry())


@pytest.mark.parametrize("value", [None, 7, kevents.EventSource("an-operator")])
def test_wrong_component(value: Any) -> None:
    """An invalid component is refused when the recorder is built."""
    with pytest.raises(TypeError, match="component must be a text"):
        kevents.kopf.install(value, registry=kopf.OperatorRegistry())


def test_drain_is_off_the_loop(
    recorder: kevents.kopf.KopfRecorder, broadcaster: kevents.EventBroadcaster, api_server: APIServer
) -> None:
    """While the cleanup handler waits for the server, the event loop keeps running."""
    recorder.logged_in(connection(api_server))
    rule = api_server.fail(503)
    recorder.info(POD, "R", "m")

    async def clean_up() -> bool:
        draining = asyncio.create_task(recorder.cleanup(30))
        assert await asyncio.to_thread(api_server.wait_for, lambda: rule.hits)
        rule.remove()
        return await draining

    assert asyncio.run(clean_up())
    assert [event["reason"] for event in api_server.events()] == ["R"]
    recorder.info(POD, "Later", "m")
    broadcaster.shutdown()
    assert sorted(event["reason"] for event in api_server.events()) == ["Later", "R"]


def test_drain_beside_a_full_executor(
    recorder: kevents.kopf.KopfRecorder, broadcaster: kevents.EventBroadcaster, api_server: APIServer
) -> None:
    """The cleanup does not use the loop's executor, which blocking work may fill."""
    recorder.logged_in(connection(api_server))
    recorder.info(POD, "R", "m")
    ended = threading.Event()

    async def clean_up() -> bool:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        blocked = loop.run_in_executor(None, ended.wait)
        try:
            return await asyncio.wait_for(recorder.cleanup(), 60)
        finally:
            ended.set()
            await blocked

    assert asyncio.run(clean_up())
    assert [event["reason"] for event in api_server.events()] == ["R"]
    broadcaster.shutdown()


def test_drain_ends(
    recorder: kevents.kopf.KopfRecorder, broadcaster: kevents.EventBroadcaster, api_server: APIServer
) -> None:
    """A cleanup that times out returns False and drops nothing."""
    recorder.logged_in(connection(api_server))
    api_server.fail(503)
    recorder.info(POD, "R", "m")
    assert not asyncio.run(recorder.cleanup(0.05))
    assert broadcaster.statistics().dropped == {}
    assert broadcaster.shutdown(0.05) == 1


def test_drain_without_login(
    recorder: kevents.kopf.KopfRecorder, broadcaster: kevents.EventBroadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a login there is nothing to wait for: kopf logs in no more when it cleans up."""
    monkeypatch.setattr(kubernetes.client.Configuration, "_default", None)
    recorder.info(POD, "R", "m")
    assert not asyncio.run(asyncio.wait_for(recorder.cleanup(1000), 60))
    assert broadcaster.statistics().dropped == {}
    assert broadcaster.shutdown(0.05) == 1


# -- credentials of a login handler ----------------------------------------------------------------------------------


@pytest.mark.wire
class TestConnection(SinkContract):
    """The sink contract with the connection of kopf's login handler."""

    @pytest.fixture
    def make_sink(self, monkeypatch: pytest.MonkeyPatch) -> MakeSink:
        """Log in with a kubeconfig, as kopf does."""

        def make(path: Path, request_timeout: tuple[float, float]) -> kevents.CoreV1EventSink:
            monkeypatch.setenv("KUBECONFIG", str(path))
            sink = LoginSink(request_timeout=request_timeout)
            sink.keep(kopf.login_with_kubeconfig(settings=kopf.OperatorSettings(), logger=logging.getLogger()))
            return sink

        return make


def sink_of(*infos: object) -> LoginSink:
    """A sink that is logged in, one after the other."""
    sink = LoginSink()
    for info in infos:
        sink.keep(info)
    return sink


def test_later_login(api_server: APIServer) -> None:
    """A later login is used for the next request, and the old token is not sent again."""
    api_server.add_user("first", "operator")
    sink = sink_of(connection(api_server, token="first"))
    sink.create("default", event(name="a"))
    api_server.remove_user("operator")
    api_server.add_user("second", "operator")
    sink.keep(connection(api_server, token="second"))
    sink.create("default", event(name="b"))
    assert [e["metadata"]["name"] for e in api_server.events()] == ["a", "b"]
    assert [r.headers["authorization"] for r in api_server.requests] == ["Bearer first", "Bearer second"]


def test_no_credentials_twice(api_server: APIServer) -> None:
    """A login that gave nothing, as kopf's own do when they do not apply, changes nothing."""
    sink = sink_of(connection(api_server), None)
    sink.create("default", event())
    assert len(api_server.events()) == 1


def test_loaded_configuration(api_server: APIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a login handler's connection, the sink uses the loaded process-wide configuration."""
    monkeypatch.setattr(kubernetes.client.Configuration, "_default", None)
    sink = sink_of()
    with pytest.raises(kevents.UnavailableError, match="kopf has not logged in yet"):
        sink.create("default", event())
    configuration = kubernetes.client.Configuration(host=api_server.url)
    configuration.api_key = {"authorization": f"Bearer {api_server.token}"}
    kubernetes.client.Configuration.set_default(configuration)
    assert sink.is_logged_in()
    sink.create("default", event())
    assert [e["metadata"]["name"] for e in api_server.events()] == ["pod.1"]


def test_login_after_the_first_event(api_server: APIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login handler's connection takes precedence from then on, even over a loaded configuration."""
    api_server.add_user("loaded", "somebody")
    configuration = kubernetes.client.Configuration(host=api_server.url)
    configuration.api_key = {"authorization": "Bearer loaded"}
    monkeypatch.setattr(kubernetes.client.Configuration, "_default", configuration)
    sink = sink_of()
    sink.create("default", event())
    sink.patch("default", "pod.1", {"count": 2})
    sink.keep(connection(api_server))
    sink.create("default", event(name="b"))
    sink.patch("default", "b", {"count": 2})
    used = [request.headers["authorization"] for request in api_server.requests]
    assert used == ["Bearer loaded"] * 2 + [f"Bearer {api_server.token}"] * 2


def test_a_login_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink without a login raises an error that says what to do."""
    monkeypatch.setattr(kubernetes.client.Configuration, "_default", None)
    with pytest.raises(kevents.UnavailableError, match=r"return recorder\.logged_in"):
        LoginSink().create("default", {})


def test_several_threads(api_server: APIServer) -> None:
    """Concurrent first requests of several senders all succeed."""
    api_server.fail(Delay(0.02))
    sink = sink_of(connection(api_server))
    threads = [threading.Thread(target=sink.create, args=("default", event(name=f"e-{n}"))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(api_server.events()) == 8


@pytest.mark.parametrize("name", ["../../../pods/x", "a/b?c=d", "100%", "é"])
def test_paths(api_server: APIServer, name: str) -> None:
    """Pitfall 25: no namespace or name leads to another path."""
    part = quote(name, safe="")
    assert events_path("", name) == f"/api/v1/namespaces/{part}/events"
    assert events_path("events.k8s.io", name, name) == f"/apis/events.k8s.io/v1/namespaces/{part}/events/{part}"
    sink = sink_of(connection(api_server))
    with pytest.raises(kevents.StatusError):
        sink.create(name, event(name))
    with pytest.raises(kevents.StatusError):
        sink.patch(name, name, {"count": 2})


@pytest.mark.parametrize(
    "fields",
    [
        {"ca_data": base64.b64encode(b"no certificate").decode()},
        {"ca_data": "no base64"},
        {"ca_data": None, "ca_path": "/nowhere/ca.crt"},
        {"certificate_path": "/nowhere/tls.crt", "private_key_path": "/nowhere/tls.key"},
        {"proxy_url": "no-scheme"},
        {"token": "with\nnewline"},
        {"server": "https://127.0.0.1:1"},
    ],
    ids="-".join,
)
def test_unusable_credentials(api_server: APIServer, fields: dict[str, Any]) -> None:
    """Pitfall 72: unusable credentials lose no event and are in no message; a later login is used."""
    sink = sink_of(connection(api_server, **fields))
    with pytest.raises(kevents.UnavailableError) as caught:
        sink.create("default", event())
    assert "newline" not in str(caught.value)
    sink.keep(connection(api_server))
    sink.create("default", event())
    assert len(api_server.events()) == 1


def test_insecure(api_server: APIServer) -> None:
    """A certificate of another issuer is refused, unless the login switches the check off."""
    sink = sink_of(connection(api_server, ca_data=None))
    with pytest.raises(kevents.UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        sink.create("default", event())
    sink = sink_of(connection(api_server, ca_data=None, insecure=True))
    sink.create("default", event())
    assert len(api_server.events()) == 1


def test_password(api_server: APIServer) -> None:
    """A login by name and password sends both, and no token."""
    sink = sink_of(connection(api_server, token=None, username="me", password="secret"))
    with pytest.raises(kevents.StatusError) as caught:
        sink.create("default", event())
    assert caught.value.code == 403  # an anonymous user for the server
    [request] = api_server.requests
    assert request.headers["authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()


def test_password_without_a_header() -> None:
    """User name and password are sent, even though kopf 1.44 makes no header of them."""
    info: Any = SimpleNamespace(
        server="http://h", proxy_url=None, trust_env=False, as_http_headers=dict, username="me", password="secret"
    )
    assert _endpoint(info).headers() == {"Authorization": "Basic " + base64.b64encode(b"me:secret").decode()}
    info.password = None
    assert _endpoint(info).headers() == {}


def test_proxy(api_server: APIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login's proxy is used; the environment's only where the login trusts the environment."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://env:3128")
    own = "http://me:pw@own:3128"
    assert _endpoint(connection(api_server)).proxy == ""
    assert _endpoint(connection(api_server, trust_env=True)).proxy == "http://env:3128"
    assert _endpoint(connection(api_server, trust_env=True, proxy_url=own)).proxy == own
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert _endpoint(connection(api_server, trust_env=True)).proxy == ""


def test_unusable_kind_of_login(caplog: pytest.LogCaptureFixture) -> None:
    """Credentials that only kopf can use are logged, returned to kopf, and not used for events."""
    with kevents.EventBroadcaster() as broadcaster:
        recorder = kevents.kopf.KopfRecorder("an-operator", broadcaster)
        session = object()
        assert session is recorder.logged_in(session)
        assert None is recorder.logged_in(None)
    assert caplog.messages == ["cannot send events with a object: log in with a kopf.ConnectionInfo"]


# -- kopf running ----------------------------------------------------------------------------------------------------

OPERATOR = """
import kopf, kevents.kopf

recorder = kevents.kopf.install("an-operator", {options})
{login}

@kopf.on.create("example.com", "v1", "widgets")
def create(body, **_):
    recorder.info(body, "Created", "there")
"""
SILENT_LOGIN = """
@kopf.on.login()
def login(**kwargs):
    return kopf.login_with_kubeconfig(**kwargs)
"""


def operator(
    folder: Path,
    server: APIServer,
    *,
    options: str = "",
    login: str = "",
    path: Path | None = None,
    hidden: tuple[str, ...] = (),
) -> Operator:
    """An operator for an embedded server with one widget."""
    server.register("example.com/v1", "Widget", "widgets")
    server.create("example.com/v1", "widgets", {"metadata": {"name": "w", "namespace": "default"}})
    file = folder / "operator.py"
    file.write_text(OPERATOR.format(options=options, login=login), encoding="utf-8")
    return Operator(file, folder, path or server.kubeconfig(), hidden=hidden)


def written(server: APIServer) -> list[str]:
    """The reasons of the stored events."""
    return sorted(event["reason"] for event in server.events())


def test_operator(api_server: APIServer, tmp_path: Path) -> None:
    """One line installs the recorder: the operator records an event and ends silently."""
    with operator(tmp_path, api_server) as running:
        assert api_server.wait_for(lambda: written(api_server) == ["Created"], 60), running.log
        assert running.end() == 0, running.log
        assert running.said(r"\] kevents |Traceback|Warning") == []
    [event] = api_server.events()
    assert (event["source"]["component"], event["involvedObject"]["name"]) == ("an-operator", "w")


LOGGED_IN = """
@kopf.on.login()
def login(**kwargs):
    return recorder.logged_in(kopf.login_with_kubeconfig(**kwargs))
"""


@pytest.mark.parametrize("login", ["", LOGGED_IN], ids=["kopf's own login", "a login handler"])
def test_without_a_client(api_server: APIServer, tmp_path: Path, login: str) -> None:
    """Where only kopf and aiohttp are installed, kevents sends with kopf's credentials and needs no other package."""
    with operator(tmp_path, api_server, login=login, hidden=CLIENTS) as running:
        assert api_server.wait_for(lambda: written(api_server) == ["Created"], 60), running.log
        assert running.end() == 0, running.log
        assert running.said(r"\] kevents |Traceback|Warning") == []


def test_without_a_client_and_another_login(api_server: APIServer, tmp_path: Path) -> None:
    """Without a client, too, kevents never uses another identity than that of the operator's login handler."""
    with operator(tmp_path, api_server, login=SILENT_LOGIN, hidden=CLIENTS) as running:
        running.wait_until(lambda: running.said("kopf has not logged in yet"))
        running.wait_until(lambda: running.said("Creation is processed: 1 succeeded"))
        assert running.end() == 0, running.log
    assert written(api_server) == []


def test_no_login(api_server: APIServer, tmp_path: Path) -> None:
    """Without credentials events wait. One line names the fix, and another the number of lost events at the end."""
    with operator(tmp_path, api_server, login=SILENT_LOGIN) as running:
        running.wait_until(lambda: running.said("kopf has not logged in yet"))
        running.wait_until(lambda: running.said("Creation is processed: 1 succeeded"))
        assert running.end() == 0, running.log
        [line] = running.said("kopf has not logged in yet")
        assert "let that return recorder.logged_in(...)" in line
        assert running.said("shutdown dropped 1 event at its deadline")
    assert written(api_server) == []


def test_no_kubeconfig(api_server: APIServer, tmp_path: Path) -> None:
    """If kopf cannot log in, its error ends the operator, and no other identity is used."""
    options = "); recorder.info({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'p'}}, 'Early', ''"
    with operator(tmp_path, api_server, options=options, path=tmp_path / "nowhere") as running:
        running.wait()
        assert running.said("kopf has not logged in yet"), running.log
        assert running.said("Cannot authenticate|LoginError|no credentials"), running.log
    assert api_server.requests == ()


def test_two_recorders(api_server: APIServer, tmp_path: Path) -> None:
    """Two components in one operator both deliver their events at the end."""
    options = '); other = kevents.kopf.install("another"'
    login = (
        "@kopf.on.cleanup()\ndef late(**_):\n    other.info(WIDGET, 'Late', '')\n    recorder.info(WIDGET, 'Late', '')"
    )
    widget = (
        "WIDGET = {'apiVersion': 'example.com/v1', 'kind': 'Widget', 'metadata': {'name': 'w', 'namespace': 'default'}}"
    )
    with operator(tmp_path, api_server, options=options, login=f"{widget}\n{login}", hidden=CLIENTS) as running:
        assert api_server.wait_for(lambda: written(api_server) == ["Created"], 60), running.log
        assert running.end() == 0, running.log
        assert [
            line.split("'")[1].removeprefix("kevents-") for line in running.said("'kevents-cleanup-.' succeeded")
        ] == ["cleanup-1", "cleanup-2"]
    late = {event["source"]["component"] for event in api_server.events() if event["reason"] == "Late"}
    assert late == {"an-operator", "another"}


@pytest.mark.slow
def test_server_away_at_the_end(api_server: APIServer, tmp_path: Path) -> None:
    """A hanging API server does not keep the operator from ending, and the lost events are logged."""
    with operator(tmp_path, api_server) as running:
        api_server.fail(Hang(), path="/events")
        running.wait_until(lambda: running.said("Creation is processed: 1 succeeded"))
        assert running.end() == 0, running.log
        assert running.said("shutdown dropped 1 event at its deadline")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # kopf may leave its session open when it is stopped immediately
def test_run_twice(api_server: APIServer, broadcaster: kevents.EventBroadcaster) -> None:
    """An operator that runs twice in a process with its own registry delivers its events at each end."""
    registry = kopf.OperatorRegistry()
    recorder = kevents.kopf.install("an-operator", broadcaster=broadcaster, registry=registry, silence_kopf=True)
    drained: list[int] = []

    @kopf.on.login(registry=registry)
    async def login(**_: object) -> kopf.ConnectionInfo:
        return recorder.logged_in(connection(api_server))

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: object) -> None:
        recorder.info([POD, OTHER], "Ended", f"run {len(drained)}")

    for run in (1, 2):
        settings = kopf.OperatorSettings()
        ready, stop = threading.Event(), threading.Event()
        stopper = threading.Thread(target=lambda ready, stop: ready.wait(60) and stop.set(), args=(ready, stop))
        stopper.start()
        kopf.run(
            registry=registry, settings=settings, standalone=True, clusterwide=True, ready_flag=ready, stop_flag=stop
        )
        stopper.join()
        assert not settings.posting.enabled
        drained.append(len(api_server.events()))
        assert drained[-1] == 2 * run
    gc.collect()


def test_without_kopf() -> None:
    """Without kopf the import names the extra."""
    code = "import sys; sys.modules['kopf'] = None; import kevents.kopf"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "ImportError: kevents.kopf needs kopf: pip install 'kevents[kopf]'" in done.stderr


def test_bodies_of_kopf(
    recorder: kevents.kopf.KopfRecorder, broadcaster: kevents.EventBroadcaster, seen: list[kevents.Event]
) -> None:
    """Pitfall 14: a body, which is a live view in daemons and timers, is read during the call."""
    source = json.loads(json.dumps(POD))
    body = kopf.Body(source)
    recorder.info(body, "R", "m")
    source["metadata"]["name"] = "changed"
    assert [name for name, *_ in told(broadcaster, seen)] == ["web-0"]
