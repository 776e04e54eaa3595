"""The outcome of a request: a closed set of six, made from the exception of the sink.

Use ``match`` on it. The table is in ``docs/architecture.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final, TypeAlias

from kevents._model.wire import clip, format_error
from kevents.exceptions import StatusError, UnavailableError

LONGEST_RETRY_AFTER: Final = 60.0

_CONFLICT = 409
_NOT_FOUND = 404
_FORBIDDEN = 403
_UNAVAILABLE_CODES: Final = frozenset({0, 401, 408, 429})
_SERVER_ERROR = 500
_CAUSE_LIMIT = 500
_TOO_LARGE = ("request is too large", "trying to send message larger than max")  # etcd's texts, in a 500
_WARM_UP = 30.0


class Verb(str, Enum):
    """The kind of a request."""

    CREATE = "create"
    PATCH = "patch"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The server stored the event."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A patch was answered with 404: the event expired, or was deleted."""


@dataclass(frozen=True, slots=True)
class Exists:
    """A create was answered with 409: an event of that name exists."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server, or the sink, will never accept the request."""

    code: int
    reason: str
    message: str = ""
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """This request failed; another may succeed."""

    cause: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The server gave no answer, or one that is not about the request."""

    cause: str
    after: float | None = None


DELIVERED: Final = Delivered()
Outcome: TypeAlias = Delivered | Gone | Exists | Rejected | Failed | Unavailable


def outcome_of(verb: Verb, error: BaseException | None) -> Outcome:
    """Map the exception of a sink to an outcome, None to :class:`Delivered`. Never raises."""
    try:
        return _outcome(verb, error)
    except Exception:  # noqa: BLE001 - an error without a readable text is still an error
        return Failed(type(error).__name__)


def _outcome(verb: Verb, error: BaseException | None) -> Outcome:
    outcome: Outcome
    match error:
        case None:
            outcome = DELIVERED
        case StatusError():
            outcome = _status_outcome(verb, error)
        case UnavailableError():
            outcome = Unavailable(format_error(error), sane_delay(error.retry_after))
        case OSError():  # before ValueError: a certificate error is both
            outcome = Unavailable(format_error(error))
        case ValueError() | TypeError():
            outcome = Rejected(0, type(error).__name__, format_error(error))
        case Exception():
            outcome = Failed(format_error(error))
        case _:  # cancelled or interrupted, which is not about the request
            outcome = Unavailable(format_error(error))
    return outcome


def _status_outcome(verb: Verb, error: StatusError) -> Outcome:
    code, after = error.code, sane_delay(error.retry_after)
    if 200 <= code < 300:  # noqa: PLR2004 - a sink may raise for a success
        return Delivered()
    if code == _NOT_FOUND and verb is Verb.PATCH:
        return Gone()
    if code == _CONFLICT:
        exists = verb is Verb.CREATE and error.reason in ("AlreadyExists", "")
        return Exists() if exists else Failed(format_error(error), after)
    server = code in _UNAVAILABLE_CODES or code >= _SERVER_ERROR
    if server and not any(words in error.message for words in _TOO_LARGE):
        return Unavailable(format_error(error), after)
    quiet = code == _FORBIDDEN and "NamespaceTerminating" in error.causes
    return Rejected(code, error.reason, clip(error.message, _CAUSE_LIMIT), quiet)


def reconsider(outcome: Outcome, unavailable: float | None, now: float) -> Outcome:
    """Turn a 403 soon after the server was unavailable into a failure that is tried again.

    A restarted server refuses ordinary users until its permission caches are filled. ``unavailable`` is when the last
    attempt ended as unavailable. None: never.
    """
    if unavailable is None or now - unavailable > _WARM_UP:
        return outcome
    match outcome:
        case Rejected(code=code, reason=reason, message=message, quiet=False) if code == _FORBIDDEN:
            return Failed(f"{code} {reason}: {message}")
        case _:
            return outcome


def sane_delay(seconds: object) -> float | None:
    """Check a number of seconds to wait: negative and infinite ones give None, long ones 60 s."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        return None
    return float(min(seconds, LONGEST_RETRY_AFTER))


def retry_after(
    headers: Mapping[str, str] | None, status: Mapping[str, Any] | None, now: datetime | None = None
) -> float | None:
    """Seconds that an answer asks to wait, from 0 to 60, or None (client-go: ``checkWait``).

    The header ``Retry-After`` in seconds or as an HTTP date, in any letter case, else ``details.retryAfterSeconds`` of
    the Status body. ``now`` is for dates.
    """
    header = next((value for key, value in (headers or {}).items() if str(key).lower() == "retry-after"), None)
    from_header = None if header is None else sane_delay(_seconds(str(header).strip(), now))
    if from_header is not None:
        return from_header
    details = (status or {}).get("details")
    return sane_delay(details.get("retryAfterSeconds")) if isinstance(details, Mapping) else None


def _seconds(text: str, now: datetime | None) -> float | None:
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)  # an HTTP date is in GMT; "-0000" is parsed as no zone
    return (date - (now or datetime.now(timezone.utc))).total_seconds()
