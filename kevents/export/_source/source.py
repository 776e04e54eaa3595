"""Where an export reads: a cluster's events, one stream for each namespace, or one for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, TypeVar

from kevents._model.validation import require_count, require_positive
from kevents._runtime.log import LimitedLog
from kevents.exceptions import StatusError, UnavailableError
from kevents.export._model.backoff import Backoff
from kevents.export._model.types import Stream
from kevents.export._source.events_api import EventsApi, GoneError, NoAnswerError, Requests
from kevents.export._source.listing import PAGE
from kevents.export._source.options import Start, StreamOptions, parse_repeats
from kevents.export._source.stream import EventStream

_STARTS = ("resume", "now", "all")
_FORBIDDEN = 403
_SERVER_ERRORS = 500
_T = TypeVar("_T")
_EVENTS = 'a role must allow "list" and "watch" of "events"'
_CLUSTER = (
    'a role must allow "get" of "namespaces" named "kube-system", whose uid tells one cluster from another; '
    "or give the source a cluster name of your own, with cluster="
)


class ClusterEventSource:
    """A cluster's events, read through core/v1, which every API server has and which shows those of events.k8s.io too.

    Each stream lists what there is, gives what has not been read in the order in which it was written, and watches from
    there. It goes on for ever: what fails is tried again, and when the server has forgotten where the stream was, the
    list shows what was missed. Nothing is lost as long as it has not expired; what may have, is written down as a gap.

    Args:
        api: A ``CoreV1Api`` or ``ApiClient`` of the official client, of which 31 to 37 are tested, or a callable that
            gives one. None: the process-wide default configuration if it has been loaded, else in-cluster, else
            kubeconfig.
        namespaces: Whose events to read, a stream for each; None, or none: all, in one stream.
        start: ``"resume"``: after what the destinations hold, or with all there is when they hold nothing; ``"now"``:
            with what happens from now on; ``"all"``: with all there is.
        repeats: What becomes of an event's further revisions: ``"all"`` are told, ``"first"`` tells an event once, and
            a window such as ``"30s"``, no longer than half of ``event_life``, tells the latest revision in each window,
            with the sum of the counts.
        cluster: The cluster's id in positions and file names; None: the UID of the namespace ``kube-system``.
        cluster_name: What people call the cluster: ``clusterName`` in each record.
        event_life: For how many seconds the server keeps an event after its last write (``--event-ttl``). After a
            longer pause a gap is written down, unless an event from before it is still there.
        retry: How many seconds the wait after a first failure takes at most, and how many any wait does.
        patience: For how many seconds :meth:`open` tries to reach the server.
        page: How many events to a page of a list.
        backlog: How many bytes of a list are kept in memory until they have been given; the rest waits in a temporary
            file.
        watch: After how many seconds a watch ends and begins again; so often at least a position moves.
        clock: The wall clock, in nanoseconds.

    Raises:
        ValueError: If an option is not what it may be.
        TypeError: If ``api`` is none of these.
        ImportError: If the official client is not installed.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        api: object = None,
        *,
        namespaces: Iterable[str] | None = None,
        start: Start = "resume",
        repeats: str | float = "all",
        cluster: str | None = None,
        cluster_name: str = "",
        event_life: float = 3600.0,
        retry: tuple[float, float] = (0.5, 60.0),
        patience: float = 10.0,
        page: int = PAGE,
        backlog: int = 32 << 20,
        watch: int = 60,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Import the client; connect to nothing."""
        self._options = StreamOptions(
            start=_checked_start(start),
            event_life=require_positive("event_life", event_life),
            repeats=parse_repeats(repeats, event_life),
            cluster_name=cluster_name,
            page=require_count("page", page),
            backlog=require_count("backlog", backlog),
            watch=require_count("watch", watch),
            retry=(require_positive("retry", retry[0]), require_positive("retry", retry[1])),
            clock=clock,
        )
        self._scopes = _checked_namespaces(namespaces)
        self._cluster = cluster
        self._patience = patience
        self._api = EventsApi(api)
        self._log = LimitedLog()

    def open(self) -> list[EventStream]:
        """Connect, learn which cluster it is, and give a stream for each namespace.

        Raises:
            UnavailableError: If the server could not be reached for as long as `patience` says, or there is no
                configuration.
            StatusError: If it refuses for as long; the text says what a role must allow.
        """
        cluster = self._tried(Requests.cluster, "", _CLUSTER) if self._cluster is None else self._cluster
        streams = [Stream(cluster, scope) for scope in self._scopes]
        return [EventStream(stream, Requests(self._api, stream.scope), self._options, self._log) for stream in streams]

    def reach(self) -> None:
        """See whether the events of each stream can be read, which :meth:`open` does not.

        Raises:
            UnavailableError: As `open` does.
            StatusError: As `open` does.

        .. versionadded:: 0.1
        """
        for scope in self._scopes:
            self._tried(lambda requests: requests.page(1), scope, _EVENTS)

    def _tried(self, ask: Callable[[Requests], _T], scope: str, advice: str) -> _T:
        """Ask; a server that has just started refuses for a moment what it allows later."""
        deadline = monotonic() + self._patience
        backoff = Backoff(*self._options.retry)
        self._api.check()
        while True:
            try:
                return ask(Requests(self._api, scope))
            except (StatusError, UnavailableError, GoneError) as error:
                wait = backoff.next(getattr(error, "retry_after", None))
                if monotonic() + wait > deadline:
                    raise _explained(error, advice) from None
                self._log.log_limited("open", f"{_happened(error)}: {error}")
                time.sleep(wait)

    def __repr__(self) -> str:
        """Without anything secret."""
        return f"ClusterEventSource(namespaces={[scope for scope in self._scopes if scope]})"


def _explained(error: Exception, advice: str) -> Exception:
    if isinstance(error, StatusError) and error.code == _FORBIDDEN:
        return StatusError(error.code, error.reason, f"{error.message}; {advice}", error.causes)
    if isinstance(error, NoAnswerError):
        return UnavailableError(
            f"no answer from the API server at {error.host} ({error}): is the cluster running, and does "
            "'kubectl get events' work?"
        )
    return error


def _happened(error: Exception) -> str:
    if isinstance(error, StatusError) and error.code < _SERVER_ERRORS:
        return "the cluster refuses, which is tried again for a few seconds"
    return "the cluster cannot be reached, which is tried again"


def _checked_start(start: Any) -> Start:  # noqa: ANN401 - whatever a configuration says
    if start not in _STARTS:
        raise ValueError(f"start must be 'resume', 'now' or 'all', not {start!r}")
    return start  # type: ignore[no-any-return]


def _checked_namespaces(namespaces: Iterable[str] | None) -> tuple[str, ...]:
    if isinstance(namespaces, str):
        raise ValueError(f"namespaces must be a list of names, not a text: [{namespaces!r}]")
    names = tuple(dict.fromkeys(namespaces or ()))
    if wrong := [name for name in names if not isinstance(name, str) or not name]:
        raise ValueError(f"namespaces must be names, not {wrong[0]!r}; none at all stands for all of them")
    return names or ("",)
