"""Sinks for threads, over the official Kubernetes client."""

from __future__ import annotations

import inspect
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, Protocol, runtime_checkable

from kevents._clients.transport import MAX_BODY, Transport, deadline, format_redacted, redact, redirect_message
from kevents._model.objects import Json
from kevents._model.validation import require_positive
from kevents._model.wire import CORE_GROUP, EVENTS_GROUP, printable
from kevents._queue.outcome import retry_after
from kevents._runtime.lifecycle import flush_before_other_exit_hooks
from kevents.exceptions import SinkError, StatusError, UnavailableError


class KubeconfigError(Exception):
    """A kubeconfig is unusable. The text names the file, the reason and the fix, never a credential."""


def client_from_kubeconfig(path: str, context: str = "") -> Any:  # noqa: ANN401 - the official client has no usable types
    """Load a kubeconfig into an ``ApiClient``, without connecting.

    Args:
        path: The file. ``~`` is the home directory.
        context: A context of the file; empty for the current one.

    Raises:
        KubeconfigError: If the file cannot be read, or holds no usable configuration.
    """
    import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it
    import kubernetes.config  # noqa: PLC0415

    config: Any = kubernetes.config
    configuration = kubernetes.client.Configuration()
    try:
        file = Path(path).expanduser()
        file.read_bytes()  # the client does not report why it cannot read a file
        config.load_kube_config(str(file), context=context or None, client_configuration=configuration)
    except OSError as error:
        why = error.strerror or type(error).__name__
    except kubernetes.config.ConfigException as error:
        why = format_redacted(error)
    except Exception as error:  # noqa: BLE001 - of any class; its text may quote the file, and secrets with it
        why = f"it holds no configuration, {type(error).__name__}"
    else:
        configuration.retries = False  # kevents retries by itself
        return kubernetes.client.ApiClient(configuration=configuration)
    place = f"{path}, context {context}" if context else path
    fix = "give the path of one that kubectl works with, such as ~/.kube/config"
    raise KubeconfigError(printable(f"cannot use the kubeconfig {place} ({why}): {fix}"))


UNCONFIGURED_HOSTS: Final = ("", "http://localhost", "https://localhost")
"""Hosts of a configuration that was not loaded, in the versions of the client."""
_MAX_CONNECTIONS = 64
"""Pooled connections, one for each sender. The client's default depends on the number of processors."""
_NEEDED = ("ApiClient", "ApiException", "Configuration")
ASYNCHRONOUS: Final = ("kubernetes.aio", "kubernetes_asyncio")
"""Packages with asynchronous clients."""


class Api(NamedTuple):
    """Names of the client's and of kevents' classes for an API group. Their methods have the same names."""

    name: str
    model: str
    sink: str
    async_sink: str


APIS: Final = {
    CORE_GROUP: Api("CoreV1Api", "CoreV1Event", "kevents.CoreV1EventSink", "kevents.aio.CoreV1EventSink"),
    EVENTS_GROUP: Api(
        "EventsV1Api", "EventsV1Event", "kevents.events.EventsV1EventSink", "kevents.aio.EventsV1EventSink"
    ),
}


def comes_from(thing: object, package: str) -> bool:
    """True if an object, a class or a function, or a base class, is defined in a package."""
    classes = (thing if isinstance(thing, type) else type(thing)).__mro__
    modules = [getattr(thing, "__module__", ""), *(cls.__module__ for cls in classes)]
    return any(str(module).startswith(f"{package}.") for module in modules)


def package_of(thing: object) -> str:
    """Return the asynchronous package that defines an object, empty for none."""
    return next((package for package in ASYNCHRONOUS if comes_from(thing, package)), "")


def kubeconfig() -> str:
    """Return the present path of the kubeconfig; the client keeps the one of its import."""
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def is_configured() -> bool:
    """Whether this process has a configuration for the official client: loaded, a kubeconfig, or a service account."""
    client = sys.modules.get("kubernetes.client")
    if client is not None and client.Configuration.get_default_copy().host not in UNCONFIGURED_HOSTS:
        return True
    files = kubeconfig().split(os.pathsep)
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(Path(file).expanduser().exists() for file in files)


def other_api(thing: object, wanted: Api) -> str:
    """Return why an api of the other API group is refused, empty for anything else.

    Compares names, because the class may not be loaded.
    """
    name = type(thing).__name__
    others = {api.name for api in APIS.values()} - {wanted.name}
    return f"not an {name}: its events have another shape" if name in others else ""


def no_configuration(not_in_cluster: Exception, path: str, error: Exception, sink: str) -> UnavailableError:
    """Return the error for an environment without a usable configuration."""
    return UnavailableError(
        f"no Kubernetes configuration: not in a cluster ({format_redacted(not_in_cluster)}), and no usable "
        f"kubeconfig {path} ({format_redacted(error)}); set KUBECONFIG, or give {sink} an api"
    )


class ClientSource:
    """Provides an api of the official client, built at the first call and again after a fork.

    Args:
        given: An api, an ``ApiClient``, a callable that returns either, or None for the configuration loaded by the
            process, else in-cluster, else kubeconfig.
        api_group: The API group of the events.

    Raises:
        ImportError: If the official client is not installed.
        TypeError: If ``given`` is anything else.
    """

    def __init__(self, given: object = None, api_group: str = CORE_GROUP) -> None:
        """Import the client in the caller's thread; do not connect."""
        import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it
        import kubernetes.config  # noqa: PLC0415

        self._client = kubernetes.client
        self._config: Any = kubernetes.config
        self._kind = APIS[api_group]
        # The client 37 imports each part at its first use.
        for name in (*_NEEDED, self._kind.name, self._kind.model):
            getattr(self._client, name)
        self._given = given
        self._transport = Transport(self._client.ApiException)
        self._lock = threading.Lock()
        self._api: Any = None
        self._forked = False
        if given is not None and (trouble := self._trouble(given, legal=callable(given))):
            raise TypeError(f"api must be a {self._kind.name} or ApiClient, or a callable that returns one, {trouble}")
        flush_before_other_exit_hooks()

    def api(self) -> Any:  # noqa: ANN401 - the official client has no usable types
        """Return the api.

        Raises:
            UnavailableError: If there is no configuration or no credentials yet.
        """
        if self._api is None:
            with self._lock:
                if self._api is None:
                    self._api = self._make()
                    flush_before_other_exit_hooks()
        return self._api

    def guarded(self, api: object) -> Any:  # noqa: ANN401
        """Return a copy of the api for one request that keeps a deadline and follows no redirect."""
        return self._transport.wrap(api)

    def renew(self, api: object) -> None:
        """After a 401, build the api again before the next request, unless the user gave the client."""
        with self._lock:
            if self._api is api and not self._is_client(self._given):
                self._api = None

    def after_fork(self) -> None:
        """Drop the lock and the connections shared with the parent process."""
        self._lock = threading.Lock()
        self._transport = Transport(self._client.ApiException)
        self._api = None
        self._forked = True

    def _make(self) -> Any:  # noqa: ANN401
        given: Any = self._given
        if given is None:
            return self._api_of(self._from_environment())
        if not self._is_client(given):
            given = self._called(given)
        if self._forked:  # a callable, too, may return a client older than the fork
            given = self._reconnected(given)
        return given if hasattr(given, "create_namespaced_event") else self._api_of(given)

    def _api_of(self, client: object) -> Any:  # noqa: ANN401
        return getattr(self._client, self._kind.name)(client)

    def _called(self, factory: Callable[[], object]) -> object:
        try:
            made = factory()
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - there are no credentials yet, whatever the error
            raise UnavailableError(f"the callable given as api raised {format_redacted(error)}") from None
        if trouble := self._trouble(made, legal=False):
            raise UnavailableError(f"the callable given as api must return a {self._kind.name} or ApiClient, {trouble}")
        return made

    def _is_client(self, thing: object) -> bool:
        is_api = hasattr(thing, "create_namespaced_event") and not isinstance(thing, type)
        return is_api or isinstance(thing, self._client.ApiClient)

    def _trouble(self, thing: object, *, legal: bool) -> str:
        """Return why an object is no api, empty if it is one."""
        if package_of(thing) or inspect.iscoroutinefunction(getattr(thing, "create_namespaced_event", thing)):
            return f"not an asynchronous one: use {self._kind.async_sink}"
        if other := other_api(thing, self._kind):
            return other
        return "" if legal or self._is_client(thing) else f"not {type(thing).__module__}.{type(thing).__qualname__}"

    def _reconnected(self, given: Any) -> Any:  # noqa: ANN401
        old = getattr(given, "api_client", given)
        if not isinstance(old, self._client.ApiClient):
            return given  # a test double of the api has no connections
        new = self._client.ApiClient(configuration=old.configuration)
        new.default_headers.update(old.default_headers)
        return type(given)(new) if given is not old else new

    def _from_environment(self) -> Any:  # noqa: ANN401
        configuration = self._client.Configuration.get_default_copy()
        if configuration.host in UNCONFIGURED_HOSTS:
            configuration = self._load()
        configuration.retries = False  # the work queue retries
        configuration.connection_pool_maxsize = _MAX_CONNECTIONS
        return self._client.ApiClient(configuration=configuration)

    def _load(self) -> Any:  # noqa: ANN401
        configuration = self._client.Configuration()
        try:
            self._config.load_incluster_config(client_configuration=configuration)
        except Exception as not_in_cluster:  # noqa: BLE001 - it raises many classes
            path = kubeconfig()
            try:
                self._config.load_kube_config(path, client_configuration=configuration)
            except Exception as error:  # noqa: BLE001 - a broken file raises YAMLError, TypeError, AttributeError ...
                raise no_configuration(not_in_cluster, path, error, self._kind.sink) from None
        return configuration


UNAUTHORIZED: Final = 401
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@runtime_checkable
class EventSink(Protocol):
    """Writes events, one request for each call (client-go: ``EventSink``).

    Several threads may call a sink at the same time, but never for the same event. Its errors decide what follows:

    - :class:`~kevents.StatusError`: the server answered with an error status.
    - :class:`~kevents.UnavailableError` or any ``OSError``: there was no answer. The write is tried again.
    - ``ValueError`` or ``TypeError``: the event can never be sent and is dropped.
    - Any other exception: the write is tried again.

    A sink may have more attributes: ``after_fork()`` is called in the child after a fork, and ``within(seconds)``
    returns a sink with shorter time-outs for a process that is about to end. A broadcaster refuses a sink whose
    ``api_group`` (empty for core/v1) is not its own.

    .. versionadded:: 0.1
    """

    def create(self, namespace: str, body: Json, /) -> None:
        """Create an event from a core/v1 body of plain values."""

    def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch."""


class ClientEventSink:
    """Writes through the official Kubernetes client; a subclass chooses the API group.

    It imports the client in the constructor, in the caller's thread, and connects at the first request. It reads each
    response without parsing it, so that the connection can be reused.

    Args:
        api: An api or ``ApiClient`` of the client, or a callable that returns one.
        request_timeout: Seconds to connect, and seconds to wait for the next byte of the response.
    """

    api_group: ClassVar[str]

    def __init__(self, api: object = None, *, request_timeout: tuple[float, float] = (5, 15)) -> None:
        """Import the client; do not connect."""
        self._timeout = checked_timeout(request_timeout)
        self._total = total_timeout(self._timeout)
        self._source = ClientSource(api, self.api_group)
        self._api_exception, self._transport_errors = _errors()

    def create(self, namespace: str, body: Json, /) -> None:
        """Create an event."""
        self._send("create_namespaced_event", namespace, body)

    def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch, which is how the client sends a dictionary."""
        self._send("patch_namespaced_event", name, namespace, patch)

    def after_fork(self) -> None:
        """Connect again in a forked child."""
        self._source.after_fork()

    def within(self, seconds: float) -> ClientEventSink:
        """Return the same sink with shorter time-outs, for the last requests of a process that is about to end."""
        shorter = copy(self)
        connect, read = self._timeout
        shorter._timeout = (min(connect, seconds), min(read, seconds))  # noqa: SLF001 - a copy of itself
        shorter._total = min(self._total, seconds)  # noqa: SLF001
        return shorter

    def _send(self, method: str, *args: object) -> None:
        api = self._source.api()
        with deadline(self._total):
            _read(self._answer(api, getattr(self._source.guarded(api), method), args))

    def _answer(self, api: object, send: Callable[..., object], args: tuple[object, ...]) -> object:
        try:
            return send(*args, _preload_content=False, _request_timeout=self._timeout)
        except self._api_exception as error:
            raise self._refused(api, error) from None
        except self._transport_errors as error:
            raise UnavailableError(format_redacted(error)) from None
        except (ValueError, TypeError, AttributeError) as error:  # the client raises AttributeError for unknown types
            if isinstance(error.__context__, self._api_exception):  # the client 36 fails on bodies that are not UTF-8
                raise self._refused(api, error.__context__) from None
            raise unsendable(error) from None

    def _refused(self, api: object, error: Exception) -> SinkError:
        raised = status_error(error)
        if isinstance(raised, StatusError) and raised.code == UNAUTHORIZED:
            self._source.renew(api)
        return raised

    def __repr__(self) -> str:
        """Show the time-outs and no credential."""
        return f"{type(self).__name__}(request_timeout={self._timeout})"


class CoreV1EventSink(ClientEventSink):
    """Writes core/v1 events through the official Kubernetes client (client-go: ``EventSinkImpl``).

    It imports the client (31 to 37 are tested) in the constructor, in the caller's thread, and connects at the first
    request. It reads each response without parsing it, so that the connection can be reused.

    Args:
        api: A ``CoreV1Api``, an ``ApiClient``, or a callable that returns either. The callable may raise
            :class:`~kevents.UnavailableError` while there are no credentials. None: the process-wide default
            configuration if it has been loaded, else in-cluster, else kubeconfig. The default is never set.
        request_timeout: Seconds to connect, and seconds to wait for the next byte of the response.

    Raises:
        ValueError: If a time-out is not a positive number.
        TypeError: If ``api`` is anything else.

    .. versionadded:: 0.1
    """

    api_group = CORE_GROUP


def checked_timeout(timeout: tuple[float, float]) -> tuple[float, float]:
    """Check ``(connect, read)`` in seconds.

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(timeout, tuple) or len(timeout) != 2:  # noqa: PLR2004
        raise ValueError(f"request_timeout must be (connect, read) in seconds, not {timeout!r}")
    return require_positive("request_timeout", timeout[0]), require_positive("request_timeout", timeout[1])


def total_timeout(timeout: tuple[float, float]) -> float:
    """Return the seconds that one request may take, from ``(connect, read)``."""
    return timeout[1] + 1


def _errors() -> tuple[type[Exception], tuple[type[Exception], ...]]:
    import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it
    import kubernetes.config  # noqa: PLC0415
    import urllib3.exceptions  # noqa: PLC0415

    return kubernetes.client.ApiException, (urllib3.exceptions.HTTPError, kubernetes.config.ConfigException)


def _read(answer: Any) -> None:  # noqa: ANN401 - a urllib3 response, or a test double's
    """Read the response up to a limit, so that its connection can be reused.

    The event has been written by then, so errors while reading are ignored.

    Raises:
        TypeError: If the api is asynchronous; no request was sent.
    """
    if inspect.isawaitable(answer):
        getattr(answer, "close", bool)()
        raise TypeError("api is an asynchronous client: this sink needs a plain one")
    whole = False
    with suppress(Exception):
        whole = len(answer.read(MAX_BODY, decode_content=False)) < MAX_BODY
    with suppress(Exception):
        if not whole:
            answer.close()
        answer.release_conn()


def unsendable(error: Exception) -> Exception:
    """Return the error for a request that the client cannot build.

    A malformed header is not the event's fault: tokens may contain line breaks.
    """
    text = format_redacted(error)
    if text.startswith("ValueError: Invalid header value") or getattr(error, "encoding", "") == "latin-1":
        return UnavailableError(f"the client's credentials make no valid header: {text}")
    return ValueError(text)


def status_error(error: Any) -> SinkError:  # noqa: ANN401
    """Convert the client's exception. Never raises, whatever the server sent."""
    if not error.status:
        return UnavailableError(format_redacted(SinkError(error.reason)))
    status = _status_body(error.body)
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    reasons = [c.get("reason") for c in causes if isinstance(c, Mapping)] if isinstance(causes, list) else []
    code, headers = int(error.status), dict(error.headers or {})
    message = _text(status.get("message")) or _text(error.reason)
    return StatusError(
        code,
        _text(status.get("reason")),
        redirect_message(headers) if code in _REDIRECTS else redact(message),
        [reason for reason in reasons if reason and isinstance(reason, str)],
        retry_after(headers, status),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _status_body(body: object) -> Mapping[str, Any]:
    if not isinstance(body, str | bytes):
        return {}
    try:
        status = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return status if isinstance(status, Mapping) else {}
