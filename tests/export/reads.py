"""How many reads an event costs, and how many records get an object's metadata wrong, by the rules of three exporters.

``python -m tests.export.reads`` prints the table of ``docs/export-enrichment.md``.

The reference trace: 50,000 events about 3,000 objects, drawn by Zipf's law with exponent 0.9; before each event its
object changes in one case of ten; 18 % of the objects are gone, before the first event or at some moment among them. A
second trace adds what makes exporters attach the wrong labels: objects that are deleted and created anew under their
name, whose late events still speak of the old one, and events without a UID.
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
    """What happens to the objects.

    Attributes:
        gone_before: Whether the objects that are gone were so before the first event; else they go at any moment.
        recreated: In which part of the events the object has been created anew, a few seconds before.
        late: Which part of the events about an object created anew still means the old one.
        nameless: Which part of the objects is referred to without a UID.
        events: How many.
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
    """An event: which object it means, and what the server has under its name at that moment.

    Attributes:
        name: The object's name.
        uid: Which object is meant, empty if the event does not say.
        rv: Its resourceVersion, empty if the event does not say.
        meant: The UID of the object that is meant; of it alone labels may be attached.
        time: In seconds since the beginning.
    """

    name: str
    uid: str
    rv: str
    meant: str
    time: float


@dataclass
class World:
    """The trace being played: each step changes the cluster, and gives the event."""

    trace: Trace
    seed: int
    cluster: Cluster = field(default_factory=Cluster)

    def events(self) -> Iterator[Happening]:
        """Play."""
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
    """What a rule has cost, and got wrong."""

    events: int = 0
    reads: int = 0
    wrong: int = 0

    def add(self, happening: Happening, labels: dict[str, str] | None) -> None:
        """Count an event with the labels that were attached to it."""
        self.events += 1
        self.wrong += bool(labels) and labels is not None and labels["of"] != happening.meant


class Recent:
    """The last keys that were used, with what is known of each.

    event-exporter has an ARC cache of the same size; on these traces it reads as often, to a hundredth.
    """

    def __init__(self) -> None:
        """Know nothing."""
        self._known: OrderedDict[object, dict[str, str] | None] = OrderedDict()

    def get(self, key: object, read: Callable[[], dict[str, str] | None], *, absent: bool) -> dict[str, str] | None:
        """Give what is known, or read it; what is not there is remembered only if told so."""
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
    """event-exporter before pull request 144: labels, and apart from them annotations, by UID; 404 is remembered."""
    score, caches = Score(), (Recent(), Recent())
    for happening in world.events():
        for cache in caches:
            labels = cache.get(happening.uid, lambda: _read(world, happening, score), absent=True)  # noqa: B023
        score.add(happening, labels)
    return score


def by_uid_and_version(world: World) -> Score:
    """Pull request 144, which event-exporter has now: one read by UID and resourceVersion; 404 is not remembered."""
    score, cache = Score(), Recent()
    for happening in world.events():
        key = (happening.uid, happening.rv)
        score.add(happening, cache.get(key, lambda: _read(world, happening, score), absent=False))  # noqa: B023
    return score


def by_kevents(world: World) -> Score:
    """The enricher itself, on a clock that stands at each event's time."""
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
    """Measure all, and draw the table: the mean of the reads, the sum of the wrong."""
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
