"""A TCP proxy on the loopback interface that simulates network faults. It does not parse the data, so TLS passes.

One thread serves all connections. Data of a client is read as soon as it arrives, and forwarded when the mode
allows it. Once the client has closed, its remaining data is discarded.
"""

from __future__ import annotations

import contextlib
import queue
import random
import selectors
import socket
import struct
import threading
from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["BlackHole", "Cut", "Lossy", "Mode", "Pass", "Proxy", "Refuse", "Slow"]

_CHUNK: Final = 1 << 16
_AGAIN: Final = 0.005
_PATIENCE: Final = 10.0


@dataclass(frozen=True)
class Pass:
    """Forward everything at once."""


@dataclass(frozen=True)
class Slow:
    """Forward everything with a delay.

    Attributes:
        delay: Seconds that each piece is delayed, in each direction.
        bytes_per_second: The bandwidth; None for unlimited.
    """

    delay: float = 0.05
    bytes_per_second: float | None = None


@dataclass(frozen=True)
class Lossy:
    """Cut connections at random moments of a request and its response.

    Attributes:
        share: The fraction of the requests that are cut off, at one of the three moments of `Cut`.
    """

    share: float = 0.1


@dataclass(frozen=True)
class Refuse:
    """Cut every connection and stop listening: new connections are refused."""


@dataclass(frozen=True)
class BlackHole:
    """Accept connections and forward nothing. Discarded data is never forwarded later."""


Mode = Pass | Slow | Lossy | Refuse | BlackHole


class Cut(Enum):
    """When a connection was cut."""

    BEFORE = "before the question was forwarded"
    AFTER = "after it was forwarded, before its answer"
    MIDDLE = "in the middle of the answer"


class Proxy:
    """Stands in front of a server; a context manager: `start` and `stop`.

    Args:
        port: The server's port on the loopback interface.
        seed: The random seed of the cuts.

    Attributes:
        mode: The current mode; `become` changes it.
        accepted: The number of accepted connections.
        forwarded: The number of bytes forwarded to the server.
        cuts: The number of cut connections, by moment.
    """

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self.mode: Mode = Pass()
        self.accepted = 0
        self.forwarded = 0
        self.cuts: Counter[Cut] = Counter()
        self.random = random.Random(seed)
        self.target = ("127.0.0.1", port)
        self.port = 0
        self.links: set[_Link] = set()
        self.selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._bell, self._ear = socket.socketpair()
        self._ear.setblocking(False)
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    # Life

    def start(self) -> Self:
        """Listen on a free port."""
        self.selector.register(self._ear, selectors.EVENT_READ, self._hear)
        self._listen()
        self._thread.start()
        return self

    def stop(self) -> None:
        """Cut every connection, stop listening and end the thread."""
        self._order(self._end)
        self._thread.join(_PATIENCE)
        for sock in (self._bell, self._ear):
            sock.close()
        self.selector.close()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def become(self, mode: Mode) -> None:
        """Change the mode, also of open connections. The mode is in force on return."""
        self._order(lambda: self._change(mode))

    # Inside, in the proxy's thread

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self.selector.select(self._patience()):
                key.data()
            now = monotonic()
            for link in list(self.links):
                link.forward(now)

    def _patience(self) -> float | None:
        due = min((link.due for link in self.links), default=float("inf"))
        return None if due == float("inf") else max(due - monotonic(), 0.0)

    def _order(self, what: Callable[[], None]) -> None:
        done = threading.Event()

        def obey() -> None:
            what()
            done.set()

        self._orders.put(obey)
        self._bell.send(b"!")
        if not done.wait(_PATIENCE):
            raise RuntimeError("the proxy's thread does not answer")

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._ear.recv(_CHUNK)
        with contextlib.suppress(queue.Empty):
            while True:
                self._orders.get_nowait()()

    def _change(self, mode: Mode) -> None:
        self.mode = mode
        if isinstance(mode, Refuse):
            self._silence()
        elif self._listener is None:
            self._listen()

    def _end(self) -> None:
        self._silence()
        self._ended = True

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self.selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
        self._listener = listener

    def _silence(self) -> None:
        if self._listener is not None:
            self.selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
        for link in list(self.links):
            link.cut()

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # the client is gone already
            return
        self.accepted += 1
        if isinstance(self.mode, BlackHole):
            server = None
        else:
            try:
                server = socket.create_connection(self.target, timeout=_PATIENCE)
            except OSError:
                _close(client, hard=True)
                return
        self.links.add(_Link(self, client, server))


class _Link:
    """A client's connection, and the matching connection to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket | None) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._to_server = _Pipe(proxy)
        self._to_client = _Pipe(proxy)
        self._fate: Cut | None = None
        self._asking = False
        self._swallowed = server is None
        for sock, read in ((client, self._read_client), (server, self._read_server)):
            if sock is not None:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                proxy.selector.register(sock, selectors.EVENT_READ, read)

    @property
    def due(self) -> float:
        """The time at which there is data to forward."""
        return min(self._to_server.due, self._to_client.due)

    def forward(self, now: float) -> None:
        """Forward the data that is due."""
        if self._server is None:
            return
        try:
            self._proxy.forwarded += self._to_server.forward(self._server, now)
            self._to_client.forward(self._client, now)
        except OSError:
            self.cut()
            return
        if self._to_client.last and not self._to_client.pieces:
            self.cut(hard=False)

    def _read_client(self) -> None:
        if self not in self._proxy.links:  # cut a moment ago
            return
        data, ended = _read(self._client)
        if ended:  # the client no longer waits for an answer
            self.cut()
        elif self._swallows():
            return
        else:
            self._ask(data)

    def _ask(self, data: bytes) -> None:
        if not self._asking:
            self._asking = True
            self._fate = self._draw()
        if self._fate is Cut.BEFORE:
            self._cut_off(Cut.BEFORE)
        else:
            self._to_server.add(data)

    def _read_server(self) -> None:
        if self._server is None or self not in self._proxy.links:
            return
        data, ended = _read(self._server)
        if ended:
            self._proxy.selector.unregister(self._server)
        if self._swallows():
            return
        if data:
            self._answer(data)
        if ended:
            self._to_client.last = True

    def _answer(self, data: bytes) -> None:
        fate, self._fate, self._asking = self._fate, None, False
        if fate is Cut.AFTER:
            self._cut_off(Cut.AFTER)
        elif fate is Cut.MIDDLE:
            self._to_client.add(data[: len(data) // 2])
            self._to_client.last = self._swallowed = True
            self._proxy.cuts[Cut.MIDDLE] += 1
        else:
            self._to_client.add(data)

    def _swallows(self) -> bool:
        """Whether received data is discarded. A connection that has lost data stays this way."""
        self._swallowed = self._swallowed or isinstance(self._proxy.mode, BlackHole)
        return self._swallowed

    def _draw(self) -> Cut | None:
        mode, chance = self._proxy.mode, self._proxy.random
        if isinstance(mode, Lossy) and chance.random() < mode.share:
            return chance.choice(list(Cut))
        return None

    def _cut_off(self, moment: Cut) -> None:
        self._proxy.cuts[moment] += 1
        self.cut()

    def cut(self, *, hard: bool = True) -> None:
        """Close both sides; hard: with a reset."""
        self._proxy.links.discard(self)
        for sock in (self._client, self._server):
            if sock is not None:
                with contextlib.suppress(KeyError):  # the server's socket, if it has closed before
                    self._proxy.selector.unregister(sock)
                _close(sock, hard=hard)


class _Pipe:
    """The data on its way in one direction, and when each piece is due."""

    def __init__(self, proxy: Proxy) -> None:
        self.pieces: deque[tuple[float, bytes]] = deque()
        self.last = False
        self._proxy = proxy
        self._free = 0.0

    @property
    def due(self) -> float:
        """The time at which the next piece is due."""
        if self.pieces:
            return self.pieces[0][0]
        return 0.0 if self.last else float("inf")

    def add(self, data: bytes) -> None:
        """Add a piece of data."""
        mode = self._proxy.mode
        due = monotonic()
        if isinstance(mode, Slow):
            due += mode.delay
            if mode.bytes_per_second is not None:
                due = max(due, self._free) + len(data) / mode.bytes_per_second
        self._free = due = max(due, self._free)
        if data:
            self.pieces.append((due, data))

    def forward(self, sock: socket.socket, now: float) -> int:
        """Send the pieces that are due. Returns the number of bytes sent."""
        sent = 0
        while self.pieces and self.pieces[0][0] <= now:
            due, data = self.pieces.popleft()
            try:
                gone = sock.send(data)
            except BlockingIOError:
                gone = 0
            sent += gone
            if gone < len(data):
                self.pieces.appendleft((max(due, now + _AGAIN), data[gone:]))
        return sent


def _read(sock: socket.socket) -> tuple[bytes, bool]:
    """All data that has arrived, and whether the other side has closed."""
    parts = []
    while True:
        try:
            part = sock.recv(_CHUNK)
        except BlockingIOError:
            return b"".join(parts), False
        except OSError:
            part = b""
        if not part:
            return b"".join(parts), True
        parts.append(part)


def _close(sock: socket.socket, *, hard: bool) -> None:
    with contextlib.suppress(OSError):
        if hard:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
