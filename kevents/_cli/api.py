"""Requests of the commands to an API server, with errors that name the server, the reason and the fix."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final

from kevents._clients.client import Kubeconfig, KubeconfigError, endpoint_of_kubeconfig
from kevents._clients.endpoint import Endpoint, find_endpoint, kubeconfig
from kevents._clients.errors import SUCCESS, Answer, redact
from kevents._clients.sync import JSON, ConnectionPool, deadline
from kevents._model.wire import printable
from kevents.exceptions import UnavailableError

_METHODS: Final = {"list": "GET", "get": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}
_TIMES: Final = (3.0, 10.0, 30.0)  # seconds to connect, to wait for the next bytes, and for a request
_MAX_BODY: Final = 16 << 20
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


def find(path: str, context: str) -> Endpoint:
    """The endpoint of a kubeconfig or a context, else in-cluster, else of the usual one. Raises KubeconfigError."""
    if path or context:
        return endpoint_of_kubeconfig(Kubeconfig(path or kubeconfig(), context))
    try:
        return find_endpoint("")
    except UnavailableError as error:
        raise KubeconfigError(f"{str(error).partition('; set ')[0]}; set KUBECONFIG, or give --kubeconfig") from None


class Api:
    """Makes requests to an endpoint. Errors name its kubeconfig, and advise a user who lacks a permission."""

    def __init__(self, endpoint: Endpoint, kubeconfig: str, permission: str) -> None:
        self.host = printable(redact(endpoint.server))
        self._pool = ConnectionPool(endpoint)
        self._kubeconfig = printable(kubeconfig)
        self._permission = permission

    def request(self, verb: str, path: str, body: object = None, *, what: str = "events", accept: str = JSON) -> Any:  # noqa: ANN401
        """Make a request, and return the answer, an object of Kubernetes.

        ``verb`` is a key of ``_METHODS``, ``path`` has the query and is quoted, ``what`` is the resource for errors.

        Raises:
            ClusterError: If the server does not answer, refuses, or is not an API server.
        """
        content = b"" if body is None else json.dumps(body).encode()
        tried = f"--kubeconfig {self._kubeconfig} get events" if self._kubeconfig else "get events"
        fix = f"is the cluster running, and does 'kubectl {tried}' work?"
        try:
            with deadline(_TIMES[2]):
                answer = self._pool.exchange(_METHODS[verb], path, content, _TIMES, accept, _MAX_BODY)
        except UnavailableError as error:
            text = f"no answer from the API server at {self.host} ({printable(str(error))}): {fix}"
            raise FailingError(text) from None
        if answer.status in SUCCESS and not answer.complete:
            raise FailingError(f"no complete answer from the API server at {self.host}: {fix}")
        found: Any = None
        with suppress(ValueError):
            found = json.loads(answer.body)
        if answer.status >= _ERROR:
            raise self._refusal(f"{verb} {what}", answer, found)
        if not isinstance(found, dict) or "kind" not in found:
            raise ClusterError(f"{self.host} is not a Kubernetes API server: use another kubeconfig")
        return found

    def _refusal(self, request: str, answer: Answer, found: Any) -> ClusterError:  # noqa: ANN401
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
