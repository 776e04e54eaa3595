"""Every known input or fault that has broken another recorder has a test that names its number.

A test covers a row of the list if its docstring has "Pitfall 7" or "Pitfalls 7, 48". The tests of rows without another
place are at the end of this module.
"""

from __future__ import annotations

import ast
import asyncio
import http.client
import re
import signal
import socket
import ssl
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import kevents
from kevents.testing import APIServer, FakeSink
from tests.support.real_server import send

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS: Final = Path(__file__).parent

PITFALLS: Final = {
    1: "from a thread pool while the loop is busy",
    2: "from a coroutine, asyncio in debug mode",
    3: "from a thread without a loop, in an empty context",
    4: "a full queue",
    5: "a slow watcher beside a fast one",
    6: "a handler raises",
    7: "a handler stops, shuts down or records",
    8: "percent signs in a message",
    9: "format and arguments that do not match",
    10: "a message that is no text",
    11: "a message whose text raises",
    12: "an unknown type",
    13: "an odd reason",
    14: "later changes by the caller",
    15: "no apiVersion, no kind",
    16: "snake_case keys",
    17: "no uid, namespace or name",
    18: "no object",
    19: "an event about an event",
    20: "no sink, or the same sink twice",
    21: "a fork",
    22: "microsecond 0",
    23: "a time without a zone",
    24: "two events in one nanosecond, a clock that goes back",
    25: "object names that are no event names",
    26: "long messages with multi-byte characters",
    27: "a long message and the aggregate's prefix",
    28: "surrogates, NUL and line breaks",
    29: "cutting an empty text",
    30: "a component that is long or has blanks",
    31: "the patch's content type",
    32: "cluster-scoped objects",
    33: "a configured cluster namespace",
    34: "201 with null times",
    35: "success with a broken body",
    36: "patch of an event that has expired",
    37: "patch 404, then create 409",
    38: "a create was stored, its answer lost",
    39: "Retry-After in all formats",
    40: "server errors and no connection",
    41: "400 and 422",
    42: "401, then success",
    43: "403 on every create",
    44: "403 on patches only",
    45: "the namespace terminates",
    46: "413 and 415",
    47: "accepted, never answered",
    48: "ten minutes without a server",
    49: "60 different, 60 identical",
    50: "a noisy reason beside an important one",
    51: "windows and tokens over time",
    52: "a wall clock that jumps",
    53: "a new resourceVersion each time",
    54: "namespaces and names without a separator",
    55: "the same name, a new uid",
    56: "the fields of an aggregate",
    57: "more keys than the caches hold",
    58: "key functions that fail",
    59: "invalid options",
    60: "the first occurrence was filtered",
    61: "record, then the program ends",
    62: "shutdown with 500 pending events",
    63: "shutdown with 500 pending events and a dead sink",
    64: "recording during and after shutdown",
    65: "shutdown twice, early; start late",
    66: "1,000 broadcasters",
    67: "a cancelled task, a closed loop",
    68: "SIGTERM",
    69: "idle for an hour",
    70: "a fake recorder with unread events",
    71: "terminal escapes",
    72: "credentials",
    73: "broken or hugely expanding gzip",
    74: "dots and slashes in file names",
    75: "redirects and foreign certificates",
    76: "a Secret while enriching",
    77: "endpoints on other interfaces",
    78: "an endless answer",
    79: "a fork during the client's import",
    80: "recording from a signal handler or finaliser",
    81: "five minutes of 503",
    82: "no thread at the interpreter's exit",
    83: "403 after a restart",
    84: "a server without etcd",
    85: "503 to half of the calls",
}

WAITING: Final = {
    33: "kopf",
    67: "asyncio",
    73: "export",
    74: "export",
    76: "export",
}
"""Rows whose subject does not exist yet, with the work that will add it."""

FAULTS: Final = {
    1: "a broken namespace beside healthy ones",
    2: "redirects",
    3: "a server that sends a byte at a time",
    4: "endless and expanding error bodies",
    5: "large messages",
    6: "impossible namespaces",
    7: "403 of a policy",
    8: "a refusal that repeats the credentials",
    9: "finalisers while the collector runs in a sender",
    10: "the end of the stack",
    11: "child processes",
    12: "isolated subinterpreters",
    13: "a refused event that cannot be found",
    14: "a huge refused reason",
    15: "the series of a core/v1 body",
    16: "other objects and spellings read as an event",
    17: "objects of pykube-ng",
    18: "references without apiVersion",
    19: "register against the object's own kind",
    20: "owner references",
    21: "a kind as an enum, a uid as a UUID",
    22: "event types in another case, and for errors",
    23: "500 new objects at once",
    24: "enriched records by OTLP",
    26: "impossible namespaces in routes and sources",
    27: "600 slow clients",
    28: "a destination that sends a byte at a time",
    29: "regexes in linear time",
    30: "changed bits",
    31: "control characters of terminals",
    33: "records that were acknowledged",
    34: "the count of a series",
    35: "--warning and the type Error",
    36: "advice to read Secrets",
    37: "planted symbolic links",
    38: "http endpoints of stores",
    39: "SIGHUP",
    40: "an empty proof",
    43: "asynchronous twins",
    44: "series, related and addresses of the embedded server",
}
"""Faults found by attacking kevents. A test covers a row if its docstring has "Fault 2" or "Faults 2 and 3"."""

_NAMED: Final = r"\b(?i:{})s? (\d+(?:(?:, | and )\d+)*)"


DOCSTRINGS: Final = pytest.mark.xdist_group("docstrings")  # they are read once per process


def named_rows(word: str) -> dict[int, list[str]]:
    """The tests whose docstrings name a row, by row number."""
    found = defaultdict(list)
    pattern = re.compile(_NAMED.format(word))
    for test, docstring in docstrings():
        for numbers in pattern.findall(docstring):
            for number in re.findall(r"\d+", numbers):
                found[int(number)].append(test)
    return found


@cache
def docstrings() -> list[tuple[str, str]]:
    """Each test, as file::name, with its docstring, from the files that could name a row."""
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if re.search(r"(?i)\b(pitfall|fault)s? \d", text):
            found += [(f"{path.name}::{name}", docstring) for name, docstring in collect(ast.parse(text).body)]
    return found


def collect(statements: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """The tests of a module or a class, with their docstrings."""
    for node in statements:
        if isinstance(node, ast.ClassDef):
            yield from collect(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, ast.get_docstring(node) or ""


def test_the_list() -> None:
    """The list has every row once, in order, with a unique short name."""
    assert list(PITFALLS) == list(range(1, 86))
    assert len(set(PITFALLS.values())) == len(PITFALLS)


@DOCSTRINGS
def test_every_row_has_a_test() -> None:
    """Each row is named by a test or waits for its subject, and no test names an unknown row."""
    named = named_rows("Pitfall")
    missing = {number: name for number, name in PITFALLS.items() if number not in named and number not in WAITING}
    assert missing == {}
    assert (set(named) | set(WAITING)) - set(PITFALLS) == set()


@DOCSTRINGS
def test_every_fault_has_a_test() -> None:
    """Each fault is named by a test that failed before the fix."""
    named = named_rows("Fault")
    assert {number: name for number, name in FAULTS.items() if number not in named} == {}


# Rows without another place


POD: Final = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "prod", "name": "web-0", "uid": "u-1"}}
EVERYTHING: Final = kevents.CorrelatorOptions(burst_size=None, max_events=None)
PATIENCE: Final = 60.0


@pytest.fixture
def sink() -> Iterator[FakeSink]:
    """A sink that releases hanging calls at the end."""
    sink = FakeSink()
    yield sink
    sink.release()


@pytest.fixture
def broadcaster(sink: FakeSink) -> Iterator[kevents.EventBroadcaster]:
    """A broadcaster that writes to the sink."""
    with kevents.EventBroadcaster(correlator_options=EVERYTHING, sleep_duration=0.05) as broadcaster:
        broadcaster.start_recording_to_sink(sink)
        yield broadcaster


def messages(sink: FakeSink) -> list[str]:
    """The messages of the events in the sink."""
    return sorted(event.get("message", "") for event in sink.events())


def test_coroutine_in_debug_mode(
    sink: FakeSink, broadcaster: kevents.EventBroadcaster, caplog: pytest.LogCaptureFixture
) -> None:
    """Pitfall 2: a coroutine records with a plain call, even with a hanging sink, without warnings in debug mode."""
    recorder = broadcaster.new_recorder("coroutine")
    sink.hang()

    async def main() -> None:
        asyncio.get_running_loop().slow_callback_duration = 2.0
        for number in range(100):
            recorder.event(POD, "Normal", "Awaited", f"number {number}")

    asyncio.run(main(), debug=True)
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio" and "took" in record.msg] == []
    sink.release()
    assert broadcaster.flush(PATIENCE)
    assert len(messages(sink)) == 100


def test_limit_includes_the_aggregates_prefix(sink: FakeSink) -> None:
    """Pitfall 27: a message that exceeds the limit only with the aggregate's prefix is cut to the limit."""
    options = kevents.CorrelatorOptions(max_events=2)
    with kevents.EventBroadcaster(correlator_options=options, max_message_bytes=1024) as broadcaster:
        broadcaster.start_recording_to_sink(sink)
        recorder = broadcaster.new_recorder("long")
        for number in range(3):
            recorder.event(POD, "Normal", "Long", f"{number}" + "m" * 1019)
        assert broadcaster.flush(PATIENCE)
    sizes = {message[:9]: len(message.encode()) for message in messages(sink)}
    assert sizes == {"0mmmmmmmm": 1020, "(combined": 1024}
    assert [message.endswith("...") for message in messages(sink) if message.startswith("(combined")] == [True]


@pytest.mark.parametrize(
    ("what", "gives"),
    [
        *((what, gives) for what in ("key_func", "message_func") for gives in (ZeroDivisionError(), None, [], 7)),
        *(("spam_key_func", gives) for gives in (ZeroDivisionError(), None, [])),
    ],
)
def test_functions_that_fail(sink: FakeSink, what: str, gives: object) -> None:
    """Pitfall 58: for an event on which a user's function fails, the default decides, and the fallback is counted."""

    def function(event: kevents.Event) -> Any:
        if isinstance(gives, Exception):
            raise gives
        return gives

    options = kevents.CorrelatorOptions(max_events=1, **{what: function})  # type: ignore[arg-type]
    with kevents.EventBroadcaster(correlator_options=options) as broadcaster:
        watcher = broadcaster.start_recording_to_sink(sink)
        recorder = broadcaster.new_recorder("fails")
        for number in range(3):
            recorder.event(POD, "Normal", "Combined", f"number {number}")
        assert broadcaster.flush(PATIENCE)
        found = watcher.statistics().sink
    assert found is not None
    assert found.fallbacks == 3
    assert [(e["message"], e["count"]) for e in sink.events()] == [("(combined from similar events): number 2", 3)]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no such signal")
def test_shutdown_in_a_signal_handler(sink: FakeSink, broadcaster: kevents.EventBroadcaster) -> None:
    """Pitfall 68: a SIGTERM handler can record and shut down with its own deadline."""
    recorder = broadcaster.new_recorder("leader")
    given_up: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        recorder.event(POD, "Normal", "LeaderLost", "going")
        given_up.append(broadcaster.shutdown(PATIENCE))

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        recorder.event(POD, "Normal", "Leading", "begun")
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert given_up == [0]
    assert messages(sink) == ["begun", "going"]


def test_loopback_and_a_token() -> None:
    """Pitfall 77: the embedded server listens on the loopback interface only, and refuses requests without a token."""
    with APIServer() as server:
        context = ssl._create_unverified_context()
        for token, status in {"": 403, "wrong": 401, server.token: 200}.items():
            client = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=PATIENCE, context=context)
            assert send(client, "GET", "/api/v1/namespaces/default/events", None, token=token).status == status
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for address in {address for address in addresses if not address.startswith("127.")}:
            with socket.socket() as outside:
                outside.settimeout(1)
                assert outside.connect_ex((address, server.port)) != 0
