"""Credentials, TLS and proxies over each transport: kevents' own connections and clients, in threads and in asyncio."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import http.server
import importlib
import json
import os
import re
import select
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from kubernetes import client, config

from kevents import CoreV1EventSink, EventSink, SinkError, StatusError, UnavailableError, aio
from kevents._clients import endpoint
from kevents._clients.client import AccessSource, Kubeconfig
from kevents._clients.endpoint import Endpoint, bypasses, environment_proxy
from kevents._clients.sync import events_path
from kevents.testing import APIServer

pytest.register_assert_rewrite("tests.clients.sink_contract")

from tests.clients.sink_contract import event, kubeconfig, refusal  # noqa: E402
from tests.support.aio import Loop, Plain  # noqa: E402

x509 = pytest.importorskip("cryptography.x509", reason="needs kevents[testing]")

OLD_TLS: Final = sys.version_info < (3, 11)
"""Python 3.10 itself does not close the transport of a TLS connection that the server has ended."""
pytestmark = [pytest.mark.wire]
if OLD_TLS:
    pytestmark.append(pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"))

TOKEN: Final = "s3cret-0f-the-test"
ROOT: Final = Path(__file__).parents[2]
PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

MakeSink = Callable[[Path], EventSink]
NewSink = Callable[[], EventSink]

PACKAGES: Final = ("kubernetes.aio", "kubernetes_asyncio")
REFRESHING: Final = ("direct", "requests", "a given client", "a loaded client", "asyncio", "asyncio, a loaded client")
"""The ways on which credentials are refreshed before they expire."""
WAYS: Final = (*REFRESHING, *(f"{package}, {kind}" for package in PACKAGES for kind in ("given", "loaded")))


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test begins without a loaded configuration and without proxies."""
    for package in ("kubernetes", *PACKAGES):
        if (module := sys.modules.get(f"{package}.client")) is not None:
            monkeypatch.setattr(module.Configuration, "_default", None)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Requests:
    """Sends events as the commands and the export send their requests.

    Args:
        given: A kubeconfig, None for that of the environment.
    """

    def __init__(self, given: Kubeconfig | None = None) -> None:
        self._source = AccessSource(given)

    def create(self, namespace: str, body: dict[str, Any], /) -> None:
        """Create an event."""
        self._send("POST", events_path("", namespace), body)

    def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
        """Patch an event."""
        self._send("PATCH", events_path("", namespace, name), patch)

    def _send(self, method: str, path: str, body: dict[str, Any]) -> None:
        access = self._source.access()
        try:
            headers = access.headers()
            answer = access.pool.request(
                method, access.host + path, headers=headers, body=json.dumps(body), retries=False, redirect=False
            )
        except Exception as error:  # noqa: BLE001 - a plugin, a hook or a file may raise anything
            raise UnavailableError(f"the request failed, or its credentials are unusable: {error}") from None
        if answer.status == 401:
            self._source.renew(access)
        if answer.status >= 300:
            raise StatusError(answer.status)


class Tasks:
    """Makes asynchronous sinks with plain methods, in a loop of its own."""

    def __init__(self) -> None:
        self._loop: Loop | None = None
        self._opened: list[Any] = []

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine to its end."""
        self._loop = self._loop or Loop()
        return self._loop.run(coroutine)

    def sink(self, api: Any = None) -> EventSink:
        """Make a sink."""
        made = aio.CoreV1EventSink(api)
        self._opened += [made, *filter(None, [api])]
        self.run(asyncio.sleep(0))
        assert self._loop is not None
        return Plain(made, self._loop)

    def close(self) -> None:
        """Close the sinks, the clients and the loop."""
        for each in self._opened:
            self.run(each.close())
        if self._loop is not None:
            self._loop.close()


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    """Makes asynchronous sinks."""
    tasks = Tasks()
    yield tasks
    tasks.close()
    if OLD_TLS:
        gc.collect()


SINKS: Final = ("threads", "asyncio")


@pytest.fixture(params=[*SINKS, "requests"])
def new_sink(request: pytest.FixtureRequest, tasks: Tasks) -> NewSink:
    """Make a sink that finds its server by itself."""
    if request.param == "asyncio":
        pytest.importorskip("aiohttp", reason="needs kevents[aio]")
        return tasks.sink
    return Requests if request.param == "requests" else CoreV1EventSink


@pytest.fixture(params=WAYS)
def make_sink(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tasks: Tasks) -> MakeSink:
    """Make a sink for a kubeconfig, which kevents or a client reads, over any transport."""
    way: str = request.param
    package, _, kind = way.partition(", ")
    asynchronous = package in {"asyncio", *PACKAGES}
    if asynchronous:
        pytest.importorskip("aiohttp" if package == "asyncio" else f"{package}.client", reason=f"needs {package}")

    def make(path: Path) -> EventSink:
        if way in {"direct", "asyncio"}:
            monkeypatch.setenv("KUBECONFIG", str(path))
            return tasks.sink() if asynchronous else CoreV1EventSink()
        if way == "requests":
            return Requests(Kubeconfig(str(path)))
        if package in PACKAGES:
            module = importlib.import_module(f"{package}.config")
            if kind == "given":
                return tasks.sink(tasks.run(module.new_client_from_config(str(path))))
            monkeypatch.setattr(importlib.import_module(f"{package}.client").Configuration, "_default", None)
            tasks.run(module.load_kube_config(str(path)))
            return tasks.sink()
        configuration = client.Configuration()
        config.load_kube_config(str(path), client_configuration=configuration)
        configuration.retries = False
        if way == "a given client":
            return CoreV1EventSink(client.ApiClient(configuration=configuration))
        client.Configuration.set_default(configuration)
        return tasks.sink() if asynchronous else CoreV1EventSink()

    return make


def certificate(*hosts: str) -> tuple[str, str]:
    """Return a self-signed certificate for any purpose, and its key."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, hosts[0])])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        made.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )


@dataclass
class Web:
    """A server that accepts everything.

    Attributes:
        url: Its URL.
        seen: Method, target and headers of each request.
        peers: Common names of the clients' certificates.
    """

    url: str = ""
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)


def server_context(folder: Path, *hosts: str, client_ca: str = "") -> tuple[ssl.SSLContext, str]:
    """The TLS context of a server, and the authority that its clients need."""
    made, key = certificate(*hosts)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (folder / "server.pem").write_text(made + key, encoding="ascii")
    context.load_cert_chain(folder / "server.pem")
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca)
    return context, made


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Web]:
    """Run a server that answers every request with 201; it tunnels a CONNECT."""
    web = Web()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            web.seen.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
            with contextlib.suppress(AttributeError, TypeError):
                subject = self.connection.getpeercert()["subject"]  # type: ignore[attr-defined]
                web.peers.append(subject[0][0][1])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(201)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def do_PATCH(self) -> None:
            self.do_POST()

        def do_CONNECT(self) -> None:
            web.seen.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
            host, _, port = self.path.partition(":")
            with socket.create_connection((host, int(port)), 30) as other:
                self.send_response(200)
                self.end_headers()
                self.wfile.flush()
                forward(self.connection, other)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        web.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()


def forward(one: socket.socket, other: socket.socket) -> None:
    """Pass on the bytes of either side, until one closes."""
    while True:
        pending = isinstance(one, ssl.SSLSocket) and one.pending()
        ready = [one] if pending else select.select([one, other], [], [], 30)[0]
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)


def written(folder: Path, server: str, *, ca: str = "", user: dict[str, Any] | None = None, **cluster: object) -> Path:
    """A kubeconfig; fields of the cluster with underscores for dashes."""
    content = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": TOKEN} if user is None else user}],
    }
    settings: Any = content["clusters"][0]["cluster"]
    settings.update({name.replace("_", "-"): value for name, value in cluster.items()})
    if ca:
        settings["certificate-authority-data"] = base64.b64encode(ca.encode()).decode()
    path = folder / "kubeconfig"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


# -- credentials -----------------------------------------------------------------------------------------------------


USERS: Final[dict[str, tuple[dict[str, Any], str | None]]] = {
    "token": ({"token": TOKEN}, f"Bearer {TOKEN}"),
    "token file": ({"tokenFile": "token.txt"}, f"Bearer {TOKEN}"),
    "password": ({"username": "me", "password": "pw"}, "Basic " + base64.b64encode(b"me:pw").decode()),
    "nothing": ({}, None),
}


@pytest.mark.parametrize(("user", "expected"), USERS.values(), ids=USERS.keys())
def test_users(make_sink: MakeSink, tmp_path: Path, user: dict[str, Any], expected: str | None) -> None:
    """A token, a token file beside the kubeconfig, a password or nothing becomes the header."""
    (tmp_path / "token.txt").write_text(TOKEN, encoding="ascii")
    with serving() as web:
        make_sink(written(tmp_path, web.url, user=user)).create("default", event())
    [(method, target, headers)] = web.seen
    assert (method, target, headers.get("authorization")) == ("POST", events_path("", "default"), expected)


@pytest.mark.parametrize("make_sink", REFRESHING, indirect=True)
def test_exec_plugin(make_sink: MakeSink, tmp_path: Path) -> None:
    """The credentials of an exec plugin are used, and those of its next run once they have expired."""
    program = tmp_path / "plugin.py"
    program.write_text(
        """
import json, pathlib, sys
runs = pathlib.Path(sys.argv[1])
number = len(runs.read_text()) if runs.exists() else 0
runs.write_text("x" * (number + 1))
status = {"token": f"token-{number + 1}", "expirationTimestamp": "2020-01-01T00:00:00Z"}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
""",
        encoding="utf-8",
    )
    with serving() as web:
        sink = make_sink(written(tmp_path, web.url, user=plugin(program, tmp_path / "runs")))
        sink.create("default", event())
        sink.create("default", event(name="pod.2"))
    used = [headers["authorization"] for _, _, headers in web.seen]
    assert used == sorted(set(used))  # each newer than the one before
    assert all(re.fullmatch(r"Bearer token-\d", header) for header in used)


def plugin(program: Path, *args: object) -> dict[str, Any]:
    """A user whose credentials a program prints."""
    command = {"command": sys.executable, "args": [str(program), *map(str, args)], "interactiveMode": "Never"}
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **command}}


def test_failing_plugin(
    new_sink: NewSink, api_server: APIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an exec plugin has failed, the same sink uses the credentials of its next run."""
    program = tmp_path / "plugin.py"
    program.write_text("raise SystemExit(3)", encoding="ascii")
    path = written(tmp_path, api_server.tls_url, ca=api_server.ca, user=plugin(program))
    monkeypatch.setenv("KUBECONFIG", str(path))
    sink = new_sink()
    with pytest.raises(SinkError):
        sink.create("default", event())
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    credential |= {"status": {"token": api_server.token}}
    program.write_text(f"print({json.dumps(credential)!r})", encoding="ascii")
    sink.create("default", event())
    assert len(api_server.events()) == 1


def test_failing_plugin_of_a_named_kubeconfig(tmp_path: Path) -> None:
    """After an exec plugin has failed, the commands and the export send no request without credentials."""
    program = tmp_path / "plugin.py"
    program.write_text("raise SystemExit(3)", encoding="ascii")
    with serving() as web:
        path = written(tmp_path, web.url, user=plugin(program))
        with pytest.raises(UnavailableError, match=r"cannot use the kubeconfig .*the plugin of its user has failed"):
            Requests(Kubeconfig(str(path))).create("default", event())
    assert web.seen == []


def test_plugin_beside_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on while an exec plugin runs, at the first request and later: the loop itself serves the tokens."""
    pytest.importorskip("aiohttp", reason="needs kevents[aio]")
    program = tmp_path / "plugin.py"
    program.write_text(
        """
import json, socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 30) as connection:
    token = connection.recv(100).decode()
status = {"token": token, "expirationTimestamp": "2020-01-01T00:00:00Z"}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
""",
        encoding="utf-8",
    )
    served: list[str] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(f"token-{len(served) + 1}")
        writer.write(served[-1].encode())
        await writer.drain()
        writer.close()

    async def main(url: str) -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            monkeypatch.setenv("KUBECONFIG", str(written(tmp_path, url, user=plugin(program, port))))
            sink = aio.CoreV1EventSink()
            for number in range(2):
                await sink.create("default", event(name=f"pod.{number}"))
            await sink.close()

    with serving() as web:
        asyncio.run(main(web.url))
    used = [headers["authorization"].removeprefix("Bearer ") for _, _, headers in web.seen]
    assert used == [served[-2], served[-1]]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("package", PACKAGES)
def test_refresh_hook_of_an_asynchronous_client(
    tasks: Tasks, package: str, monkeypatch: pytest.MonkeyPatch, *, asynchronous: bool
) -> None:
    """The hook of an asynchronous client's configuration refreshes the token, as a function or a coroutine function."""
    module = pytest.importorskip(f"{package}.client", reason=f"needs {package}")
    monkeypatch.setattr(module.Configuration, "_default", None)
    tokens = iter(["first", "second"])

    def refresh(configuration: Any) -> None:
        configuration.api_key = {"BearerToken": f"Bearer {next(tokens)}"}

    async def refresh_later(configuration: Any) -> None:
        await asyncio.sleep(0)
        refresh(configuration)

    with serving() as web:
        configuration = module.Configuration(host=web.url)
        configuration.api_key = {"BearerToken": "Bearer none"}
        configuration.refresh_api_key_hook = refresh_later if asynchronous else refresh
        module.Configuration.set_default(configuration)
        sink = tasks.sink()
        sink.create("default", event())
        sink.create("default", event(name="pod.2"))
    assert [headers["authorization"] for _, _, headers in web.seen] == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("given", [False, True])
def test_refresh_hook(tmp_path: Path, *, given: bool) -> None:
    """The hook of a client's configuration refreshes the token before each request."""
    tokens = iter(["first", "second", "third"])

    def refresh(configuration: Any) -> None:
        configuration.api_key = dict.fromkeys(("authorization", "BearerToken"), f"Bearer {next(tokens)}")

    with serving() as web:
        configuration = client.Configuration(host=web.url)
        configuration.api_key = dict.fromkeys(("authorization", "BearerToken"), "Bearer none")
        configuration.refresh_api_key_hook = refresh
        client.Configuration.set_default(configuration)
        sink = CoreV1EventSink(client.ApiClient(configuration)) if given else CoreV1EventSink()
        sink.create("default", event())
        sink.create("default", event(name="pod.2"))
    assert [headers["authorization"] for _, _, headers in web.seen] == ["Bearer first", "Bearer second"]


def test_rotated_service_account(
    new_sink: NewSink, api_server: APIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token of a service account is read again after a minute, and after a 401 at once."""
    now = [0.0]
    api_server.add_user("second", "rotated")
    (tmp_path / "token").write_text(f"{api_server.token}\n", encoding="ascii")
    (tmp_path / "ca.crt").write_text(api_server.ca, encoding="ascii")
    monkeypatch.setattr(endpoint, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setattr(endpoint, "monotonic", lambda: now[0])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(urlsplit(api_server.tls_url).port))
    sink = new_sink()
    used = []
    for number, seconds in enumerate((0, 59, 2)):
        now[0] += seconds
        sink.create("default", event(name=f"pod.{number}"))
        (tmp_path / "token").write_text("second", encoding="ascii")
        used.append(api_server.requests[-1].headers["authorization"])
    assert used == [f"Bearer {api_server.token}"] * 2 + ["Bearer second"]
    api_server.remove_user("rotated")
    (tmp_path / "token").write_text(api_server.token, encoding="ascii")
    assert refusal(sink.create, "default", event(name="pod.8")).code == 401
    sink.create("default", event(name="pod.9"))
    assert api_server.requests[-1].headers["authorization"] == f"Bearer {api_server.token}"


def test_empty_token_file(new_sink: NewSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token file that becomes empty is UnavailableError, and a full one is used again."""
    now = [0.0]
    monkeypatch.setattr(endpoint, "monotonic", lambda: now[0])
    token = tmp_path / "token.txt"
    token.write_text(TOKEN, encoding="ascii")
    with serving() as web:
        monkeypatch.setenv("KUBECONFIG", str(written(tmp_path, web.url, user={"tokenFile": "token.txt"})))
        sink = new_sink()
        sink.create("default", event())
        token.write_text("", encoding="ascii")
        now[0] = 61.0
        with pytest.raises(UnavailableError, match=r"the token file .* is empty"):
            sink.create("default", event())
        token.write_text("next", encoding="ascii")
        sink.create("default", event())
    assert [headers["authorization"] for _, _, headers in web.seen] == [f"Bearer {TOKEN}", "Bearer next"]


@pytest.mark.parametrize("new_sink", SINKS, indirect=True)
@pytest.mark.parametrize("bad", [f"{TOKEN}\nX-Evil: 1", f"{TOKEN}€"])
def test_token_that_is_no_header(
    new_sink: NewSink, api_server: APIServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bad: str
) -> None:
    """Pitfall 72: a token that cannot be sent loses no event, adds no header, and is in no message."""
    path = kubeconfig(api_server, tmp_path, token=bad)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(UnavailableError, match="they make no valid header") as caught:
        new_sink().create("default", event())
    assert TOKEN not in str(caught.value)
    assert api_server.requests == ()


@pytest.mark.parametrize("as_files", [False, True])
def test_client_certificate(make_sink: MakeSink, tmp_path: Path, *, as_files: bool) -> None:
    """A client certificate is presented, from the kubeconfig or from files beside it."""
    mine, key = certificate("the-operator")
    context, ca = server_context(tmp_path, "localhost", client_ca=mine)
    user: dict[str, str] = {}
    for name, text in (("client-certificate", mine), ("client-key", key)):
        (tmp_path / name).write_text(text, encoding="ascii")
        user |= {name: name} if as_files else {f"{name}-data": base64.b64encode(text.encode()).decode()}
    with serving(context) as web:
        path = written(tmp_path, web.url.replace("127.0.0.1", "localhost"), ca=ca, user=user)
        make_sink(path).create("default", event())
    assert web.peers == ["the-operator"]


# -- TLS -------------------------------------------------------------------------------------------------------------


def test_server_name(make_sink: MakeSink, tmp_path: Path) -> None:
    """`tls-server-name` is the name that the certificate must have."""
    context, ca = server_context(tmp_path, "api.example.com")
    with serving(context) as web:
        make_sink(written(tmp_path, web.url, ca=ca, tls_server_name="api.example.com")).create("default", event())
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            make_sink(written(tmp_path, web.url, ca=ca)).create("default", event())
    assert len(web.seen) == 1


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_insecure(make_sink: MakeSink, tmp_path: Path) -> None:
    """`insecure-skip-tls-verify` accepts any certificate."""
    context, _ = server_context(tmp_path, "another")
    with serving(context) as web:
        make_sink(written(tmp_path, web.url, insecure_skip_tls_verify=True)).create("default", event())
    assert len(web.seen) == 1


# -- proxies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
def test_proxy(new_sink: NewSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, tls: bool) -> None:
    """`proxy-url` of a kubeconfig is used, with its password: for TLS as a tunnel, else for the whole request."""
    context, ca = server_context(tmp_path, "localhost")
    with serving(context if tls else None) as web, serving() as proxy:
        url = web.url.replace("127.0.0.1", "localhost")
        address = proxy.url.replace("//", "//me:p%40w@")
        monkeypatch.setenv("KUBECONFIG", str(written(tmp_path, url, ca=ca if tls else "", proxy_url=address)))
        new_sink().create("default", event())
    [(method, target, headers)] = proxy.seen
    netloc = url.partition("//")[2]
    assert (method, target) == (("CONNECT", netloc) if tls else ("POST", url + events_path("", "default")))
    assert headers["proxy-authorization"] == "Basic " + base64.b64encode(b"me:p@w").decode()
    assert [seen[2].get("proxy-authorization") for seen in web.seen] == ([None] if tls else [])


@pytest.mark.parametrize("kind", ["given", "loaded", "asyncio"])
def test_proxy_of_a_configuration(tmp_path: Path, tasks: Tasks, kind: str) -> None:
    """The proxy of a client's configuration is used over each transport."""
    context, ca = server_context(tmp_path, "localhost")
    (tmp_path / "ca.crt").write_text(ca, encoding="ascii")
    with serving(context) as web, serving() as proxy:
        configuration = client.Configuration(host=web.url.replace("127.0.0.1", "localhost"))
        configuration.ssl_ca_cert = str(tmp_path / "ca.crt")
        configuration.proxy = proxy.url
        configuration.proxy_headers = {"X-Of-The-Proxy": "yes"}
        client.Configuration.set_default(configuration)
        if kind == "asyncio":
            sink: EventSink = tasks.sink()
        else:
            sink = CoreV1EventSink(client.ApiClient(configuration) if kind == "given" else None)
        sink.create("default", event())
    assert [(seen[0], seen[2]["x-of-the-proxy"]) for seen in proxy.seen] == [("CONNECT", "yes")]
    assert len(web.seen) == 1


PROGRAMS: Final = {
    "threads": "import kevents; kevents.CoreV1EventSink().create('default', {event!r})",
    "asyncio": """
import asyncio
from kevents import aio
async def main():
    sink = aio.CoreV1EventSink()
    await sink.create("default", {event!r})
    await sink.close()
asyncio.run(main())
""",
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_proxy_with_tls(tmp_path: Path, kind: str) -> None:
    """A proxy with TLS is used for a server with TLS: TLS within TLS. In a process that trusts the proxy."""
    if kind == "asyncio" and sys.version_info < (3, 11):
        pytest.skip("asyncio has TLS within TLS since Python 3.11")
    context, ca = server_context(tmp_path, "localhost")
    (tmp_path / "proxy").mkdir()
    proxy_context, proxy_ca = server_context(tmp_path / "proxy", "localhost")
    (tmp_path / "proxy-ca.crt").write_text(proxy_ca, encoding="ascii")
    with serving(context) as web, serving(proxy_context) as proxy:
        urls = [each.url.replace("127.0.0.1", "localhost") for each in (web, proxy)]
        path = written(tmp_path, urls[0], ca=ca, proxy_url=urls[1])
        code = PROGRAMS[kind].format(event=event())
        environment = {**os.environ, "KUBECONFIG": str(path), "SSL_CERT_FILE": str(tmp_path / "proxy-ca.crt")}
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=60)
    assert [seen[0] for seen in proxy.seen] == ["CONNECT"]
    assert len(web.seen) == 1


@pytest.mark.parametrize("proxy", ["foo://user:pw@127.0.0.1:1", "http://user:pw@127.0.0.1:port", "http://"])
def test_unusable_proxy(new_sink: NewSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """A proxy of an unknown kind is UnavailableError, without its password."""
    monkeypatch.setenv("KUBECONFIG", str(written(tmp_path, "https://localhost:1", proxy_url=proxy)))
    with pytest.raises(UnavailableError, match="the URL of the API server or of its proxy is unusable") as caught:
        new_sink().create("default", event())
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ""),
        ({"https_proxy": "http://p:1"}, "http://p:1"),
        ({"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ({"http_proxy": "http://p:1"}, ""),
        ({"https_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, ""),
    ],
)
def test_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    """The environment's proxy is the one for the server's scheme, in either case."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy("https://10.96.0.1:443") == expected


@pytest.mark.parametrize(
    ("no_proxy", "expected"),
    [
        ("", False),
        ("*", True),
        ("api.example.com", True),
        ("example.com", True),
        (".example.com", True),
        ("*.example.com", True),
        ("other.com, EXAMPLE.com", True),
        ("api.example.com:6443", True),
        ("api.example.com:443", False),
        ("ample.com", False),
        (".", False),
        ("10.0.0.0/8", False),
    ],
)
def test_no_proxy(no_proxy: str, *, expected: bool) -> None:
    """A host is reached without the proxy if NO_PROXY has it, its domain or its port."""
    assert bypasses(urlsplit("https://api.example.com:6443"), no_proxy) == expected


def test_base_path(new_sink: NewSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's URL may have a path, which is kept as it is, and a user, who is not used."""
    with serving() as web:
        server = web.url.replace("//", "//me:pw@") + "/k8s/clusters/c-1%2Fx/"
        monkeypatch.setenv("KUBECONFIG", str(written(tmp_path, server)))
        new_sink().create("default", event())
    [(_, target, headers)] = web.seen
    assert target == "/k8s/clusters/c-1%2Fx" + events_path("", "default")
    assert (headers["host"], headers["authorization"]) == (web.url.partition("//")[2], f"Bearer {TOKEN}")


@pytest.mark.parametrize("new_sink", SINKS, indirect=True)
def test_names_are_quoted(new_sink: NewSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters of a namespace or name never change the path, not even two dots."""
    with serving() as web:
        monkeypatch.setenv("KUBECONFIG", str(written(tmp_path, web.url)))
        new_sink().patch("a/b ?#%2F", "..", {})
    assert [seen[1] for seen in web.seen] == ["/api/v1/namespaces/a%2Fb%20%3F%23%252F/events/.."]


# -- connections -----------------------------------------------------------------------------------------------------


def test_connection_that_the_server_closed(
    new_sink: NewSink, api_server: APIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: Tasks
) -> None:
    """An idle connection that the server has closed is not used again, so that no event must be sent twice."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(api_server, tmp_path)))
    sink = new_sink()
    sink.create("default", event())
    api_server.stop_listening()
    api_server.listen_again()
    for _ in range(10):
        tasks.run(asyncio.sleep(0))  # a loop learns of it only while it runs
    sink.create("default", event(name="pod.2"))
    assert [request.connection for request in api_server.requests] == [1, 2]


def test_several_files(new_sink: NewSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubeconfig of several files is merged; the last file with a current context decides."""
    with serving() as web:
        first, second = tmp_path / "1", tmp_path / "2"
        whole = json.loads(written(tmp_path, web.url).read_text(encoding="utf-8"))
        first.write_text(json.dumps({"users": whole["users"], "current-context": "none"}), encoding="utf-8")
        del whole["users"]
        second.write_text(json.dumps(whole), encoding="utf-8")
        monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(first), str(tmp_path / "missing"), "", str(second)]))
        new_sink().create("default", event())
    assert web.seen[0][2]["authorization"] == f"Bearer {TOKEN}"


def test_endpoint_shows_no_secret() -> None:
    """Pitfall 72: the repr of an endpoint has no credential."""
    shown = repr(Endpoint("https://h", None, lambda: {"Authorization": TOKEN}, proxy=f"http://me:{TOKEN}@p"))
    assert TOKEN not in shown
