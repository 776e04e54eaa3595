"""With every client, a sink follows no redirects, keeps its deadline, limits error bodies and hides credentials."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import resource
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import pytest
from kubernetes import client

import kevents
from kevents import StatusError, UnavailableError, aio
from kevents._clients.errors import decoded, format_redacted, hide_credentials, redact, redirect_message
from kevents.events import EventsV1EventSink
from kevents.testing import APIServer

pytest.register_assert_rewrite("tests.clients.sink_contract")

from tests.clients.sink_contract import SERIES, event, refusal  # noqa: E402

pytestmark = pytest.mark.wire

TOKEN: Final = "s3cret-t0ken-of/the+test=="
TIMES: Final = (0.5, 0.5)
LIMIT: Final = TIMES[1] + 1
"""Seconds after which a send without its own deadline is noticed, on a busy machine."""

Create = Callable[[], None]
Way = Callable[[str], Create]
Script = Callable[[socket.socket], None]


def configuration(url: str) -> client.Configuration:
    """A configuration with a token and the client's defaults, which follow redirects."""
    made = client.Configuration(host=url)
    made.api_key = {"authorization": f"Bearer {TOKEN}"}
    return made


def environment(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set KUBECONFIG to a kubeconfig for a server."""
    path = tmp_path / "kubeconfig"
    cluster, user = {"name": "c", "cluster": {"server": url}}, {"name": "u", "user": {"token": TOKEN}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    content = {"current-context": "x", "clusters": [cluster], "users": [user], "contexts": [context]}
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **content}), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr(client.Configuration, "_default", None)


def plain(make: Callable[[str], Any], shape: Any = None) -> Way:
    """A function that makes a plain sink for a URL, and returns a call that creates an event."""

    def way(url: str) -> Create:
        sink = make(url)
        body = event() if shape is None else shape.event()
        return lambda: sink.create("default", body)

    return way


def kopf_login(url: str, *, loaded: bool) -> Any:
    """A sink that uses kopf's credentials."""
    kopf = pytest.importorskip("kopf", reason="needs kevents[kopf]")
    from kevents.kopf import LoginSink

    sink = LoginSink(request_timeout=TIMES)
    if loaded:
        client.Configuration.set_default(configuration(url))
    else:
        sink.keep(kopf.ConnectionInfo(server=url, token=TOKEN))
    return sink


def asynchronous(make: Callable[[str], Any]) -> Way:
    """The same for an asynchronous sink over a given client or None, with a new loop for each request."""

    def way(url: str) -> Create:
        async def create() -> None:
            given = make(url)
            sink = aio.CoreV1EventSink(given, request_timeout=TIMES)
            try:
                await sink.create("default", event())
            finally:
                await sink.close()
                closing: Callable[[], Awaitable[None]] | None = getattr(given, "close", None)
                if closing is not None:
                    await closing()

        return lambda: asyncio.run(create())

    return way


def async_client(module: Any, url: str) -> Any:
    """A client of an asynchronous package."""
    made = module.Configuration(host=url)
    made.api_key = {"BearerToken": f"Bearer {TOKEN}"}
    return module.ApiClient(made)


@pytest.fixture(
    params=[
        "environment",
        "a client",
        "a callable",
        "events.k8s.io",
        "kopf's login",
        "kopf's configuration",
        "kubernetes.aio, a client",
        "kubernetes_asyncio, a client",
        "asyncio",
    ]
)  # fmt: skip
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Way:
    """Each way to make a sink and to create an event with it."""
    monkeypatch.setattr(client.Configuration, "_default", None)

    def api(url: str) -> client.ApiClient:
        return client.ApiClient(configuration(url))

    def from_environment(url: str) -> kevents.CoreV1EventSink:
        environment(url, monkeypatch, tmp_path)
        return kevents.CoreV1EventSink(request_timeout=TIMES)

    kind: str = request.param
    package, comma, _ = kind.partition(", ")
    if comma:
        module = pytest.importorskip(f"{package}.client", reason=f"needs {package}")
        return asynchronous(partial(async_client, module))
    if kind == "asyncio":
        pytest.importorskip("aiohttp", reason="needs kevents[aio]")
        return asynchronous(lambda url: environment(url, monkeypatch, tmp_path))
    ways: dict[str, Way] = {
        "environment": plain(from_environment),
        "a client": plain(lambda url: kevents.CoreV1EventSink(api(url), request_timeout=TIMES)),
        "a callable": plain(lambda url: kevents.CoreV1EventSink(lambda: api(url), request_timeout=TIMES)),
        "events.k8s.io": plain(lambda url: EventsV1EventSink(api(url), request_timeout=TIMES), SERIES),
        "kopf's login": plain(lambda url: kopf_login(url, loaded=False)),
        "kopf's configuration": plain(lambda url: kopf_login(url, loaded=True)),
    }
    return ways[kind]


@contextlib.contextmanager
def serving(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that reads the head of each request and then runs a script on the connection."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.settimeout(10)
        if tls is not None:
            connection = tls.wrap_socket(connection, server_side=True)
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536) or b"\r\n\r\n"
            script(connection)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    def accept() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                threads.append(threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True))
                threads[-1].start()

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        threads.append(threading.Thread(target=accept, daemon=True))
        threads[0].start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        ended.set()
        for thread in threads:
            thread.join(11)


def respond(status: str, body: bytes = b"", *headers: str) -> Script:
    """A script that sends one whole response."""
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return lambda connection: connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(way: Way, status: int) -> None:
    """Fault 2: a redirect is a refusal that names the host, and the event is sent nowhere else."""
    with APIServer() as login_page:
        location = f"Location: {login_page.url.replace('127.0.0.1', 'localhost')}/login?token={TOKEN}"
        with serving(respond(f"{status} Moved", b"", location)) as url:
            refused = refusal(way(url))
        assert login_page.requests == ()
    assert (refused.code, refused.message) == (status, "redirect to localhost was not followed")


def test_upgrade(way: Way) -> None:
    """An answer that switches protocols is a refusal, and its connection is closed."""
    with serving(respond("101 Switching Protocols", b"", "Upgrade: x")) as url:
        assert refusal(way(url)).code == 101


def test_redirect_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Fault 2: a redirected event is dropped as rejected, and the log names the host."""
    pod = kevents.ObjectReference(kind="Pod", api_version="v1", namespace="default", name="web-0")
    with serving(respond("302 Found", b"", "Location: https://login.example.com/?next=/api")) as url:
        sink = kevents.CoreV1EventSink(client.ApiClient(configuration(url)), request_timeout=(5, 5))
        with kevents.EventBroadcaster() as broadcaster:
            broadcaster.start_recording_to_sink(sink)
            broadcaster.new_recorder("c").event(pod, "Normal", "R", "m")
            broadcaster.flush(10)
            assert broadcaster.statistics().dropped == {kevents.DropReason.REJECTED: 1}
    assert "redirect to login.example.com was not followed" in caplog.text


def drip(head: bytes, more: bytes) -> Script:
    """A script that sends a head, and then bytes until the client closes; its pauses are below the read timeout."""

    def script(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(more)
            time.sleep(0.05)

    return script


DRIPS: Final = {
    "a head": drip(b"HTTP/1.1 201 Created\r\nX-Long: ", b"x"),
    "100 Continue": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "an error's body": drip(b"HTTP/1.1 503 Busy\r\nContent-Length: 9999\r\n\r\n", b"x"),
    "an error's chunks": drip(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "a success's body": drip(b"HTTP/1.1 201 Created\r\nContent-Length: 9999\r\n\r\n", b"x"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("script", DRIPS.values(), ids=DRIPS.keys())
def test_deadline(way: Way, script: Script) -> None:
    """Fault 3: a send ends, even if the server never stops sending bytes."""
    with serving(script) as url, contextlib.suppress(UnavailableError, StatusError):
        way(url)()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["a head", "an error's body"])
def test_deadline_with_tls(name: str, tmp_path: Path) -> None:
    """Fault 3: the deadline also holds with TLS."""
    certificate = pytest.importorskip("kevents.testing._apiserver.server", reason="needs kevents[testing]").self_signed(
        ["127.0.0.1"]
    )
    context = certificate.context
    (tmp_path / "ca.crt").write_text(certificate.certificate, encoding="ascii")

    def script(connection: socket.socket) -> None:
        DRIPS[name](connection)

    with serving(script, context) as url:
        settings = configuration(url.replace("http:", "https:"))
        settings.ssl_ca_cert = str(tmp_path / "ca.crt")
        sink = kevents.CoreV1EventSink(client.ApiClient(settings), request_timeout=TIMES)
        began = time.monotonic()
        with contextlib.suppress(UnavailableError, StatusError):
            sink.create("default", event())
        assert time.monotonic() - began > LIMIT - 0.2


@pytest.mark.parametrize("kind", ["a head", "100 Continue"])
def test_deadline_without_an_answer(way: Way, kind: str) -> None:
    """Fault 3: a server whose status line never arrives is Unavailable."""
    with serving(DRIPS[kind]) as url, pytest.raises(UnavailableError):
        way(url)()


def endless(connection: socket.socket) -> None:
    """Send an error with a body of 100 MB."""
    connection.sendall(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        connection.sendall(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")


@lru_cache(maxsize=1)
def expanding() -> bytes:
    """150 kB of gzip that expand to 150 MB."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(compressor.compress(bytes(1 << 20)) for _ in range(150)) + compressor.flush()


def bomb(connection: socket.socket) -> None:
    """Send an error whose body expands to 150 MB."""
    respond("403 Forbidden", expanding(), "Content-Encoding: gzip")(connection)


@pytest.mark.parametrize(("script", "code"), [(endless, 500), (bomb, 403)], ids=["endless", "bomb"])
def test_huge_error(way: Way, script: Script, code: int) -> None:
    """Fault 4: at most 64 KiB of an error are read and decompressed."""
    expanding()
    with serving(respond("422 Unprocessable")) as url:
        refusal(way(url))  # imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serving(script) as url:
        assert refusal(way(url)).code == code
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 60_000


def test_compressed_error(way: Way) -> None:
    """Fault 4: a compressed Status body of normal size is read."""
    status = {"kind": "Status", "status": "Failure", "reason": "Invalid", "message": "no such thing", "code": 422}
    body = gzip.compress(json.dumps(status).encode())
    with serving(respond("422 Unprocessable", body, "Content-Encoding: gzip")) as url:
        refused = refusal(way(url))
    assert (refused.code, refused.reason, refused.message) == (422, "Invalid", "no such thing")


@pytest.mark.parametrize("text", ["Authorization: Bearer {}", "token {} is wrong", 'quoted "{}"'])
def test_echoed_credentials(way: Way, text: str) -> None:
    """Fault 8: a refusal that echoes the request's token is shown without it."""
    body = json.dumps({"kind": "Status", "reason": "Forbidden", "message": text.format(TOKEN)}).encode()
    with serving(respond("403 Forbidden", body)) as url:
        refused = refusal(way(url))
    assert "(not shown)" in refused.message
    assert not {part for part in ("s3cret", "t0ken", "+test") if part in str(refused)}


def test_hidden_credentials() -> None:
    """Fault 8: every form of a credential is hidden, but plain headers are not."""
    headers = {"Authorization": "Basic dXNlcjpwYXNzdzByZA==", "X-Key": "a/b c", "Accept": "application/json"}
    body = b"dXNlcjpwYXNzdzByZA== passw0rd user:passw0rd a/b c a%2Fb%20c application/json \xff"
    shown = hide_credentials(body, headers).decode()
    assert shown == " ".join(["(not shown)"] * 5) + " application/json \N{REPLACEMENT CHARACTER}"
    assert hide_credentials(b"abc", {"X-Key": "abc", "Authorization": "Basic ?"}) == b"abc"


def test_redacted() -> None:
    """Fault 8: bearer tokens, users in URLs and malformed headers are hidden in all texts."""
    assert redact("https://me:pw@host/ Bearer abcdefgh.ijk, x") == "https://(not shown)@host/ Bearer (not shown), x"
    assert redact("the bearer is told") == "the bearer is told"
    assert format_redacted(ValueError("Invalid header value b'x\n'")) == "ValueError: Invalid header value (not shown)"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://user:pw@a.example.com:8443/x", "redirect to a.example.com was not followed"),
        ("/login", "redirect to the same host was not followed"),
        ("", "redirect to the same host was not followed"),
        ("http://[bad", "redirect was not followed"),
        ("//evil\x1b.com/", "redirect to evil\\x1b.com was not followed"),
    ],
)
def test_redirect_message(location: str, expected: str) -> None:
    """Fault 2: the message names only the host, in one printable line."""
    assert redirect_message({"location": location}) == expected


@pytest.mark.parametrize(
    ("body", "encoding", "expected"),
    [
        (b"x" * 70_000, "", 65_536),
        (b"x" * 70_000, "identity", 65_536),
        (gzip.compress(b"x" * 70_000), "GZIP", 65_536),
        (zlib.compress(b"x" * 9), "deflate", 9),
        (gzip.compress(b"x" * 9)[:-8], "gzip", 9),
        (b"no gzip", "gzip", 0),
        (b"x", "br", 0),
    ],
    ids=["plain", "identity", "gzip", "deflate", "cut", "not gzip", "unknown"],
)
def test_decoded(body: bytes, encoding: str, expected: int) -> None:
    """Fault 4: the limit applies to the decompressed size. An unknown or broken encoding gives an empty body."""
    assert len(decoded(body, encoding)) == expected


def test_later_changes_of_a_client(api_server: APIServer) -> None:
    """Later changes of a given client by the user take effect."""
    given = client.ApiClient(client.Configuration(host=api_server.url))
    sink = kevents.CoreV1EventSink(given)
    assert refusal(sink.create, "default", event()).code == 403
    given.default_headers = {**given.default_headers, "Authorization": f"Bearer {api_server.token}", "X-New": "1"}
    sink.create("default", event())
    assert api_server.requests[-1].headers["x-new"] == "1"
    given.rest_client = client.rest.RESTClientObject(given.configuration)
    sink.create("default", event(name="pod.2"))
    assert len(api_server.events()) == 2
