"""What the demonstration has come to: the numbers in plain words, and whether they are what they must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kevents._cli.demo.story import AGGREGATED, BUDGET, FILTERED, REFUSED, Counts, Key, counts_of
from kevents._model.statistics import SinkStatistics, Statistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kevents._cli.demo.paper import Events, Line, Paper

_NUMBERS_INDENT: Final = 24


@dataclass(frozen=True)
class Outcome:
    """What is known at the end.

    Attributes:
        recorded: How many events the story recorded, by its own count.
        slowest: The longest time that one call of the recorder took, in seconds.
        statistics: What kevents counted.
        events: What the server holds.
        given_up: How many events the shutdown gave up.
        expected: What the server must hold: counts by object and reason.
    """

    recorded: int
    slowest: float
    statistics: Statistics
    events: Events
    given_up: int
    expected: Mapping[Key, Counts]

    @property
    def sink(self) -> SinkStatistics:
        """The sink's ledger."""
        return self.statistics.watchers[0].sink or SinkStatistics()

    @property
    def lost(self) -> int:
        """How many events reached the sink's side and were given up there."""
        watcher = self.statistics.watchers[0]
        return sum(self.sink.dropped.values()) + watcher.queue_full + watcher.shutdown + watcher.failed


@dataclass(frozen=True)
class Check:
    """Something that must be so.

    Attributes:
        text: What.
        expected: By the design.
        actual: As found.
    """

    text: str
    expected: object
    actual: object

    @property
    def good(self) -> bool:
        """Whether it is so."""
        return self.expected == self.actual


def checks(outcome: Outcome) -> list[Check]:
    """What must be so, whatever the timing was."""
    statistics, sink = outcome.statistics, outcome.sink
    refused = {str(reason): events for reason, events in statistics.refused.items()}
    requests = sink.created + sink.patched
    ended = sink.delivered + sink.spam_filtered + outcome.lost
    held = counts_of(outcome.events)
    return [
        Check("recorded: as many as the operator's calls", outcome.recorded, statistics.recorded),
        Check("recorded = refused + published", statistics.recorded, sum(refused.values()) + statistics.published),
        Check("refused: the two mistakes", REFUSED, refused),
        Check("published = delivered + filtered + dropped", statistics.published, ended),
        Check(f"filtered: the storm beyond its budget of {BUDGET}", FILTERED, sink.spam_filtered),
        Check("dropped: nothing, in spite of the outage", 0, outcome.lost + outcome.given_up),
        Check("delivered = created + patched + merged", sink.delivered, requests + sink.merged),
        Check("aggregated: the similar events beyond the ninth", AGGREGATED, sink.aggregated),
        Check("recreated: the event that was deleted", 1, sink.recreated),
        Check("the server's events: objects and reasons as expected", sorted(outcome.expected), sorted(held)),
        *(
            Check(f"the server's count: {about} {reason}", _told(expected), _told(held.get((about, reason), ())))
            for (about, reason), expected in outcome.expected.items()
        ),
    ]


def _told(counts: Counts) -> str:
    numbers = [
        f"{each} ({counts.count(each)} times)" if counts.count(each) > 1 else f"{each}" for each in sorted({*counts})
    ]
    return ", ".join(numbers) or "not there"


def numbers(outcome: Outcome, paper: Paper) -> list[Line]:
    """The numbers, each with its meaning."""
    lines: list[Line] = []
    for depth, name, number, meaning in _meanings(outcome):
        if name == "aggregated":  # from here on, other views of the same events
            lines.append([])
        lines += _number(paper, depth, name, number, meaning)
    return lines


Meaning = tuple[int, str, int, str]


def _meanings(outcome: Outcome) -> Iterator[Meaning]:
    """Each number with its depth and name, and what it means."""
    yield from _calls(outcome)
    yield from _requests(outcome)
    yield from _views(outcome)


def _calls(outcome: Outcome) -> Iterator[Meaning]:
    """What became of the operator's calls."""
    statistics = outcome.statistics
    slowest = f"{outcome.slowest * 1e3:.1f} ms"
    text = "calls of recorder.event(). None raised, and none waited for the API server, not even in the outage: the "
    yield 0, "recorded", statistics.recorded, f"{text}slowest took {slowest}."
    reasons = ", ".join(f"{events} {reason}" for reason, events in statistics.refused.items())
    text = f"could not become events ({reasons}). client-go logs such calls; it has no numbers."
    yield 1, "refused", sum(statistics.refused.values()), text
    yield 1, "published", statistics.published, "went to the watcher that writes to the API server, and of these"


def _requests(outcome: Outcome) -> Iterator[Meaning]:
    """What became of the events that were to be written."""
    sink = outcome.sink
    text = (
        f"spam_filtered: over an object's budget of {BUDGET}. Dropped as requests of their own; their number is in "
        "the count of the next event that was written. client-go does the same and says nothing."
    )
    yield 2, "filtered", sink.spam_filtered, text
    text = f"reached the API server, in {sink.created + sink.patched} requests that it granted:"
    yield 2, "delivered", sink.delivered, text
    again = ", one of them twice, since somebody had deleted it" if sink.recreated == 1 else ""
    yield 3, "created", sink.created, f"requests that made an object: there are {len(outcome.events)}{again}."
    yield 3, "patched", sink.patched, "requests that raised the count of an object."
    text = (
        "needed none of their own: a write of the same object was still waiting and took them along. client-go "
        f"makes one request an event: {sink.delivered + sink.recreated} here, on a day without an outage."
    )
    yield 3, "merged", sink.merged, text
    yield 2, "dropped", outcome.lost, "given up for good. Each would be here with its reason."


def _views(outcome: Outcome) -> Iterator[Meaning]:
    """Other views of the same events."""
    sink = outcome.sink
    yield 0, "aggregated", sink.aggregated, 'of the published became part of one "combined from similar events".'
    yield 0, "recreated", sink.recreated, "patch met 404, since somebody had deleted the event; it was created again."
    text = f"requests were repeated because the API server had failed; {outcome.lost or 'no'} events were lost by it."
    yield 0, "retried", sink.retried, text


def _number(paper: Paper, depth: int, name: str, number: int, meaning: str) -> list[Line]:
    head = f"  {'  ' * depth}{name:<{15 - 2 * depth}}{number:>5}  "
    first, *rest = paper.paragraph(meaning, _NUMBERS_INDENT, first=head)
    text = first[0][0]
    return [[(text[: len(head)], "bold"), (text[len(head) :], "")], *rest]


def check_list(found: list[Check], paper: Paper) -> list[Line]:
    """The checks, a line each; what is wrong with those that fail."""
    lines: list[Line] = []
    for check in found:
        if check.good:
            (first, _), *rest = [line[0] for line in paper.paragraph(f"{check.text}: {_short(check.actual)}", 4)]
            lines += [[(f"  {paper.good} ", "good"), (first[4:], "")], *([span] for span in rest)]
        else:
            text = f"{check.text}: {_short(check.actual)}, but must be {_short(check.expected)}"
            lines += paper.paragraph(text, 4, "bad", f"  {paper.bad} ")
    return lines


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{number} {name}" for name, number in value.items()) or "none"
    if isinstance(value, list):
        return f"{len(value)}"
    return str(value)
