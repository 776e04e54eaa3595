"""The outcome of a request from the sink's exception: each row of the table, and robustness."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import datetime, timezone
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents._queue.outcome import (
    Delivered,
    Exists,
    Failed,
    Gone,
    Outcome,
    Rejected,
    Unavailable,
    Verb,
    outcome_of,
    reconsider,
    retry_after,
    sane_delay,
)
from kevents.exceptions import StatusError, UnavailableError

CREATE, PATCH = Verb.CREATE, Verb.PATCH
NOW = datetime(2026, 7, 24, 9, 0, 0, tzinfo=timezone.utc)


class Unspeakable(Exception):  # noqa: N818 - a double
    """An error whose `__str__` raises."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no text")


class Moody(StatusError):  # noqa: N818 - a double
    """An error whose fields raise when read."""

    @property
    def causes(self) -> Any:
        """Fail."""
        raise RuntimeError("no causes")

    @causes.setter
    def causes(self, value: Any) -> None:
        """Accept anything."""


@pytest.mark.parametrize("verb", [CREATE, PATCH])
class TestTable:
    """Each row of the table of outcomes."""

    def test_delivered(self, verb: Verb) -> None:
        """Pitfalls 34, 35: a call that returns is delivered. So is an error with a 2xx code."""
        assert outcome_of(verb, None) == Delivered()
        assert outcome_of(verb, StatusError(200)) == Delivered()
        assert outcome_of(verb, StatusError(HTTPStatus.CREATED)) == Delivered()
        assert outcome_of(verb, StatusError(299)) == Delivered()

    def test_not_found(self, verb: Verb) -> None:
        """404 means that the patched event is gone. On a create it means that the namespace is gone, which is final."""
        expected = Gone() if verb is PATCH else Rejected(404, "NotFound", "namespaces x not found")
        assert outcome_of(verb, StatusError(404, "NotFound", "namespaces x not found")) == expected

    @pytest.mark.parametrize("reason", ["AlreadyExists", ""])
    def test_exists(self, verb: Verb, reason: str) -> None:
        """409 on a create with AlreadyExists or no reason means that the name is taken. On a patch it is a failure."""
        outcome = outcome_of(verb, StatusError(409, reason))
        assert (Exists if verb is CREATE else Failed) is type(outcome)

    def test_conflict(self, verb: Verb) -> None:
        """Any other 409 is a failure of this request only, and keeps the Retry-After."""
        assert outcome_of(verb, StatusError(409, "Conflict", "quota", retry_after=7)) == Failed(
            "StatusError: 409 Conflict: quota", 7.0
        )

    def test_namespace_terminating(self, verb: Verb) -> None:
        """Pitfall 45: a terminating namespace is a quiet rejection."""
        error = StatusError(403, "Forbidden", "no", ["Other", "NamespaceTerminating"])
        assert outcome_of(verb, error) == Rejected(403, "Forbidden", "no", quiet=True)

    @pytest.mark.parametrize(
        "code", [199, 300, 301, 307, 400, 402, 403, 405, 406, 410, 413, 415, 418, 422, 451, 460, 499]
    )
    def test_rejected(self, verb: Verb, code: int) -> None:
        """Pitfalls 41, 44, 46: a permanent refusal is final, is logged, and has its code and reason."""
        assert outcome_of(verb, StatusError(code, "Why", "text")) == Rejected(code, "Why", "text", quiet=False)

    @pytest.mark.parametrize("code", [0, 401, 408, 429, 500, 502, 503, 504, 520, 599])
    def test_unavailable(self, verb: Verb, code: int) -> None:
        """Pitfalls 39, 40, 42: a status about the server, not the request, is Unavailable with its Retry-After."""
        error = StatusError(code, "Busy", "later", retry_after=3)
        assert outcome_of(verb, error) == Unavailable(f"StatusError: {code} Busy: later", 3.0)

    def test_too_large(self, verb: Verb) -> None:
        """A body that etcd refuses is answered with 500, but is final."""
        message = "etcdserver: request is too large"
        assert outcome_of(verb, StatusError(500, "", message)) == Rejected(500, "", message)

    @pytest.mark.parametrize(
        "error",
        [
            OSError("x"),
            ConnectionRefusedError(),
            ConnectionResetError(),
            TimeoutError(),
            socket.gaierror(-2, "unknown name"),
            ssl.SSLError("x"),
            ssl.SSLCertVerificationError("a certificate error is an OSError and a ValueError"),
            FileNotFoundError("token"),
        ],
        ids=repr,
    )
    def test_transport(self, verb: Verb, error: Exception) -> None:
        """Pitfall 40: every exception of the transport is Unavailable."""
        assert Unavailable is type(outcome_of(verb, error))

    def test_unavailable_error(self, verb: Verb) -> None:
        """UnavailableError of a sink is Unavailable with its delay."""
        error = UnavailableError("no credentials yet", retry_after=2)
        assert outcome_of(verb, error) == Unavailable("UnavailableError: no credentials yet", 2.0)

    @pytest.mark.parametrize("error", [ValueError("bad"), TypeError("bad"), UnicodeError("bad")], ids=repr)
    def test_cannot_be_built(self, verb: Verb, error: Exception) -> None:
        """A request that cannot be built is rejected for good."""
        assert outcome_of(verb, error) == Rejected(0, type(error).__name__, f"{type(error).__name__}: bad")

    @pytest.mark.parametrize("error", [RuntimeError("bad"), KeyError("bad"), ZeroDivisionError()], ids=repr)
    def test_any_other(self, verb: Verb, error: Exception) -> None:
        """Any other exception is a failure of this request, with the exception's text."""
        outcome = outcome_of(verb, error)
        assert isinstance(outcome, Failed)
        assert outcome.cause.startswith(f"{type(error).__name__}: ")

    @pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(1)], ids=repr)
    def test_interrupted(self, verb: Verb, error: BaseException) -> None:
        """A cancelled or interrupted attempt is Unavailable, because it reveals nothing about the request."""
        assert Unavailable is type(outcome_of(verb, error))


class TestRobust:
    """No exception of a sink raises in a sender."""

    @pytest.mark.parametrize(
        "error",
        [
            Unspeakable(),
            Moody(403),
            StatusError("503"),  # type: ignore[arg-type]
            StatusError(None),  # type: ignore[arg-type]
            StatusError(400, "", None),  # type: ignore[arg-type]
            StatusError(503, retry_after="soon"),  # type: ignore[arg-type]
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_strange_errors(self, error: Exception) -> None:
        """An error that cannot be read is a failure of this request, or classified by its code."""
        assert type(outcome_of(CREATE, error)) in (Failed, Unavailable)

    @given(
        code=st.integers(-1000, 10_000),
        reason=st.text(max_size=20),
        message=st.text(max_size=2000),
        causes=st.lists(st.text(max_size=9), max_size=3),
        after=st.none() | st.floats() | st.integers() | st.text(max_size=3) | st.just(10**400),
        verb=st.sampled_from(Verb),
    )
    def test_any_status(self, code: int, reason: str, message: str, causes: list[str], after: Any, verb: Verb) -> None:
        """Any Status has an outcome with short texts and a bounded delay."""
        outcome = outcome_of(verb, StatusError(code, reason, message, causes, after))
        wait = getattr(outcome, "after", None)
        assert wait is None or 0 <= wait <= 60
        assert len(getattr(outcome, "cause", "") or getattr(outcome, "message", "")) <= 503


class TestReconsider:
    """Pitfall 83: a restarted server briefly refuses ordinary users."""

    @pytest.mark.parametrize(
        ("outcome", "lost", "final"),
        [
            (Rejected(403, "Forbidden", "no"), 70.0, False),
            (Rejected(403, "Forbidden", "no"), 69.9, True),
            (Rejected(403, "Forbidden", "no"), None, True),
            (Rejected(403, "Forbidden", "no", quiet=True), 99.0, True),
            (Rejected(422, "Invalid"), 99.0, True),
            (Delivered(), 99.0, True),
            (Gone(), 99.0, True),
        ],
    )
    def test_rows(self, outcome: Outcome, lost: float | None, final: bool) -> None:  # noqa: FBT001
        """A 403 within 30 s of the last Unavailable is a failure with its text. Other outcomes are unchanged."""
        expected = outcome if final else Failed("403 Forbidden: no")
        assert reconsider(outcome, lost, 100.0) == expected


def header(value: Any, name: str = "Retry-After") -> float | None:
    """The delay from a header."""
    return retry_after({"Content-Type": "x", name: value}, {}, NOW)


class TestRetryAfter:
    """Pitfall 39: the delay that a server asks for."""

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("0", 0.0),
            ("3", 3.0),
            (" 3 ", 3.0),
            ("2.5", 2.5),
            ("60", 60.0),
            ("61", 60.0),
            ("999999999", 60.0),
            ("Fri, 24 Jul 2026 09:00:10 GMT", 10.0),
            ("Fri, 24 Jul 2026 11:00:10 +0200", 10.0),
            ("Fri, 24 Jul 2026 09:00:10 -0000", 10.0),
            ("Fri, 24 Jul 2026 10:00:00 GMT", 60.0),
            ("Fri, 24 Jul 2026 08:59:00 GMT", None),
            ("-3", None),
            ("-0.1", None),
            ("NaN", None),
            ("inf", None),
            ("1e9", None),
            ("", None),
            ("soon", None),
            ("٣", None),
            ("3 s", None),
            (3, 3.0),
            (None, None),
            (b"3", None),
        ],
    )
    def test_header(self, value: Any, expected: float | None) -> None:
        """Seconds and dates are read. Negative and extreme values are ignored, long ones capped."""
        assert header(value) == expected

    @pytest.mark.parametrize("name", ["retry-after", "RETRY-AFTER", "Retry-after"])
    def test_case(self, name: str) -> None:
        """A header's name is found in any case."""
        assert header("3", name) == 3.0

    def test_strange_headers(self) -> None:
        """Header names that are not strings, or missing headers, are ignored."""
        assert retry_after({None: "1", 5: "2", b"x": "3", "retry-after": "3"}, {}) == 3.0  # type: ignore[dict-item]
        assert retry_after(None, None) is None

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            ({"details": {"retryAfterSeconds": 4}}, 4.0),
            ({"details": {"retryAfterSeconds": 4.5}}, 4.5),
            ({"details": {"retryAfterSeconds": 10**400}}, 60.0),
            ({"details": {"retryAfterSeconds": -1}}, None),
            ({"details": {"retryAfterSeconds": True}}, None),
            ({"details": {"retryAfterSeconds": "4"}}, None),
            ({"details": {"retryAfterSeconds": None}}, None),
            ({"details": {}}, None),
            ({"details": []}, None),
            ({"details": "x"}, None),
            ({"details": None}, None),
            ({}, None),
        ],
    )
    def test_details(self, status: dict[str, Any], expected: float | None) -> None:
        """Pitfall 45: without a header the Status body's details are used. Malformed ones are ignored."""
        assert retry_after({}, status) == expected
        assert retry_after({"Retry-After": "soon"}, status) == expected

    def test_header_first(self) -> None:
        """The header takes precedence over the body."""
        assert retry_after({"Retry-After": "3"}, {"details": {"retryAfterSeconds": 9}}) == 3.0

    @given(
        value=st.text(max_size=40)
        | st.from_regex(r"\w{3}, ?\d{1,3} \w{3} \d{1,5} [\d:]{1,9}( [-+]\d{1,9})?", fullmatch=True)
    )
    def test_any_header(self, value: str) -> None:
        """Any header is read without an exception, and the delay is bounded."""
        seconds = header(value)
        assert seconds is None or 0 <= seconds <= 60

    @given(
        headers=st.dictionaries(
            st.text() | st.none() | st.integers() | st.just("Retry-After"), st.text() | st.integers()
        ),
        status=st.dictionaries(
            st.sampled_from(["details", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["retryAfterSeconds", "y"]), inner),
                max_leaves=4,
            ),
        ),
    )
    def test_any_answer(self, headers: Any, status: Any) -> None:
        """Any answer is read without an exception, and the delay is bounded."""
        seconds = retry_after(headers, status)
        assert seconds is None or 0 <= seconds <= 60


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0.0), (5, 5.0), (61, 60.0), (float("inf"), None), (float("nan"), None), (-1, None), (True, None), ("5", None)],
)
def test_sane_delay(value: object, expected: float | None) -> None:
    """A sink's own retry_after is bounded in the same way as a header."""
    assert sane_delay(value) == expected


def test_long_refusal() -> None:
    """At most 500 bytes of the server's message about a refusal are kept."""
    outcome = outcome_of(CREATE, StatusError(422, "Invalid", "x" * 1000))
    assert outcome == Rejected(422, "Invalid", "x" * 497 + "...")


@pytest.mark.parametrize(
    "outcome", [Delivered(), Gone(), Exists(), Rejected(422, ""), Failed("x"), Unavailable("x")], ids=repr
)
def test_unchangeable(outcome: Any) -> None:
    """An outcome is immutable: no attribute can be set or added."""
    for name in ("code", "cause", "another"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(outcome, name, 1)
    assert not hasattr(outcome, "__dict__")
    assert {outcome, outcome} == {outcome}
