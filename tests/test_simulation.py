"""The promises about outages, checked in virtual time against client-go's policy (``docs/performance.md``)."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import cache

import pytest

from tests.simulation import (
    CLIENT_GO_QUEUE,
    MAX_AGE,
    QUICK,
    REFUSED,
    SLEEP,
    TIMED_OUT,
    Answer,
    Kevents,
    Result,
    Scenario,
    beside,
    broken,
    client_go,
    coin,
    out_until,
    scenarios,
    status,
    steady,
)

pytestmark = pytest.mark.xdist_group("simulation")  # the results are computed once per process

TITLES = [scenario.title for scenario in scenarios()]

Results = Callable[[str], tuple[Scenario, Result, Result]]


@pytest.fixture(params=[0.25, pytest.param(1.0, marks=pytest.mark.slow)], ids=["short", "long"])
def part(request: pytest.FixtureRequest) -> float:
    """The part of the events to use where more of the same only take more time."""
    return float(request.param)


@pytest.fixture
def results(part: float) -> Results:
    """Returns the scenario that begins with a title, and its results for kevents and client-go."""
    return lambda beginning: _results(next(title for title in TITLES if title.startswith(beginning)), part)


@cache
def _results(title: str, part: float) -> tuple[Scenario, Result, Result]:
    ours, theirs = (next(scenario for scenario in scenarios(part) if scenario.title == title) for _ in range(2))
    return ours, Kevents(ours).run(), client_go(theirs)


@pytest.mark.parametrize("title", TITLES)
def test_nothing_is_lost_silently(title: str, results: Results) -> None:
    """Each event is delivered or counted as lost, and kevents never loses more than client-go."""
    scenario, ours, theirs = results(title)
    for result in (ours, theirs):
        assert len(result.lags) + result.losses == len(scenario.arrivals)
    assert ours.losses <= theirs.losses


@pytest.mark.parametrize("title", [title for title in TITLES if "always" not in title])
def test_counts_are_whole(title: str, results: Results) -> None:
    """On the server each object's count is the number of its events, unless events were lost."""
    scenario, ours, _ = results(title)
    if not ours.losses:
        expected: dict[str, int] = {}
        for _, state in scenario.occurrences():
            expected[state.name] = state.count
        assert ours.counts == expected


@pytest.mark.parametrize("title", [title for title in TITLES if "10/s of another" in title])
def test_broken_namespaces(title: str, results: Results) -> None:
    """Fault 1: events of a healthy namespace are never lost or late because of broken namespaces."""
    scenario, ours, _ = results(title)
    good = sum(name.startswith("good/") for _, name in scenario.arrivals)
    assert len(ours.lags_by_namespace["good"]) == good
    slow = "after 10 s" in title
    assert max(ours.lags_by_namespace["good"]) < (10 if slow else 0.1)
    assert statistics.median(ours.lags_by_namespace["good"]) < 0.01
    seconds = scenario.arrivals[-1][0] + MAX_AGE  # a broken namespace is probed until its last event expires
    for namespace, calls in ours.calls_by_namespace.items():
        if namespace != "good":
            assert calls <= 40 + seconds / (SLEEP / 2)


@pytest.mark.parametrize("answer", [REFUSED, status(503), TIMED_OUT])
def test_outage_over_many_namespaces(answer: Answer) -> None:
    """An outage of the server costs each namespace one or two calls, and all resume within seconds of its end."""
    arrivals = [(moment, f"n{number % 50}/{name}") for number, (moment, name) in enumerate(steady(10, 330))]
    ours = Kevents(Scenario("many namespaces", arrivals, out_until(300, lambda _: answer))).run()
    assert ours.losses == 0
    assert ours.calls <= len(arrivals) + 50 + 60
    assert ours.worst < 300 + 30


def test_a_hundred_broken_namespaces(part: float) -> None:
    """A healthy namespace is served next to a hundred broken ones, and these are probed at their own pace."""
    bad = [f"b{number}" for number in range(100)]
    seconds, max_age = 300 * part, MAX_AGE * part
    ours = Kevents(Scenario("a hundred", beside(500, *bad, seconds=seconds), broken(*bad)), max_age=max_age).run()
    assert len(ours.lags_by_namespace["good"]) == 10 * seconds
    assert max(ours.lags_by_namespace["good"]) < 5
    probes = max(calls for namespace, calls in ours.calls_by_namespace.items() if namespace != "good")
    assert probes < 40 + (seconds + max_age) / 5


@pytest.mark.parametrize("title", ["no connection for 60 s", "429 with Retry-After"])
def test_outage_of_a_minute(title: str, results: Results) -> None:
    """An outage of a minute loses nothing, needs few extra calls, and delivery resumes within seconds of its end."""
    scenario, ours, _ = results(title)
    assert ours.losses == 0
    assert len(scenario.arrivals) <= ours.calls <= len(scenario.arrivals) + 50
    assert ours.worst < 80


def test_outage_with_counting(results: Results) -> None:
    """Pitfall 48: 300 s without a server at 50 events/s on 500 objects: none lost, each object written about once."""
    _, ours, _ = results("no connection for 300 s, 50/s on 500")
    assert ours.losses == 0
    assert ours.calls < 2000 + 100


def test_more_keys_than_backlog(results: Results) -> None:
    """Pitfall 48: new events beyond the backlog are counted as backlog_full, and memory is bounded."""
    _, ours, _ = results("no connection for 300 s, 50 new")
    assert set(ours.lost) == {"backlog_full"}
    assert 15_000 - 4096 <= ours.losses <= 15_000 - 4096 + 500


@pytest.mark.parametrize("when", ["in that time", "at its start"])
def test_3000_keys_and_503(when: str, results: Results) -> None:
    """Pitfall 81: 300 s of 503 with 3,000 keys: none lost, about as many calls as keys."""
    _, ours, theirs = results(f"503 for 300 s, 3,000 new events {when}")
    assert (ours.losses, theirs.losses) == (0, 3000)
    assert ours.calls < 3300


def test_store_gone(results: Results) -> None:
    """Pitfall 84: five minutes of mixed 500 and timeouts: nothing lost, hardly any extra calls."""
    scenario, ours, _ = results("500 and time-outs mixed")
    assert ours.losses == 0
    assert ours.calls < len(scenario.arrivals) + 100


def test_half_of_the_calls(results: Results) -> None:
    """Pitfall 85: a server that fails half of the calls: no backlog overflow, and the median delay is below 2 s.

    By chance one event in 4,096 fails twelve times in a row.
    """
    scenario, ours, theirs = results("503 to half")
    assert set(ours.lost) <= {"retries_exhausted"}
    assert sum(ours.lost.values()) <= 3 * len(scenario.arrivals) / 4_096
    assert ours.median < 2
    assert theirs.losses > len(scenario.arrivals) * 7 / 15


@pytest.mark.parametrize("seed", range(5))
def test_half_of_the_calls_by_other_chances(seed: int, part: float) -> None:
    """Pitfall 85: only events that fail twelve times in a row are lost, about one in 4096."""
    ours = Kevents(Scenario("half", steady(50, 120 * part), coin(seed, status(503), QUICK))).run()
    assert set(ours.lost) <= {"retries_exhausted"}
    assert ours.losses <= 6


def test_keeps_up(results: Results) -> None:
    """200 new events per second on a server that needs 20 ms: four senders keep up, one sender falls behind."""
    scenario, ours, theirs = results("a server that needs 20 ms, 200")
    assert (ours.losses, ours.calls) == (0, len(scenario.arrivals))
    assert ours.worst < 0.1
    assert theirs.losses > len(scenario.arrivals) * 3 / 4 - CLIENT_GO_QUEUE - 100  # one sender writes a quarter


def test_merges(results: Results) -> None:
    """1,000 events per second on 20 objects are merged to the server's capacity, with exact counts."""
    scenario, ours, theirs = results("a server that needs 20 ms, 1,000")
    assert (ours.losses, sum(ours.counts.values())) == (0, len(scenario.arrivals))
    assert ours.calls < len(scenario.arrivals) / 5 + 100
    assert ours.worst < 0.3
    assert theirs.losses > len(scenario.arrivals) * 5 / 6


def test_poisonous_events(results: Results) -> None:
    """Events that the server cannot store are dropped after twelve tries, and delay no other event."""
    scenario, ours, _ = results("every 100th")
    assert {"retries_exhausted"} >= set(ours.lost) - {"expired"}
    assert ours.losses == len(scenario.arrivals) // 100 - 1  # e0 is none of them
    assert ours.worst < 0.1


def test_hanging_event(results: Results) -> None:
    """Pitfall 47: one event whose requests hang is dropped, and delays no other event."""
    _, ours, theirs = results("one event always times out")
    assert ours.lost == {"retries_exhausted": 1}
    assert ours.worst < 0.1
    assert theirs.worst > 100


def test_landed(results: Results) -> None:
    """Pitfall 38: a create that timed out but was stored costs one patch, and the count is exact."""
    _, ours, _ = results("the first create")
    assert (ours.losses, ours.counts) == (0, {"e0": 10})
    assert ours.calls == 3


def test_one_at_a_time_for_ever() -> None:
    """An outage with fewer keys than senders never opens the circuit breaker. Each key waits its own back-off."""
    ours = Kevents(Scenario("few keys", steady(1, 300, 2), out_until(300, lambda _: REFUSED))).run()
    assert ours.losses == 0
    assert ours.calls < 100
