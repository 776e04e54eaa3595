"""A watch as lines: what one read of it gave, taken apart as far as it is there."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kevents._model.wire import clip
from kevents.exceptions import StatusError, UnavailableError
from kevents.export._model.depth_limit import decoded
from kevents.export._model.types import Record
from kevents.export._source.events_api import GoneError
from kevents.export._source.revision_filter import RevisionFilter

_DECODER: Final = msgspec.json.Decoder(dict[str, Any])
_TOLD: Final = ("ADDED", "MODIFIED")  # no set: what stands there may be anything
_LONGEST_LINE: Final = 1 << 24
_GONE: Final = 410
_SHOWN: Final = 200


class WatchDecoder:
    """Takes a watch apart; one for each watch.

    Args:
        intake: Takes the events.
        version: From where the watch goes on.

    Attributes:
        version: From where the next watch goes on: that of the last event.
        lines: How many events there were, of any type.
        unreadable: How many lines were no events.
        trouble: What the server told instead of an event, which is the end of the watch; None: nothing.
    """

    def __init__(self, intake: RevisionFilter, version: str) -> None:
        """Begin."""
        self.version = version
        self.lines = 0
        self.unreadable = 0
        self.trouble: Exception | None = None
        self._intake = intake
        self._rest = b""

    def take(self, data: bytes, now: int, read_at: float) -> list[Record]:
        """Give the records of what came; a line that has not come whole waits for the rest of it.

        Args:
            data: The bytes.
            now: When they came, in nanoseconds since the epoch.
            read_at: The same by the monotonic clock, in seconds.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            self.trouble = UnavailableError("what came is no watch: a line without end")
            return []
        records = []
        for line in lines:
            if line:
                record = self._line(line, now, read_at)
                if record is not None:
                    records.append(record)
            if self.trouble is not None:
                break
        return records

    def _line(self, line: bytes, now: int, read_at: float) -> Record | None:
        try:
            told = decoded(_DECODER, line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.trouble = UnavailableError(f"what came is no watch: {error}")
            return None
        verb, event = told.get("type"), told.get("object")
        if verb == "ERROR":
            self.trouble = _trouble(event)
            return None
        metadata = event.get("metadata") if isinstance(event, dict) else None
        version = metadata.get("resourceVersion", "") if isinstance(metadata, dict) else None
        if not isinstance(event, dict) or not isinstance(version, str):
            self.unreadable += 1
            return None
        self.lines += 1
        record = self._intake.watched(verb, event, now, read_at) if verb in _TOLD else None
        if version:
            self.version = version
            self._intake.passed(version)
        return record


def _trouble(status: object) -> Exception:
    found = status if isinstance(status, dict) else {}
    code, reason, message = found.get("code"), str(found.get("reason", "")), str(found.get("message", ""))
    if code == _GONE or reason in {"Expired", "Gone"}:
        return GoneError(message)
    return StatusError(code if isinstance(code, int) else 0, reason, clip(message, _SHOWN))
