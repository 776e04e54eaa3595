"""What must be told to nobody: named by reference, read when it is needed, and known from then on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kevents.export._sinks.redact import Redactor


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


KNOWN: Final = Redactor()
"""Every secret that has been read."""
