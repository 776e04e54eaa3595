"""What a work queue answers when it has nothing to hand out, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from kevents._model.statistics import DropReason
    from kevents._queue.outcome import Outcome, Verb
    from kevents._queue.work_item import State


class Closed(Enum):
    """Nothing will come any more."""

    CLOSED = "closed"


CLOSED: Final = Closed.CLOSED


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for so many seconds (None: until something changes since ``version``)."""

    seconds: float | None
    version: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A loss: why, the state that was lost, for how many recorded events it stood, and what the server said."""

    reason: DropReason
    state: State
    events: int
    verb: Verb | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class ServerLost:
    """The first request without an answer since the last answer, or since the start."""

    cause: str


@dataclass(frozen=True, slots=True)
class ServerBack:
    """The first answer after that: how many seconds later, and how many keys were waiting."""

    after: float
    waiting: int


Notification: TypeAlias = "Dropped | ServerLost | ServerBack"
