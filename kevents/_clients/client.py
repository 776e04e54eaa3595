"""Requests through the official client that the user gave, and any requests of the commands and the export.

The client follows redirects, has no total deadline, and reads errors without a limit. A sink keeps the given client,
its configuration and its credentials, but sends through connections of its own. :func:`guarded_manager` makes them from
the client's own connection pool. The commands and the export use that pool, or one of urllib3 without the client.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from kevents._clients.endpoint import ASYNCHRONOUS, Endpoint, endpoint_of, find_endpoint, has_plugin, read_endpoint
from kevents._clients.errors import (
    MAX_ERROR_BODY,
    SUCCESS,
    UNAUTHORIZED,
    decoded,
    format_redacted,
    hide_credentials,
    status_error,
    unsendable,
)
from kevents._clients.sync import APIS, MAX_BODY, Api, checked_urls, deadline, guarded_connection, proxy_headers
from kevents._model.objects import Json
from kevents._model.wire import CORE_GROUP, printable
from kevents._runtime.lifecycle import flush_before_other_exit_hooks
from kevents.exceptions import SinkError, StatusError, UnavailableError


class KubeconfigError(Exception):
    """A kubeconfig is unusable. The text names the file, the reason and the fix, never a credential."""


def client_from_kubeconfig(path: str, context: str = "") -> Any:  # noqa: ANN401 - the official client has no usable types
    """Load a kubeconfig into an ``ApiClient``, without connecting.

    Raises KubeconfigError if the file cannot be read, or holds no usable configuration.
    """
    import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it
    import kubernetes.config  # noqa: PLC0415

    config: Any = kubernetes.config
    configuration = kubernetes.client.Configuration()
    try:
        file = Path(path).expanduser()
        file.read_bytes()  # the client does not report why it cannot read a file
        config.load_kube_config(str(file), context=context or None, client_configuration=configuration)
        failed = not (configuration.api_key or configuration.cert_file) and has_plugin(path, context)
    except OSError as error:
        why = error.strerror or type(error).__name__
    except kubernetes.config.ConfigException as error:
        why = format_redacted(error)
    except Exception as error:  # noqa: BLE001 - of any class; its text may quote the file, and secrets with it
        why = f"it holds no configuration, {type(error).__name__}"
    else:
        if not failed:
            configuration.retries = False  # kevents retries by itself
            return kubernetes.client.ApiClient(configuration=configuration)
        why = "the plugin of its user has failed"  # the client only logs it
    place = f"{path}, context {context}" if context else path
    fix = "give the path of one that kubectl works with, such as ~/.kube/config"
    raise KubeconfigError(printable(f"cannot use the kubeconfig {place} ({why}): {fix}"))


_MAX_CONNECTIONS: Final = 64
"""Pooled connections, one for each thread that makes requests."""
_NEEDED: Final = ("ApiClient", "ApiException", "Configuration")


def comes_from(thing: object, package: str) -> bool:
    """True if an object, a class or a function, or a base class, is defined in a package."""
    classes = (thing if isinstance(thing, type) else type(thing)).__mro__
    modules = [getattr(thing, "__module__", ""), *(cls.__module__ for cls in classes)]
    return any(str(module).startswith(f"{package}.") for module in modules)


def package_of(thing: object) -> str:
    """Return the asynchronous package that defines an object, empty for none."""
    return next((package for package in ASYNCHRONOUS if comes_from(thing, package)), "")


def other_api(thing: object, wanted: Api) -> str:
    """Return why an api of the other API group is refused, empty for anything else.

    Compares names, because the class may not be loaded.
    """
    name = type(thing).__name__
    others = {api.name for api in APIS.values()} - {wanted.name}
    return f"not an {name}: its events have another shape" if name in others else ""


class ClientSource:
    """Provides an api of the official client, built at the first call and again after a fork.

    ``given`` is an api, an ``ApiClient``, or a callable that returns either, else this raises TypeError.
    """

    def __init__(self, given: object, api_group: str = CORE_GROUP) -> None:
        import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it

        self._client = kubernetes.client
        self._kind = APIS[api_group]
        # The client 37 imports each part at its first use.
        for name in (*_NEEDED, self._kind.name, self._kind.model):
            getattr(self._client, name)
        self._given = given
        self._lock = threading.Lock()
        self._api: Any = None
        self._pools: tuple[Any, Any] = (None, None)  # of the client, and its guarded copy
        self._forked = False
        if trouble := self._trouble(given, legal=callable(given)):
            raise TypeError(f"api must be a {self._kind.name} or ApiClient, or a callable that returns one, {trouble}")
        flush_before_other_exit_hooks()

    def api(self) -> Any:  # noqa: ANN401 - the official client has no usable types
        """The api. Raises UnavailableError if there is no configuration or no credentials yet."""
        if self._api is None:
            with self._lock:
                if self._api is None:
                    self._api = self._make()
                    flush_before_other_exit_hooks()
        return self._api

    def guarded(self, api: Any) -> Any:  # noqa: ANN401
        """Return a shallow copy of an api that keeps a deadline and follows no redirect; a test double unchanged.

        The copy is made for each request, so that later changes of the user's client count.
        """
        import urllib3  # noqa: PLC0415 - the client has imported it

        rest: Any = getattr(getattr(api, "api_client", None), "rest_client", None)
        manager = getattr(rest, "pool_manager", None)
        if not isinstance(manager, urllib3.PoolManager):
            return api
        original, guarded = self._pools
        if original is not manager:
            guarded = guarded_manager(manager)
            self._pools = (manager, guarded)
        rest = copy(rest)
        rest.pool_manager = _Pool(guarded, self._client.ApiException)
        wrapped = copy(api)
        wrapped.api_client = copy(api.api_client)
        wrapped.api_client.rest_client = rest
        return wrapped

    def renew(self, api: object) -> None:
        """After a 401, build the api again before the next request, unless the user gave the client."""
        with self._lock:
            if self._api is api and not self._is_client(self._given):
                self._api = None

    def after_fork(self) -> None:
        """Drop the lock and the connections shared with the parent process."""
        self._lock = threading.Lock()
        self._pools = (None, None)
        self._api = None
        self._forked = True

    def _make(self) -> Any:  # noqa: ANN401
        given: Any = self._given
        if not self._is_client(given):
            given = self._called(given)
        if self._forked:  # a callable, too, may return a client older than the fork
            given = self._reconnected(given)
        if hasattr(given, "create_namespaced_event"):
            return given
        return getattr(self._client, self._kind.name)(given)

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


class ClientTransport:
    """Sends requests through a client, given as for :class:`ClientSource`."""

    def __init__(self, given: object, api_group: str) -> None:
        import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it
        import kubernetes.config  # noqa: PLC0415
        import urllib3.exceptions  # noqa: PLC0415

        self._source = ClientSource(given, api_group)
        self._api_exception = kubernetes.client.ApiException
        self._transport_errors = urllib3.exceptions.HTTPError, kubernetes.config.ConfigException

    def after_fork(self) -> None:
        self._source.after_fork()

    def send(self, method: str, namespace: str, name: str, body: Json, timeout: tuple[float, float, float]) -> None:
        """Write an event with one request. The client sends a dictionary as a strategic-merge patch."""
        api = self._source.api()
        with deadline(timeout[2]):
            guarded = self._source.guarded(api)
            if method == "POST":
                answer = self._answer(api, guarded.create_namespaced_event, (namespace, body), timeout[:2])
            else:
                answer = self._answer(api, guarded.patch_namespaced_event, (name, namespace, body), timeout[:2])
            _read(answer)

    def _answer(
        self, api: object, send: Callable[..., object], args: tuple[object, ...], timeout: tuple[float, ...]
    ) -> object:
        try:
            return send(*args, _preload_content=False, _request_timeout=timeout)
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


def _read(answer: Any) -> None:  # noqa: ANN401 - a urllib3 response, or a test double's
    """Read the response up to a limit, so that its connection can be reused.

    The event has been written by then, so errors while reading are ignored. An asynchronous api is a TypeError:
    no request was sent.
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


def guarded_manager(manager: Any) -> Any:  # noqa: ANN401
    """Return a copy of a urllib3 ``PoolManager`` with its own connections, which keep the deadline of their request."""
    guarded = copy(manager)
    guarded.pools = type(manager.pools)(10)
    guarded.pool_classes_by_scheme = {
        scheme: type(pool.__name__, (pool,), {"ConnectionCls": guarded_connection(pool.ConnectionCls)})
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }
    return guarded


class _Pool:
    """Sends the requests of a client's REST layer, in place of its ``pool_manager``."""

    def __init__(self, manager: Any, api_exception: Any) -> None:  # noqa: ANN401
        self._manager = manager
        self._api_exception = api_exception

    def request(self, method: str, url: str, **options: Any) -> Any:  # noqa: ANN401
        """Send a request. Raises the client's ApiException, with the start of the body and without credentials."""
        response = self._manager.request(method, url, **{**options, "redirect": False, "preload_content": False})
        if response.status in SUCCESS:
            return response
        error = self._api_exception(status=response.status, reason=response.reason)
        error.headers = dict(response.headers)
        error.body = hide_credentials(_error_body(response), options.get("headers") or {})
        raise error

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._manager, name)


def _error_body(response: Any) -> bytes:  # noqa: ANN401 - a urllib3 response
    """Read at most 64 KiB of an error's body, and close the connection if there is more."""
    body = b""
    with suppress(Exception):  # the status is known, the body only explains it
        body = response.read(MAX_ERROR_BODY, decode_content=False)
    if len(body) < MAX_ERROR_BODY:
        response.release_conn()
    else:
        response.close()
    return decoded(body, response.headers.get("Content-Encoding", ""))


# -- any requests, for the commands and the export ---------------------------------------------------------------------


class Kubeconfig(NamedTuple):
    """A kubeconfig that a user names: a path, or several as in ``KUBECONFIG``, and a context or empty."""

    path: str
    context: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """An API server with connections to it."""

    host: str
    headers: Callable[[], Mapping[str, str]] = field(repr=False)  # with the credentials, refreshed when due
    pool: Any  # of urllib3
    api: Any = None  # of the official client, None if kevents connects by itself


class AccessSource:
    """Provides access to the API server, made at the first call and again after credentials were refused.

    ``given`` is a kubeconfig, or as for :class:`ClientSource`. None: the configuration loaded by the process, else
    in-cluster, else the usual kubeconfig.
    """

    def __init__(self, given: object = None) -> None:
        self._named = given if isinstance(given, Kubeconfig) else None
        self._client = None if given is None or self._named else ClientSource(given)
        self._lock = threading.Lock()
        self._access: Access | None = None

    def access(self) -> Access:
        """The access. Raises UnavailableError if there is no usable configuration, or no credentials yet."""
        if self._client is not None:
            return through_client(self._client.api())
        with self._lock:
            if self._access is None:
                self._access = direct(self._endpoint())
            return self._access

    def renew(self, refused: Access) -> None:
        """After a 401, read the configuration again before the next request, unless the user gave the client."""
        if self._client is not None:
            self._client.renew(refused.api)
            return
        with self._lock:
            if self._access is refused:
                self._access = None

    def _endpoint(self) -> Endpoint:
        if self._named is None:
            return find_endpoint(APIS[CORE_GROUP].sink)
        try:
            return endpoint_of_kubeconfig(self._named)
        except KubeconfigError as error:
            raise UnavailableError(str(error)) from None


def endpoint_of_kubeconfig(named: Kubeconfig) -> Endpoint:
    """The endpoint of a kubeconfig. The official client reads those with plugins. Raises KubeconfigError."""
    endpoint = read_endpoint(*named)
    if endpoint is not None:
        return endpoint
    try:
        return endpoint_of(client_from_kubeconfig(*named).configuration)
    except (OSError, ValueError) as error:  # certificates; ssl.SSLError is an OSError
        raise KubeconfigError(printable(f"cannot use the kubeconfig {named.path} ({format_redacted(error)})")) from None


def through_client(api: Any) -> Access:  # noqa: ANN401 - the official client has no usable types
    """Return the access of an api of the official client, through the client's connections and credentials."""
    client = api.api_client

    def headers() -> Mapping[str, str]:
        settings = client.configuration.auth_settings().values()  # renews a token that is too old
        credentials = {each["key"]: each["value"] for each in settings if each["in"] == "header" and each["value"]}
        return {**client.default_headers, **credentials}

    return Access(client.configuration.host, headers, client.rest_client.pool_manager, api)


def direct(endpoint: Endpoint) -> Access:
    """The access to an endpoint over connections of kevents' own. Raises UnavailableError for an unusable URL."""
    import urllib3  # noqa: PLC0415 - a dependency of the official client

    checked_urls(endpoint)
    options: dict[str, Any] = {"maxsize": _MAX_CONNECTIONS}
    if endpoint.socket_options:
        options["socket_options"] = endpoint.socket_options
    if endpoint.context is not None:
        options |= {"ssl_context": endpoint.context, "server_hostname": endpoint.server_name or None}
        options["assert_hostname"] = None if endpoint.context.check_hostname else False
    pool: Any = (
        urllib3.ProxyManager(endpoint.proxy, proxy_headers=proxy_headers(endpoint), **options)
        if endpoint.proxy
        else urllib3.PoolManager(**options)
    )
    return Access(endpoint.server, endpoint.headers, pool)
