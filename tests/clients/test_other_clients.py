"""The sinks of the page on other clients: each keeps the contract of a sink, with the real library."""

from __future__ import annotations

import ast
import base64
import importlib
import re
import ssl
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from kevents import EventSink, UnavailableError
from kevents.testing import APIServer, Cause, Garbage, Hang, Status
from tests.support.aio import Loop, Plain

pytest.register_assert_rewrite("tests.clients.sink_contract")

from tests.clients.sink_contract import BROKEN_BODIES, Faults, MakeSink, PlainRequests, refusal  # noqa: E402

pytestmark = [pytest.mark.wire, pytest.mark.filterwarnings("ignore:Kubernetes version:UserWarning")]  # of kr8s
PAGE: Final = Path(__file__).parents[2] / "docs" / "other-clients.md"
MERGE: Final = "application/merge-patch+json"


BLOCKS: Final = [
    ast.parse(code)
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]


def sink_class(name: str) -> Any:
    """A class of the page, made of the imports of its block and itself."""
    for tree in BLOCKS:
        wanted = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef)]
        if any(isinstance(node, ast.ClassDef) and node.name == name for node in wanted):
            names: dict[str, Any] = {}
            exec(compile(ast.Module([*wanted], []), str(PAGE), "exec"), names)
            return names[name]
    raise LookupError(name)


def library(name: str) -> Any:
    """A library of the extra `test-clients`, or a skip."""
    return pytest.importorskip(name, reason="needs the extra test-clients")


def httpx_options(path: Path, timeout: tuple[float, float]) -> dict[str, Any]:
    """The options of an httpx client for a kubeconfig."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster.get("certificate-authority-data", "")).decode()
    return {
        "base_url": cluster["server"],
        "headers": {"Authorization": f"Bearer {user['token']}"},
        "verify": ssl.create_default_context(cafile=cluster.get("certificate-authority"), cadata=authority or None),
        "timeout": library("httpx").Timeout(timeout[1], connect=timeout[0]),
    }


class Clients:
    """Makes the sinks of the page from a kubeconfig, and closes their clients."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.close: list[Callable[[], object]] = []

    def _later(self, closing: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.close.append(lambda: self._loop.run(closing()))

    def httpx(self, path: Path, timeout: tuple[float, float]) -> EventSink:
        """Over a plain httpx client."""
        client = library("httpx").Client(**httpx_options(path, timeout))
        self.close.append(client.close)
        return sink_class("HttpxSink")(client)

    def async_httpx(self, path: Path, timeout: tuple[float, float]) -> EventSink:
        """Over its asynchronous client."""
        client = library("httpx").AsyncClient(**httpx_options(path, timeout))
        self._later(client.aclose)
        return Plain(sink_class("AsyncHttpxSink")(client), self._loop)

    def lightkube(self, path: Path, timeout: tuple[float, float]) -> EventSink:
        """Over lightkube."""
        library("lightkube")
        client = importlib.import_module("lightkube").Client(**self._lightkube(path, timeout))
        self.close.append(client.close)
        return sink_class("LightkubeSink")(client)

    def async_lightkube(self, path: Path, timeout: tuple[float, float]) -> EventSink:
        """Over its asynchronous client."""
        client = library("lightkube").AsyncClient(**self._lightkube(path, timeout))
        self._later(client.close)
        return Plain(sink_class("AsyncLightkubeSink")(client), self._loop)

    def _lightkube(self, path: Path, timeout: tuple[float, float]) -> dict[str, Any]:
        config = library("lightkube.config.kubeconfig").KubeConfig.from_file(str(path))
        return {"config": config, "timeout": library("httpx2").Timeout(timeout[1], connect=timeout[0])}

    def pykube(self, path: Path, timeout: tuple[float, float]) -> EventSink:
        """Over pykube-ng."""
        pykube = library("pykube")
        api = pykube.HTTPClient(pykube.KubeConfig.from_file(str(path)), timeout=timeout)
        self.close.append(api.session.close)
        return sink_class("PykubeSink")(api)

    def kr8s(self, path: Path, timeout: tuple[float, float]) -> EventSink:
        """Over kr8s."""
        api = library("kr8s").api(kubeconfig=str(path))
        api.timeout = library("httpx").Timeout(timeout[1], connect=timeout[0])
        self.close.append(lambda: _runner_of_kr8s().call(api._session.aclose))
        return sink_class("Kr8sSink")(api)

    def async_kr8s(self, path: Path, timeout: tuple[float, float]) -> EventSink:
        """Over its asynchronous client."""
        api = self._loop.run(library("kr8s.asyncio").api(kubeconfig=str(path)))
        api.timeout = library("httpx").Timeout(timeout[1], connect=timeout[0])
        self._later(api._session.aclose)
        return Plain(sink_class("AsyncKr8sSink")(api), self._loop)


def _runner_of_kr8s() -> Any:
    return importlib.import_module("kr8s._async_utils").Portal()


@pytest.fixture(scope="module", autouse=True)
def threads_of_kr8s() -> None:
    """Start the threads of kr8s for plain calls, which never end: a test would be blamed for them."""
    try:
        runner = _runner_of_kr8s()
    except ModuleNotFoundError:
        return
    runner.call(importlib.import_module("anyio.to_thread").run_sync, bool)


@pytest.fixture
def make_sink(name: str) -> Iterator[MakeSink]:
    """Give a function that makes the sink for a kubeconfig."""
    loop = Loop()
    clients = Clients(loop)
    yield getattr(clients, name)
    for close in clients.close:
        close()
    loop.close()


class OtherClient(PlainRequests):
    """The requests of a sink against the embedded and the real API server, and faults of the embedded one."""

    unavailable = (UnavailableError,)
    codes = (307, 401, 403, 404, 409, 422, 429, 500, 503)

    troubled = Faults.troubled
    hurried = Faults.hurried
    test_causes = Faults.test_causes
    test_reset = Faults.test_reset
    test_hang = Faults.test_hang
    test_away = Faults.test_away
    test_nothing_is_changed = Faults.test_nothing_is_changed
    test_connections_of_threads = Faults.test_connections_of_threads

    def test_status(self, api_server: APIServer, troubled: EventSink) -> None:
        """Any status but a success is a StatusError with the code, the server's words and its Retry-After."""
        for code in self.codes:
            api_server.fail(Status(code, "Because", "so it is", retry_after="3"), times=1)
            error = refusal(troubled.create, "default", self.shape.event())
            words = "redirect to the same host was not followed" if code == 307 else "so it is"
            assert (error.code, error.reason, error.message, error.retry_after) == (code, "Because", words, 3.0)

    def test_broken_refusal(self, api_server: APIServer, troubled: EventSink) -> None:
        """Whatever the body of a refusal holds, it is a StatusError with the code."""
        for number, (name, body) in enumerate(BROKEN_BODIES.items()):
            code = (422, 503)[number % 2]
            api_server.fail(Garbage(body, code, after_processing=False), times=1)
            error = refusal(troubled.create, "default", self.shape.event())
            assert (name, error.code, error.reason, error.causes) == (name, code, "", ())

    def test_broken_success(self, api_server: APIServer, troubled: EventSink) -> None:
        """A 2xx is a success, whatever its body holds."""
        for number, body in enumerate((b"", b"<html>", b"null", b"12", b"[]")):
            api_server.fail(Garbage(body, 201), times=1)
            troubled.create("default", self.shape.event(name=f"pod.{number}"))
        assert len(api_server.events()) == 5


class Decoding(OtherClient):
    """A client that decodes the answer to a create."""

    def test_broken_success(self, api_server: APIServer, troubled: EventSink) -> None:
        """A 2xx that is no JSON raises ValueError, although the event is stored. No API server answers like that."""
        api_server.fail(Garbage(b"<html>", 201), times=1)
        with pytest.raises(ValueError, match=r"JSON|malformed|Expecting value"):
            troubled.create("default", self.shape.event())
        assert len(api_server.events()) == 1


@pytest.mark.parametrize("name", ["httpx", "async_httpx", "pykube"])
class TestContract(OtherClient):
    """All of it holds for these."""


@pytest.mark.parametrize("name", ["lightkube", "async_lightkube"])
class TestLightkube(Decoding):
    """lightkube decodes answers."""


@pytest.mark.parametrize("name", ["kr8s", "async_kr8s"])
class TestKr8s(Decoding):
    """kr8s itself asks for the server's version when it is built, repeats refused requests and follows redirects."""

    codes = (404, 409, 422, 429, 500, 503)
    test_unknown_token = test_causes = test_hang = None  # type: ignore[assignment]

    def test_repeated(self, api_server: APIServer, troubled: EventSink) -> None:
        """A 403 is an error of the sink after three more tries."""
        api_server.fail(Status(403, "Forbidden", causes=(Cause("NamespaceTerminating", "m"),)), times=4)
        error = refusal(troubled.create, "default", self.shape.event())
        assert (error.code, error.causes) == (403, ("NamespaceTerminating",))

    def test_silent_server(self, api_server: APIServer, hurried: EventSink) -> None:
        """A server that does not answer is given up at the time-out."""
        with api_server.fail(Hang()), pytest.raises(UnavailableError, match="APITimeoutError"):
            hurried.create("default", self.shape.event())
