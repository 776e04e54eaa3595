"""Removes secrets from log lines and error texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from kevents._model.wire import clip, printable

HIDDEN: Final = "(not shown)"
_SHORTEST: Final = 4  # shorter values are no secrets: hiding them would hide half of every text
_LONGEST: Final = 600
_MOST_SEARCHED: Final = 4096
_USER = re.compile(r"(?<=://)[^/?#\s@]+@")
_QUERY = re.compile(r"(?<=[a-z0-9/_.-])\?[^\s<>\"')]*(?:=|%3D)[^\s<>\"')]*", re.IGNORECASE)


class Redactor:
    """Removes known secrets, users in URLs and the queries of URLs from texts.

    Args:
        secrets: The secrets; those shorter than four characters are ignored.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Keep the secrets."""
        self._values: tuple[str, ...] = ()
        for secret in secrets:
            self.remember(secret)

    def remember(self, secret: str) -> None:
        """Hide one more secret from now on, in each of its forms."""
        if len(secret) >= _SHORTEST:
            forms = {form for form in _forms(secret) if len(form) >= _SHORTEST}
            # The longest first: one may be part of another.
            self._values = tuple(sorted({*self._values, *forms}, key=len, reverse=True))

    def clean(self, text: str) -> str:
        """Remove the known secrets. Call it before a text is escaped, quoted or cut, which may leave half a secret."""
        for value in self._values:
            if value in text:
                text = text.replace(value, HIDDEN)
        return text

    def __call__(self, text: str) -> str:
        """Return a foreign text as one printable line without secrets, clipped."""
        text = self.clean(text)[:_MOST_SEARCHED]
        text = _QUERY.sub(f"?{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))
        return clip(printable(text), _LONGEST)

    def __repr__(self) -> str:
        """Show no secret."""
        return f"{type(self).__name__}()"


def _forms(secret: str) -> set[str]:
    """Return the secret unchanged, and as it appears in a URL, in quotes, in JSON, and in a printable line."""
    quoted = {repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    return {secret, secret.strip(), quote(secret, safe=""), quote(secret), printable(secret), *quoted}
