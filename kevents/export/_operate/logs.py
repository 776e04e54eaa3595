"""How the command logs: lines for people on a terminal, JSON lines elsewhere; never a secret."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import count
from typing import Any, Final, Protocol, TextIO

from kevents._model.wire import printable
from kevents.export._config.secrets import KNOWN

LOGGER: Final = logging.getLogger("kevents.export")
FIELDS: Final = "fields"
"""The key of ``extra`` under which a line's own figures stand."""


_WARNINGS: Final = "py.warnings"
_INSECURE: Final = "InsecureRequestWarning: "


class LogStream(Protocol):
    """What lines can be written to."""

    def write(self, text: str, /) -> object:
        """Write a text."""
        ...

    def flush(self) -> object:
        """Pass on what was written."""
        ...


class JsonFormatter(logging.Formatter):
    """A log record as one JSON object: ``time``, ``level``, ``logger``, ``message``, its figures, and its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": KNOWN.clean(record.getMessage()),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = _traceback(record.exc_info)
        return json.dumps(line, default=str)


class PlainFormatter(logging.Formatter):
    """A log record as one printable line: ``09:00:00 WARNING message``."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        text = f"{moment} {record.levelname} {printable(KNOWN.clean(record.getMessage()))}"
        if record.exc_info:
            text += "\n" + _traceback(record.exc_info).rstrip()
        return text


def _traceback(error: Any) -> str:  # noqa: ANN401 - three values, or three times None
    return KNOWN.clean("".join(traceback.format_exception(*error)))


class OneOfInsecure(logging.Filter):
    """Lets one of urllib3's warnings pass, which come with every request, and says in a line what it means."""

    def __init__(self) -> None:
        """None has come yet."""
        super().__init__()
        self._met = count()  # its next number is one thread's only

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log a record."""
        if record.name != _WARNINGS or _INSECURE not in record.getMessage():
            return True
        record.msg, record.args = "certificates are not verified: the kubeconfig says so", None
        return next(self._met) == 0


@contextmanager
def logging_to(stream: LogStream, *, as_json: bool) -> Iterator[None]:
    """Let everything that is logged in the process go to a stream, from INFO on; other people's lines from WARNING on.

    Args:
        stream: Where to.
        as_json: JSON lines instead of lines for people.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    handler.addFilter(OneOfInsecure())
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
    """Whether a person looks at it."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False
