"""Doubles for asyncio: a sink of coroutines that follows a script and can be held, and loops in a thread."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from tests.support.sinks import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from kevents import aio

__all__ = ["AsyncSink", "Loop", "Plain", "run"]


class AsyncSink:
    """Records the requests, and fails by call number, from 1. For one event loop at a time.

    Args:
        faults: For a call's number an exception to raise, or a function, plain or a coroutine function, to call.
        always: The same for every other call.
        held: Whether calls wait until `release`.

    Attributes:
        calls: All requests that arrived.
        written: The requests that succeeded.
        closed: How often it was closed.
        doubled: Keys that had two concurrent writes; must stay empty.
        most_at_once: The highest number of concurrent calls.
    """

    def __init__(
        self,
        faults: dict[int, BaseException | Callable[[Call], object]] | None = None,
        always: BaseException | Callable[[Call], object] | None = None,
        *,
        held: bool = False,
    ) -> None:
        self.calls: list[Call] = []
        self.written: list[Call] = []
        self.closed = 0
        self.doubled: list[tuple[str, str]] = []
        self.most_at_once = 0
        self._faults = faults or {}
        self._always = always
        self._held = held
        self._under_way: list[tuple[str, str]] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def create(self, namespace: str, body: dict[str, Any], /) -> None:
        """Create an event."""
        await self._call(Call("create", namespace, body["metadata"]["name"], body))

    async def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
        """Patch an event."""
        await self._call(Call("patch", namespace, name, patch))

    async def close(self) -> None:
        """Count the call."""
        await asyncio.sleep(0)
        self.closed += 1

    async def _call(self, call: Call) -> None:
        key = call.namespace, call.name
        self.calls.append(call)
        number = len(self.calls)
        if key in self._under_way:
            self.doubled.append(key)
        self._under_way.append(key)
        self.most_at_once = max(self.most_at_once, len(self._under_way))
        self._wake()
        try:
            while self._held:
                await self._change()
            await asyncio.sleep(0)
            await self._fail(self._faults.get(number, self._always), call)
        finally:
            self._under_way.remove(key)
        self.written.append(call)
        self._wake()

    async def _fail(self, fault: object, call: Call) -> None:
        if isinstance(fault, BaseException):
            raise fault
        if callable(fault):
            result = fault(call)
            if asyncio.iscoroutine(result):
                await result

    def release(self) -> None:
        """Let all held and later calls proceed."""
        self._held = False
        self._wake()

    async def wait_calls(self, number: int) -> None:
        """Wait until that number of requests has arrived."""
        while len(self.calls) < number:
            await self._change()

    async def wait_written(self, number: int) -> None:
        """Wait until that number of requests has succeeded."""
        while len(self.written) < number:
            await self._change()

    async def _change(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    @property
    def messages(self) -> list[str]:
        """The messages of the written events."""
        return [call.message for call in self.written]


def run(coroutine: Any, *, debug: bool = False, timeout: float = 60.0) -> Any:
    """Run a coroutine in a new event loop, with a timeout."""

    async def main() -> Any:
        return await asyncio.wait_for(coroutine, timeout)

    return asyncio.run(main(), debug=debug)


class Loop:
    """An event loop in a thread, which runs coroutines to their end."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def close(self) -> None:
        """End the loop and the thread."""
        self.loop.call_soon_threadsafe(self._abort)
        for _ in range(5):
            self.run(asyncio.sleep(0))  # turns in which closed and aborted connections really end
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()

    def _abort(self) -> None:
        """Close the connections that a client abandoned during a response."""
        for transport in list(self.loop._transports.values()):  # type: ignore[attr-defined]
            transport.abort()


class Plain:
    """A plain sink that runs each call of an asynchronous one to its end."""

    def __init__(self, sink: aio.EventSink, loop: Loop) -> None:
        self.sink = sink
        self._loop = loop

    def create(self, namespace: str, body: dict[str, Any], /) -> None:
        """Create an event."""
        self._loop.run(self.sink.create(namespace, body))

    def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
        """Apply a patch."""
        self._loop.run(self.sink.patch(namespace, name, patch))

    def __repr__(self) -> str:
        """The repr of the sink."""
        return repr(self.sink)
