"""The work queue, rule by rule. The laws for all orders of calls are in ``test_laws``."""

from __future__ import annotations

from typing import Any

import pytest

from kevents._model.objects import Event, EventSource, ObjectReference
from kevents._model.statistics import DropReason
from kevents._queue.outcome import Delivered, Exists, Failed, Gone, Outcome, Rejected, Unavailable, Verb
from kevents._queue.work_item import CLOSED, Attempt, Back, Dropped, Lost, Wait
from kevents._queue.workqueue import MOST_TRIES, WorkQueue
from tests.simulation import Occurrence

CREATE, PATCH = Verb.CREATE, Verb.PATCH
DOWN = Unavailable("refused")
BROKEN = Failed("broken")


def make_queue(**options: Any) -> WorkQueue:
    """A queue whose jitter never shortens a pause."""
    given = {"senders": 4, "backlog": 4096, "max_age": 3600.0, "sleep_duration": 10.0, "jitter": lambda: 1.0}
    return WorkQueue(**{**given, **options})


def offer(
    queue: WorkQueue, name: str, count: int = 1, now: float = 0.0, due: float | None = None, namespace: str = "default"
) -> None:
    """Offer the count-th occurrence, as a correlator does."""
    queue.offer(Occurrence(name, count, namespace), now, present=count > 1, due=due)


def take(queue: WorkQueue, now: float = 0.0) -> Attempt:
    """Take an attempt, which must be available."""
    step = queue.take(now)
    assert isinstance(step, Attempt), step
    return step


def wait(queue: WorkQueue, now: float = 0.0) -> float | None:
    """The seconds until there is work."""
    step = queue.take(now)
    assert isinstance(step, Wait), step
    return step.seconds


def request(attempt: Attempt) -> tuple[Verb, str, int]:
    """The verb, name and count of an attempt."""
    return attempt.verb, attempt.name, attempt.body["count"]


def write(queue: WorkQueue, outcome: Outcome, now: float = 0.0, pause: float = 1.0) -> tuple[Verb, str, int]:
    """Make one attempt with this outcome. Returns its request."""
    attempt = take(queue, now)
    queue.done(attempt, outcome, now, pause)
    return request(attempt)


def drops(queue: WorkQueue) -> list[tuple[str, str, int, int]]:
    """The reported losses: reason, name, count of the state, events."""
    return [
        (str(notification.reason), notification.state.name, notification.state.count, notification.events)  # type: ignore[attr-defined]
        for notification in queue.notifications
        if isinstance(notification, Dropped)
    ]


class TestOffer:
    """Each API object has one slot. Pending states are merged."""

    def test_first(self) -> None:
        """A new event is created, and an event that was written before is patched."""
        queue = make_queue()
        offer(queue, "new", 1)
        offer(queue, "known", 7)
        assert write(queue, Delivered()) == (CREATE, "new", 1)
        assert write(queue, Delivered()) == (PATCH, "known", 7)
        assert wait(queue) is None
        assert (queue.delivered, queue.events, queue.written) == (2, 0, {CREATE: 1, PATCH: 1})

    def test_order(self) -> None:
        """Keys are handed out in the order of their offers."""
        queue = make_queue()
        for name in "cab":
            offer(queue, name)
        assert [take(queue).name for _ in "abc"] == ["c", "a", "b"]

    def test_merge_waiting(self) -> None:
        """Pending states of one object are merged: the newest wins, and a create stays a create."""
        queue = make_queue()
        for count in (1, 2, 3):
            offer(queue, "a", count)
        assert (queue.keys, queue.events, queue.merged) == (1, 3, 2)
        assert write(queue, Delivered()) == (CREATE, "a", 3)
        assert (queue.delivered, queue.events) == (3, 0)

    def test_merge_in_flight(self) -> None:
        """A key in flight is not handed out again. Later offers follow as one patch."""
        queue = make_queue()
        offer(queue, "a", 1)
        attempt = take(queue)
        offer(queue, "a", 2)
        offer(queue, "a", 3)
        assert wait(queue) is None
        queue.done(attempt, Delivered(), 0.0, 1.0)
        assert (queue.delivered, queue.events) == (1, 2)
        assert write(queue, Delivered()) == (PATCH, "a", 3)
        assert (queue.merged, queue.delivered, queue.events, queue.keys) == (1, 3, 0, 0)

    def test_writes_and_merges(self) -> None:
        """Without losses, each delivered event is a write or merged into one."""
        queue = make_queue()
        offer(queue, "a", 1)
        attempt = take(queue)
        offer(queue, "a", 2)
        queue.done(attempt, BROKEN, 0.0, 1.0)
        offer(queue, "a", 3)
        write(queue, Delivered(), 1.0)
        assert (queue.delivered, queue.merged, queue.written.total()) == (3, 2, 1)

    def test_merged_again(self) -> None:
        """Events merged during one attempt are counted once."""
        for first in (BROKEN, Delivered()):
            queue = make_queue()
            offer(queue, "a", 1)
            for count, outcome in ((2, first), (3, Delivered())):
                attempt = take(queue, float(count))
                offer(queue, "a", count, now=float(count))
                queue.done(attempt, outcome, float(count), 1.0)
            assert write(queue, Delivered(), 4.0) == (PATCH, "a", 3)
            assert (queue.delivered, queue.events, queue.keys) == (3, 0, 0)

    def test_same_name_elsewhere(self) -> None:
        """A key is namespace and name: the same name in two namespaces is two objects."""
        queue = make_queue()
        for namespace in ("a", "b"):
            queue.offer(Occurrence("x", 1, namespace), 0.0, present=False)
        assert [take(queue).namespace, take(queue).namespace] == ["a", "b"]

    def test_backlog_full(self) -> None:
        """A full backlog refuses new keys, but still merges known ones, even those in flight."""
        queue = make_queue(backlog=2)
        offer(queue, "a")
        offer(queue, "b")
        take(queue)
        offer(queue, "c")
        offer(queue, "a", 2)
        offer(queue, "b", 2)
        assert drops(queue) == [("backlog_full", "c", 1, 1)]
        assert (queue.keys, queue.events) == (2, 4)

    def test_backlog_full_expires_first(self) -> None:
        """A full backlog first drops expired items."""
        queue = make_queue(backlog=2, max_age=10.0)
        offer(queue, "a", now=0.0)
        offer(queue, "b", now=5.0)
        offer(queue, "c", now=10.0)
        assert drops(queue) == [("expired", "a", 1, 1)]
        assert queue.keys == 2

    def test_after_close(self) -> None:
        """After `close` each offered event is dropped."""
        queue = make_queue()
        queue.close()
        offer(queue, "a")
        assert drops(queue) == [("shutdown", "a", 1, 1)]
        assert (queue.events, queue.keys) == (0, 0)


class TestServerState:
    """Each row of the table of server states, with each outcome."""

    @staticmethod
    def in_state(server_state: str, queue: WorkQueue) -> None:
        """Bring the key "a" with one event into this server state, due at 100."""
        offer(queue, "a", 7 if server_state == "present" else 1, now=99.0)
        if server_state == "unknown":
            write(queue, BROKEN, 99.0, 1.0)

    @pytest.mark.parametrize("server_state", ["absent", "unknown", "present"])
    def test_delivered(self, server_state: str) -> None:
        """Delivered ends the item in every server state."""
        queue = make_queue()
        self.in_state(server_state, queue)
        assert (PATCH if server_state == "present" else CREATE) is write(queue, Delivered(), 100.0)[0]
        assert (queue.delivered, queue.keys, queue.in_flight) == (1, 0, 0)

    @pytest.mark.parametrize("server_state", ["absent", "unknown", "present"])
    def test_rejected(self, server_state: str) -> None:
        """A rejection drops the attempt's events, and is reported with its verb, answer and code."""
        queue = make_queue()
        self.in_state(server_state, queue)
        outcome = Rejected(422, "Invalid", "no")
        verb, _, count = write(queue, outcome, 100.0)
        assert queue.notifications[-1] == Dropped(DropReason.REJECTED, Occurrence("a", count), 1, verb, outcome)
        assert (queue.rejected_by_code, queue.keys) == ({422: 1}, 0)

    @pytest.mark.parametrize("server_state", ["absent", "unknown", "present"])
    @pytest.mark.parametrize("outcome", [BROKEN, DOWN])
    def test_failed(self, server_state: str, outcome: Outcome) -> None:
        """A failure waits and repeats the request. A create is ambiguous afterwards."""
        queue = make_queue()
        self.in_state(server_state, queue)
        before = write(queue, outcome, 100.0, 3.0)
        assert wait(queue, 100.0) == 3.0
        assert write(queue, Exists(), 103.0) == before
        if before[0] is CREATE:
            assert write(queue, Delivered(), 103.0) == (PATCH, "a", 1)

    def test_new_exists(self) -> None:
        """A first create that meets AlreadyExists is dropped quietly, because the event belongs to another writer."""
        queue = make_queue()
        offer(queue, "a")
        write(queue, Exists())
        outcome = Rejected(409, "AlreadyExists", "", quiet=True)
        assert queue.notifications == [Dropped(DropReason.REJECTED, Occurrence("a"), 1, CREATE, outcome)]
        assert queue.rejected_by_code == {409: 1}

    def test_maybe_exists(self) -> None:
        """Pitfall 38: a create that timed out but was stored is patched with the current state. The count is exact."""
        queue = make_queue()
        offer(queue, "a", 1)
        attempt = take(queue)
        offer(queue, "a", 2)
        queue.done(attempt, DOWN, 0.0, 1.0)
        offer(queue, "a", 3)
        assert write(queue, Exists(), 1.0) == (CREATE, "a", 3)
        assert write(queue, Delivered(), 1.0) == (PATCH, "a", 3)
        assert (queue.delivered, queue.dropped.total()) == (3, 0)

    def test_there_gone(self) -> None:
        """Pitfall 36: a patch that meets 404 becomes one create immediately, with the same name and count."""
        queue = make_queue()
        offer(queue, "a", 5)
        assert write(queue, Gone()) == (PATCH, "a", 5)
        assert write(queue, Delivered()) == (CREATE, "a", 5)
        assert (queue.recreated, queue.delivered, queue.retried) == (1, 1, 0)

    def test_gone_then_exists(self) -> None:
        """Pitfall 37: if the create after a patch's 404 meets 409, the patch is repeated immediately."""
        queue = make_queue()
        offer(queue, "a", 5)
        verbs = [write(queue, outcome)[0] for outcome in (Gone(), Exists(), Delivered())]
        assert verbs == [PATCH, CREATE, PATCH]

    def test_changes_go_first(self) -> None:
        """A change of server state is due first, before keys that have waited longer."""
        queue = make_queue()
        offer(queue, "a", 5)
        attempt = take(queue)
        offer(queue, "b")
        offer(queue, "a", 6)
        queue.done(attempt, Gone(), 5.0, 1.0)
        assert request(take(queue, 5.0)) == (CREATE, "a", 6)

    def test_ping_pong(self) -> None:
        """After twelve changes of server state in a row, each change is charged as a failure."""
        queue = make_queue()
        offer(queue, "a", 5)
        outcomes: list[Outcome] = [Gone(), Exists()] * 12
        for outcome in outcomes[:12]:
            write(queue, outcome, 0.0, 7.0)
        assert queue.retried == 0
        for tries, outcome in enumerate(outcomes[:11]):
            write(queue, outcome, tries * 7.0, 7.0)
            assert wait(queue, tries * 7.0) == 7.0
        write(queue, Exists(), 77.0, 7.0)
        assert drops(queue) == [("retries_exhausted", "a", 5, 1)]

    def test_changes_in_a_row(self) -> None:
        """A failure between two changes of server state ends the streak of changes."""
        queue = make_queue()
        offer(queue, "a", 5)
        outcomes: list[Outcome] = [Gone(), Exists()] * 6
        for outcome in outcomes:
            write(queue, outcome)
        write(queue, BROKEN, 0.0, 1.0)
        for outcome in outcomes:
            write(queue, outcome, 1.0)
        assert write(queue, Delivered(), 1.0) == (PATCH, "a", 5)

    @pytest.mark.parametrize("outcome", [Delivered(), Rejected(422, "Invalid")])
    def test_next_after_final(self, outcome: Outcome) -> None:
        """After a final outcome, events offered meanwhile continue as a patch, due now and with all tries left."""
        queue = make_queue()
        offer(queue, "a", 1)
        for tries in range(MOST_TRIES - 1):
            write(queue, BROKEN, float(tries), 1.0)
        attempt = take(queue, 11.0)
        offer(queue, "a", 2, now=11.0)
        queue.done(attempt, outcome, 11.0, 1.0)
        for tries in range(MOST_TRIES - 1):
            assert write(queue, BROKEN, 11.0 + tries, 1.0) == (PATCH, "a", 2)
        assert queue.events == 1

    def test_next_after_failure(self) -> None:
        """After an outcome that is not final, events offered meanwhile join the attempt's events."""
        queue = make_queue()
        offer(queue, "a", 1)
        attempt = take(queue)
        offer(queue, "a", 2)
        queue.done(attempt, BROKEN, 0.0, 1.0)
        attempt = take(queue, 1.0)
        assert (request(attempt), attempt.events) == ((CREATE, "a", 2), 2)


class TestTries:
    """Charged tries, waits and the end of an item."""

    def test_failed_is_charged(self) -> None:
        """The twelfth failure of a request ends it, and drops only the events of that attempt."""
        queue = make_queue()
        offer(queue, "a", 1)
        for tries in range(11):
            write(queue, BROKEN, tries * 10.0, 10.0)
        attempt = take(queue, 110.0)
        offer(queue, "a", 2, now=110.0)
        queue.done(attempt, BROKEN, 110.0, 10.0)
        assert drops(queue) == [("retries_exhausted", "a", 1, 1)]
        assert queue.notifications[-1].outcome == BROKEN  # type: ignore[union-attr]
        assert write(queue, Delivered(), 110.0) == (PATCH, "a", 2)
        assert queue.retried == 11

    def test_unreachable_server_charges_nothing(self) -> None:
        """Pitfall 40: while the server answers no key, no try is charged."""
        queue = make_queue()
        offer(queue, "a")
        for tries in range(100):
            write(queue, DOWN, tries * 10.0, 10.0)
        assert (queue.keys, queue.dropped) == (1, {})

    def test_own_answers_charge_nothing(self) -> None:
        """An answer to the key itself does not count as an answer to another: no try is charged."""
        queue = make_queue()
        offer(queue, "a", 5)
        for tries in range(20):
            write(queue, Gone(), tries * 1.0)
            write(queue, DOWN, tries * 1.0, 0.5)
            write(queue, Exists(), tries * 1.0 + 0.5)
            write(queue, DOWN, tries * 1.0 + 0.5, 0.5)
        assert queue.dropped == {}

    def test_poisonous_event(self) -> None:
        """A key that stays unavailable while others are answered ends after twelve tries, and blocks no other key."""
        queue = make_queue()
        offer(queue, "poison")
        attempts = 0
        for tries in range(14):
            now = tries * 10.0
            offer(queue, f"good{tries}", now=now)
            for _ in range(2):
                step = queue.take(now)
                if isinstance(step, Attempt):
                    poison = step.name == "poison"
                    attempts += poison
                    queue.done(step, DOWN if poison else Delivered(), now, 10.0)
        assert (queue.delivered, queue.dropped) == (14, {DropReason.RETRIES_EXHAUSTED: 1})
        assert attempts == 13  # the first try was not charged: no other key had been answered since it began

    def test_first_attempt_is_charged_by_its_own_time(self) -> None:
        """The first attempt is charged only for answers since it began, not for those while it waited."""
        for answered_during in (False, True):
            queue = make_queue()
            offer(queue, "a")
            offer(queue, "b")
            attempt = take(queue)
            if not answered_during:
                queue.done(attempt, Delivered(), 0.0, 1.0)
            other = take(queue)
            if answered_during:
                queue.done(attempt, Delivered(), 0.0, 1.0)
            queue.done(other, DOWN, 0.0, 1.0)
            for tries in range(1, 12):
                assert queue.keys == 1
                write(queue, BROKEN, float(tries), 1.0)
            assert queue.keys == (0 if answered_during else 1)

    def test_an_answer_is_charged_once(self) -> None:
        """An answer to another key charges only the next attempt."""
        queue = make_queue()
        offer(queue, "a")
        write(queue, DOWN, 0.0, 10.0)
        offer(queue, "b")
        write(queue, Delivered())
        for tries in range(1, 30):
            write(queue, DOWN, tries * 10.0, 10.0)
        assert (queue.keys, queue.dropped) == (1, {})

    def test_wait_is_the_longer(self) -> None:
        """A key waits for the longer of the given pause and the server's Retry-After."""
        for pause, after, expected in ((3.0, 5.0, 5.0), (5.0, 3.0, 5.0), (5.0, None, 5.0)):
            for outcome in (Failed("x", after), Unavailable("x", after)):
                queue = make_queue()
                offer(queue, "a")
                write(queue, outcome, 0.0, pause)
                assert wait(queue) == expected

    def test_attempt_knows_its_waits(self) -> None:
        """An attempt has the number of its earlier waits, so that the next wait can be chosen."""
        queue = make_queue()
        offer(queue, "a")
        waits = []
        for now in (0.0, 1.0, 2.0):
            attempt = take(queue, now)
            waits.append(attempt.waits)
            queue.done(attempt, DOWN, now, 1.0)
        assert waits == [0, 1, 2]

    def test_expired(self) -> None:
        """A write expires max_age after its newest event."""
        queue = make_queue(max_age=100.0)
        offer(queue, "a", 1, now=0.0)
        write(queue, DOWN, 0.0, 60.0)
        offer(queue, "a", 2, now=50.0)
        version = queue.version
        assert wait(queue, 50.0) == 10.0
        write(queue, DOWN, 149.0, 60.0)
        assert wait(queue, 150.0) is None
        assert drops(queue) == [("expired", "a", 2, 2)]
        assert version < queue.version

    def test_expired_after_a_wait_by_choice(self) -> None:
        """Waiting by choice does not age a write: it has max_age from its due time."""
        queue = make_queue(max_age=100.0)
        offer(queue, "a", 2, 0.0, due=400.0)
        write(queue, DOWN, 400.0)
        assert write(queue, DOWN, 499.9, pause=10.0) == (PATCH, "a", 2)
        assert wait(queue, 500.0) is None
        assert drops(queue) == [("expired", "a", 2, 1)]

    def test_in_flight_does_not_expire(self) -> None:
        """An attempt in flight does not expire. If it fails too late, its write expires."""
        queue = make_queue(max_age=100.0)
        offer(queue, "a")
        attempt = take(queue)
        assert wait(queue, 200.0) is None
        assert queue.keys == 1
        queue.done(attempt, DOWN, 200.0, 1.0)
        wait(queue, 200.0)
        assert drops(queue) == [("expired", "a", 1, 1)]

    def test_forbidden_after_restart(self) -> None:
        """Pitfall 83: a 403 within 30 s of the last Unavailable is retried. A later or a quiet one is final."""
        forbidden = Rejected(403, "Forbidden")
        for moment, outcome, kept in (
            (30.0, forbidden, 1),
            (30.1, forbidden, 0),
            (1.0, Rejected(403, "Forbidden", quiet=True), 0),
            (1.0, Rejected(422, "Invalid"), 0),
        ):
            queue = make_queue()
            offer(queue, "a")
            write(queue, DOWN, 0.0, 1.0)
            write(queue, outcome, moment, 1.0)
            assert queue.keys == kept


class TestFairness:
    """Failing keys leave room for others."""

    def test_failing_keys_leave_a_sender(self) -> None:
        """Pitfall 47: keys that failed before occupy at most all senders but one."""
        queue = make_queue(senders=3)
        for name in "abcd":
            offer(queue, name)
            write(queue, BROKEN, 0.0, 1.0)
        held = [take(queue, 1.0).name for _ in range(2)]
        assert held == ["a", "b"]
        assert wait(queue, 1.0) is None
        offer(queue, "fresh", now=1.0)
        assert take(queue, 1.0).name == "fresh"

    def test_a_held_sender_is_given_back(self) -> None:
        """When a failing key's attempt ends, the next failing key may start."""
        queue = make_queue(senders=2)
        for name in "ab":
            offer(queue, name)
            write(queue, BROKEN, 0.0, 1.0)
        attempt = take(queue, 1.0)
        assert wait(queue, 1.0) is None
        queue.done(attempt, Delivered(), 1.0, 1.0)
        assert take(queue, 1.0).name == "b"

    def test_one_sender(self) -> None:
        """A single sender may be occupied by a failing key."""
        queue = make_queue(senders=1)
        offer(queue, "a")
        write(queue, BROKEN, 0.0, 1.0)
        assert take(queue, 1.0).name == "a"


class TestBreaker:
    """An unreachable server is probed with one request at a time."""

    @staticmethod
    def opened(senders: int = 4, keys: int = 6) -> WorkQueue:
        """A queue with the keys k0, k1, ... whose circuit breaker opened at 1.0. The first keys wait for an hour."""
        queue = make_queue(senders=senders, max_age=1e6)
        for number in range(keys):
            offer(queue, f"k{number}")
        attempts = [take(queue) for _ in range(senders)]
        for attempt in attempts:
            queue.done(attempt, DOWN, 1.0, 3600.0)
        assert queue.breaker.open
        return queue

    def test_opens(self) -> None:
        """It opens when as many different keys as there are senders were unavailable in a row."""
        queue = make_queue(senders=3)
        for name in "abc":
            offer(queue, name)
        for name in "abc":
            assert not queue.breaker.open
            attempt = take(queue)
            assert attempt.name == name
            queue.done(attempt, DOWN, 0.25, 10.0)
        assert queue.breaker.open

    def test_same_key_does_not_open(self) -> None:
        """One key alone never opens it."""
        queue = make_queue(senders=1)
        offer(queue, "a")
        for tries in range(20):
            write(queue, DOWN, float(tries), 1.0)
        assert not queue.breaker.open

    def test_answer_between(self) -> None:
        """Any answer in between starts the streak anew."""
        for outcome in (Delivered(), BROKEN, Rejected(422, "")):
            queue = make_queue(senders=3)
            for name in "abcd":
                offer(queue, name)
            attempts = [take(queue) for _ in "abcd"]
            for attempt, answer in zip(attempts, (DOWN, DOWN, outcome, DOWN), strict=True):
                queue.done(attempt, answer, 1.0, 1.0)
            assert not queue.breaker.open

    def test_a_burst_of_failures_opens_for_a_moment(self) -> None:
        """Pitfall 85: failures within a quarter of a second are probed again at once, since they may be no outage."""
        queue = make_queue(senders=2)
        for name in "abc":
            offer(queue, name)
        write(queue, DOWN, 0.0, 10.0)
        write(queue, DOWN, 0.1, 10.0)
        assert queue.breaker.open
        assert wait(queue, 0.1) == pytest.approx(0.025)
        write(queue, Delivered(), 0.125, 10.0)
        assert not queue.breaker.open

    def test_single_probes(self) -> None:
        """While it is open there is one request at a time, after pauses that double up to sleep_duration."""
        queue = self.opened()
        now, waits = 1.0, []
        for _ in range(8):
            pause = wait(queue, now)
            assert pause is not None
            waits.append(pause)
            now += pause
            probe = take(queue, now)
            assert wait(queue, now) is None
            queue.done(probe, DOWN, now, 1.0)
        assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]

    def test_least_recent_probes(self) -> None:
        """Each probe is the least recently attempted key, even during that key's own wait."""
        queue = self.opened()
        names = []
        for tries in range(8):
            now = 20.0 * (tries + 1)
            attempt = take(queue, now)
            names.append(attempt.name)
            queue.done(attempt, DOWN, now, 3600.0)
        assert names == ["k4", "k5", "k0", "k1", "k2", "k3", "k4", "k5"]

    def test_older_attempts_do_not_lengthen(self) -> None:
        """Only attempts that began after the opening lengthen the pauses between probes."""
        queue = make_queue(senders=2)
        for name in "abcd":
            offer(queue, name)
        attempts = [take(queue) for _ in "abcd"]
        for attempt in attempts:
            queue.done(attempt, DOWN, 1.0, 10.0)
        assert wait(queue, 1.0) == 0.25

    def test_old_probe_after_reopening(self) -> None:
        """A late probe from before the breaker closed and opened again does not affect the new probing."""
        queue = make_queue(senders=2)
        for name in "abcdef":
            offer(queue, name)
        late = take(queue)
        write(queue, DOWN, 1.0, 100.0)
        write(queue, DOWN, 1.0, 100.0)
        old = take(queue, 2.0)
        queue.done(late, Delivered(), 2.0, 1.0)
        write(queue, DOWN, 3.0, 100.0)
        write(queue, DOWN, 4.0, 100.0)
        assert queue.breaker.open
        take(queue, 5.0)
        queue.done(old, DOWN, 6.0, 100.0)
        assert wait(queue, 6.0) is None

    def test_probe_is_let_go(self) -> None:
        """A queue that is closed during a probe releases the probe."""
        queue = self.opened()
        probe = take(queue, 2.0)
        assert probe is queue.breaker.probe
        queue.close()
        assert queue.breaker.probe is None

    @pytest.mark.parametrize("outcome", [Delivered(), BROKEN, Rejected(422, ""), Gone()])
    def test_any_answer_closes(self, outcome: Outcome) -> None:
        """Any answer closes it. Keys in back-off keep their own waits, all others are due at once."""
        queue = self.opened()
        write(queue, outcome, 2.0, 50.0)
        assert not queue.breaker.open
        assert "k5" in [take(queue, 2.0).name for _ in range(2 if Gone() == outcome else 1)]

    def test_server_s_wait_counts(self) -> None:
        """Probes respect the server's Retry-After."""
        queue = self.opened()
        write(queue, Unavailable("busy", 45.0), 2.0, 1.0)
        assert wait(queue, 2.0) == 45.0

    def test_notifications(self) -> None:
        """The first Unavailable and the first answer after it are reported, with cause, duration and pending events."""
        queue = self.opened()
        assert queue.notifications == [Lost("", "refused")]
        write(queue, Delivered(), 11.0)
        assert queue.notifications == [Lost("", "refused"), Back("", 10.0, 6)]
        write(queue, Delivered(), 11.0)
        assert len(queue.notifications) == 2

    def test_flush_now_probes_at_once(self) -> None:
        """A flush makes one probe due at once."""
        queue = self.opened()
        queue.flush_now(1.0)
        take(queue, 1.0)
        assert wait(queue, 1.0) is None


class TestNamespaces:
    """Fault 1: a namespace whose requests fail does not affect other namespaces."""

    @staticmethod
    def broken(queue: WorkQueue, events: int = 6, now: float = 0.0) -> None:
        """Open the circuit breaker of the namespace "bad", while the server answers the namespace "good"."""
        for number in range(events):
            offer(queue, f"b{number}", now=now, namespace="bad")
        while not queue.breaker.open:
            write(queue, DOWN, now, 100.0)
        offer(queue, "first", now=now, namespace="good")
        assert write(queue, Delivered(), now) == (CREATE, "first", 1)

    def test_the_server_s_breaker_closes(self) -> None:
        """An answer to another namespace closes the server's circuit breaker, but not the broken namespace's."""
        queue = make_queue(senders=2)
        self.broken(queue)
        assert not queue.breaker.open
        probe = take(queue, 0.25)
        assert probe.namespace == "bad"
        assert wait(queue, 0.25) is None

    def test_others_pass(self) -> None:
        """While a namespace is broken, events of others are written immediately and in order."""
        queue = make_queue(senders=3)
        self.broken(queue, 60)
        for number in range(20):
            offer(queue, f"g{number}", now=1.0, namespace="good")
        names = []
        while isinstance(step := queue.take(1.0), Attempt):
            names.append(step.name)
            queue.done(step, DOWN if step.namespace == "bad" else Delivered(), 1.0, 100.0)
        assert [name for name in names if name.startswith("g")] == [f"g{number}" for number in range(20)]
        assert len(names) <= 22
        assert not queue.breaker.open

    def test_own_pace(self) -> None:
        """A broken namespace is probed by one request at a time, with pauses that double up to sleep_duration."""
        queue = make_queue(senders=2)
        self.broken(queue)
        now, pauses, names = 0.3, [], []
        queue.done(take(queue, now), DOWN, now, 100.0)
        for _ in range(7):
            pause = wait(queue, now)
            assert pause is not None
            pauses.append(pause)
            now += pause
            probe = take(queue, now)
            names.append(probe.name)
            assert wait(queue, now) is None
            queue.done(probe, DOWN, now, 100.0)
        assert pauses == pytest.approx([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0])
        assert names == ["b3", "b4", "b5", "b0", "b1", "b2", "b3"]

    def test_its_answer_closes_it(self) -> None:
        """Any answer to the broken namespace makes its events due. Those in back-off keep their own waits."""
        for outcome in (Delivered(), BROKEN, Rejected(422, "")):
            queue = make_queue(senders=2)
            self.broken(queue)
            assert write(queue, outcome, 1.0, 50.0)[1] == "b2"
            names = [take(queue, 1.0).name for _ in range(3)]
            assert names == ["b3", "b4", "b5"]
            assert wait(queue, 1.0) == (50.0 if outcome == BROKEN else 99.0)

    def test_it_costs_its_events_no_tries(self) -> None:
        """While a namespace is broken its events are not charged, even though the server answers others."""
        queue = make_queue(senders=2, max_age=1e6)
        self.broken(queue, 3)
        now = 0.0
        for number in range(200):
            now += 10.0
            offer(queue, f"g{number}", now=now, namespace="good")
            while isinstance(step := queue.take(now), Attempt):
                queue.done(step, DOWN if step.namespace == "bad" else Delivered(), now, 1.0)
        assert (queue.dropped, queue.keys) == ({}, 3)

    def test_one_event_alone_is_charged(self) -> None:
        """One failing event does not make a namespace broken: it ends after twelve tries while others are answered."""
        queue = make_queue()
        offer(queue, "poison", namespace="bad")
        now = 0.0
        for number in range(20):
            now += 10.0
            offer(queue, f"g{number}", now=now, namespace="good")
            while isinstance(step := queue.take(now), Attempt):
                queue.done(step, DOWN if step.namespace == "bad" else Delivered(), now, 1.0)
        assert queue.dropped == {DropReason.RETRIES_EXHAUSTED: 1}

    def test_probes_go_round(self) -> None:
        """While the whole server is unavailable, probes rotate over the namespaces."""
        queue = make_queue(senders=2, max_age=1e6)
        for namespace in ("a", "a", "a", "b", "c"):
            offer(queue, f"{namespace}{queue.keys}", namespace=namespace)
        attempts = [take(queue), take(queue)]
        for attempt in attempts:
            queue.done(attempt, DOWN, 1.0, 3600.0)
        names = []
        for tries in range(6):
            now = 20.0 * (tries + 1)
            attempt = take(queue, now)
            names.append(attempt.name)
            queue.done(attempt, DOWN, now, 3600.0)
        assert names == ["b3", "c4", "a2", "b3", "c4", "a0"]

    def test_the_end_of_an_outage(self) -> None:
        """The first answer after an outage makes the probe of each namespace that failed during it due at once."""
        queue = make_queue(senders=2, max_age=1e6)
        for name in ("a0", "a1", "b0", "b1"):
            offer(queue, name, namespace=name[0])
        for number in range(4):
            queue.done(take(queue, number * 60.0), Unavailable("busy", 60.0), number * 60.0, 3600.0)
        assert wait(queue, 200.0) == 40.0
        offer(queue, "c", now=200.0, namespace="c")
        assert write(queue, Delivered(), 200.0) == (CREATE, "c", 1)
        assert {take(queue, 200.0).namespace, take(queue, 200.0).namespace} == {"a", "b"}

    def test_untried_namespaces_do_not_wait(self) -> None:
        """During an outage a namespace that has not failed is tried at once, one per second. Failing ones wait."""
        queue = TestBreaker.opened(senders=2)
        for namespace in "xyz":
            offer(queue, namespace, now=1.0, namespace=namespace)
        assert write(queue, DOWN, 1.0, 3600.0) == (CREATE, "x", 1)
        assert wait(queue, 1.0) == 0.5
        assert take(queue, 1.5).name == "y"
        queue = TestBreaker.opened(senders=2)
        probe = take(queue, 2.0)
        assert probe.namespace == "default"
        offer(queue, "x", now=2.0, namespace="x")
        offer(queue, "y", now=2.0, namespace="y")
        assert take(queue, 2.0).name == "x"
        assert wait(queue, 2.0) == 1.0
        assert take(queue, 3.0).name == "y"

    def test_proven_namespaces_come_first(self) -> None:
        """Among the namespaces that have not failed, those answered before are tried first."""
        queue = make_queue(senders=2)
        offer(queue, "early", namespace="good")
        write(queue, Delivered())
        for number in range(2):
            offer(queue, f"b{number}", now=1.0, namespace="bad")
            write(queue, DOWN, 1.0, 100.0)
        assert queue.breaker.open
        offer(queue, "n", now=1.0, namespace="new")
        offer(queue, "late", now=1.0, namespace="good")
        assert take(queue, 1.0).name == "late"

    def test_after_an_outage_all_are_probed_at_once(self) -> None:
        """The first answer after an outage makes the probes of all namespaces due that failed during it."""
        queue = make_queue(senders=2, max_age=1e6)
        for namespace in ("a", "a", "a", "b", "b", "b"):
            offer(queue, f"{namespace}{queue.keys}", namespace=namespace)
        now = 0.0
        while now < 100.0:
            step = queue.take(now)
            if isinstance(step, Attempt):
                queue.done(step, DOWN, now, 1.0)
            else:
                assert isinstance(step, Wait)
                now += step.seconds or 0.0
        first = take(queue, now + 10.0)
        queue.done(first, Delivered(), now + 10.0, 1.0)
        second = take(queue, now + 10.0)
        while second.namespace == first.namespace:
            queue.done(second, Delivered(), now + 10.0, 1.0)
            second = take(queue, now + 10.0)
        queue.done(second, Delivered(), now + 10.0, 1.0)
        while isinstance(step := queue.take(now + 11.0), Attempt):
            queue.done(step, Delivered(), now + 11.0, 1.0)
        assert queue.delivered == 6

    def test_a_full_backlog_makes_room(self) -> None:
        """A full backlog drops the newest event of the largest broken namespace for one of a smaller namespace."""
        queue = make_queue(senders=2, backlog=6)
        self.broken(queue)
        for number in range(4):
            offer(queue, f"g{number}", now=0.0, namespace="good")
        assert [name for _, name, _, _ in drops(queue)] == ["b5", "b4", "b3", "g3"]
        offer(queue, "b6", now=0.0, namespace="bad")
        assert drops(queue)[-1] == ("backlog_full", "b6", 1, 1)

    def test_notifications(self) -> None:
        """A broken namespace is reported once by name, and once more when it is answered again."""
        queue = make_queue(senders=2)
        self.broken(queue)
        queue.take_notifications()
        for now in (1.0, 5.0):
            write(queue, Unavailable("webhook"), now, 100.0)
        assert queue.take_notifications() == [Lost("bad", "webhook")]
        write(queue, Delivered(), 20.0)
        assert queue.take_notifications() == [Back("bad", 20.0, 6)]

    def test_a_403_elsewhere_is_final(self) -> None:
        """A broken namespace does not turn a refusal in another namespace into a retry."""
        queue = make_queue(senders=2)
        self.broken(queue)
        for now in (100.0, 101.0):
            write(queue, DOWN, now, 100.0)
        offer(queue, "g", now=102.0, namespace="good")
        attempts = [take(queue, 102.0)]
        if attempts[-1].namespace == "bad":
            attempts.append(take(queue, 102.0))
        queue.done(attempts[-1], Rejected(403, "Forbidden"), 102.0, 1.0)
        assert queue.dropped == {DropReason.REJECTED: 1}

    def test_stop(self) -> None:
        """A stopping queue probes broken namespaces, including new ones, with short pauses."""
        queue = make_queue(senders=2)
        self.broken(queue)
        for now in (10.0, 20.0, 30.0, 40.0, 50.0):
            write(queue, DOWN, now, 100.0)
        queue.begin_stop(60.0, 0.25, 70.0)
        now = 60.0
        for _ in range(8):
            write(queue, DOWN, now, 100.0)
            pause = wait(queue, now)
            assert pause is not None
            assert pause <= 0.25
            now += pause

    def test_forgotten_namespaces(self) -> None:
        """Beyond a limit, namespaces without pending writes are forgotten."""
        queue = make_queue()
        for number in range(5000):
            offer(queue, "a", namespace=f"n{number}")
            write(queue, Delivered())
        assert len(queue._namespaces) == 4096


class TestSeries:
    """Writes that wait by choice."""

    def test_due(self) -> None:
        """A delayed write waits for its due time. Each offer moves it, and one without a due time makes it due now."""
        queue = make_queue()
        offer(queue, "a", 2, due=100.0)
        assert wait(queue) == 100.0
        offer(queue, "a", 3, due=200.0)
        assert wait(queue) == 200.0
        offer(queue, "a", 4, now=5.0)
        assert request(take(queue, 5.0)) == (PATCH, "a", 4)

    def test_first_write_keeps_its_time(self) -> None:
        """A first write or a retry ignores later due times."""
        queue = make_queue()
        offer(queue, "a", 1)
        offer(queue, "a", 2, due=100.0)
        write(queue, BROKEN, 0.0, 3.0)
        offer(queue, "a", 3, due=100.0)
        assert wait(queue) == 3.0

    def test_due_while_in_flight(self) -> None:
        """The last due time of the offers during an attempt counts, unless one of them is immediate."""
        for dues, expected in (([100.0, 200.0], 200.0), ([100.0, None], None), ([None, 100.0], None)):
            queue = make_queue()
            offer(queue, "a", 1)
            attempt = take(queue)
            for count, due in enumerate(dues, 2):
                offer(queue, "a", count, due=due)
            queue.done(attempt, Delivered(), 0.0, 1.0)
            if expected is None:
                take(queue)
            else:
                assert wait(queue) == expected

    def test_outside_backlog_and_age(self) -> None:
        """A delayed write takes no place in the backlog and does not age, but is in the ledger."""
        queue = make_queue(backlog=1, max_age=10.0)
        for name in "abc":
            offer(queue, name, 2, due=1800.0)
        offer(queue, "d")
        assert (queue.keys, queue.events, queue.dropped) == (4, 4, {})
        write(queue, Delivered())
        assert wait(queue, 1100.0) == 700.0
        assert queue.oldest_age(1100.0) == 0.0

    def test_age_counts_from_due(self) -> None:
        """Once it is in flight, its age is counted from its due time."""
        queue = make_queue()
        offer(queue, "a", 2, due=100.0)
        take(queue, 103.0)
        assert queue.oldest_age(104.0) == 4.0

    def test_not_a_probe_before_it_is_due(self) -> None:
        """An open circuit breaker does not probe with a write before its due time."""
        queue = make_queue(senders=2, max_age=1.0)
        offer(queue, "series", 2, due=100.0)
        for name in "ab":
            offer(queue, name)
        attempts = [take(queue), take(queue)]
        for attempt in attempts:
            queue.done(attempt, DOWN, 0.5, 10.0)
        assert wait(queue, 5.0) == 95.0
        assert take(queue, 100.0).name == "series"

    def test_flush_now_one(self) -> None:
        """`flush_now` for one key makes a delayed write due, but neither a key in back-off nor a probe."""
        queue = make_queue(senders=2)
        offer(queue, "series", 2, due=1800.0)
        offer(queue, "a")
        write(queue, BROKEN, 0.0, 50.0)
        for name in ("series", "a", "unknown"):
            queue.flush_now(0.0, ("default", name))
        assert take(queue).name == "series"
        assert wait(queue) == 50.0
        queue = TestBreaker.opened()
        queue.flush_now(1.0, ("default", "k0"))
        assert wait(queue, 1.0) == 0.25

    def test_flush_now_while_trying(self) -> None:
        """A failure during a flush is retried once without a pause, unless the server asks for one."""
        for outcome, due in ((BROKEN, 1.0), (Failed("busy", 3.0), 4.0)):
            queue = make_queue()
            offer(queue, "a")
            attempt = take(queue)
            queue.flush_now(0.5)
            queue.done(attempt, outcome, 1.0, 50.0)
            if due > 1.0:
                assert wait(queue, 1.0) == due - 1.0
            again = take(queue, due)
            queue.done(again, BROKEN, due, 50.0)
            assert wait(queue, due) == 50.0

    def test_flush_now_while_in_flight(self) -> None:
        """A flush also hastens delayed writes behind an attempt in flight."""
        queue = make_queue()
        offer(queue, "a", 1)
        attempt = take(queue)
        offer(queue, "a", 2, due=1800.0)
        queue.flush_now(1.0)
        queue.done(attempt, Delivered(), 1.0, 1.0)
        assert request(take(queue, 1.0)) == (PATCH, "a", 2)

    def test_drain_hurries_later_ones(self) -> None:
        """During a shutdown a new series waits neither for its interval nor for a retry."""
        queue = make_queue()
        queue.begin_stop(0.0, 0.25, 5.0)
        offer(queue, "a", 2, due=1800.0)
        assert request(take(queue)) == (PATCH, "a", 2)


class TestCatchUp:
    """Catch-up writes: they update a count without an event of their own."""

    @staticmethod
    def offer(queue: WorkQueue, count: int, due: float | None = 300.0, now: float = 0.0) -> None:
        """Offer the count of a filtered event."""
        queue.offer(Occurrence("a", count), now, present=True, due=due, events=0)

    def test_one_patch(self) -> None:
        """All pending catch-ups are one patch with the newest count, and it is not counted as a delivered event."""
        queue = make_queue()
        for count in range(26, 300):
            self.offer(queue, count)
        assert (queue.keys, queue.events, wait(queue)) == (1, 0, 300.0)
        assert write(queue, Delivered(), 300.0) == (PATCH, "a", 299)
        assert (queue.delivered, queue.merged, queue.written, queue.keys) == (0, 0, {PATCH: 1}, 0)

    def test_it_joins_a_pending_write(self) -> None:
        """A catch-up joins a pending write of the event, which carries the newest count but no additional event."""
        queue = make_queue()
        offer(queue, "a", 1)
        self.offer(queue, 2)
        assert write(queue, Delivered()) == (CREATE, "a", 2)
        assert (queue.delivered, queue.merged, queue.keys) == (1, 0, 0)

    def test_an_event_joins_it(self) -> None:
        """An event that passes while a catch-up is pending is written at once, and counted once."""
        queue = make_queue()
        self.offer(queue, 26)
        offer(queue, "a", 27)
        offer(queue, "a", 28)
        assert write(queue, Delivered()) == (PATCH, "a", 28)
        assert (queue.delivered, queue.merged, queue.events) == (2, 1, 0)

    def test_after_an_attempt(self) -> None:
        """A catch-up during an attempt waits for its token. After a failure it joins the next try."""
        for outcome, due in ((Delivered(), 300.0), (BROKEN, 1.0)):
            queue = make_queue()
            offer(queue, "a", 25)
            attempt = take(queue)
            self.offer(queue, 26)
            queue.done(attempt, outcome, 0.0, 1.0)
            assert wait(queue) == due
            assert write(queue, Delivered(), due) == (PATCH, "a", 26)
            assert (queue.delivered, queue.merged, queue.events) == (1, 0, 0)

    def test_flush_and_stop(self) -> None:
        """Flush and shutdown write a catch-up immediately, without a token."""
        for hurry in (lambda queue: queue.flush_now(1.0), lambda queue: queue.begin_stop(1.0, 0.25, 5.0)):
            queue = make_queue()
            self.offer(queue, 26)
            mark = queue.mark()
            assert not queue.flushed(mark)
            hurry(queue)
            assert write(queue, Delivered(), 1.0) == (PATCH, "a", 26)
            assert queue.flushed(mark)

    def test_its_loss_is_no_event(self) -> None:
        """A rejected or remaining catch-up is not counted as a dropped event, and not reported."""
        queue = make_queue()
        self.offer(queue, 26)
        write(queue, Rejected(422, "Invalid"), 300.0)
        self.offer(queue, 27, now=300.0, due=600.0)
        assert queue.close() == 0
        self.offer(queue, 28)
        assert (queue.dropped, queue.rejected_by_code, queue.notifications) == ({}, {}, [])


class TestFlush:
    """A mark is settled when all earlier events have ended."""

    def test_mark(self) -> None:
        """Events offered before the mark count. Events merged or offered later do not."""
        queue = make_queue()
        offer(queue, "a", 1)
        attempt = take(queue)
        mark = queue.mark()
        offer(queue, "a", 2)
        offer(queue, "b")
        assert not queue.flushed(mark)
        queue.done(attempt, Delivered(), 0.0, 1.0)
        assert queue.flushed(mark)
        assert not queue.flushed(queue.mark())

    def test_dropped_is_settled(self) -> None:
        """A dropped event has ended."""
        queue = make_queue()
        offer(queue, "a")
        mark = queue.mark()
        write(queue, Rejected(422, ""))
        assert queue.flushed(mark)

    def test_failed_is_not_settled(self) -> None:
        """A write that will be retried has not ended, nor have the events that joined it."""
        queue = make_queue()
        offer(queue, "a", 1)
        mark = queue.mark()
        attempt = take(queue)
        offer(queue, "a", 2)
        queue.done(attempt, BROKEN, 0.0, 1.0)
        assert not queue.flushed(mark)

    def test_flush_now(self) -> None:
        """Keys in back-off and delayed writes are due at once. Those in flight are unaffected."""
        queue = make_queue()
        for name in "abc":
            offer(queue, name)
        write(queue, BROKEN, 0.0, 50.0)
        take(queue)
        offer(queue, "s", 2, due=1800.0)
        before = queue.version
        queue.flush_now(1.0)
        assert {take(queue, 1.0).name for _ in "acs"} == {"a", "c", "s"}
        assert before < queue.version


class TestEnd:
    """Shutdown: begin_stop, end_input and close."""

    def test_drain_caps_waits(self) -> None:
        """Every key is due at once, and later waits are capped: of keys, of probes and by Retry-After."""
        queue = TestBreaker.opened()
        queue.begin_stop(2.0, 0.25, 7.0)
        for tries in range(12):
            write(queue, Unavailable("busy", 60.0), 2.0 + tries * 0.25, 10.0)
            assert wait(queue, 2.0 + tries * 0.25) == 0.25

    def test_drain_charges_nothing(self) -> None:
        """During a shutdown no try is charged."""
        queue = make_queue()
        offer(queue, "a")
        queue.begin_stop(0.0, 0.25, 100.0)
        for tries in range(30):
            write(queue, BROKEN, tries * 0.25, 10.0)
        assert queue.keys == 1

    def test_drain_ends(self) -> None:
        """At its deadline the queue closes. No wait is longer."""
        queue = make_queue()
        offer(queue, "a")
        take(queue)
        queue.begin_stop(0.0, 0.25, 5.0)
        assert wait(queue, 1.0) == 4.0
        assert CLOSED is queue.take(5.0)
        assert drops(queue) == [("shutdown", "a", 1, 1)]

    def test_seal(self) -> None:
        """After `end_input` the queue closes once it is empty."""
        queue = make_queue()
        offer(queue, "a")
        attempt = take(queue)
        queue.end_input()
        assert wait(queue) is None
        queue.done(attempt, Delivered(), 0.0, 1.0)
        assert CLOSED is queue.take(0.0)
        assert queue.closed

    def test_close(self) -> None:
        """`close` drops all pending events, in flight and merged ones too. A late answer changes nothing."""
        queue = make_queue()
        offer(queue, "a", 1)
        attempt = take(queue)
        offer(queue, "a", 2)
        offer(queue, "b", 1)
        assert queue.close() == 3
        assert drops(queue) == [("shutdown", "a", 2, 2), ("shutdown", "b", 1, 1)]
        queue.done(attempt, Delivered(), 0.0, 1.0)
        assert (queue.delivered, queue.events, queue.in_flight, queue.close()) == (0, 0, 0, 0)
        assert CLOSED is queue.take(0.0)

    def test_oldest_age(self) -> None:
        """The age of the oldest pending write shows how far behind the sink is."""
        queue = make_queue()
        assert queue.oldest_age(9.0) == 0.0
        offer(queue, "a", now=1.0)
        offer(queue, "a", 2, now=3.0)
        offer(queue, "b", now=2.0)
        assert queue.oldest_age(9.0) == 8.0

    def test_version(self) -> None:
        """Every change that can end a wait changes the version."""
        queue = make_queue()
        step = queue.take(0.0)
        assert isinstance(step, Wait)
        changes = (lambda: offer(queue, "a"), lambda: queue.flush_now(0.0), queue.end_input, queue.close)
        for change in changes:
            before = queue.version
            change()
            assert before < queue.version


class TestWaking:
    """Waiting senders notice every change, and `flush_now` affects only its key."""

    def test_version(self) -> None:
        """Every change that may give a sender work increases the version: offer, outcome, expiry, flush, end, close."""
        queue = make_queue(max_age=50.0)
        versions = [queue.version]
        for change in (
            lambda: offer(queue, "a"),
            lambda: queue.done(take(queue), BROKEN, 0.0, 1.0),
            lambda: queue.flush_now(0.0),
            lambda: queue.take(60.0),
            queue.end_input,
            queue.close,
        ):
            change()
            versions.append(queue.version)
        assert versions == sorted(set(versions))

    def test_due_is_a_moment(self) -> None:
        """A due time is absolute."""
        queue = make_queue()
        offer(queue, "a", now=1000.0, due=1006.0)
        assert wait(queue, 1000.0) == 6.0

    def test_drain_makes_due(self) -> None:
        """A shutdown makes all waiting writes due, delayed ones and retries."""
        queue = make_queue()
        offer(queue, "series", due=60.0)
        offer(queue, "failed")
        write(queue, BROKEN, pause=30.0)
        queue.begin_stop(1.0, 0.25, 9.0)
        assert {take(queue, 1.0).name for _ in "ab"} == {"series", "failed"}

    def test_flush_now_one(self) -> None:
        """`flush_now` for a key in flight keeps the wait after its failure. For all keys it skips the wait."""
        for key, expected in ((("default", "a"), 7.0), (None, 0.0)):
            queue = make_queue()
            offer(queue, "a")
            attempt = take(queue)
            queue.flush_now(0.0, key)
            queue.done(attempt, BROKEN, 0.0, 7.0)
            assert (wait(queue) if expected else float(take(queue).item.due)) == expected


class TestBacklog:
    """The capacity of the backlog, and the expiry of writes."""

    def test_by_choice_uses_no_capacity(self) -> None:
        """A delayed item uses no capacity, even after several offers. One in flight or failed does."""
        for failed in (False, True):
            queue = make_queue(backlog=1)
            offer(queue, "a", 2, due=100.0)
            offer(queue, "a", 3, due=100.0)
            offer(queue, "b")
            write(queue, Delivered())
            assert queue.dropped == {}
            attempt = take(queue, 100.0)
            if failed:
                queue.done(attempt, BROKEN, 100.0, 50.0)
            offer(queue, "c", now=100.0)
            assert drops(queue) == [("backlog_full", "c", 1, 1)]

    def test_ended_items_use_no_capacity(self) -> None:
        """An ended item uses no capacity, whether or not it was delayed."""
        for due in (None, 100.0):
            queue = make_queue(backlog=1)
            for number in range(3):
                offer(queue, f"k{number}", 2, due=due)
                write(queue, Delivered(), 100.0)
            offer(queue, "a")
            offer(queue, "b")
            assert drops(queue) == [("backlog_full", "b", 1, 1)]

    def test_each_expires_at_its_own_time(self) -> None:
        """Each write expires at its own time and not before. A delayed one never does."""
        queue = make_queue(max_age=100.0)
        offer(queue, "a", now=0.0)
        offer(queue, "b", now=50.0)
        offer(queue, "series", 2, now=0.0, due=1000.0)
        for _ in "ab":
            write(queue, DOWN, 60.0, pause=900.0)
        for now, expected in ((99.0, []), (100.0, ["a"]), (149.0, ["a"]), (150.0, ["a", "b"]), (900.0, ["a", "b"])):
            wait(queue, now)
            assert [name for _, name, _, _ in drops(queue)] == expected

    def test_oldest_age(self) -> None:
        """The age counts from the offer through all retries, or from the due time of a delayed write."""
        queue = make_queue()
        offer(queue, "a", now=10.0)
        write(queue, BROKEN, 10.0, pause=7.0)
        assert queue.oldest_age(20.0) == 10.0
        write(queue, BROKEN, 17.0, pause=7.0)
        assert queue.oldest_age(20.0) == 10.0
        write(queue, Delivered(), 24.0)
        offer(queue, "b", 2, now=0.0, due=30.0)
        assert queue.oldest_age(38.0) == 0.0
        take(queue, 38.0)
        assert queue.oldest_age(38.0) == 8.0


class TestBytes:
    """Fault 5: the memory of the pending states is bounded, not only their number."""

    LIMIT = 10_000

    def make(self, **options: Any) -> WorkQueue:
        """A queue whose states have the size of their message."""
        return make_queue(backlog_bytes=self.LIMIT, size_of=lambda state: len(state.message), **options)

    def offer(self, queue: WorkQueue, name: str, size: int, count: int = 1, now: float = 0.0) -> None:
        """Offer an event with a message of this size."""
        reference = ObjectReference(kind="Pod", api_version="v1", namespace="default", name=name)
        event = Event(reference, "Normal", "R", "x" * size, EventSource("c"), 0, 1, count=count, name=name)
        queue.offer(event, now, present=count > 1)

    def test_full(self) -> None:
        """A state that does not fit is dropped. Delivery frees memory, and one state always fits."""
        queue = self.make()
        self.offer(queue, "a", 50_000)
        self.offer(queue, "b", 1)
        assert queue.dropped == {DropReason.BACKLOG_FULL: 1}
        queue.done(take(queue), Delivered(), 0.0, 0.0)
        for name in "cdef":
            self.offer(queue, name, 3_000)
        assert (queue.keys, queue.dropped) == (3, {DropReason.BACKLOG_FULL: 2})

    def test_merge(self) -> None:
        """A merge never drops an event: if the new message does not fit, the older one is sent with the new count."""
        queue = self.make()
        self.offer(queue, "a", 9_000)
        self.offer(queue, "b", 500)
        self.offer(queue, "b", 5_000, count=2)
        assert (queue.keys, queue.events) == (2, 3)
        take(queue)
        state = take(queue).state
        assert (len(state.message), state.count) == (500, 2)  # type: ignore[attr-defined]

    def test_merge_during_an_attempt(self) -> None:
        """States offered during an attempt use memory until the attempt ends."""
        queue = self.make()
        self.offer(queue, "a", 4_000)
        attempt = take(queue)
        self.offer(queue, "a", 5_000, count=2)
        self.offer(queue, "b", 2_000)
        assert queue.dropped == {DropReason.BACKLOG_FULL: 1}
        queue.done(attempt, Delivered(), 0.0, 0.0)
        self.offer(queue, "b", 4_000)
        assert queue.keys == 2

    def test_nothing_is_left(self) -> None:
        """Every end of a write frees its memory."""
        queue = self.make(max_age=10.0)
        for outcome in (Delivered(), Rejected(403, "no"), Failed("x"), Gone()):
            self.offer(queue, "a", 9_000)
            self.offer(queue, "a", 8_000, count=2)
            queue.done(take(queue), outcome, 0.0, 0.0)
            while isinstance(step := queue.take(0.0), Attempt):
                queue.done(step, Delivered(), 0.0, 0.0)
        self.offer(queue, "b", 9_000, now=0.0)
        self.offer(queue, "c", 9_000, now=11.0)
        assert queue.dropped[DropReason.EXPIRED] == 1
        assert queue._bytes == 9_000
        queue.close()
        assert queue._bytes == 0
