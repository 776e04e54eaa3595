"""What a request does to the stored objects: create, read, change, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kevents.testing._calls import Call, Reply
from kevents.testing._events import validate_update
from kevents.testing._names import metadata_causes
from kevents.testing._pages import PRESENT, Page, expired, page_of
from kevents.testing._patch import JSON_PATCH, MERGE, STRATEGIC, apply_patch
from kevents.testing._rules import (
    cannot_handle,
    check_version,
    create_causes,
    defaulted,
    media_type,
    named,
    ordered,
    parse_patch,
    patch_unreadable,
    refuse_invalid,
    refuse_large,
    timestamp,
    unreadable_body,
    unsupported_body,
    unsupported_patch,
)
from kevents.testing._schema import DecodeError
from kevents.testing._selectors import selector
from kevents.testing._status import (
    APIError,
    Cause,
    already_exists,
    bad_request,
    conflict,
    field_immutable,
    forbidden,
    not_found,
)
from kevents.testing._storage import CompactedError, ExistsError, MissingError, new_uid

if TYPE_CHECKING:
    from collections.abc import Callable

    from kevents.testing._kinds import Kind
    from kevents.testing._storage import Item, Store

__all__ = ["Resources"]

Object = dict[str, Any]

_SYSTEM_NAMESPACES: Final = ("default", "kube-system", "kube-public")
_KEPT: Final = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")


class Resources:
    """The verbs over a store.

    Args:
        store: Where the objects are.
        finalize_namespaces: Whether a deleted namespace goes at once; otherwise it stays `Terminating`, as it does
            on a cluster without controllers.
    """

    def __init__(self, store: Store, *, finalize_namespaces: bool) -> None:
        self.store = store
        self._finalize = finalize_namespaces

    def serve(self, call: Call) -> Reply:
        """Do what a request asks for.

        Raises:
            APIError: The request is refused.
        """
        verbs: dict[str, Callable[[Call], Reply]] = {
            "create": self._create,
            "get": self._get,
            "list": self._list,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }
        try:
            return verbs[call.verb](call)
        except MissingError:
            raise not_found(call.kind.resource, call.kind.group, call.name) from None

    def insert(self, kind: Kind, namespace: str, stored: Object, status: int = 201) -> Reply:
        """Create an object from its stored form, checked as one that came over the wire.

        Raises:
            APIError: The object is refused.
        """
        metadata = stored["metadata"]
        self._admit(kind, namespace, metadata.get("name", ""))
        name = named(metadata)
        made = defaulted(kind, {**stored, "metadata": self._filled(metadata, name, namespace)})
        refuse_invalid(kind, name, create_causes(kind, made))
        if "resourceVersion" in metadata:
            raise APIError(500, "", "resourceVersion should not be set on objects to be created")
        refuse_large(made)
        try:
            made = self.store.create(kind.bucket, namespace, name, lambda version: _versioned(made, version))
            return Reply(kind, status, (made,))
        except ExistsError:
            raise already_exists(kind.resource, kind.group, name) from None

    def _create(self, call: Call) -> Reply:
        unknown: list[str] = []
        stored = self._read_body(call, unknown)
        if call.dry_run:
            metadata = self._filled(stored["metadata"], named(stored["metadata"]), call.namespace)
            return Reply(call.kind, 201, (defaulted(call.kind, {**stored, "metadata": metadata}),))
        reply = self.insert(call.kind, call.namespace, stored)
        return Reply(call.kind, 201, reply.objects, warnings=_warnings(call, unknown))

    def _get(self, call: Call) -> Reply:
        return Reply(call.kind, 200, (self.store.get(call.kind.bucket, call.namespace, call.name),))

    def _list(self, call: Call) -> Reply:
        selects = selector(call.kind, call.query.get("fieldSelector", ""), call.query.get("labelSelector", ""))
        page = page_of(call.query)
        items, version = self._items(call, page)
        check_version(call.query.get("resourceVersion", ""), version)
        if selects:
            items = [item for item in items if selects(item[1])]
        objects, metadata = page.cut(items, version, counted=selects is None)
        return Reply(call.kind, 200, tuple(objects), metadata)

    def _items(self, call: Call, page: Page) -> tuple[list[Item], int]:
        if page.version is None or page.version == PRESENT:
            return self.store.items(call.kind.bucket, call.namespace)
        try:
            return self.store.items_at(call.kind.bucket, call.namespace, page.version), page.version
        except CompactedError:
            raise expired(page) from None

    def _update(self, call: Call) -> Reply:
        unknown: list[str] = []
        stored = self._read_body(call, unknown)
        _same_name(stored, call)
        try:
            made = self.store.modify(
                call.kind.bucket, call.namespace, call.name, lambda old: self._checked_update(call, old, dict(stored))
            )
        except MissingError:
            if call.kind.struct is None:
                raise
            return self.insert(call.kind, call.namespace, stored)
        return Reply(call.kind, 200, (made,), warnings=_warnings(call, unknown))

    def _patch(self, call: Call) -> Reply:
        content_type = media_type(call.request)
        allowed = (JSON_PATCH, MERGE) if call.kind.custom else (JSON_PATCH, MERGE, STRATEGIC)
        if content_type not in allowed:
            raise unsupported_patch(call.kind)
        old = self.store.get(call.kind.bucket, call.namespace, call.name)
        patch = parse_patch(call.request, strategic=content_type == STRATEGIC)
        if call.dry_run:
            return Reply(call.kind, 200, (self._patched(call, old, patch, content_type),))
        made = self.store.modify(
            call.kind.bucket, call.namespace, call.name, lambda now: self._patched(call, now, patch, content_type)
        )
        return Reply(call.kind, 200, (made,))

    def _patched(self, call: Call, old: Object, patch: object, content_type: str) -> Object:
        view = apply_patch(call.kind.show(old), patch, content_type)
        try:
            new = call.kind.read(view, [])
        except DecodeError as error:
            strategic = content_type == STRATEGIC
            raise patch_unreadable(patch if strategic else view, error, strategic=strategic) from None
        _same_name(new, call)
        _same_namespace(new, call)
        return self._checked_update(call, old, new)

    def _checked_update(self, call: Call, old: Object, new: Object) -> Object:
        kind, before, after = call.kind, old["metadata"], new["metadata"]
        if (version := after.get("resourceVersion")) and version != before["resourceVersion"]:
            raise conflict(kind.resource, kind.group, call.name)
        causes = []
        if after.get("uid", before["uid"]) != before["uid"]:
            causes.append(field_immutable("metadata.uid", after["uid"]))
        kept = {key: before[key] for key in _KEPT if key in before}
        new = {**new, "metadata": ordered({**after, **kept})}
        causes += metadata_causes(new["metadata"])
        if kind.struct is not None:
            causes += validate_update(new, old, kind.group)
        elif _body(new) != _body(old) and "generation" in before:
            new["metadata"]["generation"] = before["generation"] + 1
        refuse_invalid(kind, call.name, causes)
        refuse_large(new)
        return new

    def _delete(self, call: Call) -> Reply:
        old = self.store.get(call.kind.bucket, call.namespace, call.name)
        if call.kind.bucket == "namespaces." and not self._finalize:
            if call.name in _SYSTEM_NAMESPACES:
                raise forbidden("namespaces", "", call.name, "this namespace may not be deleted")
            return Reply(call.kind, 200, (self.terminate(call.name),))
        if not call.dry_run:
            self.remove(call.kind, call.namespace, call.name)
        if call.kind.bucket == "pods.":
            return Reply(call.kind, 200, (old,))
        return Reply(call.kind, 200, body=_deleted(call.kind, old))

    def _delete_collection(self, call: Call) -> Reply:
        reply = self._list(call)
        for stored in reply.objects:
            self.store.delete(call.kind.bucket, stored["metadata"].get("namespace", ""), stored["metadata"]["name"])
        return reply

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """Remove an object; with a namespace goes all that is in it.

        Raises:
            MissingError: There is no such object.
        """
        self.store.delete(kind.bucket, namespace, name)
        if kind.bucket == "namespaces.":
            self.store.empty(name)

    def terminate(self, name: str) -> Object:
        """Make a namespace `Terminating`; one that already is stays as it is.

        Raises:
            MissingError: There is no such namespace.
        """

        def ending(old: Object) -> Object:
            if "deletionTimestamp" in old["metadata"]:
                return old
            metadata = {**old["metadata"], "deletionTimestamp": timestamp(self.store.clock())}
            return {**old, "metadata": ordered(metadata), "status": {"phase": "Terminating"}}

        return self.store.modify("namespaces.", "", name, ending)

    def _read_body(self, call: Call, unknown: list[str]) -> Object:
        if media_type(call.request) not in {"", "application/json"}:
            raise unsupported_body()
        body = call.request.body
        if isinstance(body, bytes) or not call.request.raw:
            raise unreadable_body(call.kind, call.request.raw)
        try:
            stored = call.kind.read(body, unknown)
        except DecodeError as error:
            raise cannot_handle(call.kind, str(error)) from None
        if unknown and call.query.get("fieldValidation") == "Strict":
            listed = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise cannot_handle(call.kind, f"strict decoding error: {listed}")
        _same_namespace(stored, call)
        return stored

    def _admit(self, kind: Kind, namespace: str, name: str) -> None:
        if not namespace:
            return
        try:
            found = self.store.get("namespaces.", "", namespace)
        except MissingError:
            raise not_found("namespaces", "", namespace) from None
        if "deletionTimestamp" in found["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = Cause("NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace")
            raise forbidden(kind.resource, kind.group, name, why, [cause])

    def _filled(self, metadata: Object, name: str, namespace: str) -> Object:
        kept = {key: value for key, value in metadata.items() if key not in {"resourceVersion", "selfLink"}}
        now = timestamp(self.store.clock())
        filled = {**kept, "name": name, "namespace": namespace, "uid": new_uid(), "creationTimestamp": now}
        return ordered(filled)


def _versioned(made: Object, version: str) -> Object:
    return {**made, "metadata": ordered({**made["metadata"], "resourceVersion": version})}


def _body(stored: Object) -> Object:
    return {key: value for key, value in stored.items() if key not in {"metadata", "status"}}


def _deleted(kind: Kind, old: Object) -> Object:
    metadata = old["metadata"]
    details = {"name": metadata["name"], "group": kind.group, "kind": kind.resource, "uid": metadata["uid"]}
    given = {key: value for key, value in details.items() if value}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": given}


def _warnings(call: Call, unknown: list[str]) -> tuple[str, ...]:
    if call.query.get("fieldValidation") == "Ignore":
        return ()
    return tuple(f'unknown field "{path}"' for path in unknown)


def _same_name(stored: Object, call: Call) -> None:
    if (name := stored["metadata"].get("name", "")) != call.name:
        message = f"the name of the object ({name}) does not match the name on the URL ({call.name})"
        raise bad_request(message)


def _same_namespace(stored: Object, call: Call) -> None:
    if stored["metadata"].get("namespace", call.namespace) != call.namespace and call.kind.namespaced:
        message = "the namespace of the provided object does not match the namespace sent on the request"
        raise bad_request(message)
