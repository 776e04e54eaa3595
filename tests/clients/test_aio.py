"""The asynchronous sink, over aiohttp and over a given client: the sink contract, and its own behaviour."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kevents import CorrelatorOptions, ObjectReference, StatusError, UnavailableError, aio
from kevents.testing import APIServer, Hang, Status

pytest.register_assert_rewrite("tests.clients.sink_contract")

from tests.clients.sink_contract import (  # noqa: E402
    MakeSink,
    SeriesContract,
    SeriesFaults,
    SinkContract,
    event,
    kubeconfig,
    refusal,
)
from tests.support.aio import Loop, Plain  # noqa: E402
from tests.support.programs import Programs  # noqa: E402

# Python 3.10 warns about a TLS connection that was reset and not closed.
LEFT_OPEN = r"ignore:.*<function _SSLProtocolTransport\.__del__:pytest.PytestUnraisableExceptionWarning"
OLD = sys.version_info < (3, 11)
pytestmark = [pytest.mark.wire, *([pytest.mark.filterwarnings(LEFT_OPEN)] if OLD else [])]

POD = ObjectReference(kind="Pod", api_version="v1", namespace="default", name="web-0", uid="u")
ROOT = Path(__file__).parents[2]
PACKAGES = ["kubernetes.aio", "kubernetes_asyncio"]
DIRECT = "direct"
AnySink = aio.CoreV1EventSink | aio.EventsV1EventSink


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def needs(package: str) -> Any:
    """The package as a parameter, skipped if it is not installed."""
    reason = f"needs {package}"
    return pytest.param(package, marks=pytest.mark.skipif(not is_installed(package), reason=reason))


@pytest.fixture(params=[needs(package) for package in PACKAGES])
def package(request: pytest.FixtureRequest) -> str:
    """The name of an installed package."""
    return str(request.param)


@pytest.fixture(params=[DIRECT, *map(needs, PACKAGES)])
def way(request: pytest.FixtureRequest) -> str:
    """How a sink reaches the server: over its own aiohttp session, or over a client of a package."""
    return str(request.param)


@pytest.fixture
def new_sink(way: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AnySink]:
    """Make a sink for a kubeconfig: `new_sink(path, class, **options)`."""
    unload(monkeypatch)

    def make(path: Path, sink: type[AnySink] = aio.CoreV1EventSink, **options: Any) -> AnySink:
        monkeypatch.setenv("KUBECONFIG", str(path))
        return sink(None if way == DIRECT else lambda: new_client(way, path), **options)

    return make


def unload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the configurations that the process has loaded, for the length of a test."""
    for package in ("kubernetes", *PACKAGES):
        if (module := sys.modules.get(f"{package}.client")) is not None:
            monkeypatch.setattr(module.Configuration, "_default", None)


def client_of(package: str) -> Any:
    """The package's module of clients."""
    return importlib.import_module(f"{package}.client")


async def new_client(package: str, path: Path) -> Any:
    """A client of a package, for a kubeconfig."""
    return await importlib.import_module(f"{package}.config").new_client_from_config(str(path))


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop in a thread."""
    loop = Loop()
    yield loop
    loop.close()


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # by aiohttp, above 1 MiB
class Asynchronous:
    """The sink that finds its server by itself, and with a callable that makes a client."""

    sink_class: type[AnySink] = aio.CoreV1EventSink

    @pytest.fixture
    def make_sink(self, new_sink: Callable[..., AnySink], loop: Loop) -> Iterator[MakeSink]:
        """Make sinks that read a kubeconfig."""
        sinks = []

        def make(path: Path, request_timeout: tuple[float, float]) -> Plain:
            sink = new_sink(path, self.sink_class, request_timeout=request_timeout)
            sinks.append(sink)
            return Plain(sink, loop)

        yield make
        for sink in sinks:
            loop.run(sink.close())
        if OLD:
            gc.collect()


class TestContract(Asynchronous, SinkContract):
    """The contract for core/v1."""


class TestSeriesContract(Asynchronous, SeriesContract):
    """The contract for events.k8s.io/v1."""

    sink_class = aio.EventsV1EventSink


@pytest.mark.slow
class TestSeriesFaults(Asynchronous, SeriesFaults):
    """The same answers and faults for events.k8s.io/v1, where the sink differs in the path alone."""

    sink_class = aio.EventsV1EventSink


@pytest.fixture
def path(api_server: APIServer, tmp_path: Path) -> Path:
    """A kubeconfig for the embedded server."""
    return kubeconfig(api_server, tmp_path)


@pytest.fixture
def client(package: str, path: Path, loop: Loop) -> Iterator[Any]:
    """A client of the user for the embedded server."""
    client = loop.run(new_client(package, path))
    yield client
    loop.run(client.close())


@pytest.mark.parametrize("kind", ["client", "api"])
def test_given_clients_stay_open(api_server: APIServer, package: str, client: Any, loop: Loop, kind: str) -> None:
    """A given client or api is used unchanged, and not closed: it belongs to the user."""
    api = client_of(package).CoreV1Api(client)
    sink = aio.CoreV1EventSink(client if kind == "client" else api)
    loop.run(sink.create("default", event()))
    loop.run(sink.close())
    loop.run(api.create_namespaced_event("default", event(name="pod.2")))
    assert [stored["metadata"]["name"] for stored in api_server.events()] == ["pod.1", "pod.2"]
    assert api_server.connections == 1


def test_clients_made_by_a_callable_are_closed(api_server: APIServer, package: str, path: Path, loop: Loop) -> None:
    """A callable makes its client at the first send. `close` closes the client, and the next send makes a new one."""
    made = []

    async def make() -> Any:
        made.append(await new_client(package, path))
        return made[-1]

    sink = aio.CoreV1EventSink(make)
    assert made == []
    for number in (1, 2):
        loop.run(sink.create("default", event(name=f"pod.{number}")))
        assert len(made) == number
        loop.run(sink.close())
        assert made[-1].rest_client.pool_manager.closed
    loop.run(sink.close())
    assert len(api_server.events()) == 2


@pytest.mark.parametrize("plain", [False, True])
def test_refused_credentials(api_server: APIServer, package: str, path: Path, loop: Loop, plain: bool) -> None:  # noqa: FBT001
    """Pitfall 42: after a 401 a callable is called for a new client, and the old one is closed."""
    made: list[Any] = []

    async def make() -> Any:
        made.append(await new_client(package, path))
        return made[-1]

    sink = aio.CoreV1EventSink(partial(make) if plain else make)
    api_server.fail(Status(401, "Unauthorized"), times=1)
    with pytest.raises(StatusError):
        loop.run(sink.create("default", event()))
    assert made[0].rest_client.pool_manager.closed
    loop.run(sink.create("default", event()))
    assert len(made) == 2
    loop.run(sink.close())


def test_environment(
    api_server: APIServer, package: str, path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an api the sink uses the environment's configuration, and does not touch the default configuration."""
    client_of(package)
    unload(monkeypatch)
    monkeypatch.setenv("KUBECONFIG", str(path))
    sink = aio.CoreV1EventSink()
    loop.run(sink.create("default", event()))
    loop.run(sink.close())
    assert len(api_server.events()) == 1
    assert client_of(package).Configuration._default is None


def test_loaded_configuration(
    api_server: APIServer, package: str, path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration that the process has loaded takes precedence over a kubeconfig."""
    client_of(package)
    unload(monkeypatch)
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    loop.run(importlib.import_module(f"{package}.config").load_kube_config(str(path)))
    sink = aio.CoreV1EventSink()
    loop.run(sink.create("default", event()))
    loop.run(sink.close())
    assert len(api_server.events()) == 1


def test_configuration_of_the_official_client(
    api_server: APIServer, path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration that was loaded into the synchronous client is used, too."""
    import kubernetes.client
    import kubernetes.config

    unload(monkeypatch)
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    kubernetes.config.load_kube_config(str(path))
    sink = aio.CoreV1EventSink()
    loop.run(sink.create("default", event()))
    loop.run(sink.close())
    assert len(api_server.events()) == 1


def test_no_configuration(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 40: without any configuration the server is Unavailable, and the error has the fix."""
    unload(monkeypatch)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    sink = aio.CoreV1EventSink()
    with pytest.raises(UnavailableError, match=r"set KUBECONFIG, or give kevents\.aio\.CoreV1EventSink an api"):
        loop.run(sink.create("default", event()))


def test_callables_without_a_client(loop: Loop) -> None:
    """A callable that raises or returns something else is Unavailable."""

    def fail() -> object:
        raise LookupError("no credentials yet")

    for factory, text in ((fail, "no credentials yet"), (lambda: 7, "not builtins.int")):
        with pytest.raises(UnavailableError, match=text):
            loop.run(aio.CoreV1EventSink(factory).create("default", event()))


@pytest.mark.parametrize("sink", [aio.CoreV1EventSink, aio.EventsV1EventSink])
def test_wrong_clients(package: str, client: Any, sink: type[aio.CoreV1EventSink | aio.EventsV1EventSink]) -> None:
    """The constructor refuses anything but an asynchronous client for the right API."""
    import kubernetes.client
    import kubernetes.config

    right, wrong = "CoreV1Api", "EventsV1Api"
    if sink is aio.EventsV1EventSink:
        right, wrong = wrong, right
    api = getattr(kubernetes.client, right)
    for thing in (api(), kubernetes.client.ApiClient(), api, kubernetes.config.new_client_from_config):
        with pytest.raises(TypeError, match=rf"not a synchronous one: use kevents\.(events\.)?{sink.__name__}"):
            sink(thing)
    with pytest.raises(TypeError, match=f"not an {wrong}: its events have another shape"):
        sink(getattr(client_of(package), wrong)(client))
    for thing in (1, "https://example.com"):
        with pytest.raises(TypeError, match=f"must be a {right}.*not builtins"):
            sink(thing)


def test_an_api_of_ones_own() -> None:
    """A test double of the api may have any name except that of the other API's class."""

    class FakeV1Api:
        """Creates nothing."""

        async def create_namespaced_event(self, namespace: str, body: dict[str, Any]) -> None:
            """Create nothing."""

    assert isinstance(aio.CoreV1EventSink(FakeV1Api()), aio.CoreV1EventSink)


def test_no_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without aiohttp the error has the command that installs it. A stand-in without a module spec does not count."""
    monkeypatch.setitem(sys.modules, "aiohttp", ModuleType("aiohttp"))
    with pytest.raises(ImportError, match=r"needs aiohttp: pip install 'kevents\[aio\]'"):
        aio.CoreV1EventSink()


@pytest.mark.parametrize("timeout", [None, 5, (5,), (0, 15), (5, -1), [5, 15], (5, True)])
def test_time_outs(timeout: Any) -> None:
    """A timeout that is not a pair of positive numbers is refused."""
    with pytest.raises(ValueError, match="request_timeout"):
        aio.CoreV1EventSink(lambda: None, request_timeout=timeout)


def test_broken_token(api_server: APIServer, package: str, client: Any, loop: Loop) -> None:
    """Pitfall 72: a token that no header can hold does not reject the event, and is not shown."""
    key = next(iter(client.configuration.api_key))
    client.configuration.api_key[key] = "Bearer secret\r\nX: y"
    client.configuration.refresh_api_key_hook = None
    with pytest.raises(UnavailableError) as caught:
        loop.run(aio.CoreV1EventSink(client).create("default", event()))
    assert "secret" not in f"{caught.value!r} {caught.value}"
    assert api_server.requests == ()


def test_two_loops(api_server: APIServer, new_sink: Callable[..., AnySink], path: Path, loop: Loop) -> None:
    """A sink that is used in two loops has a connection in each."""
    sink = new_sink(path)

    async def here() -> None:
        await sink.create("default", event(name="pod.2"))
        await sink.close()

    loop.run(sink.create("default", event()))
    asyncio.run(here())
    loop.run(sink.create("default", event(name="pod.3")))
    loop.run(sink.close())
    assert (len(api_server.events()), api_server.connections) == (3, 2)


def test_cancelled_request(api_server: APIServer, new_sink: Callable[..., AnySink], path: Path, loop: Loop) -> None:
    """Pitfall 67: a cancelled request gives up its connection, and the next request opens a new one."""
    sink = new_sink(path)

    async def cancelled() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(sink.create("default", event()), 0.3)

    with api_server.fail(Hang()):
        loop.run(cancelled())
    loop.run(sink.create("default", event(name="pod.2")))
    loop.run(sink.close())
    assert [stored["metadata"]["name"] for stored in api_server.events()] == ["pod.2"]


def test_nothing_stays_open(api_server: APIServer, way: str, path: Path, programs: Programs, tmp_path: Path) -> None:
    """Pitfall 67: with and without `shutdown`, no warning about connections, tasks or coroutines appears at the end."""
    code = f"""
        import asyncio, importlib
        from kevents import aio

        async def client():
            return await importlib.import_module("{way}.config").new_client_from_config({str(path)!r})

        async def main(end):
            events = aio.EventBroadcaster()
            events.start_recording_to_sink(aio.CoreV1EventSink({None if way == DIRECT else "client"}))
            events.new_recorder("c").event(
                {{"kind": "Pod", "metadata": {{"name": "a", "namespace": "default"}}}}, "Normal", "Step", end)
            assert await events.flush(60)
            if end == "shutdown":
                await events.shutdown()

        for end in ("shutdown", "run"):
            asyncio.run(main(end), debug=True)
    """
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(code), encoding="utf-8")
    done = programs.run(program, path, tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("Unclosed", "unclosed", "never awaited", "was destroyed", "Traceback"):
        assert word not in done.stderr, done.stderr
    assert [event["message"] for event in api_server.events()] == ["shutdown", "run"]


def test_broadcaster(api_server: APIServer, new_sink: Callable[..., AnySink], path: Path) -> None:
    """Thirty events of a broadcaster use at most as many connections as there are senders."""

    async def main() -> None:
        options = CorrelatorOptions(max_events=None, burst_size=None)
        async with aio.EventBroadcaster(correlator_options=options) as events:
            events.start_recording_to_sink(new_sink(path))
            for number in range(30):
                events.new_recorder("c").event(POD, "Normal", "Step", f"number {number}")
            assert await events.flush(60)

    asyncio.run(main(), debug=True)
    assert len(api_server.events()) == 30
    assert api_server.connections <= 4


def test_broadcaster_of_series(api_server: APIServer, new_sink: Callable[..., AnySink], path: Path) -> None:
    """In events.k8s.io/v1 a hundred occurrences of each of ten events are ten objects with exact counts."""

    async def main() -> None:
        sink = new_sink(path, aio.EventsV1EventSink)
        async with aio.EventsV1Broadcaster(sink) as events:
            recorder = events.new_recorder("example.com/c")
            for number in range(1000):
                recorder.eventf(POD, None, "Normal", f"R{number % 10}", "Stepping", "number %d", number)
            assert await events.flush(60)

    asyncio.run(main(), debug=True)
    found = {event["reason"]: event["series"]["count"] for event in api_server.events()}
    assert found == {f"R{number}": 100 for number in range(10)}
    assert {request.path for request in api_server.requests if request.method == "POST"} == {
        "/apis/events.k8s.io/v1/namespaces/default/events"
    }


# -- over doubles of an api ------------------------------------------------------------------------------------------


class ApiException(Exception):  # noqa: N818 - the clients' own name
    """A refusal as the packages raise it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"({status})")
        self.status, self.reason, self.headers, self.body = status, "no", {}, ""


class Api:
    """A test double of an asynchronous api: it records its arguments, and returns None or raises.

    Attributes:
        calls: The name and the timeout of each request.
        closed: The number of calls of `close`.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, object]] = []
        self.closed = 0
        self._error = error

    async def create_namespaced_event(self, namespace: str, body: dict[str, Any], **options: Any) -> object:
        """Record the call, and return or raise."""
        self.calls.append((body["metadata"]["name"], options["_request_timeout"]))
        await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        return None

    async def close(self) -> None:
        """Count the call."""
        self.closed += 1

    @property
    def names(self) -> list[str]:
        """The names of the events."""
        return [name for name, _ in self.calls]


def test_a_double(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """An api without aiohttp gets the timeouts unchanged. Any return value is a success."""
    monkeypatch.delitem(sys.modules, "aiohttp", raising=False)
    api = Api()
    sink = aio.CoreV1EventSink(api, request_timeout=(2, 3))
    loop.run(sink.create("default", event(name="a")))
    loop.run(sink.close())
    assert (api.calls, api.closed) == ([("a", (2.0, 3.0))], 0)


def test_a_class_is_no_client(loop: Loop) -> None:
    """A class is called for a client, like any callable, although it has the methods of a client."""
    made: list[Api] = []

    class Made(Api):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    sink = aio.CoreV1EventSink(Made)
    loop.run(sink.create("default", event(name="a")))
    loop.run(sink.close())
    assert [(api.names, api.closed) for api in made] == [(["a"], 1)]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ApiException(404), StatusError),
        (ApiException(0), UnavailableError),
        (OSError("reset"), UnavailableError),
        (LookupError("odd"), LookupError),
    ],
    ids=repr,
)
def test_exceptions_of_an_api(loop: Loop, error: Exception, raised: type[Exception]) -> None:
    """Exceptions are recognised by class name. Connection errors are Unavailable, unknown ones are unchanged."""
    with pytest.raises(raised) as caught:
        loop.run(aio.CoreV1EventSink(Api(error)).create("default", event()))
    assert (caught.value is error) == (raised is LookupError)


def test_no_credentials_yet(loop: Loop) -> None:
    """An UnavailableError of a callable is raised unchanged, with its retry_after."""
    error = UnavailableError("logging in", retry_after=3)

    def fail() -> object:
        raise error

    with pytest.raises(UnavailableError) as caught:
        loop.run(aio.CoreV1EventSink(fail).create("default", event()))
    assert caught.value is error


def test_one_connection_for_all(loop: Loop) -> None:
    """Concurrent requests share a client. If they are all refused, they share one new client."""
    made: list[Api] = []

    async def make() -> Api:
        await asyncio.sleep(0)
        made.append(Api(ApiException(401) if not made else None))
        return made[-1]

    async def both(sink: aio.CoreV1EventSink) -> list[Any]:
        requests = (sink.create("default", event(name=name)) for name in "ab")
        return await asyncio.gather(*requests, return_exceptions=True)

    sink = aio.CoreV1EventSink(make)
    assert [type(answer) for answer in loop.run(both(sink))] == [StatusError, StatusError]
    assert loop.run(both(sink)) == [None, None]
    loop.run(sink.close())
    assert [(api.names, api.closed) for api in made] == [(["a", "b"], 1)] * 2


def test_lets_go_of_a_loop() -> None:
    """A sink releases loops that have ended, even after concurrent first requests."""

    async def make() -> Api:
        await asyncio.sleep(0)
        return Api()

    async def both() -> weakref.ref[asyncio.AbstractEventLoop]:
        await asyncio.gather(*(sink.create("default", event(name=name)) for name in "ab"))
        await sink.close()
        return weakref.ref(asyncio.get_running_loop())

    sink = aio.CoreV1EventSink(make)
    loops = [asyncio.run(both()) for _ in range(3)]
    for thread in threading.enumerate():
        if thread.name == "kevents-import":  # it may still hold the loop that waited for it
            thread.join()
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3


def test_a_child_connects_anew(loop: Loop) -> None:
    """Pitfall 21: after a fork the child opens a new connection and does not close the parent's."""
    made: list[Api] = []

    def make() -> Api:
        made.append(Api())
        return made[-1]

    sink = aio.CoreV1EventSink(make)
    loop.run(sink.create("default", event(name="parent")))
    sink.after_fork()
    loop.run(sink.create("default", event(name="child")))
    loop.run(sink.close())
    assert [(api.names, api.closed) for api in made] == [(["parent"], 0), (["child"], 1)]


def test_a_loop_waits_for_no_import(package: str, client: Any, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink that is built in a running loop imports nothing there. Outside of a loop it imports immediately."""
    imported: list[str] = []
    monkeypatch.setattr("kevents._clients.aio_client.ClientTransport._prepare", lambda _, name: imported.append(name))

    async def build() -> None:
        aio.CoreV1EventSink(client)

    loop.run(build())
    assert imported == []
    aio.CoreV1EventSink(client)
    assert imported == [package]


# -- over aiohttp ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("built_in", ["the loop", "the program"])
def test_imports(api_server: APIServer, path: Path, built_in: str) -> None:
    """Without an api no Kubernetes client is loaded. Outside of a loop aiohttp is imported with the sink."""
    code = f"""
        import asyncio, json, sys
        from kevents import aio

        sink = aio.CoreV1EventSink() if "{built_in}" == "the program" else None
        early = "aiohttp" in sys.modules

        async def main():
            async with aio.EventBroadcaster() as events:
                events.start_recording_to_sink(sink or aio.CoreV1EventSink())
                early_in_the_loop.append("aiohttp" in sys.modules)
                events.new_recorder("c").event({{"kind": "Pod", "metadata": {{"name": "a", "namespace": "default"}}}},
                    "Normal", "Step", "x")

        early_in_the_loop = []
        asyncio.run(main())
        heavy = ("kubernetes", "kubernetes_asyncio", "pydantic", "urllib3", "requests", "aiohttp")
        print(json.dumps([early, *early_in_the_loop, sorted(set(sys.modules) & set(heavy))]))
    """
    environment = {**os.environ, "KUBECONFIG": str(path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    early = built_in == "the program"
    assert json.loads(done.stdout) == [early, early, ["aiohttp"]]
    assert len(api_server.events()) == 1


def test_refused_credentials_are_found_again(
    api_server: APIServer, loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 42: after a 401 the kubeconfig is read again, and the old connections are closed."""
    unload(monkeypatch)
    used = kubeconfig(api_server, tmp_path, token="expired")
    monkeypatch.setenv("KUBECONFIG", str(used))
    sink = aio.CoreV1EventSink()
    plain = Plain(sink, loop)
    assert refusal(plain.create, "default", event()).code == 401
    used.write_text(kubeconfig(api_server, tmp_path).read_text(encoding="utf-8"), encoding="utf-8")
    plain.create("default", event())
    plain.create("default", event(name="pod.2"))
    loop.run(sink.close())
    assert [request.connection for request in api_server.requests] == [1, 2, 2]
