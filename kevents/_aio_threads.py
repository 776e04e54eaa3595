"""Waits that block, in a daemon thread of their own, so that no event loop stands still for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TypeVar

R = TypeVar("R")


def in_thread(name: str, wait: Callable[[float | None], R], deadline: float | None) -> asyncio.Future[R]:
    """Call a function that waits until a deadline; its result comes to the running loop, unless that has ended.

    Not the loop's executor: that may be full of the user's work, and joins its threads at the end. Cancelling the
    future ends nothing but the wait for it.

    Args:
        name: Of the thread.
        wait: Gets the deadline; never raises.
        deadline: In monotonic seconds; None: none.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    def run() -> None:
        result = wait(deadline)
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(_settle, future, result)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:  # no thread is to be had: it is done without waiting
        future.set_result(wait(monotonic()))
    return future


def _settle(future: asyncio.Future[R], result: R) -> None:
    if not future.done():
        future.set_result(result)
