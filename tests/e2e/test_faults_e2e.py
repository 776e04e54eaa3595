"""Faults of a real API server, its etcd and the network: no event is lost, duplicated or miscounted."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import kevents
from kevents.testing._apiserver.server import self_signed
from tests.support.load import Load, Witness, check_ended, counts_on
from tests.support.polling import poll
from tests.support.proxy import BlackHole, Cut, Lossy, Pass, Proxy, Refuse, Slow
from tests.support.real_server import LEFT_BY_SSL, RealServer, required_assets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings(LEFT_BY_SSL),
]

OPTIONS = kevents.CorrelatorOptions(burst_size=None)
OUTAGE = 6.0
FLUSH = 60.0
LOST = "the API server is unavailable"
BACK = "the API server answers again"


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    """A real API server that only this module uses, to be killed and paused."""
    required_assets()
    with RealServer() as server:
        yield server


class Run:
    """A recorder of the user `recorder` in a separate namespace of a server.

    Args:
        server: The server that stores the events.
        caplog: Captures the log.
        port: The port the recorder writes to; None: the server's own.
        ca: The certificate authority that the recorder trusts; None: the server's.
        request_timeout: The option of `CoreV1EventSink`.
    """

    def __init__(
        self,
        server: RealServer,
        caplog: pytest.LogCaptureFixture,
        *,
        port: int | None = None,
        ca: Path | None = None,
        request_timeout: tuple[float, float] = (5, 15),
    ) -> None:
        import kubernetes.config

        self._server = server
        self._caplog = caplog
        self.namespace = make_namespace(server)
        caplog.set_level(logging.DEBUG, logger="kevents")
        self.client = kubernetes.config.new_client_from_config(config_file=str(kubeconfig(server, port, ca)))
        self.witness = Witness(OPTIONS)
        self.broadcaster = kevents.EventBroadcaster(correlator_options=OPTIONS)
        self.broadcaster.start_event_watcher(self.witness)
        sink = kevents.CoreV1EventSink(self.client, request_timeout=request_timeout)
        self.watcher = self.broadcaster.start_recording_to_sink(sink)
        self.recorder = self.broadcaster.new_recorder(kevents.EventSource("faults", "here"))

    def load(self, rate: float = 50.0) -> Load:
        """Return a load of events in the namespace."""
        return Load(self.recorder, self.namespace, rate=rate)

    def sink(self) -> kevents.SinkStatistics:
        """Return the statistics of the sink."""
        found = self.watcher.statistics().sink
        assert found is not None
        return found

    def lines(self, text: str) -> list[str]:
        """Return the log messages that contain a text."""
        messages = [record.getMessage() for record in self._caplog.records if record.name == "kevents"]
        return [message for message in messages if text in message]

    def loud(self) -> list[str]:
        """Return the log messages at warning level or above."""
        records = [record for record in self._caplog.records if record.name == "kevents"]
        return [record.getMessage() for record in records if record.levelno >= logging.WARNING]

    def on_the_server(self) -> dict[str, int]:
        """Return the counts of the namespace's events."""
        return events_on(self._server, self.namespace)

    def check_nothing_lost(self, load: Load, what: str) -> None:
        """Stop the load, check that each event is on the server once with its count, and print the figures."""
        recorded = load.stop()
        assert self.broadcaster.flush(FLUSH)
        found = self.on_the_server()
        print(  # noqa: T201
            f"\n{what}: {load}; delivered {self.sink().delivered}, lost {recorded - sum(found.values())}, in "
            f"{len(found)} objects; {self.sink().created} creates, {self.sink().patched} patches, "
            f"{self.sink().retried} retried"
        )
        check_ended(self.broadcaster.statistics(), recorded)
        assert self.broadcaster.statistics().dropped == {}
        assert found == self.witness.counts
        assert sum(found.values()) == recorded
        assert self.sink().delivered == recorded
        load.check_never_waited()

    def check_lines(self, lost: int, back: int) -> None:
        """Check the number of log lines about the server being unavailable and available again."""
        assert (len(self.lines(LOST)), len(self.lines(BACK))) == (lost, back)

    def close(self) -> None:
        """Close the broadcaster and the client's connections."""
        self.broadcaster.shutdown(5)
        self.client.rest_client.pool_manager.clear()
        self.client.close()


@pytest.fixture
def new_run(server: RealServer, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Run]]:
    """Yield a factory of runs, which are closed with the test."""
    runs = []

    def make(**options: Any) -> Run:
        runs.append(Run(server, caplog, **options))
        return runs[-1]

    yield make
    for run in runs:
        run.close()


@pytest.fixture
def proxy(server: RealServer) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    with Proxy(server.port, seed=1) as proxy:
        yield proxy


def make_namespace(server: RealServer) -> str:
    """Create a namespace."""
    name = f"t-{secrets.token_hex(6)}"
    assert server.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}}).status == 201
    return name


def events_on(server: RealServer, namespace: str) -> dict[str, int]:
    """Return the counts of a namespace's events by name."""
    return counts_on(server.request("GET", f"/api/v1/namespaces/{namespace}/events").body["items"])


def kubeconfig(server: RealServer, port: int | None = None, ca: Path | None = None) -> Path:
    """Write the recorder's kubeconfig, optionally with another port or certificate authority."""
    path = server.kubeconfig("recorder")
    config = json.loads(path.read_text(encoding="utf-8"))
    cluster = config["clusters"][0]["cluster"]
    if port is not None:
        cluster["server"] = f"https://127.0.0.1:{port}"
    if ca is not None:
        cluster["certificate-authority"] = str(ca)
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def test_killed(server: RealServer, new_run: Callable[..., Run]) -> None:
    """Pitfall 83: the API server is killed and restarted on the same etcd. It refuses requests at first."""
    run = new_run()
    with run.load() as load:
        load.go_on(1)
        server.kill()
        load.go_on(OUTAGE)
        server.start_again()
        load.go_on(2)
    run.check_nothing_lost(load, "killed")
    run.check_lines(lost=1, back=1)


def test_killed_for_a_minute(server: RealServer, new_run: Callable[..., Run]) -> None:
    """The API server is down for 60 s at 50 events a second, and no event is lost. client-go loses 61 %."""
    run = new_run()
    with run.load() as load:
        load.go_on(1)
        server.kill()
        load.go_on(60)
        server.start_again()
        load.go_on(3)
    run.check_nothing_lost(load, "killed for a minute")
    run.check_lines(lost=1, back=1)


def test_paused(server: RealServer, new_run: Callable[..., Run]) -> None:
    """Pitfall 47: the API server is paused with open connections, then resumed."""
    run = new_run(request_timeout=(1, 2))
    with run.load() as load:
        load.go_on(1)
        server.pause()
        try:
            load.go_on(OUTAGE)
        finally:
            server.resume()
        load.go_on(2)
    run.check_nothing_lost(load, "paused")
    run.check_lines(lost=1, back=1)


def test_etcd_paused(server: RealServer, new_run: Callable[..., Run]) -> None:
    """Pitfall 84: etcd is paused behind a running API server, then resumed."""
    run = new_run(request_timeout=(1, 2))
    with run.load() as load:
        load.go_on(1)
        server.pause(etcd=True)
        try:
            load.go_on(OUTAGE)
        finally:
            server.resume(etcd=True)
        load.go_on(2)
    run.check_nothing_lost(load, "etcd paused")
    run.check_lines(lost=1, back=1)


def test_token_revoked_and_restored(server: RealServer, new_run: Callable[..., Run]) -> None:
    """Pitfall 42: the server rejects the user's token with 401 for a while, across two restarts."""
    run = new_run()
    path = f"/api/v1/namespaces/{run.namespace}/events"
    token = server.tokens["recorder"]
    with run.load() as load:
        load.go_on(1)
        restart(server, {name: value for name, value in server.tokens.items() if name != "recorder"})
        try:
            assert server.request("POST", path, {}, token=token).status == 401
            load.go_on(OUTAGE)
        finally:
            restart(server, {**server.tokens, "recorder": token})
        load.go_on(2)
    run.check_nothing_lost(load, "token revoked")
    run.check_lines(lost=1, back=1)


def test_token_renewed(server: RealServer, new_run: Callable[..., Run]) -> None:
    """Pitfall 42: with an expired token, requests are rare and logged once. Delivery resumes with a new token."""
    run = new_run()
    configuration = run.client.configuration
    right = dict(configuration.api_key)
    with run.load() as load:
        load.go_on(1)
        expired = dict.fromkeys(right, "Bearer expired")
        configuration.refresh_api_key_hook = lambda found: found.api_key.update(expired)
        load.go_on(OUTAGE)
        configuration.refresh_api_key_hook = lambda found: found.api_key.update(right)
        load.go_on(2)
    run.check_nothing_lost(load, "token expired")
    run.check_lines(lost=1, back=1)
    assert "401" in run.lines(LOST)[0]
    assert run.sink().retried < 100, "too many retries"


def restart(server: RealServer, tokens: dict[str, str]) -> None:
    """Restart the API server with other users."""
    server.kill()
    server.tokens = tokens
    server._write_tokens()
    server.start_again()


def test_slow_network(proxy: Proxy, new_run: Callable[..., Run]) -> None:
    """A slow network delays the events and causes no log lines."""
    run = new_run(port=proxy.port)
    proxy.become(Slow(delay=0.1, bytes_per_second=50_000))
    with run.load() as load:
        load.go_on(OUTAGE)
    run.check_nothing_lost(load, "slow network")
    run.check_lines(lost=0, back=0)
    assert run.sink().retried == 0


def test_lossy_network(proxy: Proxy, new_run: Callable[..., Run]) -> None:
    """Pitfall 38: a network that cuts connections at any point causes no lost or duplicate event."""
    run = new_run(port=proxy.port)
    proxy.become(Lossy(share=0.2))
    with run.load() as load:
        load.go_on(2 * OUTAGE)
        proxy.become(Pass())
        load.go_on(2)
    run.check_nothing_lost(load, f"lossy network, {sum(proxy.cuts.values())} cuts")
    run.check_lines(lost=1, back=1)
    assert set(proxy.cuts) == set(Cut)


@pytest.mark.parametrize("mode", [BlackHole(), Refuse()], ids=["black-hole", "refuse"])
def test_no_network(proxy: Proxy, new_run: Callable[..., Run], mode: BlackHole | Refuse) -> None:
    """Pitfall 47: a network that drops all packets or refuses connections for a while causes no loss."""
    run = new_run(port=proxy.port, request_timeout=(1, 1))
    with run.load() as load:
        load.go_on(1)
        proxy.become(mode)
        load.go_on(OUTAGE)
        proxy.become(Pass())
        load.go_on(2)
    run.check_nothing_lost(load, str(mode))
    run.check_lines(lost=1, back=1)


def test_namespace_deleted(server: RealServer, new_run: Callable[..., Run]) -> None:
    """Pitfall 45: events in a terminating namespace are rejected without warnings and counted."""
    run = new_run()
    with run.load() as load:
        load.go_on(1)
        assert server.request("DELETE", f"/api/v1/namespaces/{run.namespace}").status == 200
        load.go_on(3)
    assert run.broadcaster.flush(FLUSH)
    before = run.sink()
    late = kevents.ObjectReference(kind="Pod", api_version="v1", namespace=run.namespace, name="late", uid="u")
    for _ in range(3):
        run.recorder.event(late, "Normal", "Late", "as it is")
        assert run.broadcaster.flush(FLUSH)
    found = run.sink()
    print(f"\nnamespace deleted: {load}; delivered {found.delivered}, rejected {dict(found.rejected_by_code)}")  # noqa: T201
    check_ended(run.broadcaster.statistics(), load.recorded + 3)
    assert sum(run.on_the_server().values()) == found.delivered
    assert found.dropped == {kevents.DropReason.REJECTED: load.recorded + 3 - found.delivered}
    assert found.rejected_by_code == {403: load.recorded + 3 - found.delivered}
    assert found.rejected_by_code[403] - before.rejected_by_code[403] == 3
    assert run.loud() == []
    load.check_never_waited()


def test_webhook_of_one_namespace(server: RealServer, new_run: Callable[..., Run]) -> None:
    """Fault 1: while an admission webhook fails all writes in one namespace, events of another one are written."""
    run, broken = new_run(), make_namespace(server)
    name = f"fault-{broken}.example.com"
    webhook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": name,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "clientConfig": {"url": "https://127.0.0.1:1/"},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": broken}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["events"]}],
            }
        ],
    }
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    assert server.request("POST", path, webhook).status == 201
    probe = {"metadata": {"name": "probe"}, "involvedObject": {"namespace": broken}}

    def is_broken() -> bool:
        answer = server.request("POST", f"/api/v1/namespaces/{broken}/events", probe)
        server.request("DELETE", f"/api/v1/namespaces/{broken}/events/probe")
        return answer.status == 500

    assert poll(is_broken, 30)
    for number in range(60):
        about = kevents.ObjectReference(kind="Pod", api_version="v1", namespace=broken, name=f"p{number}", uid="u")
        run.recorder.event(about, "Normal", "Started", "up")
    assert not run.broadcaster.flush(1)
    with run.load(rate=10.0) as load:
        load.go_on(5)
        recorded = load.stop()
        assert poll(lambda: sum(run.on_the_server().values()) == recorded, 5)
    assert events_on(server, broken) == {}
    assert len(run.lines(f"fails every write in the namespace {broken}")) == 1
    assert server.request("DELETE", f"{path}/{name}").status == 200
    assert run.broadcaster.flush(FLUSH)
    assert len(events_on(server, broken)) == 60
    assert run.broadcaster.statistics().dropped == {}


def test_certificate_of_another_authority(tmp_path: Path, new_run: Callable[..., Run]) -> None:
    """Pitfall 40: with an untrusted server certificate, events wait, and the log names the certificate."""
    other = tmp_path / "other.crt"
    other.write_text(self_signed(["127.0.0.1"]).certificate, encoding="ascii")
    run = new_run(ca=other)
    with run.load() as load:
        load.go_on(3)
    assert not run.broadcaster.flush(0.5)
    waiting = run.sink()
    assert waiting.backlog == load.recorded
    assert waiting.dropped == {}
    (line,) = run.loud()
    assert line.startswith(LOST)
    assert "certificate verify failed" in line
    assert run.broadcaster.shutdown(1) == load.recorded
    check_ended(run.broadcaster.statistics(), load.recorded)
    assert run.broadcaster.statistics().dropped == {kevents.DropReason.SHUTDOWN: load.recorded}
    print(f"\nanother authority: {load}; all events waited, {waiting.retried} retried, and were dropped at shutdown")  # noqa: T201
    load.check_never_waited()


def test_kubeconfig_of_the_environment(server: RealServer) -> None:
    """Pitfall 61: a script that finds the server only through KUBECONFIG delivers all events before it exits."""
    namespace = make_namespace(server)
    script = f"""
        import kevents

        broadcaster = kevents.EventBroadcaster(correlator_options=kevents.CorrelatorOptions(burst_size=None))
        broadcaster.start_recording_to_sink(kevents.CoreV1EventSink())
        recorder = broadcaster.new_recorder("a-script")
        for number in range(40):
            name = f"web-{{number % 2}}"
            pod = kevents.ObjectReference(kind="Pod", api_version="v1", namespace="{namespace}", name=name, uid=name)
            recorder.event(pod, "Normal", "Ended", "the same")
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script)],
        env={**os.environ, "KUBECONFIG": str(kubeconfig(server))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(events_on(server, namespace).values()) == [20, 20]


def test_proxy_forwards_nothing_once_the_client_has_closed() -> None:
    """Data of a client that has closed its connection is not forwarded."""
    with socket.create_server(("127.0.0.1", 0)) as listener, Proxy(listener.getsockname()[1]) as proxy:
        proxy.become(Slow(delay=0.2))
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            client.sendall(b"a question")
        server, _ = listener.accept()
        with server:
            server.settimeout(10)
            with pytest.raises(ConnectionResetError):
                server.recv(1)
        assert (proxy.accepted, proxy.forwarded) == (1, 0)


def test_proxy_modes() -> None:
    """Every mode of the proxy applies to new and to open connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener, Proxy(listener.getsockname()[1]) as proxy:
        address = ("127.0.0.1", proxy.port)
        with socket.create_connection(address, timeout=60) as client:
            server, _ = listener.accept()
            with server:
                client.sendall(b"ping")
                assert server.recv(4) == b"ping"
                proxy.become(BlackHole())
                server.sendall(b"swallowed")
                client.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    client.recv(9)
                proxy.become(Refuse())
                with pytest.raises(ConnectionResetError):
                    client.recv(9)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=60)
        proxy.become(Lossy(share=1.0))
        for _ in range(30):
            exchange(address, listener)
        assert sum(proxy.cuts.values()) == 30
        assert set(proxy.cuts) == set(Cut)


def exchange(address: tuple[str, int], listener: socket.socket) -> None:
    """Send a request and an answer over a connection that is cut."""
    with socket.create_connection(address, timeout=60) as client:
        server, _ = listener.accept()
        with server:
            server.settimeout(10)
            try:
                client.sendall(b"question")
                asked = server.recv(8)
                assert asked == b"question"
                server.sendall(b"answer")
                assert client.recv(8) == b"ans"
                assert client.recv(8) == b""
            except ConnectionResetError:
                return
