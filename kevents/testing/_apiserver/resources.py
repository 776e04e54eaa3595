"""What a request does to the stored objects: create, read, change, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.calls import Call, Reply
from kevents.testing._apiserver.deletes import Deletes
from kevents.testing._apiserver.events import validate_update
from kevents.testing._apiserver.names import metadata_causes
from kevents.testing._apiserver.options import check_list, is_dry_run
from kevents.testing._apiserver.pages import PRESENT, Page, expired, page_of
from kevents.testing._apiserver.patch import JSON_PATCH, MERGE, STRATEGIC, apply_patch
from kevents.testing._apiserver.rules import (
    cannot_handle,
    check_version,
    create_causes,
    defaulted,
    deletion_causes,
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
from kevents.testing._apiserver.schema import DecodeError
from kevents.testing._apiserver.selectors import selector
from kevents.testing._apiserver.status import (
    APIError,
    Cause,
    already_exists,
    bad_request,
    conflict,
    field_immutable,
    forbidden,
    invalid,
    not_found,
)
from kevents.testing._apiserver.storage import CompactedError, ExistsError, MissingError, new_uid

if TYPE_CHECKING:
    from collections.abc import Callable

    from kevents.testing._apiserver.kinds import Kind
    from kevents.testing._apiserver.storage import Item, Store

__all__ = ["Resources"]

Object = dict[str, Any]

_VERSION_FIELD: Final = "metadata.resourceVersion"
_KEPT: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


class Resources:
    """The verbs over a store.

    Args:
        store: Where the objects are.
        finalize_namespaces: As of `Deletes`.
    """

    def __init__(self, store: Store, *, finalize_namespaces: bool) -> None:
        self.store = store
        self.deletes: Final = Deletes(store, finalize_namespaces=finalize_namespaces)

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
            "delete": self.deletes.one,
            "deletecollection": lambda call: self.deletes.all(call, self._list),
        }
        try:
            return verbs[call.verb](call)
        except MissingError:
            raise not_found(call.kind.resource, call.kind.group, call.name) from None

    def insert(self, kind: Kind, namespace: str, stored: Object, *, dry_run: bool = False) -> Reply:
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
            made = self.store.create(
                kind.bucket, namespace, name, lambda version: _versioned(made, version), dry_run=dry_run
            )
            return Reply(kind, 201, (made,))
        except ExistsError:
            raise already_exists(kind.resource, kind.group, name) from None

    def _create(self, call: Call) -> Reply:
        unknown: list[str] = []
        stored = self._read_body(call, unknown)
        reply = self.insert(call.kind, call.namespace, stored, dry_run=is_dry_run(call))
        return Reply(call.kind, 201, reply.objects, warnings=_warnings(call, unknown))

    def _get(self, call: Call) -> Reply:
        return Reply(call.kind, 200, (self.store.get(call.kind.bucket, call.namespace, call.name),))

    def _list(self, call: Call) -> Reply:
        selects = selector(call.kind, call.query.get("fieldSelector", ""), call.query.get("labelSelector", ""))
        check_list(call.query)
        page = page_of(call.query)
        check_version(call.query.get("resourceVersion", ""), self.store.version)
        items, version = self._items(call, page)
        objects, metadata = page.cut(items, version, selects)
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
                call.kind.bucket,
                call.namespace,
                call.name,
                lambda old: self._replaced(call, old, dict(stored)),
                dry_run=is_dry_run(call),
            )
        except MissingError:
            if call.kind.struct is None:
                raise
            stored["metadata"].pop("resourceVersion", None)  # of what it was: it is no conflict with nothing
            return self.insert(call.kind, call.namespace, stored, dry_run=is_dry_run(call))
        return Reply(call.kind, 200, (made,), warnings=_warnings(call, unknown))

    def _replaced(self, call: Call, old: Object, new: Object) -> Object:
        if call.kind.custom and not new["metadata"].get("resourceVersion"):
            cause = Cause("FieldValueInvalid", "Invalid value: 0: must be specified for an update", _VERSION_FIELD)
            raise invalid(call.kind.resource, call.name, [cause], call.kind.group)
        return self._checked_update(call, old, new)

    def _patch(self, call: Call) -> Reply:
        content_type = media_type(call.request)
        allowed = (JSON_PATCH, MERGE) if call.kind.custom else (JSON_PATCH, MERGE, STRATEGIC)
        if content_type not in allowed:
            raise unsupported_patch(call.kind)
        self.store.get(call.kind.bucket, call.namespace, call.name)
        unknown: list[str] = []
        patch = parse_patch(call.request, strategic=content_type == STRATEGIC)
        made = self.store.modify(
            call.kind.bucket,
            call.namespace,
            call.name,
            lambda now: self._patched(call, now, patch, content_type, unknown),
            dry_run=is_dry_run(call),
        )
        return Reply(call.kind, 200, (made,), warnings=_warnings(call, unknown))

    def _patched(self, call: Call, old: Object, patch: object, content_type: str, unknown: list[str]) -> Object:
        view = apply_patch(call.kind.show(old), patch, content_type)
        try:
            new = call.kind.read(view, unknown)
            _refuse_unknown(call, unknown)
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
        causes += deletion_causes(before, after)
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

    def _read_body(self, call: Call, unknown: list[str]) -> Object:
        if media_type(call.request) not in {"", "application/json"}:
            raise unsupported_body()
        body = call.request.body
        if isinstance(body, bytes) or not call.request.raw:
            raise unreadable_body(call.kind, call.request.raw)
        try:
            stored = call.kind.read(body, unknown)
            _refuse_unknown(call, unknown)
        except DecodeError as error:
            raise cannot_handle(call.kind, str(error)) from None
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


def _refuse_unknown(call: Call, unknown: list[str]) -> None:
    if unknown and call.query.get("fieldValidation") == "Strict":
        raise DecodeError("strict decoding error: " + ", ".join(f'unknown field "{path}"' for path in unknown))


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
