"""Texts without the secrets that are known, and without those that others put into them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from kevents._model.wire import clip, printable

HIDDEN: Final = "(not shown)"
_SHORTEST: Final = 4
_LONGEST: Final = 600
_MOST_SEARCHED: Final = 4096
_USER = re.compile(r"(?<=://)[^/?#\s@]+@")
_QUERY = re.compile(r"(?<=[a-z0-9/_.-])\?[^\s<>\"')]*(?:=|%3D)[^\s<>\"')]*", re.IGNORECASE)


class Redactor:
    """Takes known secrets, users in URLs and their queries out of texts.

    Args:
        secrets: What must not be told; shorter than four characters they are no secrets: they would hide half of every
            text.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Keep the secrets."""
        self._values: tuple[str, ...] = ()
        for secret in secrets:
            self.remember(secret)

    def remember(self, secret: str) -> None:
        """Hide one more from now on, in each of its forms; the longest first: one may be in another."""
        if len(secret) >= _SHORTEST:
            forms = {form for form in _forms(secret) if len(form) >= _SHORTEST}
            self._values = tuple(sorted({*self._values, *forms}, key=len, reverse=True))

    def clean(self, text: str) -> str:
        """Give a text without the known secrets; before it is escaped, quoted or cut, which may leave half of one."""
        for value in self._values:
            if value in text:
                text = text.replace(value, HIDDEN)
        return text

    def __call__(self, text: str) -> str:
        """Give a text of somebody else's as one printable line, without any secret, clipped."""
        text = self.clean(text)[:_MOST_SEARCHED]
        text = _QUERY.sub(f"?{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))
        return clip(printable(text), _LONGEST)

    def __repr__(self) -> str:
        """Without anything."""
        return f"{type(self).__name__}()"


def _forms(secret: str) -> set[str]:
    """As it is, and as it stands in a URL, in the quotes of a message, in JSON, and in a printable line."""
    quoted = {repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    return {secret, secret.strip(), quote(secret, safe=""), quote(secret), printable(secret), *quoted}
