"""A batch in parts: what the destination refuses is narrowed down, what it has taken is not sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from kevents.export._model.types import Batch, Position, Record, Reject
from kevents.export._sinks.http import RefusedError

MOST_REQUESTS: Final = 64
"""How many requests narrowing down costs at most, for a batch; what is left then is refused as a whole."""

_Key: TypeAlias = tuple[Position, int, str]


class Delivery:
    """The batch that is under way: which of its records the destination has answered for.

    An attempt that fails in the middle is gone on with, not begun anew, when the same batch comes again.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._key: _Key | None = None
        self._parts: list[Sequence[Record]] = []
        self._refused: list[Record] = []
        self._why = ""
        self._requests = 0

    def run(
        self,
        batch: Batch,
        parts: Callable[[Sequence[Record]], Iterable[Sequence[Record]]],
        send: Callable[[Sequence[Record]], None],
    ) -> None:
        """Send a batch part by part.

        Args:
            batch: What is to be sent.
            parts: Cuts it into what is sent at once.
            send: Sends a part.

        Raises:
            Retry: As `send` does.
            Reject: Some of it was refused; everything else has been taken.
        """
        if not batch.records:
            return
        key = (batch.mark, len(batch.records), batch.records[0].id)
        if key != self._key:
            self._key, self._parts = key, [*parts(batch.records)][::-1]
            self._refused, self._why, self._requests = [], "", 0
        while self._parts:
            self._send(self._parts[-1], send)
        refused, self._key = self._refused, None
        if refused:
            raise Reject(self._why, refused)

    def _send(self, part: Sequence[Record], send: Callable[[Sequence[Record]], None]) -> None:
        """Send the last part; one that is refused is halved, the earlier half first."""
        rest: list[Sequence[Record]] = []
        try:
            send(part)
        except RefusedError as error:
            self._why = str(error)
            self._requests += 1
            if len(part) > 1 and self._requests < MOST_REQUESTS:
                middle = len(part) // 2
                rest = [part[middle:], part[:middle]]
            else:
                self._refused.extend(part)
        self._parts[-1:] = rest
