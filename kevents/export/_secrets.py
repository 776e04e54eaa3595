"""What must be told to nobody: named by reference, read when it is needed, and taken out of every text."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

HIDDEN: Final = "(not shown)"
_SHORTEST: Final = 4


class SecretError(Exception):
    """A secret that cannot be had; the text names where it was looked for, never what is there."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is: in an environment variable or in a file. The value is nowhere in it.

    Args:
        env: The environment variable.
        file: The file; a line break at its end is no part of the secret.

    .. versionadded:: 0.1
    """

    env: str = ""
    file: str = ""

    def __str__(self) -> str:
        """Say where it is."""
        return f"the environment variable {self.env}" if self.env else f"the file {self.file}"

    def reveal(self) -> str:
        """Read it, as it is now.

        Raises:
            SecretError: If there is none, or an empty one.
        """
        value = os.environ.get(self.env, "") if self.env else self._read()
        if not value:
            fix = "set it, or name another with { env = ... }" if self.env else "write the secret into it"
            raise SecretError(f"{self} {'is not set' if self.env else 'is empty'}: {fix}")
        KNOWN.remember(value)
        return value

    def _read(self) -> str:
        try:
            return Path(self.file).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise SecretError(f"{self} cannot be read ({error.strerror or type(error).__name__})") from None
        except UnicodeDecodeError:
            raise SecretError(f"{self} is not UTF-8 text") from None


class Redaction:
    """Remembers the secrets that have been read, and takes them out of texts."""

    def __init__(self) -> None:
        """Know none."""
        self._values: tuple[str, ...] = ()

    def remember(self, value: str) -> None:
        """Hide a value from now on, also as it is quoted in a URL; one too short would hide half of every text."""
        if len(value) >= _SHORTEST:
            found = {*self._values, value, quote(value, safe=""), quote(value)}
            self._values = tuple(sorted(found, key=len, reverse=True))

    def clean(self, text: str) -> str:
        """Give a text without them."""
        for value in self._values:
            if value in text:
                text = text.replace(value, HIDDEN)
        return text


KNOWN: Final = Redaction()


class RedactingFormatter(logging.Formatter):
    """Formats as another does, and takes out what is a secret: also out of tracebacks and other people's lines.

    Args:
        inner: The formatter that does the work.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        """Take the formatter."""
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return KNOWN.clean(self._inner.format(record))
