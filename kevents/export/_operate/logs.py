"""The log of the commands: text on a terminal, JSON lines elsewhere, never with secrets; and the status line."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import count
from typing import Any, Final, TextIO

from kevents._model.wire import clip
from kevents._runtime.log import LINE_LIMIT, shorten
from kevents.export._config.table_reader import KNOWN

LOGGER: Final = logging.getLogger("kevents.export")
FIELDS: Final = "fields"  # the key of ``extra`` for the statistics of a log line
_ERASE: Final = "\r\x1b[K"
_INSECURE: Final = "InsecureRequestWarning: "


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: ``time``, ``level``, ``logger``, ``message``, statistics and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": clip(KNOWN.clean(record.getMessage()), LINE_LIMIT),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = _traceback(record.exc_info)
        return json.dumps(line, default=str)


class PlainFormatter(logging.Formatter):
    """Formats a record as one printable line: ``09:00:00 WARNING message``."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        text = f"{moment} {record.levelname} {shorten(KNOWN.clean(record.getMessage()))}"
        if record.exc_info:
            text += "\n" + _traceback(record.exc_info).rstrip()
        return text


def _traceback(error: Any) -> str:  # noqa: ANN401 - three values, or three times None
    return KNOWN.clean("".join(traceback.format_exception(*error)))


class _FirstInsecure(logging.Filter):
    """Passes only the first InsecureRequestWarning, which urllib3 gives at every request, with a plain text."""

    def __init__(self) -> None:
        super().__init__()
        self._count = count()  # ``next`` is atomic: only one thread gets 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name != "py.warnings" or _INSECURE not in record.getMessage():
            return True
        record.msg, record.args = "certificates are not verified, because the kubeconfig disables it", None
        return next(self._count) == 0


class StatusLine:
    """A stream for log lines on a terminal, with a status line below them that is redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # re-entrant: a signal handler may log during a redraw
        self._line = ""

    def write(self, text: str) -> int:
        """Write log lines above the status line."""
        with self._lock:
            self._stream.write(f"{_ERASE if self._line else ''}{text}{self._line if text.endswith(chr(10)) else ''}")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def show(self, line: str) -> None:
        """Replace the status line; an empty text removes it."""
        encoding = getattr(self._stream, "encoding", None) or "ascii"
        safe = line.encode(encoding, "backslashreplace").decode(encoding)
        with self._lock:
            cut = safe[: max(shutil.get_terminal_size().columns - 1, 20)]
            self._stream.write(f"{_ERASE}{cut}")
            self._stream.flush()
            self._line = cut


@contextmanager
def logging_to(stream: TextIO | StatusLine, *, as_json: bool) -> Iterator[None]:
    """Send the log of the process to a stream: kevents' from INFO on, that of other loggers from WARNING on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    handler.addFilter(_FirstInsecure())
    root, ours = logging.getLogger(), logging.getLogger("kevents")
    before = root.handlers[:], root.level, ours.level
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:], level_before, ours_before = before
        root.setLevel(level_before)
        ours.setLevel(ours_before)


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False
