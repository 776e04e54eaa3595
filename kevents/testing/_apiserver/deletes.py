"""What becomes of objects that are deleted: gone, or marked and kept for as long as they have finalizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.calls import Call, Reply
from kevents.testing._apiserver.options import delete_options
from kevents.testing._apiserver.rules import ordered, timestamp
from kevents.testing._apiserver.status import forbidden

if TYPE_CHECKING:
    from collections.abc import Callable

    from kevents.testing._apiserver.kinds import Kind
    from kevents.testing._apiserver.storage import Store

__all__ = ["Deletes"]

Object = dict[str, Any]

_SYSTEM_NAMESPACES: Final = ("default", "kube-system", "kube-public")


class Deletes:
    """The verbs that delete, over a store.

    Args:
        store: Where the objects are.
        finalize_namespaces: Whether a deleted namespace goes at once; otherwise it stays `Terminating`, as it does
            on a cluster without controllers.
    """

    def __init__(self, store: Store, *, finalize_namespaces: bool) -> None:
        self.store = store
        self._finalize = finalize_namespaces

    def one(self, call: Call) -> Reply:
        """Delete an object; one with finalizers is only marked.

        Raises:
            APIError: The delete is refused.
            MissingError: There is no such object.
        """
        options = delete_options(call)
        old = self.store.get(call.kind.bucket, call.namespace, call.name)
        if call.kind.bucket == "namespaces." and not self._finalize:
            if call.name in _SYSTEM_NAMESPACES:
                raise forbidden("namespaces", "", call.name, "this namespace may not be deleted")
            return Reply(call.kind, 200, (self.terminate(call.name, dry_run=options.dry_run),))
        options.check(call, old["metadata"])
        if old["metadata"].get("finalizers"):
            return Reply(call.kind, 200, (self._end(call.kind, old["metadata"], dry_run=options.dry_run),))
        if not options.dry_run:
            self.remove(call.kind, call.namespace, call.name)
        if call.kind.bucket == "pods.":
            return Reply(call.kind, 200, (old,))
        return Reply(call.kind, 200, body=_deleted(call.kind, old))

    def all(self, call: Call, listing: Callable[[Call], Reply]) -> Reply:
        """Delete what the request's list holds, and give that.

        Raises:
            APIError: The delete is refused.
        """
        dry_run = delete_options(call).dry_run
        reply = listing(call)
        for metadata in () if dry_run else [stored["metadata"] for stored in reply.objects]:
            if metadata.get("finalizers"):
                self._end(call.kind, metadata)
            else:
                self.store.delete(call.kind.bucket, metadata.get("namespace", ""), metadata["name"])
        return reply

    def _end(self, kind: Kind, found: Object, *, dry_run: bool = False) -> Object:
        def ending(old: Object) -> Object:
            if "deletionTimestamp" in old["metadata"]:
                return old
            marks: Object = {"deletionTimestamp": timestamp(self.store.clock()), "deletionGracePeriodSeconds": 0}
            if "generation" in old["metadata"]:
                marks["generation"] = old["metadata"]["generation"] + 1
            return {**old, "metadata": ordered({**old["metadata"], **marks})}

        return self.store.modify(kind.bucket, found.get("namespace", ""), found["name"], ending, dry_run=dry_run)

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """Remove an object; with a namespace goes all that is in it.

        Raises:
            MissingError: There is no such object.
        """
        self.store.delete(kind.bucket, namespace, name)
        if kind.bucket == "namespaces.":
            self.store.empty(name)

    def terminate(self, name: str, *, dry_run: bool = False) -> Object:
        """Make a namespace `Terminating`; one that already is stays as it is.

        Raises:
            MissingError: There is no such namespace.
        """

        def ending(old: Object) -> Object:
            if "deletionTimestamp" in old["metadata"]:
                return old
            metadata = {**old["metadata"], "deletionTimestamp": timestamp(self.store.clock())}
            return {**old, "metadata": ordered(metadata), "status": {"phase": "Terminating"}}

        return self.store.modify("namespaces.", "", name, ending, dry_run=dry_run)


def _deleted(kind: Kind, old: Object) -> Object:
    metadata = old["metadata"]
    details = {"name": metadata["name"], "group": kind.group, "kind": kind.resource, "uid": metadata["uid"]}
    given = {key: value for key, value in details.items() if value}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": given}
