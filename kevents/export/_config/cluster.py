"""The API server that a configuration or an option means, and what is wrong if there is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kevents._clients.sync import format_redacted
from kevents._model.wire import printable
from kevents.export._config.settings import ClusterConfig


class ClusterError(Exception):
    """A cluster that cannot be used; the text names it, and says what to do."""


def client_of(cluster: ClusterConfig) -> Callable[[], Any] | None:
    """Give what makes an API client; None: in-cluster, else the usual kubeconfig.

    Args:
        cluster: Which; a kubeconfig is read now, so that what is wrong with it is told at the start, and again whenever
            a client is made, so that renewed credentials are found.

    Raises:
        ClusterError: If its kubeconfig cannot be used.
    """
    if not cluster.kubeconfig and not cluster.context:
        return None
    path = Path(cluster.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config").expanduser()
    _client(path, cluster.context)
    return lambda: _client(path, cluster.context)


def _client(path: Path, context: str) -> Any:  # noqa: ANN401 - the official client has no usable types
    import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it
    import kubernetes.config  # noqa: PLC0415

    config: Any = kubernetes.config
    configuration = kubernetes.client.Configuration()
    try:
        path.read_bytes()  # the client does not say why it cannot read it
        config.load_kube_config(str(path), context=context or None, client_configuration=configuration)
    except OSError as error:
        raise _unusable(path, context, error.strerror or type(error).__name__) from None
    except kubernetes.config.ConfigException as error:
        raise _unusable(path, context, format_redacted(error)) from None
    except Exception as error:  # noqa: BLE001 - it may hold anything; its text stays where it is, with its secrets
        raise _unusable(path, context, f"it holds no configuration, {type(error).__name__}") from None
    configuration.retries = False  # the source retries, at times of its own
    return kubernetes.client.ApiClient(configuration=configuration)


def _unusable(path: Path, context: str, why: str) -> ClusterError:
    wanted = f", context {context}" if context else ""
    return ClusterError(
        printable(f"cannot use the kubeconfig {path}{wanted} ({why}): take one that kubectl works with")
    )
