"""An API client, from what the user gave: an api, a client, a callable, or the environment's configuration."""

from __future__ import annotations

import inspect
import os
import re
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kevents._model.wire import CORE_GROUP, EVENTS_GROUP, format_error
from kevents._runtime.lifecycle import come_first
from kevents.exceptions import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

UNCONFIGURED_HOSTS: Final = ("", "http://localhost", "https://localhost")
"""What a configuration that nobody has loaded says, over the clients' versions."""
_MOST_CONNECTIONS = 64
"""That are kept, one for each sender; the client itself counts processors, and closes what is above."""
_NEEDED = ("ApiClient", "ApiException", "Configuration")
ASYNCHRONOUS: Final = ("kubernetes.aio", "kubernetes_asyncio")
"""The packages whose clients belong into an event loop."""
_SECRET = re.compile(r"(?<=Invalid header value ).*|(?<=Failed to parse: ).*|(?<=//)[^/\s]*(?=@)")


def told_safely(error: BaseException) -> str:
    """An error as one line, without what may be a credential: the header or URL that was wrong, user and password."""
    return _SECRET.sub("(not shown)", " ".join(format_error(error).split()))


class Api(NamedTuple):
    """What an API group's requests are made with; the methods have the same names in both."""

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
    """Whether an object, a class or a function, or what it is derived from, is of a package."""
    classes = (thing if isinstance(thing, type) else type(thing)).__mro__
    modules = [getattr(thing, "__module__", ""), *(cls.__module__ for cls in classes)]
    return any(str(module).startswith(f"{package}.") for module in modules)


def package_of(thing: object) -> str:
    """Of which asynchronous package it is; empty: of none."""
    return next((package for package in ASYNCHRONOUS if comes_from(thing, package)), "")


def kubeconfig() -> str:
    """The file's path as it is now, not as it was at the client's import."""
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def other_api(thing: object, wanted: Api) -> str:
    """Why an api of other events will not do; empty for anything else. Not by class: that may not be loaded."""
    name = type(thing).__name__
    others = {api.name for api in APIS.values()} - {wanted.name}
    return f"not an {name}: its events have another shape" if name in others else ""


def no_configuration(not_in_cluster: Exception, path: str, error: Exception, sink: str) -> UnavailableError:
    """What is to be told when the environment has neither of the two."""
    return UnavailableError(
        f"no Kubernetes configuration: not in a cluster ({told_safely(not_in_cluster)}), and no usable "
        f"kubeconfig {path} ({told_safely(error)}); set KUBECONFIG, or give {sink} an api"
    )


class ClientSource:
    """Gives an api of the official client; it is made at the first call, and anew after a fork.

    Args:
        given: Such an api, an ``ApiClient``, a callable that gives either, or None for the configuration that the
            process has loaded, else in-cluster, else kubeconfig.
        api_group: Of the events; the methods of its api are named as those of the other.

    Raises:
        ImportError: If the official client is not installed.
        TypeError: If ``given`` is none of these.
    """

    def __init__(self, given: object = None, api_group: str = CORE_GROUP) -> None:
        """Import the client, in the caller's thread; connect to nothing."""
        import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it
        import kubernetes.config  # noqa: PLC0415

        self._client = kubernetes.client
        self._config: Any = kubernetes.config
        self._kind = APIS[api_group]
        # The client 37 loads each part when it is first asked for.
        for name in (*_NEEDED, self._kind.name, self._kind.model):
            getattr(self._client, name)
        self._given = given
        self._lock = threading.Lock()
        self._api: Any = None
        self._forked = False
        if given is not None and (trouble := self._trouble(given, legal=callable(given))):
            raise TypeError(f"api must be a {self._kind.name} or ApiClient, or a callable that gives one, {trouble}")
        come_first()

    def api(self) -> Any:  # noqa: ANN401 - the official client has no usable types
        """The api.

        Raises:
            UnavailableError: If there is no configuration, or no credentials, yet.
        """
        if self._api is None:
            with self._lock:
                if self._api is None:
                    self._api = self._make()
                    come_first()
        return self._api

    def renew(self, api: object) -> None:
        """Its credentials were refused: ask for others before the next request, unless the client was given."""
        with self._lock:
            if self._api is api and not self._is_client(self._given):
                self._api = None

    def after_fork(self) -> None:
        """In the child: share neither lock nor connection with the parent."""
        self._lock = threading.Lock()
        self._api = None
        self._forked = True

    def _make(self) -> Any:  # noqa: ANN401
        given: Any = self._given
        if given is None:
            return self._api_of(self._from_environment())
        if not self._is_client(given):
            given = self._called(given)
        if self._forked:  # also what a callable gives may be older than the fork
            given = self._reconnected(given)
        return given if hasattr(given, "create_namespaced_event") else self._api_of(given)

    def _api_of(self, client: object) -> Any:  # noqa: ANN401
        return getattr(self._client, self._kind.name)(client)

    def _called(self, factory: Callable[[], object]) -> object:
        try:
            made = factory()
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it raises, there are no credentials yet
            raise UnavailableError(f"the callable given as api raised {told_safely(error)}") from None
        if trouble := self._trouble(made, legal=False):
            raise UnavailableError(f"the callable given as api must give a {self._kind.name} or ApiClient, {trouble}")
        return made

    def _is_client(self, thing: object) -> bool:
        speaks = hasattr(thing, "create_namespaced_event") and not isinstance(thing, type)
        return speaks or isinstance(thing, self._client.ApiClient)

    def _trouble(self, thing: object, *, legal: bool) -> str:
        """Why a thing will not do; empty if it will."""
        if package_of(thing) or inspect.iscoroutinefunction(getattr(thing, "create_namespaced_event", thing)):
            return f"not an asynchronous one: {self._kind.async_sink} is for those"
        if other := other_api(thing, self._kind):
            return other
        return "" if legal or self._is_client(thing) else f"not {type(thing).__module__}.{type(thing).__qualname__}"

    def _reconnected(self, given: Any) -> Any:  # noqa: ANN401
        old = getattr(given, "api_client", given)
        if not isinstance(old, self._client.ApiClient):
            return given  # somebody's double of the api: it has no connections that we know of
        new = self._client.ApiClient(configuration=old.configuration)
        new.default_headers.update(old.default_headers)
        return type(given)(new) if given is not old else new

    def _from_environment(self) -> Any:  # noqa: ANN401
        configuration = self._client.Configuration.get_default_copy()
        if configuration.host in UNCONFIGURED_HOSTS:
            configuration = self._load()
        configuration.retries = False  # the work queue retries, at times of its own
        configuration.connection_pool_maxsize = _MOST_CONNECTIONS
        return self._client.ApiClient(configuration=configuration)

    def _load(self) -> Any:  # noqa: ANN401
        configuration = self._client.Configuration()
        try:
            self._config.load_incluster_config(client_configuration=configuration)
        except Exception as not_in_cluster:  # noqa: BLE001 - its errors are of many classes
            path = kubeconfig()
            try:
                self._config.load_kube_config(path, client_configuration=configuration)
            except Exception as error:  # noqa: BLE001 - a broken file: YAMLError, TypeError, AttributeError ...
                raise no_configuration(not_in_cluster, path, error, self._kind.sink) from None
        return configuration
