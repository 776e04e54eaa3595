"""The sender threads: take a request, make one attempt, hand back the verdict."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from kevents._queue.notifications import CLOSED, Wait
from kevents._queue.outcome import Outcome, Verb, judge
from kevents._queue.work_item import Attempt
from kevents._runtime.log import in_kevents
from kevents._runtime.worker import A_MOMENT, join, spawn

if TYPE_CHECKING:
    from kevents._clients.sync import EventSink
    from kevents._delivery.dispatcher import Dispatcher
    from kevents._delivery.handlers import Handled
    from kevents._model.objects import Event
    from kevents._model.statistics import SinkStatistics

_SHORTEST = 0.01


def _nothing_to_begin() -> threading.Event:
    begun = threading.Event()
    begun.set()
    return begun


def send(sink: EventSink, attempt: Attempt) -> Outcome:
    """Make one request; whatever the sink raises becomes a verdict."""
    try:
        with in_kevents():
            if attempt.verb is Verb.PATCH:
                sink.patch(attempt.namespace, attempt.name, attempt.body)
            else:
                sink.create(attempt.namespace, attempt.body)
    except BaseException as error:  # noqa: BLE001 - a sink that raises SystemExit must not end its sender either
        return judge(attempt.verb, error)
    return judge(attempt.verb, None)


class SenderThreadPool:
    """A watcher's handler: a delivery, and the threads that send for it.

    The first thread starts with the first event, further ones as the backlog needs them.

    Args:
        delivery: What is to be sent.
        sink: By which.
        senders: How many threads at most.
        name: For the threads' names.
    """

    def __init__(self, delivery: Dispatcher, sink: EventSink, senders: int, name: str) -> None:
        """Start no thread yet."""
        self.sink = sink
        self.most = delivery.most
        self._delivery = delivery
        self._senders = senders
        self._name = name
        self._threads: list[threading.Thread] = []
        self._begun = _nothing_to_begin()
        self._bare = 0
        self.hasten = delivery.hasten
        self.flush = delivery.flush
        self.nudge = delivery.nudge
        self.drain = delivery.drain
        self.taken = delivery.taken

    def start(self) -> None:
        """Start the first sender with the first event, from a bare thread, as the watcher its worker.

        Raises:
            RuntimeError: If no thread is to be had.
        """
        if not self._threads:
            thread, begun = self._new_thread(), threading.Event()
            try:
                spawn(thread, self._run_bare, begun.set)
            except RuntimeError:
                self._threads.remove(thread)
                raise
            self._begun = begun

    def _run_bare(self) -> None:
        self._bare = threading.get_ident()
        self._run()
        self._bare = 0

    def _new_thread(self) -> threading.Thread:
        number = len(self._threads) + 1
        thread = threading.Thread(target=self._run, name=f"kevents-{self._name}-sender-{number}", daemon=True)
        self._threads.append(thread)  # before it starts: its first request may ask whose thread it is
        return thread

    def handle(self, batch: Sequence[Event]) -> Handled:
        """Accept the events, and see to it that somebody sends them. In the watcher's worker."""
        handled = self._delivery.accept(batch)
        self._grow()
        return handled

    def _grow(self) -> None:
        while len(self._threads) < self._senders and self._delivery.lacks_senders():
            thread = self._new_thread()
            try:
                thread.start()
            except RuntimeError:  # no thread to be had now, at interpreter exit never: the next batch tries again
                self._threads.remove(thread)
                return

    def _run(self, deadline: float | None = None) -> None:
        threads = self._threads
        while (step := self._delivery.take(monotonic())) is not CLOSED:
            match step:
                case Wait(seconds, version):
                    self._delivery.wait(version, seconds)
                case Attempt():
                    verdict = send(self.sink if deadline is None else self._within(deadline), step)
                    if self._threads is not threads:
                        return  # the sink forked, and this is the child: it begins anew, in another thread
                    self._delivery.done(step, verdict, monotonic())

    def settle(self, deadline: float) -> None:
        """Wait until everything has ended; without a thread (none starts at interpreter exit) send it here."""
        if not self._threads:
            self._run(deadline)
        self._delivery.settle(deadline)

    def close(self) -> int:
        """Give up what is left; how many events that was."""
        given_up = self._delivery.close()
        deadline = monotonic() + A_MOMENT
        self._begun.wait(A_MOMENT)
        for thread in self._threads:
            join(thread, deadline - monotonic())
        return given_up

    def _within(self, deadline: float) -> EventSink:
        within: Callable[[float], EventSink] | None = getattr(self.sink, "within", None)
        return self.sink if within is None else within(max(deadline - monotonic(), _SHORTEST))

    def after_fork(self) -> None:
        """In the child: no thread yet, nothing to send, and a sink that connects anew."""
        self._threads = []
        self._begun = _nothing_to_begin()
        self._delivery.after_fork()
        after_fork = getattr(self.sink, "after_fork", None)
        if after_fork is not None:
            after_fork()

    def finish(self) -> None:
        """The last batch was accepted."""
        self._delivery.finish()

    def owns_this_thread(self) -> bool:
        """Whether the calling thread is one of its senders."""
        me = threading.get_ident()  # of a thread that has ended, another may have inherited it
        mine = me == self._bare or any(thread.ident == me and thread.is_alive() for thread in self._threads)
        return mine or self._delivery.owns_this_thread()

    def statistics(self) -> SinkStatistics:
        """The sink's ledger."""
        return self._delivery.statistics()
