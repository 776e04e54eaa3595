"""Storage of the figures: `performance.json`, and the tables of the page `performance.md` beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.bench.rig import say

__all__ = ["draw", "keep", "put_table", "read"]


def read(folder: Path) -> dict[str, Any]:
    """Return all stored measurements by name."""
    path = folder / "performance.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def keep(folder: Path, name: str, found: dict[str, Any], table: str) -> None:
    """Store a measurement in the file, and its table in the page if it exists."""
    folder.mkdir(parents=True, exist_ok=True)
    written = json.dumps({**read(folder), name: found}, indent=1, sort_keys=True)
    (folder / "performance.json").write_text(written + "\n", encoding="utf-8")
    page = folder / "performance.md"
    if page.exists():
        page.write_text(put_table(page.read_text(encoding="utf-8"), name, table), encoding="utf-8")


def draw(name: str, found: dict[str, Any], path: Path) -> None:
    """Draw a plot, or report that matplotlib is missing."""
    try:
        from tests.bench import picture
    except ImportError as error:
        say(f"no plot is drawn: {error}")
        return
    getattr(picture, name)(found, path)


def put_table(page: str, name: str, table: str) -> str:
    """Return the page with the named table replaced.

    Raises:
        ValueError: If the page has no markers of that name.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not place.search(page):
        raise ValueError(f"the page has no place between {begin!r} and {end!r}")
    return place.sub(lambda _: f"{begin}\n\n{table}\n\n{end}", page)
