"""What kopf has logged in with, as a sink wants it: a login handler's connection, or the client's configuration."""

from __future__ import annotations

import json
import logging
import threading
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import kopf

from kevents._clients.sync import MOST_READ, UNCONFIGURED_HOSTS, CoreV1EventSink, format_redacted
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
    """What kopf has logged in with: the connection that a login handler gave, else the client's configuration."""

    def __init__(self) -> None:
        """Not logged in yet."""
        self.info: kopf.ConnectionInfo | None = None

    def keep(self, info: object) -> None:
        """Take what a login handler gives; None means that it has nothing."""
        if isinstance(info, kopf.ConnectionInfo):
            self.info = info
        elif info is not None:
            _log.error("events cannot be sent by a %s: log in with a kopf.ConnectionInfo", type(info).__name__)

    def is_there(self) -> bool:
        """Whether there is anything to connect with."""
        return self.info is not None or _configuration().host not in UNCONFIGURED_HOSTS

    def api(self) -> object:
        """An api, for a sink: asked at its first request, after a 401 and after a fork.

        Raises:
            UnavailableError: If there are no credentials yet.
        """
        import kubernetes.client  # noqa: PLC0415 - the sink has imported it

        if not self.is_there():
            raise UnavailableError(_NOT_LOGGED_IN)
        connection = ConnectionApi(self, kubernetes.client)
        return connection if self.info is not None else DefaultApi(self, kubernetes.client, connection)


class LoginSink(CoreV1EventSink):
    """Writes with what kopf has logged in with."""

    def __init__(self) -> None:
        """Not logged in yet."""
        self.login: Final = Login()
        super().__init__(self.login.api)


def _configuration() -> Any:  # noqa: ANN401 - the official client has no usable types
    """What the process has loaded: by kopf's login, unless the user did it before."""
    import kubernetes.client  # noqa: PLC0415 - the sink has imported it

    return kubernetes.client.Configuration.get_default_copy()


class DefaultApi:
    """The two calls of a ``CoreV1Api`` by the configuration that is loaded, until a login handler gives a connection.

    Args:
        login: That may come.
        client: The official client.
        connection: Over what it gives.
    """

    def __init__(self, login: Login, client: Any, connection: ConnectionApi) -> None:  # noqa: ANN401
        """Connect at the first call."""
        configuration = _configuration()
        configuration.retries = False  # the work queue retries, at times of its own
        self._login = login
        self._loaded = client.CoreV1Api(client.ApiClient(configuration=configuration))
        self._connection = connection

    def create_namespaced_event(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Create an event."""
        return self._present().create_namespaced_event(*args, **options)

    def patch_namespaced_event(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Patch an event."""
        return self._present().patch_namespaced_event(*args, **options)

    def _present(self) -> Any:  # noqa: ANN401
        return self._loaded if self._login.info is None else self._connection


class ConnectionApi:
    """The two calls of a ``CoreV1Api`` that a sink makes, over the connection that kopf's login handler gave."""

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
        import urllib3  # noqa: PLC0415 - the sink has imported it

        info, pool = self._connection()
        answer = pool.request(
            method,
            info.server.rstrip("/") + path,
            body=json.dumps(body).encode(),
            headers={**_authorization(info), "Content-Type": content_type, "User-Agent": "kevents"},
            timeout=urllib3.Timeout(connect=timeout[0], read=timeout[1]),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        if 200 <= answer.status < 300:  # noqa: PLR2004
            return answer
        error: Any = self._client.ApiException(status=answer.status, reason=answer.reason)
        error.headers = dict(answer.headers)
        error.body = answer.read(MOST_READ)
        if len(error.body) == MOST_READ:
            answer.close()
        answer.release_conn()
        raise error

    def _connection(self) -> tuple[kopf.ConnectionInfo, Any]:
        """The newest credentials and their connections.

        Raises:
            UnavailableError: If a certificate or key cannot be read: kopf may log in again.
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
            return info, _pool(info)
        except Exception as error:  # noqa: BLE001 - OSError, SSLError, binascii.Error ...
            raise UnavailableError(f"kopf's credentials cannot be used: {format_redacted(error)}") from None


def _path(*names: str) -> str:
    namespace, *name = (quote(part, safe="") for part in names)
    return "/".join(("/api/v1/namespaces", namespace, "events", *name))


def _authorization(info: kopf.ConnectionInfo) -> Mapping[str, str]:
    """The header; kopf 1.44 leaves name and password out of its own."""
    import urllib3  # noqa: PLC0415 - the sink has imported it

    headers = info.as_http_headers()
    if headers or not (info.username and info.password):
        return headers
    return urllib3.make_headers(basic_auth=f"{info.username}:{info.password}")


def _pool(info: kopf.ConnectionInfo) -> Any:  # noqa: ANN401 - of urllib3, which comes with the official client
    import urllib3  # noqa: PLC0415 - the sink has imported it

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
