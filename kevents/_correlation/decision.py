"""The write that an event deserves: the interface between the correlators and the dispatcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from kevents._model.objects import Event
    from kevents._queue.work_item import Key, State


class Write(NamedTuple):
    """A state to write.

    Attributes:
        state: The event with its present count.
        there: Whether the API object was written before.
        due: When to write it, in monotonic seconds. None: at once.
        catch_up: True if the rate limit holds the event back, and the write only brings its count up to date.
    """

    state: State
    there: bool
    due: float | None = None
    catch_up: bool = False


class Decider(Protocol):
    """Decides on events, one after the other, in one thread."""

    def decide(self, event: Event, now: float) -> Write | None:
        """The write for an event. None if the rate limit holds it back."""

    def overdue(self) -> Sequence[Key]:
        """Keys whose delayed write is due now, since the last call."""

    @property
    def aggregated(self) -> int:
        """Events that became part of a combined event or a series."""

    @property
    def fallbacks(self) -> int:
        """Events for which a user's function failed and the default decided."""

    @property
    def caches(self) -> Mapping[str, tuple[int, int]]:
        """For each cache, the number of keys it holds and the number of evicted keys."""
