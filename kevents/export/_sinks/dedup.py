"""Which records of a batch a destination does not hold yet, by its own mark.

Marks of a stream only grow, also when the cluster's storage was reset and resourceVersions began anew. A batch whose
mark is lower than the destination's own is therefore held already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kevents.export._model.types import Batch, Position, Record


@dataclass(frozen=True, slots=True)
class Unwritten:
    """What of a batch is to be written.

    Attributes:
        records: In order; none if only the mark has moved.
        mark: How far the stream is held with them.
    """

    records: Sequence[Record]
    mark: Position

    @property
    def first(self) -> int:
        """The lowest resourceVersion of the records, that of the mark without any."""
        return min((record.rv for record in self.records), default=self.mark.rv)


def news(batch: Batch, own: Position | None) -> Unwritten | None:
    """Leave out what the destination holds: the last batch that comes again, and what overlaps with it.

    Args:
        batch: What is to be written.
        own: How far the destination holds the stream.

    Returns:
        None if it holds all of it, its mark too.
    """
    if own is None:
        return Unwritten(batch.records, batch.mark)
    if (batch.mark.rv, batch.mark.time) <= (own.rv, own.time):
        return None
    return Unwritten([record for record in batch.records if record.rv > own.rv], batch.mark)
