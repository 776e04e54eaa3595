"""Where the demonstration's events go: an embedded API server, or the cluster of a kubeconfig."""

from __future__ import annotations

import json
import secrets
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kevents._clients.sync import CoreV1EventSink
from kevents._model.wire import format_error, printable
from kevents.exceptions import StatusError
from kevents.testing import APIServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kevents._cli.demo.story import Cluster
    from kevents._clients.sync import EventSink
    from kevents.testing import Rule

_TIMEOUT: Final = (3, 10)
_COMPONENT: Final = "backup-operator"
_NAMESPACE: Final = "default"
_NOT_FOUND: Final = 404
_RULE: Final = 'apiGroups: [""], resources: ["events"], verbs: ["create", "patch", "list", "delete"]'
_ADVICE: Final = {
    401: "its credentials are not accepted: log in anew, or take the kubeconfig of another user",
    403: f"its user lacks a permission: bind a role with the rule {_RULE} in the namespace {_NAMESPACE}",
}


class ClusterError(Exception):
    """What keeps the demonstration from running, for its user: what is wrong, with what value, and what to do."""


class EmbeddedCluster:
    """An embedded API server; the official client speaks to it as to any other."""

    suffix = ""
    namespace = _NAMESPACE
    component = _COMPONENT
    outage = "For {0} it answers 503, for another {0} nobody listens at all."

    def __init__(self, server: APIServer) -> None:
        """Take a server that is started."""
        self.title = "an embedded API server"
        self.sink: EventSink = CoreV1EventSink(_client(str(server.kubeconfig())))
        self._server = server
        self._rule: Rule | None = None

    def events(self) -> list[dict[str, Any]]:
        """What the server holds; it can be asked during the outage, too."""
        return self._server.events(_NAMESPACE)

    def delete(self, name: str) -> None:
        """Delete an event."""
        self._server.expire(name)

    def answer_503(self) -> None:
        """Begin the outage."""
        self._rule = self._server.fail(503)

    def vanish(self) -> None:
        """Refuse connections."""
        self._server.stop_listening()

    def come_back(self) -> None:
        """End the outage."""
        if self._rule is not None:
            self._rule.remove()
        self._server.listen_again()


class _Line:
    """A sink with a line to it that can be cut: an outage for this process alone."""

    def __init__(self, sink: EventSink) -> None:
        self.error: Callable[[], Exception] | None = None
        self._sink = sink

    def create(self, namespace: str, body: dict[str, Any], /) -> None:
        """Create an event, unless the line is cut."""
        self._check()
        self._sink.create(namespace, body)

    def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
        """Patch an event, unless the line is cut."""
        self._check()
        self._sink.patch(namespace, name, patch)

    def _check(self) -> None:
        if self.error is not None:
            raise self.error()


class RealCluster:
    """The cluster of a kubeconfig; what the story writes there has names of its own, and is removed at the end."""

    namespace = _NAMESPACE
    outage = (
        "A real API server is not stopped for a demonstration: the line to it is cut within this process. For {0} each "
        "write meets a 503, for another {0} a refused connection."
    )

    def __init__(self, kubeconfig: str) -> None:
        """Read the kubeconfig, and ask for every permission that the story needs.

        Raises:
            ClusterError: If it cannot be read, nobody answers, or the user is refused.
        """
        self.suffix = f"-{secrets.token_hex(2)}"
        self.component = f"{_COMPONENT}{self.suffix}"
        client = _client(kubeconfig)
        self._host = printable(str(client.configuration.host))
        self._kubeconfig = printable(kubeconfig)
        self._api = _core_v1(client)
        self._line = _Line(CoreV1EventSink(client))
        self.sink: EventSink = self._line
        self.title = f"the API server at {self._host}, namespace {_NAMESPACE}"
        self._ask_for_permissions()

    def _ask_for_permissions(self) -> None:
        """Make one request of each kind that changes nothing: they are authorized before they are looked at."""
        name = f"kevents-demo{self.suffix}"
        body = {"metadata": {"name": name, "namespace": _NAMESPACE}, "involvedObject": {"namespace": _NAMESPACE}}
        self.events()
        self._ask("create_namespaced_event", _NAMESPACE, body, dry_run="All")
        with suppress(_MissingError):
            self._ask("patch_namespaced_event", name, _NAMESPACE, {"count": 2}, dry_run="All")
        self.delete(name)

    def events(self) -> list[dict[str, Any]]:
        """What the server holds of the story.

        Raises:
            ClusterError: If it does not say.
        """
        answer = self._ask("list_namespaced_event", _NAMESPACE, field_selector=f"source={self.component}")
        try:
            events: list[dict[str, Any]] = json.loads(answer)["items"]
        except (ValueError, LookupError, TypeError):
            raise ClusterError(
                f"what answers at {self._host} is no Kubernetes API server: take another kubeconfig"
            ) from None
        return events

    def delete(self, name: str) -> None:
        """Delete an event; one that is not there is deleted already.

        Raises:
            ClusterError: If the server does not do it.
        """
        with suppress(_MissingError):
            self._ask("delete_namespaced_event", name, _NAMESPACE)

    def clean_up(self) -> int:
        """Delete what the story wrote; how many events that was.

        Raises:
            ClusterError: If the server does not do it.
        """
        try:
            events = self.events()
            for event in events:
                self.delete(event["metadata"]["name"])
        except ClusterError as error:
            left = f"events of {self.component} are left in the namespace {_NAMESPACE}; they expire by themselves"
            raise ClusterError(f"{error}; {left}") from None
        return len(events)

    def answer_503(self) -> None:
        """Begin the outage."""
        self._line.error = lambda: StatusError(503, "ServiceUnavailable", "the demonstration says so")

    def vanish(self) -> None:
        """Refuse connections."""
        self._line.error = lambda: ConnectionRefusedError("the demonstration has cut the line")

    def come_back(self) -> None:
        """End the outage."""
        self._line.error = None

    def _ask(self, method: str, *args: object, **options: str) -> bytes:
        from kubernetes.client import ApiException  # noqa: PLC0415 - kevents itself must not load it
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            call = getattr(self._api, method)
            data: bytes = call(*args, **options, _preload_content=False, _request_timeout=_TIMEOUT).data
        except ApiException as error:
            wrong = self._refusal(method.partition("_")[0], error) if error.status else self._silence(error.reason)
            raise (_MissingError if error.status == _NOT_FOUND else ClusterError)(wrong) from None
        except (HTTPError, OSError) as error:
            raise ClusterError(self._silence(format_error(error))) from None
        return data

    def _silence(self, why: object) -> str:
        return (
            f"no answer from the API server at {self._host} ({printable(str(why))}): is the cluster running, and does "
            f"'kubectl --kubeconfig {self._kubeconfig} get events' work?"
        )

    def _refusal(self, verb: str, error: Any) -> str:  # noqa: ANN401 - the official client has no usable types
        advice = _ADVICE.get(error.status, "is that a Kubernetes API server?")
        said = printable(f"{error.status}, {_message(error)}")
        return f"the API server at {self._host} refused to {verb} events for {self._kubeconfig} ({said}): {advice}"


class _MissingError(ClusterError):
    """404: there is no such event."""


@contextmanager
def opened(kubeconfig: str | None) -> Iterator[EmbeddedCluster | RealCluster]:
    """The cluster of a kubeconfig, or an embedded one; what was written to a real one is removed at the end.

    Raises:
        ClusterError: If there is none to be had.
    """
    with ExitStack() as stack:
        if kubeconfig is None:
            yield EmbeddedCluster(stack.enter_context(APIServer()))
        else:
            cluster = RealCluster(kubeconfig)
            stack.callback(cluster.clean_up)
            yield cluster


def _client(kubeconfig: str) -> Any:  # noqa: ANN401
    import kubernetes.client  # noqa: PLC0415
    import kubernetes.config  # noqa: PLC0415

    config: Any = kubernetes.config
    configuration = kubernetes.client.Configuration()
    try:
        path = Path(kubeconfig).expanduser()
        path.read_bytes()  # the client does not say why it cannot read it
        config.load_kube_config(str(path), client_configuration=configuration)
    except OSError as error:
        raise _unusable(kubeconfig, error.strerror or type(error).__name__) from None
    except kubernetes.config.ConfigException as error:
        raise _unusable(kubeconfig, str(error)) from None
    except Exception as error:  # noqa: BLE001 - it may hold anything; its text stays where it is, with its secrets
        raise _unusable(kubeconfig, f"it holds no configuration, {type(error).__name__}") from None
    configuration.retries = False  # the work queue retries, at times of its own
    return kubernetes.client.ApiClient(configuration=configuration)


def _unusable(kubeconfig: str, why: str) -> ClusterError:
    return ClusterError(
        f"cannot use the kubeconfig {printable(kubeconfig)} ({printable(why)}): give the path of one that kubectl "
        "works with, such as ~/.kube/config"
    )


def _core_v1(client: Any) -> Any:  # noqa: ANN401
    import kubernetes.client  # noqa: PLC0415

    return kubernetes.client.CoreV1Api(client)


def _message(error: Any) -> str:  # noqa: ANN401
    """What the server says in its Status, else the bare reason."""
    with suppress(ValueError, TypeError, AttributeError):
        return str(json.loads(error.body).get("message") or error.reason)
    return str(error.reason)


if TYPE_CHECKING:
    _CLUSTERS: tuple[type[Cluster], ...] = (EmbeddedCluster, RealCluster)
