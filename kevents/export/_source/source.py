"""The source of an export: a cluster's events, one stream for each namespace, or one for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, Final, TypeVar

from kevents._model.validation import require_count, require_positive
from kevents._runtime.log import LimitedLog
from kevents.exceptions import StatusError, UnavailableError
from kevents.export._model.options import Backoff
from kevents.export._model.text import namespace_problem
from kevents.export._model.types import Stream
from kevents.export._source.api import ApiReader, EventRequests, NoAnswerError
from kevents.export._source.listing import PAGE
from kevents.export._source.response_stream import GoneError
from kevents.export._source.revision_filter import parse_repeats
from kevents.export._source.stream import EventStream, Start, StreamOptions

_T = TypeVar("_T")

_STARTS: Final = ("resume", "now", "all")
_FORBIDDEN: Final = 403
_SERVER_ERRORS: Final = 500
_EVENTS_RULE: Final = 'a role must allow "list" and "watch" of "events"'
_CLUSTER_RULE: Final = (
    'a role must allow "get" of "namespaces" named "kube-system", whose uid tells one cluster from another; '
    "or give the source a cluster name of your own, with cluster="
)


class ClusterEventSource:
    """Reads a cluster's events through core/v1, which every API server has and which includes those of events.k8s.io.

    Each stream lists the events, returns those that have not been read in the order of their resourceVersions, and
    continues with a watch. It never ends by itself: failures are retried, and when the server no longer knows the
    stream's position, a new list shows what was missed. No event is lost before it expires; where events may have
    expired, the stream returns a gap record.

    Args:
        api: A ``CoreV1Api`` or ``ApiClient`` of the official client (31 to 37 are tested), or a callable that returns
            one. None: the process-wide default configuration if it has been loaded, else in-cluster, else kubeconfig.
        namespaces: The namespaces to read, one stream each; None or empty: all, in one stream.
        start: ``"resume"``: after the position that the destinations have committed, or with all events if there is
            none; ``"now"``: with the events from now on; ``"all"``: with all events.
        repeats: Further revisions of an event: ``"all"`` become records, ``"first"`` gives one record per event, and a
            window such as ``"30s"``, at most half of ``event_life``, gives the latest revision in each window with the
            sum of the counts.
        cluster: The cluster's id in positions and file names; None: the UID of the namespace ``kube-system``.
        cluster_name: ``clusterName`` in each record.
        event_life: Seconds for which the server keeps an event after its last write (``--event-ttl``). After a longer
            pause the stream returns a gap record, unless an event from before the pause still exists.
        retry: The upper limits of the first wait after a failure and of every wait, in seconds.
        patience: Seconds for which :meth:`open` tries to reach the server.
        page: The number of events per page of a list.
        backlog: Bytes of a list that are kept in memory until they are returned; the rest goes to a temporary file.
        watch: Seconds after which a watch ends and begins again; the position moves at least that often.
        clock: The wall clock, in nanoseconds.

    Raises:
        ValueError: If an option is invalid.
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
        self._reader = ApiReader(api)
        self._log = LimitedLog()

    def open(self) -> list[EventStream]:
        """Connect, identify the cluster, and return a stream for each namespace.

        Raises:
            UnavailableError: If the server cannot be reached within `patience` seconds, or there is no configuration.
            StatusError: If it refuses for as long; the text names the missing permission.
        """
        cluster = self._retried(EventRequests.cluster, "", _CLUSTER_RULE) if self._cluster is None else self._cluster
        return [
            EventStream(Stream(cluster, scope), EventRequests(self._reader, scope), self._options, self._log)
            for scope in self._scopes
        ]

    def reach(self) -> None:
        """Check that the events of each stream can be read, which :meth:`open` does not.

        Raises:
            UnavailableError: As in `open`.
            StatusError: As in `open`.

        .. versionadded:: 0.1
        """
        for scope in self._scopes:
            self._retried(lambda requests: requests.page(1), scope, _EVENTS_RULE)

    def _retried(self, request: Callable[[EventRequests], _T], scope: str, rule: str) -> _T:
        """Make a request until it succeeds or `patience` ends: a server that has just started refuses for a moment."""
        deadline = monotonic() + self._patience
        backoff = Backoff(*self._options.retry)
        self._reader.check()
        while True:
            try:
                return request(EventRequests(self._reader, scope))
            except (StatusError, UnavailableError, GoneError) as error:
                wait = backoff.next(getattr(error, "retry_after", None))
                if monotonic() + wait > deadline:
                    raise _explained(error, rule) from None
                refused = isinstance(error, StatusError) and error.code < _SERVER_ERRORS
                what = "the cluster refuses a request" if refused else "the cluster cannot be reached"
                self._log.log_limited("open", f"{what}, trying again for up to {self._patience:g} s: {error}")
                time.sleep(wait)

    def __repr__(self) -> str:
        """The namespaces, and no secret."""
        return f"ClusterEventSource(namespaces={[scope for scope in self._scopes if scope]})"


def _explained(error: Exception, rule: str) -> Exception:
    if isinstance(error, StatusError) and error.code == _FORBIDDEN:
        return StatusError(error.code, error.reason, f"{error.message}; {rule}", error.causes)
    if isinstance(error, NoAnswerError):
        return UnavailableError(
            f"no answer from the API server at {error.host} ({error}): is the cluster running, and does "
            "'kubectl get events' work?"
        )
    return error


def _checked_start(start: Any) -> Start:  # noqa: ANN401 - any value of a configuration
    if start not in _STARTS:
        raise ValueError(f"start must be 'resume', 'now' or 'all', not {start!r}")
    return start  # type: ignore[no-any-return]


def _checked_namespaces(namespaces: Iterable[str] | None) -> tuple[str, ...]:
    if isinstance(namespaces, str):
        raise ValueError(f"namespaces must be a list of names, not a text: [{namespaces!r}]")
    names = tuple(dict.fromkeys(namespaces or ()))
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"namespaces must be names, not {name!r}; an empty list stands for all of them")
        if problem := namespace_problem(name):
            raise ValueError(f"namespaces: {problem}")
    return names or ("",)
