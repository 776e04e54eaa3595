"""Records as people see them: columns, colours, and nothing that a terminal would take for a command."""

from __future__ import annotations

import io
from typing import Any

import pytest

from kevents.export._operate.columns import Columns, colourful
from tests.export.route.test_routes import EVENT, GAP

BODY: dict[str, Any] = {**EVENT, "lastTimestamp": "2026-07-24T09:00:05Z", "message": " it failed\n"}


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_columns() -> None:
    """The columns are those of kubectl's wide output, with the object's kind in small letters as kubectl has it."""
    columns = Columns(colour=False, dates=True)
    assert list(reversed([columns.line(BODY), columns.head()])) == [
        "LAST SEEN             NAMESPACE   TYPE     REASON            OBJECT                    COUNT  MESSAGE",
        "2026-07-24T09:00:05Z  shop        Warning  BackOff           pod/web-0                 5      it failed",
    ]


def test_without_namespaces() -> None:
    """With one namespace there is no column for it."""
    columns = Columns(colour=False, namespaces=False, dates=True)
    assert columns.line(BODY)[:58] == "2026-07-24T09:00:05Z  Warning  BackOff           pod/web-0"


def test_widths() -> None:
    """A column grows with what it has shown, up to its own width; a longer text pushes the rest."""
    columns = Columns(colour=False, namespaces=False, dates=True)
    long = columns.line({**BODY, "reason": "R" * 30})
    short = columns.line(BODY)
    assert short.index("pod/web-0") + 6 == long.index("pod/web-0")
    assert short.index("BackOff") + 24 + 2 == short.index("pod/web-0")


def test_colours() -> None:
    """A warning is yellow, the time dim; without colours there is no escape at all."""
    line = Columns(colour=True).line(BODY)
    assert "\x1b[33mWarning\x1b[0m" in line
    assert "\x1b[36mpod/web-0\x1b[0m" in line
    assert "\x1b" not in Columns(colour=False).line(BODY)
    assert "33m" not in Columns(colour=True).line({**BODY, "type": "Normal"})


def test_escapes() -> None:
    """Pitfall 71: escapes, carriage returns, line breaks and characters that turn the direction are shown escaped."""
    evil = {
        **BODY,
        "message": "a\x1b[2Jb\rc\nd\u202ee\x9bf",
        "reason": "R\x07",
        "type": "T\x1b",
        "involvedObject": {"kind": "P\x1b", "name": "n\n", "namespace": "s\x1b"},
        "metadata": {"namespace": "x\x1b"},
        "lastTimestamp": "\x1b]0;owned\x07",
        "count": "\x1b",
    }
    line = Columns(colour=False).line(evil)
    assert line.isprintable()
    assert "a\\x1b[2Jb\\rc\\nd\\u202ee\\x9bf" in line
    gap = {"kevents": {"gap": {"from": "\x1b", "until": "\n", "why": "\r", "scope": "\x07"}}}
    assert Columns(colour=False).line(gap).isprintable()


def test_encoding() -> None:
    """What the terminal cannot show is escaped, not an error."""
    assert "m\\xfc\\u2603" in Columns(colour=False, encoding="ascii").line({**BODY, "message": "mü☃"})


def test_gap() -> None:
    """A gap is a line of its own that says what may be missing."""
    word = {"why": "expired", "scope": "shop", "from": "2026-07-24T08:00:00Z", "until": "2026-07-24T10:00:00Z"}
    line = Columns(colour=True).line({"kevents": {"gap": word}})
    expected = "gap: events in shop between 2026-07-24T08:00:00Z and 2026-07-24T10:00:00Z may be missing (expired)"
    assert line == f"\x1b[1;31m{expected}\x1b[0m"
    assert "between 1 and ? may be missing (unknown)" in Columns(colour=False).line(GAP)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"metadata": [], "series": 5, "involvedObject": "x"},
        {"involvedObject": None, "metadata": None, "message": None, "series": None},
    ],
)
def test_little(body: dict[str, Any]) -> None:
    """A record of which little is known is shown nevertheless."""
    assert "<unknown>" in Columns(colour=False).line(body)


def test_series() -> None:
    """The count of a series is its own, its time that of its last occurrence."""
    body = {**BODY, "count": None, "series": {"count": 7, "lastObservedTime": "2026-07-24T10:00:00.000001Z"}}
    line = Columns(colour=False, dates=True).line(body)
    assert (line[:20], line[line.index(" 7 ") :][:3]) == ("2026-07-24T10:00:00Z", " 7 ")


def test_colourful(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are colours on a terminal only, not under NO_COLOR, not on a dumb one."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert (colourful(Terminal()), colourful(io.StringIO())) == (True, False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colourful(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not colourful(Terminal())
