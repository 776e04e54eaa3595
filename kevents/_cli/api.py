"""Requests of the commands to an API server, with errors that name the server, the reason and the fix."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final

from kevents._model.wire import format_error, printable

_TIMEOUT: Final = (3, 10)  # seconds to connect, and to read
_NOT_FOUND: Final = 404
_FORBIDDEN: Final = 403
_UNAUTHORIZED: Final = 401


class ClusterError(Exception):
    """A command cannot use a cluster. The text is for the user, with the value and the fix."""


class MissingError(ClusterError):
    """404: the object does not exist."""


class Api:
    """An API of the official client.

    Args:
        api: The API, as ``CoreV1Api``.
        kubeconfig: The kubeconfig, for errors.
        permission: The advice for a user who lacks a permission.
    """

    def __init__(self, api: Any, kubeconfig: str, permission: str) -> None:  # noqa: ANN401 - it has no usable types
        """Make no request."""
        self.host = printable(str(api.api_client.configuration.host))
        self._api = api
        self._kubeconfig = printable(kubeconfig)
        self._permission = permission

    def request(self, method: str, *args: object, **options: Any) -> Any:  # noqa: ANN401
        """Call a method of the API.

        Args:
            method: Its name, ``list_namespaced_event``.
            args: Its arguments.
            options: Its options.

        Returns:
            The decoded answer.

        Raises:
            ClusterError: If the server does not answer, refuses, or is not an API server.
        """
        from kubernetes.client import ApiException  # noqa: PLC0415 - kevents itself must not load it
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            call = getattr(self._api, method)
            return json.loads(call(*args, **options, _preload_content=False, _request_timeout=_TIMEOUT).data)
        except ApiException as error:
            if error.status:
                raise self._refusal(method.replace("_namespaced", ""), error) from None
            why = str(error.reason)
        except (HTTPError, OSError) as error:
            why = format_error(error)
        except ValueError:
            raise ClusterError(f"{self.host} is not a Kubernetes API server: use another kubeconfig") from None
        raise ClusterError(
            f"no answer from the API server at {self.host} ({printable(why)}): is the cluster running, and does "
            f"'kubectl --kubeconfig {self._kubeconfig} get events' work?"
        )

    def _refusal(self, request: str, error: Any) -> ClusterError:  # noqa: ANN401
        verb, _, kind = request.partition("_")
        message = str(error.reason)
        with suppress(ValueError, TypeError, AttributeError):
            message = str(json.loads(error.body).get("message") or message)
        advice = {
            _UNAUTHORIZED: "its credentials are not accepted: log in again, or use the kubeconfig of another user",
            _FORBIDDEN: self._permission,
        }.get(error.status, "is it a Kubernetes API server?")
        return (MissingError if error.status == _NOT_FOUND else ClusterError)(
            f"the API server at {self.host} refused to {verb} {kind}s for {self._kubeconfig} "
            f"({error.status}, {printable(message)}): {advice}"
        )
