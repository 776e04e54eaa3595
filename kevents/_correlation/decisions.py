"""Which write a recorded event deserves, whatever decides it: the seam between deciding and delivering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kevents._correlation.correlator import EventCorrelator
from kevents._model.wire import clip, clip_json

if TYPE_CHECKING:
    from kevents._correlation.options import CorrelatorOptions
    from kevents._model.objects import Event
    from kevents._queue.work_item import Key, State

_SERVER_LIMIT = 1 << 20
_REQUEST_LIMIT = 5 << 19  # of 3 MiB for the whole body


class Write(NamedTuple):
    """A state to be written: whether its object was written before, and when, if it can wait (monotonic seconds)."""

    state: State
    there: bool
    due: float | None = None


class Decider(Protocol):
    """Decides on one event after the other; belongs to one thread."""

    def decide(self, event: Event, now: float) -> Write | None:
        """The write that an event deserves; None: the rate limit says none."""

    def overdue(self) -> Sequence[Key]:
        """The keys whose write can wait no longer, since the last call."""

    @property
    def aggregated(self) -> int:
        """How many events became part of a combined one."""

    @property
    def fallbacks(self) -> int:
        """For how many events a user's function failed and a default decided."""

    @property
    def caches(self) -> Mapping[str, tuple[int, int]]:
        """Of each memory, how many keys it holds and how many it has forgotten."""


class CoreDecider(EventCorrelator):
    """Decides for core/v1, as the correlator says.

    Args:
        options: For the correlator.
        max_message_bytes: To which a message is cut; None: only what the server could never store is cut.
    """

    def __init__(self, options: CorrelatorOptions | None, max_message_bytes: int | None) -> None:
        """Start with nothing seen."""
        super().__init__(options)
        self._limit = max_message_bytes or _SERVER_LIMIT

    def decide(self, event: Event, now: float) -> Write | None:  # noqa: ARG002 - the options have a clock
        """The write that an event deserves."""
        result = self.correlate(event)
        if result is None:
            return None
        message = clip_json(clip(result.message, self._limit), _REQUEST_LIMIT)
        if message is not result.message:
            result = result.replace(message=message)
        return Write(result, there=result.count > 1)

    def overdue(self) -> Sequence[Key]:
        """Nothing waits by choice."""
        return ()
