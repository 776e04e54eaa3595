"""What may be missing between a position and a list: whether anything can be, and where that ends."""

from __future__ import annotations

from kevents.export._model.position import AGE, Order, number_of
from kevents.export._model.types import Position
from kevents.export._source.listing import ListResult

EXPIRED = "expired"
RESET = "reset"


def why_gap(before: Position, listed: ListResult, order: Order, now: int, life: float) -> str:
    """Tell whether events may be missing between a position and a list, and why; empty if none can be.

    Events expire in the order in which they were last written. So nothing written after the position has expired while
    one written before it still lives, and none while the pause was shorter than their life.

    Args:
        before: How far the stream had been read.
        listed: What the list was.
        order: The stream's, before anything of the list has been taken.
        now: When it was listed, in nanoseconds since the epoch.
        life: For how many seconds the server keeps an event after its last write.
    """
    if order.last // AGE > before.rv // AGE:
        return RESET
    if now - before.time <= life * 1_000_000_000 or listed.reaches_back:
        return ""
    return EXPIRED if end_of_gap(listed, order, now) > order.last else ""


def end_of_gap(listed: ListResult, order: Order, now: int) -> int:
    """Give the last place where something may be missing: a destination that is beyond it lacks nothing of the gap.

    Args:
        listed: What the list was.
        order: The stream's, before anything of the list has been taken.
        now: When it was listed, in nanoseconds since the epoch: without an order nobody can tell what was written when.
    """
    number = number_of(listed.version)
    if number is None:
        return order.invent(now)
    return order.place(number) if listed.lowest is None else listed.lowest - 1
