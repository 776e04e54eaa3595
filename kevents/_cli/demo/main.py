"""The command ``kevents demo``: a pretend operator records, an API server fails, and the numbers come out right."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TextIO

from kevents._broadcast.broadcaster import EventBroadcaster
from kevents._cli.demo.cluster import ClusterError, opened
from kevents._cli.demo.paper import Paper, is_terminal
from kevents._cli.demo.report import Check, Outcome, check_list, checks, numbers
from kevents._cli.demo.screen import LiveScreen, PlainScreen, Screen
from kevents._cli.demo.story import Counts, Key, Scene, Stage, counts_of, stages
from kevents._correlation.options import CorrelatorOptions
from kevents._model.wire import printable
from kevents.testing import FakeClock

if TYPE_CHECKING:
    from kevents._cli.demo.cluster import EmbeddedCluster, RealCluster

__all__ = ["SECONDS", "ClusterError", "Settings", "demonstrate"]

SECONDS: Final = 12.0
_PLAIN_WIDTH: Final = 100
_SLEEP_DURATION: Final = 1.0
_HOLD: Final = 0.35
_LONGEST_SETTLING: Final = 10.0
_LONGEST_NOTE: Final = 250


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes:
        kubeconfig: Of the cluster; None for an embedded API server.
        seconds: About how long the story is to take.
        plain: Whether lines are to be appended even on a terminal.
    """

    kubeconfig: str | None = None
    seconds: float = SECONDS
    plain: bool = False


def demonstrate(settings: Settings, stream: TextIO) -> int:
    """Play the story, and check its numbers.

    Args:
        settings: What the user asked for.
        stream: Where to show it.

    Returns:
        0 if the numbers are what they must be, else 1.

    Raises:
        ClusterError: If there is no cluster to be had, or it went away.
    """
    live = is_terminal(stream) and not settings.plain
    paper = Paper(stream, colour=live and not os.environ.get("NO_COLOR"), width=None if live else _PLAIN_WIDTH)
    with opened(settings.kubeconfig) as cluster:
        screen = (LiveScreen if live else PlainScreen)(paper, cluster.events)
        try:
            outcome = _play(cluster, screen, settings.seconds / SECONDS)
        finally:
            cluster.come_back()
            screen.close()
        found = checks(outcome)
        _conclude(outcome, found, paper)
    if settings.kubeconfig is not None:
        paper.write([], [("The events of this demonstration have been removed from the cluster.", "dim")])
    return 0 if all(check.good for check in found) else 1


def _play(cluster: EmbeddedCluster | RealCluster, screen: Screen, scale: float) -> Outcome:
    clock = FakeClock()
    story = stages(cluster.suffix, cluster.outage, scale)
    expected: dict[Key, Counts] = {}
    broadcaster = EventBroadcaster(correlator_options=CorrelatorOptions(clock=clock), sleep_duration=_SLEEP_DURATION)
    with broadcaster, _log_to(screen.note):
        broadcaster.start_recording_to_sink(cluster.sink)
        scene = Scene(cluster, broadcaster.new_recorder(cluster.component), clock)
        screen.open(_title(cluster.title), story)
        for stage in story:
            screen.begin(stage)
            for seconds in stage.play(scene):
                screen.pause(seconds * scale)
            _settle(lambda: _is_idle(broadcaster), screen)
            expected.update(stage.expected)
            screen.finish(stage, good=_holds(stage, cluster))
            screen.pause(_HOLD * scale)
        broadcaster.flush(_LONGEST_SETTLING)
        given_up = broadcaster.shutdown()
    return Outcome(scene.recorded, scene.slowest, broadcaster.statistics(), cluster.events(), given_up, expected)


def _title(where: str) -> list[tuple[str, str]]:
    return [("kevents demo", "head"), (f": a pretend backup operator, and {where}", "")]


def _holds(stage: Stage, cluster: EmbeddedCluster | RealCluster) -> bool:
    held = counts_of(cluster.events())
    return all(held.get(key) == counts for key, counts in stage.expected.items())


def _settle(idle: Callable[[], bool], screen: Screen) -> None:
    """Let the work queue do its work in its own time; nothing is hastened."""
    deadline = time.monotonic() + _LONGEST_SETTLING
    while not idle() and time.monotonic() < deadline:
        screen.pause(0.05)


def _is_idle(broadcaster: EventBroadcaster) -> bool:
    return all(
        not watcher.waiting and not (watcher.sink and watcher.sink.backlog)
        for watcher in broadcaster.statistics().watchers
    )


def _conclude(outcome: Outcome, found: list[Check], paper: Paper) -> None:
    bad = sum(not check.good for check in found)
    paper.write([], [(f"What became of {outcome.statistics.recorded} events", "head")], [])
    paper.write(*numbers(outcome, paper))
    paper.write([], [("Are the numbers what they must be?", "head")], [])
    paper.write(*check_list(found, paper), [])
    if bad:
        paper.write([(f"{bad} of {len(found)} checks failed: this is a bug in kevents, please report it.", "bad")])
    else:
        paper.write([(f"All {len(found)} checks hold.", "good")])


class _Notes(logging.Handler):
    """Shows what kevents logs as part of the demonstration."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        text = printable(record.getMessage())
        self._show(text if len(text) <= _LONGEST_NOTE else f"{text[: _LONGEST_NOTE - 3]}...")


@contextmanager
def _log_to(show: Callable[[str], None]) -> Iterator[None]:
    logger = logging.getLogger("kevents")
    handler, level, propagate = _Notes(show), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
