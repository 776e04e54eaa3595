"""API clients of the official package, from a kubeconfig that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kevents._clients.transport import format_redacted
from kevents._model.wire import printable


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
