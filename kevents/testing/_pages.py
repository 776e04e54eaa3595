"""Lists in pages: where one goes on, and when it cannot any more."""

from __future__ import annotations

import base64
import binascii
import json
from bisect import bisect_right
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from kevents.testing._status import APIError, bad_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kevents.testing._storage import Item

__all__ = ["PRESENT", "Page", "expired", "page_of"]

Object = dict[str, Any]

PRESENT: Final = -1
"""The version of a list that goes on with what there is, though it began with what there was."""

_EXPIRED: Final = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for.

    Attributes:
        limit: How many items; 0 for all that are left.
        version: The version of the list's first page; None for the first page, `PRESENT` for that of now.
        after: The key of the item before the page.
    """

    limit: int
    version: int | None = None
    after: tuple[str, str] = ("", "")

    def cut(self, items: list[Item], version: int, *, counted: bool) -> tuple[list[Object], Object]:
        """Cut the page out of a list.

        Args:
            items: What the list holds, in the order of its keys.
            version: Its version.
            counted: Whether to say how many items are left.

        Returns:
            The objects of the page, and the list's metadata.
        """
        start = 0 if self.version is None else bisect_right(items, self.after, key=itemgetter(0))
        end = start + self.limit if self.limit else len(items)
        metadata: Object = {"resourceVersion": str(version)}
        if end < len(items):
            metadata["continue"] = _token(version, items[end - 1][0])
            if counted:
                metadata["remainingItemCount"] = len(items) - end
        return [item[1] for item in items[start:end]], metadata


def page_of(query: Mapping[str, str]) -> Page:
    """Read a list's parameters.

    Args:
        query: The request's parameters: `limit`, `continue`, `resourceVersion`.

    Raises:
        APIError: 400 for a bad one.
    """
    limit = _limit(query.get("limit", ""))
    token = query.get("continue", "")
    if not token:
        return Page(limit)
    if query.get("resourceVersion", "") not in {"", "0"}:
        raise bad_request("specifying resource version is not allowed when using continue")
    try:
        version, namespace, name = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return Page(limit, int(version), (str(namespace), str(name)))
    except (binascii.Error, ValueError, TypeError):
        raise bad_request("invalid continue token: continue key is not valid") from None


def expired(page: Page) -> APIError:
    """410 for a page whose list's version is forgotten, with a token to go on with what there is."""
    return APIError(410, "Expired", _EXPIRED, metadata={"continue": _token(PRESENT, page.after)})


def _token(version: int, after: tuple[str, str]) -> str:
    text = json.dumps([version, *after], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _limit(text: str) -> int:
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
