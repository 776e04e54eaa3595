"""Texts of errors without the secrets that others put into them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from kevents._wire import clip, printable

HIDDEN: Final = "***"
_SHORTEST: Final = 4
_LONGEST: Final = 600
_USER = re.compile(r"(?<=://)[^/?#\s@]+@")
_QUERY = re.compile(r"(?<=[a-z0-9/_.-])\?[^\s<>\"')]*(?:=|%3D)[^\s<>\"')]*", re.IGNORECASE)


class Redactor:
    """Takes known secrets, users in URLs and their queries out of texts.

    Args:
        secrets: What must not be told; shorter than four characters they are no secrets, and hide nothing.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        """Keep the secrets, the longest first: one may be in another."""
        forms = {form for secret in secrets for form in _forms(secret) if len(form) >= _SHORTEST}
        self._secrets = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Give the text as one printable line, without them, clipped."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        text = _QUERY.sub(f"?{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))
        return clip(printable(text), _LONGEST)

    def __repr__(self) -> str:
        """Without anything."""
        return f"{type(self).__name__}()"


def _forms(secret: str) -> set[str]:
    """As it is, and as it stands in a URL or in the quotes of a message."""
    return {secret, secret.strip(), quote(secret, safe=""), quote(secret), repr(secret)[1:-1]}
