"""Requests use the client's credentials and return a whole answer, or one kind of error without secrets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from kubernetes import config

from kevents._clients.client import Kubeconfig
from kevents.exceptions import StatusError, UnavailableError
from kevents.export._source.api import JSON, ApiReader, ListWatch, NoAnswerError
from kevents.export._source.response_stream import GoneError
from kevents.testing import APIServer, Garbage, Hang, Reset

pytestmark = pytest.mark.wire

PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
def client(api_server: APIServer) -> Iterator[Any]:
    """A client of the embedded server."""
    client = config.new_client_from_config(str(api_server.kubeconfig()))
    yield client
    client.rest_client.pool_manager.clear()


@pytest.fixture(params=["direct", "given"])
def reader(request: pytest.FixtureRequest, api_server: APIServer, client: Any) -> Iterator[ApiReader]:
    """The reader under test: over connections of kevents' own, or over those of a given client."""
    reader = ApiReader(client if request.param == "given" else Kubeconfig(str(api_server.kubeconfig())))
    yield reader
    reader._source.access().pool.clear()


def test_get(api_server: APIServer, reader: ApiReader) -> None:
    """An answer has its status and body, whatever the status. One connection serves several requests."""
    api_server.create("v1", "pods", {"metadata": {"name": "web-0"}})
    answers = [reader.get(f"{PODS}/{name}", JSON, 5.0) for name in ("web-0", "none", "web-0")]
    assert [answer.status for answer in answers] == [200, 404, 200]
    assert b'"web-0"' in answers[2].body
    assert api_server.connections == 1


def test_retry_after(api_server: APIServer, reader: ApiReader) -> None:
    """The Retry-After header is returned if present."""
    with api_server.fail(Garbage(b"{}", 429)):
        assert ((answer := reader.get(PODS, JSON, 5.0)).status, answer.retry_after) == (429, None)


def test_credentials_renewed(api_server: APIServer) -> None:
    """After a 401, the next request gets new credentials."""
    api_server.add_user("new-token", "someone")
    clients = [
        config.new_client_from_config(str(api_server.kubeconfig(token=token))) for token in ("old-token", "new-token")
    ]
    given = iter(clients)
    reader = ApiReader(lambda: next(given))
    assert [reader.get(PODS, JSON, 5.0).status for _ in range(2)] == [401, 200]
    for each in clients:
        each.rest_client.pool_manager.clear()


def test_kubeconfig_read_again(api_server: APIServer, tmp_path: Path) -> None:
    """After a 401, a kubeconfig is read again. If it is unusable, the request fails without its content."""
    api_server.add_user("new-token", "someone")
    path = api_server.kubeconfig(tmp_path / "config", token="old-token")
    reader = ApiReader(Kubeconfig(str(path)))
    assert reader.get(PODS, JSON, 5.0).status == 401
    content = path.read_text(encoding="utf-8")
    path.write_text("old-token: {", encoding="utf-8")
    with pytest.raises(UnavailableError, match="cannot use the kubeconfig") as caught:
        reader.get(PODS, JSON, 5.0)
    assert "old-token" not in str(caught.value)
    path.write_text(content.replace("old-token", "new-token"), encoding="utf-8")
    assert reader.get(PODS, JSON, 5.0).status == 200
    reader._source.access().pool.clear()


@pytest.mark.parametrize("fault", [Reset(), Hang()])
def test_no_answer(api_server: APIServer, reader: ApiReader, fault: Any) -> None:
    """A cut connection and a time-out raise the same error. The next request is a new attempt."""
    with api_server.fail(fault), pytest.raises(UnavailableError):
        reader.get(PODS, JSON, 0.2)
    assert reader.get(PODS, JSON, 5.0).status == 200


def test_no_consumer(api_server: APIServer, reader: ApiReader) -> None:
    """A refused connection raises an error without retries."""
    api_server.stop_listening()
    with pytest.raises(UnavailableError, match="refused"):
        reader.get(PODS, JSON, 5.0)


def test_no_secret() -> None:
    """Pitfall 72: the error of an invalid token does not contain the token."""
    from kubernetes import client as official

    configuration = official.Configuration()
    configuration.host = "http://127.0.0.1:1"
    configuration.api_key = {"authorization": "Bearer hunter2\n"}
    with pytest.raises(UnavailableError) as caught:
        ApiReader(official.ApiClient(configuration)).get(PODS, JSON, 1.0)
    assert "hunter2" not in str(caught.value)


class Elsewhere(BaseHTTPRequestHandler):
    """Redirects every request to another path and stores the requested paths."""

    paths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer."""
        self.paths.append(self.path)
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Log nothing."""


def test_redirect() -> None:
    """Pitfall 75: a redirect is returned as an answer and not followed."""
    from kubernetes import client as official

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        configuration = official.Configuration()
        configuration.host = f"http://127.0.0.1:{server.server_port}"
        api = official.ApiClient(configuration)
        assert ApiReader(api).get(PODS, JSON, 5.0).status == 302
        assert Elsewhere.paths == [PODS]
        api.rest_client.pool_manager.clear()
        server.shutdown()
        thread.join(60)


def test_huge(api_server: APIServer, reader: ApiReader) -> None:
    """Pitfall 78: an answer over the size limit raises an error before it is read into memory."""
    with api_server.fail(Garbage(b" ", 200, size=64 << 20)), pytest.raises(UnavailableError, match="longer than"):
        reader.get(PODS, JSON, 5.0)


def test_timeouts(reader: ApiReader) -> None:
    """A watch uses its own read time-out, not that of the connection."""
    with ListWatch(reader, PODS).watch("0", 15) as watch:
        assert watch._socket.gettimeout() == 30.0


def test_watch(api_server: APIServer, reader: ApiReader) -> None:
    """A watch yields lines as they arrive and can be ended from another thread."""
    requests = ListWatch(reader, PODS)
    with requests.watch("0", 15) as watch:
        lines = watch.lines()
        api_server.create("v1", "pods", {"metadata": {"name": "web-0"}})
        assert b'"web-0"' in next(lines)
        threading.Timer(0.05, requests.end).start()
        with pytest.raises(UnavailableError):
            list(lines)


def test_watch_refused(api_server: APIServer, reader: ApiReader) -> None:
    """A watch that is answered with an error raises an error that names the status."""
    with api_server.fail(503), pytest.raises(StatusError, match="503"), ListWatch(reader, PODS).watch("", 5):
        pass


def test_line_without_end(api_server: APIServer, reader: ApiReader) -> None:
    """Pitfall 78: an endless line raises an error before it fills the memory."""
    with (
        api_server.fail(Garbage(b"x", 200, size=64 << 20)),
        ListWatch(reader, PODS).watch("", 5) as watch,
        pytest.raises(UnavailableError, match="a line of a watch is longer"),
    ):
        list(watch.lines())


def test_credentials_of_a_watch_renewed(api_server: APIServer) -> None:
    """After a watch was answered with 401, the next watch gets new credentials."""
    api_server.add_user("new-token", "someone")
    clients = [
        config.new_client_from_config(str(api_server.kubeconfig(token=token))) for token in ("old-token", "new-token")
    ]
    given = iter(clients)
    requests = ListWatch(ApiReader(lambda: next(given)), PODS)
    with pytest.raises(StatusError, match="401"), requests.watch("", 5):
        pass
    with requests.watch("0", 5) as watch:
        watch.end()
        with pytest.raises(UnavailableError):
            list(watch.lines())
    for each in clients:
        each.rest_client.pool_manager.clear()


def test_watch_at_its_end(api_server: APIServer, reader: ApiReader) -> None:
    """A watch that the server ends yields its complete lines. An incomplete last line is dropped."""
    body = b'{"a":1}\n{"b":2}\n{"half"'
    with api_server.fail(Garbage(body, 200)), ListWatch(reader, PODS).watch("", 5) as watch:
        assert list(watch.lines()) == [b'{"a":1}', b'{"b":2}']


class Half(BaseHTTPRequestHandler):
    """Sends fewer bytes than its Content-Length."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"abc")

    def log_message(self, *args: object) -> None:
        """Log nothing."""


def test_half_an_answer() -> None:
    """A truncated answer raises an error."""
    from kubernetes import client as official

    with HTTPServer(("127.0.0.1", 0), Half) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        configuration = official.Configuration()
        configuration.host = f"http://127.0.0.1:{server.server_port}"
        api = official.ApiClient(configuration)
        try:
            with pytest.raises(NoAnswerError):
                ApiReader(api).get(PODS, JSON, 5.0)
        finally:
            api.rest_client.pool_manager.clear()
            server.shutdown()
            thread.join(60)


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (Garbage(b"\xff\xfe", 410, after_processing=False), GoneError),
        (Garbage(b"\xff\xfe", 403, after_processing=False), StatusError),
        (Garbage(b"<html>", 302, after_processing=False), StatusError),
        (Reset(), NoAnswerError),
    ],
    ids=str,
)
def test_refused(api_server: APIServer, reader: ApiReader, fault: Any, raised: type[Exception]) -> None:
    """A refused request raises the matching exception, even if the body is not valid UTF-8."""
    with api_server.fail(fault), pytest.raises(raised):
        ListWatch(reader, "/api/v1/events").page(1)
