"""An API server for tests and demonstrations. It speaks HTTP and runs in threads of the current process."""

from __future__ import annotations

import base64
import copy
import functools
import importlib.util
import ipaddress
import json
import secrets
import shutil
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kevents._model.validation import how_to_install
from kevents.testing._apiserver.faults import Fault, Faults, Rule
from kevents.testing._apiserver.handler import ALL_VERBS, Handler, Listener, Users
from kevents.testing._apiserver.kinds import Kind, Kinds
from kevents.testing._apiserver.requests import Request, RequestLog
from kevents.testing._apiserver.resources import Resources
from kevents.testing._apiserver.storage import Backup, Store
from kevents.testing._apiserver.watch import Watches

if TYPE_CHECKING:
    from cryptography import x509


class Certificate(NamedTuple):
    """A certificate, or the authority that signed it, in PEM, and the TLS context of a server with it."""

    certificate: str
    context: ssl.SSLContext


def self_signed(hosts: Iterable[str]) -> Certificate:
    """Make a certificate that is valid for one year. Raises ImportError without `cryptography`."""
    try:
        from cryptography import x509  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415
    except ImportError as missing:
        raise ImportError(
            f"TLS of the embedded API server needs cryptography: {how_to_install('testing')} ({missing})"
        ) from missing
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kevents")])
    now = datetime.now(timezone.utc)
    usages = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, encipher_only=False, decipher_only=False, **usages
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative_name(host) for host in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    text = certificate.public_bytes(encoding)
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.TemporaryDirectory(prefix="kevents-") as folder:
        path = Path(folder) / "server.pem"
        path.touch(mode=0o600)
        path.write_bytes(text + secret)
        context.load_cert_chain(path)
    return Certificate(text.decode(), context)


@functools.lru_cache(maxsize=16)
def _own_certificate(hosts: tuple[str, ...]) -> Certificate:
    """The certificate of all servers of this process that have the same hosts: to make one takes 10 ms."""
    return self_signed(hosts)


def _alternative_name(host: str) -> x509.GeneralName:
    from cryptography import x509  # noqa: PLC0415 - an extra

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def kubeconfig(url: str, token: str, ca: str = "") -> str:
    """Return a kubeconfig as JSON, which readers of YAML accept."""
    cluster: dict[str, Any] = {"server": url}
    if ca:
        cluster["certificate-authority-data"] = base64.b64encode(ca.encode()).decode()
    elif url.startswith("https:"):
        cluster["insecure-skip-tls-verify"] = True
    name = "kevents"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
        "current-context": name,
    }
    return json.dumps(config, indent=2) + "\n"


_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


class APIServer:
    """An embedded Kubernetes API server: events in both API versions, and simple objects of other kinds.

    It answers like a real server (both pass the same tests), keeps all objects in memory, checks bearer tokens, logs
    its requests, and fails on demand. As a context manager it runs `start` and `stop`.

    It speaks plain HTTP and, if the extra `testing` is installed (`pip install 'kevents[testing]'`), TLS on the same
    port.

    Args:
        host: The address to listen on.
        port: The port. 0 for a free one.
        token: The token of the administrator; a random one by default.
        event_ttl: The lifetime in seconds of an event after its last write. None for ever.
        clock: The wall clock in nanoseconds. After a jump, watches see expired events at the next request.
        ssl_context: The TLS context. By default one with a self-signed certificate, made on first use and shared by
            the servers of the process.
        ca: The certificate authority of `ssl_context` for clients, PEM; it goes into the kubeconfig.
        finalize_namespaces: Whether a deleted namespace is removed at once. If not, it stays `Terminating`, as on a
            cluster without controllers.
        log_length: The number of requests in the log.
        history: The number of changes that watches and paged lists can go back. Older versions get 410.
        history_age: The time in seconds, by the clock, that they can go back (etcd: five minutes). None for ever.
        watch_buffer: The number of changes by which a watch may be behind before it is cut. None for no limit.
        gone: The answer to a watch from a compacted resourceVersion: an `event` of type ERROR, like the real server's,
            the `status` 410, or an `empty` answer.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        event_ttl: float | None = 3600.0,
        clock: Callable[[], int] = time.time_ns,
        ssl_context: ssl.SSLContext | None = None,
        ca: str = "",
        finalize_namespaces: bool = False,
        log_length: int = 100_000,
        history: int = 10_000,
        history_age: float | None = None,
        watch_buffer: int | None = None,
        gone: Literal["event", "status", "empty"] = "event",
    ) -> None:
        self.token = token if token is not None else secrets.token_urlsafe(24)
        self._certificate = None if ssl_context is None else Certificate(ca, ssl_context)
        self._making = threading.Lock()  # guards the certificate
        self._folders: list[str] = []
        self._users = Users(self.token)
        self._faults = Faults()
        self._log = RequestLog(log_length)
        self._kinds = Kinds()
        self._store = Store(clock, event_ttl, history=history, history_age=history_age, watch_buffer=watch_buffer)
        self._resources = Resources(self._store, finalize_namespaces=finalize_namespaces)
        watches = Watches(self._store, gone)
        self._handler = Handler(self._users, self._faults, self._log, self._kinds, self._resources, watches)
        self._listener = Listener(host, port, lambda: self._tls().context, self._handler.handle)
        for name in _NAMESPACES:
            self.create_namespace(name)

    # Start and stop

    def start(self) -> APIServer:
        """Start to listen, and return the server. A stopped server keeps its port and its objects."""
        self._handler.open()
        self._listener.open()
        return self

    def stop(self) -> None:
        """Close the port, all connections and watches, end all threads, remove temporary files. The objects stay."""
        self._listener.close()
        self._handler.close()
        self._listener.disconnect()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._folders.clear()

    def __enter__(self) -> APIServer:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop_listening(self, *, disconnect: bool = True) -> None:
        """Refuse new connections, and close the open ones if `disconnect`."""
        self._listener.close()
        if disconnect:
            self._handler.close()
            self._listener.disconnect()
            self._handler.open()

    def listen_again(self) -> None:
        """Accept connections again, on the same port."""
        self._listener.open()

    # Addresses

    @property
    def port(self) -> int:
        """The port. 0 before the first start."""
        return self._listener.port

    @property
    def url(self) -> str:
        """The address for plain HTTP."""
        return f"http://{self._authority}"

    @property
    def tls_url(self) -> str:
        """The address for TLS.

        Raises:
            ImportError: TLS needs the extra `testing`.
        """
        self._tls()
        return f"https://{self._authority}"

    @property
    def ca(self) -> str:
        """The certificate authority for clients that use TLS, PEM.

        Raises:
            ImportError: TLS needs the extra `testing`.
        """
        return self._tls().certificate

    def _tls(self) -> Certificate:
        """The certificate, made on first use. It is also valid for the loopback addresses."""
        with self._making:
            if self._certificate is None:
                hosts = dict.fromkeys((self._listener.host, "127.0.0.1", "::1", "localhost"))
                self._certificate = _own_certificate(tuple(hosts))
            return self._certificate

    @property
    def _authority(self) -> str:
        host = f"[{self._listener.host}]" if ":" in self._listener.host else self._listener.host
        return f"{host}:{self.port}"

    def kubeconfig(self, path: str | Path | None = None, *, token: str | None = None) -> Path:
        """Write a kubeconfig for kubectl and the official client. Only its owner can read it.

        It uses TLS if the extra `testing` is installed; kubectl needs that, because it sends no token over plain HTTP.

        Args:
            path: The file. None for one in a temporary folder that `stop` removes.
            token: The token; the administrator's by default.

        Returns:
            The file.
        """
        if path is None:
            self._folders.append(tempfile.mkdtemp(prefix="kevents-"))
            path = Path(self._folders[-1]) / "kubeconfig"
        path = Path(path)
        path.touch(mode=0o600)
        speaks_tls = self._certificate is not None or importlib.util.find_spec("cryptography") is not None
        url, ca = (self.tls_url, self.ca) if speaks_tls else (self.url, "")
        path.write_text(kubeconfig(url, token or self.token, ca), encoding="utf-8")
        return path

    # Users

    def add_user(self, token: str, name: str, verbs: Iterable[str] = ALL_VERBS) -> None:
        """Add a user, or change the user of a token.

        Args:
            token: The bearer token.
            name: The name of the user.
            verbs: The verbs allowed on all resources; `*` for all verbs.
        """
        self._users.add(token, name, verbs)

    def remove_user(self, name: str) -> None:
        """Remove a user: requests with its token get 401. The administrator is `admin`."""
        self._users.remove(name)

    # Objects

    def register(self, api_version: str, kind: str, resource: str, *, namespaced: bool = True) -> None:
        """Add a custom resource.

        Args:
            api_version: Such as `example.com/v1`.
            kind: The kind.
            resource: The plural.
            namespaced: Whether its objects are in namespaces.
        """
        group, _, version = api_version.rpartition("/")
        self._kinds.add(Kind(group, version, kind, resource, namespaced, custom=bool(group)))

    def events(self, namespace: str | None = None) -> list[dict[str, Any]]:
        """Return copies of the events of one namespace or of all, in the form of core/v1."""
        return self.objects("v1", "events", namespace)

    def objects(self, api_version: str, resource: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """Return copies of the objects of a resource, of one namespace or of all.

        Raises:
            LookupError: There is no such resource.
        """
        kind = self._kind(api_version, resource)
        return [copy.deepcopy(kind.show(item)) for _, item in self._store.items(kind.bucket, namespace or "")[0]]

    def create(self, api_version: str, resource: str, body: dict[str, Any], namespace: str = "") -> dict[str, Any]:
        """Create an object as a client would, and return a copy of the stored object.

        Args:
            api_version: Such as `v1` or `example.com/v1`.
            resource: The plural, such as `pods`.
            body: The object; apiVersion and kind may be missing.
            namespace: The namespace. Empty for that of the body, or `default`.

        Raises:
            LookupError: There is no such resource.
            APIError: The object is refused, with the error that a client gets.
        """
        kind = self._kind(api_version, resource)
        body = {"apiVersion": api_version, "kind": kind.kind, **body}
        where = (body.get("metadata", {}).get("namespace") or namespace or "default") if kind.namespaced else ""
        stored = self._resources.insert(kind, where, kind.read(copy.deepcopy(body), []))
        return copy.deepcopy(kind.show(stored))

    def create_namespace(self, name: str) -> None:
        """Create a namespace."""
        self.create("v1", "namespaces", {"metadata": {"name": name}})

    def terminate_namespace(self, name: str) -> None:
        """Make a namespace `Terminating`: creates in it are refused."""
        self._resources.mark_deleted(self._kind("v1", "namespaces"), "", name)

    def remove_namespace(self, name: str) -> None:
        """Remove a namespace and its objects."""
        self._resources.remove(self._kind("v1", "namespaces"), "", name)

    def expire(self, name: str = "*") -> int:
        """Expire the events of a name, or all with `*`. Return their number."""
        return self._store.expire(name)

    def compact(self) -> None:
        """Forget the history: a watch or a page of an earlier resourceVersion gets 410."""
        self._store.compact()

    def backup(self) -> Backup:
        """Return a copy of all objects, for `restore`."""
        return self._store.backup()

    def restore(self, backup: Backup) -> None:
        """Return to a backup, resourceVersions included, as after a restore of etcd. Watches are cut."""
        self._store.restore(backup)

    def _kind(self, api_version: str, resource: str) -> Kind:
        group, _, version = api_version.rpartition("/")
        if kind := self._kinds.find(group, version, resource):
            return kind
        raise LookupError(f"no resource {resource!r} in {api_version!r}")

    # Requests

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests, oldest first. A request is added when it has been read."""
        return self._log.snapshot()

    def clear_requests(self) -> None:
        """Forget all requests."""
        self._log.clear()

    @property
    def connections(self) -> int:
        """The number of TCP connections accepted so far."""
        return self._listener.accepted

    def wait_for(self, predicate: Callable[[], object], timeout: float = 10.0) -> bool:
        """Wait until `predicate` is true. It is evaluated after each request and each answer.

        Args:
            predicate: The condition, such as `lambda: len(server.requests) == 3`.
            timeout: The maximum wait in seconds.

        Returns:
            Whether it became true.
        """
        return self._log.wait_for(predicate, timeout)

    # Faults

    def fail(
        self,
        fault: Fault | int,
        *,
        times: int | None = None,
        method: str | None = None,
        path: str | None = None,
        when: Callable[[Request], bool] | None = None,
    ) -> Rule:
        """Add a fault.

        Args:
            fault: The fault; a number is short for `Status(number)`.
            times: The number of requests. None for all, until the rule's `remove` or the end of its `with` block.
            method: Only requests with this HTTP method.
            path: Only requests whose path contains this text.
            when: Only requests for which this function returns true.

        Returns:
            The rule: a context manager with `remove()` and `hits`. If several rules match a request, the oldest one
            applies; after a `Delay`, later rules apply as well.

        Raises:
            TypeError: It is no fault; exceptions are for a `FakeSink`.
            ValueError: There is no such status, or `times` is negative.
        """
        return self._faults.add(fault, times, method, path, when)

    def clear_faults(self) -> None:
        """Remove all rules. Delayed requests go on."""
        self._faults.clear()
