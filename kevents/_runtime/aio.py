"""Blocking calls that an event loop awaits, each in a daemon thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final, TypeVar

R = TypeVar("R")

_POLL_INTERVAL: Final = 0.5


def run_in_thread(name: str, function: Callable[..., R], *deadline: float | None) -> asyncio.Future[R]:
    """Call a blocking function in a daemon thread. Its result or exception goes to the running loop.

    The loop's executor is not used: it may be full of the user's work, and it joins its threads at exit. Cancelling the
    future does not interrupt the function. It gets the deadline, in monotonic seconds, if one is given.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    def run() -> None:
        try:
            settle = partial(future.set_result, function(*deadline))
        except BaseException as error:  # noqa: BLE001 - the awaiting task must see it, or it would wait for ever
            settle = partial(future.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_unless_done, future, settle)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:  # no thread can be started: call it here, with a deadline that has passed
        future.set_result(function(*(monotonic() for _ in deadline)))
    return future


def _unless_done(future: asyncio.Future[R], settle: Callable[[], None]) -> None:
    if not future.done():
        settle()


async def await_polling(future: asyncio.Future[R], poll: Callable[[], object]) -> R:
    """Await a future and call ``poll`` twice a second meanwhile, for changes without a notification."""
    try:
        while not future.done():
            await asyncio.wait([future], timeout=_POLL_INTERVAL)
            poll()
        return future.result()
    finally:
        future.cancel()
