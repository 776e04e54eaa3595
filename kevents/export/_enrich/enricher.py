"""Adds the metadata that an event only refers to: labels, owners, services, addresses."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from kevents._model.validation import require_count, require_positive
from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.export._enrich.cache import LIVE, REPLACED, SKIPPED, STATES, Cache, Entry, SingleFlight
from kevents.export._enrich.fetcher import Fetcher
from kevents.export._enrich.metadata import LAST_APPLIED, Reference
from kevents.export._enrich.services import ServiceIndex, SliceWatch
from kevents.export._model.types import Record
from kevents.export._source.api import ApiReader

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

MOST_STEPS: Final = 5

Find = Callable[[Reference], "Entry | None"]


class IncompleteError(Exception):
    """An owner on the way up could not be looked up in time."""


def top_owner(entry: Entry, reference: Reference, find: Find) -> dict[str, Any] | None:
    """Follow the controllers upwards, five steps at most.

    Args:
        entry: What is known of the object.
        reference: The object; its owners are in its namespace, or in none.
        find: Gives what is known of an owner; None: not now.

    Returns:
        ``kind``, ``name`` and ``uid`` of the last owner, and under ``path`` all of them as ``Kind/name``, the nearest
        first; None if no controller owns the object. An owner that is gone, or cannot be read, is the last.

    Raises:
        IncompleteError: There was no answer for one of them.
    """
    path: list[str] = []
    seen = {reference.uid}
    top: Reference | None = None
    while len(path) < MOST_STEPS:
        owner = _controller(entry, reference.namespace)
        if owner is None or owner.uid in seen:
            break
        seen.add(owner.uid)
        path.append(f"{owner.kind}/{owner.name}")
        top = owner
        if len(path) < MOST_STEPS:
            above = find(owner)
            if above is None:
                raise IncompleteError
            entry = above
    return None if top is None else {"kind": top.kind, "name": top.name, "uid": top.uid, "path": path}


def _controller(entry: Entry, namespace: str) -> Reference | None:
    """The one owner with ``controller: true``, of whom all is said that a look-up needs."""
    owners: Sequence[dict[str, Any]] = entry.found.owners if entry.found is not None else ()
    for owner in owners:
        if owner.get("controller") is True:
            texts = [owner.get(key) for key in ("apiVersion", "kind", "name", "uid")]
            if all(isinstance(text, str) and text for text in texts):
                version, kind, name, uid = map(str, texts)
                return Reference(version, kind, namespace, name, uid)
    return None


_OWNER_LIFE = 600.0
_SECONDS = len("2026-11-22T12:00:00")
_UNTOLD: Final = Entry(SKIPPED)
_REPLACED: Final = Entry(REPLACED)


@dataclass(frozen=True, slots=True)
class EnricherStatistics:
    """What an enricher has done since it was built.

    Attributes:
        kube_api_read_cache_hits: Events whose object was known.
        kube_api_read_cache_misses: Objects of events that the server was asked for.
        owner_reads: Owners that the server was asked for.
        node_reads: Nodes that the server was asked for, for their addresses.
        requests: Requests by verb: ``get``, ``discover``, ``list``, ``watch``.
        states: Enriched events by the state of their object.
        errors: Events that could not be enriched for a fault of kevents'; they went on as they were.

    .. versionadded:: 0.1
    """

    kube_api_read_cache_hits: int
    kube_api_read_cache_misses: int
    owner_reads: int
    node_reads: int
    requests: Mapping[str, int]
    states: Mapping[str, int]
    errors: int


class Enricher:
    """Completes records in place with what the API server knows of the objects that their events are about.

    To ``involvedObject`` it adds ``labels``, ``annotations``, ``ownerReferences`` and ``deleted``, as
    kubernetes-event-exporter does; under ``kevents`` it adds ``object``, ``topOwner``, ``services`` and ``node``. Only
    metadata is read, one object at a time, at most once for a resourceVersion that events speak of, and never faster
    than the rate. A record that has waited longer than the patience goes on with what is known.

    Args:
        api: A ``CoreV1Api`` or ``ApiClient``, or a callable that gives one; None: the process-wide default
            configuration if it has been loaded, else in-cluster, else kubeconfig.
        cache_size: How many objects are remembered, and as many owners; 0 switches enrichment off.
        top_owner: Whether owners are followed upwards.
        nodes: Whether the addresses of the node that reported the event are added.
        services: Whether EndpointSlices are watched to tell a pod's services; it takes `start` and `close`.
        rate: Requests a second.
        burst: How many requests may be made at once after a rest.
        patience: Seconds after which a record goes on unenriched, counted from when it was read.
        drop_annotations: Names of annotations that are left out; ``*`` stands for anything.
        clock: The monotonic clock in seconds, by which records say when they were read.

    Raises:
        ValueError: If a number is none, or out of its range.
        TypeError: If ``api`` is none of these.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        api: object = None,
        *,
        cache_size: int = 1024,
        top_owner: bool = True,
        nodes: bool = True,
        services: bool = False,
        rate: float = 20.0,
        burst: int = 40,
        patience: float = 2.0,
        drop_annotations: Iterable[str] = (LAST_APPLIED,),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Import the client; connect to nothing."""
        self._size = cache_size if cache_size == 0 else require_count("cache_size", cache_size, " (0: no enrichment)")
        self._patience = require_positive("patience", patience)
        rate, burst = require_positive("rate", rate), require_count("burst", burst)
        self._log = LimitedLog()
        self._clock = clock
        self._reader = ApiReader(api)
        self._fetcher = Fetcher(
            self._reader,
            rate=rate,
            burst=burst,
            timeout=patience,
            drop_annotations=drop_annotations,
            log=self._log,
            clock=clock,
        )
        self._objects = self._lookup()
        self._owners = self._lookup(_OWNER_LIFE) if top_owner else None
        self._nodes = self._lookup(_OWNER_LIFE, _OWNER_LIFE) if nodes else None
        self._services = ServiceIndex() if services else None
        self._watch: SliceWatch | None = None
        self._lock = threading.Lock()  # guards the figures
        self._hits = 0
        self._errors = 0
        self._states: Counter[str] = Counter()

    def _lookup(self, *lives: float) -> SingleFlight:
        return SingleFlight(Cache(max(self._size, 1), *lives), self._fetcher.fetch, self._clock)

    # Life

    def start(self) -> None:
        """Begin to watch EndpointSlices, if services are wanted; again: nothing."""
        if self._services is not None and self._watch is None and self._size:
            self._watch = SliceWatch(self._reader, self._services, self._fetcher.count, self._log)
            self._watch.start()

    def close(self) -> None:
        """End the watch and all waiting; records are completed from memory only."""
        self._fetcher.close()
        if self._watch is not None:
            self._watch.close()
        self._log.log_suppressed()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    # Work

    def enrich(self, records: Sequence[Record]) -> None:
        """Complete records in place; several threads may call it at once, each with records of its own.

        It waits for the server no longer than until the patience with a record ends. It never raises for a record.

        Args:
            records: Whose lines have not been asked for yet; those without an object (gaps) are left as they are.
        """
        if not self._size:
            return
        states: list[str] = []
        hits = errors = 0
        for record in records:
            try:
                hits += self._complete(record, states)
            except Exception as error:  # noqa: BLE001 - no event is lost for what its author wrote into it
                errors += 1
                record.body.get("kevents", {})["object"] = _UNTOLD.about
                self._log.log_limited("enricher", f"an event could not be enriched: {format_error(error)}")
        with self._lock:
            self._hits += hits
            self._errors += errors
            self._states.update(states)

    def statistics(self) -> EnricherStatistics:
        """Give what has been done so far."""
        with self._lock:
            hits, errors, states = self._hits, self._errors, {state: self._states[state] for state in STATES}
        return EnricherStatistics(
            kube_api_read_cache_hits=hits,
            kube_api_read_cache_misses=self._objects.reads,
            owner_reads=self._owners.reads if self._owners is not None else 0,
            node_reads=self._nodes.reads if self._nodes is not None else 0,
            requests=self._fetcher.requests(),
            states=states,
            errors=errors,
        )

    def _complete(self, record: Record, states: list[str]) -> bool:
        """Complete one record; whether its object was known."""
        body = record.body
        involved = body.get("involvedObject")
        if not isinstance(involved, dict):
            return False
        reference = _reference(involved)
        rv = involved.get("resourceVersion") or ""
        now = self._clock()
        entry = self._objects.known(reference, rv, record.read_at, now)
        hit = entry is not None
        if entry is None:
            entry = self._find(reference, rv, record)
        if not reference.uid:
            entry = _if_it_was_there(entry, body)
        involved.update(entry.fields)
        ours = body["kevents"]
        ours["object"] = entry.about
        states.append(entry.state)
        self._add_owner(ours, entry, reference, record)
        self._add_services(ours, reference)
        self._add_node(ours, body, entry, reference, record)
        return hit

    def _find(self, reference: Reference, rv: str, record: Record) -> Entry:
        if not (reference.kind and reference.name):
            return _UNTOLD
        found = self._objects.find(reference, rv, record.read_at, record.read_at + self._patience)
        return found or self._objects.last(reference, SKIPPED)

    def _ask(self, lookup: SingleFlight, reference: Reference, rv: str, record: Record) -> Entry | None:
        known = lookup.known(reference, rv, record.read_at, self._clock())
        return known or lookup.find(reference, rv, record.read_at, record.read_at + self._patience)

    def _add_owner(self, ours: dict[str, Any], entry: Entry, reference: Reference, record: Record) -> None:
        owners = self._owners
        if owners is None or entry.found is None or not entry.found.owners:
            return
        now = self._clock()
        if entry.top_until < now:
            try:
                entry.top = top_owner(entry, reference, lambda owner: self._ask(owners, owner, "", record))
            except IncompleteError:
                return
            entry.top_until = now + _OWNER_LIFE
        if entry.top is not None:
            ours["topOwner"] = entry.top

    def _add_services(self, ours: dict[str, Any], reference: Reference) -> None:
        if self._services is not None and self._services.synced and reference.kind == "Pod" and reference.uid:
            ours["services"] = self._services.names(reference.uid)

    def _add_node(
        self, ours: dict[str, Any], body: dict[str, Any], entry: Entry, reference: Reference, record: Record
    ) -> None:
        if self._nodes is None:
            return
        host = (body.get("source") or {}).get("host")
        found = entry.found if reference.kind == "Node" and entry.state == LIVE else None
        if found is None and host:
            about = self._ask(self._nodes, Reference("v1", "Node", "", host, ""), "", record)
            found = about.found if about is not None else None
        if found is not None and found.addresses:
            ours["node"] = {"addresses": list(found.addresses)}


def _reference(involved: dict[str, Any]) -> Reference:
    """Which object is meant. The kubelet gives a Node's name for its UID, which says nothing."""
    name, uid = involved.get("name") or "", involved.get("uid") or ""
    return Reference(
        involved.get("apiVersion") or "",
        involved.get("kind") or "",
        involved.get("namespace") or "",
        name,
        "" if uid == name else uid,
    )


def _if_it_was_there(entry: Entry, body: dict[str, Any]) -> Entry:
    """Without a UID: an object that was created after the event is another one."""
    found = entry.found
    if found is None or not found.created:
        return entry
    times = (body["kevents"].get("time"), (body.get("metadata") or {}).get("creationTimestamp"))
    last = max((time[:_SECONDS] for time in times if isinstance(time, str)), default="")
    return _REPLACED if last and last < found.created[:_SECONDS] else entry
