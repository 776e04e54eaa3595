"""The sink with the official client: the sink contract, and its own behaviour."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import importlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from unittest.mock import MagicMock
from urllib.parse import urlsplit

import pytest
from kubernetes import client, config
from tenacity import wait_none

from kevents import CoreV1EventSink, EventBroadcaster, EventSink, StatusError, UnavailableError
from kevents._clients.endpoint import Endpoint
from kevents._clients.sync import Connection, ConnectionPool
from kevents.events import EventsV1EventSink
from kevents.testing import APIServer, Hang, Reset
from kevents.testing._apiserver.server import self_signed

pytest.register_assert_rewrite("tests.clients.sink_contract")

from tests.clients.sink_contract import (  # noqa: E402
    PATCH,
    MakeSink,
    SeriesContract,
    SeriesFaults,
    SinkContract,
    event,
    kubeconfig,
    refusal,
)

pytestmark = pytest.mark.wire

ROOT: Final = Path(__file__).parents[2]
SECRET: Final = "s3cret-0f-the-test"
POD: Final = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "default", "uid": "u-1"}}

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


class Synchronous:
    """The sink that finds its server by itself."""

    unavailable = (UnavailableError,)
    sink_class: type[CoreV1EventSink | EventsV1EventSink] = CoreV1EventSink

    @pytest.fixture
    def make_sink(self, monkeypatch: pytest.MonkeyPatch) -> MakeSink:
        """Make sinks that read the kubeconfig in the environment."""

        def make(kubeconfig: Path, request_timeout: tuple[float, float]) -> EventSink:
            monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
            return self.sink_class(request_timeout=request_timeout)

        return make


class TestContract(Synchronous, SinkContract):
    """The contract for core/v1."""


class TestSeriesContract(Synchronous, SeriesContract):
    """The contract for events.k8s.io/v1."""

    sink_class = EventsV1EventSink


@pytest.mark.slow
class TestSeriesFaults(Synchronous, SeriesFaults):
    """The same answers and faults for events.k8s.io/v1, where the sink differs in the path alone."""

    sink_class = EventsV1EventSink


@pytest.fixture(autouse=True)
def no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the process-wide configuration for the test, and restore it."""
    monkeypatch.setattr(client.Configuration, "_default", None)


@pytest.fixture
def server_config(api_server: APIServer, tmp_path: Path) -> Path:
    """The kubeconfig of the embedded server."""
    return kubeconfig(api_server, tmp_path)


def connected(path: Path, **settings: Any) -> client.ApiClient:
    """A client for a kubeconfig, with these settings."""
    configuration = client.Configuration()
    config.load_kube_config(str(path), client_configuration=configuration)
    return configured(configuration, **settings)


def configured(configuration: client.Configuration | None = None, **settings: Any) -> client.ApiClient:
    """A client with these settings that does not retry."""
    configuration = configuration or client.Configuration()
    for name, value in {"retries": False, **settings}.items():
        setattr(configuration, name, value)
    return client.ApiClient(configuration=configuration)


def names(server: APIServer) -> list[str]:
    """The names of the stored events."""
    return sorted(stored["metadata"]["name"] for stored in server.events())


def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# The argument ``api``


FORMS: Final[dict[str, Callable[[Path], object]]] = {
    "a CoreV1Api": lambda path: client.CoreV1Api(connected(path)),
    "an ApiClient": connected,
    "a callable that gives a CoreV1Api": lambda path: lambda: client.CoreV1Api(connected(path)),
    "a callable that gives an ApiClient": lambda path: lambda: connected(path),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_forms(api_server: APIServer, server_config: Path, form: Callable[[Path], object]) -> None:
    """The sink accepts an api, a client, and a callable that returns either."""
    sink = CoreV1EventSink(form(server_config))
    sink.create("default", event())
    sink.patch("default", "pod.1", dict(PATCH))
    assert ([stored["count"] for stored in api_server.events()], api_server.connections) == ([2], 1)


def test_a_class_is_a_callable(api_server: APIServer, server_config: Path) -> None:
    """The class CoreV1Api is accepted as a callable; its api uses the process-wide default configuration."""
    config.load_kube_config(str(server_config))
    CoreV1EventSink(client.CoreV1Api).create("default", event())
    assert names(api_server) == ["pod.1"]


def test_process_wide_default(api_server: APIServer, server_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process-wide default configuration takes precedence, even if it is loaded after the sink is built."""
    monkeypatch.setenv("KUBECONFIG", "no-such-file")
    sink = CoreV1EventSink()
    config.load_kube_config(str(server_config))
    before = dict(vars(client.Configuration._default))
    sink.create("default", event())
    assert names(api_server) == ["pod.1"]
    assert vars(client.Configuration._default) == before


def test_in_cluster(api_server: APIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cluster the service account takes precedence over the kubeconfig."""
    for variable, constant, text in (
        ("token", "SERVICE_TOKEN_FILENAME", api_server.token),
        ("ca", "SERVICE_CERT_FILENAME", api_server.ca),
    ):
        (tmp_path / variable).write_text(text, encoding="utf-8")
        monkeypatch.setattr(config.incluster_config, constant, str(tmp_path / variable))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api_server.port))
    monkeypatch.setenv("KUBECONFIG", "no-such-file")
    CoreV1EventSink().create("default", event())
    assert names(api_server) == ["pod.1"]


def test_several_kubeconfigs(api_server: APIServer, server_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG may list several files, and is read at the first send."""
    sink = CoreV1EventSink()
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(server_config), str(server_config)]))
    sink.create("default", event())
    assert names(api_server) == ["pod.1"]


def test_credentials_that_come_later(api_server: APIServer, server_config: Path) -> None:
    """A callable without credentials yet may raise UnavailableError. It is called again until it returns an api."""
    answers: list[object] = [
        UnavailableError("not logged in yet", retry_after=3),
        ValueError("no"),
        connected(server_config),
    ]
    asked = []

    def factory() -> object:
        asked.append(1)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    sink = CoreV1EventSink(factory)
    assert asked == []
    with pytest.raises(UnavailableError, match="not logged in yet") as caught:
        sink.create("default", event())
    assert caught.value.retry_after == 3
    with pytest.raises(UnavailableError, match="raised ValueError: no"):
        sink.create("default", event())
    for number in range(3):
        sink.create("default", event(name=f"pod.{number}"))
    assert (len(asked), len(api_server.events())) == (3, 3)


def test_waiting_for_credentials(api_server: APIServer, server_config: Path) -> None:
    """Events recorded before credentials exist are delivered later."""
    ready, asked = threading.Event(), threading.Event()

    def factory() -> client.ApiClient:
        asked.set()
        if not ready.is_set():
            raise UnavailableError("not logged in yet")
        return connected(server_config)

    with EventBroadcaster(sleep_duration=0.01) as broadcaster:
        broadcaster.start_recording_to_sink(CoreV1EventSink(factory))
        broadcaster.new_recorder("c").event(POD, "Normal", "Early", "m")
        assert asked.wait(60)
        ready.set()
        assert broadcaster.flush(10)
    assert [stored["reason"] for stored in api_server.events()] == ["Early"]


@pytest.mark.parametrize("answer", [None, "x", 7, object(), object])
def test_callable_that_gives_nothing(answer: object) -> None:
    """A callable that returns no client is Unavailable."""
    with pytest.raises(UnavailableError, match="must return a CoreV1Api or ApiClient, not "):
        CoreV1EventSink(lambda: answer).create("default", event())


class AsyncApi:
    """An asynchronous client's api."""

    async def create_namespaced_event(self, namespace: str, body: object) -> None:
        """Send nothing."""


class OldAsyncApi:
    """An asynchronous api whose methods do not look like coroutine functions."""

    def create_namespaced_event(self, namespace: str, body: object, **options: object) -> object:
        """Return a coroutine."""
        return AsyncApi().create_namespaced_event(namespace, body)


async def async_factory() -> None:
    """Return nothing."""


@pytest.mark.parametrize(
    ("api", "said"),
    [
        ("https://127.0.0.1", "not builtins.str"),
        (7, "not builtins.int"),
        ({"host": "h"}, "not builtins.dict"),
        (client.Configuration(), "not kubernetes.client.configuration.Configuration"),
        (client.EventsV1Api(client.ApiClient(client.Configuration())), "EventsV1Api"),
        (AsyncApi(), "asynchronous"),
        (async_factory, "asynchronous"),
    ],
)
def test_no_client(api: object, said: str) -> None:
    """The constructor refuses anything but a client of the right kind."""
    with pytest.raises(TypeError, match=re.escape(said)):
        CoreV1EventSink(api)


@pytest.mark.parametrize("package", ["kubernetes.aio", "kubernetes_asyncio"])
@pytest.mark.parametrize("sink", [CoreV1EventSink, EventsV1EventSink])
def test_asynchronous_client(package: str, sink: type[CoreV1EventSink | EventsV1EventSink]) -> None:
    """Clients of asynchronous packages are refused at construction, with the name of the right sink."""
    pytest.importorskip(package)
    pytest.importorskip("aiohttp")
    theirs, configs = (importlib.import_module(f"{package}.{name}") for name in ("client", "config"))
    api = getattr(theirs, sink.__name__.replace("EventSink", "Api"))

    async def given() -> list[object]:
        async with theirs.ApiClient(theirs.Configuration()) as its_client:
            return [its_client, api(its_client), type("Mine", (api,), {})(its_client)]

    for thing in (*asyncio.run(given()), api, theirs.ApiClient, configs.new_client_from_config):
        with pytest.raises(TypeError, match=rf"not an asynchronous one: use kevents\.aio\.{sink.__name__}"):
            sink(thing)


def test_hidden_coroutine() -> None:
    """An asynchronous api that was not recognised raises at the send. The coroutine is closed."""
    with pytest.raises(TypeError, match="asynchronous"):
        CoreV1EventSink(OldAsyncApi()).create("default", event())


@pytest.mark.parametrize(
    "timeout",
    [5, None, "5", (5,), (1, 2, 3), (0, 1), (1, 0), (-1, 1), (float("nan"), 1), (1, float("inf")), (True, 1), ("5", 1)],
)
def test_timeout_that_is_none(timeout: Any) -> None:
    """Pitfall 59: an invalid timeout is refused at construction."""
    with pytest.raises(ValueError, match="request_timeout"):
        CoreV1EventSink(MagicMock(), request_timeout=timeout)


def test_doubles() -> None:
    """A test double of the api is accepted. Each call has a timeout, and asks for the raw response."""
    api = MagicMock()
    sink = CoreV1EventSink(api)
    sink.create("ns", {"count": 1})
    sink.within(2).patch("ns", "n", {"count": 2})
    raw = {"_preload_content": False}
    api.create_namespaced_event.assert_called_once_with("ns", {"count": 1}, _request_timeout=(5.0, 15.0), **raw)
    api.patch_namespaced_event.assert_called_once_with("n", "ns", {"count": 2}, _request_timeout=(2, 2), **raw)
    for answer in (None, b"", {"kind": "Event"}, object()):
        api.create_namespaced_event.return_value = answer
        sink.create("ns", {})


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("the message has no header"), ValueError),
        (TypeError("'x' is not JSON"), ValueError),
        (AttributeError("openapi_types"), ValueError),
        (client.ApiException(status=0, reason="SSLError\nbad"), UnavailableError),
        (client.ApiException(), UnavailableError),
        (client.ApiException(status=418, reason="I'm a teapot"), StatusError),
        (config.ConfigException("no token"), UnavailableError),
        (ConnectionResetError(), ConnectionResetError),
        (RuntimeError("anything"), RuntimeError),
    ],
)
def test_errors_of_the_client(raised: Exception, expected: type[Exception]) -> None:
    """Exceptions of the client are translated. Unknown ones, and those not about the request, are unchanged."""
    api = MagicMock()
    api.create_namespaced_event.side_effect = raised
    with pytest.raises(expected) as caught:
        CoreV1EventSink(api).create("default", {})
    assert expected is type(caught.value)


# Imports


def child(script: str, **environment: str) -> dict[str, Any]:
    """The JSON that a script prints in its own process."""
    env = {**os.environ, "PYTHONWARNINGS": "error::ResourceWarning", **environment}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_imports(api_server: APIServer, server_config: Path) -> None:
    """A sink that connects by itself never loads the official client or asyncio."""
    script = """
import json, sys, kevents
before = set(sys.modules)
with kevents.EventBroadcaster() as broadcaster:
    broadcaster.start_recording_to_sink(kevents.CoreV1EventSink())
    broadcaster.new_recorder("c").event(POD, "Normal", "R", "m")
    broadcaster.flush(10)
    sent = broadcaster.statistics().watchers[0].sink.delivered
heavy = ("kubernetes", "pydantic", "urllib3", "requests", "aiohttp", "asyncio")
print(json.dumps({"sent": sent, "loaded": sorted(set(sys.modules) & set(heavy))}))
""".replace("POD", repr(POD))
    assert child(script, KUBECONFIG=str(server_config)) == {"sent": 1, "loaded": []}


def test_imports_of_a_client(server_config: Path) -> None:
    """Pitfall 79: a given client is imported when the sink is built, and not at the first send."""
    script = """
import json, sys, kevents
sink = kevents.CoreV1EventSink(lambda: None)
before = set(sys.modules)
import kubernetes.client as client
print(json.dumps({"late": sorted(set(sys.modules) - before), "default": client.Configuration._default is not None}))
"""
    assert child(script, KUBECONFIG=str(server_config)) == {"late": [], "default": False}


def test_building_connects_to_nothing(
    api_server: APIServer, server_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building a sink opens no connection, reads no kubeconfig and starts no thread."""
    threads = threading.active_count()
    monkeypatch.setenv("KUBECONFIG", "no-such-file")
    CoreV1EventSink()
    CoreV1EventSink(connected(server_config))
    assert (api_server.connections, threading.active_count()) == (0, threads)


def test_the_default_is_never_set(api_server: APIServer, server_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process-wide default configuration is never set."""
    monkeypatch.setenv("KUBECONFIG", str(server_config))
    CoreV1EventSink().create("default", event())
    assert client.Configuration._default is None
    assert names(api_server) == ["pod.1"]


# Connections


def test_retries_are_off(api_server: APIServer, server_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that kevents builds does not retry: retries are left to the work queue."""
    monkeypatch.setenv("KUBECONFIG", str(server_config))
    sink = CoreV1EventSink()
    api_server.fail(Reset())
    with pytest.raises(UnavailableError):
        sink.create("default", event())
    assert (len(api_server.requests), api_server.connections) == (1, 1)


def test_a_dead_port_is_tried_once(monkeypatch: pytest.MonkeyPatch, server_config: Path) -> None:
    """A client that kevents builds does not retry a refused connection."""
    tries: list[object] = []
    path = edited(server_config, server=f"https://127.0.0.1:{free_port()}")
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr(socket.socket, "connect", lambda sock, address: tries.append(address) or _refuse())
    with pytest.raises(UnavailableError):
        CoreV1EventSink().create("default", event())
    assert len(tries) == 1


def _refuse() -> None:
    raise ConnectionRefusedError(111, "Connection refused")


def test_shorter_timeouts(api_server: APIServer, server_config: Path) -> None:
    """`within` returns the same sink with shorter timeouts, for the last requests of a process."""
    sink = CoreV1EventSink(connected(server_config))
    sink.create("default", event())
    began = time.monotonic()
    with api_server.fail(Hang()), pytest.raises(UnavailableError):
        sink.within(0.1).patch("default", "pod.1", dict(PATCH))
    assert time.monotonic() - began < 12  # the sink's own timeout is 15 s
    assert "(5.0, 15.0)" in repr(sink)


@contextlib.contextmanager
def raw_server(answer: bytes, *, hold: bool) -> Iterator[str]:
    """A server that sends one answer, byte for byte, and then closes the connection or waits for the client."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            connection.settimeout(60)
            with connection, connection.makefile("rb") as stream:
                length = 0
                while (line := stream.readline().strip()) != b"":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                stream.read(length)
                with contextlib.suppress(ConnectionError):
                    connection.sendall(answer)
                    if hold:
                        stream.read(1)  # until the client closes the connection

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(30)
        assert not thread.is_alive(), "the client keeps a connection that it cannot use again"


HEAD: Final = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n"
CUT_OFF: Final = {
    "half a body": HEAD + b'Content-Length: 100\r\n\r\n{"kind":',
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n20\r\n{",
    "no chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "half a gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 90\r\n\r\n" + gzip.compress(b"x" * 999)[:15],
}


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("answer", CUT_OFF.values(), ids=CUT_OFF.keys())
def test_success_with_a_broken_answer(answer: bytes, *, hold: bool) -> None:
    """Pitfall 35: after a success status the write is done, even if the rest of the answer is broken."""
    with raw_server(answer, hold=hold) as url:
        sink = CoreV1EventSink(configured(host=url), request_timeout=(1, 0.2))
        sink.create("default", event())
    assert sink


def test_success_that_cannot_be_decoded() -> None:
    """Pitfall 35: a success with a wrong Content-Encoding is a success."""
    answer = HEAD + b"Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\nno gzip"
    with raw_server(answer, hold=False) as url:
        CoreV1EventSink(configured(host=url)).create("default", event())


def test_success_with_a_huge_answer() -> None:
    """Pitfall 78: the sink does not wait for the rest of a huge answer, and closes the connection."""
    began = time.monotonic()
    with raw_server(HEAD + b"Content-Length: 4000000\r\n\r\n" + b"x" * 1_500_000, hold=True) as url:
        sink = CoreV1EventSink(configured(host=url))
        sink.create("default", event())
        assert time.monotonic() - began < 12  # the timeout is 15 s
    assert sink


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", b"SSH-2.0-OpenSSH\r\n", b"\x15\x03\x01\x00\x02\x02\x16"])
@pytest.mark.parametrize("hold", [False, True])
def test_no_http(answer: bytes, *, hold: bool) -> None:
    """A server that does not speak HTTP is Unavailable."""
    with raw_server(answer, hold=hold) as url, pytest.raises(UnavailableError):
        CoreV1EventSink(configured(host=url), request_timeout=(1, 0.2)).create("default", event())


def test_redirects_are_not_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server_config: Path) -> None:
    """Pitfall 75: a client that kevents builds does not follow redirects, so that the token is sent nowhere else."""
    with APIServer() as other:
        answer = f"HTTP/1.1 307 Moved\r\nLocation: {other.url}/x\r\nContent-Length: 0\r\n\r\n".encode()
        with raw_server(answer, hold=False) as url:
            monkeypatch.setenv("KUBECONFIG", str(edited(server_config, server=url)))
            assert refusal(CoreV1EventSink().create, "default", event()).code == 307
        assert other.requests == ()


# Credentials


def test_renewed_credentials(api_server: APIServer, server_config: Path) -> None:
    """Pitfall 42: after a 401 a callable is called again, and its new credentials are used."""
    api_server.add_user(SECRET, "late")
    tokens = ["expired", SECRET]
    sink = CoreV1EventSink(lambda: connected(edited(server_config, token=tokens.pop(0))))
    assert refusal(sink.create, "default", event()).code == 401
    sink.create("default", event())
    sink.create("default", event(name="pod.2"))
    assert (names(api_server), tokens) == (["pod.1", "pod.2"], [])


def test_renewed_kubeconfig(api_server: APIServer, server_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 42: after a 401 the kubeconfig is read again."""
    path = edited(server_config, token="expired")
    monkeypatch.setenv("KUBECONFIG", str(path))
    sink = CoreV1EventSink()
    assert refusal(sink.create, "default", event()).code == 401
    path.write_text(server_config.read_text(encoding="utf-8"), encoding="utf-8")
    sink.create("default", event())
    assert names(api_server) == ["pod.1"]


def test_refused_credentials_of_a_client(api_server: APIServer, server_config: Path) -> None:
    """After a 401 a given client and its connection are kept."""
    sink = CoreV1EventSink(connected(server_config))
    api_server.fail(401, times=2)
    for _ in range(2):
        assert refusal(sink.create, "default", event()).code == 401
    sink.create("default", event())
    assert api_server.connections == 1


def edited(path: Path, *, server: str = "", token: str = "", ca: str = "") -> Path:
    """A copy of a kubeconfig with another server, token or certificate authority."""
    content = json.loads(path.read_text(encoding="utf-8"))
    cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
    cluster["server"] = server or cluster["server"]
    user["token"] = token or user["token"]
    if ca:
        del cluster["certificate-authority-data"]
        cluster["certificate-authority"] = ca
    copied = path.with_name(f"{path.name}-edited")
    copied.write_text(json.dumps(content), encoding="utf-8")
    return copied


BROKEN: Final = {
    "no YAML": ("users:\n- user: {token: TOKEN\n  x: [\n", "ParserError"),
    "empty": ("", "file is empty"),
    "a text": ("hello TOKEN", "kubeconfig"),
    "a list": ("[1, TOKEN]", "kubeconfig"),
    "no context": ('{"users": [{"name": "u", "user": {"token": "TOKEN"}}]}', "current-context"),
    "a context that is not there": (
        '{"current-context": "c", "contexts": [], "clusters": [], "users": []}',
        "with name c",
    ),
    "no text for a server": (
        """{"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": 7}}], "users": [{"name": "u", "user": {"token": "TOKEN"}}]}""",
        "'int' object",
    ),
    "binary": ("\x00\x01TOKEN", "ReaderError"),
}


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    """An unusable kubeconfig is UnavailableError: one line with its path, the reason and the fix."""
    path = tmp_path / "config"
    path.write_text(text.replace("TOKEN", SECRET), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert_told(CoreV1EventSink(), str(path), said, "set KUBECONFIG, or give kevents.CoreV1EventSink an api")


def test_missing_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a missing kubeconfig has its path."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert_told(CoreV1EventSink(), str(tmp_path / "none"), "not in a cluster", "No configuration found")


def test_unreachable(server_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for an unreachable server has its address and the reason."""
    port = free_port()
    monkeypatch.setenv("KUBECONFIG", str(edited(server_config, server=f"https://127.0.0.1:{port}")))
    assert_told(CoreV1EventSink(), "127.0.0.1", str(port), "refused")


def test_unknown_host(server_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 40: the error for an unknown host has its name."""
    monkeypatch.setenv("KUBECONFIG", str(edited(server_config, server="https://no-such-host.invalid")))
    assert_told(CoreV1EventSink(), "no-such-host.invalid", "resolve")


@pytest.mark.parametrize("built_by_user", [False, True])
def test_wrong_authority(
    server_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, built_by_user: bool
) -> None:
    """Pitfall 75: a server with a certificate of another issuer is refused, with the reason."""
    (tmp_path / "ca").write_text(self_signed(["127.0.0.1"]).certificate, encoding="utf-8")
    path = edited(server_config, ca=str(tmp_path / "ca"))
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert_told(CoreV1EventSink(connected(path, retries=None) if built_by_user else None), "CERTIFICATE_VERIFY_FAILED")


def test_missing_authority(server_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing certificate authority file is UnavailableError."""
    monkeypatch.setenv("KUBECONFIG", str(edited(server_config, ca=str(tmp_path / "none"))))
    assert_told(CoreV1EventSink())


def assert_told(sink: EventSink, *said: str) -> None:
    """Check that a send is Unavailable, and that the error is one line with these parts and no secret."""
    with pytest.raises(UnavailableError) as caught:
        sink.create("default", event())
    text = str(caught.value)
    assert [part for part in said if part not in text] == [], text
    assert "\n" not in text
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# Secrets


def with_token(token: str) -> Callable[[str], client.ApiClient]:
    """A function that makes clients with a token, for all versions of the client."""
    return lambda url: configured(host=url, api_key={"authorization": token, "BearerToken": token})


def with_password(url: str) -> client.ApiClient:
    """A client with user and password."""
    made = configured(host=url, username="user", password=SECRET)
    made.set_default_header("X-Secret", SECRET)
    return made


SECRETIVE: Final[dict[str, Callable[[str], client.ApiClient]]] = {
    "token": with_token(f"Bearer {SECRET}"),
    "token with a line break": with_token(f"Bearer {SECRET}\n"),
    "token with a line break within": with_token(f"Bearer {SECRET}\nX: {SECRET}"),
    "token in no header's alphabet": with_token(f"Bearer {SECRET}€"),
    "user and password": with_password,
    "user and password in the URL": lambda url: configured(host=url.replace("//", f"//user:{SECRET}@")),
    "the same, port unreadable": lambda url: configured(host=f"http://user:{SECRET}@127.0.0.1:port"),
    "the same, password with a slash": lambda url: configured(host=f"http://user:{SECRET}/x@127.0.0.1:80"),
    "proxy": lambda url: configured(host=url, proxy=f"http://user:{SECRET}@127.0.0.1:{free_port()}"),
    "proxy of an unknown kind": lambda url: configured(host=url, proxy=f"foo://user:{SECRET}@127.0.0.1:1"),
}


@pytest.mark.parametrize("make", SECRETIVE.values(), ids=SECRETIVE.keys())
def test_no_secret_in_output(
    api_server: APIServer, make: Callable[[str], client.ApiClient], caplog: pytest.LogCaptureFixture
) -> None:
    """Pitfall 72: no credential is in a repr, an exception, a traceback or a log line."""
    caplog.set_level(logging.DEBUG)
    warned = Warned()
    sink = CoreV1EventSink(lambda: make(api_server.url))
    with pytest.raises((StatusError, UnavailableError)) as caught:
        sink.create("default", event())
    shown = [repr(caught.value), str(caught.value), *traceback.format_exception(caught.value), repr(sink)]
    broadcaster = EventBroadcaster(sleep_duration=0.01)
    with warned:
        broadcaster.start_recording_to_sink(sink, retry_wait=wait_none())
        broadcaster.new_recorder("c").event(POD, "Normal", "Reason", "m")
        assert warned.once.wait(60)
        broadcaster.shutdown(0)
    assert "kevents" in caplog.text
    assert [text for text in (*shown, caplog.text, str(broadcaster.statistics())) if SECRET in text] == []


class Warned(logging.Handler):
    """Waits for the first warning of kevents."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.once = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Note the warning, after the earlier handlers."""
        if record.name == "kevents":
            self.once.set()

    def __enter__(self) -> Warned:
        """Add the handler."""
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the handler."""
        logging.getLogger().removeHandler(self)


def test_unusable_token_loses_nothing(api_server: APIServer, server_config: Path) -> None:
    """A token that makes no valid header is Unavailable: the event waits for a better token."""
    tokens = [f"{SECRET}\n", SECRET]
    api_server.add_user(SECRET, "late")
    sink = CoreV1EventSink(lambda: with_token(f"Bearer {tokens[0]}")(api_server.url))
    with pytest.raises(UnavailableError, match="the client's credentials make no valid header"):
        sink.create("default", event(message="Invalid header value"))


# After a fork


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_after_fork(api_server: APIServer, server_config: Path, form: Callable[[Path], object]) -> None:
    """Pitfall 21: after `after_fork` the child has a new connection. A given client keeps its own for the parent."""
    given = form(server_config)
    parent, child_ = CoreV1EventSink(given), CoreV1EventSink(given)
    parent.create("default", event(name="pod.1"))
    child_.after_fork()
    child_.create("default", event(name="pod.2"))
    parent.create("default", event(name="pod.3"))
    child_.create("default", event(name="pod.4"))
    assert [request.connection for request in api_server.requests] == [1, 2, 1, 2]


def test_after_fork_of_one_shared_client(api_server: APIServer, server_config: Path) -> None:
    """Pitfall 21: a callable that always returns the same client does not share its connections over a fork."""
    shared = connected(server_config)
    shared.set_default_header("X-Kept", "yes")
    sink = CoreV1EventSink(lambda: client.CoreV1Api(shared))
    sink.create("default", event(name="pod.1"))
    sink.after_fork()
    sink.create("default", event(name="pod.2"))
    assert [(seen.connection, seen.headers.get("x-kept")) for seen in api_server.requests] == [(1, "yes"), (2, "yes")]


def test_after_fork_while_connecting(
    api_server: APIServer, server_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 21: the parent's lock, held by a thread that is not in the child, does not matter there."""
    monkeypatch.setenv("KUBECONFIG", str(server_config))
    direct, through_client = CoreV1EventSink(), CoreV1EventSink(connected(server_config))
    with direct._transport._lock, through_client._transport._source._lock:
        for number, sink in enumerate((direct, through_client)):
            sink.after_fork()
            sink.create("default", event(name=f"pod.{number}"))
    assert names(api_server) == ["pod.0", "pod.1"]


@needs_fork
@pytest.mark.parametrize("given", ["None", "config.new_client_from_config(), config.new_client_from_config"])
def test_fork(api_server: APIServer, server_config: Path, given: str) -> None:
    """Pitfall 21: a real forked child opens its own connection, and the parent's stays usable."""
    script = f"""
import json, os, kevents
{"from kubernetes import config" if "config" in given else ""}

def body(name):
    return {{**BODY, "metadata": {{**BODY["metadata"], "name": name}}}}

def fork(number, sink):
    sink.create("default", body(f"{{number}}.before"))
    pid = os.fork()
    if pid == 0:
        sink.after_fork()
        sink.create("default", body(f"{{number}}.child"))
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    sink.create("default", body(f"{{number}}.after"))
    return status

print(json.dumps({{number: fork(number, kevents.CoreV1EventSink(given)) for number, given in enumerate([{given}])}}))
""".replace("BODY", repr(event()))
    forks = range(given.count(",") + 1)
    assert child(script, KUBECONFIG=str(server_config)) == {str(number): 0 for number in forks}
    used = [2 * number + connection for number in forks for connection in (1, 2, 1)]
    assert [request.connection for request in api_server.requests] == used


def test_garbage_in_any_order(api_server: APIServer) -> None:
    """Connections of a sink that is garbage are closed, even if the garbage collector comes to their sockets first."""
    url = urlsplit(api_server.url)
    gc.disable()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        sock = socket.create_connection((url.hostname, url.port))
        pool = ConnectionPool(Endpoint(api_server.url, None, dict))
        connection = Connection(Endpoint(api_server.url, None, dict), 5)
        connection.sock = sock
        pool._idle.append(connection)
        cycle: list[object] = [pool]
        cycle.append(cycle)
        del sock, pool, connection, cycle
        gc.enable()
        gc.collect()
    assert [str(each.message) for each in warned] == []


# Doubles of an api


class Double:
    """A test double of ``CoreV1Api``: it records the names of events, and raises the given error.

    Attributes:
        names: Names of the created events.
    """

    def __init__(self, error: Exception | None = None, stumble: Exception | None = None) -> None:
        self.names: list[str] = []
        self._error = error
        self._stumble = stumble

    def create_namespaced_event(self, namespace: str, body: dict[str, Any], **options: Any) -> object:
        """Record the name."""
        self.names.append(body["metadata"]["name"])
        if self._error is None:
            return None
        try:
            raise self._error  # noqa: TRY301 - an error raised while this is handled has it as its context
        except Exception:
            if self._stumble is None:
                raise
            raise self._stumble  # noqa: B904 - as the client does: its context is what it stumbled over


def test_after_fork_of_a_double() -> None:
    """A test double of an api is used unchanged in a child, since it has no known connections."""
    double = Double()
    sink = CoreV1EventSink(double)
    sink.create("default", event(name="pod.1"))
    sink.after_fork()
    sink.create("default", event(name="pod.2"))
    assert double.names == ["pod.1", "pod.2"]


@pytest.mark.parametrize(
    "stumble", [UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), AttributeError("no decode")], ids=repr
)
def test_a_client_that_stumbles(stumble: Exception) -> None:
    """If the client fails to decode a refusal, as version 36 does, the refusal is raised. Other failures are not."""
    with pytest.raises(StatusError) as caught:
        CoreV1EventSink(Double(client.ApiException(status=422, reason="no"), stumble)).create("default", event())
    assert caught.value.code == 422
    with pytest.raises(Exception, match=str(stumble)[:10]) as odd:
        CoreV1EventSink(Double(LookupError(), stumble)).create("default", event())
    assert not isinstance(odd.value, StatusError | UnavailableError)


# A real server


@pytest.mark.e2e
def test_threads_on_a_real_server(real_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four senders with one sink write a hundred events to a real server, each once."""
    monkeypatch.setenv("KUBECONFIG", str(real_server.kubeconfig("recorder")))
    with EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(CoreV1EventSink())
        recorder = broadcaster.new_recorder("c")
        for number in range(100):
            pod = {**POD, "metadata": {"name": f"thread-{number}", "namespace": "default", "uid": f"u-{number}"}}
            recorder.event(pod, "Normal", "Threaded", "m")
        assert broadcaster.flush(30)
        sink = broadcaster.statistics().watchers[0].sink
    assert sink is not None
    assert (sink.delivered, dict(sink.dropped)) == (100, {})
    found = real_server.kubectl("get", "events", "--field-selector=reason=Threaded", "-o", "name").split()
    assert len(found) == 100
