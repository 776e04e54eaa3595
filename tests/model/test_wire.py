"""Names, times and texts in the form that the API server requires."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents._model.wire import (
    clean,
    clip,
    event_name,
    format_age,
    format_error,
    format_time,
    parse_time,
    pluralize,
    printable,
)

NOW = 1_784_883_600_123_456_789
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
TEXTS = st.text(st.characters() | st.characters(categories=["Cs"]))  # includes surrogates


class TestName:
    """An event's name consists of its object's name and the serial in hex."""

    @pytest.mark.parametrize("name", ["web-0", "a", "0", "a.b-c.d", "a" * 236])
    def test_valid(self, name: str) -> None:
        """A valid name that leaves room is kept (client-go: the same)."""
        assert event_name(name, NOW) == f"{name}.{NOW:x}"

    @pytest.mark.parametrize(
        "name",
        [
            "fd00:10:233::103",
            "A_b",
            "a" * 237,
            "a" * 253,
            "a" * 300,
            "a" * 226 + "." + "b" * 99,
            "a" * 226 + "-" + "b" * 99,
            "a/b",
            "a%b",
            "a b",
            "-a",
            "a-",
            "a..b",
            ".",
            "Ä",
            "日本",
            "web\n",
            "",
        ],
    )
    def test_made_valid(self, name: str) -> None:
        """Pitfall 25: any other name is converted to a DNS-1123 subdomain of at most 253 characters."""
        made = event_name(name, NOW)
        assert SUBDOMAIN.fullmatch(made)
        assert len(made) <= 253
        assert made.endswith(f".{NOW:x}")

    def test_recognisable(self) -> None:
        """The object stays recognisable in a converted name."""
        assert event_name("fd00:10:233::103", NOW).startswith("fd00-10-233-103-")
        assert event_name("My_App.Prod", NOW).startswith("my-app.prod-")

    def test_different_stay_different(self) -> None:
        """A short hash keeps names distinct that are equal after the conversion."""
        assert len({event_name(name, NOW) for name in ("A_b", "a_b", "A b")}) == 3
        assert len({event_name("x" * 300 + end, NOW) for end in "ab"}) == 2

    @given(name=TEXTS, serial=st.integers(0, 2**64 - 1))
    def test_any(self, name: str, serial: int) -> None:
        """Any object name gives a valid event name, and always the same one."""
        made = event_name(name, serial)
        assert SUBDOMAIN.fullmatch(made)
        assert len(made) <= 253
        assert event_name(name, serial) == made


class TestTime:
    """Times in RFC 3339, UTC."""

    @pytest.mark.parametrize(
        ("nanoseconds", "expected"),
        [
            (0, "1970-01-01T00:00:00Z"),
            (999_999_999, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (NOW, "2026-07-24T09:00:00Z"),
            (-62_135_596_800 * 10**9, "0001-01-01T00:00:00Z"),
        ],
    )
    def test_format(self, nanoseconds: int, expected: str) -> None:
        """Times are truncated to whole seconds. Years have four digits, also in Go's zero time."""
        assert format_time(nanoseconds) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("1970-01-01T00:00:01Z", 10**9),
            ("1970-01-01t00:00:01z", 10**9),
            ("1970-01-01 00:00:01+00:00", 10**9),
            ("1970-01-01T02:00:01+02:00", 10**9),
            ("1969-12-31T23:30:01-00:30", 10**9),
            ("1970-01-01T00:00:01.5Z", 1_500_000_000),
            ("1970-01-01T00:00:01.000001Z", 1_000_001_000),
            ("1970-01-01T00:00:01.123456789Z", 1_123_456_789),
            ("1970-01-01T00:00:01.1234567891234Z", 1_123_456_789),
            (datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=timezone.utc), 1_000_005_000),
            (datetime(1970, 1, 1, 1, 0, 1, tzinfo=timezone(timedelta(hours=1))), 10**9),
        ],
    )
    def test_parse(self, text: object, expected: int) -> None:
        """Any zone, any number of digits, and aware datetimes are read with nanosecond precision."""
        assert parse_time(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "2026-07-24T09:00:00",
            "2026-07-24",
            "",
            "now",
            None,
            5,
            "2026-02-30T00:00:00Z",
            "2026-07-24T09:00:00.Z",
            "2026-07-24T25:00:00Z",
            "2026-07-24T09:00:00+99:99",
            " 2026-07-24T09:00:00Z",
            "2026-07-24T09:00:00Z\n",
            "2026-07-24T09:00:00.\u0663Z",
            datetime(2026, 7, 24),  # noqa: DTZ001
        ],
        ids=repr,
    )
    def test_refused(self, text: object) -> None:
        """Pitfall 23: a time without a zone is never read as UTC. It is a ``ValueError``, as other texts are."""
        with pytest.raises(ValueError):  # noqa: PT011
            parse_time(text)

    @given(st.integers(-62_135_596_800, 253_402_300_799))
    def test_back_and_forth(self, second: int) -> None:
        """A written time is read as the same second, in all years with four digits."""
        assert parse_time(format_time(second * 10**9)) == second * 10**9


class TestText:
    """Texts that every JSON parser accepts, within a limit of bytes."""

    @pytest.mark.parametrize(
        ("text", "limit", "expected"),
        [
            ("", 10, ""),
            ("", 0, ""),
            ("abcdefghij", 10, "abcdefghij"),
            ("abcdefghijk", 10, "abcdefg..."),
            ("éééééé", 12, "éééééé"),
            ("ééééééé", 12, "éééé..."),
            ("😀😀😀😀", 15, "😀😀😀..."),
            ("😀😀😀😀", 14, "😀😀..."),
            ("abcdef", 3, "..."),
            ("abcdef", 2, ".."),
            ("abcdef", 0, ""),
        ],
    )
    def test_clip(self, text: str, limit: int, expected: str) -> None:
        """Pitfalls 26, 29: a long text is cut visibly at a character. A shorter or empty one is unchanged."""
        assert clip(text, limit) == expected

    @given(text=TEXTS, limit=st.integers(0, 60))
    def test_clip_any(self, text: str, limit: int) -> None:
        """A clipped text is valid, a prefix of the text, and within the limit."""
        clipped = clean(clip(text, limit))
        assert len(clipped.encode()) <= limit
        assert clean(text) == clipped or clean(text).startswith(clipped[: -min(limit, 3) or None])

    @given(TEXTS)
    def test_clean(self, text: str) -> None:
        """Pitfall 28: lone surrogates become the replacement character, and JSON is always valid."""
        paired = re.sub("[\ud800-\udbff][\udc00-\udfff]", lambda pair: json.loads(json.dumps(pair[0])), text)
        assert clean(text) == re.sub("[\ud800-\udfff]", "\ufffd", paired)
        assert json.loads(json.dumps(clean(text), ensure_ascii=False).encode()) == clean(text)

    def test_clean_examples(self) -> None:
        """Pitfall 28: control characters and newlines are kept in the text that is sent."""
        assert clean("a\x00b\nc\ud83dd") == "a\x00b\nc\ufffdd"
        assert clean("\ud83d\ude00") == "😀"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("plain é 😀", "plain é 😀"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b[31mred", "\\x1b[31mred"),
            ("\u202etxt", "\\u202etxt"),
            ("\ud83d", "\ufffd"),
        ],
    )
    def test_printable(self, text: str, expected: str) -> None:
        """Pitfall 71: on a terminal, control characters are escaped and every text is one line."""
        assert printable(text) == expected

    @given(TEXTS)
    def test_printable_any(self, text: str) -> None:
        """The result is printable for any text."""
        assert printable(text).isprintable()

    def test_counted(self) -> None:
        """Only the number 1 has the singular."""
        assert [pluralize(number, "event") for number in range(3)] == ["0 events", "1 event", "2 events"]

    def test_reported(self) -> None:
        """An error has a short text, even if its own ``__str__`` raises."""

        class Unspeakable(Exception):  # noqa: N818
            def __str__(self) -> str:
                raise RuntimeError

        assert format_error(ValueError("no")) == "ValueError: no"
        assert format_error(Unspeakable()) == "Unspeakable"
        assert len(format_error(ValueError("x" * 9999))) == 500


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (330, "5m30s"),
        (10_799, "179m"),
        (10_800, "3h"),
        (12_300, "3h25m"),
        (100_000, "27h"),
        (180_000, "2d2h"),
        (700_000, "8d"),
        (40_000_000, "462d"),
        (80_000_000, "2y195d"),
        (400_000_000, "12y"),
    ],
)
def test_age(seconds: int, expected: str) -> None:
    """Ages are formatted as in kubectl."""
    assert format_age(seconds) == expected
