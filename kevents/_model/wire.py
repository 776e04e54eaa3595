"""Texts, names and times in the API's formats, texts for log lines, and texts of the caller's values."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from kevents.exceptions import InvalidMessageError

_DNS1123_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_NAME_LIMIT = 253
_QUALIFIED_LIMIT = 63
_HEX_DIGITS_OF_SERIAL = 16
_NANO = 1_000_000_000
_FIRST_SECOND: Final = -62_135_596_800  # start of the year 1
_LAST_SECOND: Final = 253_402_300_799  # end of the year 9999
CORE_GROUP: Final = ""
EVENTS_GROUP: Final = "events.k8s.io"
ELLIPSIS: Final = "..."
Texts = Mapping[str, str]
NO_TEXTS: Final[Texts] = MappingProxyType({})
_ERROR_LIMIT = 500


def event_name(object_name: str, serial: int) -> str:
    """Return the name of an event: ``<object name>.<hex of the serial>``.

    An object name that is too long or not a DNS-1123 subdomain is made valid and clipped, and gets a short hash. It
    stays recognisable that way (client-go: a bare UUID).
    """
    return f"{_name_prefix(object_name)}.{serial:x}"


@lru_cache(maxsize=4096)
def _name_prefix(object_name: str) -> str:
    limit = _NAME_LIMIT - 1 - _HEX_DIGITS_OF_SERIAL
    if len(object_name) <= limit and _DNS1123_SUBDOMAIN.fullmatch(object_name):
        return object_name
    digest = hashlib.sha256(object_name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    labels = re.sub(r"[^a-z0-9.]+", "-", object_name.lower()).split(".")
    valid = ".".join(label.strip("-") for label in labels if label.strip("-"))
    clipped = valid[: limit - 1 - len(digest)].rstrip("-.")
    return f"{clipped}-{digest}" if clipped else digest


def is_qualified_name(text: str) -> bool:
    """True for ``[prefix/]name``, the format of label keys and reporting controllers."""
    prefix, slash, name = text.rpartition("/")
    if slash and (len(prefix) > _NAME_LIMIT or not _DNS1123_SUBDOMAIN.fullmatch(prefix)):
        return False
    return len(name) <= _QUALIFIED_LIMIT and _QUALIFIED.fullmatch(name) is not None


def format_time(nanoseconds: int) -> str:
    """Format nanoseconds since the epoch as the API's ``Time``: whole seconds, UTC, ``Z``."""
    return _format_second(nanoseconds // _NANO)


def format_micro_time(nanoseconds: int) -> str:
    """Format nanoseconds since the epoch as the API's ``MicroTime``: always six digits, UTC, ``Z``.

    Microsecond 0 becomes 1: the official client 37 would send it without its digits, which the server refuses.
    """
    second, rest = divmod(nanoseconds, _NANO)
    return f"{_format_second(second)[:-1]}.{max(rest // 1_000, 1):06d}Z"


@lru_cache(maxsize=64)
def _format_second(second: int) -> str:
    # strftime writes the year 1 (Go's zero time) as "1", and fromtimestamp refuses it on Windows.
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=second)).isoformat()[:19] + "Z"


_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 365 * 86_400
_AGES: Final = (  # below this age in seconds: the unit, and the smaller one beside it
    (2 * _MINUTE, (1, "s"), None),
    (10 * _MINUTE, (_MINUTE, "m"), (1, "s")),
    (3 * _HOUR, (_MINUTE, "m"), None),
    (8 * _HOUR, (_HOUR, "h"), (_MINUTE, "m")),
    (2 * _DAY, (_HOUR, "h"), None),
    (8 * _DAY, (_DAY, "d"), (_HOUR, "h")),
    (2 * _YEAR, (_DAY, "d"), None),
    (8 * _YEAR, (_YEAR, "y"), (_DAY, "d")),
)


def format_age(seconds: int) -> str:
    """Format an age as kubectl does: ``90s``, ``5m30s``, ``3h``, ``2d4h`` (apimachinery: ``HumanDuration``)."""
    seconds = max(seconds, 0)
    for limit, (unit, letter), smaller in _AGES:
        if seconds < limit:
            rest = seconds % unit // smaller[0] if smaller else 0
            return f"{seconds // unit}{letter}{f'{rest}{smaller[1]}' if smaller and rest else ''}"
    return f"{seconds // _YEAR}y"


def parse_time(text: object) -> int:
    """Nanoseconds since the epoch, of an RFC 3339 text or an aware datetime. Raises ValueError for anything else."""
    if isinstance(text, datetime):
        if text.tzinfo is None:
            raise ValueError(f"datetime without a zone: {text!r}; use an aware one such as datetime.now(timezone.utc)")
        delta = text - datetime(1970, 1, 1, tzinfo=timezone.utc)
        return _in_range(delta.days * 86_400 + delta.seconds, text) * _NANO + delta.microseconds * 1_000
    match = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"not an RFC 3339 time with a zone: {text!r}; expected 2026-07-24T09:00:00Z")
    moment, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    seconds = int(datetime.fromisoformat(moment.replace("t", "T") + zone).timestamp())
    return _in_range(seconds, text) * _NANO + int((fraction or "0").ljust(9, "0"))


def _in_range(second: int, text: object) -> int:
    if not _FIRST_SECOND <= second <= _LAST_SECOND:  # the zone can move it out of the years that UTC can write
        raise ValueError(f"not within the years 1 to 9999 in UTC: {text!r}")
    return second


def clip(text: str, limit: int) -> str:
    """Cut ``text`` to ``limit`` bytes of UTF-8 at a character, with a visible ``...`` if anything was cut."""
    if len(text) * 4 <= limit:
        return text
    encoded = clean(text).encode()
    if len(encoded) <= limit:
        return text
    return encoded[: max(limit - len(ELLIPSIS), 0)].decode("utf-8", "ignore") + ELLIPSIS[:limit]


def clip_json(text: str, limit: int) -> str:
    """Cut ``text`` to at most ``limit`` bytes of JSON, where one character takes up to twelve."""
    while len(text) * 12 > limit and len(json.dumps(text)) > limit:
        text = clip(text, len(clean(text).encode()) * 3 // 4)
    return text


def clean(text: str) -> str:
    """Return ``text`` with the replacement character for each lone surrogate, which UTF-8 cannot encode."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean_texts(texts: Mapping[str, str]) -> dict[str, str]:
    """Apply :func:`clean` to the keys and values of annotations or labels."""
    return {clean(key): clean(value) for key, value in texts.items()}


def field_text(value: object) -> str:
    """Return a JSON value as text, empty for null."""
    return "" if value is None else str(value)


def field_texts(value: Any) -> Mapping[str, str]:  # noqa: ANN401 - JSON of any shape
    """Return annotations or labels of JSON as a read-only mapping, empty for null."""
    return MappingProxyType({field_text(key): field_text(inner) for key, inner in (value or {}).items()})


def read_field(body: Mapping[str, Any], *names: str) -> Any:  # noqa: ANN401 - JSON of any shape
    """Return the first of these fields that is not null, by its name in camelCase or snake_case."""
    for name in names:
        for key in (name, _snake_case(name)):
            value = body.get(key)
            if value is not None:
                return value
    return None


@lru_cache(maxsize=64)
def _snake_case(name: str) -> str:
    return re.sub(r"([A-Z])", r"_\1", name).lower()


def printable(text: str) -> str:
    """Escape control characters and line breaks, so that ``text`` is one line of a log or terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in clean(text))


def pluralize(number: int, thing: str) -> str:
    """Return ``1 event``, ``2 events``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def format_error(error: BaseException) -> str:
    """Return a short text such as ``ValueError: no such thing``, even if ``str(error)`` raises."""
    try:
        return clip(f"{type(error).__name__}: {error}", _ERROR_LIMIT)
    except BaseException:  # noqa: BLE001 - ``__str__`` of a user's error may raise anything
        return type(error).__name__


def require_frames(error: Exception, frames: int = 50) -> None:
    """Raise RecursionError if ``error`` is one and the stack ends here, so that it is not the fault of a value."""
    if frames and isinstance(error, RecursionError):
        require_frames(error, frames - 1)


def to_text(value: object) -> str:
    """A value as a plain str: of an Enum its value, of bytes UTF-8, of None "". Raises InvalidMessageError."""
    try:
        if isinstance(value, Enum):
            return to_text(value.value)
        if value is None:
            return ""
        if isinstance(value, bytes | bytearray):
            return bytes(value).decode("utf-8", "replace")
        return str.__str__(value if isinstance(value, str) else str(value))  # a plain str also from a subclass
    except InvalidMessageError:
        raise
    except Exception as error:
        require_frames(error)
        kind = type.__dict__["__name__"].__get__(type(value))  # a metaclass may replace the attribute
        raise InvalidMessageError(f"{kind} has no text: {format_error(error)}") from error


def to_texts(texts: Texts) -> Texts:
    """An immutable copy of annotations or labels. Raises InvalidMessageError."""
    try:
        if not texts:
            return NO_TEXTS
        if isinstance(texts, Mapping):
            return MappingProxyType({to_text(key): to_text(value) for key, value in dict(texts).items()})
    except InvalidMessageError:
        raise
    except Exception as error:
        require_frames(error)
        raise InvalidMessageError(f"annotations or labels cannot be read: {format_error(error)}") from error
    raise InvalidMessageError(f"annotations and labels must map text to text, not be a {type(texts).__name__}")


class Formatted:
    """A format and its arguments. The text is made where errors are handled."""

    __slots__ = ("_args", "_format")

    def __init__(self, message_fmt: str, args: tuple[object, ...]) -> None:
        self._format = message_fmt
        self._args = args

    def __str__(self) -> str:
        """The formatted text, or both parts if the arguments do not fit the format."""
        values = self._args[0] if len(self._args) == 1 and isinstance(self._args[0], Mapping) else self._args
        try:
            return to_text(self._format) % values
        except Exception:  # noqa: BLE001 - a wrong format must not lose the event
            return f"{to_text(self._format)} %!(BADFORMAT {', '.join(repr(value) for value in self._args)})"
