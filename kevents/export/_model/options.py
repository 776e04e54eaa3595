"""The options of a destination: when a batch closes, how long its queue is, and how failures are retried."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal

from tenacity.stop import stop_base, stop_never
from tenacity.wait import wait_base, wait_random_exponential

from kevents._model.validation import require_count, require_positive
from kevents.export._model.types import Sink


class Backoff:
    """Waits that grow with each failure in a row: at most `first` seconds, then twice that, up to `longest`.

    With jitter, each wait is a random part of its limit, so that clients do not retry together.
    """

    def __init__(self, first: float = 0.5, longest: float = 60.0, *, jitter: bool = True) -> None:
        self._first = first  # the upper limit of the first wait, in seconds
        self._longest = longest  # the upper limit of every wait, in seconds
        self._jitter = jitter
        self.failures = 0  # the number of failures since the last success

    def next(self, asked: float | None = None) -> float:
        """Count a failure and return the seconds to wait, at least those the server asked for."""
        limit = min(self._longest, self._first * 2.0 ** min(self.failures, 60))
        self.failures += 1
        wait = random.uniform(0, limit) if self._jitter else limit  # noqa: S311 - no secret
        return max(wait, asked or 0.0)

    def reset(self) -> None:
        """Start again at the first wait, after a success."""
        self.failures = 0


WhenFull = Literal["block", "drop"]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """A batch closes at the first of three limits.

    Attributes:
        max_items: Records.
        max_bytes: Bytes of their lines before compression; a longer record is a batch of its own.
        max_age: Seconds since the batch's first record came.

    Raises:
        ValueError: If a limit is no positive number.
    """

    max_items: int = 1000
    max_bytes: int = 5 << 20
    max_age: float = 10.0

    def __post_init__(self) -> None:
        require_count("max_items", self.max_items)
        require_count("max_bytes", self.max_bytes)
        require_positive("max_age", self.max_age)


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """The limits of a destination's queue, with the batch in flight.

    Records are accepted while the queue is below both limits, so one hand-over (at most 500 records) may exceed them.

    Attributes:
        max_items: Records.
        max_bytes: Bytes of their lines; a record takes several times as much memory.

    Raises:
        ValueError: If a limit is no positive whole number.
    """

    max_items: int = 5000
    max_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        require_count("queue max_items", self.max_items)
        require_count("queue max_bytes", self.max_bytes)


RETRY_WAIT: Final = wait_random_exponential(multiplier=0.5, max=60)
"""Full jitter: a random time up to 0.5, 1, 2 ... 60 seconds."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A sink with its options; a bare sink gets the defaults.

    A sink that stores no position has an attribute `holds_positions = False`. It starts where the other destinations
    are. Wrapped in :class:`Checkpointed` it has its own position. A write that raises is retried, except for the types
    in an attribute `final_errors`, which end the export.

    Attributes:
        sink: The sink.
        batch: When its batches close.
        queue: The limits of its queue.
        when_full: ``"block"``: while the queue is full, the source is not read, and nothing is lost as long as the
            cluster keeps its events. ``"drop"``: records beyond the limit are dropped and counted.
        retry_wait: A tenacity wait between attempts of a batch; by default full jitter, 0.5 to 60 s. A time for which
            the destination asks comes first, up to 60 s.
        retry_stop: A tenacity stop after which a batch goes to the dead letters; by default never.
        write_timeout: Seconds after which a running write is reported as overdue. It is not cancelled: Python cannot
            end a call, and a second one beside it would break the order.

    Raises:
        ValueError: If an option is invalid.
    """

    sink: Sink
    batch: BatchOptions = BatchOptions()
    queue: QueueOptions = QueueOptions()
    when_full: WhenFull = "block"
    retry_wait: wait_base = RETRY_WAIT
    retry_stop: stop_base = stop_never
    write_timeout: float = 60.0

    @property
    def holds_positions(self) -> bool:
        """False if the sink never stores a position; True if no position means that it holds no records."""
        return bool(getattr(self.sink, "holds_positions", True))

    @property
    def final_errors(self) -> tuple[type[BaseException], ...]:
        """The sink's errors that end the export."""
        return tuple(getattr(self.sink, "final_errors", ()))

    def __post_init__(self) -> None:
        for method in ("write", "last_position", "close"):
            if not callable(getattr(self.sink, method, None)):
                raise ValueError(f"{type(self.sink).__name__} is not a sink: it has no method {method}")
        if self.when_full not in {"block", "drop"}:
            raise ValueError(f"when_full must be 'block' or 'drop', not {self.when_full!r}")
        require_positive("write_timeout", self.write_timeout)
