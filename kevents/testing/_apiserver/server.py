"""An API server for tests and demonstrations, over real HTTP, in a thread of its own process."""

from __future__ import annotations

import copy
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kevents.testing._apiserver.access import ALL_VERBS, Access
from kevents.testing._apiserver.faults import (
    Delay,
    Fault,
    Faults,
    Garbage,
    Hang,
    Reset,
    Rule,
    Status,
    checked,
    matching,
)
from kevents.testing._apiserver.handler import Handler
from kevents.testing._apiserver.identity import Identity
from kevents.testing._apiserver.kinds import Kind, Kinds
from kevents.testing._apiserver.kubeconfig import write_kubeconfig
from kevents.testing._apiserver.listener import Listener
from kevents.testing._apiserver.requests import Request, RequestLog
from kevents.testing._apiserver.resources import Resources
from kevents.testing._apiserver.status import APIError, Cause
from kevents.testing._apiserver.storage import Backup, Limits, Store
from kevents.testing._apiserver.watch import Watches

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["APIError", "APIServer", "Cause", "Delay", "Fault", "Garbage", "Hang", "Request", "Reset", "Rule", "Status"]

_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


class APIServer:
    """An embedded Kubernetes API server: events in both API versions, and simple objects of other kinds.

    It answers as a real one does (both pass the same tests), keeps everything in memory, checks bearer tokens, logs
    what it is asked, and fails on demand. A context manager: `start` and `stop`.

    Args:
        host: The address to listen on; loopback, unless told otherwise.
        port: The port; 0 for a free one.
        token: The token of the administrator; a random one by default.
        event_ttl: How many seconds an event lives after its last write; None for ever.
        clock: The wall clock in nanoseconds; of what has expired after a leap, watches hear with the next request.
        ssl_context: For TLS; by default a self-signed certificate for the host, made when it is needed.
        ca: What clients should trust, PEM, when `ssl_context` is given; it goes into the kubeconfig.
        finalize_namespaces: Whether a deleted namespace goes at once; otherwise it stays `Terminating`, as on a cluster
            without controllers.
        log_length: How many requests the log keeps.
        history: How many changes watches and lists in pages can go back; after more they are told 410.
        history_age: How many seconds by the clock they can go back, as etcd forgets after five minutes; None for ever.
        watch_buffer: By how many changes a watch may be behind before its connection is cut; None: by any number.
        gone: How a watch from a forgotten resourceVersion is answered: with an `event` of type ERROR, as the real
            server does for events; with the `status` 410; or with an `empty` answer that ends at once.

    .. versionadded:: 0.1
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
        self._identity = Identity(host, ssl_context, ca)
        self._folders: list[str] = []
        self._access = Access(self.token)
        self._faults = Faults()
        self._log = RequestLog(log_length)
        self._kinds = Kinds()
        self._store = Store(clock, event_ttl, Limits(history, history_age, watch_buffer))
        self._resources = Resources(self._store, finalize_namespaces=finalize_namespaces)
        watches = Watches(self._store, gone)
        self._handler = Handler(self._access, self._faults, self._log, self._kinds, self._resources, watches)
        self._listener = Listener(host, port, self._identity.context, self._handler.handle)
        for name in _NAMESPACES:
            self.create_namespace(name)

    # Life

    def start(self) -> Self:
        """Listen; give the server itself. Starting again after `stop` keeps port and objects."""
        self._handler.open()
        self._listener.open()
        return self

    def stop(self) -> None:
        """End everything: port, connections, watches, requests that hang, threads, files. The objects stay."""
        self._listener.close()
        self._handler.close()
        self._listener.disconnect()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._folders.clear()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def stop_listening(self, *, disconnect: bool = True) -> None:
        """Be away: connections are refused; those that are open are closed, unless told otherwise."""
        self._listener.close()
        if disconnect:
            self._handler.close()
            self._listener.disconnect()
            self._handler.open()

    def listen_again(self) -> None:
        """Be back, on the same port."""
        self._listener.open()

    # Where it is

    @property
    def port(self) -> int:
        """The port; 0 before the first start."""
        return self._listener.port

    @property
    def url(self) -> str:
        """Where clients find the server, by plain HTTP; the same port speaks TLS."""
        return f"http://{self._authority}"

    @property
    def tls_url(self) -> str:
        """Where clients find the server, by TLS."""
        return f"https://{self._authority}"

    @property
    def ca(self) -> str:
        """The certificate that clients by TLS should trust, PEM."""
        return self._identity.ca

    @property
    def _authority(self) -> str:
        host = f"[{self._listener.host}]" if ":" in self._listener.host else self._listener.host
        return f"{host}:{self.port}"

    def kubeconfig(self, path: str | Path | None = None, *, token: str | None = None) -> Path:
        """Write a kubeconfig for kubectl and the official client; it uses TLS, since kubectl sends no token without.

        Args:
            path: Where to; None for a temporary folder that `stop` removes.
            token: Whose token; the administrator's by default.

        Returns:
            The file.
        """
        if path is None:
            self._folders.append(tempfile.mkdtemp(prefix="kevents-"))
            path = Path(self._folders[-1]) / "kubeconfig"
        return write_kubeconfig(Path(path), self.tls_url, token or self.token, self.ca)

    # Who may use it

    def add_user(self, token: str, name: str, verbs: Iterable[str] = ALL_VERBS) -> None:
        """Let a token stand for a user who may use `verbs` (`*` for all) on every resource; again: change it."""
        self._access.add(token, name, verbs)

    def remove_user(self, name: str) -> None:
        """Forget a user: their token is answered with 401; `admin` is the user of `token`."""
        self._access.remove(name)

    # What it holds

    def register(self, api_version: str, kind: str, resource: str, *, namespaced: bool = True) -> None:
        """Add a custom resource: its API version, kind and plural."""
        group, _, version = api_version.rpartition("/")
        self._kinds.add(Kind(group, version, kind, resource, namespaced, custom=bool(group)))

    def events(self, namespace: str | None = None) -> list[dict[str, Any]]:
        """Give copies of the events, of one namespace or of all, as core/v1 shows them."""
        return self.objects("v1", "events", namespace)

    def objects(self, api_version: str, resource: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """Give copies of the objects of a resource, of one namespace or of all.

        Raises:
            LookupError: There is no such resource.
        """
        kind = self._kind(api_version, resource)
        return [copy.deepcopy(kind.show(item)) for _, item in self._store.items(kind.bucket, namespace or "")[0]]

    def create(self, api_version: str, resource: str, body: dict[str, Any], namespace: str = "") -> dict[str, Any]:
        """Store an object as if a client had created it; give a copy of what is stored.

        Args:
            api_version: Such as `v1` or `example.com/v1`.
            resource: The plural, such as `pods`.
            body: The object; apiVersion and kind may be missing.
            namespace: Where to; that of the body, or `default`, when empty.

        Raises:
            LookupError: There is no such resource.
            APIError: The object is refused, as a client would be told.
        """
        kind = self._kind(api_version, resource)
        body = {"apiVersion": api_version, "kind": kind.kind, **body}
        where = (body.get("metadata", {}).get("namespace") or namespace or "default") if kind.namespaced else ""
        stored = self._resources.insert(kind, where, kind.read(copy.deepcopy(body), [])).objects[0]
        return copy.deepcopy(kind.show(stored))

    def create_namespace(self, name: str) -> None:
        """Create a namespace."""
        self.create("v1", "namespaces", {"metadata": {"name": name}})

    def terminate_namespace(self, name: str) -> None:
        """Leave a namespace `Terminating`: nothing can be created in it any more."""
        self._resources.deletes.terminate(name)

    def remove_namespace(self, name: str) -> None:
        """Remove a namespace and all that is in it."""
        self._resources.deletes.remove(self._kind("v1", "namespaces"), "", name)

    def expire(self, name: str = "*") -> int:
        """Let the events of that name expire now, all with `*`; give how many there were."""
        return self._store.expire(name)

    def compact(self) -> None:
        """Forget the history: a watch or a page of an earlier resourceVersion is told 410."""
        self._store.compact()

    def backup(self) -> Backup:
        """Give all that it holds, for `restore`."""
        return self._store.backup()

    def restore(self, backup: Backup) -> None:
        """Go back to what it held, resourceVersions too, as after etcd was restored; watches are cut."""
        self._store.restore(backup)

    def _kind(self, api_version: str, resource: str) -> Kind:
        group, _, version = api_version.rpartition("/")
        if kind := self._kinds.find(group, version, resource):
            return kind
        raise LookupError(f"no resource {resource!r} in {api_version!r}")

    # What it was asked

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests so far, the oldest first; a request is there as soon as it has been read."""
        return self._log.snapshot()

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        self._log.clear()

    @property
    def connections(self) -> int:
        """How many TCP connections have been accepted."""
        return self._listener.accepted

    def wait_for(self, predicate: Callable[[], object], timeout: float = 10.0) -> bool:
        """Wait until `predicate` holds; it is asked again after every request and every answer.

        Args:
            predicate: What to wait for, such as `lambda: len(server.requests) == 3`.
            timeout: How many seconds at most.

        Returns:
            Whether it holds.
        """
        return self._log.wait_for(predicate, timeout)

    # What goes wrong

    def fail(
        self,
        fault: Fault | int,
        *,
        times: int | None = None,
        method: str | None = None,
        path: str | None = None,
        when: Callable[[Request], bool] | None = None,
    ) -> Rule:
        """Make requests go wrong.

        Args:
            fault: What happens; a number is short for `Status(number)`.
            times: How many requests; None for all, until the rule's `remove` or the end of its `with` block.
            method: Only requests with this HTTP method.
            path: Only requests whose path contains this.
            when: Only requests for which this is true.

        Returns:
            The rule: a context manager, with `remove()` and `hits`. Of several rules that match, the oldest decides; a
            `Delay` lets later rules decide as well.

        Raises:
            TypeError: It is no fault; exceptions are for a `FakeSink`.
            ValueError: There is no such status, or `times` is negative.
        """
        return self._faults.add(checked(fault, times), times, matching(method, path, when))

    def clear_faults(self) -> None:
        """Remove every rule; requests that wait because of one go on."""
        self._faults.clear()
