"""The log of the commands as JSON lines or text, without secrets, and the status line."""

from __future__ import annotations

import io
import json
import logging
import warnings

import pytest
from urllib3.exceptions import InsecureRequestWarning

from kevents.export._config.table_reader import KNOWN
from kevents.export._operate.logs import FIELDS, LOGGER, StatusLine, logging_to


def logged(*, as_json: bool) -> list[str]:
    """Return the output for some records of kevents and of other loggers."""
    stream = io.StringIO()
    with logging_to(stream, as_json=as_json):
        LOGGER.info("progress %d", 5, extra={FIELDS: {"read": 7}})
        LOGGER.debug("a detail")
        logging.getLogger("somebody").info("not wanted")
        logging.getLogger("somebody").warning("two\nlines \x1b[31m and hunter2")
    LOGGER.warning("afterwards")
    return stream.getvalue().splitlines()


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve a secret."""
    monkeypatch.setattr(KNOWN, "_forms", set())
    KNOWN.remember("hunter2")


def test_json() -> None:
    """Pitfall 72: outside a terminal, each record is a JSON object with its statistics, without secrets."""
    first, second = map(json.loads, logged(as_json=True))
    assert tuple(first[k] for k in ("level", "logger", "message", "read")) == (
        "info",
        "kevents.export",
        "progress 5",
        7,
    )
    assert first["time"].endswith("+00:00")
    assert second["message"] == "two\nlines \x1b[31m and (not shown)"
    assert all(line.isprintable() for line in logged(as_json=True))


def test_text() -> None:
    """Pitfalls 71, 72: on a terminal, each record is a printable line without secrets."""
    first, second = logged(as_json=False)
    assert first.endswith(" INFO progress 5")
    assert second.endswith(" WARNING two\\nlines \\x1b[31m and (not shown)")


@pytest.mark.parametrize("as_json", [True, False])
def test_long_lines(*, as_json: bool) -> None:
    """Fault 14: a message has at most 1,000 characters; a secret at the limit is redacted before the cut."""
    stream = io.StringIO()
    with logging_to(stream, as_json=as_json):
        LOGGER.warning("%s hunter2 %s", "x" * 985, "y" * 10_000)
    [line] = stream.getvalue().splitlines()
    message = json.loads(line)["message"] if as_json else line.partition(" WARNING ")[2]
    assert message == f"{'x' * 985} (not shown)..."


@pytest.mark.parametrize("value", ['tok"en\\9-ü', "-----BEGIN KEY-----\nabcd\nefgh", "ends with\\"])
@pytest.mark.parametrize("as_json", [True, False])
def test_any_secret(value: str, *, as_json: bool) -> None:
    """Pitfall 72: a secret is redacted before the line is escaped, whatever its characters. The line stays valid."""
    KNOWN.remember(value)
    stream = io.StringIO()
    with logging_to(stream, as_json=as_json):
        LOGGER.warning('%s, %r, "%s"', value, value, value)
    told = json.loads(stream.getvalue())["message"] if as_json else stream.getvalue().partition("WARNING ")[2].rstrip()
    assert told == """(not shown), '(not shown)', "(not shown)\""""


def test_tracebacks() -> None:
    """A traceback is part of its record, without secrets."""
    for as_json in (True, False):
        stream = io.StringIO()
        with logging_to(stream, as_json=as_json):
            try:
                raise ValueError("hunter2")  # noqa: TRY301 - the test needs a traceback
            except ValueError:
                LOGGER.exception("it failed")
        text = stream.getvalue()
        assert "ValueError: (not shown)" in text
        assert "hunter2" not in text
        if as_json:
            assert "Traceback" in json.loads(text)["traceback"]


def test_warnings() -> None:
    """Python warnings are logged."""
    stream = io.StringIO()
    with logging_to(stream, as_json=True), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old" in json.loads(stream.getvalue())["message"]


def test_certificates_that_are_not_verified() -> None:
    """The warning about unverified certificates is logged once. Other records are logged each time."""
    stream = io.StringIO()
    with logging_to(stream, as_json=False), warnings.catch_warnings():
        warnings.simplefilter("always")
        for _ in range(3):
            warnings.warn("Unverified HTTPS request is being made", InsecureRequestWarning, stacklevel=1)
            LOGGER.info("a request")
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    insecure = "WARNING certificates are not verified, because the kubeconfig disables it"
    assert lines == [insecure, *3 * ["INFO a request"]]


def test_everything_is_put_back() -> None:
    """The logging configuration is restored at the end."""
    root, ours = logging.getLogger(), logging.getLogger("kevents")
    before = (root.handlers[:], root.level, ours.level)
    logged(as_json=True)
    assert (root.handlers, root.level, ours.level) == before


def test_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The status line is redrawn in place below the log lines, cut to the terminal's width."""
    monkeypatch.setenv("COLUMNS", "30")
    stream = io.StringIO()
    line = StatusLine(stream)
    line.write("before\n")
    line.show("s" * 40)
    line.write("a log line\n")
    line.show("")
    assert stream.getvalue() == f"before\n\r\x1b[K{'s' * 29}\r\x1b[Ka log line\n{'s' * 29}\r\x1b[K"


def test_passed_on() -> None:
    """Flushing the log flushes the stream."""
    below = io.BytesIO()
    line = StatusLine(io.TextIOWrapper(below, encoding="utf-8"))
    line.write("a log line\n")
    assert below.getvalue() == b""
    line.flush()
    assert below.getvalue() == b"a log line\n"
