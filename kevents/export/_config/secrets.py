"""Secret references, resolved lazily. Resolved values are redacted from logs and errors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kevents.export._sinks.redact import Redactor

KNOWN: Final = Redactor()
"""Every resolved secret."""


class SecretError(Exception):
    """A secret cannot be resolved. The text names its place, never its value."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret in an environment variable or in a file. It never holds the value.

    Args:
        env: The environment variable.
        file: The file; a line break at its end is not part of the secret.

    .. versionadded:: 0.1
    """

    env: str = ""
    file: str = ""

    def __str__(self) -> str:
        """Name the place."""
        return f"the environment variable {self.env}" if self.env else f"the file {self.file}"

    def reveal(self) -> str:
        """Read the present value.

        Raises:
            SecretError: If it is missing or empty.
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
