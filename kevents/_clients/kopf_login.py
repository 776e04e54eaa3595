"""A sink that uses kopf's credentials: a login handler's connection, or the client's loaded configuration."""

from __future__ import annotations

import json
import logging
import threading
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import kopf

from kevents._clients.sync import UNCONFIGURED_HOSTS, CoreV1EventSink
from kevents._clients.transport import Transport, api_error, format_redacted, guarded_manager
from kevents._model.objects import Json
from kevents.exceptions import UnavailableError

if TYPE_CHECKING:
    from types import ModuleType


_NOT_LOGGED_IN: Final = (
    "kopf has not logged in yet; if its login handler is your own, let that return recorder.logged_in(...)"
)
_CONNECTIONS: Final = 16

_log: Final = logging.getLogger("kevents")


class Login:
    """kopf's credentials: the connection of a login handler, else the client's loaded configuration."""

    def __init__(self) -> None:
        """Not logged in yet."""
        self.info: kopf.ConnectionInfo | None = None

    def keep(self, info: object) -> None:
        """Keep the result of a login handler, None if it had no credentials."""
        if isinstance(info, kopf.ConnectionInfo):
            self.info = info
        elif info is not None:
            _log.error("cannot send events with a %s: log in with a kopf.ConnectionInfo", type(info).__name__)

    def is_there(self) -> bool:
        """True if there are credentials."""
        return self.info is not None or _configuration().host not in UNCONFIGURED_HOSTS

    def api(self) -> object:
        """Return an api for a sink, which calls this at its first request, after a 401 and after a fork.

        Raises:
            UnavailableError: If there are no credentials yet.
        """
        import kubernetes.client  # noqa: PLC0415 - already imported by the sink

        if not self.is_there():
            raise UnavailableError(_NOT_LOGGED_IN)
        connection = ConnectionApi(self, kubernetes.client)
        return connection if self.info is not None else DefaultApi(self, kubernetes.client, connection)


class LoginSink(CoreV1EventSink):
    """Writes events with kopf's credentials."""

    def __init__(self) -> None:
        """Not logged in yet."""
        self.login: Final = Login()
        super().__init__(self.login.api)


def _configuration() -> Any:  # noqa: ANN401 - the official client has no usable types
    """Return the configuration loaded in the process, usually by kopf's login."""
    import kubernetes.client  # noqa: PLC0415 - already imported by the sink

    return kubernetes.client.Configuration.get_default_copy()


class DefaultApi:
    """Two methods of a ``CoreV1Api``, with the loaded configuration until a login handler returns a connection.

    Args:
        login: The credentials.
        client: The official client.
        connection: The api over a login handler's connection.
    """

    def __init__(self, login: Login, client: Any, connection: ConnectionApi) -> None:  # noqa: ANN401
        """Connect at the first call."""
        configuration = _configuration()
        configuration.retries = False  # the work queue retries
        self._login = login
        self._transport = Transport(client.ApiException)
        self._loaded = client.CoreV1Api(client.ApiClient(configuration=configuration))
        self._connection = connection

    def create_namespaced_event(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Create an event."""
        return self._current().create_namespaced_event(*args, **options)

    def patch_namespaced_event(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Patch an event."""
        return self._current().patch_namespaced_event(*args, **options)

    def _current(self) -> Any:  # noqa: ANN401
        return self._transport.wrap(self._loaded) if self._login.info is None else self._connection


class ConnectionApi:
    """The two methods of a ``CoreV1Api`` that a sink calls, over the connection of kopf's login handler."""

    def __init__(self, login: Login, client: ModuleType) -> None:
        """Connect at the first call."""
        self._login = login
        self._client = client
        self._lock = threading.Lock()
        self._connected: tuple[kopf.ConnectionInfo, Any] | None = None

    def create_namespaced_event(self, namespace: str, body: Json, **options: Any) -> Any:  # noqa: ANN401
        """Create an event."""
        return self._request("POST", _path(namespace), "application/json", body, options["_request_timeout"])

    def patch_namespaced_event(self, name: str, namespace: str, body: Json, **options: Any) -> Any:  # noqa: ANN401
        """Patch an event."""
        patch = "application/strategic-merge-patch+json"
        return self._request("PATCH", _path(namespace, name), patch, body, options["_request_timeout"])

    def _request(self, method: str, path: str, content_type: str, body: Json, timeout: tuple[float, float]) -> Any:  # noqa: ANN401
        import urllib3  # noqa: PLC0415 - already imported by the sink

        info, pool = self._connection()
        headers = {**_authorization(info), "Content-Type": content_type, "User-Agent": "kevents"}
        answer = pool.request(
            method,
            info.server.rstrip("/") + path,
            body=json.dumps(body).encode(),
            headers=headers,
            timeout=urllib3.Timeout(connect=timeout[0], read=timeout[1]),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        if 200 <= answer.status < 300:  # noqa: PLR2004
            return answer
        raise api_error(self._client.ApiException, answer, headers)

    def _connection(self) -> tuple[kopf.ConnectionInfo, Any]:
        """Return the newest credentials and their connection pool.

        Raises:
            UnavailableError: If a certificate or key cannot be read; kopf may log in again.
        """
        with self._lock:
            if self._connected is None or self._connected[0] is not self._login.info:
                self._connected = self._connect()
            return self._connected

    def _connect(self) -> tuple[kopf.ConnectionInfo, Any]:
        info = self._login.info
        if info is None:
            raise UnavailableError(_NOT_LOGGED_IN)
        try:
            return info, guarded_manager(_pool(info))
        except Exception as error:  # noqa: BLE001 - it raises OSError, SSLError, binascii.Error ...
            raise UnavailableError(f"kopf's credentials are unusable: {format_redacted(error)}") from None


def _path(*names: str) -> str:
    namespace, *name = (quote(part, safe="") for part in names)
    return "/".join(("/api/v1/namespaces", namespace, "events", *name))


def _authorization(info: kopf.ConnectionInfo) -> Mapping[str, str]:
    """Return the Authorization header; kopf 1.44 ignores user name and password."""
    import urllib3  # noqa: PLC0415 - already imported by the sink

    headers = info.as_http_headers()
    if headers or not (info.username and info.password):
        return headers
    return urllib3.make_headers(basic_auth=f"{info.username}:{info.password}")


def _pool(info: kopf.ConnectionInfo) -> Any:  # noqa: ANN401 - urllib3 is a dependency of the official client
    import urllib3  # noqa: PLC0415 - already imported by the sink

    context = info.as_ssl_context()
    options: dict[str, Any] = {
        "ssl_context": context,
        "cert_reqs": context.verify_mode,
        "maxsize": _CONNECTIONS,
    }
    server = urlsplit(info.server)
    proxy = info.proxy_url
    if proxy is None and info.trust_env and not urllib.request.proxy_bypass(server.hostname or ""):
        proxy = urllib.request.getproxies().get(server.scheme)
    if not proxy:
        return urllib3.PoolManager(**options)
    headers = urllib3.make_headers(proxy_basic_auth=urllib3.util.parse_url(proxy).auth)
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
