"""Adds the metadata that an event only refers to: labels, owners, services, addresses.

The records of a chunk are completed together. Each round completes them from the caches, collects the objects that are
missing, and requests all of these at once: first the objects and nodes, then one level of owners per round.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from kevents._model.validation import require_count, require_positive
from kevents._model.wire import format_error, pluralize
from kevents._runtime.log import LimitedLog
from kevents.export._enrich.cache import FORBIDDEN, LIVE, REPLACED, SKIPPED, STATES, Cache, Entry
from kevents.export._enrich.discovery import LAST_APPLIED, Reference, unwanted
from kevents.export._enrich.fetcher import Fetcher, RateLimiter
from kevents.export._enrich.services import ServiceIndex, SliceWatch
from kevents.export._model.types import Record, Stream, value_at
from kevents.export._source.api import ApiReader

MAX_OWNERS: Final = 5

_OWNER_LIFE: Final = 600.0
_REFILL: Final = 0.5
"""Seconds of waiting that a stream may use for each second that passes, after it has waited for long."""

_SECONDS: Final = len("2026-11-22T12:00:00")
_REPLACED: Final = Entry(REPLACED)


@dataclass(frozen=True, slots=True)
class EnricherStatistics:
    """The counters of an enricher.

    Attributes:
        kube_api_read_cache_hits: Events whose object was in the cache.
        kube_api_read_cache_misses: Objects of events that were requested from the server.
        owner_reads: Owners that were requested from the server.
        node_reads: Nodes that were requested from the server, for their addresses.
        requests: Requests by verb: ``get``, ``discover``, ``list``, ``watch``.
        states: Enriched events by the state of their object.
        incomplete: Events whose object, owners or node could not be read in time, or are forbidden.
        errors: Events that were not enriched because of a fault of kevents.
    """

    kube_api_read_cache_hits: int
    kube_api_read_cache_misses: int
    owner_reads: int
    node_reads: int
    requests: Mapping[str, int]
    states: Mapping[str, int]
    incomplete: int
    errors: int


def top_owner(
    entry: Entry, reference: Reference, find: Callable[[Reference], Entry | None]
) -> tuple[dict[str, Any] | None, bool]:
    """Follow the controllers of an object upwards, at most five steps.

    Returns:
        ``kind``, ``name`` and ``uid`` of the last owner, and under ``path`` all owners as ``Kind/name``, the nearest
        first; None if no controller owns the object. An owner that is gone or forbidden is the last one. The second
        value is True if an owner is not known.
    """
    path: list[str] = []
    seen = {reference.uid}
    top: Reference | None = None
    while len(path) < MAX_OWNERS:
        owner = _controller(entry, reference.namespace)
        if owner is None or owner.uid in seen:
            break
        seen.add(owner.uid)
        path.append(f"{owner.kind}/{owner.name}")
        top = owner
        if len(path) < MAX_OWNERS:
            above = find(owner)
            if above is None:
                return None, True
            entry = above
    return None if top is None else {"kind": top.kind, "name": top.name, "uid": top.uid, "path": path}, False


def _controller(entry: Entry, namespace: str) -> Reference | None:
    """The owner with ``controller: true``, if its reference is complete."""
    owners: Sequence[dict[str, Any]] = entry.found.owners if entry.found is not None else ()
    for owner in owners:
        if owner.get("controller") is True:
            texts = [owner.get(key) for key in ("apiVersion", "kind", "name", "uid")]
            if all(isinstance(text, str) and text for text in texts):
                version, kind, name, uid = map(str, texts)
                return Reference(version, kind, namespace, name, uid)
    return None


_Key = tuple[Cache, Reference, str]


@dataclass(slots=True)
class _Run:
    """One call of `Enricher.enrich`."""

    now: float  # the present, in seconds by the monotonic clock, renewed in each round
    until: float  # no record waits longer
    first: bool = True  # the first round
    last: bool = False  # the last round: records are completed from the caches
    missing: dict[_Key, float] = field(default_factory=dict)  # the objects to request, with their deadlines
    requested: set[tuple[Cache, Reference]] = field(default_factory=set)  # the same without the resourceVersions
    refused: dict[_Key, Entry | None] = field(default_factory=dict)  # the answers that no cache holds; None: too late
    states: list[str] = field(default_factory=list)  # of each completed record's object
    hits: int = 0  # records whose object was in the cache, or was requested for another record already
    incomplete: int = 0  # records that lack metadata
    late: int = 0  # of these, those whose metadata could not be read in time
    errors: int = 0  # records that raised


class _WaitBudget:
    """The time that one stream may wait: at once as long as a record, in the long run half of the time.

    So an API server that answers slowly, for as long as it may be, delays no record by more than the wait.
    """

    def __init__(self, wait: float) -> None:
        self._wait = wait  # the longest wait in seconds
        self._left = wait
        self._at = float("-inf")

    def left(self, now: float) -> float:
        self._left = min(self._wait, self._left + max(now - self._at, 0.0) * _REFILL)
        self._at = now
        return self._left

    def spend(self, now: float) -> None:
        """Use up the time since the call of `left`."""
        self._left = max(self._left - (now - self._at), 0.0)
        self._at = now


class Enricher:
    """Completes records in place with the metadata of the objects that their events are about.

    To ``involvedObject`` it adds ``labels``, ``annotations``, ``ownerReferences`` and ``deleted``, as
    kubernetes-event-exporter does; under ``kevents`` it adds ``object``, ``topOwner``, ``services`` and ``node``. It
    reads only metadata, an object at most once for each resourceVersion that events refer to. Several missing objects
    of one kind and namespace are read by one list. A record waits for its metadata for at most ``wait`` seconds; then
    it goes on without, marked ``kevents.object.enriched: false``.

    Args:
        api: A ``CoreV1Api`` or ``ApiClient``, or a callable that returns one; None: the process-wide default
            configuration if it has been loaded, else in-cluster, else kubeconfig.
        cache_size: The number of objects in the cache, and of owners; 0 disables enrichment.
        top_owner: True to follow owners upwards.
        nodes: True to add the addresses of the node that reported the event.
        services: True to watch EndpointSlices for the services of pods; needs `start` and `close`.
        qps: Requests a second.
        burst: Requests at once after a pause.
        wait: The longest time in seconds that a record waits, counted from when it was read.
        drop_annotations: Names of annotations that are dropped; ``*`` stands for any text.
        clock: The monotonic clock in seconds; records were read by this clock.

    Raises:
        ValueError: If a number is invalid.
        TypeError: If ``api`` is none of these.
    """

    def __init__(
        self,
        api: object = None,
        *,
        cache_size: int = 1024,
        top_owner: bool = True,
        nodes: bool = True,
        services: bool = False,
        qps: float = 20.0,
        burst: int = 40,
        wait: float = 10.0,
        drop_annotations: Iterable[str] = (LAST_APPLIED,),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._size = cache_size if cache_size == 0 else require_count("cache_size", cache_size, " (0: no enrichment)")
        self._wait = require_positive("wait", wait)
        qps, burst = require_positive("qps", qps), require_count("burst", burst)
        self._log = LimitedLog()
        self._clock = clock
        self._reader = ApiReader(api)
        limiter = RateLimiter(qps, burst)
        self._fetcher = Fetcher(self._reader, limiter, wait, unwanted(drop_annotations), self._log, clock)
        size = max(cache_size, 1)
        self._objects = Cache(size)
        self._owners = Cache(size, _OWNER_LIFE) if top_owner else None
        self._nodes = Cache(size, _OWNER_LIFE, _OWNER_LIFE) if nodes else None
        self._services = ServiceIndex() if services else None
        self._watch: SliceWatch | None = None
        self._lock = threading.Lock()  # guards the counters and the budgets
        self._counts: Counter[str] = Counter()
        self._states: Counter[str] = Counter()
        self._budgets: dict[Stream, _WaitBudget] = {}

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start to watch EndpointSlices, if services are wanted. A second call does nothing."""
        if self._services is not None and self._watch is None and self._size:
            self._watch = SliceWatch(self._reader, self._services, self._fetcher.count, self._log)
            self._watch.start()

    def close(self) -> None:
        """End the watch and all waiting; later records are completed from the caches only."""
        self._fetcher.close()
        if self._watch is not None:
            self._watch.close()
        self._log.log_suppressed()

    def __enter__(self) -> Enricher:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def statistics(self) -> EnricherStatistics:
        """Return a snapshot of the counters."""
        with self._lock:
            counts, states = self._counts.copy(), {state: self._states[state] for state in STATES}
        return EnricherStatistics(
            kube_api_read_cache_hits=counts["hits"],
            kube_api_read_cache_misses=self._objects.reads,
            owner_reads=self._owners.reads if self._owners is not None else 0,
            node_reads=self._nodes.reads if self._nodes is not None else 0,
            requests=self._fetcher.requests(),
            states=states,
            incomplete=counts["incomplete"],
            errors=counts["errors"],
        )

    # -- records ---------------------------------------------------------------------------------------------------

    def enrich(self, records: Sequence[Record]) -> None:
        """Complete records in place; several threads may call it, each with its own records.

        It waits for the server until the wait of each record ends. It never raises because of a record.

        Args:
            records: Records of one stream whose lines have not been requested; gap records stay unchanged.
        """
        if not self._size or not records:
            return
        now = self._clock()
        with self._lock:
            budget = self._budgets.setdefault(records[0].stream, _WaitBudget(self._wait))
            run = _Run(now, now + budget.left(now))
        open_ = [record for record in records if not self._try(record, run)]
        run.first, waited = False, bool(open_)
        for _ in range(2 * (1 + MAX_OWNERS)):
            if not open_ or not self._resolve(run):
                break
            open_ = [record for record in open_ if not self._try(record, run)]
        run.last = True
        for record in open_:
            self._try(record, run)
        with self._lock:
            if waited:
                budget.spend(self._clock())
            self._counts.update(hits=run.hits, incomplete=run.incomplete, errors=run.errors)
            self._states.update(run.states)
        if run.late:
            text = f"{pluralize(run.late, 'event')} went on without labels or owners, which could not be read in time"
            why = f"{text} ({self._wait:g} s); see qps, burst and wait of the enricher"
            self._log.log_limited("incomplete", why, events=run.late)

    def _try(self, record: Record, run: _Run) -> bool:
        """Complete a record if everything is known, or if it is the last round; True if it is done."""
        involved = record.body.get("involvedObject")
        if not isinstance(involved, dict):
            return True
        try:
            return self._complete(record, involved, run)
        except Exception as error:  # noqa: BLE001 - no event is lost because of its content
            run.errors += 1
            record.body.get("kevents", {})["object"] = {"state": SKIPPED, "stale": False}
            self._log.log_limited("enricher", f"an event could not be enriched: {format_error(error)}")
            return True

    def _complete(self, record: Record, involved: dict[str, Any], run: _Run) -> bool:
        reference = _reference(involved)
        rv = involved.get("resourceVersion") or ""
        shared = bool(run.missing) and (self._objects, reference, rv) in run.missing  # one read for several is a hit
        found = self._find(run, self._objects, reference, rv, record)
        if run.first and (shared or found is not None):
            run.hits += 1
        if found is None and not run.last and reference.kind and reference.name:
            self._node(run, None, reference, record)  # object and node are requested at once
            return False
        entry = found or self._objects.last(reference, SKIPPED)
        if not reference.uid and entry is found:
            entry = _if_it_was_there(entry, record.body)
        top, top_late = self._top(run, entry, reference, record)
        node, node_late = self._node(run, entry, reference, record)
        if (top_late or node_late) and not run.last:
            return False
        ours = record.body["kevents"]
        involved.update(entry.fields)
        ours["object"] = entry.about
        if top_late or node_late or entry.state in (SKIPPED, FORBIDDEN):
            ours["object"] = {**entry.about, "enriched": False}
            run.incomplete += 1
            run.late += top_late or node_late or (found is None and bool(reference.name))
        run.states.append(entry.state)
        if top is not None:
            ours["topOwner"] = top
        if node is not None:
            ours["node"] = {"addresses": list(node)}
        if self._services is not None and self._services.synced and reference.kind == "Pod" and reference.uid:
            ours["services"] = self._services.names(reference.uid)
        return True

    def _find(self, run: _Run, cache: Cache, reference: Reference, rv: str, record: Record) -> Entry | None:
        """The metadata of an object; None if it is not known, and then it is requested in the next round."""
        if not (reference.kind and reference.name):
            return None
        entry = cache.look(reference, rv, record.read_at, run.now)
        if entry is not None and not (run.missing and (cache, reference) in run.requested):
            return entry  # else a newer answer is about to come
        key = (cache, reference, rv)
        if key in run.refused:
            return run.refused[key]
        deadline = min(record.read_at + self._wait, run.until)
        run.missing[key] = max(deadline, run.missing.get(key, deadline))
        run.requested.add((cache, reference))
        return None

    def _resolve(self, run: _Run) -> bool:
        """Request the missing objects and wait for them; False if there is no time for any."""
        now = self._clock()
        wanted = {key: deadline for key, deadline in run.missing.items() if deadline > now}
        run.refused.update(dict.fromkeys(run.missing.keys() - wanted.keys()))
        run.missing = {}
        run.requested.clear()
        flights = {key: key[0].request(key[1], key[2], deadline) for key, deadline in wanted.items()}
        self._fetcher.submit([flight for flight, is_new in flights.values() if is_new])
        for key, (flight, _) in flights.items():
            if not flight.landed.wait(max(wanted[key] - self._clock(), 0.0)):
                run.refused[key] = None
            elif not flight.answered:
                run.refused[key] = key[0].refused(flight)
        run.now = self._clock()
        return bool(wanted)

    def _top(self, run: _Run, entry: Entry, reference: Reference, record: Record) -> tuple[dict[str, Any] | None, bool]:
        """The top owner, and True if it is not known in time."""
        owners = self._owners
        if owners is None or entry.found is None or not entry.found.owners:
            return None, False
        if entry.top_until < run.now:
            top, late = top_owner(entry, reference, lambda owner: self._find(run, owners, owner, "", record))
            if late:
                return None, True
            entry.top, entry.top_until = top, run.now + _OWNER_LIFE
        return entry.top, False

    def _node(
        self, run: _Run, entry: Entry | None, reference: Reference, record: Record
    ) -> tuple[tuple[str, ...] | None, bool]:
        """The addresses of the reporting node, and True if they are not known in time."""
        if self._nodes is None:
            return None, False
        if reference.kind == "Node" and (entry is None or entry.state == LIVE):
            found = entry.found if entry is not None else None  # the object is a node: its addresses come with it
        else:
            host = value_at(record.body, "source", "host")
            if not host or not isinstance(host, str):
                return None, False
            about = self._find(run, self._nodes, Reference("v1", "Node", "", host, ""), "", record)
            if about is None:
                return None, True
            found = about.found
        return (found.addresses if found is not None and found.addresses else None), False


def _reference(involved: dict[str, Any]) -> Reference:
    """The involved object. The kubelet writes a Node's name as its UID, which then identifies nothing."""
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
