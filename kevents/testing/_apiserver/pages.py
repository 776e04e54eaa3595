"""Lists in pages: where one goes on, and when it cannot any more."""

from __future__ import annotations

import base64
import binascii
import json
from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.status import APIError, bad_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kevents.testing._apiserver.storage import Item

__all__ = ["PRESENT", "Page", "expired", "page_of"]

Object = dict[str, Any]

_MOST: Final = (1 << 63) - 1
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
        version: The version of the list, if it is another than that of now; `PRESENT` for going on with what is now.
        after: The key of the item before the page; None for the first page.
    """

    limit: int
    version: int | None = None
    after: tuple[str, str] | None = None

    def cut(
        self, items: list[Item], version: int, selects: Callable[[Object], bool] | None = None
    ) -> tuple[list[Object], Object]:
        """Cut the page out of a list.

        A page goes on behind the last object that it holds; only then is it known whether another is selected, so the
        last page may be empty.

        Args:
            items: What the list holds, in the order of its keys.
            version: Its version.
            selects: Which objects are selected; None for all, whose number is known.

        Returns:
            The objects of the page, and the list's metadata.
        """
        start = 0 if self.after is None else bisect_right(items, self.after, key=itemgetter(0))
        rest = range(start, len(items))
        fitting = rest if selects is None else (at for at in rest if selects(items[at][1]))
        page = list(islice(fitting, self.limit or None))
        metadata: Object = {"resourceVersion": str(version)}
        end = page[-1] + 1 if page and len(page) == self.limit else len(items)
        if end < len(items):
            metadata["continue"] = _token(version, items[end - 1][0])
            if selects is None:
                metadata["remainingItemCount"] = len(items) - end
        return [items[at][1] for at in page], metadata


def page_of(query: Mapping[str, str]) -> Page:
    """Read a list's parameters.

    Args:
        query: The request's parameters: `limit`, `continue`, `resourceVersion`, `resourceVersionMatch`.

    Raises:
        APIError: 400 for a bad one.
    """
    limit = _limit(query.get("limit", ""))
    token = query.get("continue", "")
    version = query.get("resourceVersion", "")
    if not token:
        return Page(limit, int(version) if version.isdecimal() and _is_exact(query, version, limit) else None)
    if version not in {"", "0"}:
        raise bad_request("specifying resource version is not allowed when using continue")
    try:
        found, namespace, name = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return Page(limit, int(found), (str(namespace), str(name)))
    except (binascii.Error, ValueError, TypeError):
        raise bad_request("invalid continue token: continue key is not valid") from None


def expired(page: Page) -> APIError:
    """410 for a page whose list's version is forgotten, with a token to go on with what there is."""
    if page.after is None:
        return APIError(410, "Expired", "The resourceVersion for the provided list is too old.")
    return APIError(410, "Expired", _EXPIRED, metadata={"continue": _token(PRESENT, page.after)})


def _token(version: int, after: tuple[str, str]) -> str:
    text = json.dumps([version, *after], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _is_exact(query: Mapping[str, str], version: str, limit: int) -> bool:
    match = query.get("resourceVersionMatch", "")
    return match == "Exact" or (not match and limit > 0 and version != "0")  # a limit alone has always meant exactly


def _limit(text: str) -> int:
    if not text:
        return 0
    try:
        limit = int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if limit > _MOST:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return max(0, limit)
