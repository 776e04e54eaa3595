"""Sender threads: each takes an attempt, makes its request, and reports the outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

from kevents._delivery.dispatcher import SenderPool
from kevents._queue.outcome import DELIVERED, Outcome, Verb, outcome_of
from kevents._queue.work_item import CLOSED, Attempt, Wait
from kevents._runtime.log import in_kevents
from kevents._runtime.reentrant import JOIN_TIMEOUT, join, spawn

if TYPE_CHECKING:
    from kevents._clients.sync import EventSink
    from kevents._delivery.dispatcher import Dispatcher
    from kevents._delivery.handlers import Handled
    from kevents._model.objects import Event

_SHORTEST = 0.01


def _nothing_to_begin() -> threading.Event:
    begun = threading.Event()
    begun.set()
    return begun


def send(sink: EventSink, attempt: Attempt) -> Outcome:
    """Make one request. An exception of the sink becomes an outcome."""
    try:
        if attempt.verb is Verb.PATCH:
            sink.patch(attempt.namespace, attempt.name, attempt.body)
        else:
            sink.create(attempt.namespace, attempt.body)
    except BaseException as error:  # noqa: BLE001 - a sink that raises SystemExit must not end its sender either
        return outcome_of(attempt.verb, error)
    return DELIVERED


class SenderThreadPool(SenderPool):
    """Writes a watcher's events from threads.

    The first thread starts with the first event, more threads as pending writes need them.
    """

    sink: EventSink

    def __init__(self, dispatcher: Dispatcher, sink: EventSink, senders: int, name: str) -> None:
        super().__init__(dispatcher, sink, senders, name)
        self._threads: list[threading.Thread] = []
        self._claim = count().__next__  # returns 0 once
        self._begun = _nothing_to_begin()
        self._bare = 0

    def start(self) -> None:
        """Start the first sender, from a bare thread, as the watcher starts its worker."""
        if self._threads or self._claim():
            return  # another call has started it, or is about to; without it, handle() starts one
        thread, begun = self._new_thread(), threading.Event()
        try:
            spawn(thread, self._run_bare, begun.set)
        except RuntimeError:
            self._threads.remove(thread)
            self._claim = count().__next__
            raise
        self._begun = begun

    def _run_bare(self) -> None:
        self._bare = threading.get_ident()
        self._run()
        self._bare = 0

    def _new_thread(self) -> threading.Thread:
        number = len(self._threads) + 1
        thread = threading.Thread(target=self._run, name=f"kevents-{self._name}-sender-{number}", daemon=True)
        self._threads.append(thread)  # before it starts: its first request may call owns_this_thread
        return thread

    def handle(self, batch: Sequence[Event]) -> Handled:
        """Accept the events, and start the threads that they need. In the watcher's worker."""
        handled = self._dispatcher.accept(batch)
        while len(self._threads) < self._senders and self._dispatcher.lacks_senders():
            number = len(self._threads)
            try:
                self._new_thread().start()
            except RuntimeError:  # at interpreter exit, and in isolated subinterpreters; the next batch tries again
                del self._threads[number:]
                break
        return handled

    def _run(self, deadline: float | None = None) -> None:
        with in_kevents():  # once for the thread, which does nothing else
            self._send_all(deadline)

    def _send_all(self, deadline: float | None) -> None:
        threads = self._threads
        while (step := self._dispatcher.take(monotonic())) is not CLOSED:
            match step:
                case Wait(seconds, version):
                    self._dispatcher.wait(version, seconds)
                case Attempt():
                    outcome = send(self.sink if deadline is None else self._within(deadline), step)
                    if self._threads is not threads:
                        return  # the sink forked, and this is the child, which starts afresh in another thread
                    self._dispatcher.done(step, outcome, monotonic())

    def _within(self, deadline: float) -> EventSink:
        within: Callable[[float], EventSink] | None = getattr(self.sink, "within", None)
        return self.sink if within is None else within(max(deadline - monotonic(), _SHORTEST))

    def stop(self, deadline: float) -> int:
        """Wait until all accepted events have ended, and drop the rest at the deadline.

        Without a thread (none can be started at interpreter exit), the calling thread sends.
        """
        if not self._threads and monotonic() < deadline:
            self._run(deadline)
        dropped = self._dispatcher.stop(deadline)
        until = monotonic() + JOIN_TIMEOUT
        self._begun.wait(JOIN_TIMEOUT)
        for thread in self._threads:
            join(thread, until - monotonic())
        return dropped

    def after_fork(self) -> None:
        """In a forked child: no thread yet, and nothing to send."""
        self._threads = []
        self._claim = count().__next__
        self._begun = _nothing_to_begin()
        super().after_fork()

    def owns_this_thread(self) -> bool:
        """True if the calling thread is one of the senders, or interrupts a call of the dispatcher."""
        me = threading.get_ident()  # a new thread may have the number of one that has ended
        mine = me == self._bare or any(thread.ident == me and thread.is_alive() for thread in self._threads)
        return mine or super().owns_this_thread()
