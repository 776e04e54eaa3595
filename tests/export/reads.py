"""Counts API reads and wrongly attached metadata per event, by the rules of three exporters.

``python -m tests.export.reads`` prints the table of ``docs/export-enrichment.md``.

The reference trace has 50,000 events about 3,000 objects, drawn by Zipf's law with exponent 0.9. Before each event, its
object changes with a probability of 10 %. 18 % of the objects are deleted, before the first event or at a random event.
A second trace adds the cases in which exporters attach wrong labels: objects that are deleted and created again under
the same name, whose late events refer to the old object, and events without a UID.
"""

from __future__ import annotations

import random
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from kevents.export import Enricher
from tests.support.metadata import UIDS, Cluster, record

EVENTS = 50_000
OBJECTS = 3_000
EXPONENT = 0.9
GONE = 0.18
CHURN = 0.10
CACHE = 1024
PER_SECOND = 50.0
SEEDS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Trace:
    """The parameters of a trace.

    Attributes:
        gone_before: Whether deleted objects are gone before the first event. Otherwise they go at a random event.
        recreated: The share of events whose object was created again a few seconds before.
        late: The share of events about a recreated object that refer to the old one.
        nameless: The share of objects that are referred to without a UID.
        events: Number of events.
    """

    gone_before: bool = True
    recreated: float = 0.0
    late: float = 0.0
    nameless: float = 0.0
    events: int = EVENTS


BEFORE = Trace()
DURING = Trace(gone_before=False)
HOSTILE = Trace(gone_before=False, recreated=0.02, late=0.3, nameless=0.1)


@dataclass
class Thing:
    """An object of the cluster."""

    name: str
    uid: int
    nameless: bool
    rv: int = 1
    alive: bool = True
    old: tuple[int, int] | None = None


@dataclass(frozen=True)
class Happening:
    """An event: the object it refers to, and the object that the server has under this name at that moment.

    Attributes:
        name: The object's name.
        uid: The UID in the event; empty if it has none.
        rv: The resourceVersion in the event; empty if it has none.
        meant: The UID of the object that the event is about. Only its labels may be attached.
        time: Seconds since the beginning.
    """

    name: str
    uid: str
    rv: str
    meant: str
    time: float


@dataclass
class World:
    """A running trace. Each step changes the cluster and returns the event."""

    trace: Trace
    seed: int
    cluster: Cluster = field(default_factory=Cluster)

    def events(self) -> Iterator[Happening]:
        """Run the trace."""
        chance = random.Random(self.seed)
        weights = list(accumulate(1 / (rank + 1) ** EXPONENT for rank in range(OBJECTS)))
        nameless = set(chance.sample(range(OBJECTS), int(self.trace.nameless * OBJECTS)))
        things = [Thing(f"o{number}", number, number in nameless) for number in range(OBJECTS)]
        ends = self._ends(chance)
        for thing in things:
            self._put(thing)
        for step in range(self.trace.events):
            for thing in (things[number] for number in ends.pop(step, ())):
                thing.alive = False
                self.cluster.delete("Pod", thing.name)
            [thing] = chance.choices(things, cum_weights=weights)
            yield self._event(thing, chance, step)

    def _ends(self, chance: random.Random) -> dict[int, list[int]]:
        ends: dict[int, list[int]] = {}
        for number in chance.sample(range(OBJECTS), int(GONE * OBJECTS)):
            ends.setdefault(0 if self.trace.gone_before else chance.randrange(self.trace.events), []).append(number)
        return ends

    def _event(self, thing: Thing, chance: random.Random, step: int) -> Happening:
        now = step / PER_SECOND
        if thing.alive and chance.random() < self.trace.recreated:
            thing.old = (thing.uid, thing.rv)
            thing.uid += OBJECTS
            thing.rv += 1
            self._put(thing)
        elif thing.alive and chance.random() < CHURN:
            thing.rv += 1
            self._put(thing)
        uid, rv = thing.uid, thing.rv
        if thing.old is not None and not thing.nameless and chance.random() < self.trace.late:
            uid, rv = thing.old
        meant = UIDS(uid)
        return Happening(thing.name, *(("", "") if thing.nameless else (meant, str(rv))), meant, now)

    def _put(self, thing: Thing) -> None:
        uid = UIDS(thing.uid)
        self.cluster.put("Pod", thing.name, uid, labels={"of": uid})
        self.cluster.set_version("Pod", thing.name, str(thing.rv))


@dataclass
class Score:
    """The cost and the errors of a rule."""

    events: int = 0
    reads: int = 0
    wrong: int = 0

    def add(self, happening: Happening, labels: dict[str, str] | None) -> None:
        """Count an event with the labels that were attached to it."""
        self.events += 1
        self.wrong += bool(labels) and labels is not None and labels["of"] != happening.meant


class Recent:
    """A cache of the most recently used keys.

    event-exporter has an ARC cache of the same size. On these traces its number of reads is equal to within 1 %.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[object, dict[str, str] | None] = OrderedDict()

    def get(self, key: object, read: Callable[[], dict[str, str] | None], *, absent: bool) -> dict[str, str] | None:
        """Return the cached value or read it. A missing object is cached only if `absent` is true."""
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        found = read()
        if found is not None or absent:
            self._known[key] = found
            if len(self._known) > CACHE:
                self._known.popitem(last=False)
        return found


def by_uid(world: World) -> Score:
    """event-exporter before pull request 144: separate reads of labels and annotations by UID, and 404 is cached."""
    score, caches = Score(), (Recent(), Recent())
    for happening in world.events():
        for cache in caches:
            labels = cache.get(happening.uid, lambda: _read(world, happening, score), absent=True)  # noqa: B023
        score.add(happening, labels)
    return score


def by_uid_and_version(world: World) -> Score:
    """event-exporter since pull request 144: one read by UID and resourceVersion, and 404 is not cached."""
    score, cache = Score(), Recent()
    for happening in world.events():
        key = (happening.uid, happening.rv)
        score.add(happening, cache.get(key, lambda: _read(world, happening, score), absent=False))  # noqa: B023
    return score


def by_kevents(world: World) -> Score:
    """The enricher of kevents, with a clock set to the time of each event."""
    now = 0.0
    enricher = Enricher(world.cluster.api, cache_size=CACHE, qps=1e6, burst=10**6, clock=lambda: now)
    score = Score()
    for happening in world.events():
        now = happening.time
        done = record("Pod", happening.name, happening.uid, happening.rv, read_at=now)
        enricher.enrich([done])
        score.add(happening, done.body["involvedObject"].get("labels"))
    score.reads = enricher.statistics().kube_api_read_cache_misses
    enricher.close()
    return score


def _read(world: World, happening: Happening, score: Score) -> dict[str, str] | None:
    score.reads += 1
    return world.cluster.labels("Pod", happening.name)


RULES = {
    "event-exporter before 144": by_uid,
    "event-exporter with 144": by_uid_and_version,
    "kevents": by_kevents,
}
TRACES = {"gone before": BEFORE, "gone during": DURING, "recreated, no UID": HOSTILE}


def table(seeds: tuple[int, ...] = SEEDS) -> str:
    """Run all rules and return the table: the mean of the reads and the sum of the errors."""
    names = [f"{name}: {what}" for name in TRACES for what in ("reads/event", "wrong")]
    lines = [f"| rule | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for rule, run in RULES.items():
        total: dict[str, Counter[str]] = {}
        for name, trace in TRACES.items():
            counts = total[name] = Counter()
            for seed in seeds:
                score = run(World(trace, seed))
                counts.update(events=score.events, reads=score.reads, wrong=score.wrong)
        cells = [f"{c['reads'] / c['events']:.3f} | {c['wrong']:,}" for c in total.values()]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
