"""Waits that block, in a daemon thread of their own, so that no event loop stands still for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final, TypeVar

R = TypeVar("R")

_NOW_AND_THEN: Final = 0.5


def in_thread(name: str, wait: Callable[[float | None], R], deadline: float | None) -> asyncio.Future[R]:
    """Call a function that waits until a deadline; its result comes to the running loop, unless that has ended.

    Not the loop's executor: that may be full of the user's work, and joins its threads at the end. Cancelling the
    future ends nothing but the wait for it.

    Args:
        name: Of the thread.
        wait: Gets the deadline; what it raises is raised where the future is awaited.
        deadline: In monotonic seconds; None: none.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    def run() -> None:
        try:
            settle = partial(future.set_result, wait(deadline))
        except BaseException as error:  # noqa: BLE001 - whoever waits is to hear of it, not to wait for ever
            settle = partial(future.set_exception, error)
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(_unless_done, future, settle)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:  # no thread is to be had: it is done without waiting
        future.set_result(wait(monotonic()))
    return future


async def watched(future: asyncio.Future[R], look: Callable[[], object]) -> R:
    """Await what another thread waits for; ``look`` is called now and then, for what nothing tells of."""
    try:
        while not future.done():
            await asyncio.wait([future], timeout=_NOW_AND_THEN)
            look()
        return future.result()
    finally:
        future.cancel()


def _unless_done(future: asyncio.Future[R], settle: Callable[[], None]) -> None:
    if not future.done():
        settle()
