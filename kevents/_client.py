"""An API client, from what the user gave: an api, a client, a callable, or the environment's configuration."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from kevents._wire import told
from kevents.exceptions import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

_UNCONFIGURED_HOSTS = ("", "http://localhost", "https://localhost")


class ClientSource:
    """Gives a ``CoreV1Api`` of the official client; it is made at the first call, and anew after a fork.

    Args:
        given: A ``CoreV1Api``, an ``ApiClient``, a callable that gives either, or None for the configuration that
            the process has loaded, else in-cluster, else kubeconfig.

    Raises:
        ImportError: If the official client is not installed.
        TypeError: If ``given`` is none of these.
    """

    def __init__(self, given: object = None) -> None:
        """Import the client, in the caller's thread; connect to nothing."""
        import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it
        import kubernetes.config  # noqa: PLC0415

        self._client = kubernetes.client
        self._config: Any = kubernetes.config
        self._given = given
        self._lock = threading.Lock()
        self._api: Any = None
        if given is not None and not self._is_client(given) and not callable(given):
            raise TypeError(
                f"api must be a kubernetes CoreV1Api or ApiClient, or a callable that gives one, "
                f"not {type(given).__module__}.{type(given).__qualname__}"
            )

    def api(self) -> Any:  # noqa: ANN401 - the official client has no usable types
        """The ``CoreV1Api``.

        Raises:
            UnavailableError: If there is no configuration, or no credentials, yet.
        """
        if self._api is None:
            with self._lock:
                if self._api is None:
                    self._api = self._make()
        return self._api

    def after_fork(self) -> None:
        """In the child: share neither lock nor connection with the parent."""
        self._lock = threading.Lock()
        self._api = None
        if self._given is not None and self._is_client(self._given):
            self._given = self._reconnected(self._given)

    def _make(self) -> Any:  # noqa: ANN401
        given: Any = self._given
        if given is None:
            return self._client.CoreV1Api(self._from_environment())
        if not self._is_client(given):
            given = self._called(given)
        return given if hasattr(given, "create_namespaced_event") else self._client.CoreV1Api(given)

    def _called(self, factory: Callable[[], object]) -> object:
        try:
            made = factory()
        except UnavailableError:
            raise
        except Exception as error:
            raise UnavailableError(f"the callable given as api raised {told(error)}") from error
        if not self._is_client(made):
            raise UnavailableError(f"the callable given as api gave a {type(made).__name__}, no CoreV1Api or ApiClient")
        return made

    def _is_client(self, thing: object) -> bool:
        return hasattr(thing, "create_namespaced_event") or isinstance(thing, self._client.ApiClient)

    def _reconnected(self, given: Any) -> Any:  # noqa: ANN401
        old = getattr(given, "api_client", given)
        if not isinstance(old, self._client.ApiClient):
            return given  # somebody's double of the api: it has no connections that we know of
        new = self._client.ApiClient(configuration=old.configuration)
        new.default_headers.update(old.default_headers)
        return type(given)(new) if given is not old else new

    def _from_environment(self) -> Any:  # noqa: ANN401
        configuration = self._client.Configuration.get_default_copy()
        if configuration.host in _UNCONFIGURED_HOSTS:
            configuration = self._load()
        configuration.retries = False  # the work queue retries, at times of its own
        return self._client.ApiClient(configuration=configuration)

    def _load(self) -> Any:  # noqa: ANN401
        configuration = self._client.Configuration()
        try:
            self._config.load_incluster_config(client_configuration=configuration)
        except self._config.ConfigException as not_in_cluster:
            try:
                self._config.load_kube_config(client_configuration=configuration)
            except (self._config.ConfigException, OSError) as error:
                raise UnavailableError(
                    f"no Kubernetes configuration: not in a cluster ({not_in_cluster}), and no usable kubeconfig "
                    f"({error}); set KUBECONFIG, or give CoreV1EventSink an api"
                ) from error
        return configuration
