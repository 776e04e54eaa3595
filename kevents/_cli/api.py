"""Requests of the commands to an API server, with errors that name the server, the reason and the fix."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final

from kevents._clients.client import KubeconfigError, client_from_kubeconfig
from kevents._clients.endpoint import kubeconfig, load_configuration
from kevents._clients.transport import format_redacted
from kevents._model.wire import printable
from kevents.exceptions import UnavailableError

_METHODS: Final = {"list": "GET", "get": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}
_JSON: Final = "application/json"
_MERGE_PATCH: Final = "application/strategic-merge-patch+json"
_CONNECT_TIMEOUT: Final = 3.0  # seconds
_READ_TIMEOUT: Final = 10.0
_ERROR: Final = 400
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_ANONYMOUS: Final = 'User "system:anonymous"'


class ClusterError(Exception):
    """A command cannot use a cluster. The text is for the user, with the value and the fix."""


class MissingError(ClusterError):
    """404: the object does not exist."""


class ExistsError(ClusterError):
    """409: the object exists already."""


class FailingError(ClusterError):
    """The server does not answer, or reports that it is failing. A later attempt may succeed."""


def connect(path: str, context: str) -> Any:  # noqa: ANN401 - the official client has no usable types
    """Return an ``ApiClient`` without connecting. By default in-cluster, else of the usual kubeconfig.

    Args:
        path: A kubeconfig. Empty for the default.
        context: A context of the kubeconfig. Empty for the current one.

    Raises:
        KubeconfigError: If the kubeconfig is unusable, or there is none.
    """
    if path or context:
        return client_from_kubeconfig(path or kubeconfig(), context)
    import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it

    try:
        return kubernetes.client.ApiClient(configuration=load_configuration("kevents"))
    except UnavailableError as error:
        raise KubeconfigError(f"{str(error).partition('; set ')[0]}; set KUBECONFIG, or give --kubeconfig") from None


class Api:
    """Makes requests with an ``ApiClient`` of the official client, through its connections and credentials.

    Args:
        client: The client.
        kubeconfig: Its kubeconfig, for errors. Empty for the default configuration.
        permission: The advice for a user who lacks a permission.
    """

    def __init__(self, client: Any, kubeconfig: str, permission: str) -> None:  # noqa: ANN401
        self.host = printable(str(client.configuration.host))
        self._client = client
        self._kubeconfig = printable(kubeconfig)
        self._permission = permission

    def request(self, verb: str, path: str, body: object = None, *, what: str = "events", accept: str = _JSON) -> Any:  # noqa: ANN401
        """Make a request.

        Args:
            verb: The verb of Kubernetes: ``list``, ``get``, ``create``, ``patch`` or ``delete``.
            path: Path and query, quoted.
            body: The JSON body.
            what: The resource, for errors.
            accept: The media type of the answer.

        Returns:
            The decoded answer, an object of Kubernetes.

        Raises:
            ClusterError: If the server does not answer, refuses, or is not an API server.
        """
        import urllib3  # noqa: PLC0415 - a dependency of the official client, which kevents must not load

        settings = self._client.configuration.auth_settings().values()
        credentials = {each["key"]: each["value"] for each in settings if each["in"] == "header" and each["value"]}
        headers = {**self._client.default_headers, **credentials, "Accept": accept}
        headers["Content-Type"] = _MERGE_PATCH if verb == "patch" else _JSON
        try:
            answer = self._client.rest_client.pool_manager.request(
                _METHODS[verb],
                self._client.configuration.host + path,
                headers=headers,
                body=None if body is None else json.dumps(body),
                timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT, read=_READ_TIMEOUT),
                retries=False,
                redirect=False,  # credentials must not follow a redirect
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            tried = f"--kubeconfig {self._kubeconfig} get events" if self._kubeconfig else "get events"
            raise FailingError(
                f"no answer from the API server at {self.host} ({printable(format_redacted(error))}): is the cluster "
                f"running, and does 'kubectl {tried}' work?"
            ) from None
        found: Any = None
        with suppress(ValueError):
            found = json.loads(answer.data)
        if answer.status >= _ERROR:
            raise self._refusal(f"{verb} {what}", answer, found)
        if not isinstance(found, dict) or "kind" not in found:
            raise ClusterError(f"{self.host} is not a Kubernetes API server: use another kubeconfig")
        return found

    def _refusal(self, request: str, answer: Any, found: Any) -> ClusterError:  # noqa: ANN401
        message = found.get("message") if isinstance(found, dict) else None
        advice = {
            _UNAUTHORIZED: "its credentials are not accepted: log in again, or use the kubeconfig of another user",
            _FORBIDDEN: self._permission,
        }.get(answer.status, "" if message else "is it a Kubernetes API server?")
        if answer.status == _FORBIDDEN and _ANONYMOUS in str(message):
            advice = "the request had no credentials: check the user of the kubeconfig and its exec plugin"
        kind = {_NOT_FOUND: MissingError, _CONFLICT: ExistsError, _TOO_MANY: FailingError}.get(answer.status)
        kind = kind or (FailingError if answer.status >= _SERVER_ERROR else ClusterError)
        user = f" for {self._kubeconfig}" if self._kubeconfig else ""
        text = f"the API server at {self.host} refused to {request}{user} ({answer.status}, "
        text += f"{printable(str(message or answer.reason))})"
        return kind(f"{text}: {advice}" if advice else text)
