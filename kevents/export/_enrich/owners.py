"""What an object belongs to in the end: the pod's ReplicaSet's Deployment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from kevents.export._enrich.cache import Entry
from kevents.export._enrich.metadata import Reference

MOST_STEPS: Final = 5

Find = Callable[[Reference], "Entry | None"]


class IncompleteError(Exception):
    """An owner on the way up could not be looked up in time."""


def top_owner(entry: Entry, reference: Reference, find: Find) -> dict[str, Any] | None:
    """Follow the controllers upwards, five steps at most.

    Args:
        entry: What is known of the object.
        reference: The object; its owners are in its namespace, or in none.
        find: Gives what is known of an owner; None: not now.

    Returns:
        ``kind``, ``name`` and ``uid`` of the last owner, and under ``path`` all of them as ``Kind/name``, the nearest
        first; None if no controller owns the object. An owner that is gone, or cannot be read, is the last.

    Raises:
        IncompleteError: There was no answer for one of them.
    """
    path: list[str] = []
    seen = {reference.uid}
    top: Reference | None = None
    while len(path) < MOST_STEPS:
        owner = _controller(entry, reference.namespace)
        if owner is None or owner.uid in seen:
            break
        seen.add(owner.uid)
        path.append(f"{owner.kind}/{owner.name}")
        top = owner
        if len(path) < MOST_STEPS:
            above = find(owner)
            if above is None:
                raise IncompleteError
            entry = above
    return None if top is None else {"kind": top.kind, "name": top.name, "uid": top.uid, "path": path}


def _controller(entry: Entry, namespace: str) -> Reference | None:
    """The one owner with ``controller: true``, of whom all is said that a look-up needs."""
    owners: Sequence[dict[str, Any]] = entry.found.owners if entry.found is not None else ()
    for owner in owners:
        if owner.get("controller") is True:
            texts = [owner.get(key) for key in ("apiVersion", "kind", "name", "uid")]
            if all(isinstance(text, str) and text for text in texts):
                version, kind, name, uid = map(str, texts)
                return Reference(version, kind, namespace, name, uid)
    return None
