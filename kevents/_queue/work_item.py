"""One API object's pending write, and the attempt on it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from kevents._queue.outcome import Verb

if TYPE_CHECKING:
    from kevents._model.objects import Json

Key = tuple[str, str]


class State(Protocol):
    """What a slot holds: an immutable snapshot that knows its bodies."""

    @property
    def namespace(self) -> str:
        """Where the API object lives."""

    @property
    def name(self) -> str:
        """What the API object is called."""

    def to_dict(self) -> Json:
        """The body of a create."""

    def to_patch(self) -> Json:
        """The body of a patch."""


class ServerState(Enum):
    """What is known of the object at the server."""

    ABSENT = "absent"
    UNKNOWN = "unknown"
    PRESENT = "present"


class Attempt:
    """One request to make. Its body is built when asked for, outside the caller's lock."""

    __slots__ = ("began", "events", "slot", "state", "verb")

    def __init__(self, slot: WorkItem, now: float) -> None:
        """Take the slot's present state along."""
        self.slot = slot
        self.began = now
        self.state = slot.state
        self.events = slot.events
        self.verb = Verb.PATCH if slot.belief is ServerState.PRESENT else Verb.CREATE

    @property
    def namespace(self) -> str:
        """Of the API object."""
        return self.slot.key[0]

    @property
    def name(self) -> str:
        """Of the API object."""
        return self.slot.key[1]

    @property
    def body(self) -> Json:
        """What to send."""
        return self.state.to_patch() if self.verb is Verb.PATCH else self.state.to_dict()

    @property
    def waits(self) -> int:
        """How often this write has waited already."""
        return self.slot.waits


class WorkItem:
    """One API object's pending write."""

    __slots__ = (
        "ages_from", "attempt", "attempted", "belief", "by_choice", "changes", "due", "events", "failed", "first_offer",
        "heard", "hurried", "key", "next_due", "next_events", "next_first_offer", "next_state", "order",
        "pending_since", "state", "tries", "waits",
    )  # fmt: skip

    def __init__(self, key: Key, now: float) -> None:
        """Empty; :meth:`restart` fills it."""
        self.key = key
        self.attempt: Attempt | None = None
        self.attempted = 0
        self.ages_from = now
        self.order = 0
        self.due = 0.0
        self.by_choice = False
        self.next_state: State | None = None
        self.next_events = 0
        self.next_first_offer = 0
        self.next_due: float | None = None

    def restart(self, state: State, belief: ServerState, events: int, first_offer: int, now: float) -> None:
        """Begin a write: nothing tried yet. Offers are numbered."""
        self.state = state
        self.belief = belief
        self.events = events
        self.first_offer = first_offer
        self.pending_since = now
        self.heard: int | None = None
        self.tries = self.waits = self.changes = 0
        self.failed = self.hurried = False

    def wait_after(self, wait: float) -> float:
        """How long the next try waits: not at all, once, if the present one was to be hurried."""
        hurried, self.hurried = self.hurried, False
        return 0.0 if hurried else wait

    def merge(self, state: State, now: float) -> None:
        """The newest state wins; it stands for one event more. A create stays a create."""
        self.state = state
        self.events += 1
        self.ages_from = now

    def merge_next(self, state: State, now: float, offer: int, due: float | None) -> bool:
        """As :meth:`merge`, while an attempt is under way: for the next write. Whether it joined others there."""
        joins = self.next_state is not None
        if not joins:
            self.next_first_offer = offer
            self.next_due = due
        elif self.next_due is not None:
            self.next_due = due
        self.next_state = state
        self.next_events += 1
        self.ages_from = now
        return joins

    def absorb_next(self) -> bool:
        """Let what was merged during an attempt join what the attempt carried. Whether there was anything."""
        if self.next_state is None:
            return False
        self.state = self.next_state
        self.events += self.next_events
        self.forget_next()
        return True

    def forget_next(self) -> None:
        """Nothing is merged any more."""
        self.next_state, self.next_events, self.next_due = None, 0, None
