"""A real kube-apiserver with its own etcd, for tests that need more than the embedded server."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["HOW_TO_GET", "RealServer", "Response", "assets", "required_assets"]

HOW_TO_GET: Final = (
    "needs a real API server: set KUBEBUILDER_ASSETS to a folder with kube-apiserver, etcd and kubectl, for example "
    'export KUBEBUILDER_ASSETS="$(go run sigs.k8s.io/controller-runtime/tools/setup-envtest@latest use -p path)"'
)
PROGRAMS: Final = ("kube-apiserver", "etcd", "kubectl")
_VERBS: Final = {"recorder": ["create", "patch"], "creator": ["create"]}


def assets() -> Path | None:
    """Return the folder with the programs; None if it is missing."""
    folder = os.environ.get("KUBEBUILDER_ASSETS", "")
    if folder and all((Path(folder) / program).exists() for program in PROGRAMS):
        return Path(folder)
    return None


def required_assets() -> Path:
    """Return the folder with the programs, or skip the test."""
    folder = assets()
    if folder is None:
        pytest.skip(HOW_TO_GET)
    return folder


@dataclass(frozen=True)
class Response:
    """A response of the server.

    Attributes:
        status: The HTTP status.
        headers: The headers, their names in lower case.
        body: The parsed JSON, or the text if it is not JSON.
    """

    status: int
    headers: Mapping[str, str]
    body: Any


LEFT_BY_SSL: Final = "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
"""For tests in which a server goes: before 3.13 Python's ssl leaves a socket that is reset before its handshake."""


class RealServer:
    """A kube-apiserver and its etcd in a temporary folder, on free ports of the loopback interface.

    A context manager: `start` and `stop`. Users: `admin` (all permissions), `recorder` (create and patch
    events), `creator` (create events), `stranger` (no permissions).

    Args:
        folder: The folder of the programs, `KUBEBUILDER_ASSETS` by default.
        event_ttl: The server's `--event-ttl` (`1h`, `5s`).
    """

    def __init__(self, folder: Path | None = None, *, event_ttl: str = "1h") -> None:
        found = folder or assets()
        if found is None:
            raise FileNotFoundError(HOW_TO_GET)
        self._programs = found
        self._event_ttl = event_ttl
        self._folder = Path()
        self._ports: tuple[int, int, int] = (0, 0, 0)
        self._etcd: subprocess.Popen[bytes] | None = None
        self._apiserver: subprocess.Popen[bytes] | None = None
        self.tokens = {name: secrets.token_hex(16) for name in ("admin", "recorder", "creator", "stranger")}

    # Life

    def start(self) -> Self:
        """Start both programs, wait until they are ready, and return the server itself."""
        self._folder = Path(tempfile.mkdtemp(prefix="kevents-real-"))
        try:
            self._write_key()
            self._write_tokens()
            self._ports = _free_ports()
            self._start_etcd()
            self.start_again()
            self._grant()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End both programs and remove their folder."""
        for process in (self._apiserver, self._etcd):
            _end(process)
        self._apiserver = self._etcd = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def kill(self) -> None:
        """Kill the API server, as a crash does; etcd keeps running."""
        _end(self._apiserver)
        self._apiserver = None

    def start_again(self) -> None:
        """Start the API server on the same etcd and port, and wait until it is ready."""
        self._apiserver = self._spawn("kube-apiserver", self._apiserver_arguments())
        self.wait_ready()

    def pause(self, *, etcd: bool = False) -> None:
        """Suspend the API server, or etcd: connections stay open, but no request is answered."""
        self._signal(signal.SIGSTOP, etcd=etcd)

    def resume(self, *, etcd: bool = False) -> None:
        """Resume the API server, or etcd."""
        self._signal(signal.SIGCONT, etcd=etcd)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until the server reports that it is ready.

        Raises:
            RuntimeError: It is not ready after `timeout` seconds, or has ended. The message has the end of its log.
        """
        if not poll(self._is_ready, timeout, self._is_running):
            message = f"the API server is not ready: {self.log()[-2000:]}"
            raise RuntimeError(message)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return bool(self.request("GET", "/readyz", timeout=5).body == "ok")
        return False

    def _is_running(self) -> bool:
        return self._apiserver is not None and self._apiserver.poll() is None

    # Use

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"https://127.0.0.1:{self._ports[2]}"

    @property
    def port(self) -> int:
        """The API server's port."""
        return self._ports[2]

    @property
    def token(self) -> str:
        """The administrator's token."""
        return self.tokens["admin"]

    @property
    def ca_file(self) -> Path:
        """The certificate that clients should trust."""
        return self._folder / "certs" / "apiserver.crt"

    def log(self) -> str:
        """Return the log of the API server."""
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / "kube-apiserver.log").read_text(encoding="utf-8", errors="replace")
        return ""

    def kubeconfig(self, user: str = "admin") -> Path:
        """Write a kubeconfig for one of the users."""
        path = self._folder / f"kubeconfig-{user}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "real", "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)}}],
            "users": [{"name": user, "user": {"token": self.tokens[user]}}],
            "contexts": [{"name": "real", "context": {"cluster": "real", "user": user, "namespace": "default"}}],
            "current-context": "real",
        }
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    def kubectl(self, *arguments: str, user: str = "admin") -> str:
        """Run kubectl and return its output.

        Raises:
            subprocess.CalledProcessError: It failed; `stderr` has the reason.
        """
        return run_kubectl(self._programs, self.kubeconfig(user), *arguments)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        content_type: str = "application/json",
        accept: str = "",
        timeout: float = 30.0,
    ) -> Response:
        """Send one request.

        Args:
            method: The HTTP method.
            path: Path and query.
            body: Bytes as they are, anything else as JSON, None for none.
            token: The bearer token, the administrator's by default, empty for none.
            content_type: The body's type, empty for none.
            accept: The `Accept` header, empty for none.
            timeout: In seconds.
        """
        context = ssl.create_default_context(cafile=str(self.ca_file)) if self.ca_file.exists() else None
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=context)
        given = self.token if token is None else token
        return send(connection, method, path, body, token=given, content_type=content_type, accept=accept)

    def register(self, api_version: str, kind: str, resource: str, *, namespaced: bool = True) -> None:
        """Add a custom resource with arbitrary fields, and wait until it is served. Idempotent."""
        group, _, version = api_version.rpartition("/")
        names = {"kind": kind, "listKind": f"{kind}List", "plural": resource, "singular": kind.lower()}
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        versions = [{"name": version, "served": True, "storage": True, "schema": schema}]
        scope = "Namespaced" if namespaced else "Cluster"
        body = {
            "metadata": {"name": f"{resource}.{group}"},
            "spec": {"group": group, "names": names, "scope": scope, "versions": versions},
        }
        self.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
        self._wait_status(http.HTTPStatus.OK, "GET", f"/apis/{api_version}/{resource}")

    def compact(self) -> None:
        """Compact etcd's history up to now, as the API server does every five minutes."""
        revision = self._etcd_call("range", {"key": "AA=="})["header"]["revision"]
        self._etcd_call("compaction", {"revision": revision, "physical": True})

    # Inside

    def _etcd_call(self, method: str, body: dict[str, Any]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports[0], timeout=60)
        response = send(connection, "POST", f"/v3/kv/{method}", body, token="")
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"etcd: {response.body}")
        return response.body

    def _write_key(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self._folder / "sa.key").write_bytes(text)

    def _write_tokens(self) -> None:
        groups = {"admin": ',"system:masters"'}
        lines = [f"{token},{name},{name}-uid{groups.get(name, '')}" for name, token in self.tokens.items()]
        (self._folder / "tokens.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in self._ports[:2])
        self._etcd = self._spawn(
            "etcd",
            [
                f"--data-dir={self._folder / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--unsafe-no-fsync",
            ],
        )

    def _apiserver_arguments(self) -> list[str]:
        key = self._folder / "sa.key"
        return [
            f"--etcd-servers=http://127.0.0.1:{self._ports[0]}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self._folder / 'certs'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={self._folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
            f"--event-ttl={self._event_ttl}",
        ]

    def _spawn(self, program: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                [str(self._programs / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
            )

    def _signal(self, number: signal.Signals, *, etcd: bool) -> None:
        process = self._etcd if etcd else self._apiserver
        if process is not None:
            process.send_signal(number)

    def _grant(self) -> None:
        roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
        for name, verbs in _VERBS.items():
            rule = {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": verbs}
            self._must("POST", roles, {"metadata": {"name": f"kevents-{name}"}, "rules": [rule]})
            group = "rbac.authorization.k8s.io"
            binding = {
                "metadata": {"name": f"kevents-{name}"},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": f"kevents-{name}"},
                "subjects": [{"apiGroup": group, "kind": "User", "name": name}],
            }
            self._must("POST", roles.replace("roles", "rolebindings"), binding)
            self._wait_allowed(name)

    def _wait_allowed(self, name: str) -> None:
        path = "/api/v1/namespaces/default/events?dryRun=All"
        self._wait_status(http.HTTPStatus.UNPROCESSABLE_ENTITY, "POST", path, {}, self.tokens[name])

    def _wait_status(self, status: int, method: str, path: str, body: object = None, token: str | None = None) -> None:
        if not poll(lambda: self.request(method, path, body, token=token).status == status, 30):
            message = f"{method} {path}: still not {status}"
            raise RuntimeError(message)

    def _must(self, method: str, path: str, body: object) -> None:
        response = self.request(method, path, body)
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            message = f"{method} {path}: {response.body}"
            raise RuntimeError(message)


def send(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object,
    *,
    token: str,
    content_type: str = "application/json",
    accept: str = "",
) -> Response:
    """Send one request over its own connection, and close the connection."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None and content_type:
        headers["Content-Type"] = content_type
    if accept:
        headers["Accept"] = accept
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    with contextlib.closing(connection):
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        found = {name.lower(): value for name, value in answer.getheaders()}
    is_json = found.get("content-type", "").startswith("application/json")
    return Response(answer.status, found, json.loads(text) if is_json and text else text)


def run_kubectl(programs: Path, kubeconfig: Path, *arguments: str, timeout: float = 60.0) -> str:
    """Run kubectl with a kubeconfig and its own cache, and return its output.

    Raises:
        subprocess.CalledProcessError: It failed; `stderr` has the reason.
    """
    with tempfile.TemporaryDirectory(prefix="kevents-kubectl-") as home:
        done = subprocess.run(
            [str(programs / "kubectl"), f"--kubeconfig={kubeconfig}", f"--cache-dir={home}", *arguments],
            env={"HOME": home, "PATH": os.environ.get("PATH", "")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=timeout,
        )
    return done.stdout


def _free_ports() -> tuple[int, int, int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        first, second, third = (sock.getsockname()[1] for sock in sockets)
    return first, second, third


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    process.kill()
    process.wait(timeout=60)
