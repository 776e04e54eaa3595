"""Where the API server is, and with which credentials: read from a service account, a kubeconfig or a loaded client.

Service accounts and plain kubeconfigs are read here, because to load the official client takes up to three seconds. The
client reads kubeconfigs with an exec plugin or an auth provider, and reports what is wrong with unusable ones.
"""

from __future__ import annotations

import base64
import inspect
import os
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from kevents._clients.errors import format_redacted
from kevents.exceptions import UnavailableError

ASYNCHRONOUS: Final = ("kubernetes.aio", "kubernetes_asyncio")
"""Packages with asynchronous clients."""
_UNCONFIGURED_HOSTS: Final = ("", "http://localhost", "https://localhost")
"""Hosts of a configuration that was not loaded, in the versions of the client."""
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a pod's token and certificate authority."""
_TOKEN_PERIOD: Final = 60.0
"""Seconds after which a token file is read again, as in the official clients."""
_CLIENT_ONLY: Final = ("auth-provider", "exec")
"""Users of a kubeconfig that need the official client."""
_UNREADABLE: Final = (OSError, ValueError, TypeError, KeyError, AttributeError)
"""Errors for an unusable kubeconfig."""

Headers = Callable[[], Any]
"""Returns headers: a mapping of texts. Those of an asynchronous client's configuration must be awaited."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An API server, and how to connect to it."""

    server: str
    context: ssl.SSLContext | None  # None without TLS
    headers: Headers = field(repr=False)  # with the credentials, refreshed when due
    may_block: Callable[[], bool] = field(default=bool, repr=False)  # whether the next call runs a program or reads
    fixed: bool = False  # whether `headers` always returns the same
    server_name: str = ""  # in the server's certificate; empty for the host of the URL
    proxy: str = field(default="", repr=False)  # its URL
    proxy_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    socket_options: tuple[Any, ...] = ()  # arguments of `socket.setsockopt`


def find_endpoint(sink: str, packages: tuple[str, ...] = ("kubernetes",)) -> Endpoint:
    """The endpoint of the configuration that the process has loaded, else in-cluster, else of the kubeconfig.

    ``sink`` is a name for the error. ``packages`` are the clients that may have loaded one. Raises UnavailableError.
    """
    loaded = next(filter(None, map(loaded_configuration, packages)), None)
    endpoint = read_endpoint() if loaded is None else None
    if endpoint is not None:
        return endpoint
    try:
        return endpoint_of(load_configuration(sink) if loaded is None else loaded)
    except (OSError, ValueError) as error:  # certificates; ssl.SSLError is an OSError
        raise UnavailableError(f"the configuration is unusable: {format_redacted(error)}") from None


# -- the official client's configuration -----------------------------------------------------------------------------


def loaded_configuration(package: str) -> Any:  # noqa: ANN401 - the clients have no usable types
    """Return a copy of the configuration that the process has loaded into a client, None for none. Imports nothing."""
    client = sys.modules.get(f"{package}.client")
    configuration = None if client is None else client.Configuration.get_default_copy()
    return None if configuration is None or configuration.host in _UNCONFIGURED_HOSTS else configuration


def load_configuration(sink: str) -> Any:  # noqa: ANN401
    """Let the official client read the service account or the kubeconfig; its default configuration is never set.

    Raises UnavailableError if neither is usable. The text says what to do.
    """
    import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it
    import kubernetes.config  # noqa: PLC0415

    config: Any = kubernetes.config
    configuration: Any = kubernetes.client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except Exception as not_in_cluster:  # noqa: BLE001 - it raises many classes
        path = kubeconfig()
        try:
            config.load_kube_config(path, client_configuration=configuration)
            if not (configuration.api_key or configuration.cert_file) and has_plugin():  # the client only logs it
                raise ValueError("the plugin of its user has failed")  # noqa: TRY301 - reported like other errors
        except Exception as error:  # noqa: BLE001 - a broken file raises YAMLError, TypeError, AttributeError ...
            raise UnavailableError(
                f"no Kubernetes configuration: not in a cluster ({format_redacted(not_in_cluster)}), and no usable "
                f"kubeconfig {path} ({format_redacted(error)}); set KUBECONFIG, or give {sink} an api"
            ) from None
    return configuration


def endpoint_of(configuration: Any) -> Endpoint:  # noqa: ANN401
    """The endpoint of a client's ``Configuration``, whose hook refreshes the credentials.

    Raises OSError for an unreadable certificate, ValueError for a host that is no URL.
    """
    url = urlsplit(configuration.host)
    proxy = configuration.proxy or ""
    if not hasattr(configuration, "no_proxy"):  # an asynchronous client looks at the environment later
        proxy = proxy or environment_proxy(configuration.host)
    elif proxy and bypasses(url, configuration.no_proxy or ""):
        proxy = ""
    context = tls_context(
        url,
        verify=configuration.verify_ssl,
        ca_file=configuration.ssl_ca_cert,
        ca_data=getattr(configuration, "ca_cert_data", None),
    )
    if context is not None and configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if context is not None and configuration.assert_hostname is False:
        context.check_hostname = False

    def headers() -> Mapping[str, str] | Awaitable[Mapping[str, str]]:
        settings = configuration.auth_settings()  # calls the hook
        return _awaited_headers(settings) if inspect.isawaitable(settings) else _in_headers(settings)

    def may_block() -> bool:
        asynchronous = inspect.iscoroutinefunction(configuration.auth_settings)
        return configuration.refresh_api_key_hook is not None and not asynchronous

    return Endpoint(
        configuration.host.rstrip("/"),
        context,
        headers,
        may_block,
        server_name=configuration.tls_server_name or "",
        proxy=proxy,
        proxy_headers=configuration.proxy_headers or {},
        socket_options=tuple(getattr(configuration, "socket_options", None) or ()),
    )


def _in_headers(settings: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    return {each["key"]: each["value"] for each in settings.values() if each["in"] == "header" and each["value"]}


async def _awaited_headers(settings: Awaitable[Mapping[str, Mapping[str, str]]]) -> Mapping[str, str]:
    return _in_headers(await settings)


# -- service account and kubeconfig ----------------------------------------------------------------------------------


def kubeconfig() -> str:
    """Return the present path of the kubeconfig; the client keeps the one of its import."""
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def is_configured() -> bool:
    """True if this process has a configuration: loaded into the official client, a service account, or a kubeconfig."""
    if loaded_configuration("kubernetes") is not None:
        return True
    files = kubeconfig().split(os.pathsep)
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(Path(file).expanduser().exists() for file in files)


def read_endpoint(path: str = "", context: str = "") -> Endpoint | None:
    """The endpoint of the service account, else of the kubeconfig. None if the official client must read it.

    With a path or a context, the service account is not used. They are empty for the default and the current one.
    """
    with suppress(*_UNREADABLE):  # the client finds out what is wrong
        account = None if path or context else _service_account()
        return account or _of_kubeconfig(path, context)
    return None


def pod_namespace() -> str:
    """Return the namespace of the pod's service account, empty outside of a pod."""
    with suppress(OSError):
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    return ""


def namespace_of(path: str, context: str) -> str:
    """Return the namespace of a kubeconfig's context, empty for none. The arguments are those of `read_endpoint`."""
    with suppress(*_UNREADABLE):
        return str(_read_kubeconfig(path, context).namespace or "")
    return ""


def _service_account() -> Endpoint | None:
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}") for name in ("HOST", "PORT"))
    token_file, ca_file = (SERVICE_ACCOUNT / name for name in ("token", "ca.crt"))
    if not (host and port and token_file.is_file() and ca_file.is_file()):
        return None
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    context = tls_context(urlsplit(server), ca_file=str(ca_file))
    token = _TokenFile(token_file)
    return Endpoint(server, context, token.headers, token.is_due, proxy=environment_proxy(server))


class _TokenFile:
    """A file with a token, read again every minute. Raises OSError if it is unreadable, ValueError if it is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._due = 0.0
        self.headers()

    def is_due(self) -> bool:
        return monotonic() >= self._due

    def headers(self) -> Mapping[str, str]:
        if self.is_due():
            token = self._path.read_text(encoding="utf-8").strip()
            if not token:
                raise ValueError(f"the token file {self._path} is empty")
            self._token = token
            self._due = monotonic() + _TOKEN_PERIOD
        return {"Authorization": f"Bearer {self._token}"}


class _Kubeconfig(NamedTuple):
    """A context of the kubeconfig, and the folders of the files that define its parts."""

    namespace: str | None
    cluster: dict[str, Any]
    clusters_folder: Path
    user: dict[str, Any]
    users_folder: Path


def _read_kubeconfig(path: str = "", context: str = "") -> _Kubeconfig:
    import yaml  # type: ignore[import-untyped] # noqa: PLC0415 - a service account needs none

    current, found = "", dict[tuple[str, str], tuple[dict[str, Any], Path]]()
    for name in (path or kubeconfig()).split(os.pathsep):
        file = Path(name).expanduser()
        if not name or not file.exists():
            continue
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError:
            raise ValueError("not YAML") from None
        current = content.get("current-context", current)
        for kind in ("cluster", "context", "user"):
            for entry in content.get(f"{kind}s") or ():
                found.setdefault((kind, entry["name"]), (entry[kind] or {}, file.parent))
    chosen, _ = found["context", context or current]
    user = found.get(("user", chosen.get("user", "")), ({}, Path()))
    return _Kubeconfig(chosen.get("namespace"), *found["cluster", chosen["cluster"]], *user)


def has_plugin(path: str = "", context: str = "") -> bool:
    """True if the user of a kubeconfig has an exec plugin or an auth provider. Arguments as of `read_endpoint`."""
    with suppress(*_UNREADABLE):
        return any(key in _read_kubeconfig(path, context).user for key in _CLIENT_ONLY)
    return False


def _of_kubeconfig(path: str, context: str) -> Endpoint | None:
    _, cluster, folder, user, users_folder = _read_kubeconfig(path, context)
    if any(key in user for key in _CLIENT_ONLY):
        return None
    server: str = cluster["server"].rstrip("/")
    tls = tls_context(
        urlsplit(server),
        verify=not cluster.get("insecure-skip-tls-verify"),
        ca_file=_path(folder, cluster, "certificate-authority"),
        ca_data=_data(cluster, "certificate-authority"),
    )
    if tls is not None:
        _load_certificate(tls, user, users_folder)
    return Endpoint(
        server,
        tls,
        *_user_headers(user, users_folder),
        server_name=cluster.get("tls-server-name", ""),
        proxy=cluster.get("proxy-url") or environment_proxy(server),
    )


def _path(folder: Path, values: Mapping[str, Any], key: str) -> str | None:
    return str(folder / values[key]) if values.get(key) else None


def _data(values: Mapping[str, Any], key: str) -> str | None:
    encoded = values.get(f"{key}-data")
    return base64.b64decode(encoded, validate=True).decode() if encoded else None


def _load_certificate(context: ssl.SSLContext, user: Mapping[str, Any], folder: Path) -> None:
    """Load a user's client certificate; Python reads keys from files only."""
    import tempfile  # noqa: PLC0415 - most users have a token

    keys = ("client-certificate", "client-key")
    with tempfile.TemporaryDirectory(prefix="kevents-") as private:  # only this user can read it
        files = [_path(folder, user, key) for key in keys]
        for number, key in enumerate(keys):
            if (data := _data(user, key)) is not None:
                files[number] = str(Path(private) / key)
                Path(private, key).write_text(data, encoding="ascii")
        if files[0] is not None:
            context.load_cert_chain(files[0], files[1])


def _user_headers(user: Mapping[str, Any], folder: Path) -> tuple[Headers, Callable[[], bool], bool]:
    """Return a user's headers, whether they may block, and whether they are fixed, as of :class:`Endpoint`."""
    if user.get("tokenFile") and not user.get("token"):
        token = _TokenFile(folder / user["tokenFile"])
        return token.headers, token.is_due, False
    headers = {}
    if user.get("token"):
        headers["Authorization"] = f"Bearer {user['token']}"
    elif user.get("username") and user.get("password"):
        headers["Authorization"] = basic_authorization(user["username"], user["password"])
    return lambda: headers, bool, True


# -- TLS and proxies -------------------------------------------------------------------------------------------------


def basic_authorization(username: str, password: str) -> str:
    """Return the value of a header for HTTP basic authentication."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def tls_context(
    url: SplitResult, *, verify: bool = True, ca_file: str | None = None, ca_data: str | bytes | None = None
) -> ssl.SSLContext | None:
    """These certificate authorities, else the system's. None for a URL without TLS. Raises OSError."""
    if url.scheme != "https":
        return None
    context = ssl.create_default_context(cafile=None if ca_data else ca_file, cadata=ca_data)
    # Python 3.13 refuses authorities that client-go accepts, such as those of many clusters.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def environment_proxy(server: str) -> str:
    """Return the URL of the proxy that the environment names for a URL, empty for none."""
    url = urlsplit(server)
    proxy = _variable(f"{url.scheme}_proxy") or _variable("all_proxy")
    if not proxy or bypasses(url, _variable("no_proxy")):
        return ""
    return proxy if "//" in proxy else f"http://{proxy}"


def _variable(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.upper()) or ""


def bypasses(url: SplitResult, no_proxy: str) -> bool:
    """True if one of the names, addresses and networks of ``NO_PROXY`` is the host of a URL."""
    import ipaddress  # noqa: PLC0415 - most programs have no proxy

    host = url.hostname or ""
    for entry in no_proxy.lower().replace(",", " ").split():
        name = entry.lstrip("*").lstrip(".")
        if entry == "*" or name in {host, url.netloc.lower()} or (name and host.endswith(f".{name}")):
            return True
        with suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
    return False
