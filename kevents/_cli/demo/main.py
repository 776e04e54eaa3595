"""The command ``kevents demo``: plays the story against an API server, explains the numbers, and checks them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final, NamedTuple, TextIO

from kevents._broadcast.broadcaster import EventBroadcaster
from kevents._cli.demo.screen import Line, LiveScreen, Paper, PlainScreen, is_terminal
from kevents._cli.demo.story import AGGREGATED, BURST, FILTERED, REFUSED, Cluster, Counts, Key, Scene, counts_of, stages
from kevents._correlation.options import CorrelatorOptions
from kevents._model.statistics import SinkStatistics, Statistics
from kevents._model.wire import clip, printable
from kevents.testing import APIServer, FakeClock

SECONDS: Final = 12.0
_PLAIN_WIDTH: Final = 100
_SETTLE_TIMEOUT: Final = 10.0  # seconds
_LONGEST_NOTE: Final = 250


class Outcome(NamedTuple):
    """The measurements of a whole story."""

    scene: Scene
    statistics: Statistics  # after the shutdown
    sink: SinkStatistics
    dropped: int  # published events
    events: list[dict[str, Any]]  # as stored
    expected: Mapping[Key, Counts]


Check = tuple[str, object, object]  # a text, the expected and the actual value


def demonstrate(stream: TextIO, kubeconfig: str | None = None, seconds: float = SECONDS, *, plain: bool = False) -> int:
    """Play the story, and check its numbers; returns 0 if all checks hold, else 1.

    Without a kubeconfig it uses the embedded API server. ``plain`` appends lines even on a terminal.

    Raises:
        ClusterError: If the cluster cannot be used, or stops answering.
        KubeconfigError: If the kubeconfig is unusable.
    """
    live = is_terminal(stream) and not plain
    paper = Paper(stream, colour=live and not os.environ.get("NO_COLOR"), width=None if live else _PLAIN_WIDTH)
    with ExitStack() as stack:
        if kubeconfig is None:
            server = stack.enter_context(APIServer())
            cluster = Cluster(str(server.kubeconfig()), server)
        else:
            cluster = Cluster(kubeconfig)
            stack.callback(cluster.clean_up)
        outcome = _play(cluster, paper, seconds / SECONDS, LiveScreen if live else PlainScreen)
        found = checks(outcome)
        bad = sum(expected != actual for _, expected, actual in found)
        paper.write([], [(f"Where the {outcome.statistics.recorded} events went", "head")], [])
        paper.write(*_numbers(outcome, paper), [], [("Checks", "head")], [], *check_list(found, paper), [])
        verdict = f"{bad} of {len(found)} checks failed: this is a bug in kevents, please report it."
        paper.write([(verdict, "bad")] if bad else [(f"All {len(found)} checks hold.", "good")])
    if kubeconfig is not None:
        paper.write([], [("The events of this demonstration have been removed from the cluster.", "dim")])
    return 1 if bad else 0


def _play(cluster: Cluster, paper: Paper, scale: float, kind: type[PlainScreen]) -> Outcome:
    clock, story = FakeClock(), stages(cluster.suffix, cluster.outage, scale)
    title = [("kevents demo", "head"), (f": a sample backup operator, and {cluster.title}", "")]
    screen = kind(paper, cluster.events, title, story)
    expected: dict[Key, Counts] = {}
    broadcaster = EventBroadcaster(correlator_options=CorrelatorOptions(clock=clock), sleep_duration=1.0)
    with ExitStack() as stack:
        stack.callback(screen.close)
        stack.callback(cluster.recover)
        _show_logs(screen.note, stack)
        stack.enter_context(broadcaster)
        broadcaster.start_recording_to_sink(cluster)
        scene = Scene(cluster, broadcaster.new_recorder(cluster.component), clock)
        for stage in story:
            screen.begin(stage)
            for seconds in stage.play(scene):
                screen.pause(seconds * scale)
            deadline = time.monotonic() + _SETTLE_TIMEOUT
            while _waiting(broadcaster.statistics()) and time.monotonic() < deadline:
                screen.pause(0.05)
            expected.update(stage.expected)
            screen.finish(stage, good=stage.expected.items() <= counts_of(cluster.events()).items())
            screen.pause(0.35 * scale)
        broadcaster.flush(_SETTLE_TIMEOUT)
        dropped = broadcaster.shutdown()
    (watcher,) = broadcaster.statistics().watchers
    sink = watcher.sink or SinkStatistics()
    dropped += sum(sink.dropped.values()) + watcher.queue_full + watcher.shutdown + watcher.failed
    return Outcome(scene, broadcaster.statistics(), sink, dropped, cluster.events(), expected)


def _waiting(statistics: Statistics) -> bool:
    return any(watcher.waiting or (watcher.sink and watcher.sink.backlog) for watcher in statistics.watchers)


def _show_logs(note: Callable[[str], None], stack: ExitStack) -> None:
    """Show kevents' log lines as part of the demonstration, and nowhere else."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(clip(printable(record.getMessage()), _LONGEST_NOTE))

    logger, handler = logging.getLogger("kevents"), Notes()
    stack.callback(logger.removeHandler, handler)
    stack.callback(logger.setLevel, logger.level)
    stack.callback(setattr, logger, "propagate", logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def checks(outcome: Outcome) -> list[Check]:
    """Return all checks. None depends on timing."""
    statistics, sink = outcome.statistics, outcome.sink
    refused = {str(reason): events for reason, events in statistics.refused.items()}
    ended = sink.delivered + sink.spam_filtered + outcome.dropped
    held = counts_of(outcome.events)
    return [
        ("recorded: as many as the operator's calls", outcome.scene.recorded, statistics.recorded),
        ("recorded = refused + published", statistics.recorded, sum(refused.values()) + statistics.published),
        ("refused: the two mistakes", REFUSED, refused),
        ("published = delivered + filtered + dropped", statistics.published, ended),
        (f"filtered: the storm beyond its {BURST} events", FILTERED, sink.spam_filtered),
        ("dropped: nothing, in spite of the outage", 0, outcome.dropped),
        ("delivered = created + patched + merged", sink.delivered, sink.created + sink.patched + sink.merged),
        ("aggregated: the similar events beyond the ninth", AGGREGATED, sink.aggregated),
        ("recreated: the event that was deleted", 1, sink.recreated),
        ("the server's events: objects and reasons as expected", sorted(outcome.expected), sorted(held)),
        *(
            (f"the server's count: {about} {reason}", counts, held.get((about, reason), ()))
            for (about, reason), counts in outcome.expected.items()
        ),
    ]


def check_list(found: list[Check], paper: Paper) -> list[Line]:
    """One paragraph per check, with the expected value if it fails."""
    lines: list[Line] = []
    for text, expected, actual in found:
        good = expected == actual
        mark, style, wrong = (
            (paper.good, "good", "") if good else (paper.bad, "bad", f", but must be {_short(expected)}")
        )
        first, *rest = paper.paragraph(f"{text}: {_short(actual)}{wrong}", 4, "" if good else "bad")
        lines += [[(f"  {mark} ", style), (first[0][0][4:], first[0][1])], *rest]
    return lines


def _short(value: object) -> str:
    if isinstance(value, tuple):  # of counts
        times = {count: value.count(count) for count in value}
        return ", ".join(f"{count} ({n} times)" if n > 1 else f"{count}" for count, n in times.items()) or "missing"
    if isinstance(value, dict):
        return ", ".join(f"{number} {name}" for name, number in value.items()) or "none"
    return str(len(value)) if isinstance(value, list) else str(value)


def _numbers(outcome: Outcome, paper: Paper) -> Iterator[Line]:
    """The numbers, each with its meaning."""
    statistics, sink, slowest = outcome.statistics, outcome.sink, f"{outcome.scene.slowest * 1e3:.1f} ms"
    reasons = ", ".join(f"{events} {reason}" for reason, events in statistics.refused.items())
    again = ", one of them created twice, since it had been deleted" if sink.recreated == 1 else ""
    for depth, name, number, meaning in (
        (0, "recorded", statistics.recorded, f"calls of recorder.event(). None raised; the slowest took {slowest}."),
        (1, "refused", sum(statistics.refused.values()), f"were invalid ({reasons}). client-go only logs such calls."),
        (1, "published", statistics.published, "went to the watcher that writes to the API server. Of these:"),
        (2, "filtered", sink.spam_filtered, "spam_filtered: only counted, by the next event that was written."),
        (2, "delivered", sink.delivered, f"reached the API server, in {sink.created + sink.patched} requests:"),
        (3, "created", sink.created, f"requests that created an object: there are {len(outcome.events)}{again}."),
        (3, "patched", sink.patched, "requests that raised the count of an object."),
        (3, "merged", sink.merged, "joined a waiting write of the same object. client-go makes a request for each."),
        (2, "dropped", outcome.dropped, "were lost. Each would be counted here with its reason."),
        (0, "aggregated", sink.aggregated, 'of the published were "combined from similar events".'),
        (0, "recreated", sink.recreated, "patch met 404, because the event was deleted; it was created again."),
        (0, "retried", sink.retried, f"requests failed and were repeated; {outcome.dropped or 'no'} events were lost."),
    ):
        if name == "aggregated":  # from here on, other views of the same events
            yield []
        head = f"  {'  ' * depth}{name:<{15 - 2 * depth}}{number:>5}  "
        first, *rest = paper.paragraph(meaning, len(head))
        yield [(head, "bold"), (first[0][0].strip(), "")]
        yield from rest
